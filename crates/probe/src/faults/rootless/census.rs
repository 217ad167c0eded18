//! Who is watched without privilege, and how many faults each has: those that were recorded, and those that only the
//! kernel's counters have.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use trapline_model::faults::{Access, By, Fault, File, Key, Ledger, Outcome, PARTS, Process, Thread};
use trapline_symbols::maps::{Mapping, Maps};
use trapline_symbols::perf::{Record, What};
use trapline_symbols::task::{Counts, Task};

use super::grouping::Grouping;
use super::member::{Family, Member, Missing, report};
use super::untimed::{group, id};
use crate::{signals, system};

/// What the kernel's counters had.
#[derive(Debug)]
pub(super) struct Counters {
    threads: Vec<(Thread, Counts)>,
    /// Processes that are gone.
    left: Vec<u32>,
}

/// How long a fault's record may come after the kernel's counters have it: a thread that loses its processor in between
/// has it back by then.
const LATE_NS: u64 = 500_000_000;

/// How long an interval's rows wait for names: those of one's own processes only.
const ROWS_WAIT: Duration = Duration::from_secs(2);

/// How many faults there were, when all records of them were there.
#[derive(Debug, Default)]
struct Settled {
    /// What was counted since, and when.
    newer: VecDeque<(u64, Counts)>,
    all: Counts,
}

impl Settled {
    /// So many were counted at that moment: how many of them must have been recorded by now, or never will be.
    fn at(&mut self, time_ns: u64, counted: Counts) -> Counts {
        self.newer.push_back((time_ns, counted));
        let settled = self.newer.partition_point(|(at, _)| at + LATE_NS <= time_ns);
        self.all = self.newer.drain(..settled).next_back().map_or(self.all, |(_, all)| all);
        self.all
    }
}

/// All that are watched.
#[derive(Debug)]
pub(super) struct Census {
    by: By,
    /// Children are watched, too.
    tree: bool,
    families: HashMap<u32, Family>,
    /// Faults before that are not counted, CLOCK_MONOTONIC.
    began_ns: u64,
    /// Of processes that are gone: all their faults, and those of them that no thread had.
    gone: Counts,
    gone_rest: Counts,
    pub(super) groups: Grouping,
    /// Faults with a line are wanted, and those without are kept.
    verbose: bool,
    missing: Vec<Missing>,
    settled: Settled,
    pub(super) recorded: u64,
}

impl Census {
    pub(super) fn new(by: By, groups: Grouping, tree: bool, verbose: bool) -> Self {
        Self {
            by,
            tree,
            families: HashMap::new(),
            // A command is counted from its birth, others from when `begin` says.
            began_ns: if tree { 0 } else { u64::MAX },
            gone: Counts::default(),
            gone_rest: Counts::default(),
            groups,
            verbose,
            missing: vec![],
            settled: Settled::default(),
            recorded: 0,
        }
    }

    /// A process that is there.
    pub(super) fn adopt(&mut self, pid: u32) -> Option<()> {
        let task = Task::process(pid)?;
        let process = Process { pid, start_ns: task.start_ns() };
        let mut family = Family::new(process, task.comm.as_str().into());
        family.read_maps();
        self.families.insert(pid, family);
        Some(())
    }

    /// A thread that is there, of a process that is known.
    pub(super) fn adopt_thread(&mut self, pid: u32, tid: u32) {
        let Some(family) = self.families.get_mut(&pid) else { return };
        let Some(task) = Task::thread(pid, tid) else { return };
        let start_ns = if tid == pid { family.process.start_ns } else { task.start_ns() };
        let member = Member::new(Thread { pid, tid, start_ns }, task.comm.as_str().into());
        family.members.insert(tid, member);
    }

