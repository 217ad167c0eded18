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
use trapline_symbols::unwind::{self, Ends, FileKey, Found, Row, Table, UnwoundBy};
use trapline_symbols::{Image, Symbols};

use super::copies::{self, Copied, Copies, Told};
use super::recipe::{ROWS, UNWIND_RING};
use super::stacks::{Chain, End};
use crate::abi::maps::unwind as maps;
use crate::abi::{self, UnwindFile, UnwindMiss, UnwindRow, UnwindTable};
use crate::ring::Ring;
use crate::system;
use crate::variant::Attached;

/// The memory for rows, and for copies of stacks that wait for them, MiB.
pub(super) const MEGABYTES: u64 =
    (ROWS as u64 * size_of::<UnwindRow>() as u64 + UNWIND_RING as u64 + copies::MOST as u64) >> 20;

/// Files of a user who is not root may take one in so many of them.
const SHARE: u32 = 4;

/// A file that cannot be opened is tried again this often: each time another process may have it.
const TRIES: u32 = 8;

const REFUSED: UnwindTable = UnwindTable { first: 0, rows: 0, state: abi::UNWIND_REFUSED, copies: 0 };

/// The kernel half's tables.
#[derive(Debug)]
pub(super) struct Tables {
    rows: Rows,
    tables: MapHandle,
    ring: Ring<Told>,
    told: Vec<Told>,
    missed: Vec<UnwindMiss>,
    copies: Copies,
    /// Where the rows of each program are, by its number, and those of each file.
    places: HashMap<u32, UnwindTable>,
    of_files: HashMap<FileKey, UnwindTable>,
    used: u32,
    /// How many of them are of files of each user but root.
    of_users: HashMap<u32, u32>,
    /// How often a file that was missed could not be opened.
    unopened: HashMap<FileKey, u32>,
    /// No table can be made before more time has passed.
    is_stuck: bool,
}

impl Tables {
    pub(super) fn open(attached: &Attached) -> Result<Self> {
        let misses = attached.handle(maps::MISSES)?;
        Ok(Self {
            rows: Rows::map(&attached.handle(maps::ROWS)?)?,
            tables: attached.handle(maps::TABLES)?,
            ring: Ring::of_many(&misses, Told::parse)?,
            told: vec![],
            missed: vec![],
            copies: Copies::default(),
            places: HashMap::new(),
            of_files: HashMap::new(),
            used: 0,
            of_users: HashMap::new(),
            unopened: HashMap::new(),
            is_stuck: false,
        })
    }

