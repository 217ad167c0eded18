//! The ledger: what each enclave did, alive and gone, in each interval and in all.

use std::collections::HashMap;

use super::row::Form;
use super::{By, Figures, Known};
use crate::field::Record;
use crate::item::Block;

/// Enclaves that are gone are kept apart up to this number; beyond it the least of them are put together in one row.
const GONE_KEPT: usize = 16_384;

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

#[derive(Debug, Default)]
struct Entry {
    owner: Owner,
    figures: Figures,
    shown: Figures,
    /// Of the running interval.
    recent_ns: u64,
    /// Of the whole run.
    longest_ns: u64,
    gone: bool,
}

/// Turns reports into rows.
#[derive(Debug)]
pub struct Ledger {
    form: Form,
    enclaves: HashMap<u64, Entry>,
    others: Entry,
    folded: u64,
    began_ns: u64,
    shown_ns: u64,
    /// Since when pages are counted as distinct: so many intervals ended.
    intervals: u64,
}

/// Figures on their way into a row.
#[derive(Default)]
struct Sum {
    owner: Owner,
    figures: Figures,
    longest_ns: u64,
}

impl Ledger {
    /// An empty ledger, at a moment of CLOCK_MONOTONIC. `hist`: rows hold the histogram of load times.
    #[must_use]
    pub fn new(by: By, known: Known, hist: bool, began_ns: u64) -> Self {
        Self {
            form: Form { by, known, hist },
            enclaves: HashMap::new(),
            others: Entry::default(),
            folded: 0,
            began_ns,
            shown_ns: began_ns,
            intervals: 0,
        }
    }

    /// Takes a report: it replaces the one before. `gone`: it was the last.
    pub fn take(&mut self, report: Report, gone: bool) {
        let entry = self.enclaves.entry(report.serial).or_default();
        entry.owner = report.owner;
        entry.figures = report.figures;
        entry.recent_ns = entry.recent_ns.max(report.longest_ns);
        entry.longest_ns = entry.longest_ns.max(report.longest_ns);
        entry.gone |= gone;
    }

    /// Enclaves that are shown together in one row, for there were too many to keep apart.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// How many faults there were in the whole run.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.enclaves.values().chain([&self.others]).map(|entry| entry.figures.faults).sum()
    }

    /// What happened in the interval that ends now; with `cumulative`, since the beginning.
    pub fn interval(&mut self, time_ns: u64, cumulative: bool) -> Block {
        let since_ns = if cumulative { self.began_ns } else { self.shown_ns };
        let mut parts = Vec::new();
        for (&serial, entry) in &mut self.enclaves {
            let recent_ns = std::mem::take(&mut entry.recent_ns);
            let part = if cumulative {
                (entry.figures.clone(), entry.longest_ns)
            } else {
                (entry.figures.since(&entry.shown), recent_ns)
            };
            entry.shown = entry.figures.clone();
            parts.push((
                Some(serial),
                Sum { owner: entry.owner.clone(), figures: part.0, longest_ns: part.1 },
            ));
        }
        if cumulative {
            parts.push((None, self.others()));
        } else {
            self.intervals += 1;
        }
        self.shown_ns = time_ns;
        self.fold();
        self.block(time_ns, parts, time_ns.saturating_sub(since_ns), true)
    }

    /// What happened in the whole run. Pages are told only if they were never counted anew.
    #[must_use]
    pub fn totals(&self, time_ns: u64) -> Block {
        let entries = self.enclaves.iter().map(|(&serial, entry)| {
            let (owner, figures) = (entry.owner.clone(), entry.figures.clone());
            (Some(serial), Sum { owner, figures, longest_ns: entry.longest_ns })
        });
        let parts = entries.chain([(None, self.others())]).collect();
        self.block(time_ns, parts, time_ns.saturating_sub(self.began_ns), self.intervals <= 1)
    }

    fn others(&self) -> Sum {
        let owner = self.others.owner.clone();
        Sum { owner, figures: self.others.figures.clone(), longest_ns: self.others.longest_ns }
    }

    fn block(&self, time_ns: u64, parts: Vec<(Option<u64>, Sum)>, ns: u64, distinct: bool) -> Block {
        let mut all = Sum::default();
        let mut groups: HashMap<Group, (Option<u64>, Sum)> = HashMap::new();
        for (serial, part) in parts {
            all.add(&part);
            if part.figures.is_idle() {
                continue;
            }
            let owner = &part.owner;
            // Labels may differ within a group, so only what tells groups apart decides.
            let group = match self.form.by {
                By::All => continue,
                By::Enclave => Group::Enclave(serial),
                By::Process => Group::Process(owner.pid, owner.start_ns),
                By::Cgroup => Group::Cgroup(owner.cgroup.clone()),
            };
            let new = || (serial, Sum { owner: owner.clone(), ..Sum::default() });
            groups.entry(group).or_insert_with(new).1.add(&part);
        }
        let row = |serial, owner, figures: &Figures, longest_ns| {
            self.form.row((serial, owner), figures, longest_ns, ns, distinct)
        };
        let sum = row(None, None, &all.figures, all.longest_ns);
        if self.form.by == By::All {
            let rows = vec![sum.clone()];
            return Block { sum: Some(sum), ..Block::new(self.form.by.table(), time_ns, rows) };
        }
        let groups = groups.into_values();
        let rows: Vec<Record> = groups
            .map(|(serial, Sum { owner, figures, longest_ns })| {
                row(serial, Some(owner), &figures, longest_ns)
            })
            .collect();
        Block { sum: Some(sum), ..Block::new(self.form.by.table(), time_ns, rows) }
    }

    /// Keeps memory bounded: puts the least of those that are gone together when there are too many.
    fn fold(&mut self) {
        let gone = self.enclaves.iter().filter(|(_, entry)| entry.gone);
        let mut gone: Vec<_> = gone.map(|(&serial, entry)| (entry.figures.faults, serial)).collect();
        if gone.len() <= GONE_KEPT {
            return;
        }
        gone.sort_unstable();
        self.others.owner.comm = "(folded enclaves)".into();
        for (_, serial) in gone.drain(..GONE_KEPT / 2) {
            if let Some(entry) = self.enclaves.remove(&serial) {
                self.others.figures.add(&entry.figures);
                self.others.longest_ns = self.others.longest_ns.max(entry.longest_ns);
                self.folded += 1;
            }
        }
    }
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.figures.add(&other.figures);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

