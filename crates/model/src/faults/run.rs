//! What the header and the end of a run of the tool say.

use crate::field::Show::Text;
use crate::field::{Kind, Unit};
use crate::table::{Column, Schema, Table, label, loss, number};

/// How the tool runs; what does not apply is not known.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whether minor faults are timed.
    pub minor_latency: Option<String>,
    /// Whether faults in kernel mode have records, of the variant that may not see them.
    pub kernel_mode: Option<&'static str>,
    /// Memory for rows and names, MiB.
    pub memory_mb: u64,
    /// Of which faults stacks are taken.
    pub stacks: Option<String>,
    /// How they are walked in user mode.
    pub unwind: Option<String>,
    /// Memory for unwind tables, MiB.
    pub unwind_mb: Option<u64>,
    /// The mounts that a program or another machine serves.
    pub served_mounts: Option<String>,
    /// Why the causes of faults could not be found.
    pub causes_unknown: Option<String>,
}

/// How the tool runs, as records.
#[rustfmt::skip]
pub static SETTINGS: Table<Settings> = Table::settings("faults.settings", "faults", &[&[
    label("minor_latency", "Whether minor faults are timed: exact, 1:N for one in N, off; null if nothing is timed.", |s: &Settings| s.minor_latency.as_deref().into()).shown("minor latency", 0, Text),
    label("kernel_mode", "Whether faults in kernel mode are seen, or only counted.", |s: &Settings| s.kernel_mode.into()).shown("kernel mode", 0, Text),
    number("memory_mb", (Unit::None, Kind::Gauge), "The memory for rows and names, MiB.", |s: &Settings| s.memory_mb.into()),
    label("stacks", "The faults whose stack is taken.", |s: &Settings| s.stacks.as_deref().into()).shown("stacks", 0, Text),
    label("unwind", "How stacks in user mode are walked: by unwind tables (tables) or by frame pointers alone (fp).", |s: &Settings| s.unwind.as_deref().into()).shown("unwind", 0, Text),
    label("served_mounts", "The mounts that a program or another machine serves, with their types, one a line; empty without any, null where single faults are not reported.", |s: &Settings| s.served_mounts.as_deref().into()),
    label("causes_unknown", "Why the causes of faults could not be found; null where they could, or where single faults are not reported.", |s: &Settings| s.causes_unknown.as_deref().into()).shown("causes unknown", 0, Text),
    number("unwind_mb", (Unit::None, Kind::Gauge), "The memory for unwind tables and copied stacks, MiB.", |s: &Settings| s.unwind_mb.into()),
]]);

/// What was lost; what cannot be lost in a run is not known.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the columns document them")]
pub struct Losses {
    pub dropped_records: Option<u64>,
    pub unlisted_faults: Option<u64>,
    pub untracked_threads: Option<u64>,
    pub uncounted_faults: Option<u64>,
    pub unpaired_faults: Option<u64>,
    pub unattributed_faults: Option<u64>,
    pub over_quota_faults: Option<u64>,
    pub unexplained_faults: Option<u64>,
    pub missed_programs: Option<u64>,
    pub folded_rows: u64,
    pub unfinished_calls: Option<u64>,
    pub unmatched_returns: Option<u64>,
    pub open_calls: Option<u64>,
    pub too_deep_calls: Option<u64>,
    pub untracked_calls: Option<u64>,
    pub truncated_stacks: Option<u64>,
    pub unsymbolized_stacks: Option<u64>,
    pub lost_stacks: Option<u64>,
    pub partial_stacks: Option<u64>,
    pub late_stacks: Option<u64>,
    pub evicted_tables: Option<u64>,
    pub dropped_mapping_records: Option<u64>,
}

#[rustfmt::skip]
const CROWDED: Column<Losses> = loss("unattributed_faults", "With --by file or stack, or several groupings, faults for whose row the BPF map had no space: they are in the row (not attributed).", |l| l.unattributed_faults.into());
#[rustfmt::skip]
const FOLDED: Column<Losses> = loss("folded_rows", "Rows of what has ended that were folded into the row (folded …), to keep to --memory.", |l| l.folded_rows.into());

