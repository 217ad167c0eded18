//! Page faults: rows per thread, verbose events, and the ledger that turns snapshots of the kernel's figures into them.

use std::collections::HashMap;

use crate::field::{Column, Field, Kind, Record, Schema, Show, Unit, Value};
use crate::hist::Hist;
use crate::item::{Block, Event};

const fn field(name: &'static str, unit: Unit, kind: Kind, help: &'static str) -> Field {
    Field { name, unit, kind, help, column: None }
}

const fn shown(field: Field, title: &'static str, width: usize, show: Show) -> Field {
    Field { column: Some(Column { title, width, show }), ..field }
}

const PID: Field = shown(field("pid", Unit::None, Kind::Key, "process id"), "PID", 8, Show::Integer);
const TID: Field = shown(field("tid", Unit::None, Kind::Key, "thread id"), "TID", 8, Show::Integer);
const COMM: Field =
    shown(field("comm", Unit::None, Kind::Label, "the thread's name"), "COMM", 15, Show::Text);

/// The fields of a row and a total.
pub const ROW: &Schema = &[
    PID,
    TID,
    field("start_ns", Unit::Nanoseconds, Kind::Key, "when the thread was born, CLOCK_MONOTONIC"),
    COMM,
    shown(
        field("major", Unit::Count, Kind::Counter, "faults that waited for I/O, as ru_majflt counts them"),
        "MAJOR",
        9,
        Show::Integer,
    ),
    shown(
        field("minor", Unit::Count, Kind::Counter, "faults that did not, as ru_minflt counts them"),
        "MINOR",
        9,
        Show::Integer,
    ),
    shown(
        field("total_ns", Unit::Nanoseconds, Kind::Counter, "time in all faults that were timed"),
        "TOTAL_MS",
        11,
        Show::Milliseconds(2),
    ),
    shown(
        field(
            "major_ns",
            Unit::Nanoseconds,
            Kind::Counter,
            "the part of it in major faults: waiting for I/O",
        ),
        "MAJOR_MS",
        11,
        Show::Milliseconds(2),
    ),
    shown(
        field("avg_ns", Unit::Nanoseconds, Kind::Gauge, "mean time of a fault"),
        "AVG_MS",
        9,
        Show::Milliseconds(3),
    ),
    shown(
        field("max_ns", Unit::Nanoseconds, Kind::Gauge, "longest fault"),
        "MAX_MS",
        9,
        Show::Milliseconds(3),
    ),
    shown(
        field("min_ns", Unit::Nanoseconds, Kind::Gauge, "shortest fault"),
        "MIN_US",
        9,
        Show::Microseconds(1),
    ),
    field("p50_ns", Unit::Nanoseconds, Kind::Gauge, "half of the faults took no longer, within 12.5 %"),
    field("p99_ns", Unit::Nanoseconds, Kind::Gauge, "99 % of the faults took no longer, within 12.5 %"),
    field(
        "timed",
        Unit::Count,
        Kind::Counter,
        "how many of the faults were timed (those taken inside the kernel on the thread's behalf may not be)",
    ),
];

/// The fields of a verbose event.
pub const EVENT: &Schema = &[
    PID,
    TID,
    COMM,
    shown(field("kind", Unit::None, Kind::Label, "major or minor"), "KIND", 5, Show::Text),
    shown(field("addr", Unit::Address, Kind::Label, "the address that faulted"), "ADDR", 18, Show::Hex),
    shown(field("ip", Unit::Address, Kind::Label, "the instruction that faulted"), "IP", 18, Show::Hex),
    shown(field("rw", Unit::None, Kind::Label, "R read, W write, X execute"), "RW", 2, Show::Text),
    shown(
        field("latency_ns", Unit::Nanoseconds, Kind::Gauge, "from the fault to its completion"),
        "LATENCY_US",
        10,
        Show::Microseconds(1),
    ),
];

