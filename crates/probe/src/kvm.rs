//! VM exits: attaches a variant of `bpf/kvm.bpf.c` and reads it.

mod format;
mod from_abi;
mod machine;
#[cfg(test)]
mod prog_run;
mod recipe;
mod stacks;

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytemuck::{Pod, bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags};
use trapline_model::faults::Process;
use trapline_model::kvm::{
    EVENT, EVENT_WITH_STACK, Exit, Isa, LOSSES, Layout, Ledger, Level, Losses, Names, Report, SETTINGS,
    Settings, Slow, Vcpu,
};
use trapline_model::{Block, Event, Header};

use crate::abi::maps::kvm as maps;
use crate::abi::{self, KvmEvent, KvmExits, KvmKey, KvmLosses, KvmThread, TrapControl};
use crate::elements::Elements;
use crate::filter::Filter;
use crate::launch::Launch;
use crate::ring::Ring;
use crate::run::{Counted, Tool};
use crate::signals;
use crate::system;
use crate::variant::{self, Attached, OpenError};

use self::from_abi::{counts, stats};
use self::stacks::{Sent, Stacks};
pub(crate) use machine::{check, fires_none};
pub use machine::{exits_by_kvm, isa, vms, warnings};
pub(crate) use recipe::KvmRecipe;
#[cfg(test)]
pub(crate) use recipe::{OBJECTS, all as recipes};

/// The level of an exit is told right after it: how long that is waited for when the exits are detached.
const LEVEL_SETTLES: Duration = Duration::from_millis(2);

/// How long stacks may be looked for before events are read again.
const STACKS_TAKE: Duration = Duration::from_millis(20);

/// The loss that says that guests ran whose exits no tracepoint showed.
pub const UNSEEN_RETURNS: &str = "unseen_returns";
/// Where only a VM of some name is meant: exits of the others.
pub const OTHER_VM_EXITS: &str = "other_vm_exits";

/// Which reasons are counted.
#[derive(Debug, Clone, Default)]
pub enum Choice {
    /// All.
    #[default]
    All,
    /// Only these.
    Only(Vec<Exit>),
    /// All but these.
    Except(Vec<Exit>),
}

/// What to trace, and how.
#[derive(Debug)]
pub struct Options {
    /// Whose exits.
    pub filter: Filter,
    /// Only those of VMs of this name.
    pub vm: Option<String>,
    /// Only those of vCPUs of this number.
    pub vcpu: Option<u32>,
    /// Only those of this level.
    pub level: Option<Level>,
    /// Which exits.
    pub choice: Choice,
    /// What rows are about.
    pub layout: Layout,
    /// An event for each exit that takes at least so long.
    pub slower: Option<Duration>,
    /// With the VMM's stack.
    pub stacks: bool,
    /// Only this variant, not the first that works.
    pub variant: Option<String>,
    /// Size of the ring that holds events until they are read, bytes: a power of two of pages.
    pub ring_bytes: u32,
    /// For rows and names, bytes: beyond it, rows of what has ended are folded into one.
    pub memory_bytes: u64,
}

/// The tool, attached.
#[derive(Debug)]
pub struct Kvm {
    attached: Attached,
    exits: Elements,
    threads: Elements,
    ring: Option<Ring<Sent>>,
    stacks: Option<Stacks>,
    ledger: Ledger,
    names: Names,
    vm_names: machine::VmNames,
    vm: Option<String>,
    /// Exits of other VMs than that: of threads that ended, and of the others.
    of_others: [u64; 2],
    level: Option<Level>,
    /// By serial number.
    vcpu_threads: HashMap<u32, KvmThread>,
    layout: Layout,
    filter: Option<String>,
    timed: bool,
    detached: bool,
    /// How often programs were not run, once it is known.
    missed: Option<u64>,
    epoch: u64,
    memory_bytes: u64,
    /// Returns to the VMM before exits were looked at.
    unseen_before: u64,
    slower_ns: Option<u64>,
}

