//! Unwind tables in user space, for stacks that perf has copied: no kernel half walks by them.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use super::{Copy, Ends, FileKey, Found, Made, ROWS, Row, Table, UnwoundBy, walk};
use crate::{Image, Symbols};

/// Files of a user who is not root may take one row in so many of them.
const SHARE: usize = 4;

/// Tables of files, as far as there is memory for them.
#[derive(Debug, Default)]
pub struct Held {
    /// By the number of what is in a file, which several files may share. Nothing where there was no space.
    of_programs: HashMap<u32, Option<Rc<[Row]>>>,
    of_files: HashMap<FileKey, Option<Rc<[Row]>>>,
    rows: usize,
    /// How many of them are of files of each user.
    of_users: HashMap<u32, usize>,
    /// No table can be made before more time has passed.
    is_stuck: bool,
}

impl Held {
    /// The memory that they take at most, MiB.
    pub const MEGABYTES: u64 = (ROWS * size_of::<Row>()) as u64 >> 20;

    /// Whether some could be made now.
    pub fn may_go_on(&self, symbols: &Symbols) -> bool {
        symbols.has_tables_to_make() && !self.is_stuck
    }

    /// Time has passed, or more is mapped: what was stuck is tried again.
    pub fn try_again(&mut self) {
        self.is_stuck = false;
    }

    /// There is no table of that file, and will be none.
    pub fn refuse(&mut self, file: FileKey) {
        self.of_files.insert(file, None);
    }

    /// Makes tables, up to a moment. Tells whether there are more than before.
    pub fn load(&mut self, symbols: &mut Symbols, until: Instant) -> bool {
        let mut any = false;
        while symbols.has_tables_to_make() {
            symbols.wait_until(Some(until));
            if let Some(table) = symbols.next_table() {
                self.store(table);
                any = true;
            } else {
                // Its user's files may have had their time.
                self.is_stuck = symbols.wait().is_none();
            }
            if self.is_stuck || Instant::now() >= until {
                break;
            }
        }
        any
    }

    fn store(&mut self, Table { file, program, owner, rows }: Table) {
        let rows = match rows {
            Made::Before => self.of_programs.get(&program).cloned().flatten(),
            Made::Rows(rows) => self.place(rows, owner),
            // It is wanted again when it is met again.
            Made::LetGo => return,
        };
        self.of_programs.insert(program, rows.clone());
        self.of_files.insert(file, rows);
    }

    fn place(&mut self, rows: Vec<Row>, owner: u32) -> Option<Rc<[Row]>> {
        let of_user = self.of_users.entry(owner).or_default();
        let most = if owner == 0 { ROWS } else { ROWS / SHARE };
        if *of_user + rows.len() > most || self.rows + rows.len() > ROWS {
            return None;
        }
        *of_user += rows.len();
        self.rows += rows.len();
        Some(rows.into())
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
        walk(copy, deepest, |addr| match symbols.unwound_by(image, addr) {
            UnwoundBy::Nothing => Found::Nothing,
            UnwoundBy::Frame => Found::Frame,
            UnwoundBy::Table(file, at) => match self.of_files.get(&file) {
                Some(Some(rows)) if rows.is_empty() => Found::Frame,
                Some(Some(rows)) => Found::Rule(rule_at(rows, at)),
                None if !is_last && symbols.want_first(file, image, addr) => Found::Late,
                _ => Found::Refused,
            },
        })
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

    fn table(inode: u64, program: u32, owner: u32, rows: Option<usize>) -> Table {
        let row = |at| Row { at: at as u32 * 2, rule: at as u32 };
        let rows = rows.map_or(Made::Before, |rows| Made::Rows((0..rows).map(row).collect()));
        Table { file: (1, inode), program, owner, rows }
    }

    #[test]
    fn files_with_the_same_in_them_share_rows_and_each_user_has_a_share() {
        let mut held = Held::default();
        held.store(table(1, 7, 1000, Some(ROWS / SHARE)));
        held.store(table(2, 7, 1000, None));
        assert_eq!(held.rows, ROWS / SHARE);
        let [first, second] = [1, 2].map(|inode| held.of_files[&(1, inode)].clone().unwrap());
        assert!(Rc::ptr_eq(&first, &second));
        held.store(table(3, 8, 1000, Some(1)));
        assert_eq!(held.of_files[&(1, 3)], None, "that user has no more");
        held.store(table(4, 9, 1001, Some(1)));
        held.store(table(5, 10, 0, Some(ROWS - ROWS / SHARE - 1)));
        held.store(table(6, 11, 0, Some(1)));
        let held_of = |inode| held.of_files[&(1, inode)].as_ref().map(|rows| rows.len());
        assert_eq!([4, 5, 6].map(held_of), [Some(1), Some(ROWS - ROWS / SHARE - 1), None]);
        assert_eq!([0, 1, 2, 3, u64::MAX].map(|at| rule_at(&first[..2], at)), [0, 0, 1, 1, 1]);
        assert_eq!(rule_at(&first[1..2], 1), 0, "before the first");
    }
}
