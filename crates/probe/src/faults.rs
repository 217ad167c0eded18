//! Page faults: attaches a variant of an object of `bpf/faults.bpf.h` and reads it.

mod chains;
mod code;
pub(crate) mod copies;
mod files;
mod from_abi;
mod groups;
mod open;
mod options;
#[cfg(test)]
mod prog_run;
mod recipe;
mod recording;
pub(crate) mod rootless;
mod span;
mod stack_map;
mod steps;
mod table;
mod tool;
mod unplaced;
mod unwind;
mod waiting;
mod walk;
mod whose;

use std::collections::HashSet;
use std::io::{self, Read};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use bytemuck::{Zeroable, pod_read_unaligned};
use libbpf_rs::{Iter, Link};
use trapline_model::Block;
use trapline_model::faults::{By, Ledger, PARTS, Report, Timing};
use trapline_symbols::Scope;

use self::code::Code;
pub(crate) use self::files::{Files, inode_number};
use self::from_abi::{Names, figures, report};
use self::groups::Groups;
pub use self::open::open;
pub use self::options::{Events, MinorLatency, Options, Stacks, Unwind};
pub(crate) use self::recipe::{FaultsRecipe, SEES_EACH_FAULT};
#[cfg(test)]
pub(crate) use self::recipe::{OBJECTS, tests::all as recipes};
use self::recording::Recorded;
pub(crate) use self::span::Kinds;
use self::span::Spans;
use self::steps::Steps;
pub(crate) use self::walk::Search;
use crate::abi::maps::faults as maps;
use crate::abi::{FaultsControl, FaultsEvent, FaultsMade, FaultsThread, FaultsWalk};
use crate::cgroup::Paths;
use crate::elements::Elements;
use crate::filter::Filter;
use crate::launch::Launch;
use crate::ring::Ring;
use crate::system;
use crate::variant::{self, Attached, OpenError};

/// The tool, attached.
#[derive(Debug)]
pub struct Faults {
    attached: Attached,
    read: Link,
    retired: Elements,
    /// The names and rows of ended threads that there were when they were last fetched.
    fetched: FaultsMade,
    groups: Option<Groups>,
    spans: Option<Spans>,
    warning: Option<String>,
    /// Why events have no causes.
    causes_unknown: Option<String>,
    files: Option<Files>,
    incoming: Incoming,
    /// Which parts of a fault's time are seen, if they are shown.
    parts: Option<[bool; PARTS]>,
    /// It is seen that threads sleep in faults.
    sees_waits: bool,
    ledger: Ledger,
    cgroups: Paths,
    names: Names,
    settings: Settings,
    epoch: u64,
    control: FaultsControl,
    filter: Option<String>,
    /// When the last pass had closed all threads.
    closed_ns: Option<u64>,
    /// How often programs were not run, once it is known.
    missed: Option<u64>,
    /// Events are read until then, at the end; and how many were not.
    read_until: Option<Instant>,
    unread: u64,
    /// Where faults go that nobody sees one by one.
    recording: Option<Recorded>,
    /// What came when the ring was last read, and how much that was.
    batch: Vec<FaultsEvent>,
    came: usize,
}

/// What follows from the options on the variant in use.
#[derive(Debug, Clone, Copy)]
struct Settings {
    timing: Timing,
    minor_latency: MinorLatency,
    stacks: Option<Stacks>,
    unwinds: bool,
    events: Events,
    by: By,
    memory_bytes: u64,
}

/// Where events come in.
#[derive(Debug)]
enum Incoming {
    None,
    /// With their functions, if those are to be known.
    Faults(Ring<FaultsEvent>, Option<Box<Code>>),
    Steps(Box<Steps>),
}

