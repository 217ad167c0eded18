//! The ledger: what each enclave did, alive and gone, in each interval and in all.

use super::row::Row;
use super::{By, Figures, Known};
use crate::item::Block;
use crate::ledger;

/// Whose an enclave is, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The process that faulted on it first.
    pub pid: Option<u32>,
    /// That process's birth, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: Option<u64>,
    /// That process's name: any bytes.
    pub comm: String,
    /// The path of its cgroup then.
    pub cgroup: Option<String>,
    /// It is EPC of a guest, not an enclave.
    pub guest: bool,
    /// The first address.
    pub base: Option<u64>,
    /// Bytes of its address range.
    pub size: Option<u64>,
}

/// One enclave as the kernel half reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its number, never used twice in a trace.
    pub serial: u64,
    /// Whose it is.
    pub owner: Owner,
    /// Since it was first seen.
    pub figures: Figures,
    /// The longest load of the interval that is about to be shown, nanoseconds; 0 without one.
    pub longest_ns: u64,
}

/// What tells rows apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    All,
    Enclave(u64),
    Process(Option<u32>, Option<u64>),
    Cgroup(Option<String>),
    Folded,
}

impl ledger::Key for Key {
    type Owner = ();

    fn bytes(&self) -> usize {
        if let Self::Cgroup(Some(path)) = self { path.len() } else { 0 }
    }
}

/// What is known under a key.
#[derive(Debug, Default)]
struct Standing {
    owner: Owner,
    figures: Figures,
    /// Of the running interval.
    recent_ns: u64,
    /// Of the whole run.
    longest_ns: u64,
}

impl ledger::Figures for Standing {
    type Owner = ();

    fn known(&self) -> u64 {
        self.figures.known()
    }

    fn take(&mut self, later: Self, is_news: bool) {
        let (recent_ns, longest_ns) = (self.recent_ns, self.longest_ns.max(later.longest_ns));
        let recent_ns = if is_news { recent_ns.max(later.recent_ns) } else { recent_ns };
        *self = Self { recent_ns, longest_ns, ..later };
    }

    fn add(&mut self, other: &Self, is_shown: bool) {
        self.figures.add(&other.figures);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        if !is_shown {
            self.recent_ns = self.recent_ns.max(other.recent_ns);
        }
        if self.owner == Owner::default() {
            self.owner.clone_from(&other.owner);
        }
    }

    fn begin_interval(&mut self) {
        self.recent_ns = 0;
    }

    fn bytes(&self) -> usize {
        let cgroup = self.owner.cgroup.as_ref().map_or(0, String::len);
        self.figures.hist.bytes() + self.owner.comm.len() + cgroup
    }

    fn owner(&self) -> Option<()> {
        None
    }
}

/// Turns reports into rows.
#[derive(Debug)]
pub struct Ledger {
    by: By,
    known: Known,
    hist: bool,
    rows: ledger::Ledger<u64, Key, Standing>,
    began_ns: u64,
    shown_ns: u64,
    /// Since when pages are counted as distinct: so many intervals ended.
    intervals: u64,
}

impl Ledger {
    /// An empty ledger, at a moment of CLOCK_MONOTONIC. `hist`: rows hold the histogram of load times.
    #[must_use]
    pub fn new(by: By, known: Known, hist: bool, began_ns: u64) -> Self {
        let owner = Owner { comm: "(folded enclaves)".into(), ..Owner::default() };
        let rows = ledger::Ledger::new(Key::Folded, Standing { owner, ..Standing::default() });
        Self { by, known, hist, rows, began_ns, shown_ns: began_ns, intervals: 0 }
    }

    /// Takes a report: it replaces the one before. `gone`: it was the last.
    pub fn take(&mut self, report: Report, gone: bool) {
        let Report { serial, owner, figures, longest_ns } = report;
        let key = match self.by {
            By::All => Key::All,
            By::Enclave => Key::Enclave(serial),
            By::Process => Key::Process(owner.pid, owner.start_ns),
            By::Cgroup => Key::Cgroup(owner.cgroup.clone()),
        };
        self.rows.take(serial, key, Standing { owner, figures, recent_ns: longest_ns, longest_ns });
        if gone {
            self.rows.end(&serial);
        }
    }

