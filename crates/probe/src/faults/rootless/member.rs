//! A thread and a process that are watched without privilege.

use std::collections::HashMap;
use std::rc::Rc;

use trapline_model::Extremes;
use trapline_model::faults::{Process, Report, Thread};
use trapline_symbols::maps::{Mapping, Maps};
use trapline_symbols::task::Counts;

/// A thread.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) thread: Thread,
    pub(super) comm: Rc<str>,
    /// What it had before it was watched.
    pub(super) base: Counts,
    /// Recorded.
    pub(super) seen: Counts,
    /// What the kernel's counter had beyond those when it was last read.
    pub(super) unseen: Counts,
    pub(super) ended: bool,
}

impl Member {
    pub(super) fn faults(&self) -> Counts {
        self.seen + self.unseen
    }

    pub(super) fn missing(&self) -> Option<Missing> {
        let missing = Missing { thread: self.thread, comm: Rc::clone(&self.comm), faults: self.unseen };
        (self.unseen.all() > 0).then_some(missing)
    }
}

/// A process.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) process: Process,
    pub(super) comm: Rc<str>,
    pub(super) base: Counts,
    pub(super) waited_base: Counts,
    /// By the kernel's counters, when they were last read.
    pub(super) faults: Counts,
    pub(super) waited: Counts,
    /// Another thread than the first has called exec, and goes on under the first one's id: what the kernel says of
    /// that thread is no longer of one.
    pub(super) mixed: bool,
    pub(super) maps: Maps,
    /// They were read whole since records were last taken.
    pub(super) maps_are_fresh: bool,
    pub(super) members: HashMap<u32, Member>,
    /// Faults of the threads that are no longer in `members`.
    pub(super) past: Counts,
}

impl Family {
    pub(super) fn of_members(&self) -> Counts {
        self.members.values().fold(self.past, |sum, member| sum + member.faults())
    }

    /// Adds what the process has mapped now.
    pub(super) fn read_maps(&mut self) {
        let maps = Maps::read(self.process.pid).unwrap_or_default();
        maps.iter().for_each(|mapping| self.maps.insert(mapping.clone()));
    }

    /// What is mapped at an address. What the kernel does not record (a stack that grew, memory that was moved) is looked up in
    /// the living process.
    pub(super) fn mapping(&mut self, addr: u64) -> Option<&Mapping> {
        if self.maps.find(addr).is_none() && !std::mem::replace(&mut self.maps_are_fresh, true) {
            self.read_maps();
        }
        self.maps.find(addr)
    }

    /// What no thread has.
    pub(super) fn rest(&self) -> Counts {
        self.faults.beyond(self.of_members())
    }
}

/// A fault that has no line.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) thread: Thread,
    pub(super) comm: Rc<str>,
    pub(super) faults: Counts,
}

impl Member {
    pub(super) fn new(thread: Thread, comm: Rc<str>) -> Self {
        let none = Counts::default();
        Self { thread, comm, base: none, seen: none, unseen: none, ended: false }
    }
}

impl Family {
    pub(super) fn new(process: Process, comm: Rc<str>) -> Self {
        let none = Counts::default();
        Self {
            process,
            comm,
            base: none,
            waited_base: none,
            faults: none,
            waited: none,
            mixed: false,
            maps: Maps::default(),
            maps_are_fresh: false,
            members: HashMap::new(),
            past: none,
        }
    }
}

pub(super) fn report(family: &Family, thread: Thread, faults: Counts) -> Report {
    Report {
        thread,
        comm: Rc::clone(&family.comm),
        process: family.process,
        process_comm: Rc::clone(&family.comm),
        cgroup: "".into(),
        forked_by: None,
        stats: faults.stats(),
        extremes: Extremes::default(),
        recent: Extremes::default(),
    }
}
