//! Page faults: attaches a variant of `bpf/faults.bpf.c` and reads it.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, ensure};
use bytemuck::{bytes_of, pod_read_unaligned};
use libbpf_rs::{Iter, Link, MapCore, MapFlags, MapHandle, OpenObject, ProgramMut};
use trapline_model::faults::{
    Access, By, Extremes, Fault, InOrder, Ledger, Process, Report, Stats, Step, StepOf, Thread, Timing,
};
use trapline_model::{Block, Event, Header, Hist, Value};

use crate::abi::{
    self, BY_CGROUP, BY_COMM, BY_PID, FaultsAlive, FaultsConfig, FaultsControl, FaultsEvent, FaultsLosses,
    FaultsStep, FaultsThread, TrapFilter,
};
use crate::cgroup::Paths;
use crate::filter::Filter;
use crate::launch::Launch;
use crate::live::{Last, Tool};
use crate::perf::{self, Software};
use crate::ring::Ring;
use crate::system;
use crate::variant::{self, Attached, OpenError, Recipe, Variant};

pub(crate) const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/faults.bpf.o"));

/// Best first.
pub(crate) const VARIANTS: &[Variant] = &[
    Variant { name: "fentry", ways: &[&["fentry_begin", "fentry_end"]] },
    Variant { name: "kprobe", ways: &[&["kprobe_session"], &["kprobe_begin", "kprobe_end"]] },
    Variant {
        name: "tracepoint",
        ways: &[&["tracepoint_user", "tracepoint_kernel", "tracepoint_major", "tracepoint_minor"]],
    },
    Variant { name: "counters", ways: &[&[]] },
];

/// How many ended threads are fetched at once.
const BATCH: u32 = 256;

/// Which minor faults are timed. Counts are exact in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinorLatency {
    /// All of them.
    Exact,
    /// One in so many, where that saves something: on the tracepoint variant.
    Sampled(u32),
    /// None.
    Off,
}

impl fmt::Display for MinorLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Sampled(n) => write!(f, "1:{n}"),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Of what there is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// Nothing.
    None,
    /// Each fault.
    Faults,
    /// Each time a process passes a multiple of a step.
    Steps(StepOf),
}

/// What to trace, and how.
#[derive(Debug)]
pub struct Options {
    /// Whose faults.
    pub filter: Filter,
    /// What a row is one of.
    pub by: By,
    /// Only this variant, not the first that works.
    pub variant: Option<String>,
    /// Which minor faults are timed.
    pub minor_latency: MinorLatency,
    /// Events, if there are to be any.
    pub events: Events,
    /// Size of the ring that holds events until they are read, bytes: a power of two of pages.
    pub ring_bytes: u32,
}

/// The tool, attached.
#[derive(Debug)]
pub struct Faults {
    attached: Attached,
    read: Link,
    retired: MapHandle,
    incoming: Incoming,
    ledger: Ledger,
    cgroups: Paths,
    settings: Settings,
    epoch: u64,
}

/// What follows from the options on the variant in use.
#[derive(Debug, Clone, Copy)]
struct Settings {
    timing: Timing,
    minor_latency: MinorLatency,
    events: Events,
}

/// Where events come in.
#[derive(Debug)]
enum Incoming {
    None,
    Faults(Ring<Event>),
    Steps(Ring<Step>, StepOf, InOrder),
}

/// The recipe that `open` and `doctor` share.
pub(crate) struct FaultsRecipe {
    pub(crate) filter: TrapFilter,
    pub(crate) minor_latency: MinorLatency,
    pub(crate) events: Events,
    pub(crate) ring_bytes: u32,
}

