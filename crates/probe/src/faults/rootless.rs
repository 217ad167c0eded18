//! The variant without privilege: perf software events of one's own threads, and what the kernel says in /proc.
//!
//! The events see a fault's address and instruction, and not the faults that the kernel takes on a thread's behalf;
//! where a user may not look into the kernel, none taken in kernel mode. The kernel's counters have all of them, of a
//! thread as long as it lives, of a process until it is waited for, and then in what its parent has waited for.

mod census;
mod grouping;
mod member;
mod stack_table;
mod trial;
mod untimed;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, anyhow};
use nix::unistd::geteuid;
use trapline_model::doctor::Refusal;
use trapline_model::faults::{By, EVENT, Fault, Ledger, Losses, ROOTLESS_LOSSES, SETTINGS, Settings, Timing};
use trapline_model::{BatchSink, Block, Event, Header};
use trapline_symbols::order;
use trapline_symbols::perf::{Record, Recording, Sampler, What, is_refusal};
use trapline_symbols::task::{self, Counts};

use self::census::Census;
use self::grouping::Grouping;
use self::stack_table::StackTable;
pub(crate) use self::trial::refusal as tried;
use super::recording::Recorded;
use super::{Events, Options, Stacks, Unwind, whose};
use crate::filter::FilterError;
use crate::launch::Launch;
use crate::refusal::refusal;
use crate::run::{Counted, Tool};
use crate::system;
use crate::variant::{OpenError, Refused};

/// The registers that a walk by tables begins with are known of this architecture.
const CAN_UNWIND: bool = cfg!(target_arch = "x86_64");

/// The variant's name.
pub(crate) const NAME: &str = "rootless";

/// The tool, without a kernel half.
#[derive(Debug)]
pub(super) struct Rootless {
    sampler: Sampler,
    census: Census,
    ledger: Ledger,
    /// Records that may not be the next: another processor's may come that are older.
    waiting: Vec<Record>,
    /// Faults that wait to be shown.
    faults: Vec<Fault>,
    /// Where faults are recorded, if nobody else sees them.
    recording: Option<Recorded>,
    /// Records of all kinds for which there was no room.
    dropped: u64,
    verbose: bool,
    detached: bool,
    began_ns: u64,
    /// Of which faults the stack is taken, if rows are of stacks.
    stacks: Option<Stacks>,
    /// They are copied, and walked by unwind tables.
    unwinds: bool,
    by: By,
    filter: Option<String>,
    memory_bytes: u64,
}

/// The variant cannot be used here.
fn refused(refusal: Refusal) -> Refused {
    Refused { variant: NAME, refusal }
}

/// What it cannot do anywhere, if that was asked for.
fn unfit(options: &Options, launched: bool) -> Option<&'static str> {
    let filter = &options.filter;
    match (options.by, options.events) {
        (By::Cgroup, _) => Some(
            "it does not know the cgroup of threads that have ended; use --by thread, process, file or stack",
        ),
        (By::Cause, _) => {
            Some("it does not see the causes of faults; use --by thread, process, file or stack")
        }
        _ if options.hist => Some("it does not time faults; leave out --hist"),
        (By::Span, _) => Some("it cannot attach uprobes; use --by thread, process, file or stack"),
        (By::Several(_), _) => {
            Some("it groups by one thing at a time; use --by thread, process, comm, file, stack or function")
        }
        (By::Stack | By::Function, _) if options.unwind == Unwind::Tables && !CAN_UNWIND => {
            Some("unwind tables are made of x86-64 programs only; leave out --unwind")
        }
        (By::Stack | By::Function, _) if options.needs_times => {
            Some("it does not time faults; use --weight count")
        }
        (By::Stack | By::Function, Events::Faults) if matches!(options.stacks, Stacks::Sampled(_)) => {
            Some("with -v it records every fault; leave out -v, or use --stacks all")
        }
        _ if options.needs_times => Some("it does not time faults, and findings are about time"),
        (_, Events::Slower(_)) if options.split => Some("it does not time faults; leave out --slower"),
        _ if options.split => Some("it does not time faults; leave out --split"),
        (_, Events::Steps { .. } | Events::Recorded { .. }) => {
            Some("it does not count in the kernel, so messages would come late")
        }
        _ if !filter.is_of_processes() => Some("it filters by process only; use -p PID or -- COMMAND"),
        _ if filter.descendants && !launched => Some(
            "it cannot distinguish the children that a process has from later ones; leave out --children",
        ),
        _ if filter.pids.is_empty() && !launched => {
            Some("it sees your own processes only; name them with -p PID, or use -- COMMAND")
        }
        _ => None,
    }
}

