//! The ledger: reports of threads in, rows out. Differences between intervals, threads that end, totals over the run.

use std::collections::HashMap;
use std::rc::Rc;

use super::group::{By, Group, Key};
use super::{Extremes, Report, Stats, Thread, Timing};
use crate::field::{Record, Value};
use crate::item::Block;

/// Threads that ended are kept apart up to this number; beyond it the least of them are put together in one row.
const ENDED_KEPT: usize = 65_536;

#[derive(Debug, Default)]
struct Entry {
    key: Key,
    comm: Rc<str>,
    /// What is settled: reported at the end of the thread.
    closed: Stats,
    /// The last report of the living thread.
    live: Stats,
    /// What the rows shown so far add up to.
    shown: Stats,
    extremes: Extremes,
    recent: Extremes,
    range: Range,
    ended: bool,
}

/// Of a group: where in it the faults were.
type Range = Option<(u64, u64)>;

fn widen(range: &mut Range, other: Range) {
    *range = match (*range, other) {
        (Some((low, high)), Some(other)) => Some((low.min(other.0), high.max(other.1))),
        (one, other) => one.or(other),
    };
}

impl Entry {
    fn take(&mut self, by: By, report: Report) {
        (self.key, self.comm) = by.key(&report);
        self.live = report.stats;
        self.extremes.add(report.extremes);
        self.recent.add(report.recent);
    }

    fn total(&self) -> Stats {
        let mut total = self.closed.clone();
        total.add(&self.live);
        total
    }

    /// What is to be shown for the interval that ends now; it is shown from now on.
    fn interval(&mut self, cumulative: bool) -> (Stats, Extremes) {
        let recent = std::mem::take(&mut self.recent);
        let total = self.total();
        let since = total.since(&self.shown);
        self.shown = total;
        if cumulative { (self.shown.clone(), self.extremes) } else { (since, recent) }
    }
}

/// Turns reports into rows: differences between intervals, threads that end, totals over the run.
#[derive(Debug)]
pub struct Ledger {
    by: By,
    timing: Timing,
    threads: HashMap<Thread, Entry>,
    groups: HashMap<[u64; 4], Entry>,
    /// Groups of which nothing more will come, put together by their rows.
    closed: HashMap<Key, Entry>,
    ended: usize,
    /// Threads that ended, put together.
    others: Entry,
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
            ended: 0,
            others: Entry::default(),
            folded: 0,
        }
    }

    /// Takes the report of a group, which the kernel half knows by `id`: it replaces the one before.
    pub fn group(&mut self, id: [u64; 4], report: Group) {
        let entry = self.groups.entry(id).or_default();
        entry.comm = report.key.name();
        entry.key = report.key;
        entry.live = report.stats;
        entry.extremes.add(report.extremes);
        entry.recent.add(report.recent);
        entry.range = report.range;
    }

    /// Nothing more will be reported of a group.
    pub fn close_group(&mut self, id: &[u64; 4]) {
        let Some(entry) = self.groups.remove(id) else { return };
        let into = self.closed.entry(entry.key.clone()).or_default();
        into.closed.add(&entry.total());
        into.shown.add(&entry.shown);
        into.extremes.add(entry.extremes);
        into.recent.add(entry.recent);
        widen(&mut into.range, entry.range);
        (into.key, into.comm) = (entry.key, entry.comm);
    }

    /// Takes the report of a living thread: it replaces the one before.
    pub fn live(&mut self, report: Report) {
        let entry = self.threads.entry(report.thread).or_default();
        entry.take(self.by, report);
        if std::mem::take(&mut entry.ended) {
            self.ended -= 1;
        }
    }

    /// Takes the last report of a thread; whatever was reported of it alive is contained in it.
    pub fn ended(&mut self, report: Report) {
        let entry = self.threads.entry(report.thread).or_default();
        entry.take(self.by, report);
        let last = std::mem::take(&mut entry.live);
        entry.closed.add(&last);
        if !std::mem::replace(&mut entry.ended, true) {
            self.ended += 1;
        }
        if self.ended > ENDED_KEPT {
            self.fold();
        }
    }

    /// How many ended threads are shown together in one row, for there were too many to keep apart.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// The faults of the interval that ends now; with `cumulative`, those since the beginning.
    pub fn interval(&mut self, time_ns: u64, cumulative: bool) -> Block {
        let mut rows = Rows::default();
        let groups = self.groups.values_mut().chain(self.closed.values_mut());
        for entry in self.threads.values_mut().chain(groups).chain([&mut self.others]) {
            // A thread that ended and was shown has nothing more to show.
            if !entry.ended || cumulative || entry.shown.known() != entry.closed.known() {
                let (stats, extremes) = entry.interval(cumulative);
                rows.add(entry, &stats, extremes);
            }
        }
        rows.block(self.by, self.timing, time_ns)
    }

    /// The faults of the whole run.
    #[must_use]
    pub fn totals(&self, time_ns: u64) -> Block {
        let mut rows = Rows::default();
        for entry in self
            .threads
            .values()
            .chain(self.groups.values())
            .chain(self.closed.values())
            .chain([&self.others])
        {
            rows.add(entry, &entry.total(), entry.extremes);
        }
        rows.block(self.by, self.timing, time_ns)
    }

    /// Keeps memory bounded: puts the least of the ended threads together.
    fn fold(&mut self) {
        let ended = self.threads.iter().filter(|(_, entry)| entry.ended);
        let mut ended: Vec<(u64, Thread)> = ended.map(|(&thread, e)| (e.closed.faults(), thread)).collect();
        ended.sort_unstable();
        self.others.comm = "(ended threads)".into();
        for (_, thread) in ended.drain(..ENDED_KEPT / 2) {
            if let Some(entry) = self.threads.remove(&thread) {
                self.others.closed.add(&entry.closed);
                self.others.shown.add(&entry.shown);
                self.others.extremes.add(entry.extremes);
                self.others.recent.add(entry.recent);
                self.folded += 1;
                self.ended -= 1;
            }
        }
    }
}

