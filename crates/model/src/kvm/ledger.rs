//! From the kernel half's figures by thread to rows by whatever is asked for.

use std::collections::{BTreeMap, HashMap};

use super::{By, Exit, Layout, Names};
use crate::field::{Record, Schema, Value};
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
    schema: &'static Schema,
    level: Option<Level>,
    /// Whether faults on the guest's behalf are told from the rest of the time.
    pub faults_timed: bool,
    names: Names,
    entries: BTreeMap<Key, Entry>,
    limit: u64,
    folded: u64,
}

impl Ledger {
    /// An empty ledger for rows of that layout, whose schema is given; only of one level if one is named.
    #[must_use]
    pub fn new(layout: Layout, schema: &'static Schema, level: Option<Level>, names: Names) -> Self {
        let (entries, limit) = (BTreeMap::new(), ENDED_BYTES);
        Self { layout, schema, level, faults_timed: true, names, entries, limit, folded: 0 }
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
        Block { time_ns, rows, sum: Some(self.row(None, None, &sum)), hidden: 0 }
    }

    fn row(&self, key: Option<&Key>, vm: Option<&str>, [l1, l2]: &[Stats; 2]) -> Record {
        let mut all = l1.clone();
        all.add(l2);
        let mut values: HashMap<&str, Value> = HashMap::new();
        let mut put = |name, value: Value| values.insert(name, value);
        match key {
            Some(&Key::Reason(exit)) => self.name_exit(&mut put, exit),
            Some(&Key::Subject(exit, subject, write)) => {
                self.name_exit(&mut put, exit);
                for name in ["msr", "port", "mmio", "rip"] {
                    put(name, subject.into());
                }
                put("rw", if write { "W" } else { "R" }.into());
            }
            // Its subject is not known: null.
            Some(&Key::NoSubject(exit)) => self.name_exit(&mut put, exit),
            Some(&Key::Vm(pid, start_ns)) => {
                put("pid", pid.into());
                put("start_ns", start_ns.into());
                put("vm", vm.into());
            }
            Some(&Key::Vcpu(pid, start_ns, number, tid)) => {
                put("pid", pid.into());
                put("start_ns", start_ns.into());
                put("vm", vm.into());
                put("vcpu", number.into());
                put("tid", tid.into());
            }
            Some(Key::Folded) => {
                ["name", "vm"].into_iter().for_each(|name| drop(put(name, "(folded)".into())));
                ["msr", "port", "mmio"].into_iter().for_each(|name| drop(put(name, "-".into())));
            }
            None => {
                ["name", "vm"].into_iter().for_each(|name| drop(put(name, "Total".into())));
                ["msr", "port", "mmio"].into_iter().for_each(|name| drop(put(name, "-".into())));
            }
        }
        for (name, value) in [("count", all.count), ("l1_count", l1.count), ("l2_count", l2.count)] {
            put(name, value.into());
        }
        if self.layout.timed {
            let quantile = |q| all.hist.quantile(q, 0, all.max_ns).into();
            put("total_ns", all.ns.into());
            put("l1_ns", l1.ns.into());
            put("l2_ns", l2.ns.into());
            put("max_ns", Some(all.max_ns).filter(|_| all.timed > 0).into());
            put("avg_ns", all.ns.checked_div(all.timed).into());
            put("p50_ns", quantile(0.5));
            put("p90_ns", quantile(0.9));
            put("p99_ns", quantile(0.99));
            put("timed", all.timed.into());
            put("l1_timed", l1.timed.into());
            put("l2_timed", l2.timed.into());
            put("buckets", Value::Buckets(all.hist.octaves()));
        }
        if self.layout.split {
            let phases = ["kvm_ns", "vmm_ns", "blocked_ns", "preempted_ns", "fault_ns"];
            for (name, ns) in phases.into_iter().zip(all.phase_ns) {
                put(name, ns.into());
            }
            if !self.faults_timed {
                put(phases[FAULT], Value::Null);
            }
            put("host_major", all.faults[0].into());
            put("host_minor", all.faults[1].into());
            put("to_vmm", all.to_vmm.into());
            put("l2_reflected", all.reflected.into());
        }
        let in_order = self.schema.iter().map(|field| values.remove(field.name).unwrap_or(Value::Null));
        Record::new(self.schema, in_order.collect())
    }