impl Rootless {
    pub(super) fn open(options: &Options, launch: Option<&Launch>) -> Result<Self, OpenError> {
        if let Some(why) = unfit(options, launch.is_some()) {
            return Err(OpenError::Unfit { variant: NAME, why });
        }
        options.filter.check()?;
        let verbose = options.events == Events::Faults;
        let stacks = options.by.has_stacks().then_some(options.stacks);
        system::raise_descriptors();
        // Copies overrun the rings where faults come fast: not without being asked for.
        let unwinds = stacks.is_some() && options.unwind == Unwind::Tables;
        let recorded = |stacks| stack_table::recorded(stacks, unwinds);
        let (mut minor, major) = stacks.map_or((Recording::EACH, Recording::EACH), recorded);
        if verbose && minor.period == 0 {
            minor = Recording::EACH;
        }
        let bytes = if unwinds { options.ring_bytes.max(stack_table::RINGS) } else { options.ring_bytes };
        let sampler = Sampler::new(bytes as usize, minor, major);
        let groups = match options.by {
            By::File => Grouping::Files(HashMap::new()),
            By::Stack | By::Function => {
                let (whose, command) = (whose(&options.filter, launch), launch.map(Launch::command));
                Grouping::Stacks(Box::new(StackTable::new(whose, options.stacks, unwinds, command)))
            }
            _ => Grouping::None,
        };
        let mut tool = Self {
            sampler: sampler.map_err(|error| explain(error, None))?,
            census: Census::new(options.by, groups, launch.is_some(), verbose),
            ledger: Ledger::new(options.by, Timing::None).bounded(options.ended_bytes()),
            waiting: vec![],
            faults: vec![],
            recording: None,
            dropped: 0,
            verbose,
            detached: false,
            began_ns: 0,
            stacks,
            unwinds,
            by: options.by,
            filter: options.filter.words(),
            memory_bytes: options.memory_bytes,
        };
        if let Some(launch) = launch {
            tool.watch(launch.pid(), true)?;
            tool.began_ns = launch.born_ns();
        } else {
            options.filter.pids.iter().try_for_each(|&pid| tool.watch(pid, false))?;
            tool.began_ns = system::monotonic_ns();
            tool.census.begin(tool.began_ns);
        }
        Ok(tool)
    }

    /// Follows all threads of a process. A `new` one has done nothing yet, and its children are followed, too.
    fn watch(&mut self, pid: u32, new: bool) -> Result<(), OpenError> {
        self.census.adopt(pid).with_context(|| format!("process {pid} has ended"))?;
        let mut gone = HashSet::new();
        loop {
            let tids = task::threads(pid);
            // Those that were made by one that is followed already are followed, and have a record.
            self.take();
            let is_new = |tid: &u32| !self.census.knows(pid, *tid) && !gone.contains(tid);
            let strangers: Vec<u32> = tids.into_iter().filter(is_new).collect();
            if strangers.is_empty() {
                return Ok(());
            }
            for tid in strangers {
                match self.sampler.follow(tid as i32, new) {
                    Ok(()) => self.census.adopt_thread(pid, tid),
                    // It has ended meanwhile; the process may have others.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                        if task::is_zombie(pid) || task::threads(pid).is_empty() {
                            return Err(FilterError::Zombie(pid).into());
                        }
                        gone.insert(tid);
                    }
                    Err(error) => return Err(explain(error.into(), Some(pid))),
                }
            }
        }
    }

    /// Takes what was recorded up to now.
    fn take(&mut self) {
        let ready = order::up_to_now(
            &mut self.waiting,
            |record: &Record| record.time_ns,
            |records| gather(&self.sampler, records),
        );
        self.census.age();
        for record in ready {
            if let What::Lost(n) = record.what {
                self.dropped += n;
            }
            self.faults.extend(self.census.take(record, |event| self.sampler.is_major(event)));
        }
    }

    /// Reads the counters, and after them what was recorded.
    fn read(&mut self, last: bool) -> Result<()> {
        let counters = self.census.read();
        if let Grouping::Stacks(stacks) = &mut self.census.groups {
            stacks.settle();
            if stacks.want_count() {
                let (minor, major) = self.sampler.count().context("cannot read the events")?;
                stacks.count(Counts { major, minor });
            }
        }
        self.take();
        self.census.settle(counters);
        // Names take time, in which a user's small rings would overflow.
        self.census.report(&mut self.ledger, last, || gather(&self.sampler, &mut self.waiting));
        Ok(())
    }
}

impl Rootless {
    /// Events that were counted and have no record.
    fn lost(&self) -> Result<u64> {
        let (minor, major) = self.sampler.count().context("cannot read the events")?;
        let recorded = if self.sampler.records_each() { self.census.recorded } else { minor + major };
        Ok((minor + major).saturating_sub(recorded))
    }
}

impl Rootless {
    /// Shows the faults that wait, or records them, with the stacks that have got their names.
    fn show(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Some(recording) = &mut self.recording else {
            events.extend(self.faults.drain(..).map(|fault| fault.event()));
            return Ok(());
        };
        self.faults.drain(..).for_each(|fault| recording.add(fault, 1, events));
        recording.write()?;
        if let Grouping::Stacks(stacks) = &mut self.census.groups {
            recording.name(&stacks.take_found())?;
        }
        Ok(())
    }
}

