//! The VMM's stack at slow exits. The kernel half copies it; here it is walked by unwind tables, and symbolized.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytemuck::pod_read_unaligned;
use trapline_model::faults::Process;
use trapline_model::kvm::{Losses, Moment, Slow, VmmStack};
use trapline_symbols::unwind::{Copy, Held};
use trapline_symbols::{Image, Scope};

use crate::abi::{self, KvmEvent, KvmStacked};
use crate::stacks::{Chain, Incomplete, Naming, without_names};

/// Memory for stacks that wait to be walked, bytes: of those that come when it is full only the innermost call is kept.
const MOST: usize = 24 << 20;

/// So many exits wait for their stacks, at most: those before them go as they are.
const WAITING: usize = 1 << 14;

/// How long an exit waits for tables and symbols: those of a large program take seconds.
const WAIT: Duration = Duration::from_secs(10);

/// The memory for stacks and unwind tables, MiB.
pub(super) const MEGABYTES: u64 = Held::MEGABYTES + ((MOST + abi::KVM_STACKS * abi::KVM_STACK) as u64 >> 20);

/// What the kernel half sends of a slow exit.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) event: KvmEvent,
    /// The stack, and how long the thread was off its processor there.
    stack: Option<(Copy, u64)>,
}

impl From<KvmEvent> for Sent {
    fn from(event: KvmEvent) -> Self {
        Self { event, stack: None }
    }
}

impl Sent {
    /// From a record of the ring: their lengths tell them apart.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let Some((head, stack)) = bytes.split_at_checked(size_of::<KvmStacked>()) else {
            let event = bytes.first_chunk::<{ size_of::<KvmEvent>() }>()?;
            return Some(Self::from(pod_read_unaligned::<KvmEvent>(event)));
        };
        let KvmStacked { event, away_ns, ip, sp, bp } = pod_read_unaligned(head);
        Some(Self { event, stack: Some((Copy { ip, sp, bp, stack: stack.to_vec() }, away_ns)) })
    }
}

/// An exit whose turn has not come yet.
#[derive(Debug)]
struct Waiting {
    slow: Slow,
    /// Nothing if KVM handled it itself.
    moment: Option<Option<Moment>>,
    stack: Option<(Copy, u64)>,
    came: Instant,
}

/// Slow exits on their way to their stacks, in order.
#[derive(Debug)]
pub(super) struct Stacks {
    naming: Naming,
    tables: Held,
    /// What each VMM is called.
    comms: HashMap<Process, Rc<str>>,
    waiting: VecDeque<Waiting>,
    /// Bytes of stacks that wait.
    held: usize,
    incomplete: Incomplete,
    /// Nothing can be done before time has passed.
    is_stuck: bool,
}

impl Stacks {
    pub(super) fn new() -> Self {
        Self {
            // A VMM is looked at when it is met, and lives on.
            naming: Naming::told(Scope::These(HashSet::new()), true),
            tables: Held::default(),
            comms: HashMap::new(),
            waiting: VecDeque::new(),
            held: 0,
            incomplete: Incomplete::default(),
            is_stuck: false,
        }
    }

