//! From the kernel half's figures by thread to rows by whatever is asked for.

use std::collections::BTreeMap;

use super::{By, Exit, Layout, Names};
use crate::field::{Record, Value};
use crate::hist::Hist;
use crate::item::Block;

/// Whether an exit left the guest or the guest's own guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The guest.
    L1,
    /// A guest of the guest.
    L2,
}

/// The phases of an exit's handling: KVM, VMM, blocked, preempted, fault.
pub const PHASES: usize = 5;
const FAULT: usize = 4;

/// Exits of one level and what became of them. All fields grow, but for `max_ns`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Exits.
    pub count: u64,
    /// Those that an entry followed.
    pub timed: u64,
    /// Their handling time, nanoseconds.
    pub ns: u64,
    /// The longest in the time that this is about.
    pub max_ns: u64,
    /// Their handling times.
    pub hist: Hist,
    /// Exits of L2 passed on to L1.
    pub reflected: u64,
    /// Exits that KVM did not handle by itself.
    pub to_vmm: u64,
    /// What the handling time consists of, nanoseconds.
    pub phase_ns: [u64; PHASES],
    /// Page faults of the host on the guest's behalf: major and minor.
    pub faults: [u64; 2],
}

impl Stats {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.timed += other.timed;
        self.ns += other.ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.hist.add(&other.hist);
        self.reflected += other.reflected;
        self.to_vmm += other.to_vmm;
        self.phase_ns.iter_mut().zip(other.phase_ns).for_each(|(a, b)| *a += b);
        self.faults.iter_mut().zip(other.faults).for_each(|(a, b)| *a += b);
    }

    /// What came after `earlier`; the longest is that of the whole time.
    fn since(&self, earlier: &Self) -> Self {
        let less = |a: u64, b: u64| a.saturating_sub(b);
        Self {
            count: less(self.count, earlier.count),
            timed: less(self.timed, earlier.timed),
            ns: less(self.ns, earlier.ns),
            max_ns: self.max_ns,
            hist: self.hist.since(&earlier.hist),
            reflected: less(self.reflected, earlier.reflected),
            to_vmm: less(self.to_vmm, earlier.to_vmm),
            phase_ns: std::array::from_fn(|i| less(self.phase_ns[i], earlier.phase_ns[i])),
            faults: std::array::from_fn(|i| less(self.faults[i], earlier.faults[i])),
        }
    }
}

/// A vCPU and the thread and process that run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vcpu {
    /// The process.
    pub pid: u32,
    /// Its birth, CLOCK_MONOTONIC nanoseconds.
    pub process_start_ns: u64,
    /// The name of the VM, if its process says one.
    pub vm: Option<String>,
    /// The thread.
    pub tid: u32,
    /// The number of the vCPU in its VM.
    pub number: u32,
}

/// What the kernel half counted under one of its keys since the trace began.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whose exits.
    pub vcpu: Vcpu,
    /// Which exits.
    pub exit: Exit,
    /// The register, port, address or instruction that they are counted under, and whether it was written; nothing where
    /// exits are counted under none, and of those that had none.
    pub subject: Option<(u64, bool)>,
    /// Of L1 and of L2.
    pub levels: [Stats; 2],
    /// The longest of the interval that is about to be shown, of L1 and of L2, nanoseconds.
    pub recent_max_ns: [u64; 2],
}

/// What a row is about. Sorted as rows are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Reason(Exit),
    Vm(u32, u64),
    Vcpu(u32, u64, u32, u32),
    Subject(Exit, u64, bool),
    NoSubject(Exit),
    /// Rows that were folded into one.
    Folded,
}

/// Rows of vCPUs that have ended may take this many bytes unless [`Ledger::bounded`] says otherwise.
const ENDED_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Default)]
struct Entry {
    vm: Option<String>,
    /// Of threads that ended.
    closed: [Stats; 2],
    /// Of the others, by their last report.
    live: [Stats; 2],
    shown: [Stats; 2],
    recent_max_ns: [u64; 2],
}

impl Entry {
    fn total(&self) -> [Stats; 2] {
        let mut total = self.closed.clone();
        total.iter_mut().zip(&self.live).for_each(|(a, b)| a.add(b));
        total
    }

    /// Whether all threads that it is made of have ended.
    fn has_ended(&self) -> bool {
        self.live.iter().all(|level| level.count == 0)
    }

