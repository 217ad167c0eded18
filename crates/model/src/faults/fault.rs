//! One fault, as a verbose event tells it.

use super::{EVENT, Thread};
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
