//! One fault, as a verbose event tells it.

use std::ops::Range;
use std::rc::Rc;

use super::tables::{FAULT, SLOW_FAULT, SPLIT_FAULT, STACK_FAULT, STACK_NAMES};
use super::{Cause, File, PARTS, Stack, Thread};
use crate::batch::{Batch, Plain};
use crate::item::Event;
use crate::table::{Schema, Table};

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

/// Faults as rows of a table of events.
#[derive(Debug, Clone, Copy)]
pub struct FaultRows<'a> {
    table: &'static Table<Fault>,
    faults: &'a [Fault],
}

impl<'a> FaultRows<'a> {
    /// With what their time was spent on, or with stacks, if that is known.
    #[must_use]
    pub fn new(faults: &'a [Fault], has_parts: bool, has_stacks: bool) -> Self {
        let table = match (has_parts, has_stacks) {
            (_, true) => &STACK_FAULT,
            (true, false) => &SPLIT_FAULT,
            (false, false) => &FAULT,
        };
        Self { table, faults }
    }
}

impl Batch for FaultRows<'_> {
    fn table(&self) -> &'static Schema {
        self.table
    }

    fn len(&self) -> usize {
        self.faults.len()
    }

    fn time_ns(&self, row: usize) -> u64 {
        self.faults[row].time_ns
    }

    fn values(&self, column: usize, rows: Range<usize>, put: &mut dyn FnMut(Plain<'_>)) {
        self.table.values(column, &self.faults[rows], put);
    }
}

/// A stack that has its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedStack {
    /// Its number: see [`Fault::stack_id`].
    pub id: u64,
    /// The names.
    pub stack: Rc<Stack>,
}

/// Stacks as rows of [`STACKS`](super::STACKS), at a time.
#[derive(Debug, Clone, Copy)]
pub struct StackRows<'a>(pub u64, pub &'a [NamedStack]);

impl Batch for StackRows<'_> {
    fn table(&self) -> &'static Schema {
        &STACK_NAMES
    }

    fn len(&self) -> usize {
        self.1.len()
    }

    fn time_ns(&self, _row: usize) -> u64 {
        self.0
    }

    fn values(&self, column: usize, rows: Range<usize>, put: &mut dyn FnMut(Plain<'_>)) {
        STACK_NAMES.values(column, &self.1[rows], put);
    }
}

impl Access {
    /// R, W, X.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "R",
            Self::Write => "W",
            Self::Execute => "X",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Completed without reading from disk; its thread may have waited for another that did.
    Minor,
    /// Completed after reading from disk.
    Major,
    /// The process got a signal instead, and the kernel's accounting leaves it out.
    Failed,
}

impl Outcome {
    /// That of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "minor" => Some(Self::Minor),
            "major" => Some(Self::Major),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Failed => "failed",
        }
    }
}

/// One fault, as a verbose event tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Completion, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Which thread.
    pub thread: Thread,
    /// Its name.
    pub comm: Rc<str>,
    /// The start of its process, CLOCK_MONOTONIC nanoseconds.
    pub process_start_ns: Option<u64>,
    /// The name of its process.
    pub process_comm: Option<Rc<str>>,
    /// The path of its cgroup.
    pub cgroup: Option<Rc<str>>,
    /// How it ended.
    pub outcome: Outcome,
    /// The address; not known for a fault that the variant could only count.
    pub addr: Option<u64>,
    /// The instruction; not known for faults taken inside the kernel.
    pub ip: Option<u64>,
    /// How the memory was touched.
    pub access: Option<Access>,
    /// From the fault to its completion, nanoseconds.
    pub latency_ns: Option<u64>,
    /// How long the thread slept in it, nanoseconds.
    pub wait_ns: Option<u64>,
    /// What its time was spent on beside the kernel's work, as far as the variant sees it, nanoseconds.
    pub part_ns: [Option<u64>; PARTS],
    /// What it was for; not known for a fault that the variant could only count.
    pub cause: Option<Cause>,
    /// What is mapped there.
    pub file: Option<Rc<File>>,
    /// Where in the file, bytes.
    pub offset: Option<u64>,
    /// The function in user mode that faulted, or called the kernel that did, if that was asked for.
    pub function: Option<Rc<str>>,
    /// The number of its stack, which gets its names later: the same number is the same stack in a run.
    pub stack_id: Option<u64>,
}

impl Fault {
    /// One of which nothing else is known.
    #[must_use]
    pub fn new(time_ns: u64, thread: Thread, comm: Rc<str>, outcome: Outcome) -> Self {
        Self {
            time_ns,
            thread,
            comm,
            process_start_ns: None,
            process_comm: None,
            cgroup: None,
            outcome,
            addr: None,
            ip: None,
            access: None,
            latency_ns: None,
            wait_ns: None,
            part_ns: [None; PARTS],
            cause: None,
            file: None,
            offset: None,
            function: None,
            stack_id: None,
        }
    }

    /// As an event with a record of [`EVENT`](super::EVENT).
    #[must_use]
    pub fn event(&self) -> Event {
        FAULT.event(self.time_ns, self)
    }

    /// The same with what its time was spent on: with a record of [`SPLIT_EVENT`](super::SPLIT_EVENT).
    #[must_use]
    pub fn split_event(&self) -> Event {
        SPLIT_FAULT.event(self.time_ns, self)
    }

    /// The same with the function: with a record of [`SLOW_EVENT`](super::SLOW_EVENT).
    #[must_use]
    pub fn slow_event(&self) -> Event {
        SLOW_FAULT.event(self.time_ns, self)
    }

    /// Tells its times by a clock that is so far ahead.
    pub fn shift_clock(&mut self, ahead_ns: i64) {
        let times = [&mut self.time_ns, &mut self.thread.start_ns].into_iter();
        times.chain(&mut self.process_start_ns).for_each(|time| *time = time.saturating_add_signed(ahead_ns));
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    pub(super) fn part(&self, n: usize) -> Option<u64> {
        self.part_ns.get(n).copied().flatten()
    }

    /// What the parts leave of its time.
    pub(super) fn kernel_ns(&self) -> Option<u64> {
        let is_split = self.wait_ns.is_some() && self.part_ns.iter().any(Option::is_some);
        let parts = self.part_ns.iter().flatten().sum();
        self.latency_ns.filter(|_| is_split).map(|all| all.saturating_sub(parts))
    }
}