/// What tells rows apart.
#[derive(PartialEq, Eq, Hash)]
enum Group {
    Enclave(Option<u64>),
    Process(Option<u32>, Option<u64>),
    Cgroup(Option<String>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

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
        let mut ledger = Ledger::new(By::All, KNOWN, false, 0);
        assert_eq!(u(&ledger.interval(1, false).rows[0], "faults"), Some(0));
        ledger.take(report(1, 7, 10, 4), false);
        ledger.take(report(2, 8, 1, 1), true);
        assert_eq!(u(&ledger.interval(2, false).rows[0], "faults"), Some(11));
        ledger.take(report(1, 7, 15, 5), false);
        let block = ledger.interval(3, false);
        assert_eq!((u(&block.rows[0], "faults"), u(&block.rows[0], "pages")), (Some(5), Some(1)));
        let totals = ledger.totals(4);
        assert_eq!((u(&totals.rows[0], "faults"), u(&totals.rows[0], "pages")), (Some(16), None));
    }

    #[test]
    fn without_clearing_everything_is_since_the_start() {
        let mut ledger = Ledger::new(By::Enclave, KNOWN, false, 0);
        ledger.take(report(1, 7, 10, 4), false);
        ledger.interval(1, true);
        ledger.take(report(1, 7, 12, 4), true);
        let block = ledger.interval(2, true);
        assert_eq!(u(&block.rows[0], "faults"), Some(12));
        assert_eq!(u(&ledger.totals(3).rows[0], "pages"), Some(4));
    }

    #[test]
    fn enclaves_of_a_process_are_put_together() {
        let mut ledger = Ledger::new(By::Process, KNOWN, false, 0);
        for (serial, pid) in [(1, 7), (2, 7), (3, 8)] {
            ledger.take(report(serial, pid, 10, 4), false);
        }
        let mut block = ledger.interval(1, false);
        block.sort(0);
        let rows: Vec<_> = block.rows.iter().map(|row| (u(row, "pid"), u(row, "faults"))).collect();
        assert_eq!(rows, [(Some(8), Some(10)), (Some(7), Some(20))]);
        assert_eq!(block.sum.and_then(|sum| u(&sum, "faults")), Some(30));
        assert!(ledger.interval(2, false).rows.is_empty(), "nothing happened");
    }

    #[test]
    fn too_many_that_are_gone_are_folded_and_none_is_lost() {
        let mut ledger = Ledger::new(By::Enclave, KNOWN, false, 0);
        let n = GONE_KEPT as u64 + 1;
        (1..=n).for_each(|serial| ledger.take(report(serial, 1, serial, 1), true));
        ledger.interval(1, false);
        assert_eq!(ledger.folded(), GONE_KEPT as u64 / 2);
        let totals = ledger.totals(2);
        assert_eq!(totals.sum.and_then(|sum| u(&sum, "faults")), Some(n * (n + 1) / 2));
        assert_eq!(totals.rows.iter().filter_map(|row| u(row, "faults")).sum::<u64>(), n * (n + 1) / 2);
    }
}
