//! Page accesses: the faults of the processes followed, which the engines in here make happen.
//!
//! The faults are seen by the probes of the faults tool; `bpf/access.bpf.c` follows the lives of the processes; a
//! thread of ours resets page tables in `rounds`.

mod from_abi;
mod functions;
mod give_way;
mod options;
mod prepared;
mod probes;
mod target;
mod targets;

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::prctl::set_thp_disable;
use trapline_model::access::{
    Coverage, EVENT, REACHED, Reached, SETTINGS, Settings, Step, TOTAL, Tally, What,
};
use trapline_model::{Block, Event, Header};
use trapline_reset::{
    Balance, Budget, Engine, GiveWay, Given, Injector, Lock, Notice, Order, Rounds, TargetMemory,
};
pub use trapline_reset::{ENGINES, engines};
use trapline_symbols::maps::Maps;
use trapline_symbols::privilege::Keep;

use self::functions::Functions;
pub use self::options::{Options, Whose};
pub use self::prepared::{Prepared, Restored, changed_settings, repair, unavailable};
#[cfg(test)]
pub(crate) use self::probes::OBJECT;
pub(crate) use self::probes::lives;

use self::from_abi::{Begin, Life, PageAccess, ProbeEvent};
use self::probes::Probes;
use self::target::Target;
pub use self::targets::Targets;
use crate::launch::Launch;
use crate::run::{Counted, Tool};
use crate::variant::OpenError;
use crate::{capacity, signals, system};

/// How long names are waited for at a time: accesses are read in between.
const NAMES_WAIT: Duration = Duration::from_millis(5);

/// The tool, attached.
#[derive(Debug)]
pub struct Access {
    probes: Probes,
    rounds: Rounds,
    engine: Engine,
    every: Duration,
    first_touch: bool,
    /// Of the processes that were there at the start.
    sight: Option<Coverage>,
    targets: HashMap<u32, Target>,
    /// What happened before the first event.
    steps: Vec<Step>,
    ended: Vec<(u32, String, Tally)>,
    budget: Option<Budget>,
    unseen: u64,
    refused: u64,
    /// Accesses are read until then, at the end; and how many were not.
    read_until: Option<Instant>,
    unread: u64,
    /// How many processes have a userfaultfd of their own, and those of which that was not told yet.
    gave_way: u64,
    given: Vec<u32>,
    names: Option<Targets>,
    functions: Option<Functions>,
    max_overhead: Option<f64>,
    /// Whose accesses, in words.
    filter: String,
    /// Memory that the target can have, bytes.
    memory_bytes: Option<u64>,
    /// What is changed on the machine, in words.
    changed: Vec<String>,
    /// Why it cannot go on.
    broken: Option<anyhow::Error>,
    _lock: Lock,
}

