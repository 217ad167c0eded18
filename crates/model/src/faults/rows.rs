//! From what the ledger holds to rows: what has the same key is put together, and figures become fields.

use std::collections::HashMap;
use std::rc::Rc;

use super::group::{By, Key, container, pod};
use super::ledger::{Entry, Range, widen};
use super::{Extremes, Stats, Timing};
use crate::item::Block;

/// Rows in the making: threads of the same key together.
#[derive(Default)]
pub(super) struct Rows {
    groups: HashMap<Key, (Rc<str>, Stats, Extremes, Range)>,
}

impl Rows {
    pub(super) fn add(&mut self, entry: &Entry, stats: &Stats, extremes: Extremes) {
        if stats.known() > 0 {
            let group = self.groups.entry(entry.key.clone()).or_default();
            group.0 = Rc::clone(&entry.comm);
            group.1.add(stats);
            group.2.add(extremes);
            widen(&mut group.3, entry.range);
        }
    }

    pub(super) fn block(self, by: By, timing: Timing, time_ns: u64) -> Block {
        let name = "TOTAL".into();
        let mut sum = Row {
            timing,
            key: Key::None,
            name,
            stats: Stats::default(),
            extremes: Extremes::default(),
            range: None,
        };
        let mut rows = Vec::with_capacity(self.groups.len());
        for (key, (name, stats, extremes, range)) in self.groups {
            sum.stats.add(&stats);
            sum.extremes.add(extremes);
            rows.push(by.table().record(&Row { timing, key, name, stats, extremes, range }));
        }
        Block { sum: Some(by.table().record(&sum)), ..Block::new(by.table(), time_ns, rows) }
    }
}

/// What a row says.
pub(super) struct Row {
    timing: Timing,
    key: Key,
    name: Rc<str>,
    pub(super) stats: Stats,
    extremes: Extremes,
    pub(super) range: Range,
}

/// The key.
impl Row {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match &self.key {
            Key::Thread(thread) => Some(thread.pid),
            Key::Process(process) => Some(process.pid),
            _ => None,
        }
    }

    pub(super) fn tid(&self) -> Option<u32> {
        if let Key::Thread(thread) = &self.key { Some(thread.tid) } else { None }
    }

    pub(super) fn start_ns(&self) -> Option<u64> {
        match &self.key {
            Key::Thread(thread) => Some(thread.start_ns),
            Key::Process(process) => Some(process.start_ns),
            _ => None,
        }
    }

    pub(super) fn container(&self) -> Option<&str> {
        container(&self.name)
    }

    pub(super) fn pod(&self) -> Option<String> {
        pod(&self.name)
    }

    pub(super) fn device(&self) -> Option<String> {
        let Key::File(file) = &self.key else { return None };
        file.inode.map(|(major, minor, _)| format!("{major}:{minor}"))
    }

    pub(super) fn inode(&self) -> Option<u64> {
        let Key::File(file) = &self.key else { return None };
        file.inode.map(|(.., number)| number)
    }

    /// What is no stack has its name there.
    pub(super) fn frames(&self) -> Option<&str> {
        match &self.key {
            Key::Untaken => None,
            Key::Stack(stack) => Some(&stack.frames),
            _ => Some(&self.name),
        }
    }

    pub(super) fn lines(&self) -> Option<&str> {
        if let Key::Stack(stack) = &self.key { Some(&stack.lines) } else { None }
    }
}

/// The times; what the variant cannot know is missing.
impl Row {
    /// The time of minor faults, and how many faults are timed. Sampled: a timed minor fault stands for as many as there are
    /// to each. The count is exact, the time is not.
    fn minor_ns_and_faults(&self) -> Option<(Option<u64>, u64)> {
        let (Timing::All(weight), stats) = (self.timing, &self.stats) else { return None };
        Some(match stats.timed_minor {
            timed if weight == 1 => (Some(stats.minor_ns), stats.timed_major + timed),
            0 => (Some(0).filter(|_| stats.minor == 0), stats.faults()),
            timed => {
                let scaled = u128::from(stats.minor_ns) * u128::from(stats.minor) / u128::from(timed);
                (Some(scaled as u64), stats.faults())
            }
        })
    }

    /// The time of all, and their number. Faults that were all taken inside the kernel on the thread's behalf may be counted
    /// and none of them timed.
    fn all(&self) -> Option<(u64, u64)> {
        let (minor_ns, faults) = self.minor_ns_and_faults()?;
        minor_ns.map(|minor_ns| (self.stats.major_ns + minor_ns, faults)).filter(|_| faults > 0)
    }

    pub(super) fn total_ns(&self) -> Option<u64> {
        self.all().map(|(total, _)| total)
    }

    pub(super) fn avg_ns(&self) -> Option<u64> {
        self.all().map(|(total, faults)| total / faults)
    }

    pub(super) fn major_ns(&self) -> Option<u64> {
        let stats = &self.stats;
        match self.timing {
            Timing::None => None,
            Timing::Major => Some(stats.major_ns),
            Timing::All(_) => Some(stats.major_ns).filter(|_| stats.timed_major > 0 || stats.major == 0),
        }
    }

    pub(super) fn known(&self) -> Option<Extremes> {
        let Extremes { max_ns, min_ns } = self.extremes;
        let timed = matches!(self.timing, Timing::All(_));
        (timed && min_ns <= max_ns).then_some(self.extremes)
    }

    pub(super) fn quantile(&self, q: f64) -> Option<u64> {
        self.known().and_then(|e| self.stats.hist.quantile(q, e.min_ns, e.max_ns))
    }
}
