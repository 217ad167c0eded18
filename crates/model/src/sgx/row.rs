//! Rows: the figures of everything, of an enclave, a process or a cgroup.

use super::{Figures, Known, PAGE};
use crate::field::{Field, Kind, Record, Schema, Show, Unit, Value, field, shown};

const fn counter(name: &'static str, help: &'static str) -> Field {
    field(name, Unit::Count, Kind::Counter, help)
}

const FIGURES: [Field; 25] = [
    shown(
        field("pages", Unit::Count, Kind::Gauge, "distinct pages that faulted in the interval"),
        "PAGES",
        12,
        Show::Integer,
    ),
    shown(
        field("bytes", Unit::Bytes, Kind::Gauge, "the size of those pages"),
        "SIZE (MB)",
        12,
        Show::Megabytes(2),
    ),
    shown(
        counter("unaccounted", "faults whose page the memory budget could not hold"),
        "UNACCOUNTED",
        12,
        Show::Integer,
    ),
    shown(counter("faults", "all faults"), "FAULTS", 12, Show::Integer),
    shown(
        field("bandwidth_bytes", Unit::Bytes, Kind::Gauge, "pages really brought in, bytes per second"),
        "BANDWIDTH (MB)",
        14,
        Show::Megabytes(2),
    ),
    shown(counter("loads", "pages brought back into the EPC (ELDU)"), "LOADS", 9, Show::Integer),
    shown(counter("evictions", "pages written out of the EPC (EWB)"), "EVICTIONS", 9, Show::Integer),
    shown(counter("added", "pages added by faults (SGX2), or given to a guest"), "ADDED", 8, Show::Integer),
    shown(counter("mapped", "faults whose page was in the EPC already"), "MAPPED", 8, Show::Integer),
    shown(counter("busy", "faults that got nowhere: the EPC was full"), "BUSY", 8, Show::Integer),
    counter("failed", "faults that ended in a signal"),
    field("brought_bytes", Unit::Bytes, Kind::Counter, "pages really brought in: loads and added"),
    shown(
        field("faulted_bytes", Unit::Bytes, Kind::Counter, "faults times 4 KiB, whatever became of them"),
        "FAULTED (MB)",
        12,
        Show::Megabytes(2),
    ),
    counter("evicted_by_daemon", "the evictions that the driver's own thread made"),
    counter("evicted_by_tasks", "the evictions that other threads made for room they needed"),
    counter("evictions_caused", "pages of any enclave that threads evicted while they faulted here"),
    counter("refaults", "loads of pages that had been evicted in the same interval"),
    shown(
        field("refault_percent", Unit::Count, Kind::Gauge, "how many of a hundred loads were refaults"),
        "REFAULT%",
        8,
        Show::Integer,
    ),
    counter("secs_loads", "times the enclave's control page was brought back"),
    counter("secs_evictions", "times the enclave's control page was written out"),
    counter("timed", "how many faults with a load were timed"),
    field("load_ns", Unit::Nanoseconds, Kind::Counter, "time of those faults"),
    field("p50_ns", Unit::Nanoseconds, Kind::Gauge, "half of them took no longer, within 12.5 %"),
    shown(
        field("p99_ns", Unit::Nanoseconds, Kind::Gauge, "99 % of them took no longer, within 12.5 %"),
        "P99_US",
        9,
        Show::Microseconds(1),
    ),
    shown(
        field("max_ns", Unit::Nanoseconds, Kind::Gauge, "the longest of them"),
        "MAX_US",
        9,
        Show::Microseconds(1),
    ),
];

const BUCKETS: Field =
    field("buckets", Unit::Nanoseconds, Kind::Gauge, "their times, by octave (with --hist)");

const PID: Field = shown(field("pid", Unit::None, Kind::Key, "process id"), "PID", 8, Show::Integer);
const START: Field =
    field("start_ns", Unit::Nanoseconds, Kind::Key, "when the process was born, CLOCK_MONOTONIC");
const COMM: Field = shown(field("comm", Unit::None, Kind::Label, "its name"), "COMM", 15, Show::Text);
const NUMBER: Field = shown(
    field("enclave", Unit::None, Kind::Key, "the enclave's number in this trace"),
    "ENCLAVE",
    7,
    Show::Integer,
);
const CLASS: Field = shown(
    field("class", Unit::None, Kind::Label, "enclave, or guest for the EPC of a virtual machine"),
    "CLASS",
    7,
    Show::Text,
);
const BASE: Field =
    shown(field("base", Unit::Address, Kind::Label, "its first address"), "BASE", 14, Show::Hex);
const SIZE: Field = field("size", Unit::Bytes, Kind::Label, "the size of its address range");
const GROUP: Field = shown(
    field(
        "cgroup",
        Unit::None,
        Kind::Key,
        "path of the cgroup (v2) that the process was in when it faulted first",
    ),
    "CGROUP",
    30,
    Show::Text,
);

