//! The tables of SGX.

use super::By;
use super::row::{self, Row};
use crate::field::Show::{Hex, Integer, Megabytes, Microseconds, Path, Text};
use crate::field::{Highlight, Kind, Merge, Type, Unit};
use crate::table::{Column, Schema, Table, count, derived, hist, id, key, known, label, number, octaves};

const LASTS: (Unit, Kind) = (Unit::Nanoseconds, Kind::Gauge);
const PAGES: (Unit, Kind) = (Unit::Count, Kind::Gauge);
const SIZE: (Unit, Kind) = (Unit::Bytes, Kind::Gauge);
const VOLUME: (Unit, Kind) = (Unit::Bytes, Kind::Counter);

#[rustfmt::skip]
const FIGURES: &[Column<Row>] = &[
    derived("pages", PAGES, "The distinct pages that faulted in the interval.", |r| row::pages(r).into()).shown("PAGES", 12, Integer),
    derived("bytes", SIZE, "The size of the distinct pages that faulted in the interval.", |r| row::pages(r).map(|n| n * super::PAGE).into()).shown("SIZE (MB)", 12, Megabytes(2)).yields(9),
    count("unaccounted", "Faults whose page the memory budget could not hold.", |r: &Row| r.of.unaccounted.into()).shown("UNACCOUNTED", 12, Integer).yields(6).highlight(Highlight::From(1)),
    count("faults", "All faults on EPC pages.", |r: &Row| r.of.faults.into()).shown("FAULTS", 12, Integer),
    derived("bandwidth_bytes", SIZE, "The volume of the pages that were loaded or added, bytes per second.", row::per_second).shown("BANDWIDTH (MB)", 14, Megabytes(2)).yields(1),
    count("loads", "The pages that were loaded back into the EPC (ELDU).", |r: &Row| r.of.loads.into()).shown("LOADS", 9, Integer),
    count("evictions", "The pages that were written out of the EPC (EWB).", |r: &Row| r.of.evictions.into()).shown("EVICTIONS", 9, Integer),
    count("added", "The pages that were added by faults (SGX2), or given to a guest.", |r: &Row| r.known.added.then_some(r.of.added).into()).shown("ADDED", 8, Integer).yields(7),
    count("mapped", "Faults whose page was in the EPC already.", |r: &Row| r.known.outcomes.then_some(r.of.mapped).into()).shown("MAPPED", 8, Integer).yields(8),
    count("busy", "Faults that got nowhere because the EPC was full.", |r: &Row| r.known.outcomes.then_some(r.of.busy).into()).shown("BUSY", 8, Integer).yields(5),
    count("failed", "Faults that ended in a signal.", |r| r.of.failed.into()),
    number("brought_bytes", VOLUME, "The volume of the pages that were loaded or added.", |r| r.brought().into()),
    number("faulted_bytes", VOLUME, "The faults times 4 KiB, whatever became of them.", |r: &Row| (r.of.faults * super::PAGE).into()).shown("FAULTED (MB)", 12, Megabytes(2)).yields(9),
    count("evicted_by_daemon", "The evictions that the driver's own thread made.", |r| r.of.by_daemon.into()),
    derived("evicted_by_tasks", (Unit::Count, Kind::Counter), "The evictions that other threads made for space they needed.", row::evicted_by_tasks),
    count("evictions_caused", "The pages of any enclave that threads evicted while they faulted here.", |r| r.of.caused.into()),
    count("refaults", "The loads of pages that had been evicted in the same interval.", |r| r.of.refaults.into()),
    derived("refault_percent", PAGES, "The share of loads that were refaults, in per cent.", row::refault_percent).shown("REFAULT%", 8, Integer).yields(3),
    count("secs_loads", "The loads of the enclave's control page.", |r| r.of.secs_loads.into()),
    count("secs_evictions", "The evictions of the enclave's control page.", |r| r.of.secs_evictions.into()),
    derived("timed", (Unit::Count, Kind::Counter), "The faults with a load that were timed.", row::timed),
    number("load_ns", (Unit::Nanoseconds, Kind::Counter), "Time spent in the faults with a load that were timed.", |r| r.of.load_ns.into()),
    derived("p50_ns", LASTS, "Half of the faults with a load took no longer than this, within 12.5 %.", |r| row::of_timed(r, |hist, longest| hist.quantile(0.5, 0, longest))),
    derived("p99_ns", LASTS, "99 % of the faults with a load took no longer than this, within 12.5 %.", |r| row::of_timed(r, |hist, longest| hist.quantile(0.99, 0, longest))).shown("P99_US", 9, Microseconds(1)).yields(4),
    derived("max_ns", LASTS, "The time of the longest fault with a load.", |r| row::of_timed(r, |_, longest| Some(longest))).shown("MAX_US", 9, Microseconds(1)).yields(2).merged(Merge::Max),
    octaves("buckets", "The faults with a load by the time they took, by octave (with --hist).", row::buckets),
];