impl Faults {
    /// Attaches the first variant that works, or the one asked for, and counts from then on. A launched command and
    /// its descendants are counted from their birth.
    ///
    /// # Errors
    /// [`OpenError`] when no variant can be attached or the filter names what does not exist.
    pub fn open(options: &Options, launch: Option<&Launch>) -> Result<Self, OpenError> {
        if (options.by.each_fault() || options.split || options.events.need_each_fault())
            && options.variant.as_deref() == Some("counters")
        {
            return Err(OpenError::Unfit {
                variant: "counters",
                why: "it reads counters of threads and sees no single fault, so it knows neither causes nor times",
            });
        }
        let spans = span::find(&options.spans, &options.filter.pids)?;
        let filter = options.filter.resolve();
        let mut recipe = FaultsRecipe {
            filter: filter?,
            by: options.by,
            spans: span::kinds(&spans),
            stacks: options.stacks,
            unwinds: options.by.has_stacks() && options.unwind != Unwind::FramePointers,
            copies: options.names_processes(),
            // Every fault has its line or its row, or may be the one that counts, so every fault is seen.
            minor_latency: if options.events == Events::None && !options.by.each_fault() {
                options.minor_latency
            } else {
                MinorLatency::Exact
            },
            events: options.events,
            counts_only: options.counts_only(),
            seeing: false,
            split: options.split,
            ring_bytes: options.ring_bytes,
            causes: None,
        };
        let mut causes_unknown = None;
        if options.by.parts().cause {
            recipe.causes = Some(walk::find().map_err(|error| {
                OpenError::Unavailable(error.context("cannot find the causes of faults"))
            })?);
        } else if options.events.are_faults() {
            // Without a way through page tables there is little to tell; each event says so.
            recipe.causes = Some(walk::find().unwrap_or_else(|error| {
                causes_unknown = Some(format!("{error:#}"));
                FaultsWalk::zeroed()
            }));
        }
        let mut warning = None;
        let attached = match variant::open(&recipe, options.variant.as_deref()) {
            Err(error @ (OpenError::Refused(_) | OpenError::Short { .. }))
                if recipe.unwinds && options.unwind == Unwind::Auto =>
            {
                recipe.unwinds = false;
                warning = Some(format!("stacks are walked by frame pointers, not by unwind tables: {error}"));
                variant::open(&recipe, options.variant.as_deref())?
            }
            opened => opened?,
        };
        if options.events.need_waits() && !FaultsRecipe::sees_waits(&attached) {
            let why = "cannot attach the tracepoint sched_switch, so nothing shows which faults waited";
            return Err(OpenError::Unavailable(anyhow!(why)));
        }
        if attached.variant != "tracepoint" && matches!(recipe.minor_latency, MinorLatency::Sampled(_)) {
            // It would save nothing.
            recipe.minor_latency = MinorLatency::Exact;
        }
        let mut faults = Self::start(attached, &recipe, options, launch)?;
        faults.warning = warning;
        faults.causes_unknown = causes_unknown;
        if !spans.is_empty() {
            let timing = faults.settings.timing;
            faults.warning = span::warning(&spans);
            // Probes of a process are not its children's.
            let pids: &[u32] = if options.filter.descendants { &[] } else { &options.filter.pids };
            faults.spans = Some(Spans::attach(&faults.attached, &spans, pids, timing)?);
        }
        Ok(faults)
    }

