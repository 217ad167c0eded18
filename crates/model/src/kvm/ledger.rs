//! From the kernel half's figures by thread to rows by whatever is asked for.

use super::{By, Exit, Layout, Names};
use crate::field::{Record, Value};
use crate::hist::{Extremes, Hist};
use crate::item::Block;
use crate::ledger;

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

/// Exits of one level and what became of them. All fields grow, but for `extremes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Exits.
    pub count: u64,
    /// Those that an entry followed.
    pub timed: u64,
    /// Their handling time, nanoseconds.
    pub ns: u64,
    /// The longest and the shortest in the time that this is about.
    pub extremes: Extremes,
    /// The time in the guest before the exits, nanoseconds.
    pub guest_ns: u64,
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
        self.extremes.add(other.extremes);
        self.guest_ns += other.guest_ns;
        self.hist.add(&other.hist);
        self.reflected += other.reflected;
        self.to_vmm += other.to_vmm;
        self.phase_ns.iter_mut().zip(other.phase_ns).for_each(|(a, b)| *a += b);
        self.faults.iter_mut().zip(other.faults).for_each(|(a, b)| *a += b);
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
    /// The number of the thread in the run.
    pub thread: u32,
    /// Whose exits.
    pub vcpu: Vcpu,
    /// Which exits.
    pub exit: Exit,
    /// The register, port, address or instruction that they are counted under, and whether it was written; nothing where
    /// exits are counted under none, and of those that had none.
    pub subject: Option<(u64, bool)>,
    /// Of L1 and of L2.
    pub levels: [Stats; 2],
    /// Those of the interval that is about to be shown, of L1 and of L2.
    pub recent: [Extremes; 2],
}

/// What a row is about. Sorted as rows are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Reason(Exit),
    Vm(u32, u64),
    VmReason(u32, u64, Exit),
    Vcpu(u32, u64, u32, u32),
    Subject(Exit, u64, bool),
    NoSubject(Exit),
    /// Rows that were folded into one.
    Folded,
}

impl ledger::Key for Key {
    type Owner = ();
}

/// What is known under a key.
#[derive(Debug, Default)]
struct Figures {
    vm: Option<String>,
    levels: [Stats; 2],
    recent: [Extremes; 2],
}

impl ledger::Figures for Figures {
    type Owner = ();

    /// An exit is counted before it is known to be one of L2: it is news then.
    fn known(&self) -> u64 {
        let [l1, l2] = self.levels.each_ref().map(|level| level.count + level.timed);
        l1 + 3 * l2
    }

    fn take(&mut self, later: Self, is_news: bool) {
        let mut recent = self.recent;
        if is_news {
            recent.iter_mut().zip(later.recent).for_each(|(mine, later)| mine.add(later));
        }
        *self = Self { recent, ..later };
    }

    fn add(&mut self, other: &Self, is_shown: bool) {
        self.levels.iter_mut().zip(&other.levels).for_each(|(a, b)| a.add(b));
        if !is_shown {
            self.recent.iter_mut().zip(other.recent).for_each(|(mine, other)| mine.add(other));
        }
        if self.vm.is_none() {
            self.vm.clone_from(&other.vm);
        }
    }

    fn begin_interval(&mut self) {
        self.recent = [Extremes::default(); 2];
    }

    fn bytes(&self) -> usize {
        self.levels.iter().map(|level| level.hist.bytes()).sum()
    }

    fn owner(&self) -> Option<()> {
        None
    }
}

/// What lives: a thread's exits of one kind, with one subject.
type Id = (u32, u32, Exit, Option<(u64, bool)>);

/// Turns reports into rows.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    level: Option<Level>,
    /// Whether faults on the guest's behalf are told from the rest of the time.
    pub faults_timed: bool,
    names: Names,
    rows: ledger::Ledger<Id, Key, Figures>,
}

impl Ledger {
    /// An empty ledger for rows of that layout; only of one level if one is named.
    #[must_use]
    pub fn new(layout: Layout, level: Option<Level>, names: Names) -> Self {
        let folded = Figures { vm: Some("(folded)".into()), ..Figures::default() };
        Self { layout, level, faults_timed: true, names, rows: ledger::Ledger::new(Key::Folded, folded) }
    }

    /// The same; the rows of what has ended take about this many bytes at most.
    #[must_use]
    pub fn bounded(self, bytes: u64) -> Self {
        Self { rows: self.rows.bounded(bytes), ..self }
    }