/// What figures are made of.
#[rustfmt::skip]
const BASE: &[Column<Row>] = &[
    count("touched", "The distinct pages that faulted, those of each interval counted anew.", |r| r.of.pages.into()),
    known("distinct", Type::Bool, "Whether those are distinct over all of the time.", |r| r.is_distinct.into()),
    known("with_hist", Type::Bool, "Whether the histogram is wanted.", |r| r.hist.into()),
    number("over_ns", LASTS, "The time that the row is about.", |r| r.duration_ns.into()),
    hist("times", Unit::Nanoseconds, "The faults with a load by the time they took.", |r| (&r.of.hist).into()),
    number("longest_ns", LASTS, "The time of the longest fault with a load.", |r: &Row| r.max_ns.into()).merged(Merge::Max),
];

#[rustfmt::skip]
const OWNER: &[Column<Row>] = &[
    id("pid", "The process that faulted on the enclave first.", |r: &Row| r.owner.pid.into()).shown("PID", 8, Integer),
    number("start_ns", (Unit::Nanoseconds, Kind::Key), "The start time of the process, CLOCK_MONOTONIC.", |r| r.owner.start_ns.into()),
    label("comm", "The name of the process.", |r: &Row| r.owner.comm.as_str().into()).shown("COMM", 15, Text),
];

#[rustfmt::skip]
const IDENTITY: &[Column<Row>] = &[
    id("enclave", "The number of the enclave in this trace.", |r: &Row| r.serial.into()).shown("ENCLAVE", 7, Integer),
    label("class", "The class of the EPC: enclave, or guest for that of a virtual machine.", |r: &Row| r.class()).shown("CLASS", 7, Text).yields(8),
    number("base", (Unit::Address, Kind::Label), "The first address of the enclave.", |r: &Row| r.owner.base.into()).shown("BASE", 14, Hex).yields(9),
    number("size", (Unit::Bytes, Kind::Label), "The size of the enclave's address range.", |r| r.owner.size.into()),
];

#[rustfmt::skip]
const PLACE: &[Column<Row>] = &[
    key("cgroup", "The path of the cgroup (v2) that the process was in when it faulted first.", |r: &Row| r.owner.cgroup.as_deref().into()).shown("CGROUP", 30, Path),
];

static ALL: Table<Row> = Table::new("sgx.all", "sgx", &[FIGURES]).base(BASE).total("TOTAL");
static ENCLAVE: Table<Row> =
    Table::new("sgx.enclave", "sgx", &[OWNER, IDENTITY, FIGURES]).base(BASE).total("TOTAL");
static PROCESS: Table<Row> = Table::new("sgx.process", "sgx", &[OWNER, FIGURES]).base(BASE).total("TOTAL");
static CGROUP: Table<Row> = Table::new("sgx.cgroup", "sgx", &[PLACE, FIGURES]).base(BASE).total("TOTAL");

/// All of them.
pub(crate) fn tables() -> impl Iterator<Item = &'static Schema> {
    let rows: [&Schema; 4] = [&ALL, &ENCLAVE, &PROCESS, &CGROUP];
    rows.into_iter().chain(super::run::TABLES)
}

impl By {
    pub(super) fn table(self) -> &'static Table<Row> {
        match self {
            Self::All => &ALL,
            Self::Enclave => &ENCLAVE,
            Self::Process => &PROCESS,
            Self::Cgroup => &CGROUP,
        }
    }

    /// The fields of its rows.
    #[must_use]
    pub fn schema(self) -> &'static Schema {
        self.table()
    }
}