/// Which thread: ids are reused, so its birth is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thread {
    /// The process (thread group) id.
    pub pid: u32,
    /// The thread id.
    pub tid: u32,
    /// Birth, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
}

/// The longest and the shortest of some faults, nanoseconds; of none if `min_ns > max_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extremes {
    /// The longest.
    pub max_ns: u64,
    /// The shortest.
    pub min_ns: u64,
}

impl Default for Extremes {
    fn default() -> Self {
        Self { max_ns: 0, min_ns: u64::MAX }
    }
}

impl Extremes {
    fn add(&mut self, other: Self) {
        self.max_ns = self.max_ns.max(other.max_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
    }
}

/// Faults and their times. All fields grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Major faults, by the kernel's accounting.
    pub major: u64,
    /// Minor faults, by the kernel's accounting.
    pub minor: u64,
    /// Major faults that were timed.
    pub timed_major: u64,
    /// Minor faults that were timed.
    pub timed_minor: u64,
    /// Time of the timed major faults, nanoseconds.
    pub major_ns: u64,
    /// Time of the timed minor faults, nanoseconds.
    pub minor_ns: u64,
    /// Times of the timed faults, a sampled one counted as many times as it stands for.
    pub hist: Hist,
}

impl Stats {
    fn add(&mut self, other: &Self) {
        self.major += other.major;
        self.minor += other.minor;
        self.timed_major += other.timed_major;
        self.timed_minor += other.timed_minor;
        self.major_ns += other.major_ns;
        self.minor_ns += other.minor_ns;
        self.hist.add(&other.hist);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            major: self.major.saturating_sub(earlier.major),
            minor: self.minor.saturating_sub(earlier.minor),
            timed_major: self.timed_major.saturating_sub(earlier.timed_major),
            timed_minor: self.timed_minor.saturating_sub(earlier.timed_minor),
            major_ns: self.major_ns.saturating_sub(earlier.major_ns),
            minor_ns: self.minor_ns.saturating_sub(earlier.minor_ns),
            hist: self.hist.since(&earlier.hist),
        }
    }

    fn faults(&self) -> u64 {
        self.major + self.minor
    }
}

/// One thread as the kernel half reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which thread.
    pub thread: Thread,
    /// Its name, as the kernel has it: any bytes.
    pub comm: String,
    /// Since the trace began, or for a thread that ended: what it did in all.
    pub stats: Stats,
    /// Over the same time.
    pub extremes: Extremes,
    /// Over the interval that is about to be shown.
    pub recent: Extremes,
}

/// What a variant can time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Nothing: counts only.
    None,
    /// Major faults only.
    Major,
    /// Every major fault, and one minor fault in so many (1: every one).
    All(u32),
}

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

/// How the memory was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Written.
    Write,
    /// Executed.
    Execute,
}

/// One fault, as a verbose event tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Completion, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Which thread.
    pub thread: Thread,
    /// Its name.
    pub comm: String,
    /// Whether it waited for I/O.
    pub major: bool,
    /// The address; not known for a fault that the variant could only count.
    pub addr: Option<u64>,
    /// The instruction; not known for faults taken inside the kernel.
    pub ip: Option<u64>,
    /// How the memory was touched.
    pub access: Option<Access>,
    /// From the fault to its completion, nanoseconds.
    pub latency_ns: Option<u64>,
}

impl Fault {
    /// As an event with a record of [`EVENT`].
    #[must_use]
    pub fn event(&self) -> Event {
        let access = self.access.map(|access| match access {
            Access::Read => "R",
            Access::Write => "W",
            Access::Execute => "X",
        });
        let values: Vec<Value> = vec![
            self.thread.pid.into(),
            self.thread.tid.into(),
            self.comm.as_str().into(),
            if self.major { "major" } else { "minor" }.into(),
            self.addr.into(),
            self.ip.into(),
            access.into(),
            self.latency_ns.into(),
        ];
        Event { time_ns: self.time_ns, record: Record::new(EVENT, values) }
    }
}
