//! The ledger: reports of threads in, rows out. Differences between intervals, threads that end, totals over the run.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::group::{By, Group, Key};
use super::rows::Rows;
use super::{Extremes, Process, Report, Stats, Thread, Timing};
use crate::item::Block;

/// Rows of what has ended may take this many bytes unless [`Ledger::bounded`] says otherwise.
const ENDED_BYTES: u64 = 64 << 20;

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) comm: Rc<str>,
    /// Since the trace began: the last report of what lives, or the sum of what has ended.
    stats: Stats,
    /// What the rows shown so far add up to.
    shown: Stats,
    extremes: Extremes,
    recent: Extremes,
    pub(super) range: Range,
    owner: Option<Process>,
}

/// Of a group: where in it the faults were.
pub(super) type Range = Option<(u64, u64)>;

pub(super) fn widen(range: &mut Range, other: Range) {
    *range = match (*range, other) {
        (Some((low, high)), Some(other)) => Some((low.min(other.0), high.max(other.1))),
        (one, other) => one.or(other),
    };
}

impl Entry {
    fn take(&mut self, by: By, report: Report) {
        (self.key, self.comm) = by.key(&report);
        self.stats = report.stats;
        self.owner = Some(report.process);
        self.extremes.add(report.extremes);
        self.recent.add(report.recent);
    }

    /// Adds another one's figures.
    fn add(&mut self, other: &Self) {
        self.stats.add(&other.stats);
        self.shown.add(&other.shown);
        self.extremes.add(other.extremes);
        self.recent.add(other.recent);
    }

    /// What is to be shown for the interval that ends now; it is shown from now on.
    fn interval(&mut self, cumulative: bool) -> (Stats, Extremes) {
        let recent = std::mem::take(&mut self.recent);
        let since = self.stats.since(&self.shown);
        self.shown = self.stats.clone();
        if cumulative { (self.shown.clone(), self.extremes) } else { (since, recent) }
    }

    fn has_news(&self) -> bool {
        self.stats.known() != self.shown.known()
    }

    /// About how much memory it takes.
    fn bytes(&self) -> u64 {
        (size_of::<(Key, Self)>() + self.stats.hist.bytes() + self.shown.hist.bytes() + self.key.bytes())
            as u64
    }
}

/// Turns reports into rows: differences between intervals, threads that end, totals over the run.
#[derive(Debug)]
pub struct Ledger {
    by: By,
    timing: Timing,
    threads: HashMap<Thread, Entry>,
    groups: HashMap<[u64; 4], Entry>,
    /// Threads that ended, and groups of which nothing more will come, put together by their rows.
    closed: HashMap<Key, Entry>,
    /// About how much memory those take, and how much they may.
    closed_bytes: u64,
    limit: u64,
    /// Rows that were folded into one.
    folded_row: Entry,
    folded: u64,
}

impl Ledger {
    /// An empty ledger for figures of which so much is timed; its rows are grouped.
    #[must_use]
    pub fn new(by: By, timing: Timing) -> Self {
        Self {
            by,
            timing,
            threads: HashMap::new(),
            groups: HashMap::new(),
            closed: HashMap::new(),
            closed_bytes: 0,
            limit: ENDED_BYTES,
            folded_row: Entry { comm: by.folded().into(), ..Entry::default() },
            folded: 0,
        }
    }

    /// The same; the rows of what has ended take about this many bytes at most.
    #[must_use]
    pub fn bounded(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }

    /// Takes the report of a group, which the kernel half knows by `id`: it replaces the one before.
    pub fn group(&mut self, id: [u64; 4], report: Group) {
        let entry = self.groups.entry(id).or_default();
        entry.comm = report.key.name();
        entry.key = report.key;
        entry.stats = report.stats;
        entry.extremes.add(report.extremes);
        entry.recent.add(report.recent);
        entry.range = report.range;
        entry.owner = report.owner;
    }