    fn name_exit(&self, put: &mut impl FnMut(&'static str, Value) -> Option<Value>, exit: Exit) {
        put("isa", exit.isa.to_string().as_str().into());
        put("reason", exit.reason().into());
        put("name", self.names.name(exit).as_str().into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;
    use crate::hist::{BUCKETS, bucket};

    const LAYOUT: Layout = Layout { by: By::Reason, timed: true, buckets: true, split: true };

    fn stats(times: &[u64]) -> Stats {
        let mut counts = [0; BUCKETS];
        times.iter().for_each(|&ns| counts[bucket(ns)] += 1);
        let (count, ns) = (times.len() as u64, times.iter().sum());
        let max_ns = times.iter().copied().max().unwrap_or(0);
        Stats { count, timed: count, ns, max_ns, hist: Hist::new(&counts), ..Stats::default() }
    }

    fn report(tid: u32, code: u32, levels: [Stats; 2]) -> Report {
        let vcpu = Vcpu { pid: 7, process_start_ns: 70, vm: Some("db".into()), tid, number: tid - 8 };
        let recent_max_ns = [levels[0].max_ns, levels[1].max_ns];
        Report { vcpu, exit: Exit { isa: Isa::Vmx, code }, subject: None, levels, recent_max_ns }
    }

    fn ledger(by: By, level: Option<Level>) -> Ledger {
        let layout = Layout { by, ..LAYOUT };
        Ledger::new(layout, layout.schema(), level, Names::default())
    }

    fn get(row: &Record, name: &str) -> u64 {
        match row.get(name) {
            Some(&Value::U64(n)) => n,
            other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn threads_are_added_and_a_dead_one_is_not_forgotten() {
        let mut ledger = ledger(By::Reason, None);
        ledger.take(report(8, 12, [stats(&[100, 300]), stats(&[])]), false);
        ledger.take(report(9, 12, [stats(&[]), stats(&[50])]), false);
        let first = ledger.interval(1, false);
        assert_eq!((get(&first.rows[0], "count"), get(&first.rows[0], "l2_count")), (3, 1));
        ledger.begin();
        ledger.take(report(8, 12, [stats(&[100, 300, 40]), stats(&[])]), true);
        ledger.take(report(9, 12, [stats(&[]), stats(&[50])]), false);
        let second = ledger.interval(2, false);
        assert_eq!((get(&second.rows[0], "count"), get(&second.rows[0], "total_ns")), (1, 40));
        ledger.begin();
        let totals = ledger.totals(3);
        assert_eq!((get(&totals.rows[0], "count"), get(&totals.rows[0], "max_ns")), (3, 300));
    }

    #[test]
    fn a_row_is_a_vm_or_a_vcpu_or_a_reason() {
        let rows = |by| {
            let mut ledger = ledger(by, None);
            ledger.take(report(8, 12, [stats(&[1]), stats(&[])]), false);
            ledger.take(report(8, 0x8000_0021, [stats(&[1]), stats(&[])]), false);
            ledger.take(report(9, 12, [stats(&[2, 3]), stats(&[4])]), false);
            ledger.totals(0).rows
        };
        assert_eq!(rows(By::Vm).len(), 1);
        assert_eq!(rows(By::Vm)[0].get("vm"), Some(&"db".into()));
        let counts = |by| rows(by).iter().map(|row| get(row, "count")).collect::<Vec<_>>();
        assert_eq!((counts(By::Vm), counts(By::Vcpu), counts(By::Reason)), (vec![5], vec![2, 3], vec![4, 1]));
        assert_eq!(rows(By::Reason)[1].get("name"), Some(&"INVALID_STATE FAILED_VMENTRY".into()));
    }

    #[test]
    fn exits_without_a_subject_have_a_row_and_rows_add_up() {
        let mut ledger = ledger(By::Msr, None);
        let mut take = |code, subject, times: &[u64]| {
            ledger.take(Report { subject, ..report(8, code, [stats(times), stats(&[])]) }, false);
        };
        take(31, None, &[1, 2, 3]);
        take(31, Some((0x1b, false)), &[4]);
        take(31, Some((0x10, true)), &[5, 6]);
        take(12, None, &[7]);
        let totals = ledger.totals(0);
        let rows: Vec<_> =
            totals.rows.iter().map(|row| (row.get("msr"), row.get("rw"), get(row, "count"))).collect();
        let (null, r, w) = (Value::Null, "R".into(), "W".into());
        let (low, high) = (0x10u64.into(), 0x1bu64.into());
        let expected = [
            (Some(&low), Some(&w), 2),
            (Some(&high), Some(&r), 1),
            (Some(&null), Some(&null), 1),
            (Some(&null), Some(&null), 3),
        ];
        assert_eq!(rows, expected);
        assert_eq!(totals.sum.map(|sum| get(&sum, "count")), Some(7));
    }

    #[test]
    fn one_level_alone() {
        for (level, count) in [(Level::L1, 2), (Level::L2, 1)] {
            let mut ledger = ledger(By::Reason, Some(level));
            ledger.take(report(8, 12, [stats(&[1, 2]), stats(&[3])]), false);
            assert_eq!((get(&ledger.totals(0).rows[0], "count"), ledger.counted()), (count, (count, count)));
        }
    }

    /// An exit is counted before it is known to be one of L2: what was shown once is made up for later.
    #[test]
    fn an_exit_that_changes_its_level_is_made_up_for() {
        let mut ledger = ledger(By::Reason, None);
        let mut shown = [0, 0];
        let steps = [([6, 0], [6, 0]), ([5, 1], [6, 1]), ([9, 1], [9, 1])];
        for ([l1, l2], expected) in steps {
            ledger.begin();
            let stats = [l1, l2].map(|count| Stats { count, ..Stats::default() });
            ledger.take(report(8, 12, stats), false);
            for row in &ledger.interval(0, false).rows {
                shown[0] += get(row, "l1_count");
                shown[1] += get(row, "l2_count");
            }
            assert_eq!(shown, expected);
        }
    }

    /// VMs come and go for ever: rows and the folded one add up to all there was.
    #[test]
    fn what_has_ended_is_folded_and_sums_stay_exact() {
        let mut ledger = ledger(By::Vcpu, None).bounded(100_000);
        for n in 0..2000 {
            ledger.begin();
            ledger.take(report(8 + n, 12, [stats(&[100, 300]), stats(&[50])]), true);
            ledger.interval(1, false);
        }
        ledger.begin();
        let totals = ledger.totals(2);
        assert_eq!((get(totals.sum.as_ref().unwrap(), "count"), ledger.counted()), (6000, (6000, 6000)));
        assert!(ledger.folded() > 0);
        assert_eq!(totals.rows.len() as u64 + ledger.folded(), 2001);
        let folded = totals.rows.last().unwrap();
        assert_eq!(folded.get("vm"), Some(&"(folded)".into()));
        assert_eq!(get(folded, "count"), ledger.folded() * 3);
    }
}
