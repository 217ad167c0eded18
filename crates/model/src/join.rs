//! Rows that were recorded, put together: those of several recordings, or of several intervals.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;

use crate::field::Value;
use crate::item::{Block, Header, Item, Source, WHOLE_RUN, WholeRun};
use crate::stage::pump_intact;
use crate::table::Schema;

/// How recorded rows are put together.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Rows at intervals of this length; else as they are recorded, if they are of one recording.
    pub interval_ns: Option<u64>,
    /// Rows whose interval has its middle, and events, at these times.
    pub times_ns: RangeInclusive<u64>,
    /// The rows are of several recordings.
    pub several: bool,
    /// Rows are since the start.
    pub cumulative: bool,
}

/// Puts rows and totals with the same keys together, as their columns declare.
#[derive(Debug)]
pub struct Join<S: Source> {
    source: S,
    how: Joining,
    start_ns: u64,
    /// The end of the interval.
    until_ns: u64,
    now: Vec<Block>,
    totals: Vec<Block>,
    is_all: bool,
    /// The end of the last rows.
    last_ns: u64,
    ready: VecDeque<Item>,
    /// Why nothing more comes, once all that did was given.
    error: Option<S::Error>,
}

impl<S: Source> Join<S> {
    /// Over the stream of recordings.
    pub fn new(source: S, how: Joining) -> Self {
        Self {
            source,
            start_ns: 0,
            until_ns: u64::MAX,
            now: vec![],
            totals: vec![],
            is_all: how.times_ns == (0..=u64::MAX),
            last_ns: 0,
            ready: VecDeque::new(),
            error: None,
            how,
        }
    }

    fn header(&mut self, header: &Header) {
        self.start_ns = header.start_ns;
        let from = header.start_ns.max(*self.how.times_ns.start());
        self.until_ns = self.how.interval_ns.map_or(u64::MAX, |interval| from.saturating_add(interval));
    }

    fn rows(&mut self, block: Block) {
        let moment_ns = block.moment_ns();
        if !self.how.times_ns.contains(&moment_ns) {
            return;
        }
        self.last_ns = self.last_ns.max(block.time_ns);
        if !self.is_all {
            add(&mut self.totals, block.clone());
        }
        if self.how.interval_ns.is_some() {
            self.pass(moment_ns);
            add(&mut self.now, block);
        } else if self.how.cumulative {
            add(&mut self.now, block);
            self.give();
        } else if !self.how.several {
            self.ready.push_back(Item::Rows(block));
        }
    }

    fn give(&mut self) {
        let time_ns = self.until_ns;
        let blocks = if self.how.cumulative { self.now.clone() } else { std::mem::take(&mut self.now) };
        let of_interval = |block: Block| match self.how.interval_ns {
            Some(_) => Block { time_ns, ..block },
            None => block,
        };
        self.ready.extend(blocks.into_iter().map(|block| Item::Rows(of_interval(block))));
    }

    /// Ends the intervals before this moment.
    fn pass(&mut self, time_ns: u64) {
        while let Some(interval) =
            self.how.interval_ns.filter(|_| time_ns >= self.until_ns && self.until_ns < u64::MAX)
        {
            self.give();
            self.ready.push_back(Item::Tick(self.until_ns));
            let rows =
                if self.how.cumulative { self.now.iter().map(|block| block.rows.len()).sum() } else { 0 };
            self.until_ns = next_end(self.until_ns, interval, time_ns, rows);
        }
    }

    fn end(&mut self, time_ns: u64) {
        self.pass(time_ns);
        if self.how.interval_ns.is_some() && !self.now.is_empty() {
            self.until_ns = time_ns;
            self.give();
        }
        let since_ns = self.start_ns.max(*self.how.times_ns.start());
        for block in std::mem::take(&mut self.totals) {
            self.ready.push_back(Item::Totals(Block { time_ns, since_ns: Some(since_ns), ..block }));
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Header(header) => {
                self.header(&header);
                self.ready.push_back(Item::Header(header));
            }
            Item::Rows(block) => self.rows(block),
            Item::Totals(block) => {
                if self.is_all {
                    add(&mut self.totals, block);
                }
            }
            Item::Events(mut events) => {
                events.retain(|event| self.how.times_ns.contains(&event.time_ns));
                self.ready.push_back(Item::Events(events));
            }
            Item::Tick(_) if self.how.interval_ns.is_some() => {}
            Item::Facts(_) | Item::Tick(_) => self.ready.push_back(item),
            Item::End(mut end) => {
                if !self.is_all {
                    end.set(WHOLE_RUN.record(&WholeRun));
                }
                let end_ns = self.start_ns.saturating_add(end.duration_ns).min(*self.how.times_ns.end());
                self.end(end_ns);
                self.ready.push_back(Item::End(end));
            }
        }
    }
}

