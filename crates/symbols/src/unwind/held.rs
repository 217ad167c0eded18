//! Unwind tables in user space, for stacks that perf has copied: no kernel half walks by them.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Copy, Ends, FileKey, Found, Made, Making, ROWS, Row, Shares, Table, walk_by};
use crate::{Image, Symbols};

/// What was not used for this time may have to make space for others; what there was no space for is tried again after it.
const IDLE: Duration = Duration::from_secs(10);

/// Files that have tables, at most.
const FILES: usize = 1 << 14;

/// What there is of a file.
#[derive(Debug)]
struct Known {
    program: u32,
    state: State,
    used: Cell<Instant>,
}

#[derive(Debug, Clone)]
enum State {
    Rows(Rc<[Row]>),
    /// There was no space.
    Unplaced,
    /// There will be none.
    Refused,
}

/// The rows of a program.
#[derive(Debug)]
struct Place {
    rows: Rc<[Row]>,
    owner: u32,
    /// How many files have it.
    files: usize,
}

/// Tables of files, as far as there is memory for them.
#[derive(Debug)]
pub struct Held {
    of_files: HashMap<FileKey, Known>,
    /// By the number of what is in a file, which several files may share.
    places: HashMap<u32, Place>,
    shares: Shares,
    making: Making,
    /// How many were taken out to make space.
    evicted: u64,
    /// When tables were last made or used.
    now: Instant,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            of_files: HashMap::new(),
            places: HashMap::new(),
            shares: Shares::default(),
            making: Making::default(),
            evicted: 0,
            now: Instant::now(),
        }
    }
}

impl Held {
    /// The memory that they take at most, MiB.
    pub const MEGABYTES: u64 = (ROWS * size_of::<Row>()) as u64 >> 20;

    /// Whether some could be made now.
    pub fn may_go_on(&self, symbols: &Symbols) -> bool {
        self.making.may_go_on(symbols)
    }

    /// Time has passed, or more is mapped: what was stuck is tried again.
    pub fn try_again(&mut self) {
        self.making.try_again();
        self.now = Instant::now();
    }

    /// How many tables were taken out to make space for others.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// There is no table of that file, and will be none.
    pub fn refuse(&mut self, file: FileKey) {
        self.know(file, 0, State::Refused);
    }

    /// Makes tables, up to a moment. Tells whether there are more than before.
    pub fn load(&mut self, symbols: &mut Symbols, until: Instant) -> bool {
        let mut any = false;
        while symbols.has_tables_to_make() {
            if let Some(table) = self.making.one(symbols, until) {
                self.store(table, symbols);
                any = true;
            }
            if self.making.is_over(symbols, until) {
                break;
            }
        }
        any
    }

    fn store(&mut self, Table { file, program, owner, rows }: Table, symbols: &mut Symbols) {
        match rows {
            Made::Rows(rows) => self.place(program, rows, owner, symbols),
            Made::Before => {}
            // It is wanted again when it is met again.
            Made::LetGo => return,
        }
        let has_room = |held: &Self| held.of_files.len() < FILES || held.of_files.contains_key(&file);
        if !has_room(self) {
            self.evict(symbols, None, has_room);
        }
        let place = self.places.get(&program);
        let state = place.map_or(State::Unplaced, |place| State::Rows(Rc::clone(&place.rows)));
        // Stacks that end there are counted until there is space.
        let is_lacking = matches!(state, State::Unplaced) || !has_room(self);
        if has_room(self) {
            self.know(file, program, state);
        }
        if is_lacking {
            symbols.forget_table(file, program);
            self.let_go(program);
        }
    }

    fn know(&mut self, file: FileKey, program: u32, state: State) {
        let known = Known { program, state, used: Cell::new(self.now) };
        if let State::Rows(_) = known.state
            && let Some(place) = self.places.get_mut(&program)
        {
            place.files += 1;
        }
        if let Some(old) = self.of_files.insert(file, known) {
            self.leave(&old);
        }
    }

