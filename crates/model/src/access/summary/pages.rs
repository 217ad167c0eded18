//! What was done to each page.

use std::collections::HashMap;
use std::ops::AddAssign;

use super::reuse::Distances;
use super::trace::{Access, Words};
use crate::access::Way;

/// Accesses by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) accesses: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) executes: u64,
    /// First touches.
    pub(super) first: u64,
}

impl Counts {
    pub(super) fn of(access: &Access) -> Self {
        let is = |way| u64::from(access.way == Some(way));
        Self {
            accesses: 1,
            reads: is(Way::Read),
            writes: is(Way::Write),
            executes: is(Way::Execute),
            first: access.first.into(),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.accesses += other.accesses;
        self.reads += other.reads;
        self.writes += other.writes;
        self.executes += other.executes;
        self.first += other.first;
    }
}

/// A page that was accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) space: u32,
    pub(super) mapping: u32,
    /// Its address divided by its size.
    pub(super) page: u64,
}

/// The pages of all programs, by number in the order in which they were met.
#[derive(Debug)]
pub(super) struct Pages {
    most: usize,
    numbers: HashMap<(u32, u64), u32>,
    all: Vec<Page>,
}

impl Pages {
    /// At most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.min(u32::MAX as usize), numbers: HashMap::new(), all: vec![] }
    }

    /// The number of the page of an access, and whether it is new; nothing if there are too many.
    pub(super) fn number(&mut self, access: &Access, words: &Words) -> Option<(u32, bool)> {
        if let Some(&number) = self.numbers.get(&(access.space, access.page())) {
            let page = &mut self.all[number as usize];
            // A mapping without a name may be one that the tracer had not looked up yet.
            if page.mapping != access.mapping && !words.is_unknown(access.mapping) {
                page.mapping = access.mapping;
            }
            return Some((number, false));
        }
        if self.all.len() >= self.most {
            return None;
        }
        let number = self.all.len() as u32;
        self.numbers.insert((access.space, access.page()), number);
        self.all.push(Page { space: access.space, mapping: access.mapping, page: access.page() });
        Some((number, true))
    }

    pub(super) fn of(&self, number: u32) -> &Page {
        &self.all[number as usize]
    }
}

/// Writes of one page, by thread.
pub(super) type Writers = Vec<(u32, u64)>;

/// What was counted over a time.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Of each page, by number.
    counts: Vec<Counts>,
    /// The first thread that wrote to each page, and how often it did. Most pages have no other.
    writer: Vec<(u32, u64)>,
    /// All writers of the pages that have several.
    writers: HashMap<u32, Writers>,
    pub(super) sum: Counts,
    pub(super) distances: Distances,
}

impl Account {
    pub(super) fn add(&mut self, number: u32, access: &Access, distance: Option<u64>) {
        let index = number as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, Counts::default());
            self.writer.resize(index + 1, (0, 0));
        }
        let counts = Counts::of(access);
        self.counts[index] += counts;
        self.sum += counts;
        self.distances.count(distance);
        if counts.writes == 0 {
            return;
        }
        let writer = &mut self.writer[index];
        if writer.1 == 0 {
            *writer = (access.tid, 1);
        } else if writer.0 == access.tid {
            writer.1 += 1;
        } else {
            let others = self.writers.entry(number).or_default();
            match others.iter_mut().find(|(tid, _)| *tid == access.tid) {
                Some((_, writes)) => *writes += 1,
                None => others.push((access.tid, 1)),
            }
        }
    }

    /// The pages that were accessed, by number.
    pub(super) fn accessed(&self) -> impl Iterator<Item = (u32, &Counts)> {
        (0..).zip(&self.counts).filter(|(_, counts)| counts.accesses > 0)
    }

    /// The pages that several threads wrote to, with the threads: that which wrote most first.
    pub(super) fn shared(&self) -> impl Iterator<Item = (u32, Writers)> {
        self.writers.iter().map(|(&number, others)| {
            let mut all = vec![self.writer[number as usize]];
            all.extend(others);
            all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            (number, all)
        })
    }
}
