//! One fault, as a verbose event tells it.

use std::rc::Rc;

use super::tables::FAULT;
use super::{Cause, Thread};
use crate::field::Value;
use crate::item::Event;

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

impl Access {
    /// R, W, X.
    pub(crate) fn value(self) -> Value {
        Value::word(match self {
            Self::Read => "R",
            Self::Write => "W",
            Self::Execute => "X",
        })
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Completed without waiting for I/O.
    Minor,
    /// Completed after waiting for I/O.
    Major,
    /// The process got a signal instead, and the kernel's accounting leaves it out.
    Failed,
}

impl Outcome {
    pub(super) fn value(self) -> Value {
        Value::word(match self {
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Failed => "failed",
        })
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
    pub comm: String,
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
    /// What it was for; not known for a fault that the variant could only count.
    pub cause: Option<Cause>,
    /// What is mapped there: a path, or a sort of memory.
    pub file: Option<Rc<str>>,
    /// Where in the file, bytes.
    pub offset: Option<u64>,
}

impl Fault {
    /// As an event with a record of [`EVENT`](super::EVENT).
    #[must_use]
    pub fn event(&self) -> Event {
        FAULT.event(self.time_ns, self)
    }
}
