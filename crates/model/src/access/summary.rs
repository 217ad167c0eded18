//! Summaries of accesses: what a trace is for.
//!
//! A [`Summary`] takes the items of a trace, live or recorded, and gives items of its own: the working set in windows
//! as they end, and the other tables at the end or at each interval. What it holds follows the number of different
//! pages, not that of accesses; it is bounded, and what did not fit is told.

mod pages;
mod reuse;
mod schema;
mod tables;
pub(super) mod trace;
mod window;

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use self::pages::{Account, Counts, Pages};
pub use self::reuse::{Distances, Recency};
use self::tables::Made;
pub use self::trace::PAGE;
use self::trace::{Access, Order, Twice, Words};
use self::window::Windows;
use super::What;
use super::run::{SUMMARY_LOSSES, SUMMARY_SETTINGS, SummaryLosses, SummarySettings};
use crate::field::Value;
use crate::item::{Block, Facts, Item, Source};
use crate::stage::pump;

/// One table of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Pages touched in each window of time.
    WorkingSet,
    /// Accesses by what is mapped, and where in it.
    Mappings,
    /// The most touched pages.
    Pages,
    /// Reads and writes of each process.
    ReadsWrites,
    /// Pages that several threads write to.
    Sharing,
    /// Reuse distances.
    Reuse,
    /// What would miss in memory of which size.
    MissRatio,
}

impl View {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::WorkingSet,
        Self::Mappings,
        Self::Pages,
        Self::ReadsWrites,
        Self::Sharing,
        Self::Reuse,
        Self::MissRatio,
    ];

    /// As it is typed, and as records are marked.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkingSet => "workingset",
            Self::Mappings => "mappings",
            Self::Pages => "pages",
            Self::ReadsWrites => "rw",
            Self::Sharing => "sharing",
            Self::Reuse => "reuse",
            Self::MissRatio => "missratio",
        }
    }

    /// The view that a block of rows is of.
    #[must_use]
    pub fn of(block: &Block) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.schema() == block.table)
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for View {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|view| view.name() == text)
            .ok_or_else(|| format!("there is no table `{text}`; there are {}", names()))
    }
}

/// What to summarize.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// These tables, in this order.
    pub views: Vec<View>,
    /// Length of a window of the working set, nanoseconds.
    pub window_ns: u64,
    /// At most so many rows of tables that could be of any length.
    pub top: usize,
    /// The tables are shown at each interval of the source too.
    pub intervals: bool,
    /// At intervals they are since the start.
    pub cumulative: bool,
    /// Pages that are held at most.
    pub most_pages: usize,
}

/// Between two rounds, if nobody says how long that is, nanoseconds.
const PERIOD_NS: u64 = 1_000_000;
/// 16 GB of touched memory.
pub const MOST_PAGES: usize = 4 << 20;

impl Default for Options {
    fn default() -> Self {
        Self {
            views: View::ALL.to_vec(),
            window_ns: 100_000_000,
            top: 20,
            intervals: false,
            cumulative: false,
            most_pages: MOST_PAGES,
        }
    }
}

/// Takes a trace item by item.
#[derive(Debug)]
pub struct Summary {
    options: Options,
    words: Words,
    order: Order,
    twice: Twice,
    pages: Pages,
    recency: Recency,
    windows: Windows,
    run: Account,
    /// Since the last interval, if that is to be shown.
    interval: Option<Account>,
    late: u64,
    untracked: u64,
    hidden: u64,
}