    /// Nothing more will be reported of a group.
    pub fn close_group(&mut self, id: &[u64; 4]) {
        if let Some(entry) = self.groups.remove(id) {
            self.close(entry);
        }
    }

    /// The id of a group may be another one's from now on; what was reported under it goes on under a new one.
    pub fn move_group(&mut self, id: &[u64; 4], to: [u64; 4]) {
        if let Some(entry) = self.groups.remove(id) {
            self.groups.insert(to, entry);
        }
    }

    /// A group belongs to another row than was said: what is shown from now on is in that one.
    pub fn name_group(&mut self, id: &[u64; 4], key: Key) {
        if let Some(entry) = self.groups.get_mut(id) {
            entry.comm = key.name();
            entry.key = key;
        }
    }

    /// Takes the report of a living thread: it replaces the one before.
    pub fn live(&mut self, report: Report) {
        self.threads.entry(report.thread).or_default().take(self.by, report);
    }

    /// Takes the last report of a thread; whatever was reported of it alive is contained in it.
    pub fn ended(&mut self, report: Report) {
        let mut entry = self.threads.remove(&report.thread).unwrap_or_default();
        entry.take(self.by, report);
        self.close(entry);
    }

    /// How many rows of what has ended were folded into one, because they took too much memory.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// How many faults there were in the whole run.
    #[must_use]
    pub fn counted(&self) -> u64 {
        let alive = self.threads.values().chain(self.groups.values());
        alive.chain(self.closed.values()).chain([&self.folded_row]).map(|entry| entry.stats.faults()).sum()
    }

    fn close(&mut self, entry: Entry) {
        let into = self.closed.entry(entry.key.clone()).or_default();
        let before = if into.key == Key::None { 0 } else { into.bytes() };
        into.add(&entry);
        widen(&mut into.range, entry.range);
        (into.key, into.comm, into.owner) = (entry.key, entry.comm, into.owner.or(entry.owner));
        self.closed_bytes = (self.closed_bytes + into.bytes()).saturating_sub(before);
        if self.closed_bytes > self.limit {
            self.fold();
        }
    }

    /// The faults of the interval that ends now; with `cumulative`, those since the beginning.
    pub fn interval(&mut self, time_ns: u64, cumulative: bool) -> Block {
        let mut rows = Rows::default();
        let alive = self.threads.values_mut().chain(self.groups.values_mut());
        for entry in alive.chain(self.closed.values_mut()).chain([&mut self.folded_row]) {
            if cumulative || entry.has_news() {
                let (stats, extremes) = entry.interval(cumulative);
                rows.add(entry, &stats, extremes);
            } else {
                entry.recent = Extremes::default();
            }
        }
        rows.block(self.by, self.timing, time_ns)
    }

    /// The faults of the whole run.
    #[must_use]
    pub fn totals(&self, time_ns: u64) -> Block {
        let mut rows = Rows::default();
        let alive = self.threads.values().chain(self.groups.values());
        for entry in alive.chain(self.closed.values()).chain([&self.folded_row]) {
            rows.add(entry, &entry.stats, entry.extremes);
        }
        rows.block(self.by, self.timing, time_ns)
    }