impl Access {
    /// Attaches, and takes the processes that are there under control.
    ///
    /// # Errors
    /// [`OpenError`] when no variant or not the engine asked for can be used, or what is to be traced does not exist.
    pub fn open(options: &Options, prepared: Prepared, launch: Option<&Launch>) -> Result<Self, OpenError> {
        let names = match &options.whose {
            Whose::Named(names) => Some(Targets::with(names)?),
            _ => None,
        };
        let probes = Probes::attach(options, names.as_ref(), launch)?;
        let Prepared { lock, injector, engines, mut balance, mut changed } = prepared;
        if launch.is_some() {
            // Only the command was meant.
            let _ = set_thp_disable(false);
        }
        let mut targets = HashMap::new();
        let functions = if options.symbols {
            let whose = match (&options.whose, launch) {
                (Whose::Processes { pids, children: false }, _) => {
                    trapline_symbols::Scope::These(pids.iter().copied().collect())
                }
                (Whose::Processes { pids, .. }, _) => {
                    trapline_symbols::Scope::Tree(pids.iter().copied().collect())
                }
                (Whose::Command, Some(launch)) => trapline_symbols::Scope::Tree([launch.pid()].into()),
                (Whose::Command | Whose::Named(_), _) => trapline_symbols::Scope::All,
            };
            Some(Functions::watch(whose)?)
        } else {
            None
        };
        let mut steps = Vec::new();
        let (mut sight, mut spaces) = (None, vec![]);
        let mut engine = engines[0];
        let mut give_way = None;
        if let Whose::Processes { pids, .. } = &options.whose {
            let mut coverage = Coverage::default();
            let taken;
            (engine, taken) = take(pids, &engines, &injector, &mut give_way).map_err(denied)?;
            if engine == Engine::Numa {
                balance = Some(Balance::begin(options.every, &injector)?);
            }
            for mut space in taken {
                space.learn(balance.as_ref());
                let maps =
                    Maps::read(space.pid).map_err(|error| trapline_reset::unreadable(space.pid, error))?;
                let of = space.cover(&maps);
                coverage.add(&of);
                let mut target = Target::new(space.pid, maps);
                space.pages(&target.maps, |addr| {
                    target.pages.insert(addr, target.maps.find(addr).map(|mapping| mapping.inode));
                });
                steps.push(target.step(What::Start, system::monotonic_ns()));
                targets.insert(space.pid, target);
                spaces.push((space, of));
            }
            sight = Some(coverage);
            if let Some(balance) = &mut balance {
                balance
                    .follow(spaces.iter().filter_map(|(space, _)| space.scanned.as_ref()), options.every)?;
            }
        }
        changed.extend(names.as_ref().and_then(Targets::mounted).map(str::to_owned));
        changed.extend(balance.as_ref().map(Balance::words));
        if engine.has_userfaultfd() && give_way.is_none() {
            give_way = Some(give_way::begin()?);
        }
        let rounds = Rounds::start(engine, options.every, injector, spaces, balance, give_way)?;
        let budget = options.max_overhead.map(|share| Budget::new(share, options.every));
        Ok(Self {
            probes,
            rounds,
            engine,
            every: options.every,
            first_touch: options.first_touch,
            sight,
            targets,
            steps,
            ended: vec![],
            budget,
            unseen: 0,
            refused: 0,
            read_until: None,
            unread: 0,
            gave_way: 0,
            given: vec![],
            names,
            functions,
            max_overhead: options.max_overhead,
            filter: options.whose.words(),
            memory_bytes: capacity::memory(options.whose.pid().or(launch.map(Launch::pid))),
            changed,
            broken: None,
            _lock: lock,
        })
    }

    /// Whether pages are reset, so that accesses after the first are seen.
    #[must_use]
    pub fn resets(&self) -> bool {
        self.engine != Engine::None
    }

    /// What it takes to go on.
    #[must_use]
    pub fn keeps(&self) -> Keep {
        self.engine.keeps().and_if(Keep::NAMES, self.functions.is_some())
    }

    fn lives(&mut self, life: &Life) {
        let Life { time_ns, pid, .. } = *life;
        match life.what {
            Begin::Fork => {
                let parent = self.targets.get(&life.parent);
                let target = parent.map_or_else(|| Target::new(pid, Maps::default()), |p| p.child(pid));
                self.targets.insert(pid, target.named(&life.comm));
                // In its parent's memory it has nothing of its own that could be reset.
                if !life.borrows {
                    self.rounds.tell(Order::BeginSoon(pid));
                }
            }
            Begin::Exec => {
                let mut target = Target::new(pid, Maps::read(pid).unwrap_or_default()).named(&life.comm);
                if let Some(before) = self.targets.remove(&pid) {
                    target.tally = before.tally;
                }
                self.steps.push(Step {
                    cpu: Some(life.cpu),
                    tid: life.tid,
                    ..target.step(What::Start, time_ns)
                });
                self.targets.insert(pid, target);
                self.rounds.tell(Order::Begin(pid));
            }
            Begin::End => {
                self.given_way();
                self.rounds.tell(Order::End(pid));
                if let Some(target) = self.targets.remove(&pid) {
                    self.steps.push(Step {
                        cpu: Some(life.cpu),
                        tid: life.tid,
                        ..target.step(What::End, time_ns)
                    });
                    self.ended.push((pid, target.comm, target.tally));
                }
            }
        }
    }