    /// What a user has to know beforehand.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn start(
        mut attached: Attached,
        recipe: &FaultsRecipe,
        options: &Options,
        launch: Option<&Launch>,
    ) -> Result<Self> {
        let filter = &options.filter;
        let timing = match (attached.variant, recipe.minor_latency) {
            _ if recipe.counts_only => Timing::None,
            ("counters", _) => Timing::None,
            (_, MinorLatency::Off) => Timing::Major,
            (_, MinorLatency::Exact) => Timing::All(1),
            (_, MinorLatency::Sampled(n)) => Timing::All(n),
        };
        filter.fill(&attached, launch)?;
        let retired = Elements::open(&attached, maps::RETIRED)?;
        let (whose_memory, command) = (whose(filter, launch), launch.map(Launch::command));
        let groups = Groups::open(&attached, recipe.by, whose_memory, recipe.unwinds, command)?;
        let files = if recipe.knows_files() { Some(Files::open(&attached)?) } else { None };
        let ring = attached.handle(maps::EVENTS)?;
        let incoming = match recipe.events {
            Events::None => Incoming::None,
            Events::Faults | Events::Slower(_) | Events::Recorded { .. } => {
                let named = recipe.events.name_code();
                let code = named.then(|| Code::watch(whose(filter, launch))).transpose()?;
                Incoming::Faults(Ring::new(&ring, |&event: &FaultsEvent| [event])?, code.map(Box::new))
            }
            Events::Steps { of, most } => {
                Incoming::Steps(Box::new(Steps::open(&ring, of, most.then(|| whose(filter, launch)))?))
            }
        };
        let control = begin(&attached, launch)?;
        if attached.variant == "counters" {
            // A fault costs nothing more from here on.
            attached.events.clear();
        }
        let read = attached.iterator(recipe::READ)?;
        let stacks = recipe.by.has_stacks().then_some(recipe.stacks);
        let settings = Settings {
            timing,
            minor_latency: recipe.minor_latency,
            stacks,
            unwinds: recipe.unwinds,
            events: recipe.events,
            by: recipe.by,
            memory_bytes: options.memory_bytes,
        };
        // Spans have a ledger of their own; beside it, threads are counted.
        let by = if recipe.by == By::Span { By::Thread } else { recipe.by };
        let parts = options.split.then(|| FaultsRecipe::parts(&attached));
        let sees_waits = FaultsRecipe::sees_waits(&attached);
        Ok(Self {
            attached,
            read,
            retired,
            fetched: FaultsMade::zeroed(),
            groups,
            spans: None,
            warning: None,
            causes_unknown: None,
            files,
            incoming,
            parts,
            sees_waits,
            ledger: Ledger::new(by, timing)
                .bounded(options.ended_bytes())
                .split(parts)
                .seeing_waits(sees_waits)
                .with_histograms(options.hist),
            cgroups: Paths::default(),
            names: Names::default(),
            settings,
            epoch: 0,
            control,
            filter: filter.words(),
            closed_ns: None,
            missed: None,
            read_until: None,
            unread: 0,
            recording: None,
            batch: Vec::new(),
            came: 0,
        })
    }

    /// Lets the kernel half begin the next interval, if there is one, and reads the one that ended.
    ///
    /// Not disturbed by anybody: on a busy machine it would take longer than the kernel half's tables have space for.
    fn read(&mut self, last: bool) -> Result<()> {
        system::undisturbed(|| self.read_at_once(last))
    }

    fn read_at_once(&mut self, last: bool) -> Result<()> {
        let epoch = self.epoch;
        self.epoch += u64::from(!last);
        self.read_threads(epoch, last)?;
        // After the living: a thread that ended in between is in both, and its end replaces its life.
        self.fetch_ended(epoch)?;
        self.read_groups(epoch)?;
        self.spans.as_mut().map_or(Ok(()), |spans| spans.read(epoch))
    }

    fn read_threads(&mut self, epoch: u64, last: bool) -> Result<()> {
        (self.control.epoch, self.control.last, self.control.adopted) = (self.epoch, last.into(), 1);
        self.attached.write(maps::CONTROL, &self.control)?;
        let mut bytes = Vec::new();
        Iter::new(&self.read)?.read_to_end(&mut bytes).context("cannot read the threads")?;
        for chunk in bytes.chunks_exact(size_of::<FaultsThread>()) {
            let report = self.report(&pod_read_unaligned(chunk), epoch);
            self.ledger.live(report);
        }
        Ok(())
    }

    /// The rows that have more than the last time, or `all`.
    fn rows(&mut self, all: bool) -> Block {
        let time_ns = self.closed_ns.unwrap_or_else(system::monotonic_ns);
        match &self.spans {
            Some(spans) => spans.ledger.block(time_ns, all),
            None => self.ledger.block(time_ns, all),
        }
    }

    fn read_groups(&mut self, epoch: u64) -> Result<()> {
        match &mut self.groups {
            None => Ok(()),
            Some(groups) => {
                groups.read(&self.attached, self.files.as_mut(), &mut self.control, epoch, &mut self.ledger)
            }
        }
    }

    /// Records the stacks that have got their names.
    fn record_stacks(&mut self) -> Result<()> {
        let (Some(recording), Some(groups)) = (&mut self.recording, &mut self.groups) else { return Ok(()) };
        Ok(recording.name(&groups.take_found())?)
    }

    fn fetch_ended(&mut self, epoch: u64) -> Result<()> {
        // What comes meanwhile is fetched now or the next time.
        self.fetched.retired = self.made()?.retired;
        let rows = self.retired.take(|_| true).context("cannot read the BPF map of ended threads")?;
        // Each behind its key.
        for record in rows.chunks_exact(size_of::<u64>() + size_of::<FaultsThread>()) {
            let report = self.report(&pod_read_unaligned(&record[size_of::<u64>()..]), epoch);
            self.ledger.ended(report);
        }
        Ok(())
    }

    fn made(&self) -> Result<FaultsMade> {
        self.attached.read(maps::MADE)
    }

    fn report(&mut self, row: &FaultsThread, epoch: u64) -> Report {
        let report = report(row, epoch, &mut self.cgroups);
        if let Some(groups) = &mut self.groups {
            groups.learn(row, &report, self.control.turn);
        }
        report
    }
}

/// Lets counting begin, and gives the moment: that of a command's fork, or now for all threads at once.
fn begin(attached: &Attached, launch: Option<&Launch>) -> Result<FaultsControl> {
    let began_ns = launch.map_or(0, Launch::born_ns);
    attached.write(maps::CONTROL, &FaultsControl { began_ns, turn: 1, ..FaultsControl::zeroed() })?;
    let adopt = attached.iterator(recipe::ADOPT)?;
    io::copy(&mut Iter::new(&adopt)?, &mut io::sink()).context("cannot iterate over the threads")?;
    attached.read(maps::CONTROL)
}

/// Whose address spaces are to be known.
fn whose(filter: &Filter, launch: Option<&Launch>) -> Scope {
    let tid = filter.tid.and_then(system::process_of);
    let pids = filter.pids.iter().copied().chain(tid).collect::<HashSet<_>>();
    match launch {
        Some(launch) => Scope::Tree([launch.pid()].into()),
        None if pids.is_empty() => Scope::All,
        None if filter.descendants => Scope::Tree(pids),
        None => Scope::These(pids),
    }
}
