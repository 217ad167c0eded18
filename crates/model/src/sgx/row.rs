//! Rows: the figures of everything, of an enclave, a process or a cgroup.

use super::{Figures, Known, Owner, PAGE};
use crate::field::{Record, Value};
use crate::hist::Hist;

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

/// What a row is made of.
pub(super) struct Row {
    /// The enclave's number, if it is of one.
    pub(super) serial: Option<u64>,
    pub(super) owner: Owner,
    pub(super) of: Figures,
    /// The longest load.
    pub(super) max_ns: u64,
    /// Over how long it is.
    pub(super) duration_ns: u64,
    /// The pages are distinct over all of the time.
    pub(super) is_distinct: bool,
    pub(super) known: Known,
    pub(super) hist: bool,
}

impl Row {
    pub(super) fn class(&self) -> Value {
        Value::word(if self.owner.guest { "guest" } else { "enclave" })
    }

    pub(super) fn brought(&self) -> u64 {
        (self.of.loads + self.of.added) * PAGE
    }
}

pub(super) fn pages(record: &Record) -> Option<u64> {
    record.number("touched").filter(|_| record.get("distinct") == Some(&Value::Bool(true)))
}

pub(super) fn per_second(record: &Record) -> Value {
    let brought = record.number("brought_bytes").zip(record.number("over_ns"));
    let per_second = |(bytes, ns): (u64, u64)| u128::from(bytes) * 1_000_000_000 / u128::from(ns.max(1));
    brought.map(|brought| per_second(brought) as u64).into()
}

pub(super) fn evicted_by_tasks(record: &Record) -> Value {
    let evictions = record.number("evictions").zip(record.number("evicted_by_daemon"));
    evictions.map(|(all, by_daemon)| all.saturating_sub(by_daemon)).into()
}

pub(super) fn refault_percent(record: &Record) -> Value {
    let loads = record.number("refaults").zip(record.number("loads"));
    loads.and_then(|(refaults, loads)| (refaults * 100).checked_div(loads)).into()
}

pub(super) fn timed(record: &Record) -> Value {
    record.hist("times").map(Hist::count).into()
}

/// What is made of the times, if there are any, and the longest of them.
pub(super) fn of_timed(record: &Record, value: impl Fn(&Hist, u64) -> Option<u64>) -> Value {
    let times = record.hist("times").filter(|hist| hist.count() > 0).zip(record.number("longest_ns"));
    times.and_then(|(hist, longest)| value(hist, longest)).into()
}

pub(super) fn buckets(record: &Record) -> Value {
    let wanted = record.get("with_hist") == Some(&Value::Bool(true));
    record.hist("times").filter(|_| wanted).map(Hist::octaves).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Block;
    use crate::stage::Stages;

    #[test]
    fn the_contracts_fields_come_first() {
        let names: Vec<_> = By::All.schema().iter().map(|field| field.name).collect();
        assert_eq!(
            names[..7],
            ["pages", "bytes", "unaccounted", "faults", "bandwidth_bytes", "loads", "evictions"]
        );
        for name in ["pid", "comm", "enclave", "base", "size"] {
            assert!(By::Enclave.schema().has(name));
        }
    }

    #[test]
    fn bandwidth_is_of_pages_brought_in_and_per_second() {
        let of = Figures { pages: 9, faults: 100, loads: 20, added: 5, busy: 7, ..Figures::default() };
        let known = Known { added: true, outcomes: false };
        let (serial, owner, max_ns, hist) = (None, Owner::default(), 0, false);
        let row = |is_distinct| {
            let of = of.clone();
            let duration_ns = 500_000_000;
            let row = Row { serial, owner: owner.clone(), of, max_ns, duration_ns, is_distinct, known, hist };
            let block = Block::new(By::All.schema(), 1, vec![By::All.table().record(&row).of_row(1)]);
            Stages::new().totals(block).rows.remove(0)
        };
        assert_eq!(row(true).get("bandwidth_bytes"), Some(&Value::U64(25 * 4096 * 2)));
        assert_eq!(row(true).get("brought_bytes"), Some(&Value::U64(25 * 4096)));
        assert_eq!(row(true).get("faulted_bytes"), Some(&Value::U64(100 * 4096)));
        assert_eq!(row(true).get("bytes"), Some(&Value::U64(9 * 4096)));
        assert_eq!(row(true).get("busy"), Some(&Value::Null));
        assert_eq!(row(false).get("pages"), Some(&Value::Null));
    }
}