    /// Counting begins at this moment, for all that are followed by now. What they do before their counters are read here
    /// has its records.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.began_ns = now_ns;
        for (&pid, family) in &mut self.families {
            if let Some(task) = Task::process(pid) {
                (family.base, family.waited_base) = (task.faults, task.waited);
            }
            for (&tid, member) in &mut family.members {
                member.base = Task::thread(pid, tid).map_or(member.base, |task| task.faults);
            }
        }
    }

    pub(super) fn knows(&self, pid: u32, tid: u32) -> bool {
        self.families.get(&pid).is_some_and(|family| family.members.contains_key(&tid))
    }

    /// Takes what happened; gives the fault, if it was one.
    pub(super) fn take(&mut self, record: Record, is_major: impl Fn(u64) -> bool) -> Option<Fault> {
        let (pid, tid) = (record.pid, record.tid);
        if let Grouping::Stacks(stacks) = &mut self.groups {
            stacks.learn(&record);
        }
        if let What::Forked { parent } = record.what {
            self.born(&record, parent);
            return None;
        }
        if let What::Faulted { .. } = record.what {
            self.recorded += 1;
            if record.time_ns < self.began_ns {
                return None;
            }
        }
        let family = self.families.get_mut(&pid)?;
        match record.what {
            What::Named { comm, exec } => {
                let comm: Rc<str> = comm.into();
                if exec {
                    let alive = |member: &Member| !member.ended;
                    family.mixed |= family.members.values().any(|m| alive(m) && m.thread.tid != pid)
                        || !family.members.get(&pid).is_some_and(alive);
                    family.members.values_mut().for_each(|member| member.ended = member.thread.tid != pid);
                    family.maps = Maps::default();
                }
                if tid == pid {
                    family.comm = Rc::clone(&comm);
                }
                if let Some(member) = family.members.get_mut(&tid) {
                    member.comm = comm;
                    member.ended &= !exec;
                }
            }
            What::Mapped(mapping) => family.maps.insert(mapping),
            What::Ended => {
                if let Some(member) = family.members.get_mut(&tid) {
                    member.ended = true;
                }
            }
            What::Faulted { event, addr, ip, calls, stack } => {
                let start_ns = if tid == pid { family.process.start_ns } else { record.time_ns };
                let comm = Rc::clone(&family.comm);
                // One whose birth had no room in the ring is met here first.
                let member = family
                    .members
                    .entry(tid)
                    .or_insert_with(|| Member::new(Thread { pid, tid, start_ns }, comm));
                let major = is_major(event);
                member.seen += Counts::of(major);
                let stack_id = match (&mut self.groups, calls) {
                    (Grouping::Stacks(stacks), Some(calls)) => {
                        stacks.put(family.process, record.time_ns, calls, stack, Counts::of(major))
                    }
                    _ => None,
                };
                if !self.verbose && !self.groups.are_of_files() {
                    return None;
                }
                let (thread, comm) = (member.thread, Rc::clone(&member.comm));
                let place = |mapping: &Mapping| (named(&mapping.name), mapping.offset_of(addr));
                let (file, offset) = family.mapping(addr).map(place).unzip();
                let fault = Fault {
                    time_ns: record.time_ns,
                    thread,
                    comm,
                    process_start_ns: Some(family.process.start_ns),
                    process_comm: Some(Rc::clone(&family.comm)),
                    cgroup: None,
                    outcome: if major { Outcome::Major } else { Outcome::Minor },
                    addr: Some(addr),
                    ip,
                    access: None::<Access>,
                    latency_ns: None,
                    wait_ns: None,
                    part_ns: [None; PARTS],
                    cause: None,
                    file,
                    offset: offset.flatten(),
                    function: None,
                    stack_id,
                };
                self.groups.put(&fault, Counts::of(major));
                return Some(fault).filter(|_| self.verbose);
            }
            What::Forked { .. } | What::Lost(_) => {}
        }
        None
    }

    fn born(&mut self, record: &Record, parent: u32) {
        let (pid, tid) = (record.pid, record.tid);
        let Some(from) = self.families.get(&parent) else { return };
        let thread = Thread { pid, tid, start_ns: record.time_ns };
        let mut member = Member::new(thread, Rc::clone(&from.comm));
        if record.time_ns < self.began_ns {
            member.base = Task::thread(pid, tid).map_or(member.base, |task| task.faults);
        }
        if parent != pid {
            if !self.tree {
                return;
            }
            let mut family = Family::new(Process { pid, start_ns: record.time_ns }, Rc::clone(&from.comm));
            family.maps = from.maps.clone();
            if let Some(old) = self.families.insert(pid, family) {
                self.bury(&old);
            }
        }
        if let Some(family) = self.families.get_mut(&pid)
            && let Some(old) = family.members.insert(tid, member)
        {
            family.past += old.faults();
            self.missing.extend(old.missing().filter(|_| self.verbose));
        }
    }

    /// Reads the kernel's counters. What was recorded up to then is to be taken before they are settled.
    pub(super) fn read(&mut self) -> Counters {
        let mut threads = Vec::new();
        let mut left = Vec::new();
        for (&pid, family) in &mut self.families {
            let Some(task) = Task::process(pid).filter(|task| task.is_of(family.process)) else {
                left.push(pid);
                continue;
            };
            family.faults = task.faults.beyond(family.base);
            family.waited = task.waited.beyond(family.waited_base);
            for member in family.members.values() {
                let tid = member.thread.tid;
                // The first thread can be asked until its process has been waited for.
                if (!member.ended || tid == pid)
                    && !family.mixed
                    && let Some(task) = Task::thread(pid, tid)
                {
                    threads.push((member.thread, task.faults.beyond(member.base)));
                }
            }
        }
        Counters { threads, left }
    }

    /// What the counters of the threads have beyond what was recorded.
    pub(super) fn settle(&mut self, counters: Counters) {
        for (thread, faults) in counters.threads {
            let member = self.families.get_mut(&thread.pid).and_then(|f| f.members.get_mut(&thread.tid));
            if let Some(member) = member.filter(|member| member.thread == thread) {
                member.unseen = faults.beyond(member.seen);
            }
        }
        // A process that is gone has no record left that was not there before.
        for pid in counters.left {
            let Some(family) = self.families.get_mut(&pid) else { continue };
            family.members.values_mut().for_each(|member| member.ended = true);
        }
    }

    /// Puts everybody into the ledger, and lets go of those who have ended; `meanwhile` is done again and again. Until it is
    /// the `last` time, what is in no group is told when it can no longer get into one: what was shown stays true.
    pub(super) fn report(&mut self, ledger: &mut Ledger, last: bool, meanwhile: impl FnMut()) {
        let (by, verbose) = (self.by, self.verbose);
        let mut gone = Vec::new();
        for (&pid, family) in &mut self.families {
            let over = family.members.values().all(|member| member.ended) && Task::process(pid).is_none();
            if matches!(by, By::Process | By::Comm) {
                let all = family.of_members() + family.rest();
                let report = report(family, Thread { pid, tid: pid, start_ns: family.process.start_ns }, all);
                if over { ledger.ended(report) } else { ledger.live(report) }
            }
            let mut past = Vec::new();
            for (&tid, member) in &family.members {
                let ended = member.ended && (over || tid != pid);
                if by == By::Thread {
                    let mut report = report(family, member.thread, member.faults());
                    report.comm = Rc::clone(&member.comm);
                    if ended { ledger.ended(report) } else { ledger.live(report) }
                }
                if ended {
                    past.push(tid);
                }
            }
            for member in past.iter().filter_map(|tid| family.members.remove(tid)).collect::<Vec<_>>() {
                family.past += member.faults();
                self.missing.extend(member.missing().filter(|_| verbose));
            }
            if over {
                gone.push(pid);
            }
        }
        for pid in gone {
            if let Some(family) = self.families.remove(&pid) {
                self.bury(&family);
            }
        }
        self.report_groups(ledger, last, meanwhile);
    }

    /// A process that is no longer to be asked.
    fn bury(&mut self, family: &Family) {
        self.gone += family.of_members() + family.rest();
        self.gone_rest += family.rest();
        if self.verbose {
            self.missing.extend(family.members.values().filter_map(Member::missing));
        }
        if self.verbose && family.rest().all() > 0 {
            let Process { pid, start_ns } = family.process;
            let thread = Thread { pid, tid: pid, start_ns };
            self.missing.push(Missing { thread, comm: Rc::clone(&family.comm), faults: family.rest() });
        }
    }

    /// Faults that the parents of those who are gone were told of, and nobody here.
    fn unheard(&self) -> Counts {
        let waited = self.families.values().fold(Counts::default(), |sum, family| sum + family.waited);
        if self.tree { waited.beyond(self.gone) } else { Counts::default() }
    }

    fn report_groups(&mut self, ledger: &mut Ledger, last: bool, meanwhile: impl FnMut()) {
        let mut rest = self.unheard();
        if self.by == By::Thread {
            rest += self.families.values().fold(self.gone_rest, |sum, family| sum + family.rest());
        }
        if self.by.each_fault() {
            rest += self.families.values().fold(self.gone, |sum, f| sum + f.of_members() + f.rest());
            if !last {
                rest = self.settled.at(system::monotonic_ns(), rest);
            }
            // Rows wait for their names no longer than that.
            let until = if last { signals::end_by() } else { Instant::now() + ROWS_WAIT };
            rest = rest.beyond(self.groups.report(rest, ledger, until, last, meanwhile));
        }
        ledger.group(id(0), group(Key::Rest, rest, None));
    }

    /// At the end: the faults that have no line, but for those that were recorded and lost.
    pub(super) fn missing(&mut self, time_ns: u64, mut lost: u64, mut show: impl FnMut(&Fault)) {
        let mut missing = std::mem::take(&mut self.missing);
        for family in self.families.values() {
            let Process { pid, start_ns } = family.process;
            missing.extend(family.members.values().filter_map(Member::missing));
            let (thread, comm) = (Thread { pid, tid: pid, start_ns }, Rc::clone(&family.comm));
            missing.push(Missing { thread, comm, faults: family.rest() });
        }
        let thread = Thread { pid: 0, tid: 0, start_ns: 0 };
        missing.push(Missing { thread, comm: "(not attributed)".into(), faults: self.unheard() });
        for Missing { thread, comm, faults } in missing {
            let kinds = [(Outcome::Major, faults.major), (Outcome::Minor, faults.minor)];
            let of = self.families.get(&thread.pid).map(|family| (family.process, &family.comm));
            for (outcome, many) in kinds {
                let left_out = many.min(lost);
                lost -= left_out;
                let fault = Fault {
                    process_start_ns: of.map(|(process, _)| process.start_ns),
                    process_comm: of.map(|(_, comm)| Rc::clone(comm)),
                    ..Fault::new(time_ns, thread, Rc::clone(&comm), outcome)
                };
                (left_out..many).for_each(|_| show(&fault));
            }
        }
    }

    /// Mappings may be read anew.
    pub(super) fn age(&mut self) {
        self.families.values_mut().for_each(|family| family.maps_are_fresh = false);
    }
}