impl Recipe for FaultsRecipe {
    fn object(&self) -> &'static [u8] {
        OBJECT
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn always(&self) -> Vec<&'static str> {
        let mut names = vec![
            "thread_born",
            "thread_execed",
            "thread_ends",
            "thread_freed",
            "threads_adopt",
            "threads_read",
        ];
        if self.filter.by & BY_COMM != 0 {
            names.push("thread_renamed");
        }
        if self.filter.by & BY_CGROUP != 0 {
            names.push("thread_moved");
        }
        names
    }

    fn optional(&self) -> Vec<&'static str> {
        vec!["thread_ended"]
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        let minor_weight = match self.minor_latency {
            MinorLatency::Sampled(n) => n,
            MinorLatency::Exact | MinorLatency::Off => 1,
        };
        let (step_of, step) = match self.events {
            Events::None | Events::Faults => (0, 0),
            Events::Steps(StepOf::Faults(step)) => (abi::STEP_ALL, step),
            Events::Steps(StepOf::Major(step)) => (abi::STEP_MAJOR, step),
            Events::Steps(StepOf::Stall(step)) => (abi::STEP_STALL, step),
        };
        let verbose = (self.events == Events::Faults).into();
        let config = FaultsConfig { step, minor_weight, verbose, step_of, pad: 0 };
        for mut map in object.maps_mut() {
            match map.name().to_str() {
                Some(".rodata.filter") => map.set_initial_value(bytes_of(&self.filter))?,
                Some(".rodata.config") => map.set_initial_value(bytes_of(&config))?,
                Some("events") if self.events != Events::None => map.set_max_entries(self.ring_bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn attach(&self, program: &ProgramMut<'_>) -> Result<Vec<Link>> {
        let (event, period) = match (program.name().to_str(), self.minor_latency) {
            (Some("threads_adopt" | "threads_read"), _) => return Ok(vec![]),
            (Some("tracepoint_minor"), MinorLatency::Off) => return Ok(vec![]),
            (Some("tracepoint_minor"), MinorLatency::Exact) => (Software::MinorFaults, 1),
            (Some("tracepoint_minor"), MinorLatency::Sampled(n)) => (Software::MinorFaults, n.into()),
            (Some("tracepoint_major"), _) => (Software::MajorFaults, 1),
            _ => return Ok(vec![program.attach()?]),
        };
        perf::attach(program, perf::open_everywhere(event, period)?)
    }

    fn prove(&self, attached: &Attached) -> Result<()> {
        if attached.variant == "counters" {
            return Ok(());
        }
        system::fault_once().context("cannot take a page fault")?;
        let alive: FaultsAlive = attached.read(".bss.alive")?;
        let ends = alive.ends != 0 || self.minor_latency != MinorLatency::Exact;
        ensure!(alive.begins != 0 && ends, "it was attached, and a page fault of our own did not reach it");
        Ok(())
    }
}

impl Faults {
    /// Attaches the first variant that works, or the one asked for, and counts from then on. A launched command and
    /// its descendants are counted from their birth.
    ///
    /// # Errors
    /// [`OpenError`] when no variant can be attached or the filter names what does not exist.
    pub fn open(options: &Options, launch: Option<&Launch>) -> Result<Self, OpenError> {
        let filter = options.filter.resolve(launch.map_or_else(system::monotonic_ns, Launch::born_ns));
        let mut recipe = FaultsRecipe {
            filter: filter.map_err(anyhow::Error::from)?,
            // Every fault has its line or may be the one that counts, so every fault is seen.
            minor_latency: if options.events == Events::None {
                options.minor_latency
            } else {
                MinorLatency::Exact
            },
            events: options.events,
            ring_bytes: options.ring_bytes,
        };
        let mut attached = variant::open(&recipe, options.variant.as_deref())?;
        if attached.variant != "tracepoint" && matches!(recipe.minor_latency, MinorLatency::Sampled(_)) {
            // It saves nothing here, and the kernel half has been told to weigh the samples: once more, unsampled.
            recipe.minor_latency = MinorLatency::Exact;
            attached = variant::open(&recipe, Some(attached.variant))?;
        }
        let pids = options.filter.pids.iter().copied().chain(launch.map(Launch::pid));
        Ok(Self::start(attached, &recipe, pids, options.by)?)
    }

    fn start(
        attached: Attached,
        recipe: &FaultsRecipe,
        pids: impl Iterator<Item = u32>,
        by: By,
    ) -> Result<Self> {
        let timing = match (attached.variant, recipe.minor_latency) {
            ("counters", _) => Timing::None,
            (_, MinorLatency::Off) => Timing::Major,
            (_, MinorLatency::Exact) => Timing::All(1),
            (_, MinorLatency::Sampled(n)) => Timing::All(n),
        };
        if recipe.filter.by & BY_PID != 0 {
            attached.add_pids(pids)?;
        }
        let retired = attached.handle("retired")?;
        let ring = attached.handle("events")?;
        let incoming = match recipe.events {
            Events::None => Incoming::None,
            Events::Faults => Incoming::Faults(Ring::new(&ring, faults)?),
            Events::Steps(of) => Incoming::Steps(Ring::new(&ring, step)?, of, InOrder::default()),
        };
        // Threads that were here before: counted from now on.
        let adopt = attached.iterator("threads_adopt")?;
        io::copy(&mut Iter::new(&adopt)?, &mut io::sink()).context("cannot go through the threads")?;
        let read = attached.iterator("threads_read")?;
        let settings = Settings { timing, minor_latency: recipe.minor_latency, events: recipe.events };
        Ok(Self {
            attached,
            read,
            retired,
            incoming,
            ledger: Ledger::new(by, timing),
            cgroups: Paths::default(),
            settings,
            epoch: 0,
        })
    }

    /// Lets the kernel half begin the next interval, and reads the one that ended.
    fn read(&mut self, last: bool) -> Result<()> {
        let epoch = self.epoch;
        self.epoch += 1;
        self.attached.write(".data.control", &FaultsControl { epoch: self.epoch, last: last.into() })?;
        let mut bytes = Vec::new();
        Iter::new(&self.read)?.read_to_end(&mut bytes).context("cannot read the threads")?;
        for chunk in bytes.chunks_exact(size_of::<FaultsThread>()) {
            self.ledger.live(report(&pod_read_unaligned(chunk), epoch, &mut self.cgroups));
        }
        // After the living: a thread that ended in between is in both, and its end replaces its life.
        self.fetch_ended(epoch)
    }

    fn fetch_ended(&mut self, epoch: u64) -> Result<()> {
        loop {
            // A batch may be cut short where a hash bucket does not fit in: only an empty one is the last.
            let batch = self.retired.lookup_and_delete_batch(BATCH, MapFlags::ANY, MapFlags::ANY);
            let mut last = true;
            for (_, value) in batch.context("cannot read the ended threads")? {
                self.ledger.ended(report(&pod_read_unaligned(&value), epoch, &mut self.cgroups));
                last = false;
            }
            if last {
                return Ok(());
            }
        }
    }
}

impl Tool for Faults {
    fn header(&self) -> Header {
        let minor_latency = match self.settings.timing {
            Timing::None => Value::Null,
            _ => self.settings.minor_latency.to_string().as_str().into(),
        };
        system::header("faults", self.attached.variant, vec![("minor_latency", minor_latency)])
    }

    fn events_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.incoming {
            Incoming::None => None,
            Incoming::Faults(ring) => Some(ring.fd()),
            Incoming::Steps(ring, ..) => Some(ring.fd()),
        }
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        match &mut self.incoming {
            Incoming::None => {}
            Incoming::Faults(ring) => ring.drain(events)?,
            Incoming::Steps(ring, of, order) => {
                let mut batch = Vec::new();
                ring.drain(&mut batch)?;
                events.extend(order.take(batch).iter().flat_map(|step| step.events(*of)));
            }
        }
        self.fetch_ended(self.epoch)
    }

    fn interval(&mut self, cumulative: bool) -> Result<Block> {
        self.read(false)?;
        Ok(self.ledger.interval(system::monotonic_ns(), cumulative))
    }

    fn finish(&mut self, cumulative: bool, events: &mut Vec<Event>) -> Result<Last> {
        let missed = self.attached.missed(|_| true)?;
        self.attached.events.clear();
        self.read(true)?;
        // The threads' ends stay attached until here: a last fault in exit_mm is in one of the two.
        self.attached.rest.clear();
        self.drain(events)?;
        if let Incoming::Steps(_, of, order) = &mut self.incoming {
            events.extend(order.rest().iter().flat_map(|step| step.events(*of)));
        }
        let time_ns = system::monotonic_ns();
        let rows = self.ledger.interval(time_ns, cumulative);
        let totals = self.ledger.totals(time_ns);
        let losses: FaultsLosses = self.attached.read(".bss.losses")?;
        let unattributed = losses.unattributed_major + losses.unattributed_minor;
        let sum = |name| match totals.sum.as_ref().and_then(|sum| sum.get(name)) {
            Some(&Value::U64(n)) => n,
            _ => 0,
        };
        Ok(Last {
            counted: sum("major") + sum("minor") + unattributed,
            rows,
            lost: losses.events,
            sampled: match self.settings.timing {
                Timing::All(weight) => weight.into(),
                Timing::None | Timing::Major => 1,
            },
            losses: vec![
                ("unattributed", unattributed),
                ("untracked", losses.untracked),
                ("uncounted", losses.uncounted),
                ("unpaired", losses.unpaired),
                ("missed", missed),
                ("folded", self.ledger.folded()),
            ],
            verbose: self.settings.events == Events::Faults,
            totals,
        })
    }
}

/// A thread's figures in the words of the model; `epoch` is the interval that is about to be shown.
fn report(row: &FaultsThread, epoch: u64, cgroups: &mut Paths) -> Report {
    let mut recent = Extremes::default();
    for of in row.recent.iter().filter(|of| of.epoch == epoch) {
        recent = Extremes { max_ns: of.max_ns, min_ns: of.min_ns };
    }
    Report {
        thread: Thread { pid: row.pid, tid: row.tid, start_ns: row.start_ns },
        comm: abi::comm(&row.comm).into(),
        process: Process { pid: row.pid, start_ns: row.process_start_ns },
        process_comm: abi::comm(&row.process_comm).into(),
        cgroup: cgroups.path(row.cgroup),
        stats: Stats {
            major: row.major,
            minor: row.minor,
            timed_major: row.timed_major,
            timed_minor: row.timed_minor,
            major_ns: row.major_ns,
            minor_ns: row.minor_ns,
            hist: Hist::new(&row.hist),
        },
        extremes: Extremes { max_ns: row.max_ns, min_ns: row.min_ns },
        recent,
    }
}

/// An event as it is shown: one for each fault that it stands for.
fn faults(event: &FaultsEvent) -> impl Iterator<Item = Event> + use<> {
    let known = |value: u64| Some(value).filter(|&v| v != abi::NONE);
    let fault = Fault {
        time_ns: event.time_ns,
        thread: Thread { pid: event.pid, tid: event.tid, start_ns: event.start_ns },
        comm: abi::comm(&event.comm),
        major: event.major != 0,
        addr: known(event.addr),
        ip: known(event.ip),
        access: [Access::Read, Access::Write, Access::Execute].get(event.rw as usize).copied(),
        latency_ns: known(event.latency_ns),
    };
    (0..event.count).map(move |_| fault.event())
}

/// A process's step in the words of the model.
fn step(step: &FaultsStep) -> Option<Step> {
    Some(Step {
        time_ns: step.time_ns,
        process: Process { pid: step.pid, start_ns: step.start_ns },
        comm: abi::comm(&step.comm),
        first: step.first,
        last: step.last,
    })
}
