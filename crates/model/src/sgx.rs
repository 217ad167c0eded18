//! SGX: the fields of its rows, and the ledger that turns snapshots of the kernel's figures into them.
//!
//! A page is 4 KiB in all of this: the EPC has no others.

mod layout;
mod ledger;
mod row;
mod run;
mod tables;

pub use layout::LINES;
pub use ledger::{Ledger, Owner, Report};
pub use row::By;
pub use run::{Losses, Settings};
pub(crate) use tables::tables;

use crate::hist::Hist;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// What the kernel half counts of an enclave. All fields grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Distinct pages that faulted, those of each interval counted anew.
    pub pages: u64,
    /// Faults whose page could not be marked: the memory budget was used up.
    pub unaccounted: u64,
    /// All faults.
    pub faults: u64,
    /// Pages brought back into the EPC.
    pub loads: u64,
    /// Pages added by faults.
    pub added: u64,
    /// Faults that found the page in the EPC.
    pub mapped: u64,
    /// Faults that got nowhere and were taken again.
    pub busy: u64,
    /// Faults that ended in a signal.
    pub failed: u64,
    /// Pages evicted.
    pub evictions: u64,
    /// Those of them that the driver's own thread evicted.
    pub by_daemon: u64,
    /// Pages of any enclave that threads evicted while they faulted on this one.
    pub caused: u64,
    /// Loads of pages that had been evicted in the same interval.
    pub refaults: u64,
    /// Loads of the enclave's control page.
    pub secs_loads: u64,
    /// Evictions of the enclave's control page.
    pub secs_evictions: u64,
    /// Time of the faults that loaded, nanoseconds.
    pub load_ns: u64,
    /// Time of each of them.
    pub hist: Hist,
}

impl Figures {
    fn counters(&mut self) -> [&mut u64; 15] {
        [
            &mut self.pages,
            &mut self.unaccounted,
            &mut self.faults,
            &mut self.loads,
            &mut self.added,
            &mut self.mapped,
            &mut self.busy,
            &mut self.failed,
            &mut self.evictions,
            &mut self.by_daemon,
            &mut self.caused,
            &mut self.refaults,
            &mut self.secs_loads,
            &mut self.secs_evictions,
            &mut self.load_ns,
        ]
    }

    /// Adds other figures.
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for (mine, its) in self.counters().into_iter().zip(other.counters()) {
            *mine += *its;
        }
        self.hist.add(&other.hist);
    }

    /// What these have beyond an earlier state of themselves.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let (mut since, mut earlier) = (self.clone(), earlier.clone());
        since.hist = self.hist.since(&earlier.hist);
        for (now, before) in since.counters().into_iter().zip(earlier.counters()) {
            *now = now.saturating_sub(*before);
        }
        since
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

/// What a variant can tell beyond faults, loads and evictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Pages added by faults.
    pub added: bool,
    /// Faults that found the page, and those that got nowhere.
    pub outcomes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_comes_back() {
        let old = Figures { faults: 3, loads: 2, load_ns: 500, ..Figures::default() };
        let new = Figures { faults: 10, loads: 2, load_ns: 700, evictions: 4, ..Figures::default() };
        let diff = new.since(&old);
        assert_eq!((diff.faults, diff.loads, diff.load_ns, diff.evictions), (7, 0, 200, 4));
        let mut sum = old;
        sum.add(&diff);
        assert_eq!(sum, new);
        assert!(Figures::default().is_idle() && !diff.is_idle());
    }
}