impl Tool for Rootless {
    fn header(&self) -> Header {
        let unwind = if self.unwinds { Unwind::Tables } else { Unwind::FramePointers };
        let settings = Settings {
            minor_latency: None,
            kernel_mode: Some(if self.sampler.sees_kernel() { "seen" } else { "counted only" }),
            memory_mb: self.memory_bytes >> 20,
            stacks: self.stacks.map(|stacks| stacks.to_string()),
            unwind: self.stacks.map(|_| unwind.to_string()),
            unwind_mb: self.unwinds.then_some(stack_table::MEGABYTES),
            served_mounts: None,
            causes_unknown: None,
        };
        let settings = vec![SETTINGS.record(&settings), system::scope(self.filter.as_deref())];
        let shown = self.recording.as_ref().map_or(EVENT, Recorded::table);
        let tables = (vec![self.by.schema()], self.verbose.then_some(shown));
        system::header("faults", NAME, tables, settings).begun(self.began_ns)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.sampler.fd())
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.take();
        self.show(events)?;
        if let Grouping::Stacks(stacks) = &mut self.census.groups {
            stacks.load_tables();
        }
        if let Grouping::Stacks(stacks) = &mut self.census.groups
            && stacks.want_naming()
        {
            self.read(false)?;
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        matches!(&self.census.groups, Grouping::Stacks(stacks) if stacks.have_work())
    }

    fn record(&mut self, events: Option<Box<dyn BatchSink>>) {
        let has_stacks = self.by.has_stacks();
        self.recording = events.map(|sink| Recorded::new(sink, Events::Faults, false, has_stacks));
        if let Grouping::Stacks(stacks) = &mut self.census.groups
            && self.recording.is_some()
        {
            stacks.record();
        }
    }

    fn snapshot(&mut self, all: bool) -> Result<Option<Block>> {
        if !self.detached {
            self.read(false)?;
        }
        Ok(Some(self.ledger.block(system::monotonic_ns(), all)))
    }

    fn facts(&mut self) -> Result<Counted> {
        let mut losses = Losses {
            dropped_records: Some(self.dropped),
            folded_rows: self.ledger.folded(),
            ..Losses::default()
        };
        if let Grouping::Stacks(stacks) = &self.census.groups {
            stacks.losses(&mut losses);
        }
        Ok(Counted {
            events: match (self.verbose, &self.recording) {
                (false, _) => Some(self.ledger.counted()),
                (true, recording) => recording.as_ref().map(|recording| recording.count),
            },
            lost_events: self.lost()?,
            sampled: 1,
            more: ROOTLESS_LOSSES.record(&losses),
        })
    }

    fn detach(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.sampler.stop();
        self.detached = true;
        self.read(true)?;
        if self.verbose {
            let lost = self.lost()?;
            let faults = &mut self.faults;
            self.census.missing(system::monotonic_ns(), lost, |fault| faults.push(fault.clone()));
        }
        self.show(events)
    }

    fn totals(&mut self) -> Block {
        self.ledger.block(system::monotonic_ns(), true)
    }
}

/// Takes what is in the rings. Where too many records wait already, those that come keep of their stacks no more than where the
/// fault was.
fn gather(sampler: &Sampler, waiting: &mut Vec<Record>) {
    let from = waiting.len().max(stack_table::COPIES);
    sampler.drain(waiting);
    for record in waiting.iter_mut().skip(from) {
        if let What::Faulted { stack: Some(copy), .. } = &mut record.what {
            copy.stack = vec![];
        }
    }
}

/// Turns the kernel's refusal into words that help.
fn explain(error: anyhow::Error, pid: Option<u32>) -> OpenError {
    let Some(io) = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()) else {
        return OpenError::Other(error);
    };
    if io.raw_os_error() == Some(libc::EMFILE) {
        let why = "too many threads for the limit of open files";
        return OpenError::Other(anyhow!("{why}; raise it with ulimit -n, or name fewer processes"));
    }
    if io.raw_os_error() == Some(libc::ENOSYS) {
        let remedy =
            "this kernel has no perf events, or a container blocks them; run outside of it, or as root";
        return OpenError::Refused(vec![refused(refusal(&error, remedy.into()))]);
    }
    if !is_refusal(io) {
        return OpenError::Other(error);
    }
    let owner = pid.and_then(|pid| fs::metadata(format!("/proc/{pid}")).ok()).map(|meta| meta.uid());
    if let (Some(pid), Some(owner)) = (pid, owner)
        && owner != geteuid().as_raw()
    {
        let why =
            format!("process {pid} belongs to uid {owner}, and this variant sees your own processes only");
        let remedy = "run as that user, or as root".into();
        return OpenError::Refused(vec![refused(Refusal { error: why, ..refusal(&error, remedy) })]);
    }
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    let remedy = match paranoid.trim().parse::<i32>() {
        Ok(level @ 3..) => format!(
            "kernel.perf_event_paranoid is {level}, which forbids perf events to users; `sysctl kernel.perf_event_paranoid=2` allows them, or run as root"
        ),
        _ => "a container's seccomp profile or a security module forbids it; allow perf_event_open, as --cap-add=PERFMON does, or run outside of it"
            .into(),
    };
    OpenError::Refused(vec![refused(refusal(&error, remedy))])
}
