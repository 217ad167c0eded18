//! What the header and the end of a run of the tool say.

use crate::field::{Kind, Unit};
use crate::table::{Schema, Table, count, flag, label, loss, number};

/// How the tool runs; what does not apply is not known.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The engine.
    pub reset: &'static str,
    /// The period that is wished for, nanoseconds.
    pub every_ns: u64,
    /// The share of the target's time that our faults may take, per cent.
    pub max_overhead_percent: Option<u64>,
    /// Instructions are named.
    pub symbols: bool,
    /// What is changed on the machine, in words.
    pub changed: Option<String>,
    /// What is seen of the processes that were there at the start, in words.
    pub sight: Option<String>,
    /// Memory that the target can have, bytes: the machine's, or less where a cgroup limits it.
    pub memory_bytes: Option<u64>,
}

/// How the tool runs, as records.
#[rustfmt::skip]
pub static SETTINGS: Table<Settings> = Table::settings("access.settings", "access", &[&[
    label("reset", "The engine that resets page-table entries.", |s| s.reset.into()),
    number("every_ns", LASTS, "The period between resets that is wished for.", |s| s.every_ns.into()),
    number("max_overhead_percent", (Unit::Count, Kind::Gauge), "The share of the target's processor time that our faults may take, per cent.", |s| s.max_overhead_percent.into()),
    flag("symbols", "Whether the functions of instructions are named; null if not.", |s| s.symbols.then_some(true).into()),
    label("changed", "The settings of the machine that are changed.", |s| s.changed.as_deref().into()),
    label("sight", "What is seen and not seen of the processes that were there at the start.", |s| s.sight.as_deref().into()),
    number("memory_bytes", (Unit::Bytes, Kind::Gauge), "The memory of the machine, or of the cgroup of the target if that may have less (memory.max).", |s| s.memory_bytes.into()),
]]);

/// What was lost, and what was reached.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// Faults without an address.
    pub unlocated_faults: u64,
    /// Beginnings and ends of processes that were lost.
    pub lost_process_events: u64,
    /// Records of mappings that were lost.
    pub dropped_mapping_records: u64,
    /// Times that a BPF program was not run.
    pub missed_programs: u64,
    /// Processes that could not be taken under control.
    pub refused_processes: u64,
    /// Processes with a userfaultfd of their own.
    pub unreset_processes: u64,
    /// Of their registrations those that came too early.
    pub conflicting_registrations: u64,
    /// Rounds of resets.
    pub rounds: u64,
    /// Between two of them, nanoseconds: the mean.
    pub period_ns: u64,
    /// The 99th percentile.
    pub period_p99_ns: u64,
    /// The longest.
    pub period_max_ns: u64,
    /// Time in resets, nanoseconds.
    pub reset_ns: u64,
    /// Time in the faults that they caused, nanoseconds.
    pub fault_ns: u64,
    /// Bytes of memory that is not seen.
    pub unwatched_bytes: u64,
}

const LASTS: (Unit, Kind) = (Unit::Nanoseconds, Kind::Gauge);
const TIME: (Unit, Kind) = (Unit::Nanoseconds, Kind::Counter);

/// What was lost and reached, as records.
#[rustfmt::skip]
pub static REACHED: Table<Reached> = Table::facts("access.reached", "access", &[&[
    loss("unlocated_faults", "Faults that are counted, and whose address is not known.", |r| r.unlocated_faults.into()),
    loss("lost_process_events", "Starts, execs and exits of processes that were lost.", |r| r.lost_process_events.into()),
    loss("dropped_mapping_records", "With --symbols, dropped records of mappings, executed files and started processes: instructions may be unsymbolized.", |r| r.dropped_mapping_records.into()),
    loss("missed_programs", "Times that the kernel did not run one of our BPF programs: an access that is not seen.", |r| r.missed_programs.into()),
    loss("refused_processes", "Processes that could not be traced with resets.", |r| r.refused_processes.into()),
    loss("unreset_processes", "Processes that are not reset any more, because they have a userfaultfd of their own.", |r| r.unreset_processes.into()),
    loss("conflicting_registrations", "Registrations of such a userfaultfd that came before trapline's was closed, and may have got EBUSY.", |r| r.conflicting_registrations.into()),
    count("rounds", "Rounds of resets.", |r| r.rounds.into()),
    number("period_ns", LASTS, "The mean time between two rounds of resets.", |r| r.period_ns.into()),
    number("period_p99_ns", LASTS, "99 % of the rounds of resets followed within this time.", |r| r.period_p99_ns.into()),
    number("period_max_ns", LASTS, "The longest time between two rounds of resets.", |r| r.period_max_ns.into()),
    number("reset_ns", TIME, "Time spent in resets.", |r| r.reset_ns.into()),
    number("fault_ns", TIME, "Time that targets spent in the faults that resets caused.", |r| r.fault_ns.into()),
    number("unwatched_bytes", (Unit::Bytes, Kind::Gauge), "Memory of targets of which only the first access to each page is seen.", |r| r.unwatched_bytes.into()),
]]);

/// How a summary was made.
#[derive(Debug, Clone, Default)]
pub struct SummarySettings {
    /// Its tables.
    pub summary: String,
    /// Length of a window, nanoseconds.
    pub window_ns: u64,
}

/// How a summary was made, as records.
#[rustfmt::skip]
pub static SUMMARY_SETTINGS: Table<SummarySettings> = Table::settings("access.summary_settings", "access", &[&[
    label("summary", "The tables of the summary.", |s| s.summary.as_str().into()),
    number("window_ns", LASTS, "The length of a window of the working set.", |s| s.window_ns.into()),
]]);

/// What a summary could not hold.
#[derive(Debug, Clone, Default)]
pub struct SummaryLosses {
    /// Accesses of which it is not known where, or to pages beyond those that are held.
    pub untracked_accesses: u64,
    /// Accesses that came too late for their window.
    pub late_accesses: u64,
    /// Faults of an access that was counted.
    pub merged_faults: u64,
    /// Rows that were left out.
    pub hidden_rows: u64,
}

/// What a summary could not hold, as records.
#[rustfmt::skip]
pub static SUMMARY_LOSSES: Table<SummaryLosses> = Table::facts("access.summary_losses", "access", &[&[
    loss("untracked_accesses", "Accesses that are in no table: their page is not known, or more than 4,194,304 pages were accessed.", |l| l.untracked_accesses.into()),
    loss("late_accesses", "Accesses that are shown in a later window than their own.", |l| l.late_accesses.into()),
    count("merged_faults", "Further faults of an access that is counted already.", |l| l.merged_faults.into()),
    count("hidden_rows", "Rows of the summary that --top hides.", |l| l.hidden_rows.into()),
]]);

/// All of them.
pub(super) const TABLES: [&Schema; 4] = [&SETTINGS, &REACHED, &SUMMARY_SETTINGS, &SUMMARY_LOSSES];
