//! Where faults go that are recorded, and not shown one by one.

use std::io;

use trapline_model::faults::{Fault, FaultRows, Messages, NamedStack, StackRows};
use trapline_model::{Batch as _, BatchSink, Event, Schema};

use super::Events;
use crate::system;

/// Faults on their way into a recording.
#[derive(Debug)]
pub(super) struct Recorded {
    sink: Box<dyn BatchSink>,
    /// With what their time was spent on, and with stacks.
    has_parts: bool,
    has_stacks: bool,
    /// What is made of them meanwhile.
    messages: Option<Messages>,
    /// Those that wait to be written.
    faults: Vec<Fault>,
    /// The number of those that were.
    pub(super) count: u64,
}

impl Recorded {
    pub(super) fn new(sink: Box<dyn BatchSink>, events: Events, has_parts: bool, has_stacks: bool) -> Self {
        let messages = match events {
            Events::Recorded { of, most } => Some(Messages::new(of, most)),
            _ => None,
        };
        Self { sink, has_parts, has_stacks, messages, faults: vec![], count: 0 }
    }

    /// The table of the faults.
    pub(super) fn table(&self) -> &'static Schema {
        FaultRows::new(&[], self.has_parts, self.has_stacks).table()
    }

    /// Adds as many of these; the messages that come with them are events.
    pub(super) fn add(&mut self, fault: Fault, count: u64, events: &mut Vec<Event>) {
        if let Some(messages) = &mut self.messages {
            (0..count).for_each(|_| events.extend(messages.fault(&fault)));
        }
        for _ in 1..count {
            self.faults.push(fault.clone());
        }
        self.faults.push(fault);
    }

    /// Writes what was added.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let ahead_ns = system::clocks().monotonic_ns;
        if ahead_ns != 0 {
            self.faults.iter_mut().for_each(|fault| fault.shift_clock(ahead_ns));
        }
        self.count += self.faults.len() as u64;
        self.sink.take(&FaultRows::new(&self.faults, self.has_parts, self.has_stacks))?;
        self.faults.clear();
        Ok(())
    }

    /// Writes the names of stacks.
    pub(super) fn name(&mut self, stacks: &[NamedStack]) -> io::Result<()> {
        self.sink.take(&StackRows(system::monotonic_ns(), stacks))
    }
}