/// The names of exits on this machine: the tables, and what its kernel adds.
#[must_use]
pub fn names() -> Names {
    Names::with_format(&format::read("kvm_exit").unwrap_or_default())
}

impl Kvm {
    /// Attaches the first variant that works, or the one asked for, and counts from then on.
    ///
    /// # Errors
    /// [`OpenError`] when there is no KVM, no variant can be attached or the filter names what does not exist.
    pub fn open(options: &Options, launch: Option<&Launch>) -> Result<Self, OpenError> {
        let recipe = KvmRecipe::of(options, options.filter.resolve()?);
        if system::has_bpf_privilege() {
            check().map_err(OpenError::Unavailable)?;
        }
        let attached = variant::open(&recipe, options.variant.as_deref())?;
        // A command may be the VM: it has yet to start.
        if let (Some(vm), None) = (&options.vm, launch) {
            machine::ensure_vm(vm)?;
        }
        options.filter.fill(&attached, launch)?;
        Ok(Self::start(attached, options)?)
    }

    fn start(attached: Attached, options: &Options) -> Result<Self> {
        if let Choice::Only(exits) | Choice::Except(exits) = &options.choice {
            let reasons = attached.handle(maps::REASONS)?;
            for exit in exits.iter().filter_map(in_kernel) {
                reasons
                    .update(&exit.to_ne_bytes(), &[1], MapFlags::ANY)
                    .context("cannot set the filter of exits")?;
            }
        }
        let ring = options.slower.map(|_| {
            let map = attached.handle(maps::EVENTS)?;
            if options.stacks {
                return Ring::of_many(&map, Sent::parse);
            }
            Ring::new(&map, |event: &KvmEvent| [Sent::from(*event)])
        });
        let names = names();
        let mut ledger = Ledger::new(options.layout, options.level, names.clone());
        // At the end, the totals that are made of them take as much again, and their text in the output may, too.
        ledger = ledger.bounded(options.memory_bytes / 4);
        ledger.faults_timed = attached.events.len() > 1;
        let unseen_before = attached.read::<KvmLosses>(maps::LOSSES)?.unseen;
        Ok(Self {
            exits: Elements::open(&attached, maps::EXITS)?,
            threads: Elements::open(&attached, maps::VCPU_THREADS)?,
            attached,
            ring: ring.transpose()?,
            stacks: options.stacks.then(Stacks::new),
            ledger,
            names,
            vm_names: machine::VmNames::default(),
            vm: options.vm.clone(),
            of_others: [0, 0],
            level: options.level,
            vcpu_threads: HashMap::new(),
            layout: options.layout,
            filter: options.filter.words(),
            timed: options.layout.timed,
            detached: false,
            missed: None,
            epoch: 0,
            memory_bytes: options.memory_bytes,
            unseen_before,
            slower_ns: options.slower.map(|time| time.as_nanos() as u64),
        })
    }

    /// Learns of new threads, while their processes still tell the names of their VMs; forgets those that ended and whose
    /// exits have been read. Gives the numbers of those that ended and are still to be read.
    fn meet_threads(&mut self) -> Result<Vec<u32>> {
        let mut ended = Vec::new();
        for (serial, thread) in entries::<u32, KvmThread>(&self.threads)? {
            self.vm_names.of(thread.pid, thread.process_start_ns);
            if let Some(stacks) = &mut self.stacks {
                stacks.meet(Process { pid: thread.pid, start_ns: thread.process_start_ns });
            }
            self.vcpu_threads.insert(serial, thread);
            if thread.ended != 0 {
                ended.push(serial);
            }
        }
        Ok(ended)
    }

    /// Reads what the kernel half counted; with `next`, lets it begin the next interval first.
    fn read(&mut self, next: bool) -> Result<()> {
        // The list of threads that ended comes first: what is read after it is all that they did.
        let ended = self.meet_threads()?;
        self.read_with(&ended, next)
    }