#[rustfmt::skip]
const STACKS: &[Column<Losses>] = &[
    loss("truncated_stacks", "With --by stack, faults whose stack is deeper than is walked, or, with the variant rootless, than is copied.", |l| l.truncated_stacks.into()),
    loss("unsymbolized_stacks", "With --by stack, faults whose stack has a frame without a symbol.", |l| l.unsymbolized_stacks.into()),
    loss("lost_stacks", "With --by stack, faults whose stack found no space in the BPF map: both places that it may have were taken.", |l| l.lost_stacks.into()),
    loss("partial_stacks", "With --by stack and unwind tables, faults whose stack ends before the start of the thread: a function without unwind information, or a corrupt stack.", |l| l.partial_stacks.into()),
    loss("late_stacks", "With --by stack and unwind tables, faults whose stack was followed by frame pointers, or to the end of what was copied, where a table was not there, and copies for which there was no memory: callers may be missing.", |l| l.late_stacks.into()),
    loss("evicted_tables", "With --by stack and unwind tables, tables that were removed to make space for others, of programs that had not faulted for 10 s at least: they are made again when they are met.", |l| l.evicted_tables.into()),
    loss("dropped_mapping_records", "With --by stack, dropped records of mappings, executed files and started processes: frames may be unsymbolized.", |l| l.dropped_mapping_records.into()),
];

/// What was lost, as records.
#[rustfmt::skip]
pub static LOSSES: Table<Losses> = Table::facts("faults.losses", "faults", &[&[
    loss("unlisted_faults", "Faults that `events` counts and no row: of threads that ended when there was no space to keep their row.", |l| l.unlisted_faults.into()),
    loss("untracked_threads", "Threads that are not counted: the kernel had no memory when they started.", |l| l.untracked_threads.into()),
    loss("uncounted_faults", "With --log-step or --stall, faults of processes for which the BPF map was full.", |l| l.uncounted_faults.into()),
    loss("unpaired_faults", "Faults that were under way when tracing began, one per thread at most: they are counted and not timed.", |l| l.unpaired_faults.into()),
    CROWDED,
    loss("over_quota_faults", "With --by file or stack, or several groupings, faults beyond the share of the BPF map that a process or user has, and with --by stack those beyond the space for stacks that wait for symbols: they are in a common row of the rest.", |l| l.over_quota_faults.into()),
    loss("unexplained_faults", "With --log-step -v, faults that the file and function in a message do not account for: the ring buffer was full.", |l| l.unexplained_faults.into()),
    loss("missed_programs", "Times that the kernel did not run one of our BPF programs, which was running already in a task that it had preempted: a fault that is not timed, or a start or end of a thread that is noticed late.", |l| l.missed_programs.into()),
    FOLDED,
    loss("unfinished_calls", "With --span, calls that were left without a return.", |l| l.unfinished_calls.into()),
    loss("unmatched_returns", "With --span, returns of calls that had begun before tracing, or in the parent before a fork.", |l| l.unmatched_returns.into()),
    loss("open_calls", "With --span, calls that had not returned when tracing ended.", |l| l.open_calls.into()),
    loss("too_deep_calls", "With --span, calls in a thread that had 64 of them open: the kernel waits for no more returns.", |l| l.too_deep_calls.into()),
    loss("untracked_calls", "With --span, calls that are not counted: the kernel had no memory.", |l| l.untracked_calls.into()),
], STACKS]);

/// What was lost without a kernel half, as records.
#[rustfmt::skip]
pub static ROOTLESS_LOSSES: Table<Losses> = Table::facts("faults.rootless_losses", "faults", &[&[
    loss("dropped_records", "With --variant rootless, dropped records of faults, processes and mappings: stacks may be lost or unsymbolized.", |l| l.dropped_records.into()),
    FOLDED,
    CROWDED,
], STACKS]);

/// All of them.
pub(super) const TABLES: [&Schema; 3] = [&SETTINGS, &LOSSES, &ROOTLESS_LOSSES];
