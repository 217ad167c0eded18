//! Faults that the kernel counted and that are no events: they were lost.

use std::ops::RangeInclusive;

use super::columns::From;
use super::group::Group;
use super::{Chunks, NONE, Regroup};
use crate::item::{Block, Facts};

/// A number of faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) major: u64,
    pub(super) minor: u64,
}

impl Counts {
    /// Of all rows of a block, by their sum.
    pub(super) fn of(block: &Block) -> Option<Self> {
        let number = |name| block.sum.as_ref().and_then(|sum| sum.number(name));
        Some(Self { major: number("major")?, minor: number("minor")? })
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { major: self.major + other.major, minor: self.minor + other.minor }
    }

    /// What is more than that; of each kind 0 where there is less.
    pub(super) fn beyond(self, other: Self) -> Self {
        Self { major: self.major.saturating_sub(other.major), minor: self.minor.saturating_sub(other.minor) }
    }

    /// No more than so many together. Those that are dropped come last, and are minor as a rule.
    fn at_most(self, most: u64) -> Self {
        let minor = self.minor.min(most);
        Self { major: self.major.min(most - minor), minor }
    }
}

/// The events that were lost up to now, of every kind.
fn lost_events(facts: &Facts) -> u64 {
    facts.lost_events
        + ["missed_programs", "dropped_records"].iter().filter_map(|name| facts.get(name)).sum::<u64>()
}

/// How many faults were lost in each recorded interval: what its rows count beyond the events, of which some may still have been under
/// way when it ended, and at most what the facts of the interval have as lost.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// What of the run was recorded before was discarded: the first interval may be a part of one.
    pub(super) is_kept: bool,
    /// Recorded rows are since the start.
    pub(super) is_cumulative: bool,
    /// Those that are known to be lost.
    found: Counts,
    /// The interval that ends: when it began and ended, and what was counted in it.
    now: Option<(u64, u64, Counts)>,
    /// What the last rows had come to.
    last: Counts,
    /// When the one before ended.
    until_ns: Option<u64>,
    /// Events lost up to now, if facts are recorded.
    lost_events: Option<u64>,
    /// Since when all faults are counted here.
    base: Base,
}

/// A moment, and what there was until then.
#[derive(Debug, Default)]
struct Base {
    found: Counts,
    seen: Counts,
    lost_events: u64,
    /// What was counted since then.
    counted: Counts,
}

impl Lost {
    /// Takes the rows of an interval.
    pub(super) fn rows(&mut self, block: &Block) {
        let Some(counts) = Counts::of(block) else { return };
        let last = std::mem::replace(&mut self.last, counts);
        let counts = if self.is_cumulative { counts.beyond(last) } else { counts };
        let since_ns = self.until_ns.filter(|_| self.is_cumulative).or(block.since_ns);
        self.now = Some((since_ns.unwrap_or(0), block.time_ns, counts));
    }

    /// Takes what was lost up to now.
    pub(super) fn facts(&mut self, facts: &Facts) {
        self.lost_events = Some(lost_events(facts));
    }

    /// Whether intervals have what they lost.
    pub(super) fn knows_intervals(&self) -> bool {
        self.until_ns.is_some()
    }

    /// The interval ends, and these faults were seen as events up to now; those at these times are shown. Gives how many were lost up to
    /// now.
    pub(super) fn end_interval(&mut self, seen: Counts, times_ns: &RangeInclusive<u64>) -> Counts {
        let Some(((since_ns, until_ns, counts), lost_events)) = self.now.take().zip(self.lost_events) else {
            return self.found;
        };
        let is_whole = match self.until_ns.replace(until_ns) {
            Some(before) => before == since_ns,
            None => !self.is_kept,
        };
        if is_whole && times_ns.contains(&since_ns) && times_ns.contains(&until_ns) {
            let base = &mut self.base;
            base.counted = base.counted.and(counts);
            let lost = base.counted.beyond(seen.beyond(base.seen));
            let lost = base.found.and(lost.at_most(lost_events.saturating_sub(base.lost_events)));
            self.found =
                Counts { major: lost.major.max(self.found.major), minor: lost.minor.max(self.found.minor) };
        } else {
            self.base = Base { found: self.found, seen, lost_events, counted: Counts::default() };
        }
        self.found
    }
}

impl<C: Chunks> Regroup<C> {
    /// Rows are of machines, too.
    pub(super) fn is_of_hosts(&self) -> bool {
        self.host_at().is_some()
    }

    /// Where rows have their machine.
    fn host_at(&self) -> Option<usize> {
        self.columns.copied.iter().position(|copied| copied.from == From::Host)
    }

    /// The faults that came as events, of the machine of that number or of all.
    pub(super) fn seen(&self, host: u64) -> Counts {
        let at = self.host_at();
        let is_of = |row: &&Group| at.is_none_or(|at| row.values[at] == host);
        let counts = |row: &Group| Counts { major: row.stats.major, minor: row.stats.minor };
        let all = self.rows.iter().filter(is_of).map(counts).fold(Counts::default(), Counts::and);
        all.beyond(self.in_rows.get(&host).copied().unwrap_or_default())
    }

    /// So many faults were lost on the machine of that number: they are in the row of which nothing else is known.
    pub(super) fn lose(&mut self, host: u64, lost: Counts) {
        let before = self.in_rows.insert(host, lost).unwrap_or_default();
        if before == lost {
            return;
        }
        let keys = self.columns.copied.iter().filter(|copied| copied.is_key);
        let key: Vec<u64> = keys.map(|copied| if copied.from == From::Host { host } else { NONE }).collect();
        let at = self.group(&key);
        let row = &mut self.rows[at];
        row.is_news = true;
        row.stats.major = (row.stats.major + lost.major).saturating_sub(before.major);
        row.stats.minor = (row.stats.minor + lost.minor).saturating_sub(before.minor);
    }

    /// All of the run was recorded and is shown: what its totals have beyond the events was lost.
    pub(super) fn rest(&mut self) {
        if !self.how.all || !self.how.filter.is_all() || self.kept.is_some() {
            return;
        }
        for (host, counted) in std::mem::take(&mut self.counted) {
            let lost = counted.beyond(self.seen(host));
            self.lose(host, lost);
        }
    }

    /// The number of the machine that a block is of, if rows are of machines.
    pub(super) fn host(&mut self, block: &Block) -> u64 {
        let at = self.host_at();
        let host = block.sum.as_ref().and_then(|sum| sum.text("host"));
        at.zip(host).map_or(NONE, |(at, host)| self.words[at].place(&host.into()).into())
    }
}
