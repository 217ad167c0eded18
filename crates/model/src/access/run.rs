//! What the header and the end of a run of the tool say.

use crate::field::{Kind, Record, Unit};
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
}

#[rustfmt::skip]
static SETTINGS: Table<Settings> = Table::new("access.settings", "access", &[&[
    label("reset", "The engine that resets page-table entries.", |s| s.reset.into()),
    number("every_ns", LASTS, "The period between resets that is wished for.", |s| s.every_ns.into()),
    number("max_overhead_percent", (Unit::Count, Kind::Gauge), "The share of the target's processor time that our faults may take, per cent.", |s| s.max_overhead_percent.into()),
    flag("symbols", "Whether the functions of instructions are named; null if not.", |s| s.symbols.then_some(true).into()),
    label("changed", "The settings of the machine that are changed.", |s| s.changed.as_deref().into()),
    label("sight", "What is seen and not seen of the processes that were there at the start.", |s| s.sight.as_deref().into()),
]]);

impl Settings {
    /// As a record.
    #[must_use]
    pub fn record(&self) -> Record {
        SETTINGS.record(self)
    }
}

/// What was lost, and what was reached.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// Faults without an address.
    pub unseen: u64,
    /// Beginnings and ends of processes that were lost.
    pub lives_lost: u64,
    /// Records of mappings that were lost.
    pub unmapped: u64,
    /// Times that a BPF program was not run.
    pub missed: u64,
    /// Processes that could not be taken under control.
    pub refused: u64,
    /// Processes with a userfaultfd of their own.
    pub gave_way: u64,
    /// Of their registrations those that came too early.
    pub gave_way_late: u64,
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
    pub out_of_sight_bytes: u64,
}

const LASTS: (Unit, Kind) = (Unit::Nanoseconds, Kind::Gauge);
const TIME: (Unit, Kind) = (Unit::Nanoseconds, Kind::Counter);

#[rustfmt::skip]
static REACHED: Table<Reached> = Table::new("access.reached", "access", &[&[
    loss("unseen", "Faults that could only be counted, and of which no address is known.", |r| r.unseen.into()),
    loss("lives_lost", "Beginnings and ends of processes that were not delivered.", |r| r.lives_lost.into()),
    loss("unmapped", "Records of process starts, programs and mappings that were dropped; instructions may have no name.", |r| r.unmapped.into()),
    loss("missed", "Times that the kernel did not run one of our BPF programs.", |r| r.missed.into()),
    loss("refused", "Processes that could not be taken under control.", |r| r.refused.into()),
    loss("gave_way", "Processes that are not reset, because they have a userfaultfd of their own.", |r| r.gave_way.into()),
    loss("gave_way_late", "Registrations of such a userfaultfd that came before ours had given way.", |r| r.gave_way_late.into()),
    count("rounds", "The rounds of resets.", |r| r.rounds.into()),
    number("period_ns", LASTS, "The mean time between two rounds of resets.", |r| r.period_ns.into()),
    number("period_p99_ns", LASTS, "99 % of the rounds of resets followed within this time.", |r| r.period_p99_ns.into()),
    number("period_max_ns", LASTS, "The longest time between two rounds of resets.", |r| r.period_max_ns.into()),
    number("reset_ns", TIME, "Time spent in resets.", |r| r.reset_ns.into()),
    number("fault_ns", TIME, "Time that targets spent in the faults that resets caused.", |r| r.fault_ns.into()),
    number("out_of_sight_bytes", (Unit::Bytes, Kind::Gauge), "The memory of targets that is not seen but for the first access to each page.", |r| r.out_of_sight_bytes.into()),
]]);

impl Reached {
    /// As a record.
    #[must_use]
    pub fn record(&self) -> Record {
        REACHED.record(self)
    }
}

/// How a summary was made.
#[derive(Debug, Clone, Default)]
pub struct SummarySettings {
    /// Its tables.
    pub summary: String,
    /// Length of a window, nanoseconds.
    pub window_ns: u64,
}

#[rustfmt::skip]
static SUMMARY_SETTINGS: Table<SummarySettings> = Table::new("access.summary_settings", "access", &[&[
    label("summary", "The tables of the summary.", |s| s.summary.as_str().into()),
    number("window_ns", LASTS, "The length of a window of the working set.", |s| s.window_ns.into()),
]]);

impl SummarySettings {
    /// As a record.
    #[must_use]
    pub fn record(&self) -> Record {
        SUMMARY_SETTINGS.record(self)
    }
}

/// What a summary could not hold.
#[derive(Debug, Clone, Default)]
pub struct SummaryLosses {
    /// Accesses of which it is not known where, or to pages beyond those that are held.
    pub untracked: u64,
    /// Accesses that came too late for their window.
    pub late: u64,
    /// Faults of an access that was counted.
    pub merged: u64,
    /// Rows that were left out.
    pub hidden_rows: u64,
}

#[rustfmt::skip]
static SUMMARY_LOSSES: Table<SummaryLosses> = Table::new("access.summary_losses", "access", &[&[
    loss("untracked", "Accesses that are in no table: their page is not known, or was one too many.", |l| l.untracked.into()),
    loss("late", "Accesses that are shown in a later window than their own.", |l| l.late.into()),
    loss("merged", "Faults that were left out as further ones of the same access.", |l| l.merged.into()),
    loss("hidden_rows", "Rows of the summary that were left out.", |l| l.hidden_rows.into()),
]]);

impl SummaryLosses {
    /// As a record.
    #[must_use]
    pub fn record(&self) -> Record {
        SUMMARY_LOSSES.record(self)
    }
}

/// What the header of a recording says of it.
pub const SETTINGS_OF: &[&Schema] = &[&SETTINGS, &SUMMARY_SETTINGS];
/// What the end of a recording says of it.
pub const FACTS_OF: &[&Schema] = &[&REACHED];
/// All of them.
pub(super) const TABLES: [&Schema; 4] = [&SETTINGS, &REACHED, &SUMMARY_SETTINGS, &SUMMARY_LOSSES];
