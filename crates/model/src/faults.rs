//! Page faults: the fields, the figures that the kernel half reports, and what becomes of them.

mod by;
mod cause;
mod fault;
mod fault_columns;
mod group;
mod layout;
mod ledger;
mod messages;
mod regroup;
mod rows;
mod run;
mod span;
mod stall;
mod step;
mod tables;

use std::rc::Rc;

use crate::hist::{Extremes, Hist};

pub use by::{By, Parts, Whose};
pub use cause::{Also, Cause, Facts, Memory, Page};
pub use fault::{Access, Fault, FaultRows, NamedStack, Outcome, StackRows};
pub use fault_columns::{
    Chunk, Chunks, FaultColumns, InColumns, Values, are_all_faults, are_faults, have_parts, shown_as,
};
pub use group::{File, Group, IN_KERNEL, Key, Stack};
pub use layout::{HIST, HIST_EACH};
pub use ledger::{GroupId, Ledger};
pub use messages::Messages;
pub use regroup::{Filter, Lines, Regroup, Regrouping};
pub use run::{LOSSES, Losses, ROOTLESS_LOSSES, SETTINGS, Settings};
pub use span::{CallTimes, Calls, SpanLedger};
pub use stall::{StallRule, Stalls, TICKS};
pub use step::{InOrder, Most, Process, Step, StepOf};
pub(crate) use tables::tables;
pub use tables::{ALL, EVENT, SLOW_EVENT, SPLIT_EVENT, STACK_EVENT, STACKS, TITLED, add_titles};

/// What a fault's time is spent on beside the kernel's work: the lock of the address space, I/O, reclaiming memory, waiting
/// for memory.high, something else that runs, and other sleep.
pub const PARTS: usize = 6;

/// Their columns, in rows and in events.
pub(crate) const PART_NAMES: [&str; PARTS] =
    ["lock_ns", "io_ns", "reclaim_ns", "throttled_ns", "preempted_ns", "sleep_ns"];

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
    /// Faults in which the thread slept.
    pub waits: u64,
    /// How long it slept in them, nanoseconds.
    pub wait_ns: u64,
    /// Those of them that are minor, where not each minor fault is timed: they stand for no others.
    pub slept_minor: u64,
    /// Their time, nanoseconds.
    pub slept_minor_ns: u64,
    /// What the time of all these was spent on beside the kernel's work.
    pub part_ns: [u64; PARTS],
    /// Times of the timed faults, a sampled one counted as many times as it stands for.
    pub hist: Hist,
    /// Times of the major ones, by octave.
    pub major_hist: Hist,
    /// Faults that ended in a signal: the kernel's accounting leaves them out, so none of the above has them.
    pub failed: u64,
    /// Processes that were forked with a copy of the memory, where that is seen.
    pub forks: Option<u64>,
}

/// The sum of what is known of two numbers.
pub(crate) fn sum_known(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    [one, other].into_iter().flatten().reduce(|one, other| one + other)
}

impl Stats {
    fn add(&mut self, other: &Self) {
        self.major += other.major;
        self.minor += other.minor;
        self.timed_major += other.timed_major;
        self.timed_minor += other.timed_minor;
        self.major_ns += other.major_ns;
        self.minor_ns += other.minor_ns;
        self.waits += other.waits;
        self.wait_ns += other.wait_ns;
        self.slept_minor += other.slept_minor;
        self.slept_minor_ns += other.slept_minor_ns;
        for (part, other) in self.part_ns.iter_mut().zip(other.part_ns) {
            *part += other;
        }
        self.hist.add(&other.hist);
        self.major_hist.add(&other.major_hist);
        self.failed += other.failed;
        self.forks = sum_known(self.forks, other.forks);
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
    /// Its name: anything that it chose.
    pub comm: Rc<str>,
    /// Its process.
    pub process: Process,
    /// The process's name.
    pub process_comm: Rc<str>,
    /// Where it was last seen: the path below the root of the v2 hierarchy.
    pub cgroup: Rc<str>,
    /// The process that forked it, where that was seen.
    pub forked_by: Option<u32>,
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