    fn read_with(&mut self, ended: &[u32], next: bool) -> Result<()> {
        let epoch = self.epoch;
        if next {
            self.epoch += 1;
            self.attached.write(maps::CONTROL, &TrapControl { epoch: self.epoch })?;
        }
        self.of_others[1] = 0;
        for (key, exits) in entries::<KvmKey, KvmExits>(&self.exits)? {
            let over = ended.contains(&key.thread);
            match self.report(&key, &exits, epoch, over || self.detached) {
                Some(report) => self.ledger.take(report, over),
                None => self.of_others[usize::from(!over)] += exits.count - exits.moved,
            }
            if over {
                self.exits.remove(bytes_of(&key)).context("cannot remove an ended thread from a BPF map")?;
            }
        }
        for serial in ended {
            self.threads
                .remove(&serial.to_ne_bytes())
                .context("cannot remove an ended thread from a BPF map")?;
            self.vcpu_threads.remove(serial);
        }
        Ok(())
    }

    fn report(&mut self, key: &KvmKey, exits: &KvmExits, epoch: u64, settled: bool) -> Option<Report> {
        // A thread is entered before its first exit is.
        let thread = *self.vcpu_threads.get(&key.thread)?;
        let vm = self.vm_names.of(thread.pid, thread.process_start_ns);
        if self.vm.is_some() && self.vm != vm {
            return None;
        }
        let [l1_count, l2_count] = counts(exits, settled);
        Some(Report {
            thread: key.thread,
            vcpu: Vcpu {
                pid: thread.pid,
                process_start_ns: thread.process_start_ns,
                vm,
                tid: thread.tid,
                number: key.vcpu,
            },
            exit: Exit { isa: Isa::of_x86(thread.isa), code: key.reason },
            subject: (key.write != abi::KVM_NO_SUBJECT).then_some((key.sub, key.write == abi::KVM_WRITES)),
            levels: [stats(&exits.level[0], l1_count), stats(&exits.level[1], l2_count)],
            recent: exits.level.each_ref().map(|of| abi::extremes(&of.recent, epoch)),
        })
    }

    fn slow(&mut self, event: &KvmEvent) -> Option<Slow> {
        let level = if event.level == 0 { Level::L1 } else { Level::L2 };
        let process_start_ns = self.vm_names.latest(event.pid);
        let vm = self.vm_names.of(event.pid, process_start_ns);
        if self.vm.is_some() && self.vm != vm || self.level.is_some_and(|wanted| wanted != level) {
            return None;
        }
        Some(Slow {
            time_ns: event.time_ns,
            vcpu: Vcpu { pid: event.pid, process_start_ns, vm, tid: event.tid, number: event.vcpu },
            exit: Exit { isa: Isa::of_x86(event.isa), code: event.reason },
            level,
            latency_ns: event.latency_ns,
            rip: event.rip,
            stack: None,
        })
    }

    /// Gives slow exits: with stacks, those whose stacks are known at a moment, or all of them if there is no later one.
    fn show(&mut self, sent: Vec<Sent>, until: Instant, is_last: bool, events: &mut Vec<Event>) {
        for sent in sent {
            let Some(slow) = self.slow(&sent.event) else { continue };
            match &mut self.stacks {
                Some(stacks) => stacks.put(slow, sent),
                None => events.push(slow.event(&self.names, false)),
            }
        }
        let Some(stacks) = &mut self.stacks else { return };
        let ready = stacks.take(until, is_last).into_iter();
        events.extend(ready.map(|slow| slow.event(&self.names, true)));
        let threads = &self.vcpu_threads;
        stacks.keep(|process| {
            let is_its =
                |thread: &KvmThread| (thread.pid, thread.process_start_ns) == (process.pid, process.start_ns);
            threads.values().any(is_its)
        });
    }
}

