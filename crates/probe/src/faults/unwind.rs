//! Unwind tables for the kernel half: see `bpf/unwind.bpf.h`. The symbolizer makes them, one after the other, and where the
//! kernel half meets a file that has none yet, that one first.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytemuck::{bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::sys::mman::{MapFlags as Map, ProtFlags, mmap, munmap};
use trapline_symbols::unwind::{Ends, FileKey, Found, Made, Making, Row, Shares, Table, walk_by};
use trapline_symbols::{Image, Symbols};

use super::copies::{self, Copied, Copies, Told};
use super::recipe::{ROWS, TABLES, UNWIND_RING};
use crate::abi::maps::unwind as maps;
use crate::abi::{self, UnwindFile, UnwindMiss, UnwindRow, UnwindTable};
use crate::ring::Ring;
use crate::stacks::{Chain, End};
use crate::system;
use crate::variant::Attached;

/// The memory for rows, and for copies of stacks that wait for them, MiB.
pub(super) const MEGABYTES: u64 =
    (ROWS as u64 * size_of::<UnwindRow>() as u64 + UNWIND_RING as u64 + copies::MOST as u64) >> 20;

/// A file that cannot be opened is tried again this often: each time another process may have it.
const TRIES: u32 = 8;

/// What was not used for this time may have to make space for others.
const IDLE: Duration = Duration::from_secs(10);

/// So many files are left when there were too many.
const FILES_LEFT: usize = TABLES as usize / 2;
/// And so many are too many: the kernel half needs places for those that it meets.
const FILES_MOST: usize = TABLES as usize / 4 * 3;

const fn table(state: u32, first: u32, rows: u32) -> UnwindTable {
    UnwindTable { first, rows, state, copies: 0, turn: 0, generation: 0 }
}

const REFUSED: UnwindTable = table(abi::UNWIND_REFUSED, 0, 0);

/// The rows of a program.
#[derive(Debug)]
struct Place {
    table: UnwindTable,
    owner: u32,
    /// The files that have it.
    files: Vec<FileKey>,
}

/// What the kernel half knows of a file.
#[derive(Debug)]
struct Known {
    table: UnwindTable,
    program: Option<u32>,
    /// The turn in which it was told so.
    turn: u64,
}

