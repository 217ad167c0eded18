//! What was taken and not written, table by table.

use std::collections::BTreeMap;
use std::time::Instant;

use trapline_model::recorded::{ENTRY, Entry, EntryKind};
use trapline_model::{Block, Facts, RUN, Record, Schema};

use super::columns::{Columns, Lead};

/// What was taken and not written.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) tables: BTreeMap<(EntryKind, &'static str), Columns>,
    /// When the first of it was taken.
    pub(super) since: Option<Instant>,
    /// The times of its items: the least and the greatest.
    pub(super) times: Option<(u64, u64)>,
    /// The number of messages that came meanwhile.
    pub(super) messages: u64,
}

impl Pending {
    pub(super) fn bytes(&self) -> usize {
        self.tables.values().map(Columns::bytes).sum()
    }

    pub(super) fn row(&mut self, kind: EntryKind, item: u64, time_ns: u64, record: &Record) {
        self.columns(kind, record.schema()).push(item, "", time_ns, record);
    }

    pub(super) fn columns(&mut self, kind: EntryKind, table: &'static Schema) -> &mut Columns {
        self.tables.entry((kind, table.id())).or_insert_with(|| Columns::new(table, Lead::Item))
    }

    /// What is no item of the stream.
    pub(super) fn aside(&mut self, time_ns: u64) {
        self.since.get_or_insert_with(Instant::now);
        let (from, to) = self.times.unwrap_or((time_ns, time_ns));
        self.times = Some((from.min(time_ns), to.max(time_ns)));
    }

    /// An item of events, of which the rows are there.
    pub(super) fn events(&mut self, item: u64, time_ns: u64, table: &'static Schema, rows: usize) {
        let tables = table.id().into();
        let entry = Entry { kind: EntryKind::Events, tables, rows, hidden: 0, since_ns: None };
        self.entry(item, time_ns, &entry);
    }

    /// An item; its rows come before it.
    pub(super) fn entry(&mut self, item: u64, time_ns: u64, entry: &Entry) {
        self.row(EntryKind::Items, item, time_ns, &ENTRY.record(entry));
        self.aside(time_ns);
    }

    pub(super) fn block(&mut self, kind: EntryKind, item: u64, block: &Block) {
        block.rows.iter().for_each(|row| self.row(kind, item, block.time_ns, row));
        block.sum.iter().for_each(|sum| self.row(EntryKind::Sums, item, block.time_ns, sum));
        let entry = Entry {
            kind,
            tables: block.table.id().into(),
            rows: block.rows.len(),
            hidden: block.hidden,
            since_ns: block.since_ns,
        };
        self.entry(item, block.time_ns, &entry);
    }

    pub(super) fn facts(&mut self, item: u64, time_ns: u64, facts: &Facts) {
        let records = [RUN.record(facts)];
        let records = records.iter().chain(&facts.more);
        records.clone().for_each(|record| self.row(EntryKind::Facts, item, time_ns, record));
        let tables: Vec<&str> = records.map(|record| record.schema().id()).collect();
        let entry = Entry {
            kind: EntryKind::Facts,
            tables: tables.join(","),
            rows: tables.len(),
            hidden: 0,
            since_ns: None,
        };
        self.entry(item, time_ns, &entry);
    }
}
