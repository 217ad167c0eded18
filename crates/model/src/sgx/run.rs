//! What the header and the end of a run of the tool say.

use crate::field::Show::Text;
use crate::field::{Kind, Unit};
use crate::table::{Schema, Table, label, loss, number};

/// How the tool runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Memory for the marks of pages, MiB.
    pub memory_mb: u64,
    /// The driver's module, if it is one.
    pub module: Option<String>,
    /// What the variant cannot tell.
    pub without: Option<String>,
}

/// How the tool runs, as records.
#[rustfmt::skip]
pub static SETTINGS: Table<Settings> = Table::settings("sgx.settings", "sgx", &[&[
    number("memory_mb", (Unit::None, Kind::Gauge), "The memory for distinguishing pages, MiB.", |s: &Settings| s.memory_mb.into()),
    label("module", "The module of the driver, if it is one.", |s: &Settings| s.module.as_deref().into()).shown("module", 0, Text),
    label("without", "The figures that the variant cannot know.", |s: &Settings| s.without.as_deref().into()).shown("without", 0, Text),
]]);

/// What was lost.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Faults for which a BPF program was not run.
    pub missed_faults: u64,
    /// Other times that one was not run.
    pub missed_programs: u64,
    /// Faults for which there was no memory.
    pub untracked_faults: u64,
    /// Faults without a return.
    pub unpaired_faults: u64,
    /// Evictions that could not be marked.
    pub unmarked_evictions: u64,
    /// Enclaves whose last figures were lost.
    pub unread_enclaves: u64,
    /// Rows that were folded into one.
    pub folded_rows: u64,
}

/// What was lost, as records.
#[rustfmt::skip]
pub static LOSSES: Table<Losses> = Table::facts("sgx.losses", "sgx", &[&[
    loss("missed_faults", "Faults that are not counted: the kernel did not run our BPF program.", |l| l.missed_faults.into()),
    loss("missed_programs", "Loads, evictions and returns for which the kernel did not run our BPF program.", |l| l.missed_programs.into()),
    loss("untracked_faults", "Faults whose kind is unknown, because the kernel had no memory, and processes of a command beyond 4096, whose faults are not counted.", |l| l.untracked_faults.into()),
    loss("unpaired_faults", "Faults whose kind and time are unknown: the kernel dropped their return.", |l| l.unpaired_faults.into()),
    loss("unmarked_evictions", "Evictions for which a refault may be missing.", |l| l.unmarked_evictions.into()),
    loss("unread_enclaves", "Enclaves that ended before their last figures were read.", |l| l.unread_enclaves.into()),
    loss("folded_rows", "Enclaves that have ended and were folded into the row (folded enclaves).", |l| l.folded_rows.into()),
]]);

/// All of them.
pub(super) const TABLES: [&Schema; 2] = [&SETTINGS, &LOSSES];
