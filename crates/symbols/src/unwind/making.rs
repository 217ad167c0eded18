//! What those who hold unwind tables have in common, in the kernel half and in user space: when tables are made, whose files may
//! take how much, and how a copied stack is walked by them.

use std::collections::HashMap;
use std::time::Instant;

use super::{Copy, Ends, FileKey, Found, ROWS, Table, UnwoundBy, walk};
use crate::{Image, Symbols};

/// Files of a user who is not root may take one row in so many of them.
pub(crate) const SHARE: usize = 4;

/// How many rows the files of each user have, of all that there may be.
#[derive(Debug, Default)]
pub struct Shares {
    of_users: HashMap<u32, usize>,
    all: usize,
}

impl Shares {
    /// Rows of one user's files, at most.
    pub fn most(owner: u32) -> usize {
        if owner == 0 { ROWS } else { ROWS / SHARE }
    }

    /// All rows that are taken.
    pub fn all(&self) -> usize {
        self.all
    }

    /// Whether a user has so many left.
    pub fn fit_share(&self, owner: u32, rows: usize) -> bool {
        self.of_users.get(&owner).copied().unwrap_or(0) + rows <= Self::most(owner)
    }

    /// Whether there is space for so many more of a user's.
    pub fn fit(&self, owner: u32, rows: usize) -> bool {
        self.fit_share(owner, rows) && self.all + rows <= ROWS
    }

    /// Takes them for a user, if there is space.
    pub fn take(&mut self, owner: u32, rows: usize) -> bool {
        let fit = self.fit(owner, rows);
        if fit && rows > 0 {
            *self.of_users.entry(owner).or_default() += rows;
            self.all += rows;
        }
        fit
    }

    /// A user's files have so many less.
    pub fn give_back(&mut self, owner: u32, rows: usize) {
        if let Some(of_user) = self.of_users.get_mut(&owner) {
            *of_user = of_user.saturating_sub(rows);
            self.all = self.all.saturating_sub(rows);
            if *of_user == 0 {
                self.of_users.remove(&owner);
            }
        }
    }
}

/// Whether tables can be made now.
#[derive(Debug, Default)]
pub struct Making {
    /// None can before more time has passed: a user's files may have had theirs.
    is_stuck: bool,
}

impl Making {
    /// Whether some could be made now.
    pub fn may_go_on(&self, symbols: &Symbols) -> bool {
        symbols.has_tables_to_make() && !self.is_stuck
    }

    /// Time has passed, or more is mapped: what was stuck is tried again.
    pub fn try_again(&mut self) {
        self.is_stuck = false;
    }

    /// Makes what is next, up to a moment. Gives a table that is whole.
    pub fn one(&mut self, symbols: &mut Symbols, until: Instant) -> Option<Table> {
        symbols.wait_until(Some(until));
        let table = symbols.next_table();
        self.is_stuck = table.is_none() && symbols.wait().is_none();
        table
    }

    /// Whether a moment has come, or nothing can be made before more time has passed, or there is nothing to make.
    pub fn is_over(&self, symbols: &Symbols, until: Instant) -> bool {
        !self.may_go_on(symbols) || Instant::now() >= until
    }
}

/// Walks a stack of a process, which was copied, by what somebody holds of the file at an offset: nothing if that has no table yet.
/// Gives nothing if a table has to be made before; if it is the last time, goes on by frame pointers where one is missing.
pub fn walk_by(
    copy: &Copy,
    image: Image,
    deepest: usize,
    is_last: bool,
    symbols: &mut Symbols,
    found: impl Fn(FileKey, u64) -> Option<Found>,
) -> Option<(Vec<u64>, Ends)> {
    walk(copy, deepest, |addr| match symbols.unwound_by(image, addr) {
        UnwoundBy::Nothing => Found::Nothing,
        UnwoundBy::Frame => Found::Frame,
        UnwoundBy::Table(file, at) => match found(file, at) {
            Some(found) => found,
            None if !is_last && symbols.want_first(file, image, addr) => Found::Late,
            None => Found::Refused,
        },
    })
}
