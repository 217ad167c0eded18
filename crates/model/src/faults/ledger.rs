//! The ledger of page faults: reports of threads and groups in, rows that grow out.

use std::rc::Rc;

use super::group::{Group, Key};
use super::rows::Row;
use super::{By, Extremes, PARTS, Process, Report, Stats, Thread, Timing};
use crate::item::Block;
use crate::ledger;

/// What is known under a key.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// The name of a thread or process.
    pub(super) name: Rc<str>,
    pub(super) stats: Stats,
    pub(super) extremes: Extremes,
    pub(super) recent: Extremes,
    /// Of a group: where in it the faults were.
    pub(super) range: Option<(u64, u64)>,
    /// Of a thread: the process that forked it.
    pub(super) forked_by: Option<u32>,
    owner: Option<Process>,
}

impl ledger::Figures for Figures {
    type Owner = Process;

    /// The kernel counts a fault before its time is known, so an interval may end between.
    fn known(&self) -> u64 {
        let Stats { major, minor, failed, timed_major, timed_minor, waits, wait_ns, forks, .. } = self.stats;
        // What is waited for after a fault is in the time alone.
        major + minor + failed + timed_major + timed_minor + waits + wait_ns + forks.unwrap_or(0)
    }

    fn take(&mut self, later: Self, is_news: bool) {
        let (mut extremes, mut recent) = (self.extremes, self.recent);
        extremes.add(later.extremes);
        if is_news {
            recent.add(later.recent);
        }
        *self = Self { extremes, recent, ..later };
    }

    fn add(&mut self, other: &Self, is_shown: bool) {
        self.stats.add(&other.stats);
        self.extremes.add(other.extremes);
        if !is_shown {
            self.recent.add(other.recent);
        }
        self.range = match (self.range, other.range) {
            (Some((low, high)), Some(other)) => Some((low.min(other.0), high.max(other.1))),
            (one, other) => one.or(other),
        };
        self.owner = self.owner.or(other.owner);
        self.forked_by = self.forked_by.or(other.forked_by);
        if self.name.is_empty() {
            self.name = Rc::clone(&other.name);
        }
    }

    fn begin_interval(&mut self) {
        self.recent = Extremes::default();
    }

    fn bytes(&self) -> usize {
        self.stats.hist.bytes() + self.stats.major_hist.bytes()
    }

    fn owner(&self) -> Option<Process> {
        self.owner
    }
}

impl ledger::Key for Key {
    type Owner = Process;

    fn bytes(&self) -> usize {
        self.bytes()
    }
}

/// What the kernel half calls a group.
pub type GroupId = [u64; 7];

/// What lives: a thread, or a group of the kernel half's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Thread(Thread),
    Group(GroupId),
}

/// Turns reports into rows.
#[derive(Debug)]
pub struct Ledger {
    by: By,
    timing: Timing,
    /// Which parts of the time the variant sees, where rows have them.
    parts: Option<[bool; PARTS]>,
    /// It is seen that threads sleep in faults.
    sees_waits: bool,
    hist: bool,
    rows: ledger::Ledger<Id, Key, Figures>,
}

impl Ledger {
    /// An empty ledger for figures of which so much is timed; its rows are grouped.
    #[must_use]
    pub fn new(by: By, timing: Timing) -> Self {
        let folded = Figures { name: by.folded().into(), ..Figures::default() };
        Self {
            by,
            timing,
            parts: None,
            sees_waits: true,
            hist: false,
            rows: ledger::Ledger::new(Key::None, folded),
        }
    }

    /// The same; rows have histograms, if that is wanted.
    #[must_use]
    pub fn with_histograms(self, hist: bool) -> Self {
        Self { hist, ..self }
    }

    /// The same; the rows of what has ended take about this many bytes at most.
    #[must_use]
    pub fn bounded(self, bytes: u64) -> Self {
        Self { rows: self.rows.bounded(bytes), ..self }
    }

    /// The same; rows have what the time was spent on, as far as the variant sees it.
    #[must_use]
    pub fn split(self, parts: Option<[bool; PARTS]>) -> Self {
        Self { parts, ..self }
    }

    /// The same; whether it is seen that threads sleep in faults.
    #[must_use]
    pub fn seeing_waits(self, seen: bool) -> Self {
        Self { sees_waits: seen, ..self }
    }

    /// Takes the report of a group, which the kernel half knows by `id`: it replaces the one before.
    pub fn group(&mut self, id: GroupId, report: Group) {
        let Group { key, stats, extremes, recent, range, owner, name } = report;
        self.rows.take(
            Id::Group(id),
            key,
            Figures { name, stats, extremes, recent, range, owner, forked_by: None },
        );
    }

    /// Nothing more will be reported of a group.
    pub fn close_group(&mut self, id: &GroupId) {
        self.rows.end(&Id::Group(*id));
    }

    /// The id of a group may be another one's from now on; what was reported under it goes on under a new one.
    pub fn move_group(&mut self, id: &GroupId, to: GroupId) {
        self.rows.renumber(&Id::Group(*id), Id::Group(to));
    }

    /// A group belongs to another row than was said: what is shown from now on is in that one.
    pub fn name_group(&mut self, id: &GroupId, key: Key) {
        self.rows.name(&Id::Group(*id), key);
    }