    /// Keeps memory bounded: folds what has ended into one row until half of the memory is free. First the rows of the
    /// process that has the most, so that it takes nothing from others; of those the ones with the fewest faults. What shares
    /// its row with the living stays.
    fn fold(&mut self) {
        let alive = self.threads.values().chain(self.groups.values());
        let alive: HashSet<&Key> = alive.map(|entry| &entry.key).collect();
        let ended = self.closed.iter().filter(|(key, _)| !alive.contains(key));
        let mut ended: Vec<(Option<Process>, u64, Key)> =
            ended.map(|(key, entry)| (entry.owner, entry.stats.known(), key.clone())).collect();
        let mut rows: HashMap<Option<Process>, usize> = HashMap::new();
        ended.iter().for_each(|(owner, ..)| *rows.entry(*owner).or_default() += 1);
        ended.sort_unstable_by_key(|(owner, faults, _)| (Reverse(rows[owner]), *owner, *faults));
        self.closed_bytes = self.closed.values().map(Entry::bytes).sum();
        for (.., key) in ended {
            if self.closed_bytes <= self.limit / 2 {
                break;
            }
            if let Some(entry) = self.closed.remove(&key) {
                self.closed_bytes -= entry.bytes();
                self.folded_row.add(&entry);
                self.folded += 1;
            }
        }
        self.closed.shrink_to(self.closed.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Process;
    use super::*;
    use crate::Value;

    /// Its two faults were counted; so many of them were timed by now.
    fn report(timed: u64) -> Report {
        let process = Process { pid: 7, start_ns: 70 };
        let stats = Stats { minor: 2, timed_minor: timed, minor_ns: timed * 100, ..Stats::default() };
        let extremes = Extremes { max_ns: 100, min_ns: 100 };
        Report {
            thread: Thread { pid: 7, tid: 7, start_ns: 70 },
            comm: "db".into(),
            process,
            process_comm: "db".into(),
            cgroup: "/".into(),
            stats,
            extremes,
            recent: extremes,
        }
    }

    #[test]
    fn a_time_that_is_known_after_its_fault_was_shown_is_in_the_next_interval() {
        let mut ledger = Ledger::new(By::Thread, Timing::All(1));
        let shown = |ledger: &mut Ledger| {
            let row = ledger.interval(1, false).rows.into_iter().next()?;
            match ["minor", "timed"].map(|name| row.get(name)) {
                [Some(&Value::U64(minor)), Some(&Value::U64(timed))] => Some((minor, timed)),
                other => panic!("{other:?}"),
            }
        };
        ledger.live(report(0));
        assert_eq!(shown(&mut ledger), Some((2, 0)));
        ledger.live(report(1));
        assert_eq!(shown(&mut ledger), Some((0, 1)));
        ledger.ended(report(2));
        assert_eq!(shown(&mut ledger), Some((0, 1)));
        assert_eq!(shown(&mut ledger), None);
    }

    /// Threads come and go for ever: rows and the folded one add up to all there was, in intervals and in all.
    #[test]
    fn what_has_ended_is_folded_and_sums_stay_exact() {
        const BOUND: u64 = 100_000;
        let mut ledger = Ledger::new(By::Thread, Timing::All(1)).bounded(BOUND);
        let sum = |block: &Block| match block.sum.as_ref().and_then(|sum| sum.get("minor")) {
            Some(&Value::U64(minor)) => minor,
            other => panic!("{other:?}"),
        };
        let mut shown = 0;
        for n in 0..5000 {
            let thread = Thread { pid: n, tid: n, start_ns: n.into() };
            ledger.live(Report { thread, ..report(1) });
            ledger.ended(Report { thread, ..report(2) });
            assert!(ledger.closed_bytes <= BOUND, "{}", ledger.closed_bytes);
            if n % 100 == 0 {
                shown += sum(&ledger.interval(1, false));
            }
        }
        shown += sum(&ledger.interval(1, false));
        let totals = ledger.totals(2);
        assert_eq!((shown, sum(&totals)), (10_000, 10_000));
        assert_eq!(totals.rows.len() as u64 + ledger.folded(), 5001);
        let folded = totals.rows.iter().find(|row| row.get("comm") == Some(&"(folded threads)".into()));
        let folded = folded.and_then(|row| row.get("minor").cloned());
        assert_eq!(folded, Some(Value::U64(ledger.folded() * 2)));
        // One row of those that are there is as much as what lives.
        assert_eq!(ledger.interval(3, false).rows.len(), 0);
        assert_eq!(ledger.interval(4, true).rows.len(), totals.rows.len());
    }
}
