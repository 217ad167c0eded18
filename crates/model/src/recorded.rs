//! What a reader of recordings must know of the tables, and what must hold of records: anybody may have written them.

use crate::access;
use crate::field::{Kind, Record, Unit};
use crate::hosts::with_host;
use crate::item::{COMMAND, CUT_OFF, SCOPE, SHOWN, WHOLE_RUN};
use crate::kept::KEPT;
use crate::merge::RECORDINGS;
use crate::table::{Part, Schema, Table, count, label, number};
use crate::tables::TABLES;

/// What an item of a stream is, where a recording keeps items and the rows in them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// Events.
    Events,
    /// The rows of an interval.
    Rows,
    /// Totals.
    Totals,
    /// The sums of rows and totals; no item.
    Sums,
    /// What was counted and lost up to a moment.
    Facts,
    /// The end of an interval.
    Tick,
    /// The names of stacks; no item.
    Frames,
    /// The items themselves; no item.
    Items,
}

impl EntryKind {
    const ALL: [Self; 8] = [
        Self::Events,
        Self::Rows,
        Self::Totals,
        Self::Sums,
        Self::Facts,
        Self::Tick,
        Self::Frames,
        Self::Items,
    ];

    /// Its name in recordings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Rows => "rows",
            Self::Totals => "totals",
            Self::Sums => "sums",
            Self::Facts => "facts",
            Self::Tick => "tick",
            Self::Frames => "frames",
            Self::Items => "items",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// An item of a recorded stream, without its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The tables of its rows, with `,` between.
    pub tables: String,
    /// The number of its rows.
    pub rows: usize,
    /// The rows that `--top` left out.
    pub hidden: usize,
    /// See [`Block::since_ns`](crate::Block).
    pub since_ns: Option<u64>,
}

/// The items of a recorded stream, as records.
#[rustfmt::skip]
pub static ENTRY: Table<Entry> = Table::facts("trapline.items", "trapline", &[&[
    label("kind", "The kind of the item: events, rows, totals, facts or tick, the end of an interval.", |e: &Entry| e.kind.name().into()),
    label("tables", "The tables of the rows in the item, with commas between.", |e: &Entry| e.tables.as_str().into()),
    count("rows", "The rows in the item.", |e: &Entry| (e.rows as u64).into()),
    count("hidden", "The rows that --top left out of the item.", |e: &Entry| (e.hidden as u64).into()),
    number("since_ns", (Unit::Nanoseconds, Kind::Label), "When the figures of its rows began to grow.", |e: &Entry| e.since_ns.into()),
]]);

/// The tables of a tool that have this part, in the order in which a run writes them.
pub fn tables(tool: &str, of: Part) -> Vec<&'static Schema> {
    let own = TABLES.iter().copied().filter(|table| table.tool() == tool && table.part() == of);
    let mut tables: Vec<&Schema> = own.collect();
    if of == Part::Facts {
        tables.insert(0, &COMMAND);
        tables.extend([&WHOLE_RUN as &Schema, &CUT_OFF]);
    }
    if of == Part::Settings {
        tables.insert(tables.len().min(1), &SCOPE);
        tables.extend([&KEPT as &Schema, &RECORDINGS, &SHOWN]);
    }
    tables
}

/// Whether a record can be one of its table.
///
/// # Errors
/// The first field that cannot be, and why.
pub fn check(record: &Record) -> Result<(), (&'static str, String)> {
    if is_of_accesses(record) { access::check(record) } else { Ok(()) }
}

/// Whether it is an event of `access`, also one with the name of its machine.
fn is_of_accesses(record: &Record) -> bool {
    let table = record.schema();
    table == access::EVENT || table.tool() == access::EVENT.tool() && with_host(access::EVENT) == Some(table)
}

/// Whether the end of a run of this tool counts events one by one, and nothing else.
#[must_use]
pub fn counts_events(tool: &str) -> bool {
    tool == access::EVENT.tool()
}

/// Whether an event is among those.
#[must_use]
pub fn is_counted(event: &Record) -> bool {
    is_of_accesses(event) && access::is_counted(event)
}