    /// How many rows of enclaves that have ended were folded into one, because they took too much memory.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.rows.folded()
    }

    /// How many faults there were in the whole run.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.rows.figures().map(|of| of.figures.faults).sum()
    }

    /// Rows with what happened since the beginning: those that have more than the last time, or `all`. Pages are told only if
    /// they were never counted anew.
    pub fn block(&mut self, time_ns: u64, all: bool) -> Block {
        let since_ns = if all { self.began_ns } else { std::mem::replace(&mut self.shown_ns, time_ns) };
        self.intervals += u64::from(!all);
        let (table, known, hist) = (self.by.table(), self.known, self.hist);
        let (is_distinct, duration_ns) = (!all || self.intervals <= 1, time_ns.saturating_sub(since_ns));
        self.rows.block(table, time_ns, all, |key, of| {
            let serial = if let Key::Enclave(serial) = key { Some(*serial) } else { None };
            let max_ns = if all { of.longest_ns } else { of.recent_ns };
            let (owner, of) = (of.owner.clone(), of.figures.clone());
            table.record(&Row { serial, owner, of, max_ns, duration_ns, is_distinct, known, hist })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Record, Value};
    use crate::stage::Stages;

    const KNOWN: Known = Known { added: true, outcomes: true };

    fn report(serial: u64, pid: u32, faults: u64, pages: u64) -> Report {
        let owner = Owner { pid: Some(pid), start_ns: Some(1), comm: "enclave".into(), ..Owner::default() };
        Report { serial, owner, figures: Figures { faults, pages, ..Figures::default() }, longest_ns: 0 }
    }

    fn u(record: &Record, name: &str) -> Option<u64> {
        match record.get(name) {
            Some(Value::U64(n)) => Some(*n),
            _ => None,
        }
    }

    #[test]
    fn intervals_are_differences_and_there_is_always_one_line() {
        let (mut ledger, mut stages) = (Ledger::new(By::All, KNOWN, false, 0), Stages::new());
        assert_eq!(u(&stages.interval(ledger.block(1, false)).rows[0], "faults"), Some(0));
        ledger.take(report(1, 7, 10, 4), false);
        ledger.take(report(2, 8, 1, 1), true);
        assert_eq!(u(&stages.interval(ledger.block(2, false)).rows[0], "faults"), Some(11));
        ledger.take(report(1, 7, 15, 5), false);
        let block = stages.interval(ledger.block(3, false));
        assert_eq!((u(&block.rows[0], "faults"), u(&block.rows[0], "pages")), (Some(5), Some(1)));
        let totals = stages.totals(ledger.block(4, true));
        assert_eq!((u(&totals.rows[0], "faults"), u(&totals.rows[0], "pages")), (Some(16), None));
    }

    #[test]
    fn without_clearing_everything_is_since_the_start() {
        let mut ledger = Ledger::new(By::Enclave, KNOWN, false, 0);
        ledger.take(report(1, 7, 10, 4), false);
        ledger.block(1, true);
        ledger.take(report(1, 7, 12, 4), true);
        let block = Stages::new().totals(ledger.block(2, true));
        assert_eq!(u(&block.rows[0], "faults"), Some(12));
        assert_eq!(u(&Stages::new().totals(ledger.block(3, true)).rows[0], "pages"), Some(4));
    }

    #[test]
    fn enclaves_of_a_process_are_put_together() {
        let (mut ledger, mut stages) = (Ledger::new(By::Process, KNOWN, false, 0), Stages::new());
        for (serial, pid) in [(1, 7), (2, 7), (3, 8)] {
            ledger.take(report(serial, pid, 10, 4), false);
        }
        let mut block = stages.interval(ledger.block(1, false));
        block.sort(0);
        let rows: Vec<_> = block.rows.iter().map(|row| (u(row, "pid"), u(row, "faults"))).collect();
        assert_eq!(rows, [(Some(8), Some(10)), (Some(7), Some(20))]);
        assert_eq!(block.sum.and_then(|sum| u(&sum, "faults")), Some(30));
        assert!(stages.interval(ledger.block(2, false)).rows.is_empty(), "nothing happened");
    }
}