impl Tool for Kvm {
    fn header(&self) -> Header {
        let stacks_mb = self.stacks.is_some().then_some(stacks::MEGABYTES);
        let settings = Settings { memory_mb: self.memory_bytes >> 20, slower_ns: self.slower_ns, stacks_mb };
        let settings = vec![SETTINGS.record(&settings), system::scope(self.filter.as_deref())];
        let event = if self.stacks.is_some() { EVENT_WITH_STACK } else { EVENT };
        let tables = (vec![self.layout.schema()], self.slower_ns.map(|_| event));
        system::header("kvm", self.attached.variant, tables, settings)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(Ring::fd)
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let ended = self.meet_threads()?;
        if let Some(ring) = &self.ring {
            let mut sent = Vec::new();
            ring.drain(&mut sent)?;
            self.show(sent, Instant::now() + STACKS_TAKE, false, events);
        }
        if ended.is_empty() { Ok(()) } else { self.read_with(&ended, false) }
    }

    fn has_work(&self) -> bool {
        self.stacks.as_ref().is_some_and(Stacks::have_work)
    }

    fn snapshot(&mut self, all: bool) -> Result<Option<Block>> {
        if !self.detached {
            self.read(true)?;
        }
        Ok(Some(self.ledger.block(system::monotonic_ns(), all)))
    }

    fn facts(&mut self) -> Result<Counted> {
        let missed = self.missed.map_or_else(|| self.attached.missed(|_| true), Ok)?;
        let losses: KvmLosses = self.attached.read(maps::LOSSES)?;
        let (counted, timed) = self.ledger.counted();
        let mut more = Losses {
            uncounted_exits: losses.uncounted + losses.untracked,
            missed_programs: missed,
            folded_rows: self.ledger.folded(),
            untimed_exits: self.timed.then(|| counted - timed.min(counted)),
            other_vm_exits: self.vm.as_ref().map(|_| self.of_others.iter().sum()),
            unseen_returns: losses.unseen - self.unseen_before,
            ..Losses::default()
        };
        if let Some(stacks) = &self.stacks {
            stacks.losses(losses.stacks, &mut more);
        }
        Ok(Counted {
            events: self.ring.is_none().then_some(counted),
            lost_events: losses.events,
            sampled: 1,
            more: LOSSES.record(&more),
        })
    }

    fn detach(&mut self, events: &mut Vec<Event>) -> Result<()> {
        // In the reverse order of attaching: what follows an exit is there until there are no more exits.
        while self.attached.events.pop().is_some() {}
        std::thread::sleep(LEVEL_SETTLES);
        self.missed = Some(self.attached.missed(|_| true)?);
        self.attached.rest.clear();
        self.detached = true;
        self.drain(events)?;
        let mut until = signals::end_by();
        while self.stacks.as_ref().is_some_and(Stacks::are_waiting) {
            let is_last = Instant::now() >= until;
            self.show(vec![], Instant::now() + STACKS_TAKE, is_last, events);
            until = until.min(signals::end_by());
        }
        self.read(false)
    }

    fn totals(&mut self) -> Block {
        self.ledger.block(system::monotonic_ns(), true)
    }
}

/// An exit as the kernel half names it among the chosen; nothing if no processor it runs on has such exits.
fn in_kernel(exit: &Exit) -> Option<u64> {
    let isa = match exit.isa {
        Isa::Vmx => abi::KVM_ISA_VMX,
        Isa::Svm => abi::KVM_ISA_SVM,
        _ => return None,
    };
    Some(u64::from(isa) << 32 | u64::from(exit.reason()))
}

/// All entries of a map.
fn entries<K: Pod, V: Pod>(map: &Elements) -> Result<Vec<(K, V)>> {
    let bytes = map.read().context("cannot read the exits")?;
    let entry = |bytes: &[u8]| {
        let (key, value) = bytes.split_at(size_of::<K>());
        (pod_read_unaligned(key), pod_read_unaligned(value))
    };
    Ok(bytes.chunks_exact(size_of::<K>() + size_of::<V>()).map(entry).collect())
}
