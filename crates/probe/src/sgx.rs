//! SGX: attaches a variant of `bpf/sgx.bpf.c` to the driver in use, and reads it.

pub(crate) mod driver;
mod from_abi;
#[cfg(test)]
mod prog_run;
mod recipe;

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use bytemuck::{bytes_of, pod_read_unaligned};
use trapline_model::sgx::{By, LOSSES, Ledger, Losses, SETTINGS, Settings};
use trapline_model::{Block, Event, Header};

use self::driver::Driver;
use self::from_abi::report;
use crate::abi::maps::sgx as maps;
use crate::abi::{SgxChunkKey, SgxEnclave, SgxLosses, TrapControl};
use crate::cgroup::Paths;
use crate::elements::Elements;
use crate::filter::Filter;
use crate::launch::Launch;
use crate::run::{Counted, Tool};
use crate::system;
use crate::variant::{self, Attached, OpenError};

#[cfg(test)]
pub(crate) use recipe::OBJECT;
pub(crate) use recipe::SgxRecipe;

/// Where in a record an enclave's figures begin, and how long it is.
const KEY: usize = size_of::<u64>();
const RECORD: usize = KEY + size_of::<SgxEnclave>();

/// What to trace, and how.
#[derive(Debug)]
pub struct Options {
    /// Whose faults.
    pub filter: Filter,
    /// Only this variant, not the first that works.
    pub variant: Option<String>,
    /// The driver's module, where more than one driver has functions of these names.
    pub module: Option<String>,
    /// What there is a row of.
    pub by: By,
    /// Rows hold the histogram of load times.
    pub hist: bool,
    /// Memory for the marks of pages, MiB.
    pub memory_mib: u32,
}

/// The tool, attached.
#[derive(Debug)]
pub struct Sgx {
    attached: Attached,
    enclaves: Elements,
    ended: Elements,
    chunks: Elements,
    ledger: Ledger,
    names: Paths,
    /// Enclaves whose marks are of no more use.
    gone: HashSet<u32>,
    epoch: u64,
    by: By,
    filter: Option<String>,
    memory_mib: u32,
    without: Vec<&'static str>,
    module: Option<String>,
}

impl Sgx {
    /// Attaches the first variant that works, or the one asked for, to the driver that is in use, or to the module
    /// asked for, and counts from then on.
    ///
    /// # Errors
    /// [`OpenError`] when there is no SGX here, no variant can be attached, or the filter names what does not exist.
    pub fn open(options: &Options, launch: Option<&Launch>) -> Result<Self, OpenError> {
        let filter = options.filter.resolve()?;
        let driver = Driver::find(options.module.as_deref())
            .map_err(|lack| OpenError::Unavailable(anyhow::Error::msg(lack)))?;
        let recipe = SgxRecipe::new(filter, driver.clone(), options.memory_mib);
        let attached = variant::open(&recipe, options.variant.as_deref())?;
        let known = recipe.known(attached.variant);
        options.filter.fill(&attached, launch)?;
        let map = |name| Elements::open(&attached, name);
        Ok(Self {
            enclaves: map(maps::ENCLAVES)?,
            ended: map(maps::ENDED)?,
            chunks: map(maps::CHUNKS)?,
            ledger: Ledger::new(options.by, known, options.hist, system::monotonic_ns()),
            names: Paths::default(),
            gone: HashSet::new(),
            epoch: recipe::FIRST_EPOCH,
            by: options.by,
            filter: options.filter.words(),
            memory_mib: options.memory_mib,
            without: recipe.without(attached.variant),
            module: driver.module,
            attached,
        })
    }

    /// Reads all figures. With `next` the kernel half begins the next interval first, with no page marked.
    fn read(&mut self, next: bool) -> Result<()> {
        let epoch = self.epoch;
        if next {
            self.epoch += 1;
            self.attached.write(maps::CONTROL, &TrapControl { epoch: self.epoch })?;
        }
        for record in self.enclaves.read().context("cannot read the enclaves")?.chunks_exact(RECORD) {
            let report = report(&pod_read_unaligned(&record[KEY..]), epoch, &mut self.names);
            self.ledger.take(report, false);
        }
        // After the living: one that ended in between is in both, and its end replaces its life.
        self.fetch_ended(epoch)?;
        if epoch != self.epoch || !self.gone.is_empty() {
            self.forget_pages()?;
        }
        Ok(())
    }

    fn fetch_ended(&mut self, epoch: u64) -> Result<()> {
        let ended = self.ended.take(|_| true).context("cannot read the enclaves that ended")?;
        for record in ended.chunks_exact(RECORD) {
            let report = report(&pod_read_unaligned(&record[KEY..]), epoch, &mut self.names);
            self.gone.insert(report.serial as u32);
            self.ledger.take(report, true);
        }
        Ok(())
    }

    /// Removes the marks of past intervals, and of enclaves that are gone.
    fn forget_pages(&mut self) -> Result<()> {
        let useless = |key: &[u8]| {
            let key: SgxChunkKey = pod_read_unaligned(key);
            u64::from(key.epoch) != self.epoch & 0xffff_ffff || self.gone.contains(&key.serial)
        };
        self.chunks.remove_all(useless).context("cannot remove the marks of pages")?;
        self.gone.clear();
        Ok(())
    }
}

impl Tool for Sgx {
    fn header(&self) -> Header {
        let settings = Settings {
            memory_mb: self.memory_mib.into(),
            module: self.module.clone(),
            without: Some(self.without.join(" ")).filter(|words| !words.is_empty()),
        };
        let settings = vec![SETTINGS.record(&settings), system::scope(self.filter.as_deref())];
        let tables = (vec![self.by.schema()], None);
        system::header("sgx", self.attached.variant, tables, settings)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn drain(&mut self, _: &mut Vec<Event>) -> Result<()> {
        self.fetch_ended(self.epoch)
    }

    fn snapshot(&mut self, all: bool) -> Result<Option<Block>> {
        self.read(!all && !self.attached.events.is_empty())?;
        Ok(Some(self.ledger.block(system::monotonic_ns(), all)))
    }

    fn facts(&mut self) -> Result<Counted> {
        let missed_faults = self.attached.missed(recipe::begins_a_fault)?;
        let missed = self.attached.missed(|name| !recipe::begins_a_fault(name))?;
        let losses: SgxLosses = self.attached.read(maps::LOSSES)?;
        Ok(Counted {
            events: Some(self.ledger.counted()),
            lost_events: losses.events + missed_faults,
            sampled: 1,
            more: LOSSES.record(&Losses {
                missed_faults,
                missed_programs: missed,
                untracked_faults: losses.untracked,
                unpaired_faults: losses.unpaired,
                unmarked_evictions: losses.unmarked,
                unread_enclaves: losses.unread,
                folded_rows: self.ledger.folded(),
            }),
        })
    }

    fn detach(&mut self, _: &mut Vec<Event>) -> Result<()> {
        self.attached.events.clear();
        self.attached.rest.clear();
        self.read(false)
    }

    fn totals(&mut self) -> Block {
        self.ledger.block(system::monotonic_ns(), true)
    }
}

/// A recipe for all that it can do.
#[cfg(test)]
pub(crate) fn recipe() -> SgxRecipe {
    let tree = crate::abi::TrapFilter { by: crate::abi::BY_TREE, ..bytemuck::Zeroable::zeroed() };
    SgxRecipe::new(tree, Driver::default(), 1)
}

/// The variable that a section consists of, as bytes for the section's initial value.
fn initial(value: &impl bytemuck::Pod) -> &[u8] {
    bytes_of(value)
}
