//! VM exits: their names, rows by reason, VM, vCPU or subject, slow exits, and the ledger behind the rows.

mod layout;
mod ledger;
mod names;
mod numbers;
mod run;
mod tables;

use std::fmt;
use std::rc::Rc;

use crate::faults::Stack;
use crate::item::Event;

pub use layout::{COUNT, HIST, HIST_EACH, SLOWER, TIME};
pub use ledger::{Ledger, Level, PHASES, Report, Stats, Vcpu};
pub use names::{Exit, Isa, Names, NoSuchExit, RETURN_ERROR};
pub use run::{LOSSES, Losses, SETTINGS, Settings};
pub(crate) use tables::tables;
pub use tables::{EVENT, EVENT_WITH_STACK};

/// What rows are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The reason of the exit.
    Reason,
    /// The process that runs the guest.
    Vm,
    /// The vCPU and its thread.
    Vcpu,
    /// The reason and the model-specific register.
    Msr,
    /// The reason and the I/O port.
    Port,
    /// The reason and the guest-physical address of a device.
    Mmio,
    /// The reason and the guest's instruction.
    Rip,
    /// The reason, and why KVM returned to user space.
    Userspace,
    /// The process that runs the guest, and the reason.
    VmReason,
}

/// Which figures rows have, beside the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Their key.
    pub by: By,
    /// Whether handling is timed.
    pub timed: bool,
    /// Whether they have a histogram.
    pub buckets: bool,
    /// Whether the handling time is divided into phases.
    pub split: bool,
}

/// One slow exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// The entry that ended it, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Whose it was.
    pub vcpu: Vcpu,
    /// What it was.
    pub exit: Exit,
    /// At which level.
    pub level: Level,
    /// From the exit to the next entry, nanoseconds.
    pub latency_ns: u64,
    /// The guest's instruction.
    pub rip: u64,
    /// Where the VMM was, if that was asked for and KVM returned to it.
    pub stack: Option<VmmStack>,
}

/// Where the VMM was while it handled an exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmStack {
    /// The calls, outermost first, behind the name of the process.
    pub calls: Rc<Stack>,
    /// Of which moment; nothing if there was no space for it.
    pub at: Option<Moment>,
    /// The time that the thread was off its processor there, nanoseconds, if it was.
    pub away_ns: Option<u64>,
}

/// What a VMM's thread was doing when its stack was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It was about to run the guest again.
    Run,
    /// It slept.
    Asleep,
    /// Something else took its processor.
    Preempted,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "KVM_RUN",
            Self::Asleep => "asleep",
            Self::Preempted => "preempted",
        })
    }
}

impl Slow {
    /// As an event with a record of [`EVENT`], or of [`EVENT_WITH_STACK`] where stacks were asked for.
    #[must_use]
    pub fn event(self, names: &Names, with_stack: bool) -> Event {
        let (time_ns, name) = (self.time_ns, names.name(self.exit));
        let table = if with_stack { &tables::SLOW_WITH_STACK } else { &tables::SLOW };
        table.event(time_ns, &SlowRow { slow: self, name })
    }
}

/// A slow exit and its name.
struct SlowRow {
    slow: Slow,
    name: String,
}

impl SlowRow {
    fn stack(&self) -> Option<&VmmStack> {
        self.slow.stack.as_ref()
    }
}
