//! The ledger: reports of threads in, rows out. Differences between intervals, threads that end, totals over the run.

use std::collections::HashMap;

use super::{Extremes, ROW, Report, Stats, Thread, Timing};
use crate::field::Record;
use crate::item::Block;

/// Threads that ended are kept apart up to this number; beyond it the least of them are put together in one row.
const ENDED_KEPT: usize = 65_536;

#[derive(Debug, Default)]
struct Entry {
    comm: String,
    /// What is settled: reported at the end of the thread.
    closed: Stats,
    /// The last report of the living thread.
    live: Stats,
    /// What the rows shown so far add up to.
    shown: Stats,
    extremes: Extremes,
    recent: Extremes,
    ended: bool,
}

impl Entry {
    fn total(&self) -> Stats {
        let mut total = self.closed.clone();
        total.add(&self.live);
        total
    }
}

/// Turns reports into rows: differences between intervals, threads that end, totals over the run.
#[derive(Debug)]
pub struct Ledger {
    timing: Timing,
    threads: HashMap<Thread, Entry>,
    ended: usize,
    others: Entry,
    others_threads: u64,
}

impl Ledger {
    /// An empty ledger for figures of which so much is timed.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self { timing, threads: HashMap::new(), ended: 0, others: Entry::default(), others_threads: 0 }
    }

    /// Takes the report of a living thread: it replaces the one before.
    pub fn live(&mut self, report: Report) {
        let entry = self.threads.entry(report.thread).or_default();
        entry.comm = report.comm;
        entry.live = report.stats;
        entry.extremes.add(report.extremes);
        entry.recent.add(report.recent);
        if entry.ended {
            entry.ended = false;
            self.ended -= 1;
        }
    }

    /// Takes the last report of a thread; whatever was reported of it alive is contained in it.
    pub fn ended(&mut self, report: Report) {
        let entry = self.threads.entry(report.thread).or_default();
        entry.comm = report.comm;
        entry.live = Stats::default();
        entry.closed.add(&report.stats);
        entry.extremes.add(report.extremes);
        entry.recent.add(report.recent);
        if !entry.ended {
            entry.ended = true;
            self.ended += 1;
        }
    }

    /// How many ended threads are shown together in one row, for there were too many to keep apart.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.others_threads
    }

    /// The faults of the interval that ends now; with `cumulative`, those since the beginning.
    pub fn interval(&mut self, time_ns: u64, cumulative: bool) -> Block {
        let mut rows = Vec::new();
        let mut sum = (Stats::default(), Extremes::default());
        for (&thread, entry) in &mut self.threads {
            let recent = std::mem::take(&mut entry.recent);
            if entry.ended && entry.shown.faults() == entry.closed.faults() && !cumulative {
                continue;
            }
            let total = entry.total();
            let (stats, extremes) = if cumulative {
                (total.clone(), entry.extremes)
            } else {
                (total.since(&entry.shown), recent)
            };
            entry.shown = total;
            if stats.faults() > 0 {
                rows.push(row(self.timing, Some(thread), &entry.comm, &stats, extremes));
                sum.0.add(&stats);
                sum.1.add(extremes);
            }
        }
        self.fold();
        let sum = row(self.timing, None, "TOTAL", &sum.0, sum.1);
        Block { time_ns, rows, sum: Some(sum), hidden: 0 }
    }

    /// The faults of the whole run.
    #[must_use]
    pub fn totals(&self, time_ns: u64) -> Block {
        let mut rows = Vec::new();
        let mut sum = (Stats::default(), Extremes::default());
        let mut push = |thread: Option<Thread>, entry: &Entry| {
            let total = entry.total();
            if total.faults() > 0 {
                rows.push(row(self.timing, thread, &entry.comm, &total, entry.extremes));
                sum.0.add(&total);
                sum.1.add(entry.extremes);
            }
        };
        self.threads.iter().for_each(|(&thread, entry)| push(Some(thread), entry));
        push(None, &self.others);
        let sum = row(self.timing, None, "TOTAL", &sum.0, sum.1);
        Block { time_ns, rows, sum: Some(sum), hidden: 0 }
    }

    /// Keeps memory bounded: puts the least of the ended threads together when there are too many.
    fn fold(&mut self) {
        if self.ended <= ENDED_KEPT {
            return;
        }
        let mut ended: Vec<(u64, Thread)> =
            self.threads.iter().filter(|(_, e)| e.ended).map(|(&t, e)| (e.closed.faults(), t)).collect();
        ended.sort_unstable();
        self.others.comm = "(ended threads)".into();
        for (_, thread) in ended.drain(..ENDED_KEPT / 2) {
            if let Some(entry) = self.threads.remove(&thread) {
                self.others.closed.add(&entry.closed);
                self.others.extremes.add(entry.extremes);
                self.others_threads += 1;
                self.ended -= 1;
            }
        }
    }
}

fn row(timing: Timing, thread: Option<Thread>, comm: &str, stats: &Stats, extremes: Extremes) -> Record {
    let times = Times::of(timing, stats, extremes);
    Record::new(
        ROW,
        vec![
            thread.map(|t| t.pid).into(),
            thread.map(|t| t.tid).into(),
            thread.map(|t| t.start_ns).into(),
            comm.into(),
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
        ],
    )
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