    /// A file has those rows no more.
    fn leave(&mut self, old: &Known) {
        if let State::Rows(_) = old.state
            && let Some(place) = self.places.get_mut(&old.program)
        {
            place.files -= 1;
        }
        self.let_go(old.program);
    }

    /// Lets a program's rows go that no file has.
    fn let_go(&mut self, program: u32) {
        if let Some(place) = self.places.get(&program)
            && place.files == 0
        {
            self.shares.give_back(place.owner, place.rows.len());
            self.places.remove(&program);
        }
    }

    fn place(&mut self, program: u32, rows: Vec<Row>, owner: u32, symbols: &mut Symbols) {
        // They were made anew for a file that was taken out, and another one has them still.
        if self.places.contains_key(&program) {
            return;
        }
        let count = rows.len();
        if !self.shares.fit(owner, count) && count <= Shares::most(owner) {
            // Where a user has no share left, that user's files make room.
            let whose = (!self.shares.fit_share(owner, count)).then_some(owner);
            self.evict(symbols, whose, |held| held.shares.fit(owner, count));
        }
        if self.shares.take(owner, count) {
            self.places.insert(program, Place { rows: rows.into(), owner, files: 0 });
        }
    }

    /// Takes out what was not used for longest, if it was not for a time, until that is enough: of one owner, or of all.
    fn evict(&mut self, symbols: &mut Symbols, whose: Option<u32>, is_enough: impl Fn(&Self) -> bool) {
        let is_his = |known: &Known| {
            let owner = self.places.get(&known.program).map(|place| place.owner);
            !matches!(known.state, State::Refused) && (whose.is_none() || whose == owner)
        };
        let idle = |known: &Known| self.now.saturating_duration_since(known.used.get()) >= IDLE;
        let idle = self.of_files.iter().filter(|(_, known)| idle(known) && is_his(known));
        let mut idle: Vec<_> = idle.map(|(file, known)| (known.used.get(), *file)).collect();
        idle.sort_unstable();
        for (_, file) in idle {
            if is_enough(self) {
                break;
            }
            if let Some(known) = self.of_files.remove(&file) {
                symbols.forget_table(file, known.program);
                let before = self.places.len();
                self.leave(&known);
                self.evicted += (before - self.places.len()) as u64;
            }
        }
    }

    /// Walks a stack of a process. Nothing if a table has to be made before; if it is the last time, by frame pointers where one
    /// is missing.
    pub fn walk(
        &self,
        copy: &Copy,
        image: Image,
        deepest: usize,
        is_last: bool,
        symbols: &mut Symbols,
    ) -> Option<(Vec<u64>, Ends)> {
        walk_by(copy, image, deepest, is_last, symbols, |file, at| self.found(file, at))
    }

    /// Nothing if there is no table yet.
    fn found(&self, file: FileKey, at: u64) -> Option<Found> {
        let known = self.of_files.get(&file)?;
        match &known.state {
            State::Rows(rows) => {
                known.used.set(self.now);
                Some(if rows.is_empty() { Found::Frame } else { Found::Rule(rule_at(rows, at)) })
            }
            State::Unplaced if self.now.saturating_duration_since(known.used.get()) >= IDLE => None,
            State::Unplaced | State::Refused => Some(Found::Refused),
        }
    }
}