    /// Adds another one, of which nothing lives.
    fn add(&mut self, other: &Self) {
        self.closed.iter_mut().zip(&other.closed).for_each(|(a, b)| a.add(b));
        self.shown.iter_mut().zip(&other.shown).for_each(|(a, b)| a.add(b));
        for (a, b) in self.recent_max_ns.iter_mut().zip(other.recent_max_ns) {
            *a = b.max(*a);
        }
    }

    /// About how much memory it takes.
    fn bytes(&self) -> u64 {
        let levels = self.closed.iter().chain(&self.shown);
        (size_of::<(Key, Self)>() + levels.map(|level| level.hist.bytes()).sum::<usize>()) as u64
    }
}

/// Turns reports into rows: groups them, and takes the differences between intervals.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    level: Option<Level>,
    /// Whether faults on the guest's behalf are told from the rest of the time.
    pub faults_timed: bool,
    names: Names,
    entries: BTreeMap<Key, Entry>,
    limit: u64,
    folded: u64,
}

impl Ledger {
    /// An empty ledger for rows of that layout; only of one level if one is named.
    #[must_use]
    pub fn new(layout: Layout, level: Option<Level>, names: Names) -> Self {
        let (entries, limit) = (BTreeMap::new(), ENDED_BYTES);
        Self { layout, level, faults_timed: true, names, entries, limit, folded: 0 }
    }

    /// The same; the rows of what has ended take about this many bytes at most.
    #[must_use]
    pub fn bounded(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }

    /// How many rows of what has ended were folded into one, because they took too much memory.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Folds the least of what has ended into one row until half of the memory is free.
    fn fold(&mut self) {
        let ended = |(key, entry): &(&Key, &Entry)| **key != Key::Folded && entry.has_ended();
        let mut bytes: u64 = self.entries.iter().filter(ended).map(|(_, entry)| entry.bytes()).sum();
        if bytes <= self.limit {
            return;
        }
        let ended = self.entries.iter().filter(ended);
        let count = |entry: &Entry| entry.closed.iter().map(|level| level.count).sum::<u64>();
        let mut ended: Vec<(u64, Key)> = ended.map(|(key, entry)| (count(entry), key.clone())).collect();
        ended.sort_unstable();
        let mut folded = self.entries.remove(&Key::Folded).unwrap_or_default();
        for (_, key) in ended {
            if bytes <= self.limit / 2 {
                break;
            }
            if let Some(entry) = self.entries.remove(&key) {
                bytes -= entry.bytes();
                folded.add(&entry);
                self.folded += 1;
            }
        }
        self.entries.insert(Key::Folded, folded);
    }

    /// Forgets the living: their reports follow.
    pub fn begin(&mut self) {
        self.fold();
        self.entries.values_mut().for_each(|entry| entry.live = Default::default());
    }

    /// Takes a report; the last one of its thread if that `ended`.
    pub fn take(&mut self, mut report: Report, ended: bool) {
        match self.level {
            Some(Level::L1) => report.levels[1] = Stats::default(),
            Some(Level::L2) => report.levels[0] = Stats::default(),
            None => {}
        }
        if report.levels.iter().all(|level| level.count == 0) {
            return;
        }
        let vcpu = &report.vcpu;
        let key = match self.layout.by {
            By::Reason => Key::Reason(report.exit),
            By::Vm => Key::Vm(vcpu.pid, vcpu.process_start_ns),
            By::Vcpu => Key::Vcpu(vcpu.pid, vcpu.process_start_ns, vcpu.number, vcpu.tid),
            By::Msr | By::Port | By::Mmio | By::Rip => match report.subject {
                Some((subject, write)) => Key::Subject(report.exit, subject, write),
                None => Key::NoSubject(report.exit),
            },
        };
        let entry = self.entries.entry(key).or_default();
        let of = if ended { &mut entry.closed } else { &mut entry.live };
        of.iter_mut().zip(&report.levels).for_each(|(a, b)| a.add(b));
        for (a, b) in entry.recent_max_ns.iter_mut().zip(report.recent_max_ns) {
            *a = b.max(*a);
        }
        entry.vm = report.vcpu.vm;
    }

