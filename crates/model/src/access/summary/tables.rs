//! The tables of a summary: from counts to rows.

use std::collections::HashMap;

use super::View;
use super::pages::{Account, Counts, Page, Pages, Writers};
use super::reuse::Distances;
use super::schema::{MAPPINGS, MISS_RATIO, PAGES, READS_WRITES, REUSE, SHARING};
use super::trace::{PAGE, Words};
use super::window::Touched;
use crate::field::Record;
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
        Block { sum, hidden, ..Block::new(view.schema(), time_ns, rows) }
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

    /// Of a page: whose it is, and where.
    fn spot(&self, view: View, page: &Page, counts: Counts) -> Spot {
        let space = self.words.of(page.space);
        Spot {
            view: Some(view),
            whose: Some((space.pid, space.from_ns)),
            comm: space.comm.clone(),
            counts,
            start: Some(page.page * PAGE),
            offset: self.words.offset(page.mapping, page.page),
            file: Some(self.words.file(page.mapping).to_owned()),
            ..Spot::default()
        }
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
            MAPPINGS.record(&Spot {
                pages: Some(range.pages),
                end: Some((range.last.page + 1).saturating_mul(PAGE)),
                ..self.spot(View::Mappings, &range.first, range.counts)
            })
        };
        let rows = ranges.iter().take(self.top).map(row).collect();
        let touched: u64 = ranges.iter().map(|range| range.pages).sum();
        let sum = Spot { pages: Some(touched), ..Spot::total(View::Mappings, self.account.sum) };
        (rows, Some(MAPPINGS.record(&sum)), hidden)
    }

    fn hottest(&self) -> (Vec<Record>, Option<Record>, usize) {
        let mut pages: Vec<(u32, &Counts)> = self.account.accessed().collect();
        pages.sort_unstable_by_key(|&(number, counts)| {
            let page = self.pages.of(number);
            (std::cmp::Reverse(counts.accesses), page.space, page.page)
        });
        let hidden = pages.len().saturating_sub(self.top);
        let row = |&(number, counts): &(u32, &Counts)| {
            PAGES.record(&self.spot(View::Pages, self.pages.of(number), *counts))
        };
        let rows = pages.iter().take(self.top).map(row).collect();
        let sum = PAGES.record(&Spot::total(View::Pages, self.account.sum));
        (rows, Some(sum), hidden)
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
            let spot = self.spot(View::ReadsWrites, page, ways.counts);
            READS_WRITES.record(&Spot { pages: Some(ways.pages), ways: *ways, ..spot })
        };
        let rows = spaces.iter().take(self.top).map(row).collect();
        let total = Spot::total(View::ReadsWrites, sum.counts);
        let sum = Spot { pages: Some(sum.pages), ways: sum, ..total };
        (rows, Some(READS_WRITES.record(&sum)), hidden)
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
            let counts = Counts { writes: *writes, ..Counts::default() };
            SHARING.record(&Spot {
                threads: Some(writers.len() as u64),
                writers: Some(named(writers)),
                ..self.spot(View::Sharing, self.pages.of(*number), counts)
            })
        };
        let rows = pages.iter().take(self.top).map(row).collect();
        let writes = pages.iter().map(|&(.., writes)| writes).sum();
        let sum = Spot::total(View::Sharing, Counts { writes, ..Counts::default() });
        (rows, Some(SHARING.record(&sum)), hidden)
    }

    fn reuse(&self) -> Record {
        let accesses = self.account.sum.accesses;
        REUSE.record(&Reuse { accesses, distances: self.account.distances.clone() })
    }

    fn miss_ratio(&self) -> Vec<Record> {
        let accesses = self.account.sum.accesses;
        let row = |(pages, misses)| MISS_RATIO.record(&Misses { pages, accesses, misses });
        self.account.distances.misses().into_iter().map(row).collect()
    }
}

/// A page, a mapping or a program, and what was done to it.
#[derive(Default)]
pub(super) struct Spot {
    pub(super) view: Option<View>,
    /// The process, and since when; nothing for a sum.
    pub(super) whose: Option<(u32, u64)>,
    pub(super) comm: String,
    pub(super) counts: Counts,
    pub(super) pages: Option<u64>,
    pub(super) ways: Ways,
    pub(super) start: Option<u64>,
    pub(super) end: Option<u64>,
    pub(super) offset: Option<u64>,
    pub(super) file: Option<String>,
    pub(super) threads: Option<u64>,
    pub(super) writers: Option<String>,
}

impl Spot {
    /// The sum of a table.
    fn total(view: View, counts: Counts) -> Self {
        Self { view: Some(view), comm: "TOTAL".into(), counts, ..Self::default() }
    }
}

/// Reuse distances.
pub(super) struct Reuse {
    pub(super) accesses: u64,
    pub(super) distances: Distances,
}

/// What would miss in memory of a size.
pub(super) struct Misses {
    pub(super) pages: u64,
    pub(super) accesses: u64,
    pub(super) misses: u64,
}

impl Misses {
    pub(super) fn share(&self) -> u64 {
        (u128::from(self.misses) * MILLION).checked_div(self.accesses.into()).unwrap_or(0) as u64
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
pub(super) struct Ways {
    counts: Counts,
    pages: u64,
    pub(super) only_read: u64,
    pub(super) only_written: u64,
    pub(super) both: u64,
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
}
