//! Rows: the figures of everything, of an enclave, a process or a cgroup.

use super::{Figures, Known, Owner, PAGE};
use crate::field::{Record, Value};

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

/// How figures become a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) by: By,
    pub(super) known: Known,
    pub(super) hist: bool,
}

impl Form {
    /// A row over so many nanoseconds, of an enclave of that number or of several; without an owner, the sum of all rows.
    /// `distinct`: the pages are distinct over all of the time. `max_ns`: the longest load.
    pub(super) fn row(
        self,
        (serial, owner): (Option<u64>, Option<Owner>),
        of: &Figures,
        max_ns: u64,
        duration_ns: u64,
        distinct: bool,
    ) -> Record {
        let (known, hist, is_sum) = (self.known, self.hist, owner.is_none());
        // In a table's last line, the first text says what it is.
        let total = || Owner { comm: "TOTAL".into(), cgroup: Some("TOTAL".into()), ..Owner::default() };
        let owner = owner.unwrap_or_else(total);
        let row = Row { serial, owner, of: of.clone(), max_ns, duration_ns, distinct, known, hist, is_sum };
        self.by.table().record(&row)
    }
}

/// What a row says.
pub(super) struct Row {
    /// The enclave's number, if it is of one.
    pub(super) serial: Option<u64>,
    pub(super) owner: Owner,
    pub(super) of: Figures,
    max_ns: u64,
    duration_ns: u64,
    distinct: bool,
    pub(super) known: Known,
    pub(super) hist: bool,
    is_sum: bool,
}

impl Row {
    pub(super) fn class(&self) -> Value {
        let class = if self.owner.guest { "guest" } else { "enclave" };
        if self.is_sum { Value::Null } else { Value::word(class) }
    }

    pub(super) fn pages(&self) -> Option<u64> {
        self.distinct.then_some(self.of.pages)
    }

    pub(super) fn brought(&self) -> u64 {
        (self.of.loads + self.of.added) * PAGE
    }

    pub(super) fn per_second(&self) -> u64 {
        (u128::from(self.brought()) * 1_000_000_000 / u128::from(self.duration_ns.max(1))) as u64
    }

    pub(super) fn quantile(&self, q: f64) -> Option<u64> {
        self.of.hist.quantile(q, 0, self.max_ns)
    }

    pub(super) fn longest_ns(&self) -> Option<u64> {
        Some(self.max_ns).filter(|_| self.of.hist.count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_fields_come_first() {
        let names: Vec<_> = By::All.schema().iter().map(|field| field.name).collect();
        assert_eq!(
            names[..7],
            ["pages", "bytes", "unaccounted", "faults", "bandwidth_bytes", "loads", "evictions"]
        );
        for name in ["pid", "comm", "enclave", "base", "size"] {
            assert!(By::Enclave.schema().iter().any(|field| field.name == name));
        }
    }

    #[test]
    fn bandwidth_is_of_pages_brought_in_and_per_second() {
        let form = Form { by: By::All, known: Known { added: true, outcomes: false }, hist: false };
        let figures = Figures { pages: 9, faults: 100, loads: 20, added: 5, busy: 7, ..Figures::default() };
        let row = form.row((None, None), &figures, 0, 500_000_000, true);
        assert_eq!(row.get("bandwidth_bytes"), Some(&Value::U64(25 * 4096 * 2)));
        assert_eq!(row.get("brought_bytes"), Some(&Value::U64(25 * 4096)));
        assert_eq!(row.get("faulted_bytes"), Some(&Value::U64(100 * 4096)));
        assert_eq!(row.get("bytes"), Some(&Value::U64(9 * 4096)));
        assert_eq!(row.get("busy"), Some(&Value::Null));
        assert_eq!(form.row((None, None), &figures, 0, 1, false).get("pages"), Some(&Value::Null));
    }
}