    /// The exits of the interval that ends now; with `cumulative`, those since the beginning.
    pub fn interval(&mut self, time_ns: u64, cumulative: bool) -> Block {
        let mut parts = Vec::new();
        for (key, entry) in &mut self.entries {
            let total = entry.total();
            let recent = std::mem::take(&mut entry.recent_max_ns);
            let levels = if cumulative {
                total.clone()
            } else {
                std::array::from_fn(|i| Stats { max_ns: recent[i], ..total[i].since(&entry.shown[i]) })
            };
            for (shown, new) in entry.shown.iter_mut().zip(&levels) {
                if cumulative { *shown = new.clone() } else { shown.add(new) }
            }
            if levels.iter().any(|level| level.count + level.timed > 0) {
                parts.push((key.clone(), entry.vm.clone(), levels));
            }
        }
        self.block(time_ns, parts)
    }

    /// The exits of the whole run.
    #[must_use]
    pub fn totals(&self, time_ns: u64) -> Block {
        let parts = self.entries.iter().map(|(key, entry)| (key.clone(), entry.vm.clone(), entry.total()));
        self.block(time_ns, parts.collect())
    }

    /// How many exits there were, and how many of them were timed, in the whole run.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        let totals = self.entries.values().flat_map(Entry::total);
        totals.fold((0, 0), |(count, timed), level| (count + level.count, timed + level.timed))
    }

    fn block(&self, time_ns: u64, parts: Vec<(Key, Option<String>, [Stats; 2])>) -> Block {
        let mut sum: [Stats; 2] = Default::default();
        for (.., levels) in &parts {
            sum.iter_mut().zip(levels).for_each(|(a, b)| a.add(b));
        }
        let rows = parts.iter().map(|(key, vm, levels)| self.row(Some(key), vm.as_deref(), levels)).collect();
        let sum = Some(self.row(None, None, &sum));
        Block { sum, ..Block::new(self.layout.table(), time_ns, rows) }
    }

    fn row(&self, key: Option<&Key>, vm: Option<&str>, levels: &[Stats; 2]) -> Record {
        let mut all = levels[0].clone();
        all.add(&levels[1]);
        let name = match key {
            Some(Key::Reason(exit) | Key::Subject(exit, ..) | Key::NoSubject(exit)) => {
                Some(self.names.name(*exit))
            }
            Some(Key::Vm(..) | Key::Vcpu(..)) => None,
            Some(Key::Folded) => Some("(folded)".into()),
            None => Some("Total".into()),
        };
        let vm = match key {
            Some(Key::Folded) | None => name.clone(),
            Some(_) => vm.map(str::to_owned),
        };
        let (layout, faults_timed) = (self.layout, self.faults_timed);
        let row = Row { key: key.cloned(), name, vm, all, levels: levels.clone(), layout, faults_timed };
        self.layout.table().record(&row)
    }
}

/// What a row says.
pub(super) struct Row {
    key: Option<Key>,
    pub(super) name: Option<String>,
    pub(super) vm: Option<String>,
    pub(super) all: Stats,
    pub(super) levels: [Stats; 2],
    layout: Layout,
    faults_timed: bool,
}

impl Row {
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.key {
            Some(Key::Reason(exit) | Key::Subject(exit, ..) | Key::NoSubject(exit)) => Some(exit),
            _ => None,
        }
    }

    /// Its id and start time.
    pub(super) fn process(&self) -> Option<(u32, u64)> {
        match self.key {
            Some(Key::Vm(pid, start_ns) | Key::Vcpu(pid, start_ns, ..)) => Some((pid, start_ns)),
            _ => None,
        }
    }

    /// Its number and thread.
    pub(super) fn vcpu(&self) -> Option<(u32, u32)> {
        if let Some(Key::Vcpu(.., number, tid)) = self.key { Some((number, tid)) } else { None }
    }

    /// What the exit was about, and whether it was written.
    pub(super) fn subject(&self) -> Option<(u64, bool)> {
        if let Some(Key::Subject(_, subject, write)) = self.key { Some((subject, write)) } else { None }
    }

    pub(super) fn subject_or_none(&self) -> Value {
        self.subject().map(|(subject, _)| subject).into()
    }

    /// What is known where exits are timed.
    pub(super) fn timed(&self, value: impl Into<Value>) -> Value {
        if self.layout.timed { value.into() } else { Value::Null }
    }

    pub(super) fn quantile(&self, q: f64) -> Value {
        self.timed(self.all.hist.quantile(q, 0, self.all.max_ns))
    }

    pub(super) fn fault_ns(&self) -> Value {
        Some(self.all.phase_ns[FAULT]).filter(|_| self.faults_timed).into()
    }
}

#[cfg(test)]
mod tests;