    /// Learns what a process has mapped, if it is not known yet: it may end before it is asked for.
    pub(super) fn meet(&mut self, process: Process) {
        let symbols = &mut self.naming.symbols;
        self.comms.entry(process).or_insert_with(|| {
            symbols.know(Image::from(process));
            let comm = fs::read(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
            match String::from_utf8_lossy(&comm).trim_end_matches('\n') {
                "" => format!("[{}]", process.pid).into(),
                comm => comm.into(),
            }
        });
    }

    /// Forgets all but those processes and those whose exits wait.
    pub(super) fn keep(&mut self, of: impl Fn(Process) -> bool) {
        let waits = |process| self.waiting.iter().any(|waiting| process_of(&waiting.slow) == process);
        let symbols = &mut self.naming.symbols;
        self.comms.retain(|&process, _| {
            let stays = of(process) || waits(process);
            if !stays {
                symbols.forget(Image::from(process));
            }
            stays
        });
    }

    /// Puts an exit behind those that wait.
    pub(super) fn put(&mut self, slow: Slow, Sent { event, mut stack }: Sent) {
        let moment = match event.stack {
            abi::KVM_STACK_NONE => None,
            abi::KVM_STACK_RUN => Some(Some(Moment::Run)),
            abi::KVM_STACK_ASLEEP => Some(Some(Moment::Asleep)),
            abi::KVM_STACK_PREEMPTED => Some(Some(Moment::Preempted)),
            _ => Some(None),
        };
        self.meet(process_of(&slow));
        if let Some((copy, _)) = &mut stack {
            if self.held + copy.stack.len() > MOST {
                copy.stack = vec![];
            }
            self.held += copy.stack.len();
        }
        self.waiting.push_back(Waiting { slow, moment, stack, came: Instant::now() });
    }

    /// Whether [`Stacks::take`] would find something to do at once.
    pub(super) fn have_work(&self) -> bool {
        self.tables.may_go_on(&self.naming.symbols) || !self.waiting.is_empty() && !self.is_stuck
    }

    /// Gives the exits, in order, up to the first whose stack is not known at a moment; all of them if there is no later one.
    pub(super) fn take(&mut self, until: Instant, is_last: bool) -> Vec<Slow> {
        self.tables.try_again();
        self.tables.load(&mut self.naming.symbols, until);
        self.naming.wait_until(until);
        self.is_stuck = false;
        let mut ready = vec![];
        while let Some(mut waiting) = self.waiting.pop_front() {
            let is_last = is_last || self.waiting.len() >= WAITING || waiting.came.elapsed() > WAIT;
            if self.find(&mut waiting, is_last) {
                self.held -= waiting.stack.map_or(0, |(copy, _)| copy.stack.len());
                ready.push(waiting.slow);
                continue;
            }
            self.waiting.push_front(waiting);
            self.is_stuck = !self.tables.may_go_on(&self.naming.symbols) && self.naming.wait().is_none();
            break;
        }
        ready
    }

    /// Finds the stack of an exit. Tells whether it is known: it is if this is the last time.
    fn find(&mut self, waiting: &mut Waiting, is_last: bool) -> bool {
        let Some(moment) = waiting.moment else { return true };
        let process = process_of(&waiting.slow);
        let comm = self.comms.get(&process).cloned().unwrap_or_default();
        let (Some(at), Some((copy, away_ns))) = (moment, &waiting.stack) else {
            let calls = without_names(&comm, "[lost]", "[the BPF map of stacks was full]");
            waiting.slow.stack = Some(VmmStack { calls: Rc::new(calls), at: None, away_ns: None });
            return true;
        };
        let (naming, image) = (&mut self.naming, Image::from(process));
        let walked = self.tables.walk(copy, image, naming.deepest, is_last, &mut naming.symbols);
        let Some((mut calls, ends)) = walked else { return false };
        if calls.is_empty() {
            calls.push(copy.ip);
        }
        let named = naming.name(image, &comm, &Chain::taken(&calls, ends.into()), &Chain::None);
        if named.late && !is_last {
            return false;
        }
        self.incomplete.add(&named, 1);
        let away_ns = Some(*away_ns).filter(|_| at != Moment::Run);
        waiting.slow.stack = Some(VmmStack { calls: named.stack, at: Some(at), away_ns });
        true
    }

    /// How many exits have a stack that is not whole.
    pub(super) fn losses(&self, lost: u64, losses: &mut Losses) {
        losses.truncated_stacks = Some(self.incomplete.deep);
        losses.unsymbolized_stacks = Some(self.incomplete.unnamed);
        losses.lost_stacks = Some(lost);
        losses.partial_stacks = Some(self.incomplete.partial);
        losses.late_stacks = Some(self.incomplete.late);
    }

    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

fn process_of(slow: &Slow) -> Process {
    Process { pid: slow.vcpu.pid, start_ns: slow.vcpu.process_start_ns }
}

#[cfg(test)]
mod tests {
    use bytemuck::{Zeroable, bytes_of};
    use trapline_model::kvm::{Exit, Isa, Level, Vcpu};

    use super::*;

    fn event(stack: u32) -> KvmEvent {
        KvmEvent { latency_ns: 7, stack, ..KvmEvent::zeroed() }
    }

    /// Of a process that there never is.
    fn slow(time_ns: u64) -> Slow {
        let vcpu = Vcpu { pid: u32::MAX >> 2, process_start_ns: 5, vm: None, tid: 1, number: 0 };
        let exit = Exit { isa: Isa::Svm, code: 0x7b };
        Slow { time_ns, vcpu, exit, level: Level::L1, latency_ns: 7, rip: 0, stack: None }
    }

    #[test]
    fn what_the_kernel_half_sends_is_known_by_its_length() {
        let sent = Sent::parse(bytes_of(&event(abi::KVM_STACK_LOST))).unwrap();
        assert_eq!((sent.event.latency_ns, sent.event.stack, sent.stack), (7, abi::KVM_STACK_LOST, None));
        let head = KvmStacked { event: event(abi::KVM_STACK_ASLEEP), away_ns: 4, ip: 1, sp: 2, bp: 3 };
        let sent = Sent::parse(&[bytes_of(&head), &[9; 16]].concat()).unwrap();
        assert_eq!(sent.event.stack, abi::KVM_STACK_ASLEEP);
        assert_eq!(sent.stack, Some((Copy { ip: 1, sp: 2, bp: 3, stack: vec![9; 16] }, 4)));
        assert!(Sent::parse(&[0; 8]).is_none());
    }

    #[test]
    fn exits_keep_their_order_and_a_stack_that_is_missing_has_a_reason() {
        let mut stacks = Stacks::new();
        let copy = || (Copy { ip: 8, sp: 16, bp: 0, stack: vec![0; 64] }, 3);
        stacks.put(slow(1), Sent { event: event(abi::KVM_STACK_ASLEEP), stack: Some(copy()) });
        stacks.put(slow(2), event(abi::KVM_STACK_NONE).into());
        stacks.put(slow(3), event(abi::KVM_STACK_LOST).into());
        stacks.put(slow(4), Sent { event: event(abi::KVM_STACK_RUN), stack: Some(copy()) });
        assert_eq!(stacks.held, 128);
        let taken = stacks.take(Instant::now(), true);
        let of = |slow: Slow| slow.stack.map(|s| (s.calls.frames.clone(), s.at, s.away_ns));
        let taken: Vec<_> = taken.into_iter().map(|slow| (slow.time_ns, of(slow))).collect();
        let name = format!("[{}]", u32::MAX >> 2);
        // Where nothing of a process is known, where it was is.
        let unknown = |at, away_ns| Some((format!("{name};[corrupt];0x8"), Some(at), away_ns));
        let lost = Some((format!("{name};[lost]"), None, None));
        let expected = [unknown(Moment::Asleep, Some(3)), None, lost, unknown(Moment::Run, None)];
        assert_eq!(taken, (1..).zip(expected).collect::<Vec<_>>());
        let mut losses = Losses::default();
        stacks.losses(1, &mut losses);
        let counted =
            [losses.partial_stacks, losses.unsymbolized_stacks, losses.lost_stacks, losses.late_stacks];
        assert_eq!(counted.map(Option::unwrap), [2, 2, 1, 0]);
        assert_eq!((stacks.held, stacks.waiting.len()), (0, 0));
        stacks.keep(|_| false);
        assert!(stacks.comms.is_empty());
    }

    #[test]
    fn stacks_take_no_more_memory_than_there_is_for_them() {
        let mut stacks = Stacks::new();
        for n in 0..5 {
            let copy = Copy { ip: 8, sp: 16, bp: 0, stack: vec![0; MOST / 4] };
            stacks.put(slow(n), Sent { event: event(abi::KVM_STACK_ASLEEP), stack: Some((copy, 3)) });
        }
        assert_eq!(stacks.held, MOST);
        assert_eq!(stacks.take(Instant::now(), true).len(), 5);
        assert_eq!(stacks.held, 0);
    }
}
