//! Page faults: the fields, the figures that the kernel half reports, and what becomes of them.

mod cause;
mod fault;
mod group;
mod ledger;
mod rows;
mod span;
mod step;

use std::rc::Rc;

use crate::field::{Field, Kind, Schema, Show, Unit, field, shown};
use crate::hist::Hist;

pub use cause::{Also, Cause, Facts, Memory, Page};
pub use fault::{Access, Fault, Outcome};
pub use group::{By, File, Group, Key, Stack};
pub use ledger::Ledger;
pub use span::{CallTimes, Calls, SPAN, SpanLedger};
pub use step::{InOrder, Most, Process, Step, StepOf};

const PID: Field = shown(field("pid", Unit::None, Kind::Key, "process id"), "PID", 8, Show::Integer);
const TID: Field = shown(field("tid", Unit::None, Kind::Key, "thread id"), "TID", 8, Show::Integer);
const COMM: Field =
    shown(field("comm", Unit::None, Kind::Label, "the thread's name"), "COMM", 15, Show::Text);

/// The figures of every row and total.
const FIGURES: [Field; 10] = [
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

/// The fields of a row: what it is one of, then the figures.
const fn figures<const K: usize, const N: usize>(keys: [Field; K]) -> [Field; N] {
    assert!(N == K + FIGURES.len(), "a row has its keys and the figures");
    let mut all = [FIGURES[0]; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < K { keys[i] } else { FIGURES[i - K] };
        i += 1;
    }
    all
}

/// The fields of a verbose event.
pub const EVENT: &Schema = &[
    PID,
    TID,
    COMM,
    shown(
        field("kind", Unit::None, Kind::Label, "major or minor; failed: it ended in a signal"),
        "KIND",
        6,
        Show::Text,
    ),
    shown(field("addr", Unit::Address, Kind::Label, "the address that faulted"), "ADDR", 18, Show::Hex),
    shown(field("ip", Unit::Address, Kind::Label, "the instruction that faulted"), "IP", 18, Show::Hex),
    shown(field("rw", Unit::None, Kind::Label, "R read, W write, X execute"), "RW", 2, Show::Text),
    shown(
        field("latency_ns", Unit::Nanoseconds, Kind::Gauge, "from the fault to its completion"),
        "LATENCY_US",
        10,
        Show::Microseconds(1),
    ),
    shown(field("cause", Unit::None, Kind::Label, "what it was for"), "CAUSE", 13, Show::Text),
    shown(
        field("file", Unit::None, Kind::Label, "the path that is mapped there, or the sort of memory"),
        "FILE",
        48,
        Show::Text,
    ),
    shown(field("offset", Unit::Bytes, Kind::Label, "where in the file"), "OFFSET", 12, Show::Hex),
];

/// The fields of a message at each step.
pub const STEP: &Schema = &[
    PID,
    COMM,
    shown(
        field("count", Unit::Count, Kind::Counter, "the process's faults, a multiple of the step"),
        "NB_PAGE_FAULT",
        13,
        Show::Integer,
    ),
    field("step", Unit::Count, Kind::Label, "faults from one message to the next"),
];

/// The same, with what caused most.
pub const STEP_MOST: &Schema = &[STEP[0], STEP[1], STEP[2], STEP[3], MOST_FILE, MOST_CODE];

const MOST_FILE: Field = shown(
    field(
        "file",
        Unit::None,
        Kind::Label,
        "the file or memory in which most of it was since the last message",
    ),
    "FILE",
    40,
    Show::Text,
);
const MOST_CODE: Field = shown(
    field("code", Unit::None, Kind::Label, "the function that caused most of it since the last message"),
    "CODE",
    30,
    Show::Text,
);

/// The fields of a message at each step of time.
pub const STALL: &Schema = &[
    PID,
    COMM,
    shown(
        field(
            "stall_ns",
            Unit::Nanoseconds,
            Kind::Counter,
            "time the process spent in faults, a multiple of the step",
        ),
        "STALL_MS",
        13,
        Show::Milliseconds(0),
    ),
    field("step_ns", Unit::Nanoseconds, Kind::Label, "time from one message to the next"),
];

/// The same, with what caused most.
pub const STALL_MOST: &Schema = &[STALL[0], STALL[1], STALL[2], STALL[3], MOST_FILE, MOST_CODE];

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
    /// Of both together.
    pub fn add(&mut self, other: Self) {
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
    /// Faults that ended in a signal: the kernel's accounting leaves them out, so none of the above has them.
    pub failed: u64,
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
        self.failed += other.failed;
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
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }

    fn faults(&self) -> u64 {
        self.major + self.minor
    }

    /// How much is known, which only grows. The kernel counts a fault before its time is known, so an interval may end
    /// between.
    fn known(&self) -> u64 {
        self.faults() + self.failed + self.timed_major + self.timed_minor
    }
}

/// One thread as the kernel half reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which thread.
    pub thread: Thread,
    /// Its name: anything that it chose.
    pub comm: Rc<str>,
    /// Its process.
    pub process: Process,
    /// The process's name.
    pub process_comm: Rc<str>,
    /// Where it was last seen: the path below the root of the v2 hierarchy.
    pub cgroup: Rc<str>,
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
