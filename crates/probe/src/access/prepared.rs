//! What comes before a trace: the lock, what a killed tracer left, and what a command must be born with.

use anyhow::{Result, anyhow};
use nix::sys::prctl::set_thp_disable;

use trapline_model::doctor::Refusal;
use trapline_reset::{Balance, Choice, Denied, Engine, Injector, Lock, knobs};

use super::{Options, Whose, probes, targets};
use crate::system;
use crate::variant::{self, OpenError, Recipe, Refused};

/// What must be done before there are threads or a command.
#[derive(Debug)]
pub struct Prepared {
    pub(super) lock: Lock,
    pub(super) injector: Injector,
    /// To be tried, best first.
    pub(super) engines: Vec<Engine>,
    pub(super) balance: Option<Balance>,
    /// What is changed on the machine, in words.
    pub(super) changed: Vec<String>,
}

impl Prepared {
    /// Takes the lock, puts back what a killed tracer has left, and starts the process that makes system calls in
    /// others. What a command must be born with is there when this returns.
    ///
    /// # Errors
    /// [`OpenError`] when not the engine asked for can be used, another tracer is at work, or we may not.
    pub fn new(options: &Options) -> Result<Self, OpenError> {
        // Before anything is changed for an engine.
        if !system::has_bpf_privilege() {
            return Err(OpenError::Unavailable(anyhow!(
                "cannot trace page accesses: no privilege to load BPF programs; {}",
                system::privilege_remedy()
            )));
        }
        // First: what is open when it is forked it holds too, and a tracer that is killed must let go of the lock.
        let injector = Injector::start()?;
        let lock = Lock::take()?;
        let mut changed: Vec<String> =
            restore()?.iter().map(|left| format!("restored what a killed trapline left: {left}")).collect();
        let engines = Choice::examine().of(options.reset.as_deref()).map_err(refused)?;
        let mut balance = None;
        if engines[0] == Engine::Numa && !matches!(options.whose, Whose::Processes { .. }) {
            balance = Some(Balance::begin(options.every, &injector)?);
            // A child has it from us, and keeps it as it becomes a program; where it fails a page is a large one.
            if options.whose == Whose::Command && set_thp_disable(true).is_ok() {
                changed.push("huge pages are off for the command".into());
            }
        }
        Ok(Self { lock, injector, engines, balance, changed })
    }
}

fn refused(engines: Vec<(&'static str, Refusal)>) -> OpenError {
    let refused = engines.into_iter().map(|(variant, mut refusal)| {
        refusal.remedy.push_str("; or leave out --reset");
        Refused { variant, refusal }
    });
    OpenError::Refused(refused.collect())
}

impl From<Denied> for OpenError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Privilege(error) => Self::Unavailable(error),
            Denied::Other(error) => Self::Other(error),
        }
    }
}

/// Something that a killed tracer had changed, and that is as it was again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// A name that it put into the list of targets.
    Target(String),
    /// A setting of the kernel's, and its value.
    Setting(&'static str, u64),
}

impl std::fmt::Display for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Target(name) => write!(f, "removed {name} from the list of targets"),
            Self::Setting(name, value) => write!(f, "set {name} back to {value}"),
        }
    }
}

fn restore() -> Result<Vec<Restored>> {
    let mut restored: Vec<_> = targets::restore()?.into_iter().map(Restored::Target).collect();
    restored.extend(knobs::restore()?.into_iter().map(|(name, value)| Restored::Setting(name, value)));
    Ok(restored)
}

/// Settings of the kernel's that a tracer has changed and not put back yet: one that runs, or one that was killed.
/// Names, and what they were.
#[must_use]
pub fn changed_settings() -> Vec<(&'static str, u64)> {
    knobs::left()
}

/// Puts back what a tracer that was killed has left: the names it put into the list of targets, and the settings of
/// the kernel's balancing. Nothing else of what a tracer does outlives it. Tells what was put back.
///
/// # Errors
/// When a tracer is at work, or we may not.
pub fn repair() -> Result<Vec<Restored>, OpenError> {
    let _lock = Lock::take()?;
    Ok(restore()?)
}

/// Why no engine is of use here, whichever works: we may not take the lock, or not follow processes.
#[must_use]
pub fn unavailable() -> Option<Refusal> {
    if let Err(error) = Lock::is_possible().map_err(OpenError::from) {
        const REMEDY: &str = "run as root";
        let error = format!("{error:#}").replace(&format!("; {REMEDY}"), "");
        return Some(Refusal { errno: None, error, remedy: REMEDY.into() });
    }
    let lives = probes::lives();
    lives.variants().iter().find_map(|of| variant::try_variant(&lives, of).err())
}
