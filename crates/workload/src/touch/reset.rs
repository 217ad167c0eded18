//! Whether pages have been reset since they were touched: what the kernel tells of each of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::On;
use super::place::Place;
use crate::Control;
use crate::map::page_size;

/// How long a reset may be waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bits of an entry of pagemap, Documentation/admin-guide/mm/pagemap.rst.
const SOFT_DIRTY: u64 = 1 << 55;
/// Protected by userfaultfd: against writes, or from Linux 7.3 on against every access.
const PROTECTED: u64 = 1 << 57;
const PRESENT: u64 = 1 << 63;

/// A view of this process's pages.
#[derive(Debug)]
pub(super) struct Resets {
    pagemap: File,
    /// Whether this kernel tells which pages were written since they were reset.
    soft_dirty: bool,
    entries: Vec<u8>,
}

impl Resets {
    /// # Errors
    /// When there is no /proc, or no memory.
    pub(super) fn new() -> io::Result<Self> {
        let pagemap = File::open("/proc/self/pagemap")?;
        let mut resets = Self { pagemap, soft_dirty: false, entries: Vec::new() };
        // A new mapping is soft-dirty as a whole, unless it has been reset in between.
        for _ in 0..3 {
            let fresh = Place::map(On::Anon, 1)?;
            let is_dirty = resets.read(&fresh)?.any(|entry| entry & SOFT_DIRTY != 0);
            resets.soft_dirty |= is_dirty;
        }
        Ok(resets)
    }

    /// Waits until the next access to any of the pages is a fault, by a reset or because the page is not there.
    ///
    /// # Errors
    /// When nothing resets them.
    pub(super) fn wait(&mut self, place: &Place, control: &Control) -> Result<()> {
        let began = Instant::now();
        while !self.all_reset(place).context("cannot read /proc/self/pagemap")? && !control.stopped() {
            ensure!(
                began.elapsed() < PATIENCE,
                "nothing has reset the pages for {} s: trace them with `trapline access`, by writes or rwp",
                PATIENCE.as_secs()
            );
            thread::sleep(Duration::from_millis(2));
        }
        // A page may be seen as reset before all processors know of it. Whoever resets holds the lock of the address space
        // until they do.
        place.lock_once()
    }

    fn all_reset(&mut self, place: &Place) -> io::Result<bool> {
        let soft_dirty = self.soft_dirty;
        let is_reset = |entry: u64| {
            entry & PRESENT == 0 || entry & PROTECTED != 0 || (soft_dirty && entry & SOFT_DIRTY == 0)
        };
        Ok(self.read(place)?.all(is_reset))
    }

    fn read(&mut self, place: &Place) -> io::Result<impl Iterator<Item = u64>> {
        self.entries.resize(place.pages() * size_of::<u64>(), 0);
        let first = place.page(0) as usize / page_size();
        self.pagemap.read_exact_at(&mut self.entries, (first * size_of::<u64>()) as u64)?;
        Ok(self.entries.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes)))
    }
}