/// The most rows of intervals in which nothing happened; more are a moment that is wrong.
const IDLE_ROWS: u64 = 1_000_000;

/// When the next interval ends, after one that ended at `until_ns`; the next thing happens at `time_ns`. Intervals in between have that
/// number of rows each. Where they were too many, none of them is shown.
pub(crate) fn next_end(until_ns: u64, interval_ns: u64, time_ns: u64, rows: usize) -> u64 {
    let interval_ns = interval_ns.max(1);
    let idle = time_ns.saturating_sub(until_ns) / interval_ns;
    let skipped = if idle.saturating_mul(rows.max(10) as u64) > IDLE_ROWS { idle } else { 0 };
    until_ns.saturating_add(interval_ns.saturating_mul(skipped + 1))
}

/// Adds rows to those of their table.
fn add(blocks: &mut Vec<Block>, block: Block) {
    let Some(own) = blocks.iter_mut().find(|own| own.table == block.table) else {
        blocks.push(block);
        return;
    };
    own.time_ns = own.time_ns.max(block.time_ns);
    own.since_ns = own.since_ns.min(block.since_ns);
    own.hidden += block.hidden;
    match (&mut own.sum, block.sum) {
        (Some(sum), Some(other)) => sum.join(&other),
        (sum @ None, other) => *sum = other,
        (Some(_), None) => {}
    }
    let keys = keys(block.table);
    let of = |values: &[Value]| keys.iter().map(|at| values[*at].clone()).collect::<Vec<_>>();
    let places: HashMap<Vec<Value>, usize> =
        own.rows.iter().enumerate().map(|(at, row)| (of(&row.values), at)).collect();
    for row in block.rows {
        match places.get(&of(&row.values)) {
            Some(at) => own.rows[*at].join(&row),
            None => own.rows.push(row),
        }
    }
}

/// The places of the columns that tell rows apart.
fn keys(table: &Schema) -> Vec<usize> {
    table.keys().iter().copied().filter(|at| *at < table.shown()).collect()
}

impl<S: Source> Source for Join<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        pump_intact(
            self,
            |stage| (&mut stage.ready, &mut stage.error),
            |stage| stage.source.next(),
            Self::take,
            // Without an end: the totals are of all that is intact.
            |stage| stage.end(stage.last_ns),
        )
    }
}

/// The totals of a recording that was not ended, as a kill leaves it: the rows of its intervals, added up.
#[derive(Debug, Default)]
pub struct AddedUp {
    start_ns: u64,
    is_cumulative: bool,
    totals: Vec<Block>,
    /// The recording has its own, or none can be made.
    has_none: bool,
}

impl AddedUp {
    /// Takes the next item.
    pub fn take(&mut self, item: &Item) {
        match item {
            Item::Header(header) => {
                self.start_ns = header.start_ns;
                self.is_cumulative = header.is("cumulative");
                // Rows of a summary do not add up.
                self.has_none = header.setting("summary").is_some();
            }
            Item::Rows(block) if !self.has_none => {
                let block = Block { since_ns: block.since_ns.or(Some(self.start_ns)), ..block.clone() };
                if self.is_cumulative {
                    self.totals.retain(|own| own.table != block.table);
                }
                add(&mut self.totals, block);
            }
            Item::Totals(_) => {
                self.has_none = true;
                self.totals.clear();
            }
            _ => {}
        }
    }

    /// The totals, once.
    pub fn totals(&mut self) -> impl Iterator<Item = Item> + use<> {
        std::mem::take(&mut self.totals).into_iter().map(Item::Totals)
    }
}

#[cfg(test)]
mod tests;
