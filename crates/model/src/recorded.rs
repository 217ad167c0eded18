//! What a reader of recordings must know of the tables, and what must hold of records: anybody may have written them.

use crate::access;
use crate::field::Record;
use crate::item::{SCOPE, SHOWN_OF};
use crate::table::Schema;
use crate::tables::TABLES;

/// What part a table has in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its records are the header's settings.
    Settings,
    /// Its records are what was lost and reached.
    Facts,
    /// Its records are rows, totals or events.
    Rows,
}

/// The part of a table, which its name tells.
#[must_use]
pub fn part(table: &Schema) -> Part {
    let (_, name) = table.id().split_once('.').unwrap_or_default();
    match name {
        name if name.ends_with("settings") || table == SCOPE || table == SHOWN_OF => Part::Settings,
        name if name.ends_with("losses") || name == "reached" || name == "run" => Part::Facts,
        _ => Part::Rows,
    }
}

/// The tables of a tool that have this part, in the order in which a run writes them.
pub fn tables(tool: &str, of: Part) -> Vec<&'static Schema> {
    let own = TABLES.iter().copied().filter(|table| table.tool() == tool && part(*table) == of);
    let mut tables: Vec<&Schema> = own.collect();
    if of == Part::Settings {
        tables.insert(tables.len().min(1), SCOPE);
        tables.push(SHOWN_OF);
    }
    tables
}

/// Whether a record can be one of its table.
///
/// # Errors
/// The first field that cannot be, and why.
pub fn check(record: &Record) -> Result<(), (&'static str, String)> {
    if record.schema() == access::EVENT { access::check(record) } else { Ok(()) }
}

/// Whether the end of a run of this tool counts events one by one, and nothing else.
#[must_use]
pub fn counts_events(tool: &str) -> bool {
    tool == access::EVENT.tool()
}

/// Whether an event is among those.
#[must_use]
pub fn is_counted(event: &Record) -> bool {
    event.schema() == access::EVENT && access::is_counted(event)
}
