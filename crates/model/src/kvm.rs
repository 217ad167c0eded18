//! VM exits: their names, rows by reason, VM, vCPU or subject, slow exits, and the ledger behind the rows.

mod layout;
mod ledger;
mod names;
mod numbers;
mod run;
mod tables;

use crate::item::Event;

pub use layout::{COUNT, HIST, HIST_EACH, SLOWER, TIME};
pub use ledger::{Ledger, Level, PHASES, Report, Stats, Vcpu};
pub use names::{Exit, Isa, Names, NoSuchExit, RETURN_ERROR};
pub use run::{LOSSES, Losses, SETTINGS, Settings};
pub use tables::EVENT;
pub(crate) use tables::tables;

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
}

impl Slow {
    /// As an event with a record of [`EVENT`].
    #[must_use]
    pub fn event(self, names: &Names) -> Event {
        let (time_ns, name) = (self.time_ns, names.name(self.exit));
        tables::SLOW.event(time_ns, &SlowRow { slow: self, name })
    }
}

/// A slow exit and its name.
struct SlowRow {
    slow: Slow,
    name: String,
}
