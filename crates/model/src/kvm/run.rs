//! What the header and the end of a run of the tool say.

use crate::field::Show::Integer;
use crate::field::{Kind, Record, Unit};
use crate::table::{Schema, Table, loss, number};

/// How the tool runs; what does not apply is not known.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Memory for rows and names, MiB.
    pub memory_mb: u64,
    /// An event for each exit that takes this long, nanoseconds.
    pub slower_ns: Option<u64>,
}

#[rustfmt::skip]
static SETTINGS: Table<Settings> = Table::new("kvm.settings", "kvm", &[&[
    number("memory_mb", (Unit::None, Kind::Gauge), "The memory for rows and names, MiB.", |s: &Settings| s.memory_mb.into()).shown("memory mb", 0, Integer),
    number("slower_ns", (Unit::Nanoseconds, Kind::Gauge), "The least handling time of an exit that is printed.", |s: &Settings| s.slower_ns.into()).shown("slower ns", 0, Integer),
]]);

impl Settings {
    /// As a record.
    #[must_use]
    pub fn record(&self) -> Record {
        SETTINGS.record(self)
    }
}

/// What was lost; what cannot be lost in a run is not known.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Exits for which the kernel had no memory.
    pub uncounted: u64,
    /// Times that a BPF program was not run.
    pub missed: u64,
    /// Rows that were folded into one.
    pub folded_rows: u64,
    /// Exits that were not timed, where exits are timed.
    pub untimed: Option<u64>,
    /// Exits of other VMs, where one was named.
    pub exits_of_other_vms: Option<u64>,
    /// Returns to the VMM on threads without an exit.
    pub unseen_returns: u64,
}

#[rustfmt::skip]
static LOSSES: Table<Losses> = Table::new("kvm.losses", "kvm", &[&[
    loss("uncounted", "Exits for which the kernel had no memory.", |l| l.uncounted.into()),
    loss("missed", "Times that the kernel did not run one of our BPF programs.", |l| l.missed.into()),
    loss("folded_rows", "Rows of what has ended that were folded into one.", |l| l.folded_rows.into()),
    loss("untimed", "Exits that were not timed.", |l| l.untimed.into()),
    loss("exits_of_other_vms", "Exits of other VMs than the one that was named.", |l| l.exits_of_other_vms.into()),
    loss("unseen_returns", "Returns of KVM to its VMM on threads that had shown no exit by then.", |l| l.unseen_returns.into()),
]]);

impl Losses {
    /// As a record.
    #[must_use]
    pub fn record(&self) -> Record {
        LOSSES.record(self)
    }
}

/// All of them.
pub(super) const TABLES: [&Schema; 2] = [&SETTINGS, &LOSSES];