    /// How many rows of what has ended were folded into one, because they took too much memory.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.rows.folded()
    }

    /// Takes a report; the last one of its thread if that `ended`.
    pub fn take(&mut self, mut report: Report, ended: bool) {
        match self.level {
            Some(Level::L1) => report.levels[1] = Stats::default(),
            Some(Level::L2) => report.levels[0] = Stats::default(),
            None => {}
        }
        let Report { thread, vcpu, exit, subject, levels, recent } = report;
        let key = match self.layout.by {
            By::Reason => Key::Reason(exit),
            By::Vm => Key::Vm(vcpu.pid, vcpu.process_start_ns),
            By::VmReason => Key::VmReason(vcpu.pid, vcpu.process_start_ns, exit),
            By::Vcpu => Key::Vcpu(vcpu.pid, vcpu.process_start_ns, vcpu.number, vcpu.tid),
            By::Msr | By::Port | By::Mmio | By::Rip | By::Userspace => match subject {
                Some((subject, write)) => Key::Subject(exit, subject, write),
                None => Key::NoSubject(exit),
            },
        };
        let id = (thread, vcpu.number, exit, subject);
        if levels.iter().any(|level| level.count > 0) {
            self.rows.take(id, key, Figures { vm: vcpu.vm, levels, recent });
        }
        if ended {
            self.rows.end(&id);
        }
    }

    /// How many exits there were, and how many of them were timed, in the whole run.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        let levels = self.rows.figures().flat_map(|figures| &figures.levels);
        levels.fold((0, 0), |(count, timed), level| (count + level.count, timed + level.timed))
    }

    /// Rows with the exits since the beginning: those that have more than the last time, or `all`.
    pub fn block(&mut self, time_ns: u64, all: bool) -> Block {
        let Self { layout, faults_timed, names, rows, .. } = self;
        rows.block(layout.table(), time_ns, all, |key, figures| {
            row(key, figures, names, all, (*layout, *faults_timed))
        })
    }
}

fn row(
    key: &Key,
    figures: &Figures,
    names: &Names,
    all: bool,
    (layout, faults_timed): (Layout, bool),
) -> Record {
    let Figures { vm, levels, recent } = figures;
    let name = match key {
        Key::Reason(exit) | Key::VmReason(.., exit) | Key::Subject(exit, ..) | Key::NoSubject(exit) => {
            Some(names.name(*exit))
        }
        Key::Vm(..) | Key::Vcpu(..) => None,
        Key::Folded => vm.clone(),
    };
    let mut sum = levels[0].clone();
    sum.add(&levels[1]);
    if !all {
        sum.extremes = recent[0];
        sum.extremes.add(recent[1]);
    }
    let (key, levels) = (key.clone(), levels.clone());
    layout.table().record(&Row { key, name, vm: vm.clone(), all: sum, levels, layout, faults_timed })
}

/// What a row is made of.
pub(super) struct Row {
    key: Key,
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
            Key::Reason(exit) | Key::VmReason(.., exit) | Key::Subject(exit, ..) | Key::NoSubject(exit) => {
                Some(exit)
            }
            _ => None,
        }
    }

    /// Its id and start time.
    pub(super) fn process(&self) -> Option<(u32, u64)> {
        match self.key {
            Key::Vm(pid, start_ns) | Key::VmReason(pid, start_ns, _) | Key::Vcpu(pid, start_ns, ..) => {
                Some((pid, start_ns))
            }
            _ => None,
        }
    }

    /// Its number and thread.
    pub(super) fn vcpu(&self) -> Option<(u32, u32)> {
        if let Key::Vcpu(.., number, tid) = self.key { Some((number, tid)) } else { None }
    }

    /// What the exit was about, and whether it was written.
    pub(super) fn subject(&self) -> Option<(u64, bool)> {
        if let Key::Subject(_, subject, write) = self.key { Some((subject, write)) } else { None }
    }

    pub(super) fn subject_or_none(&self) -> Value {
        self.subject().map(|(subject, _)| subject).into()
    }

    /// What is known where exits are timed.
    pub(super) fn timed(&self, value: impl Into<Value>) -> Value {
        if self.layout.timed { value.into() } else { Value::Null }
    }

    pub(super) fn fault_ns(&self) -> Value {
        Some(self.all.phase_ns[FAULT]).filter(|_| self.faults_timed).into()
    }
}

/// Of a record's exits, where any was timed: what is made of their times and the longest of them.
fn of_timed(record: &Record, value: impl Fn(&Hist, u64) -> Option<u64>) -> Value {
    let longest_ns = record.number("timed").filter(|&timed| timed > 0).and(record.number("longest_ns"));
    longest_ns.zip(record.hist("times")).and_then(|(longest, hist)| value(hist, longest)).into()
}

pub(super) fn max_ns(record: &Record) -> Value {
    of_timed(record, |_, longest| Some(longest))
}

pub(super) fn min_ns(record: &Record) -> Value {
    of_timed(record, |_, _| record.number("shortest_ns"))
}

pub(super) fn avg_ns(record: &Record) -> Value {
    let times = record.number("total_ns").zip(record.number("timed"));
    times.and_then(|(ns, timed)| ns.checked_div(timed)).into()
}

pub(super) fn quantile(record: &Record, q: f64) -> Value {
    of_timed(record, |hist, longest| hist.quantile(q, 0, longest))
}

#[cfg(test)]
mod tests;
