//! What a reader of recordings must know of the tables, and what must hold of records: anybody may have written them.

use crate::access;
use crate::field::Record;
use crate::item::{COMMAND, SCOPE, SHOWN};
use crate::table::{Part, Schema};
use crate::tables::TABLES;

/// The tables of a tool that have this part, in the order in which a run writes them.
pub fn tables(tool: &str, of: Part) -> Vec<&'static Schema> {
    let own = TABLES.iter().copied().filter(|table| table.tool() == tool && table.part() == of);
    let mut tables: Vec<&Schema> = own.collect();
    if of == Part::Facts {
        tables.insert(0, &COMMAND);
    }
    if of == Part::Settings {
        tables.insert(tables.len().min(1), &SCOPE);
        tables.push(&SHOWN);
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
