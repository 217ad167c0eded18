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
pub use run::{LOSSES, Losses, SETTINGS, Settings};
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

    /// How much is known.
    fn known(&self) -> u64 {
        let mut of = self.clone();
        of.counters().into_iter().map(|n| *n).sum::<u64>() + self.hist.count()
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
