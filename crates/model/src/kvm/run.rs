//! What the header and the end of a run of the tool say.

use crate::field::Show::Integer;
use crate::field::{Kind, Unit};
use crate::table::{Schema, Table, count, loss, number};

/// How the tool runs; what does not apply is not known.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Memory for rows and names, MiB.
    pub memory_mb: u64,
    /// An event for each exit that takes this long, nanoseconds.
    pub slower_ns: Option<u64>,
    /// Memory for stacks, MiB.
    pub stacks_mb: Option<u64>,
}

/// How the tool runs, as records.
#[rustfmt::skip]
pub static SETTINGS: Table<Settings> = Table::settings("kvm.settings", "kvm", &[&[
    number("memory_mb", (Unit::None, Kind::Gauge), "The memory for rows and names, MiB.", |s: &Settings| s.memory_mb.into()),
    number("slower_ns", (Unit::Nanoseconds, Kind::Gauge), "The least handling time of an exit that is printed.", |s: &Settings| s.slower_ns.into()).shown("slower ns", 0, Integer),
    number("stacks_mb", (Unit::None, Kind::Gauge), "The memory for stacks and unwind tables, MiB, at most.", |s: &Settings| s.stacks_mb.into()),
]]);

/// What was lost; what cannot be lost in a run is not known.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Exits for which the kernel had no memory.
    pub uncounted_exits: u64,
    /// Times that a BPF program was not run.
    pub missed_programs: u64,
    /// Rows that were folded into one.
    pub folded_rows: u64,
    /// Exits that were not timed, where exits are timed.
    pub untimed_exits: Option<u64>,
    /// Exits of other VMs, where one was named.
    pub other_vm_exits: Option<u64>,
    /// Returns to the VMM on threads without an exit.
    pub unseen_returns: u64,
    /// With stacks, exits whose stack is longer than what was copied or is walked.
    pub truncated_stacks: Option<u64>,
    /// One of its functions has no symbol.
    pub unsymbolized_stacks: Option<u64>,
    /// There was no space for it.
    pub lost_stacks: Option<u64>,
    /// It has a function without unwind information, or is corrupt.
    pub partial_stacks: Option<u64>,
    /// A table was missing.
    pub late_stacks: Option<u64>,
}

/// What was lost, as records.
#[rustfmt::skip]
pub static LOSSES: Table<Losses> = Table::facts("kvm.losses", "kvm", &[&[
    loss("uncounted_exits", "Exits that no row counts: the kernel had no memory, or the BPF map was full (65536 combinations of thread and row).", |l| l.uncounted_exits.into()),
    loss("missed_programs", "Times that the kernel did not run one of our BPF programs: an exit that is not counted or not timed.", |l| l.missed_programs.into()),
    loss("folded_rows", "Rows of what has ended that were folded into the row (folded), to keep to --memory.", |l| l.folded_rows.into()),
    loss("untimed_exits", "Exits that are counted and not timed.", |l| l.untimed_exits.into()),
    count("other_vm_exits", "Exits of other VMs than the one that --vm names.", |l| l.other_vm_exits.into()),
    count("unseen_returns", "Returns of KVM to its VMM on threads that had shown no exit by then; many of them mean a KVM that fires no kvm_exit.", |l| l.unseen_returns.into()),
    loss("truncated_stacks", "With --stacks, exits whose stack is deeper than is walked, or than is copied.", |l| l.truncated_stacks.into()),
    loss("unsymbolized_stacks", "With --stacks, exits whose stack has a frame without a symbol.", |l| l.unsymbolized_stacks.into()),
    loss("lost_stacks", "With --stacks, exits for whose stack the BPF map had no space.", |l| l.lost_stacks.into()),
    loss("partial_stacks", "With --stacks, exits whose stack ends before the start of the thread: a function without unwind information, or a corrupt stack.", |l| l.partial_stacks.into()),
    loss("late_stacks", "With --stacks, exits whose stack was followed by frame pointers where an unwind table was not there: callers may be missing.", |l| l.late_stacks.into()),
]]);

/// All of them.
pub(super) const TABLES: [&Schema; 2] = [&SETTINGS, &LOSSES];