const fn joined<const K: usize, const N: usize>(keys: [Field; K]) -> [Field; N] {
    assert!(K + FIGURES.len() + 1 == N);
    let mut all = [BUCKETS; N];
    let mut i = 0;
    while i + 1 < N {
        all[i] = if i < K { keys[i] } else { FIGURES[i - K] };
        i += 1;
    }
    all
}

/// Of everything together.
pub const ALL: &Schema = &joined::<0, 26>([]);
/// Of an enclave.
pub const ENCLAVE: &Schema = &joined::<7, 33>([PID, START, COMM, NUMBER, CLASS, BASE, SIZE]);
/// Of a process: of the enclaves on which it faulted first.
pub const PROCESS: &Schema = &joined::<3, 29>([PID, START, COMM]);
/// Of a cgroup: of such processes in it.
pub const CGROUP: &Schema = &joined::<1, 27>([GROUP]);

/// What there is a row of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Everything.
    All,
    /// Each enclave.
    Enclave,
    /// Each process.
    Process,
    /// Each cgroup.
    Cgroup,
}

impl By {
    /// The fields of its rows.
    #[must_use]
    pub const fn schema(self) -> &'static Schema {
        match self {
            Self::All => ALL,
            Self::Enclave => ENCLAVE,
            Self::Process => PROCESS,
            Self::Cgroup => CGROUP,
        }
    }
}

/// How figures become a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) by: By,
    pub(super) known: Known,
    pub(super) hist: bool,
}

impl Form {
    /// A row over so many nanoseconds. `distinct`: the pages are distinct over all of them. `max_ns`: the longest load.
    pub(super) fn row(
        self,
        keys: Vec<Value>,
        of: &Figures,
        max_ns: u64,
        duration_ns: u64,
        distinct: bool,
    ) -> Record {
        let pages = distinct.then_some(of.pages);
        let if_known = |n: u64, known: bool| known.then_some(n);
        let brought = (of.loads + of.added) * PAGE;
        let per_second = u128::from(brought) * 1_000_000_000 / u128::from(duration_ns.max(1));
        let timed = of.hist.count();
        let quantile = |q| of.hist.quantile(q, 0, max_ns);
        let mut values = keys;
        values.extend([
            pages.into(),
            pages.map(|n| n * PAGE).into(),
            of.unaccounted.into(),
            of.faults.into(),
            (per_second as u64).into(),
            of.loads.into(),
            of.evictions.into(),
            if_known(of.added, self.known.added).into(),
            if_known(of.mapped, self.known.outcomes).into(),
            if_known(of.busy, self.known.outcomes).into(),
            of.failed.into(),
            brought.into(),
            (of.faults * PAGE).into(),
            of.by_daemon.into(),
            of.evictions.saturating_sub(of.by_daemon).into(),
            of.caused.into(),
            of.refaults.into(),
            (of.loads > 0).then(|| of.refaults * 100 / of.loads).into(),
            of.secs_loads.into(),
            of.secs_evictions.into(),
            timed.into(),
            of.load_ns.into(),
            quantile(0.5).into(),
            quantile(0.99).into(),
            Some(max_ns).filter(|_| timed > 0).into(),
            if self.hist { Value::Buckets(of.hist.octaves()) } else { Value::Null },
        ]);
        Record::new(self.by.schema(), values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_fields_come_first() {
        let names: Vec<_> = ALL.iter().map(|field| field.name).collect();
        assert_eq!(
            names[..7],
            ["pages", "bytes", "unaccounted", "faults", "bandwidth_bytes", "loads", "evictions"]
        );
        for name in ["pid", "comm", "enclave", "base", "size"] {
            assert!(ENCLAVE.iter().any(|field| field.name == name));
        }
        for schema in [ALL, ENCLAVE, PROCESS, CGROUP] {
            assert!(schema.iter().enumerate().all(|(i, a)| schema[..i].iter().all(|b| a.name != b.name)));
        }
    }

    #[test]
    fn bandwidth_is_of_pages_brought_in_and_per_second() {
        let form = Form { by: By::All, known: Known { added: true, outcomes: false }, hist: false };
        let figures = Figures { pages: 9, faults: 100, loads: 20, added: 5, busy: 7, ..Figures::default() };
        let row = form.row(vec![], &figures, 0, 500_000_000, true);
        assert_eq!(row.get("bandwidth_bytes"), Some(&Value::U64(25 * 4096 * 2)));
        assert_eq!(row.get("brought_bytes"), Some(&Value::U64(25 * 4096)));
        assert_eq!(row.get("faulted_bytes"), Some(&Value::U64(100 * 4096)));
        assert_eq!(row.get("bytes"), Some(&Value::U64(9 * 4096)));
        assert_eq!(row.get("busy"), Some(&Value::Null));
        assert_eq!(form.row(vec![], &figures, 0, 1, false).get("pages"), Some(&Value::Null));
    }
}
