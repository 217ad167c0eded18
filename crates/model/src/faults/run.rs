//! What the header and the end of a run of the tool say.

use crate::field::Show::{Integer, Text};
use crate::field::{Kind, Record, Unit};
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
}

#[rustfmt::skip]
static SETTINGS: Table<Settings> = Table::new("faults.settings", "faults", &[&[
    label("minor_latency", "Whether minor faults are timed: exact, 1:N for one in N, off; null if nothing is timed.", |s: &Settings| s.minor_latency.as_deref().into()).shown("minor latency", 0, Text),
    label("kernel_mode", "Whether faults in kernel mode are seen, or only counted.", |s: &Settings| s.kernel_mode.into()).shown("kernel mode", 0, Text),
    number("memory_mb", (Unit::None, Kind::Gauge), "The memory for rows and names, MiB.", |s: &Settings| s.memory_mb.into()).shown("memory mb", 0, Integer),
    label("stacks", "The faults whose stack is taken.", |s: &Settings| s.stacks.as_deref().into()).shown("stacks", 0, Text),
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
#[allow(missing_docs, reason = "the columns say what they are")]
pub struct Losses {
    pub dropped: Option<u64>,
    pub unattributed: Option<u64>,
    pub untracked: Option<u64>,
    pub uncounted: Option<u64>,
    pub unpaired: Option<u64>,
    pub crowded: Option<u64>,
    pub over_quota: Option<u64>,
    pub untold: Option<u64>,
    pub missed: Option<u64>,
    pub folded_rows: u64,
    pub unfinished: Option<u64>,
    pub unentered: Option<u64>,
    pub open: Option<u64>,
    pub too_deep: Option<u64>,
    pub unkept: Option<u64>,
    pub deep: Option<u64>,
    pub unnamed: Option<u64>,
    pub chainless: Option<u64>,
    pub unmapped: Option<u64>,
}

#[rustfmt::skip]
const CROWDED: Column<Losses> = loss("crowded", "Faults for whose key there was no space in a table.", |l| l.crowded.into());
#[rustfmt::skip]
const FOLDED: Column<Losses> = loss("folded_rows", "Rows of what has ended that were folded into one.", |l| l.folded_rows.into());

#[rustfmt::skip]
const STACKS: &[Column<Losses>] = &[
    loss("deep", "Faults whose stack is truncated.", |l| l.deep.into()),
    loss("unnamed", "Faults whose stack has a frame that is not symbolized.", |l| l.unnamed.into()),
    loss("chainless", "Faults whose stack was lost.", |l| l.chainless.into()),
    loss("unmapped", "Records of process starts, programs and mappings that were dropped; frames may be unsymbolized.", |l| l.unmapped.into()),
];

#[rustfmt::skip]
static LOSSES: Table<Losses> = Table::new("faults.losses", "faults", &[&[
    loss("unattributed", "Faults of threads that ended when there was no space to keep their row, and that are in no row.", |l| l.unattributed.into()),
    loss("untracked", "Threads for which the kernel had no memory at their start.", |l| l.untracked.into()),
    loss("uncounted", "Faults of processes for which there was no space to count.", |l| l.uncounted.into()),
    loss("unpaired", "Faults that were under way when tracing began: they are counted and not timed.", |l| l.unpaired.into()),
    CROWDED,
    loss("over_quota", "Faults beyond the share of the tables that one process has.", |l| l.over_quota.into()),
    loss("untold", "Faults that what a message names does not take into account, because the ring was full.", |l| l.untold.into()),
    loss("missed", "Times that the kernel did not run one of our BPF programs.", |l| l.missed.into()),
    FOLDED,
    loss("unfinished", "Calls that were left without a return.", |l| l.unfinished.into()),
    loss("unentered", "Returns of calls that had begun before the trace, or in the parent before a fork.", |l| l.unentered.into()),
    loss("open", "Calls that had not returned when tracing ended.", |l| l.open.into()),
    loss("too_deep", "Calls in a thread that had 64 of them open.", |l| l.too_deep.into()),
    loss("unkept", "Calls for which the kernel had no memory.", |l| l.unkept.into()),
], STACKS]);

#[rustfmt::skip]
static ROOTLESS: Table<Losses> = Table::new("faults.rootless_losses", "faults", &[&[
    loss("dropped", "Records of perf events that were dropped.", |l| l.dropped.into()),
    FOLDED,
    CROWDED,
], STACKS]);

impl Losses {
    /// As a record: of the variants with a kernel half, or of the one without.
    #[must_use]
    pub fn record(&self, is_rootless: bool) -> Record {
        if is_rootless { ROOTLESS.record(self) } else { LOSSES.record(self) }
    }
}

/// All of them.
pub(super) const TABLES: [&Schema; 3] = [&SETTINGS, &LOSSES, &ROOTLESS];
