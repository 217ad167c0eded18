//! One fault, as a verbose event tells it.

use std::rc::Rc;

use super::{Cause, EVENT, Thread};
use crate::field::{Record, Value};
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
    /// What it was for; not known for a fault that the variant could only count.
    pub cause: Option<Cause>,
    /// What is mapped there: a path, or a sort of memory.
    pub file: Option<Rc<str>>,
    /// Where in the file, bytes.
    pub offset: Option<u64>,
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
        let outcome = match self.outcome {
            Outcome::Minor => "minor",
            Outcome::Major => "major",
            Outcome::Failed => "failed",
        };
        let values: Vec<Value> = vec![
            self.thread.pid.into(),
            self.thread.tid.into(),
            self.comm.as_str().into(),
            outcome.into(),
            self.addr.into(),
            self.ip.into(),
            access.into(),
            self.latency_ns.into(),
            self.cause.map(Cause::name).into(),
            self.file.as_deref().into(),
            self.offset.into(),
        ];
        Event { time_ns: self.time_ns, record: Record::new(EVENT, values) }
    }
}