    /// Tells of which processes nothing is reset any more. Of one that has just begun this may be known before its beginning.
    fn given_way(&mut self) {
        self.given.extend(self.rounds.given.iter().flat_map(Given::take));
        let (targets, steps) = (&self.targets, &mut self.steps);
        let before = self.given.len();
        self.given.retain(|pid| {
            let Some(target) = targets.get(pid) else { return true };
            let note = "none: the process has a userfaultfd of its own, and trapline closed its own";
            let step = target.step(What::Engine, system::monotonic_ns());
            steps.push(Step { note: Some(note.into()), ..step });
            false
        });
        self.gave_way += (before - self.given.len()) as u64;
    }

    fn notices(&mut self) {
        while let Ok(notice) = self.rounds.notices.try_recv() {
            let (pid, note) = match notice {
                Notice::Began { pid, stopped_ns, coverage } => {
                    let stood = match stopped_ns {
                        0 => String::new(),
                        ns => format!("; stopped for {} us", ns / 1000),
                    };
                    (pid, format!("{}: {}{stood}", self.engine.name(), coverage.words()))
                }
                Notice::Refused { pid, why } => {
                    // One that has ended meanwhile has not been refused anything.
                    if !self.targets.contains_key(&pid) || Maps::read(pid).is_err() {
                        continue;
                    }
                    self.refused += 1;
                    (pid, format!("none: {why}"))
                }
                Notice::Balance(error) => {
                    self.broken = Some(error);
                    continue;
                }
            };
            if let Some(target) = self.targets.get(&pid) {
                let step = target.step(What::Engine, system::monotonic_ns());
                self.steps.push(Step { note: Some(note), ..step });
            }
        }
    }

    fn access(&mut self, access: &PageAccess) -> Result<()> {
        let Some(addr) = access.addr else {
            self.unseen += access.count;
            return Ok(());
        };
        let Some(target) = self.targets.get_mut(&access.pid) else { return Ok(()) };
        if target.notice(access, addr) {
            self.rounds.tell(Order::Look(access.pid));
        }
        let absent_is_new = !self.engine.hides_pages();
        let first = target.is_first(access, addr, absent_is_new);
        if first && !self.first_touch {
            return Ok(());
        }
        target.tally.count(access.way, first, access.latency_ns);
        let mut page = target.page(access, addr, first);
        // The process, or the mapping, was gone before it could be looked at.
        if page.file.is_none()
            && let Some((path, offset)) = self.probes.memory(access)?
        {
            (page.file, page.offset) = (Some(path.to_string()), offset);
        }
        self.steps.push(Target::access(access, page));
        Ok(())
    }
}

