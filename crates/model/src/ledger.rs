//! The ledger: reports of what lives in, rows that grow out. What has ended is put together by its key, and where that takes
//! too much memory, folded into one row.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use crate::field::Record;
use crate::item::Block;
use crate::table::Schema;

/// Rows of what has ended may take this many bytes unless [`Ledger::bounded`] says otherwise.
const ENDED_BYTES: u64 = 64 << 20;

/// What a row is about.
pub(crate) trait Key: Clone + Eq + Hash + Ord + fmt::Debug {
    /// Who made it, where that decides what is folded first.
    type Owner: Copy + Eq + Hash + Ord;

    /// How much memory it takes beside its own structure.
    fn bytes(&self) -> usize {
        0
    }
}

/// What is known under a key, all of which grows.
pub(crate) trait Figures: Default + fmt::Debug {
    /// What a key's owner is.
    type Owner;

    /// How much is known: another number is news.
    fn known(&self) -> u64;
    /// Takes a later report of the same. Without news there is nothing in it that an interval has to show.
    fn take(&mut self, later: Self, is_news: bool);
    /// Adds what another one did; what is an interval's own only if it has not been shown.
    fn add(&mut self, other: &Self, is_shown: bool);
    /// An interval has been shown.
    fn begin_interval(&mut self);
    /// How much memory it takes beside its own structure.
    fn bytes(&self) -> usize;
    /// Who made the row, if that is known.
    fn owner(&self) -> Option<Self::Owner>;
}

/// Figures, and what has been said of them.
#[derive(Debug, Default)]
struct Row<S> {
    /// Its number in the run.
    number: u64,
    figures: S,
    /// There is something that has not been given.
    is_news: bool,
    /// It has been given before: readers know its number.
    is_known: bool,
}

/// Turns reports into rows that grow. What lives is known by an `I`, and its row is about a `K`.
#[derive(Debug)]
pub(crate) struct Ledger<I, K, S> {
    living: HashMap<I, (K, Row<S>)>,
    ended: HashMap<K, Row<S>>,
    /// Rows that ended since they were given last, and the number of the row that has their figures now.
    left: Vec<(K, Row<S>, u64)>,
    /// What those that have ended take, and how much that may be.
    ended_bytes: u64,
    limit: u64,
    /// The row into which others are folded, and how many were.
    folded_row: (K, Row<S>),
    folded: u64,
    newest: u64,
}

