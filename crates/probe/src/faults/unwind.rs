//! Unwind tables for the kernel half: see `bpf/unwind.bpf.h`. The symbolizer makes them, one after the other, and where the
//! kernel half meets a file that has none yet, that one first.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::time::Instant;

use anyhow::{Context, Result};
use bytemuck::bytes_of;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::sys::mman::{MapFlags as Map, ProtFlags, mmap, munmap};
use trapline_symbols::Symbols;
use trapline_symbols::unwind::{Row, Table};

use super::recipe::ROWS;
use crate::abi::maps::unwind as maps;
use crate::abi::{UnwindFile, UnwindMiss, UnwindRow, UnwindTable};
use crate::ring::Ring;
use crate::system;
use crate::variant::Attached;

/// The memory for rows, MiB.
pub(super) const MEGABYTES: u64 = (ROWS as u64 * size_of::<UnwindRow>() as u64) >> 20;

/// Files of a user who is not root may take one in so many of them.
const SHARE: u32 = 4;

/// A file that cannot be opened is tried again this often: each time another process may have it.
const TRIES: u32 = 8;

/// The kernel half's tables.
#[derive(Debug)]
pub(super) struct Tables {
    rows: Rows,
    tables: MapHandle,
    misses: Ring<UnwindMiss>,
    missed: Vec<UnwindMiss>,
    /// Where the rows of each program are, by its number.
    places: HashMap<u32, UnwindTable>,
    used: u32,
    /// How many of them are of files of each user but root.
    of_users: HashMap<u32, u32>,
    /// How often a file that was missed could not be opened.
    unopened: HashMap<(u32, u64), u32>,
    /// No table can be made before more time has passed.
    is_stuck: bool,
}

impl Tables {
    pub(super) fn open(attached: &Attached) -> Result<Self> {
        let misses = attached.handle(maps::MISSES)?;
        Ok(Self {
            rows: Rows::map(&attached.handle(maps::ROWS)?)?,
            tables: attached.handle(maps::TABLES)?,
            misses: Ring::new(&misses, |&miss: &UnwindMiss| [miss])?,
            missed: vec![],
            places: HashMap::new(),
            used: 0,
            of_users: HashMap::new(),
            unopened: HashMap::new(),
            is_stuck: false,
        })
    }

    /// Becomes readable when the kernel half meets a file without a table.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.misses.fd()
    }

    /// Whether some could be made now.
    pub(super) fn may_go_on(&self, symbols: &Symbols) -> bool {
        symbols.has_tables_to_make() && !self.is_stuck
    }

    /// Whether some are missed.
    pub(super) fn are_missed(&mut self) -> bool {
        let _ = self.misses.drain(&mut self.missed);
        !self.missed.is_empty()
    }

    /// Has those made that were missed.
    pub(super) fn follow(&mut self, symbols: &mut Symbols) -> Result<()> {
        self.misses.drain(&mut self.missed)?;
        for UnwindMiss { file, addr, pid, .. } in self.missed.drain(..) {
            let key = (file.device, file.inode);
            if symbols.want_table(key, pid, addr) {
                continue;
            }
            let tries = self.unopened.entry(key).or_default();
            *tries += 1;
            if *tries < TRIES {
                // Another process may have it mapped.
                let _ = self.tables.delete(bytes_of(&file));
            }
        }
        self.is_stuck = false;
        Ok(())
    }

    /// Makes tables, up to a moment.
    pub(super) fn load(&mut self, symbols: &mut Symbols, until: Instant) -> Result<()> {
        while symbols.has_tables_to_make() {
            symbols.wait_until(Some(until));
            match symbols.next_table() {
                Some(table) => self.store(&table)?,
                None => {
                    // Its user's files may have had their time.
                    self.is_stuck = symbols.wait().is_none();
                    return Ok(());
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    fn store(&mut self, Table { file, program, owner, rows }: &Table) -> Result<()> {
        let &(device, inode) = file;
        let file = UnwindFile { inode, device, pad: 0 };
        let place = match rows {
            None => self.places.get(program).copied(),
            Some(rows) => self.place(rows, *owner),
        };
        // Where there is no space it stays missing.
        let Some(place) = place else { return Ok(()) };
        self.places.insert(*program, place);
        let update = || self.tables.update(bytes_of(&file), bytes_of(&place), MapFlags::ANY);
        // So it does where the map is full: stacks that end there are counted (`late_stacks`).
        let _ = system::undisturbed(update);
        Ok(())
    }

    /// Puts rows behind the others.
    fn place(&mut self, rows: &[Row], owner: u32) -> Option<UnwindTable> {
        let (first, count) = (self.used, u32::try_from(rows.len()).ok()?);
        let of_user = self.of_users.entry(owner).or_default();
        let most = if owner == 0 { ROWS } else { ROWS / SHARE };
        let its = of_user.checked_add(count).filter(|its| *its <= most)?;
        let used = first.checked_add(count).filter(|used| *used <= ROWS)?;
        (self.used, *of_user) = (used, its);
        self.rows.write(first as usize, rows);
        Some(UnwindTable { first, rows: count, ready: 1, pad: 0 })
    }
}

/// The array of rows, mapped: to write each by a system call would take longer than to make it.
#[derive(Debug)]
struct Rows {
    at: NonNull<UnwindRow>,
}

/// Its size, bytes.
const BYTES: usize = ROWS as usize * size_of::<UnwindRow>();

#[allow(unsafe_code)]
impl Rows {
    fn map(map: &MapHandle) -> Result<Self> {
        let length = BYTES.try_into().context("no memory is mapped")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: it is mapped where there is nothing else.
        let at = unsafe { mmap(None, length, access, Map::MAP_SHARED, map.as_fd(), 0) };
        Ok(Self { at: at.context("cannot map the BPF map of unwind rows")?.cast() })
    }

    fn write(&self, first: usize, rows: &[Row]) {
        debug_assert!(first + rows.len() <= ROWS as usize);
        for (n, &Row { at, rule }) in rows.iter().enumerate().take((ROWS as usize).saturating_sub(first)) {
            // SAFETY: it is within the array, whose elements are of 8 bytes; the kernel half reads none that has no table yet.
            unsafe { self.at.add(first + n).write_volatile(UnwindRow { at, rule }) };
        }
    }
}

#[allow(unsafe_code)]
impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: we mapped it, and nobody else knows where.
        let _ = unsafe { munmap(self.at.cast(), BYTES) };
    }
}
