//! The kernel half of the access tool: the faults tool's probes for accesses, and its own for the lives of processes.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytemuck::{Zeroable, bytes_of};
use libbpf_rs::{MapHandle, OpenObject};
use trapline_model::faults::By;
use trapline_symbols::order;

use super::from_abi::{PageAccess, ProbeEvent, access, life};
use super::targets::Targets;
use super::{Options, Whose};
use crate::abi::maps::{MapName, access as maps, faults as faults_maps, shared};
use crate::abi::{AccessConfig, AccessLife, BY_PID, FaultsControl, FaultsEvent, FaultsLosses, TrapFilter};
use crate::compiled::Compiled;
use crate::elements::Elements;
use crate::faults::{Events, FaultsRecipe, Files, Kinds, MinorLatency, Stacks};
use crate::filter::Filter;
use crate::launch::Launch;
use crate::ring::Ring;
use crate::system;
use crate::variant::{self, Attached, OpenError, Recipe, Variant};

pub(crate) const OBJECT: Compiled = compiled!("access");

const LIVES: &[Variant] =
    &[Variant { name: "lives", ways: &[&["process_born", "process_execed", "process_ends"]] }];

/// Going through a map takes longer than reading the accesses of a millisecond.
const EMPTY_EVERY: Duration = Duration::from_millis(50);

/// What was lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Losses {
    pub(crate) events: u64,
    pub(crate) lives: u64,
    /// How often the kernel skipped a program that would have interrupted itself.
    pub(crate) missed: u64,
}

/// Both objects, attached.
#[derive(Debug)]
pub(crate) struct Probes {
    faults: Attached,
    lives: Attached,
    retired: Elements,
    emptied: Instant,
    files: Files,
    accesses: Ring<ProbeEvent>,
    begins: Ring<ProbeEvent>,
    /// What may not be the next.
    waiting: Vec<ProbeEvent>,
}

impl Probes {
    /// Attaches them for the processes that the options name.
    pub(crate) fn attach(
        options: &Options,
        targets: Option<&Targets>,
        launch: Option<&Launch>,
    ) -> Result<Self, OpenError> {
        let pids: Vec<u32> = match &options.whose {
            Whose::Processes { pids, .. } => pids.clone(),
            Whose::Named(_) | Whose::Command => launch.map(Launch::pid).into_iter().collect(),
        };
        let named = Filter { pids, ..Filter::default() };
        let filter = named.resolve()?;
        let recipe = FaultsRecipe {
            // Others join while it runs.
            filter: TrapFilter { by: BY_PID, ..filter },
            by: By::Thread,
            spans: Kinds::default(),
            stacks: Stacks::All,
            unwinds: false,
            copies: false,
            minor_latency: MinorLatency::Exact,
            events: Events::Faults,
            counts_only: false,
            seeing: true,
            split: false,
            ring_bytes: options.ring_bytes,
            causes: None,
        };
        let faults = variant::open(&recipe, options.variant.as_deref())?;
        let began_ns = launch.map_or_else(system::monotonic_ns, Launch::born_ns);
        faults.write(
            faults_maps::CONTROL,
            &FaultsControl { began_ns, adopted: 1, turn: 1, ..FaultsControl::zeroed() },
        )?;
        let lives = Lives {
            filter,
            pids: Some(faults.handle(shared::PIDS)?),
            targets,
            follow: !matches!(options.whose, Whose::Processes { children: false, .. }),
        };
        let lives = variant::open(&lives, None)?;
        named.fill(&faults, None)?;
        let accesses =
            Ring::new(&faults.handle(faults_maps::EVENTS)?, |event: &FaultsEvent| [access(event)])?;
        let begins = Ring::new(&lives.handle(maps::LIVES)?, |event: &AccessLife| life(event))?;
        let retired = Elements::open(&faults, faults_maps::RETIRED)?;
        let files = Files::open(&faults)?;
        Ok(Self { faults, lives, retired, emptied: Instant::now(), files, accesses, begins, waiting: vec![] })
    }

    pub(crate) fn variant(&self) -> &'static str {
        self.faults.variant
    }

    /// What was seen since the last call, in order of time.
    pub(crate) fn drain(&mut self) -> Result<Vec<ProbeEvent>> {
        let (accesses, begins) = (&self.accesses, &self.begins);
        // Lives last: whatever a process does comes after its beginning, so that none is without one.
        let mut read = Ok(());
        let seen = order::up_to_now(&mut self.waiting, ProbeEvent::time_ns, |seen| {
            read = accesses.drain(seen).and_then(|()| begins.drain(seen));
        });
        read?;
        // The faults tool's rows of ended threads are not wanted here.
        if self.emptied.elapsed() > EMPTY_EVERY {
            self.retired.take(|_| true).context("cannot read the BPF map of ended threads")?;
            self.emptied = Instant::now();
        }
        Ok(seen)
    }

    /// What was mapped where an access was, as the kernel saw it then, and where in that file, bytes.
    pub(crate) fn memory(&mut self, access: &PageAccess) -> Result<Option<(Rc<str>, Option<u64>)>> {
        let file = self.files.known(&access.memory)?;
        Ok(file.map(|file| (Rc::clone(&file.path), access.offset)))
    }

    /// Lets nothing further be seen.
    pub(crate) fn detach(&mut self) {
        self.faults.events.clear();
        self.lives.events.clear();
    }

    pub(crate) fn losses(&self) -> Result<Losses> {
        let events: FaultsLosses = self.faults.read(faults_maps::LOSSES)?;
        let missed = self.faults.missed(|_| true)? + self.lives.missed(|_| true)?;
        Ok(Losses { events: events.events, lives: self.lives.read(maps::LOST)?, missed })
    }

    /// Becomes readable when accesses wait.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.accesses.fd()
    }
}

/// The recipe for the lives of processes, of nobody's.
pub(crate) fn lives() -> impl Recipe {
    Lives { filter: TrapFilter::zeroed(), pids: None, targets: None, follow: false }
}

/// The lives of processes; the faults object's map of processes is kept by it.
struct Lives<'a> {
    /// Of which only our PID namespace matters.
    filter: TrapFilter,
    pids: Option<MapHandle>,
    targets: Option<&'a Targets>,
    follow: bool,
}

impl Recipe for Lives<'_> {
    fn object(&self) -> Compiled {
        OBJECT
    }

    fn variants(&self) -> &'static [Variant] {
        LIVES
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        let config = AccessConfig { follow: self.follow.into(), named: self.targets.is_some().into() };
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            match MapName(&name) {
                shared::FILTER => map.set_initial_value(bytes_of(&self.filter))?,
                maps::CONFIG => map.set_initial_value(bytes_of(&config))?,
                shared::PIDS => {
                    if let Some(pids) = &self.pids {
                        map.reuse_fd(pids.as_fd())?;
                    }
                }
                maps::TARGETS => {
                    if let Some(targets) = self.targets {
                        map.reuse_fd(targets.fd())?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::faults::SEES_EACH_FAULT;

    #[test]
    fn the_variants_that_see_are_those_with_probes() {
        assert!(SEES_EACH_FAULT.iter().all(|variant| variant.ways.iter().all(|way| !way.is_empty())));
        assert_eq!(SEES_EACH_FAULT.last().map(|variant| variant.name), Some("tracepoint"));
    }
}