/// The kernel half's tables.
#[derive(Debug)]
pub(super) struct Tables {
    rows: Rows,
    tables: MapHandle,
    ring: Ring<Told>,
    told: Vec<Told>,
    missed: Vec<UnwindMiss>,
    copies: Copies,
    /// Of each program, by its number.
    places: HashMap<u32, Place>,
    of_files: HashMap<FileKey, Known>,
    /// Rows that are in use, by the first of each table.
    used: BTreeMap<u32, u32>,
    shares: Shares,
    /// Files for which there was no space, and how many rows those need whose owner has no share left, or all others (0).
    unplaced: Vec<FileKey>,
    needed: HashMap<u32, u32>,
    /// Tables that no file has any more, as soon as no program looks at them.
    leaving: Vec<(UnwindTable, u32)>,
    /// How many were taken out to make space.
    evicted: u64,
    /// The turn of the kernel half's, and those that there were some time ago.
    turn: u64,
    turns: [u64; 2],
    turned: Instant,
    /// How often a file that was missed could not be opened, and those of which no table is made for a time because of that.
    unopened: HashMap<FileKey, u32>,
    refused: Vec<FileKey>,
    /// Files that have another content than the tables that were made of them.
    outdated: Vec<(FileKey, u32)>,
    making: Making,
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
            used: BTreeMap::new(),
            shares: Shares::default(),
            unplaced: vec![],
            needed: HashMap::new(),
            leaving: vec![],
            evicted: 0,
            turn: 0,
            turns: [0; 2],
            turned: Instant::now(),
            unopened: HashMap::new(),
            refused: vec![],
            outdated: vec![],
            making: Making::default(),
        })
    }

    /// Becomes readable when the kernel half meets a file without a table.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.ring.fd()
    }

    /// Whether some could be made now.
    pub(super) fn may_go_on(&self, symbols: &Symbols) -> bool {
        self.making.may_go_on(symbols)
    }

    fn drain(&mut self) -> Result<()> {
        self.ring.drain(&mut self.told)?;
        let mut all = std::mem::take(&mut self.told);
        for told in all.drain(..) {
            match told {
                Told::Miss(miss) => {
                    self.forget_old(miss.file);
                    self.missed.push(miss);
                }
                Told::Copied(key, copy) => self.copies.add(key, copy),
            }
        }
        self.told = all;
        Ok(())
    }

    /// Whether some are missed.
    pub(super) fn are_missed(&mut self) -> bool {
        let _ = self.drain();
        !self.missed.is_empty()
    }

    /// The kernel half has found that a file is not the one that its table was made of: copies of stacks wait for the new one.
    fn forget_old(&mut self, file: UnwindFile) {
        let key = (file.device, file.inode);
        let is_held = self.of_files.get(&key).is_some_and(|known| known.table.state == abi::UNWIND_READY);
        if !is_held || self.is_ready(file) {
            return;
        }
        let program = self.of_files.remove(&key).and_then(|known| known.program);
        self.leave(key, program);
        self.outdated.push((key, program.unwrap_or_default()));
    }

    /// A file does not have that program's rows any more.
    fn leave(&mut self, file: FileKey, program: Option<u32>) {
        if let Some(place) = program.and_then(|program| self.places.get_mut(&program)) {
            place.files.retain(|of| *of != file);
        }
    }

    /// Has those made that were missed.
    pub(super) fn follow(&mut self, symbols: &mut Symbols) -> Result<()> {
        self.drain()?;
        for (file, program) in self.outdated.drain(..) {
            symbols.forget_table(file, program);
        }
        for UnwindMiss { file, addr, pid, .. } in std::mem::take(&mut self.missed) {
            let key = (file.device, file.inode);
            if self.is_ready(file) {
                // It came meanwhile; and the process may have ended by now.
                continue;
            }
            if symbols.want_table(key, pid, addr) {
                continue;
            }
            if self.unopened.len() >= TABLES as usize {
                self.unopened.clear();
            }
            let tries = self.unopened.entry(key).or_default();
            *tries += 1;
            if *tries < TRIES {
                // Another process may have it mapped.
                let _ = self.tables.delete(bytes_of(&file));
            } else {
                self.unopened.remove(&key);
                self.refused.push(key);
                self.refuse(key);
            }
        }
        self.making.try_again();
        Ok(())
    }

    /// Makes tables, up to a moment. Tells whether there are more than before.
    pub(super) fn load(&mut self, symbols: &mut Symbols, until: Instant) -> bool {
        let mut any = false;
        while symbols.has_tables_to_make() {
            any |= self.load_one(symbols, until);
            if self.making.is_over(symbols, until) {
                break;
            }
        }
        any
    }

    /// Makes the next one, if there is time for it.
    pub(super) fn load_one(&mut self, symbols: &mut Symbols, until: Instant) -> bool {
        let table = self.making.one(symbols, until);
        table.iter().for_each(|table| self.store(table, symbols));
        table.is_some()
    }

    /// Whether a stack was copied under that key.
    pub(super) fn has_copy(&mut self, key: u64) -> bool {
        key & abi::CHAIN_COPIED != 0 && (self.copies.has(key) || self.drain().is_ok() && self.copies.has(key))
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
        let found = |file, at| {
            let table = &self.of_files.get(&file)?.table;
            Some(match table.state {
                abi::UNWIND_READY if table.rows == 0 => Found::Frame,
                abi::UNWIND_READY => Found::Rule(self.rows.rule_at(table, at)),
                _ => Found::Refused,
            })
        };
        let (ips, ends) = walk_by(copied.copy(), image, deepest, is_last, symbols, found)?;
        // Where the copy ends, the kernel half would have gone on.
        let end = if ends == Ends::Cut { End::Late } else { ends.into() };
        Some(Chain::taken(&ips, end))
    }

    pub(super) fn store(&mut self, Table { file, program, owner, rows }: &Table, symbols: &mut Symbols) {
        match rows {
            Made::Rows(rows) => self.place(*program, rows, *owner),
            Made::Before => {}
            Made::LetGo => return self.forget(*file),
        }
        if let Some(place) = self.places.get_mut(program) {
            if !place.files.contains(file) {
                place.files.push(*file);
            }
            let table = place.table;
            return self.tell(*file, table, Some(*program));
        }
        // There is no space. Stacks that end there are counted (`late_stacks`) until there is.
        symbols.forget_table(*file, *program);
        self.unplaced.push(*file);
        self.refuse(*file);
    }

    /// There will be none of that file.
    pub(super) fn refuse(&mut self, file: FileKey) {
        self.tell(file, REFUSED, None);
    }

    /// The kernel half has it from here on. Where its map is full it has not: it stays missing, and is counted.
    fn tell(&mut self, file: FileKey, mut table: UnwindTable, program: Option<u32>) {
        let known = Known { table, program, turn: self.turn };
        let old = self.of_files.insert(file, known).and_then(|known| known.program);
        // Another file may have taken its name.
        self.leave(file, old.filter(|old| Some(*old) != program));
        // What was in the file when the kernel half missed its table: it is to be that.
        let met = self.told(key(file)).filter(|met| met.state == abi::UNWIND_WANTED && met.generation != 0);
        if let Some(met) = met {
            (table.generation, table.turn) = (met.generation, 1);
        }
        let _ =
            system::undisturbed(|| self.tables.update(bytes_of(&key(file)), bytes_of(&table), MapFlags::ANY));
    }

    /// The kernel half knows nothing of it: it will be missed again.
    fn forget(&mut self, file: FileKey) {
        let _ = self.tables.delete(bytes_of(&key(file)));
        self.of_files.remove(&file);
    }

    fn forget_refused(&mut self, which: impl Fn(&mut Self) -> &mut Vec<FileKey>) {
        for file in std::mem::take(which(self)) {
            if self.of_files.get(&file).is_some_and(|known| known.table.state == abi::UNWIND_REFUSED) {
                self.forget(file);
            }
        }
    }

    /// What the kernel half has of a file.
    fn told(&self, file: UnwindFile) -> Option<UnwindTable> {
        let found = self.tables.lookup(bytes_of(&file), MapFlags::ANY).ok().flatten();
        found.map(|found| pod_read_unaligned(&found))
    }

    /// Whether the kernel half has its table.
    fn is_ready(&self, file: UnwindFile) -> bool {
        self.told(file).is_some_and(|table| table.state == abi::UNWIND_READY)
    }

    /// Puts rows where there is space.
    fn place(&mut self, program: u32, rows: &[Row], owner: u32) {
        let Ok(count) = u32::try_from(rows.len()) else { return };
        let first = gap(&self.used, count).filter(|_| self.shares.take(owner, rows.len()));
        let Some(first) = first else {
            let whose = if self.shares.fit_share(owner, rows.len()) { 0 } else { owner };
            *self.needed.entry(whose).or_default() += count.min(Shares::most(owner) as u32);
            return;
        };
        if count > 0 {
            self.used.insert(first, count);
        }
        self.rows.write(first as usize, rows);
        let place = Place { table: table(abi::UNWIND_READY, first, count), owner, files: vec![] };
        if let Some(old) = self.places.insert(program, place) {
            self.leaving.push((old.table, old.owner));
        }
    }

    /// Whether there are too many, or some have no space.
    pub(super) fn want_space(&self) -> bool {
        !self.unplaced.is_empty() || !self.leaving.is_empty() || self.of_files.len() > FILES_MOST
    }

    /// How many tables were taken out to make space for others.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// All that was not used since is idle.
    #[cfg(test)]
    pub(super) fn all_is_idle(&mut self) {
        self.turns = [self.turn + 1; 2];
    }

    /// A turn has begun: the kernel half looks for tables again, and those that it had before are no longer looked at when no program runs
    /// that has begun earlier.
    pub(super) fn turn(&mut self, turn: u64, symbols: &mut Symbols) -> Result<()> {
        self.turn = turn;
        if self.turned.elapsed() >= IDLE {
            (self.turns, self.turned) = ([self.turns[1], turn], Instant::now());
            self.forget_refused(|tables| &mut tables.refused);
        }
        if !self.leaving.is_empty() {
            system::wait_for_programs();
            for (table, owner) in std::mem::take(&mut self.leaving) {
                if table.rows > 0 {
                    self.used.remove(&table.first);
                }
                self.shares.give_back(owner, table.rows as usize);
            }
            // Who meets them will miss them again.
            self.forget_refused(|tables| &mut tables.unplaced);
            self.needed.clear();
        }
        if !self.unplaced.is_empty() || self.of_files.len() > FILES_MOST {
            self.evict(symbols)?;
        }
        Ok(())
    }

    /// Lets those go that no file has any more.
    fn let_go(&mut self) {
        let leaving = &mut self.leaving;
        self.places.retain(|_, place| {
            if place.files.is_empty() {
                leaving.push((place.table, place.owner));
            }
            !place.files.is_empty()
        });
    }

    /// Takes out what was not used for longest, if it was not for a time: from the kernel half now, its rows at the next turn.
    fn evict(&mut self, symbols: &mut Symbols) -> Result<()> {
        self.let_go();
        if !self.leaving.is_empty() && self.of_files.len() <= FILES_MOST {
            // That may be enough.
            return Ok(());
        }
        let mut idle = vec![];
        for (file, known) in &self.of_files {
            let bytes = self
                .tables
                .lookup(bytes_of(&key(*file)), MapFlags::ANY)
                .context("cannot read unwind tables")?;
            let used = bytes.map_or(0, |bytes| pod_read_unaligned::<UnwindTable>(&bytes).turn);
            let last = known.turn.max(used.into());
            if last < self.turns[0] {
                idle.push((last, *file, known.program));
            }
        }
        idle.sort_unstable();
        let mut too_many =
            if self.of_files.len() > FILES_MOST { self.of_files.len() - FILES_LEFT } else { 0 };
        for (_, file, program) in idle {
            let place = program.and_then(|program| self.places.get_mut(&program));
            let (owner, rows) = place.as_ref().map_or((0, 0), |place| (place.owner, place.table.rows));
            // Where there is none left, anybody's is taken; where a user has no share left, that user's.
            let of = [0, owner].into_iter().find(|of| self.needed.get(of).is_some_and(|needed| *needed > 0));
            if too_many == 0 && of.is_none() {
                continue;
            }
            too_many = too_many.saturating_sub(1);
            if let Some(place) = place {
                place.files.retain(|of| *of != file);
                if place.files.is_empty() {
                    let needed = of.and_then(|of| self.needed.get_mut(&of));
                    needed.into_iter().for_each(|needed| *needed = needed.saturating_sub(rows));
                    self.evicted += 1;
                }
            }
            symbols.forget_table(file, program.unwrap_or_default());
            self.forget(file);
        }
        self.let_go();
        Ok(())
    }
}

/// As the kernel half knows it.
fn key((device, inode): FileKey) -> UnwindFile {
    UnwindFile { inode, device, pad: 0 }
}

/// The first of that many rows that are free.
fn gap(used: &BTreeMap<u32, u32>, count: u32) -> Option<u32> {
    let mut free = 0;
    for (&first, &rows) in used {
        if first - free >= count {
            return Some(free);
        }
        free = first + rows;
    }
    (ROWS - free >= count).then_some(free)
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
