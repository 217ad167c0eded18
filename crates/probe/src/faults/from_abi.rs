//! What the kernel half reports, in the words of the model.

use std::collections::HashMap;
use std::rc::Rc;

use trapline_model::faults::{
    Access, Also, Cause, Facts, Fault, File, Memory, Outcome, PARTS, Page, Process, Report, Stats, Step,
    Thread,
};
use trapline_model::{Extremes, Hist};
use trapline_symbols::KERNEL;

use crate::abi::{self, FaultsEvent, FaultsStats, FaultsStep, FaultsThread};
use crate::cgroup::Paths;
use crate::system;

/// A thread's figures in the words of the model; `epoch` is the interval that is about to be shown.
pub(super) fn report(row: &FaultsThread, epoch: u64, cgroups: &mut Paths) -> Report {
    let (stats, extremes, recent) = figures(&row.stats, epoch);
    let stats = Stats { forks: Some(row.forks.into()), ..stats };
    Report {
        thread: Thread { pid: row.pid, tid: row.tid, start_ns: row.start_ns },
        comm: abi::comm(&row.comm).into(),
        process: Process { pid: row.pid, start_ns: row.process_start_ns },
        process_comm: abi::comm(&row.process_comm).into(),
        cgroup: cgroups.path(row.cgroup, row.pid),
        forked_by: Some(row.forked_by).filter(|&pid| pid != 0),
        stats,
        extremes,
        recent,
    }
}

/// Figures in the words of the model: since the trace began, their extremes, and those of the interval `epoch`.
pub(super) fn figures(of: &FaultsStats, epoch: u64) -> (Stats, Extremes, Extremes) {
    let stats = Stats {
        major: of.major,
        minor: of.minor,
        timed_major: of.timed_major,
        timed_minor: of.timed_minor,
        major_ns: of.major_ns,
        minor_ns: of.minor_ns,
        waits: of.waits,
        wait_ns: of.wait_ns,
        slept_minor: of.slept_minor,
        slept_minor_ns: of.slept_minor_ns,
        part_ns: of.part_ns,
        hist: Hist::new(&of.hist),
        major_hist: Hist::of_octaves(&of.major_hist, of.major_over),
        failed: 0,
        forks: None,
    };
    (stats, abi::extremes(&of.all, 0), abi::extremes(&of.recent, epoch))
}

/// Names that many faults have.
#[derive(Debug, Default)]
pub(super) struct Names {
    comms: HashMap<[u8; abi::COMM_LEN], Rc<str>>,
    /// Those that the last fault had: that of its thread, and that of its process.
    last: [Option<([u8; abi::COMM_LEN], Rc<str>)>; 2],
    cgroups: Paths,
}

/// Names of threads that are held: programs can make them without end.
const NAMES: usize = 64 << 10;

impl Names {
    fn comm(&mut self, which: usize, bytes: &[u8; abi::COMM_LEN]) -> Rc<str> {
        if let Some((_, name)) = self.last[which].as_ref().filter(|(last, _)| last == bytes) {
            return Rc::clone(name);
        }
        if self.comms.len() >= NAMES {
            self.comms.clear();
        }
        let name = self.comms.entry(*bytes).or_insert_with(|| abi::comm(bytes).into());
        self.last[which] = Some((*bytes, Rc::clone(name)));
        Rc::clone(name)
    }
}

/// A fault in the words of the model; of its time, those parts are seen.
pub(super) fn fault(
    event: &FaultsEvent,
    seen: Option<[bool; PARTS]>,
    file: Option<Rc<File>>,
    names: &mut Names,
) -> Fault {
    let known = |value: u64| Some(value).filter(|&v| v != abi::NONE);
    Fault {
        time_ns: event.time_ns,
        thread: Thread { pid: event.pid, tid: event.tid, start_ns: event.start_ns },
        comm: names.comm(0, &event.comm),
        process_start_ns: Some(event.process_start_ns),
        process_comm: Some(names.comm(1, &event.process_comm)),
        cgroup: (event.cgroup != 0).then(|| names.cgroups.path(event.cgroup, event.pid)),
        outcome: match event.outcome {
            abi::MINOR => Outcome::Minor,
            abi::FAILED => Outcome::Failed,
            _ => Outcome::Major,
        },
        addr: known(event.addr),
        ip: known(event.ip).filter(|&ip| ip < KERNEL || system::shows_kernel_addresses()),
        access: match event.rw {
            abi::READ => Some(Access::Read),
            abi::WRITE => Some(Access::Write),
            abi::EXEC => Some(Access::Execute),
            _ => None,
        },
        latency_ns: known(event.latency_ns),
        wait_ns: known(event.latency_ns).map(|_| event.wait_ns),
        part_ns: std::array::from_fn(|n| {
            known(event.latency_ns).filter(|_| seen.unwrap_or_default()[n]).map(|_| event.part_ns[n])
        }),
        cause: (event.facts != 0).then(|| Cause::of(&facts(event.facts))),
        file,
        offset: known(event.offset),
        function: None,
        stack_id: (event.stack != 0).then_some(event.stack),
    }
}

/// A process's step in the words of the model.
pub(super) fn step(step: &FaultsStep) -> Step {
    Step {
        time_ns: step.time_ns,
        process: Process { pid: step.pid, start_ns: step.start_ns },
        comm: abi::comm(&step.comm),
        first: step.first,
        last: step.last,
        most: None,
    }
}

/// What is known of a fault, out of the word that the kernel half packs it into: FAULTS_FACTS() undone. See
/// `bpf/faults_cause.bpf.h`.
pub(super) fn facts(word: u32) -> Facts {
    let memory = match word & 0xff {
        abi::MEMORY_ANON => Memory::Anonymous,
        abi::MEMORY_FILE => Memory::File,
        abi::MEMORY_SHMEM => Memory::Shmem,
        abi::MEMORY_HUGETLB => Memory::Hugetlb,
        abi::MEMORY_DEVICE => Memory::Device,
        _ => Memory::Unknown,
    };
    let page = match word >> 8 & 0xff {
        abi::BEFORE_ABSENT => Page::Absent,
        abi::BEFORE_SWAPPED => Page::Swapped,
        abi::BEFORE_MOVING => Page::Moving,
        abi::BEFORE_HIDDEN => Page::Hidden,
        abi::BEFORE_READ_ONLY => Page::ReadOnly,
        abi::BEFORE_THERE => Page::There,
        _ => Page::Unknown,
    };
    Facts { memory, page, also: Also(word >> 16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_unpacked() {
        let also = Also::WRITE.0 | Also::SIGNAL.0;
        let word = abi::MEMORY_SHMEM | abi::BEFORE_READ_ONLY << 8 | also << 16;
        assert_eq!(facts(word), Facts { memory: Memory::Shmem, page: Page::ReadOnly, also: Also(also) });
    }
}
