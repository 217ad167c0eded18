//! The tables of a summary: from counts to rows.

use std::collections::HashMap;

use super::pages::{Account, Counts, Page, Pages, Writers};
use super::trace::{PAGE, Words};
use super::window::Touched;
use super::{MAPPINGS, MISS_RATIO, PAGES, READS_WRITES, REUSE, SHARING, View};
use crate::field::{Record, Schema, Value};
use crate::item::Block;

/// Pages of a mapping that are further apart than this belong to different rows.
const GAP: u64 = (1 << 20) / PAGE;
/// So many threads of a shared page are named.
const NAMED: usize = 8;
/// Parts of a whole.
const MILLION: u128 = 1_000_000;

/// What the tables are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) words: &'a Words,
    pub(super) pages: &'a Pages,
    pub(super) account: &'a Account,
    /// Rows that are shown of tables without an end.
    pub(super) top: usize,
}

impl Made<'_> {
    /// The table of a view; the working set is not made here.
    pub(super) fn table(&self, view: View) -> (Vec<Record>, Option<Record>, usize) {
        match view {
            View::WorkingSet => (vec![], None, 0),
            View::Mappings => self.mappings(),
            View::Pages => self.hottest(),
            View::ReadsWrites => self.reads_and_writes(),
            View::Sharing => self.sharing(),
            View::Reuse => (vec![self.reuse()], None, 0),
            View::MissRatio => (self.miss_ratio(), None, 0),
        }
    }

    /// The same as the rows of a moment.
    pub(super) fn block(&self, view: View, time_ns: u64) -> Block {
        let (rows, sum, hidden) = self.table(view);
        Block { time_ns, rows, sum, hidden }
    }

    /// All that was touched.
    pub(super) fn touched(&self) -> Touched {
        let mut touched = Touched { counts: self.account.sum, ..Touched::default() };
        for (_, counts) in self.account.accessed() {
            touched.pages += 1;
            touched.read += u64::from(counts.reads > 0);
            touched.written += u64::from(counts.writes > 0);
        }
        touched.new = self.account.distances.cold();
        touched
    }

    fn whose(&self, view: View, page: &Page) -> [Value; 4] {
        let space = self.words.of(page.space);
        [view.name().into(), space.pid.into(), space.from_ns.into(), space.comm.as_str().into()]
    }

    fn mappings(&self) -> (Vec<Record>, Option<Record>, usize) {
        let mut pages: Vec<(Page, &Counts)> =
            self.account.accessed().map(|(number, counts)| (*self.pages.of(number), counts)).collect();
        pages.sort_unstable_by_key(|(page, _)| (page.space, page.mapping, page.page));
        let mut ranges: Vec<Range> = Vec::new();
        for (page, counts) in pages {
            match ranges.last_mut().filter(|range| range.reaches(&page)) {
                Some(range) => {
                    range.last = page;
                    range.pages += 1;
                    range.counts += *counts;
                }
                None => ranges.push(Range { first: page, last: page, pages: 1, counts: *counts }),
            }
        }
        // Stable: equal ones stay in the order of processes and addresses.
        ranges.sort_by_key(|range| std::cmp::Reverse(range.counts.accesses));
        let hidden = ranges.len().saturating_sub(self.top);
        let row = |range: &Range| {
            let mut values = self.whose(View::Mappings, &range.first).to_vec();
            values.extend(range.counts.values());
            values.extend([
                range.pages.into(),
                (range.pages * PAGE).into(),
                (range.first.page * PAGE).into(),
                (range.last.page + 1).saturating_mul(PAGE).into(),
            ]);
            values.extend(self.place(&range.first));
            Record::new(MAPPINGS, values)
        };
        let rows = ranges.iter().take(self.top).map(row).collect();
        let touched: u64 = ranges.iter().map(|range| range.pages).sum();
        let mut sum = total(View::Mappings);
        sum.extend(self.account.sum.values());
        sum.extend([touched.into(), (touched * PAGE).into()]);
        (rows, Some(padded(MAPPINGS, sum)), hidden)
    }

    fn hottest(&self) -> (Vec<Record>, Option<Record>, usize) {
        let mut pages: Vec<(u32, &Counts)> = self.account.accessed().collect();
        pages.sort_unstable_by_key(|&(number, counts)| {
            let page = self.pages.of(number);
            (std::cmp::Reverse(counts.accesses), page.space, page.page)
        });
        let hidden = pages.len().saturating_sub(self.top);
        let row = |&(number, counts): &(u32, &Counts)| {
            let page = self.pages.of(number);
            let mut values = self.whose(View::Pages, page).to_vec();
            values.push((page.page * PAGE).into());
            values.extend(counts.values());
            values.extend(self.place(page));
            Record::new(PAGES, values)
        };
        let rows = pages.iter().take(self.top).map(row).collect();
        let mut sum = total(View::Pages);
        sum.push(Value::Null);
        sum.extend(self.account.sum.values());
        (rows, Some(padded(PAGES, sum)), hidden)
    }

    fn place(&self, page: &Page) -> [Value; 2] {
        [self.words.offset(page.mapping, page.page).into(), self.words.file(page.mapping).into()]
    }

    fn reads_and_writes(&self) -> (Vec<Record>, Option<Record>, usize) {
        let mut spaces: HashMap<u32, (Page, Ways)> = HashMap::new();
        let mut sum = Ways::default();
        for (number, counts) in self.account.accessed() {
            let page = *self.pages.of(number);
            spaces.entry(page.space).or_insert((page, Ways::default())).1.add(counts);
            sum.add(counts);
        }
        let mut spaces: Vec<(Page, Ways)> = spaces.into_values().collect();
        spaces.sort_unstable_by_key(|(page, ways)| (std::cmp::Reverse(ways.counts.accesses), page.space));
        let hidden = spaces.len().saturating_sub(self.top);
        let row = |(page, ways): &(Page, Ways)| {
            let mut values = self.whose(View::ReadsWrites, page).to_vec();
            values.extend(ways.values());
            Record::new(READS_WRITES, values)
        };
        let rows = spaces.iter().take(self.top).map(row).collect();
        let mut values = total(View::ReadsWrites);
        values.extend(sum.values());
        (rows, Some(padded(READS_WRITES, values)), hidden)
    }

    fn sharing(&self) -> (Vec<Record>, Option<Record>, usize) {
        let mut pages: Vec<(u32, Writers, u64)> = self
            .account
            .shared()
            .map(|(number, writers)| {
                let writes = writers.iter().map(|&(_, writes)| writes).sum();
                (number, writers, writes)
            })
            .collect();
        pages.sort_unstable_by_key(|&(number, _, writes)| {
            let page = self.pages.of(number);
            (std::cmp::Reverse(writes), page.space, page.page)
        });
        let hidden = pages.len().saturating_sub(self.top);
        let row = |(number, writers, writes): &(u32, Writers, u64)| {
            let page = self.pages.of(*number);
            let mut values = self.whose(View::Sharing, page).to_vec();
            values.extend([
                (page.page * PAGE).into(),
                (writers.len() as u64).into(),
                (*writes).into(),
                Value::Str(named(writers)),
            ]);
            values.extend(self.place(page));
            Record::new(SHARING, values)
        };
        let rows = pages.iter().take(self.top).map(row).collect();
        let mut sum = total(View::Sharing);
        let writes: u64 = pages.iter().map(|&(.., writes)| writes).sum();
        sum.extend([Value::Null, Value::Null, writes.into()]);
        (rows, Some(padded(SHARING, sum)), hidden)
    }

    fn reuse(&self) -> Record {
        let distances = &self.account.distances;
        let values = vec![
            View::Reuse.name().into(),
            self.account.sum.accesses.into(),
            distances.cold().into(),
            distances.reused().into(),
            distances.mean().into(),
            distances.quantile(50).into(),
            distances.quantile(90).into(),
            distances.quantile(99).into(),
            distances.max().into(),
            Value::Buckets(distances.buckets()),
        ];
        Record::new(REUSE, values)
    }

    fn miss_ratio(&self) -> Vec<Record> {
        let accesses = self.account.sum.accesses;
        let row = |(pages, misses): (u64, u64)| {
            let share = (u128::from(misses) * MILLION).checked_div(accesses.into()).unwrap_or(0) as u64;
            let values = vec![
                View::MissRatio.name().into(),
                pages.into(),
                (pages * PAGE).into(),
                accesses.into(),
                misses.into(),
                share.into(),
            ];
            Record::new(MISS_RATIO, values)
        };
        self.account.distances.misses().into_iter().map(row).collect()
    }
}