/// The rule of the last row at or before an offset.
fn rule_at(rows: &[Row], at: u64) -> u32 {
    let behind = rows.partition_point(|row| u64::from(row.at) <= at);
    behind.checked_sub(1).and_then(|last| rows.get(last)).map_or(0, |row| row.rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::SHARE;

    fn store(held: &mut Held, inode: u64, program: u32, owner: u32, rows: Option<usize>) {
        let row = |at| Row { at: at as u32 * 2, rule: at as u32 };
        let rows = rows.map_or(Made::Before, |rows| Made::Rows((0..rows).map(row).collect()));
        held.store(Table { file: (1, inode), program, owner, rows }, &mut Symbols::new());
    }

    fn rows_of(held: &Held, inode: u64) -> Option<Rc<[Row]>> {
        match &held.of_files.get(&(1, inode))?.state {
            State::Rows(rows) => Some(Rc::clone(rows)),
            _ => None,
        }
    }

    #[test]
    fn files_with_the_same_in_them_share_rows_and_each_user_has_a_share() {
        let mut held = Held::default();
        store(&mut held, 1, 7, 1000, Some(ROWS / SHARE));
        store(&mut held, 2, 7, 1000, None);
        assert_eq!(held.shares.all(), ROWS / SHARE);
        let [first, second] = [1, 2].map(|inode| rows_of(&held, inode).unwrap());
        assert!(Rc::ptr_eq(&first, &second));
        store(&mut held, 3, 8, 1000, Some(1));
        assert_eq!(rows_of(&held, 3), None, "that user has no more");
        store(&mut held, 4, 9, 1001, Some(1));
        store(&mut held, 5, 10, 0, Some(ROWS - ROWS / SHARE - 1));
        store(&mut held, 6, 11, 0, Some(1));
        let held_of = |inode| rows_of(&held, inode).map(|rows| rows.len());
        assert_eq!([4, 5, 6].map(held_of), [Some(1), Some(ROWS - ROWS / SHARE - 1), None]);
        assert_eq!([0, 1, 2, 3, u64::MAX].map(|at| rule_at(&first[..2], at)), [0, 0, 1, 1, 1]);
        assert_eq!(rule_at(&first[1..2], 1), 0, "before the first");
    }

    #[test]
    fn what_is_idle_makes_room_and_what_had_none_is_wanted_again() {
        let mut held = Held::default();
        store(&mut held, 1, 7, 1000, Some(ROWS / SHARE - 10));
        store(&mut held, 2, 8, 1000, Some(10));
        store(&mut held, 3, 9, 0, Some(10));
        store(&mut held, 4, 10, 1000, Some(20));
        let is_there = |held: &Held, inode| matches!(held.found((1, inode), 0), Some(Found::Rule(_)));
        assert!(matches!(held.found((1, 4), 0), Some(Found::Refused)));
        held.now += IDLE;
        assert!(is_there(&held, 2), "and it is used from here on");
        assert!(held.found((1, 4), 0).is_none(), "to be made again");
        store(&mut held, 4, 10, 1000, Some(20));
        assert_eq!([1, 2, 3, 4].map(|inode| is_there(&held, inode)), [false, true, true, true]);
        assert_eq!((held.shares.all(), held.evicted()), (40, 1));
        held.now += IDLE;
        store(&mut held, 5, 11, 1000, Some(ROWS / SHARE + 1));
        assert!(is_there(&held, 4), "nothing makes room for what never fits");
    }

    #[test]
    fn a_file_that_changes_leaves_nothing_behind() {
        let mut held = Held::default();
        store(&mut held, 1, 7, 0, Some(10));
        store(&mut held, 1, 8, 0, Some(20));
        assert_eq!((held.shares.all(), held.places.len()), (20, 1));
        store(&mut held, 1, 8, 0, None);
        assert_eq!((held.shares.all(), held.places.len()), (20, 1));
    }

    #[test]
    fn rows_that_are_made_again_are_counted_once() {
        let mut held = Held::default();
        store(&mut held, 1, 7, 0, Some(10));
        store(&mut held, 2, 7, 0, None);
        store(&mut held, 1, 7, 0, Some(10));
        assert_eq!((held.shares.all(), held.places[&7].files), (10, 2));
        [1, 2].into_iter().for_each(|inode| held.refuse((1, inode)));
        assert_eq!((held.shares.all(), held.places.len()), (0, 0));
    }

    #[test]
    fn there_is_an_end_to_files() {
        let mut held = Held::default();
        held.refuse((1, 0));
        for inode in 1..FILES as u64 + 10 {
            store(&mut held, inode, 7, 0, (inode == 1).then_some(1));
        }
        assert_eq!(held.of_files.len(), FILES);
        held.now += IDLE;
        store(&mut held, 1 << 20, 8, 0, Some(1));
        assert!(rows_of(&held, 1 << 20).is_some() && held.of_files.len() == FILES);
        assert!(matches!(held.found((1, 0), 0), Some(Found::Refused)), "what is never made stays so");
    }
}
