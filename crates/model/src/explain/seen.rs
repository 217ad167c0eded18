//! What rules look at in a fault, from a record or from columns.

use super::faults::PARTS;
use crate::field::{Record, Value};
use crate::table::Schema;

/// How many numbers and texts that is.
pub(super) const NUMBERS: usize = 9 + PARTS.len();
pub(super) const TEXTS: usize = 5;

/// What the rules look at in a fault; nothing of what is not known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen<'a> {
    pub(super) pid: Option<u64>,
    pub(super) tid: Option<u64>,
    pub(super) comm: Option<&'a str>,
    pub(super) process_comm: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) latency_ns: Option<u64>,
    pub(super) cause: Option<&'a str>,
    pub(super) file: Option<&'a str>,
    pub(super) offset: Option<u64>,
    pub(super) addr: Option<u64>,
    pub(super) preempted_ns: Option<u64>,
    pub(super) wait_ns: Option<u64>,
    pub(super) io_ns: Option<u64>,
    pub(super) sleep_ns: Option<u64>,
    pub(super) parts: [Option<u64>; PARTS.len()],
}

impl<'a> Seen<'a> {
    /// The columns of numbers, those of texts, and where their values go.
    #[allow(clippy::type_complexity, reason = "two lists of names")]
    pub(super) fn places<'s>(
        &'s mut self,
    ) -> ([(&'static str, &'s mut Option<u64>); NUMBERS], [(&'static str, &'s mut Option<&'a str>); TEXTS])
    {
        let [lock, reclaim, throttled] = &mut self.parts;
        let numbers = [
            ("pid", &mut self.pid),
            ("tid", &mut self.tid),
            ("latency_ns", &mut self.latency_ns),
            ("offset", &mut self.offset),
            ("addr", &mut self.addr),
            ("preempted_ns", &mut self.preempted_ns),
            ("wait_ns", &mut self.wait_ns),
            ("io_ns", &mut self.io_ns),
            ("sleep_ns", &mut self.sleep_ns),
            (PARTS[0].0, lock),
            (PARTS[1].0, reclaim),
            (PARTS[2].0, throttled),
        ];
        let texts = [
            ("comm", &mut self.comm),
            ("process_comm", &mut self.process_comm),
            ("kind", &mut self.kind),
            ("cause", &mut self.cause),
            ("file", &mut self.file),
        ];
        (numbers, texts)
    }

    /// What the thread slept, without what it slept for the lock, for reclaim and for memory.high where those are known; nothing
    /// where sleeps are not seen.
    pub(super) fn waited_ns(&self) -> Option<u64> {
        self.io_ns.zip(self.sleep_ns).map(|(io_ns, sleep_ns)| io_ns + sleep_ns).or(self.wait_ns)
    }

    pub(super) fn of(fault: &'a Record, at: &Places) -> Self {
        let mut seen = Self::default();
        let (numbers, texts) = seen.places();
        for ((_, number), at) in numbers.into_iter().zip(at.numbers) {
            *number = at.and_then(|at| if let Value::U64(n) = fault.values[at] { Some(n) } else { None });
        }
        for ((_, text), at) in texts.into_iter().zip(at.texts) {
            *text = at.and_then(|at| {
                if let Value::Str(text) = &fault.values[at] { Some(text.as_ref()) } else { None }
            });
        }
        seen
    }
}

/// Where values are in the record of a fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) schema: &'static Schema,
    pub(super) numbers: [Option<usize>; NUMBERS],
    pub(super) texts: [Option<usize>; TEXTS],
}

impl Places {
    pub(super) fn new(schema: &'static Schema) -> Self {
        let mut seen = Seen::default();
        let (numbers, texts) = seen.places();
        Self {
            schema,
            numbers: numbers.map(|(name, _)| schema.position(name)),
            texts: texts.map(|(name, _)| schema.position(name)),
        }
    }
}