    /// Becomes readable when the kernel half meets a file without a table.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.ring.fd()
    }

    /// Whether some could be made now.
    pub(super) fn may_go_on(&self, symbols: &Symbols) -> bool {
        symbols.has_tables_to_make() && !self.is_stuck
    }

    fn drain(&mut self) -> Result<()> {
        self.ring.drain(&mut self.told)?;
        for told in self.told.drain(..) {
            match told {
                Told::Miss(miss) => self.missed.push(miss),
                Told::Copied(key, copy) => self.copies.add(key, copy),
            }
        }
        Ok(())
    }

    /// Whether some are missed.
    pub(super) fn are_missed(&mut self) -> bool {
        let _ = self.drain();
        !self.missed.is_empty()
    }

    /// Has those made that were missed.
    pub(super) fn follow(&mut self, symbols: &mut Symbols) -> Result<()> {
        self.drain()?;
        for UnwindMiss { file, addr, pid, .. } in std::mem::take(&mut self.missed) {
            let key = (file.device, file.inode);
            if symbols.want_table(key, pid, addr) {
                continue;
            }
            let tries = self.unopened.entry(key).or_default();
            *tries += 1;
            if *tries < TRIES {
                // Another process may have it mapped.
                let _ = self.tables.delete(bytes_of(&file));
            } else {
                self.refuse(key);
            }
        }
        self.is_stuck = false;
        Ok(())
    }

    /// Makes tables, up to a moment. Tells whether there are more than before.
    pub(super) fn load(&mut self, symbols: &mut Symbols, until: Instant) -> bool {
        let mut any = false;
        while symbols.has_tables_to_make() {
            any |= self.load_one(symbols, until);
            if self.is_stuck || Instant::now() >= until {
                break;
            }
        }
        any
    }

    /// Makes the next one, if there is time for it.
    pub(super) fn load_one(&mut self, symbols: &mut Symbols, until: Instant) -> bool {
        symbols.wait_until(Some(until));
        if let Some(table) = symbols.next_table() {
            self.store(&table);
            return true;
        }
        // Its user's files may have had their time.
        self.is_stuck = symbols.wait().is_none();
        false
    }

    /// Whether a stack was copied under that key.
    pub(super) fn has_copy(&mut self, key: u64) -> bool {
        key >> 63 != 0 && (self.copies.has(key) || self.drain().is_ok() && self.copies.has(key))
    }

    pub(super) fn take_copy(&mut self, key: u64) -> Option<Copied> {
        self.copies.take(key)
    }

    /// Walks a stack that was copied. Nothing if a table has to be made before; if it is the last time, by frame pointers
    /// where one is missing.
    pub(super) fn walk(
        &self,
        copied: &Copied,
        image: Image,
        deepest: usize,
        is_last: bool,
        symbols: &mut Symbols,
    ) -> Option<Chain> {
        let find = |addr| match symbols.unwound_by(image, addr) {
            UnwoundBy::Nothing => Found::Nothing,
            UnwoundBy::Frame => Found::Frame,
            UnwoundBy::Table(file, at) => match self.of_files.get(&file) {
                Some(table) if table.state == abi::UNWIND_READY && table.rows == 0 => Found::Frame,
                Some(table) if table.state == abi::UNWIND_READY => Found::Rule(self.rows.rule_at(table, at)),
                None if !is_last && symbols.want_first(file, image, addr) => Found::Late,
                _ => Found::Refused,
            },
        };
        let (ips, ends) = unwind::walk(copied.copy(), deepest, find)?;
        let end = match ends {
            Ends::Start => End::Outermost,
            Ends::Deepest => End::Deepest,
            Ends::Undescribed => End::Undescribed,
            Ends::Late | Ends::Cut => End::Late,
            Ends::LateFrames => End::LateFrames,
            Ends::Corrupt => End::Corrupt,
        };
        Some(Chain::taken(&ips, end))
    }

    fn store(&mut self, Table { file, program, owner, rows }: &Table) {
        let place = match rows {
            None => self.places.get(program).copied(),
            Some(rows) => self.place(rows, *owner),
        };
        // Where there is no space, stacks that end there are counted (`late_stacks`).
        let place = place.unwrap_or(REFUSED);
        self.places.insert(*program, place);
        self.tell(*file, place);
    }

    /// There will be none of that file.
    pub(super) fn refuse(&mut self, file: FileKey) {
        self.tell(file, REFUSED);
    }

    /// The kernel half has it from here on. Where its map is full it has not: it stays missing, and is counted.
    fn tell(&mut self, file: FileKey, place: UnwindTable) {
        self.of_files.insert(file, place);
        let (device, inode) = file;
        let key = UnwindFile { inode, device, pad: 0 };
        let _ = system::undisturbed(|| self.tables.update(bytes_of(&key), bytes_of(&place), MapFlags::ANY));
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
        Some(UnwindTable { first, rows: count, state: abi::UNWIND_READY, copies: 0 })
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

    /// The rule of the last row at or before an offset.
    fn rule_at(&self, table: &UnwindTable, at: u64) -> u32 {
        let (mut low, mut high, mut rule) = (table.first, table.first + table.rows, abi::UNWIND_UNKNOWN);
        while low < high.min(ROWS) {
            let middle = low + (high - low) / 2;
            // SAFETY: it is within the array, as `high` is; nobody but us writes to it.
            let row = unsafe { self.at.add(middle as usize).read_volatile() };
            if u64::from(row.at) <= at {
                (rule, low) = (row.rule, middle + 1);
            } else {
                high = middle;
            }
        }
        rule
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