impl<I, K, S> Ledger<I, K, S>
where
    I: Eq + Hash,
    K: Key,
    S: Figures<Owner = K::Owner>,
{
    /// An empty ledger, and what rows are folded into.
    pub(crate) fn new(key: K, figures: S) -> Self {
        Self {
            living: HashMap::new(),
            ended: HashMap::new(),
            left: Vec::new(),
            ended_bytes: 0,
            limit: ENDED_BYTES,
            folded_row: (key, Row { number: 1, figures, is_news: true, is_known: false }),
            folded: 0,
            newest: 1,
        }
    }

    /// The rows of what has ended take about this many bytes at most.
    pub(crate) fn bounded(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }

    /// Takes a report of what lives: it replaces the one before.
    pub(crate) fn take(&mut self, id: I, key: K, figures: S) {
        let (of, row) = self.living.entry(id).or_insert_with(|| {
            self.newest += 1;
            (key.clone(), Row { number: self.newest, ..Row::default() })
        });
        let is_news = figures.known() != row.figures.known();
        row.figures.take(figures, is_news);
        row.is_news |= is_news;
        *of = key;
    }

    /// It lives no more, or nothing more will be reported of it.
    pub(crate) fn end(&mut self, id: &I) {
        let Some((key, row)) = self.living.remove(id) else { return };
        let into = self.ended.entry(key.clone()).or_default();
        let mut before = 0;
        if into.number == 0 {
            self.newest += 1;
            into.number = self.newest;
        } else {
            before = bytes(&key, into);
        }
        into.figures.add(&row.figures, row.is_known);
        self.ended_bytes = (self.ended_bytes + bytes(&key, into)).saturating_sub(before);
        into.is_news |= row.is_news;
        if row.is_known {
            into.is_known = true;
            let into = into.number;
            self.left.push((key, row, into));
        }
        if self.ended_bytes > self.limit {
            self.fold();
        }
    }

    /// What lives is known by another id from now on.
    pub(crate) fn renumber(&mut self, id: &I, to: I) {
        if let Some(row) = self.living.remove(id) {
            self.living.insert(to, row);
        }
    }

    /// What lives belongs to another row than was said: what comes from now on is in that one.
    pub(crate) fn name(&mut self, id: &I, key: K) {
        if let Some((of, _)) = self.living.get_mut(id) {
            *of = key;
        }
    }

    /// How many rows of what has ended were folded into one, because they took too much memory.
    pub(crate) fn folded(&self) -> u64 {
        self.folded
    }

    /// All figures.
    pub(crate) fn figures(&self) -> impl Iterator<Item = &S> {
        let living = self.living.values().map(|(_, row)| row);
        living.chain(self.ended.values()).chain([&self.folded_row.1]).map(|row| &row.figures)
    }

    /// Rows with what they have come to: those with news since the last time, or `all`. The row that others are folded into is
    /// among them in any case. They come in the order of their keys.
    pub(crate) fn block(
        &mut self,
        table: &'static Schema,
        time_ns: u64,
        all: bool,
        record: impl Fn(&K, &S) -> Record,
    ) -> Block {
        let folded = &mut self.folded_row;
        folded.1.is_news = true;
        let living = self.living.values_mut().map(|(key, row)| (&*key, row));
        let rows = living.chain(self.ended.iter_mut()).chain([(&folded.0, &mut folded.1)]);
        let mut rows: Vec<(&K, &mut Row<S>)> = rows.filter(|(_, row)| all || row.is_news).collect();
        rows.sort_by_key(|(key, _)| *key);
        let mut given = |(key, row): (&K, &mut Row<S>)| {
            let given = record(key, &row.figures).of_row(row.number);
            if !all {
                (row.is_news, row.is_known) = (false, true);
                row.figures.begin_interval();
            }
            given
        };
        let rows = rows.into_iter().map(&mut given).collect();
        let ended = if all {
            vec![]
        } else {
            let left = std::mem::take(&mut self.left);
            left.into_iter().map(|(key, mut row, into)| (given((&key, &mut row)), into)).collect()
        };
        Block { ended, ..Block::new(table, time_ns, rows) }
    }

    /// Keeps memory bounded: folds what has ended into one row until half of the memory is free. First the rows of the owner
    /// that has the most, so that it takes nothing from others; of those the ones with the least. What shares its row with the
    /// living stays.
    fn fold(&mut self) {
        let living: HashSet<&K> = self.living.values().map(|(key, _)| key).collect();
        let ended = self.ended.iter().filter(|(key, _)| !living.contains(key));
        let mut ended: Vec<(Option<K::Owner>, u64, K)> =
            ended.map(|(key, row)| (row.figures.owner(), row.figures.known(), key.clone())).collect();
        let mut rows: HashMap<Option<K::Owner>, usize> = HashMap::new();
        ended.iter().for_each(|(owner, ..)| *rows.entry(*owner).or_default() += 1);
        ended.sort_unstable_by_key(|(owner, known, _)| (Reverse(rows[owner]), *owner, *known));
        self.ended_bytes = self.ended.iter().map(|(key, row)| bytes(key, row)).sum();
        let into = &mut self.folded_row.1;
        for (.., key) in ended {
            if self.ended_bytes <= self.limit / 2 {
                break;
            }
            if let Some((key, row)) = self.ended.remove_entry(&key) {
                self.ended_bytes -= bytes(&key, &row);
                into.figures.add(&row.figures, row.is_known);
                self.folded += 1;
                if row.is_known {
                    self.left.push((key, row, into.number));
                }
            }
        }
        self.ended.shrink_to(self.ended.len() * 2);
    }
}