/// Pages of one mapping, next to each other or nearly so.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: Page,
    last: Page,
    pages: u64,
    counts: Counts,
}

impl Range {
    /// Whether a page with a higher address belongs to it.
    fn reaches(&self, page: &Page) -> bool {
        (self.last.space, self.last.mapping) == (page.space, page.mapping)
            && page.page - self.last.page <= GAP
    }
}

/// The beginning of a sum's values: whose it is.
fn total(view: View) -> Vec<Value> {
    vec![view.name().into(), Value::Null, Value::Null, "TOTAL".into()]
}

/// A record whose last values mean nothing.
fn padded(schema: &'static Schema, mut values: Vec<Value>) -> Record {
    values.resize(schema.len(), Value::Null);
    Record::new(schema, values)
}

/// `1718:23 1719:21`, thread and writes, and how many more there are.
fn named(writers: &Writers) -> String {
    let mut words: Vec<String> =
        writers.iter().take(NAMED).map(|(tid, writes)| format!("{tid}:{writes}")).collect();
    if writers.len() > NAMED {
        words.push(format!("+{}", writers.len() - NAMED));
    }
    words.join(" ")
}

/// Pages by what was done to them.
#[derive(Debug, Clone, Copy, Default)]
struct Ways {
    counts: Counts,
    pages: u64,
    only_read: u64,
    only_written: u64,
    both: u64,
}

impl Ways {
    fn add(&mut self, counts: &Counts) {
        self.counts += *counts;
        self.pages += 1;
        match (counts.reads > 0, counts.writes > 0) {
            (true, true) => self.both += 1,
            (true, false) => self.only_read += 1,
            (false, true) => self.only_written += 1,
            (false, false) => {}
        }
    }

    fn values(&self) -> impl Iterator<Item = Value> {
        let pages = [self.pages, self.only_read, self.only_written, self.both].map(Value::U64);
        self.counts.values().into_iter().chain(pages)
    }
}