/// What has this name.
fn named(path: &Rc<str>) -> Rc<File> {
    Rc::new(File { path: Rc::clone(path), device: None, inode: None, generation: 0 })
}

#[cfg(test)]
mod tests {
    use trapline_model::Value;
    use trapline_model::faults::Timing;

    use super::*;

    fn counts(minor: u64) -> Counts {
        Counts { major: 0, minor }
    }

    #[test]
    fn what_was_counted_is_settled_after_a_while() {
        let mut settled = Settled::default();
        assert_eq!(settled.at(1, counts(5)), counts(0));
        assert_eq!(settled.at(LATE_NS, counts(7)), counts(0));
        assert_eq!(settled.at(LATE_NS + 1, counts(9)), counts(5));
        assert_eq!(settled.at(3 * LATE_NS, counts(9)), counts(9));
    }

    /// A fault that the kernel has counted, and whose record comes after the rows of an interval.
    #[test]
    fn a_late_record_is_not_told_twice() {
        let own = std::process::id();
        let mut census = Census::new(By::File, Grouping::Files(HashMap::new()), true, false);
        census.adopt(own).unwrap();
        let mut ledger = Ledger::new(By::File, Timing::None);
        let mut before = 0;
        let mut told = |census: &mut Census, last: bool| -> u64 {
            census.report(&mut ledger, last, || {});
            let rows = ledger.block(1, true).rows;
            let minor = rows.iter().map(|row| match row.get("minor") {
                Some(&Value::U64(minor)) => minor,
                other => panic!("{other:?}"),
            });
            let all = minor.sum::<u64>();
            all - std::mem::replace(&mut before, all)
        };
        census.families.get_mut(&own).unwrap().faults = counts(1);
        let early = told(&mut census, false);
        let what = What::Faulted { event: 0, addr: 8, ip: None, calls: None, stack: None };
        census.take(Record { time_ns: 1, pid: own, tid: own, what }, |_| false);
        assert_eq!(early + told(&mut census, false) + told(&mut census, true), 1);
        // What has no record is told at the end.
        census.families.get_mut(&own).unwrap().faults = counts(3);
        assert_eq!((told(&mut census, false), told(&mut census, true)), (0, 2));
    }
}