impl Summary {
    /// With nothing in it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            words: Words::default(),
            order: Order::default(),
            twice: Twice::new(PERIOD_NS),
            pages: Pages::new(options.most_pages),
            recency: Recency::default(),
            windows: Windows::new(options.window_ns),
            run: Account::default(),
            interval: (options.intervals && !options.cumulative).then(Account::default),
            late: 0,
            untracked: 0,
            hidden: 0,
            options,
        }
    }

    /// Takes an item of a trace, and gives what is to be shown now.
    pub fn take(&mut self, item: Item, ready: &mut VecDeque<Item>) {
        match item {
            Item::Header(mut header) => {
                self.windows.begin(header.start_ns);
                if let Some(&Value::U64(every_ns)) = header.setting("every_ns") {
                    self.twice = Twice::new(every_ns);
                }
                let views: Vec<_> = self.options.views.iter().map(|view| view.name()).collect();
                let made = SummarySettings { summary: views.join(","), window_ns: self.options.window_ns };
                header.settings.push(SUMMARY_SETTINGS.record(&made));
                header.tables = self.options.views.iter().map(|view| view.schema()).collect();
                ready.push_back(Item::Header(header));
            }
            Item::Events(mut events) => {
                for event in &events {
                    match self.words.read(event) {
                        Ok(Some(access)) => {
                            self.order.push(access);
                            self.settle();
                        }
                        Ok(None) => {}
                        Err(trace::Nowhere) => self.untracked += 1,
                    }
                }
                self.show_windows(ready);
                // What is out of sight of a process that was not there at the start is in these alone.
                let engine = Value::from(What::Engine.name());
                events.retain(|event| event.record.get("event") == Some(&engine));
                if !events.is_empty() {
                    ready.push_back(Item::Events(events));
                }
            }
            Item::Tick(time_ns) => {
                self.order.advance(time_ns);
                self.settle();
                if self.options.intervals {
                    // Each access is in one interval: that in which it was told.
                    self.account_all();
                }
                self.show_windows(ready);
                if self.options.intervals {
                    let account = self.interval.take();
                    let shown = account.as_ref().unwrap_or(&self.run);
                    let blocks: Vec<Block> = self.tables(shown, time_ns).collect();
                    self.interval = account.is_some().then(Account::default);
                    ready.extend(blocks.into_iter().map(Item::Rows));
                }
                ready.push_back(Item::Tick(time_ns));
            }
            // The rows of a trace say nothing of single accesses.
            Item::Rows(_) => {}
            Item::Totals(block) => {
                self.account_all();
                self.windows.end(block.time_ns);
                self.show_windows(ready);
                self.totals(block.time_ns, ready);
            }
            Item::Facts(facts) => ready.push_back(Item::Facts(self.facts(facts))),
            Item::End(facts) => ready.push_back(Item::End(self.facts(facts))),
        }
    }

    /// Accounts for what no older access is expected before.
    fn settle(&mut self) {
        while let Some(access) = self.order.settled() {
            self.account(access);
        }
        self.windows.advance(self.order.settled_ns());
    }

    fn account_all(&mut self) {
        while let Some(access) = self.order.pop() {
            self.account(access);
        }
    }

    fn show_windows(&mut self, ready: &mut VecDeque<Item>) {
        let windows = self.windows.ready.drain(..);
        if self.options.views.contains(&View::WorkingSet) {
            ready.extend(windows.map(Item::Rows));
        }
    }

    fn account(&mut self, access: Access) {
        if self.twice.is(&access) {
            return;
        }
        let Some((number, new)) = self.pages.number(&access, &self.words) else {
            self.untracked += 1;
            return;
        };
        let distance = self.recency.access(number);
        let late = self.windows.take(access.time_ns, number, new, Counts::of(&access));
        self.late += u64::from(late);
        self.run.add(number, &access, distance);
        if let Some(interval) = &mut self.interval {
            interval.add(number, &access, distance);
        }
    }

    fn made<'a>(&'a self, account: &'a Account) -> Made<'a> {
        Made { words: &self.words, pages: &self.pages, account, top: self.options.top }
    }

    /// The tables that are not shown as they grow.
    fn tables<'a>(&'a self, account: &'a Account, time_ns: u64) -> impl Iterator<Item = Block> + 'a {
        let views = self.options.views.iter().filter(|&&view| view != View::WorkingSet);
        views.map(move |&view| self.made(account).block(view, time_ns))
    }

    fn totals(&mut self, time_ns: u64, ready: &mut VecDeque<Item>) {
        let mut blocks = Vec::new();
        if self.options.views.contains(&View::WorkingSet) {
            let touched = self.made(&self.run).touched();
            let rows = vec![touched.record(0, self.windows.since_began(time_ns))];
            blocks.push(Block::new(View::WorkingSet.schema(), time_ns, rows));
        }
        blocks.extend(self.tables(&self.run, time_ns));
        self.hidden = blocks.iter().map(|block| block.hidden as u64).sum();
        ready.extend(blocks.into_iter().map(Item::Totals));
    }

    /// With what a summary can lose.
    fn facts(&self, mut facts: Facts) -> Facts {
        let lost = SummaryLosses {
            untracked_accesses: self.untracked,
            late_accesses: self.late,
            merged_faults: self.twice.merged,
            hidden_rows: self.hidden,
        };
        facts.more.push(SUMMARY_LOSSES.record(&lost));
        facts
    }
}

/// A source's summary, a source itself.
#[derive(Debug)]
pub struct Summarized<S> {
    source: S,
    summary: Summary,
    ready: VecDeque<Item>,
}

impl<S: Source> Summarized<S> {
    /// Of a trace of accesses.
    pub fn new(source: S, options: Options) -> Self {
        Self { source, summary: Summary::new(options), ready: VecDeque::new() }
    }

    /// What it summarizes.
    pub fn into_source(self) -> S {
        self.source
    }
}

impl<S: Source> Source for Summarized<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        pump(
            self,
            |stage| (&mut stage.source, &mut stage.ready),
            |stage, item| stage.summary.take(item, &mut stage.ready),
        )
    }
}

#[cfg(test)]
mod tests;