/// About how much memory a row takes.
fn bytes<K: Key, S: Figures>(key: &K, row: &Row<S>) -> u64 {
    (size_of::<(K, Row<S>)>() + key.bytes() + row.figures.bytes()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Kind, Merge, Unit};
    use crate::hist::Hist;
    use crate::stage::Stages;
    use crate::table::{Table, count, hist, id, label, number};

    #[derive(Debug, Clone, Default)]
    struct Did {
        name: &'static str,
        events: u64,
        times: Hist,
        longest: Option<u64>,
        recent: Option<u64>,
    }

    impl Figures for Did {
        type Owner = u64;

        fn known(&self) -> u64 {
            self.events
        }

        fn take(&mut self, later: Self, is_news: bool) {
            let recent = self.recent.max(later.recent.filter(|_| is_news));
            *self = Self { longest: self.longest.max(later.longest), recent, ..later };
        }

        fn add(&mut self, other: &Self, is_shown: bool) {
            self.events += other.events;
            self.times.add(&other.times);
            self.longest = self.longest.max(other.longest);
            self.recent = self.recent.max(other.recent.filter(|_| !is_shown));
        }

        fn begin_interval(&mut self) {
            self.recent = None;
        }

        fn bytes(&self) -> usize {
            self.times.bytes()
        }

        fn owner(&self) -> Option<u64> {
            None
        }
    }

    impl Key for Option<u64> {
        type Owner = u64;
    }

    type Row = (Option<u64>, Did, Option<u64>);

    #[rustfmt::skip]
    static TABLE: Table<Row> = Table::new("a.b", "a", &[&[
        id("key", "The key.", |r: &Row| r.0.into()),
        label("name", "The name.", |r: &Row| r.1.name.into()).shown("NAME", 8, crate::Show::Text),
        count("events", "The events.", |r| r.1.events.into()),
        number("longest_ns", (Unit::Nanoseconds, Kind::Gauge), "The longest.", |r: &Row| r.2.into()).merged(Merge::Max),
    ]]);

    #[rustfmt::skip]
    static WITH_TIMES: Table<Row> = Table::new("a.c", "a", &[&[
        id("key", "The key.", |r: &Row| r.0.into()),
        hist("times", Unit::Nanoseconds, "The times.", |r| (&r.1.times).into()),
    ]]);

    struct Run {
        ledger: Ledger<u32, Option<u64>, Did>,
        stages: Stages,
        table: &'static Table<Row>,
    }

    impl Run {
        fn new(bytes: u64) -> Self {
            let folded = Did { name: "(folded)", ..Did::default() };
            Self { ledger: Ledger::new(None, folded).bounded(bytes), stages: Stages::new(), table: &TABLE }
        }

        /// So many events up to now, of which the last took so long.
        fn take(&mut self, id: u32, key: u64, events: u64, ns: u64) {
            let times = Hist::new(&[events]);
            let did = Did { name: "x", events, times, longest: Some(ns), recent: Some(ns) };
            self.ledger.take(id, Some(key), did);
        }

        fn rows(&mut self, all: bool) -> Vec<(Option<u64>, u64, Option<u64>)> {
            let table = self.table;
            let block = self.ledger.block(table, 1, all, |key, did| {
                let longest = if all { did.longest } else { did.recent };
                table.record(&(*key, did.clone(), longest))
            });
            let block = if all { self.stages.totals(block) } else { self.stages.interval(block) };
            let row = |row: &Record| {
                let events = row.number("events").or(row.hist("times").map(Hist::count));
                (row.number("key"), events.unwrap_or(0), row.number("longest_ns"))
            };
            block.rows.iter().map(row).collect()
        }
    }

    #[test]
    fn rows_are_of_intervals_whether_what_they_are_about_lives_or_has_ended() {
        let mut run = Run::new(1 << 20);
        run.take(1, 7, 3, 30);
        run.take(2, 7, 4, 90);
        run.take(3, 8, 1, 10);
        assert_eq!(run.rows(false), [(Some(7), 7, Some(90)), (Some(8), 1, Some(10))]);
        assert_eq!(run.rows(false), []);
        // One that was shown, and ends with more; one that nobody knew; one that goes on.
        run.take(1, 7, 5, 20);
        run.ledger.end(&1);
        run.take(4, 7, 2, 40);
        run.ledger.end(&4);
        run.take(2, 7, 5, 10);
        assert_eq!(run.rows(false), [(Some(7), 5, Some(40))]);
        assert_eq!(run.rows(true), [(Some(7), 12, Some(90)), (Some(8), 1, Some(10))]);
        // An extreme without an event is that of an interval before.
        run.take(2, 7, 5, 500);
        assert_eq!(run.rows(false), []);
        // What comes under a key that had ended is its own.
        run.take(5, 8, 2, 5);
        assert_eq!(run.rows(false), [(Some(8), 2, Some(5))]);
    }

    #[test]
    fn a_new_name_has_what_comes_from_then_on() {
        let mut run = Run::new(1 << 20);
        run.take(1, 7, 3, 1);
        assert_eq!(run.rows(false), [(Some(7), 3, Some(1))]);
        run.ledger.name(&1, Some(9));
        run.ledger.renumber(&1, 2);
        run.take(2, 9, 5, 1);
        assert_eq!(run.rows(false), [(Some(9), 2, Some(1))]);
        assert_eq!(run.rows(true), [(Some(9), 5, Some(1))]);
    }

    /// What is folded is in one row, in intervals and in all; each event is in one row of one interval.
    #[test]
    fn folded_rows_are_shown_once() {
        for table in [&TABLE, &WITH_TIMES] {
            let mut run = Run { table, ..Run::new(4000) };
            let mut shown = 0;
            for n in 0..1000u32 {
                // Some are shown while they live, some when they have ended, some never but in the folded row.
                run.take(n, n.into(), 1, 1);
                if n % 3 == 0 {
                    shown += run.rows(false).iter().map(|row| row.1).sum::<u64>();
                }
                run.take(n, n.into(), 2, 1);
                run.ledger.end(&n);
                if n % 50 == 0 {
                    shown += run.rows(false).iter().map(|row| row.1).sum::<u64>();
                }
            }
            shown += run.rows(false).iter().map(|row| row.1).sum::<u64>();
            assert_eq!(shown, 2000);
            assert_eq!(run.rows(false), []);
            let all = run.rows(true);
            assert_eq!(all.iter().map(|row| row.1).sum::<u64>(), 2000);
            assert!(run.ledger.folded() > 900, "{}", run.ledger.folded());
            assert_eq!(all.len() as u64 + run.ledger.folded(), 1001);
            assert_eq!(all[0].1, 2 * run.ledger.folded());
            assert!(run.ledger.left.is_empty() && run.stages.rows_known() <= all.len(), "{all:?}");
        }
    }
}