/// Rows in the making: threads of the same key together.
#[derive(Default)]
struct Rows {
    groups: HashMap<Key, (Rc<str>, Stats, Extremes, Range)>,
}

impl Rows {
    fn add(&mut self, entry: &Entry, stats: &Stats, extremes: Extremes) {
        if stats.known() > 0 {
            let group = self.groups.entry(entry.key.clone()).or_default();
            group.0 = Rc::clone(&entry.comm);
            group.1.add(stats);
            group.2.add(extremes);
            widen(&mut group.3, entry.range);
        }
    }

    fn block(self, by: By, timing: Timing, time_ns: u64) -> Block {
        let mut sum = (Stats::default(), Extremes::default());
        let mut rows = Vec::with_capacity(self.groups.len());
        for (key, (comm, stats, extremes, range)) in self.groups {
            let keys = by.values(&key, &comm, range, &stats);
            rows.push(row(by, timing, keys, &stats, extremes));
            sum.0.add(&stats);
            sum.1.add(extremes);
        }
        let keys = by.values(&Key::None, "TOTAL", None, &sum.0);
        let sum = row(by, timing, keys, &sum.0, sum.1);
        Block { time_ns, rows, sum: Some(sum), hidden: 0 }
    }
}

fn row(by: By, timing: Timing, mut values: Vec<Value>, stats: &Stats, extremes: Extremes) -> Record {
    let times = Times::of(timing, stats, extremes);
    values.extend::<[Value; 10]>([
        stats.major.into(),
        stats.minor.into(),
        times.total.into(),
        times.major.into(),
        times.avg.into(),
        times.max.into(),
        times.min.into(),
        times.p50.into(),
        times.p99.into(),
        (stats.timed_major + stats.timed_minor).into(),
    ]);
    Record::new(by.schema(), values)
}

/// The times of a row; what the variant cannot know is missing.
#[derive(Default)]
struct Times {
    total: Option<u64>,
    major: Option<u64>,
    avg: Option<u64>,
    max: Option<u64>,
    min: Option<u64>,
    p50: Option<u64>,
    p99: Option<u64>,
}

impl Times {
    fn of(timing: Timing, stats: &Stats, extremes: Extremes) -> Self {
        let weight = match timing {
            Timing::None => return Self::default(),
            Timing::Major => return Self { major: Some(stats.major_ns), ..Self::default() },
            Timing::All(weight) => u64::from(weight),
        };
        // Sampled: a timed minor fault stands for as many as there are to each. The count is exact, the time is not.
        let (minor_ns, faults) = match stats.timed_minor {
            timed if weight == 1 => (Some(stats.minor_ns), stats.timed_major + timed),
            0 => (Some(0).filter(|_| stats.minor == 0), stats.faults()),
            timed => {
                let scaled = u128::from(stats.minor_ns) * u128::from(stats.minor) / u128::from(timed);
                (Some(scaled as u64), stats.faults())
            }
        };
        // Faults that were all taken inside the kernel on the thread's behalf may be counted and none of them timed.
        let total = minor_ns.map(|minor_ns| stats.major_ns + minor_ns).filter(|_| faults > 0);
        let known = (extremes.min_ns <= extremes.max_ns).then_some(extremes);
        let quantile = |q| known.and_then(|e| stats.hist.quantile(q, e.min_ns, e.max_ns));
        Self {
            total,
            major: Some(stats.major_ns).filter(|_| stats.timed_major > 0 || stats.major == 0),
            avg: total.map(|total| total / faults),
            max: known.map(|e| e.max_ns),
            min: known.map(|e| e.min_ns),
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
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
}
