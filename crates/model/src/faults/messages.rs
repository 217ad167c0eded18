//! Messages at each step of a process, made of single faults.

use std::collections::HashMap;
use std::rc::Rc;

use super::{Fault, Most, Outcome, Process, Stalls, Step, StepOf};
use crate::item::Event;

/// So many processes are remembered. Beyond that the half is forgotten that has not faulted for the longest time.
const REMEMBERED: usize = 1 << 17;

/// What messages take into account of a fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted<'a> {
    /// The machine, where there are several.
    pub(super) host: Option<&'a Rc<str>>,
    pub(super) time_ns: u64,
    pub(super) pid: u64,
    pub(super) tid: Option<u64>,
    pub(super) start_ns: Option<u64>,
    pub(super) process_start_ns: Option<u64>,
    pub(super) comm: Option<&'a Rc<str>>,
    pub(super) process_comm: Option<&'a Rc<str>>,
    pub(super) is_major: bool,
    pub(super) latency_ns: Option<u64>,
    pub(super) wait_ns: Option<u64>,
    pub(super) file: Option<&'a Rc<str>>,
}

/// The messages, and what each process has come to.
#[derive(Debug)]
pub struct Messages {
    of: StepOf,
    most: bool,
    /// By its machine and number.
    processes: HashMap<(Option<Rc<str>>, u64), Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    /// When its first thread started: an id may be used again.
    start_ns: Option<u64>,
    comm: Option<Rc<str>>,
    reached: u64,
    /// The rule of a window.
    stalls: Option<Stalls>,
    /// What each file had since the last message.
    files: HashMap<Rc<str>, u64>,
    /// When it last faulted.
    last_ns: u64,
}

impl Messages {
    /// At each of these steps; `most` adds the file that most of the faults were on.
    #[must_use]
    pub fn new(of: StepOf, most: bool) -> Self {
        Self { of, most, processes: HashMap::new() }
    }

    /// The messages that come with this fault.
    pub fn fault(&mut self, fault: &Fault) -> Vec<Event> {
        if fault.outcome == Outcome::Failed {
            return vec![];
        }
        self.count(&Counted {
            host: None,
            time_ns: fault.time_ns,
            pid: fault.thread.pid.into(),
            tid: Some(fault.thread.tid.into()),
            start_ns: Some(fault.thread.start_ns),
            process_start_ns: fault.process_start_ns,
            comm: Some(&fault.comm),
            process_comm: fault.process_comm.as_ref(),
            is_major: fault.outcome == Outcome::Major,
            latency_ns: fault.latency_ns,
            wait_ns: fault.wait_ns,
            file: fault.file.as_ref().map(|file| &file.path),
        })
    }

    /// The same of one that the kernel counted.
    pub(super) fn count(&mut self, fault: &Counted<'_>) -> Vec<Event> {
        let wait_ns = fault.wait_ns.unwrap_or(0);
        let (step, weight) = match self.of {
            StepOf::Faults(step) => (step, 1),
            StepOf::Major(step) => (step, u64::from(fault.is_major)),
            StepOf::Waits(step) => (step, u64::from(wait_ns > 0)),
            StepOf::Stall(step) => (step, fault.latency_ns.unwrap_or(0)),
            StepOf::Within(_) => (1, wait_ns),
        };
        let new = || Tally {
            stalls: if let StepOf::Within(rule) = self.of { Some(Stalls::new(rule)) } else { None },
            ..Tally::default()
        };
        if self.processes.len() >= REMEMBERED {
            forget(&mut self.processes);
        }
        let tally = self.processes.entry((fault.host.cloned(), fault.pid)).or_insert_with(new);
        let is_first = fault.tid == Some(fault.pid);
        if let Some(start_ns) = fault.process_start_ns.or(fault.start_ns.filter(|_| is_first)) {
            if tally.start_ns.is_some_and(|before| before != start_ns) {
                *tally = new();
            }
            tally.start_ns = Some(start_ns);
        }
        tally.last_ns = fault.time_ns;
        if let Some(comm) = fault.process_comm.or(fault.comm)
            && (is_first || fault.process_comm.is_some() || tally.comm.is_none())
            && tally.comm.as_ref().is_none_or(|before| !Rc::ptr_eq(before, comm))
        {
            tally.comm = Some(Rc::clone(comm));
        }
        if weight == 0 {
            return vec![];
        }
        if let Some(file) = fault.file.filter(|_| self.most) {
            *tally.files.entry(Rc::clone(file)).or_default() += weight;
        }
        let process = Process { pid: fault.pid as u32, start_ns: tally.start_ns.unwrap_or(0) };
        let passed = if let Some(stalls) = &mut tally.stalls {
            stalls.add(process, fault.time_ns, weight).map(|slept_ns| (slept_ns, slept_ns))
        } else {
            let before = tally.reached / step;
            tally.reached += weight;
            Some((before + 1, tally.reached / step)).filter(|(first, last)| first <= last)
        };
        let Some((first, last)) = passed else { return vec![] };
        let files = std::mem::take(&mut tally.files);
        // Of several, always the same one.
        let file = files.into_iter().max_by(|(a, x), (b, y)| x.cmp(y).then_with(|| b.cmp(a)));
        let comm = tally.comm.as_deref().unwrap_or_default().to_owned();
        let most = self.most.then(|| Most { file: file.map(|(file, _)| file), code: None });
        Step { time_ns: fault.time_ns, process, comm, first, last, most }.events(self.of).collect()
    }
}

/// Leaves those that faulted last.
fn forget<K>(processes: &mut HashMap<K, Tally>) {
    let mut times: Vec<u64> = processes.values().map(|tally| tally.last_ns).collect();
    let half = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(half);
    let median = *median;
    processes.retain(|_, tally| tally.last_ns > median);
}

#[cfg(test)]
mod tests {
    use super::super::Thread;
    use super::*;

    fn fault(pid: u32, time_ns: u64) -> Fault {
        Fault::new(time_ns, Thread { pid, tid: pid, start_ns: 1 }, "x".into(), Outcome::Minor)
    }

    /// A run may see more processes than there is memory for.
    #[test]
    fn processes_that_have_not_faulted_for_long_are_forgotten() {
        let mut messages = Messages::new(StepOf::Faults(2), false);
        for n in 0..REMEMBERED as u32 {
            assert!(messages.fault(&fault(n, n.into())).is_empty());
        }
        assert_eq!(messages.processes.len(), REMEMBERED);
        // The newest has its count still, the oldest begins anew.
        assert_eq!(messages.fault(&fault(REMEMBERED as u32 - 1, 1 << 20)).len(), 1);
        assert!(messages.processes.len() < REMEMBERED / 2 + 2);
        assert!(messages.fault(&fault(0, 1 << 20)).is_empty());
    }

    #[test]
    fn faults_that_the_kernel_does_not_count_are_in_no_message() {
        let mut messages = Messages::new(StepOf::Faults(1), false);
        assert!(messages.fault(&Fault { outcome: Outcome::Failed, ..fault(7, 1) }).is_empty());
        let [event] = &messages.fault(&fault(7, 2))[..] else { panic!("one message") };
        assert_eq!((event.time_ns, event.record.number("count")), (2, Some(1)));
    }
}