impl Tool for Access {
    fn header(&self) -> Header {
        let settings = Settings {
            reset: self.engine.name(),
            every_ns: self.every.as_nanos() as u64,
            max_overhead_percent: self.max_overhead.map(|share| (share * 100.0).round() as u64),
            symbols: self.functions.is_some(),
            changed: Some(self.changed.join("; ")).filter(|words| !words.is_empty()),
            sight: self.sight.as_ref().map(Coverage::words),
            memory_bytes: self.memory_bytes,
        };
        let tables = (vec![TOTAL], Some(EVENT));
        let settings = vec![SETTINGS.record(&settings), system::scope(Some(&self.filter))];
        system::header("access", self.probes.variant(), tables, settings)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.probes.fd())
    }

    fn has_work(&self) -> bool {
        self.functions.as_ref().is_some_and(Functions::have_work)
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        if let Some(functions) = &mut self.functions {
            functions.settle();
        }
        let seen = self.probes.drain()?;
        if let Some(functions) = &mut self.functions {
            functions.follow();
        }
        for seen in seen {
            match seen {
                ProbeEvent::Life(life) => self.lives(&life),
                ProbeEvent::Access(_) if self.read_until.is_some_and(|until| Instant::now() >= until) => {
                    self.unread += 1;
                }
                ProbeEvent::Access(access) => self.access(&access)?,
            }
        }
        for target in self.targets.values_mut() {
            if target.catch_up() {
                self.rounds.tell(Order::Look(target.pid));
            }
        }
        self.notices();
        self.given_way();
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if let Some(budget) = &mut self.budget {
            let cost = self.targets.values().map(|t| (t.pid, t.tally.fault_ns));
            if let Some(every) = budget.period(cost) {
                self.rounds.figures.every_ns.store(every.as_nanos() as u64, Ordering::Relaxed);
            }
        }
        match &mut self.functions {
            Some(functions) => {
                functions.put(self.steps.drain(..));
                events
                    .extend(functions.take(Instant::now() + NAMES_WAIT, false).into_iter().map(Step::event));
            }
            None => events.extend(self.steps.drain(..).map(Step::event)),
        }
        Ok(())
    }

    fn snapshot(&mut self, _all: bool) -> Result<Option<Block>> {
        Ok(None)
    }

    fn facts(&mut self) -> Result<Counted> {
        let mut sum = Tally::default();
        let living = self.targets.values().map(|target| target.tally);
        self.ended.iter().map(|(.., tally)| *tally).chain(living).for_each(|tally| sum += tally);
        let losses = self.probes.losses()?;
        let figures = &self.rounds.figures;
        let reached = figures.reached();
        Ok(Counted {
            events: Some(sum.accesses),
            lost_events: losses.events + self.unread,
            sampled: 1,
            more: REACHED.record(&Reached {
                unlocated_faults: self.unseen,
                lost_process_events: losses.lives,
                dropped_mapping_records: self.functions.as_ref().map_or(0, Functions::lost),
                missed_programs: losses.missed,
                refused_processes: self.refused,
                unreset_processes: self.gave_way,
                conflicting_registrations: figures.late.load(Ordering::Relaxed),
                rounds: reached.rounds,
                period_ns: reached.mean_ns,
                period_p99_ns: reached.p99_ns,
                period_max_ns: reached.max_ns,
                reset_ns: figures.busy_ns.load(Ordering::Relaxed),
                fault_ns: sum.fault_ns,
                unwatched_bytes: figures.unseen_bytes.load(Ordering::Relaxed),
            }),
        })
    }

    fn detach(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.rounds.stop();
        self.probes.detach();
        self.read_until = signals::read_until();
        self.drain(events)?;
        if let Some(functions) = &mut self.functions {
            events.extend(functions.take(signals::end_by(), true).into_iter().map(Step::event));
        }
        if self.names.take().is_some() {
            targets::restore()?;
        }
        Ok(())
    }

    fn totals(&mut self) -> Block {
        let ended = self.ended.iter().map(|(pid, comm, tally)| (*pid, comm, tally));
        let living = self.targets.values().map(|target| (target.pid, &target.comm, &target.tally));
        let rows = ended.chain(living).map(|(pid, comm, tally)| tally.record(pid, comm)).collect();
        Block::new(TOTAL, system::monotonic_ns(), rows)
    }
}

/// An error that privileges would mend is one of this machine, not of the run.
fn denied(error: anyhow::Error) -> OpenError {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(denied) { OpenError::Unavailable(error) } else { OpenError::Other(error) }
}

/// Takes processes under control by the first engine that works for all of them.
fn take(
    pids: &[u32],
    engines: &[Engine],
    injector: &Injector,
    give_way: &mut Option<GiveWay>,
) -> Result<(Engine, Vec<TargetMemory>)> {
    let mut refusal = None;
    for (at, &engine) in engines.iter().enumerate() {
        if engine.has_userfaultfd() && give_way.is_none() {
            match give_way::begin() {
                Ok(begun) => *give_way = Some(begun),
                Err(error) => {
                    refusal = refusal.or(Some(error.into()));
                    continue;
                }
            }
        }
        let open = |&pid| TargetMemory::open(pid, engine, injector, give_way.as_ref());
        match pids.iter().map(open).collect::<Result<Vec<TargetMemory>>>() {
            // Another engine does not stand in its way; where there is none it is not reset.
            Ok(spaces) if spaces.iter().any(TargetMemory::gave_way) && at + 1 < engines.len() => {}
            Ok(spaces) => return Ok((engine, spaces)),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| anyhow::anyhow!("no engine can reset this process")))
}

/// The recipes of its own object.
#[cfg(test)]
pub(crate) fn recipes() -> (impl crate::variant::Recipe, impl crate::variant::Recipe) {
    (lives(), give_way::Own)
}