    /// Takes the report of a living thread: it replaces the one before.
    pub fn live(&mut self, report: Report) {
        let (key, name) = self.by.key(&report);
        let Report { thread, process, stats, extremes, recent, forked_by, .. } = report;
        let figures = Figures { name, stats, extremes, recent, range: None, owner: Some(process), forked_by };
        self.rows.take(Id::Thread(thread), key, figures);
    }

    /// Takes the last report of a thread; whatever was reported of it alive is contained in it.
    pub fn ended(&mut self, report: Report) {
        let id = Id::Thread(report.thread);
        self.live(report);
        self.rows.end(&id);
    }

    /// How many rows of what has ended were folded into one, because they took too much memory.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.rows.folded()
    }

    /// How many faults there were in the whole run.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.rows.figures().map(|figures| figures.stats.faults()).sum()
    }

    /// Rows with the faults since the beginning: those that have more than the last time, or `all`.
    pub fn block(&mut self, time_ns: u64, all: bool) -> Block {
        let rows = self.by.rows();
        let table = if self.parts.is_some() { &rows.split } else { &rows.whole };
        let Self { timing, hist, sees_waits, .. } = *self;
        let parts = self.parts.unwrap_or_default();
        self.rows.block(table, time_ns, all, |key, figures| {
            let extremes = if all { figures.extremes } else { figures.recent };
            let (key, figures) = (key.clone(), figures.clone());
            table.record(&Row { timing, hist, parts, sees_waits, key, figures, extremes })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::stage::Stages;

    /// Its two faults were counted; so many of them were timed by now.
    fn report(timed: u64) -> Report {
        let process = Process { pid: 7, start_ns: 70 };
        let stats = Stats { minor: 2, timed_minor: timed, minor_ns: timed * 100, ..Stats::default() };
        let extremes = Extremes { max_ns: 100, min_ns: 100 };
        Report {
            thread: Thread { pid: 7, tid: 7, start_ns: 70 },
            comm: "db".into(),
            process,
            process_comm: "db".into(),
            cgroup: "/".into(),
            forked_by: None,
            stats,
            extremes,
            recent: extremes,
        }
    }

    #[test]
    fn a_time_that_is_known_after_its_fault_was_shown_is_in_the_next_interval() {
        let mut ledger = Ledger::new(By::Thread, Timing::All(1));
        let mut stages = Stages::new();
        let mut shown = |ledger: &mut Ledger| {
            let row = stages.interval(ledger.block(1, false)).rows.into_iter().next()?;
            match ["minor", "timed"].map(|name| row.get(name)) {
                [Some(&Value::U64(minor)), Some(&Value::U64(timed))] => Some((minor, timed)),
                other => panic!("{other:?}"),
            }
        };
        ledger.live(report(0));
        assert_eq!(shown(&mut ledger), Some((2, 0)));
        ledger.live(report(1));
        assert_eq!(shown(&mut ledger), Some((0, 1)));
        ledger.ended(report(2));
        assert_eq!(shown(&mut ledger), Some((0, 1)));
        assert_eq!(shown(&mut ledger), None);
    }

    /// What is not seen is null: a 0 would mean that no thread has slept.
    #[test]
    fn waits_that_are_not_seen_are_not_0() {
        let row = |seen| {
            let parts = Some([seen; PARTS]);
            let mut ledger = Ledger::new(By::Thread, Timing::All(1)).split(parts).seeing_waits(seen);
            ledger.live(report(1));
            let row = Stages::new().interval(ledger.block(1, false)).rows.remove(0);
            ["waits", "wait_ns", "io_ns", "kernel_ns", "total_ns"].map(|name| row.number(name).is_some())
        };
        assert_eq!(row(true), [true; 5]);
        assert_eq!(row(false), [false, false, false, false, true]);
    }

    /// Threads come and go for ever: rows and the folded one add up to all there was, in intervals and in all.
    #[test]
    fn what_has_ended_is_folded_and_sums_stay_exact() {
        const BOUND: u64 = 100_000;
        let mut ledger = Ledger::new(By::Thread, Timing::All(1)).bounded(BOUND);
        let sum = |block: &Block| match block.sum.as_ref().and_then(|sum| sum.get("minor")) {
            Some(&Value::U64(minor)) => minor,
            other => panic!("{other:?}"),
        };
        let (mut stages, mut shown) = (Stages::new(), 0);
        for n in 0..5000 {
            let thread = Thread { pid: n, tid: n, start_ns: n.into() };
            ledger.live(Report { thread, ..report(1) });
            ledger.ended(Report { thread, ..report(2) });
            if n % 100 == 0 {
                shown += sum(&stages.interval(ledger.block(1, false)));
            }
        }
        shown += sum(&stages.interval(ledger.block(1, false)));
        let totals = stages.totals(ledger.block(2, true));
        assert_eq!((shown, sum(&totals)), (10_000, 10_000));
        assert_eq!(totals.rows.len() as u64 + ledger.folded(), 5001);
        let folded = totals.rows.iter().find(|row| row.get("comm") == Some(&"(folded threads)".into()));
        let folded = folded.and_then(|row| row.get("minor").cloned());
        assert_eq!(folded, Some(Value::U64(ledger.folded() * 2)));
        assert_eq!(stages.interval(ledger.block(3, false)).rows, []);
        assert_eq!(stages.totals(ledger.block(4, true)).rows.len(), totals.rows.len());
    }
}
