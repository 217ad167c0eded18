//! The engines, and which is taken: the best that works, or the one that was asked for.

use std::fs;
use std::io;

use trapline_model::doctor::Refusal;
use trapline_symbols::maps::Mapping;
use trapline_symbols::privilege::Keep;

use super::numa;
use super::uffd::{Features, Mode};

/// All engines, best first, as `--reset` knows them.
pub const ENGINES: &[&str] = &["rwp", "numa", "writes", "none"];

/// How page-table entries are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// userfaultfd: reads and writes, or where that cannot be only writes.
    Rwp(Features),
    /// The kernel's NUMA balancing: reads and writes.
    Numa,
    /// userfaultfd: writes.
    Writes(Features),
    /// `clear_refs`: writes.
    SoftDirty,
    /// Not at all: first touches only.
    None,
}

impl Engine {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rwp(_) => "rwp",
            Self::Numa => "numa",
            Self::Writes(_) | Self::SoftDirty => "writes",
            Self::None => "none",
        }
    }

    /// What it takes to go on once it has begun.
    pub fn keeps(self) -> Keep {
        Keep::READING
            .and(Keep::PAGES)
            .and_if(Keep::SETTINGS, self == Self::Numa)
            .and_if(Keep::CLEARING, self == Self::SoftDirty)
    }

    /// Whether it puts a userfaultfd over the memory.
    pub fn has_userfaultfd(self) -> bool {
        matches!(self, Self::Rwp(_) | Self::Writes(_))
    }

    /// Whether page tables are reset at all.
    pub fn has_rounds(self) -> bool {
        self != Self::None
    }

    /// Whether a page that was accessed before may look to the processor as if it were not there.
    pub fn hides_pages(self) -> bool {
        matches!(self, Self::Rwp(_) | Self::Numa)
    }

    /// How a mapping can be watched, best first; not at all if empty.
    pub(crate) fn modes(self, mapping: &Mapping) -> &'static [Mode] {
        match self {
            Self::Rwp(_) if !mapping.readable && !mapping.writable => &[],
            Self::Rwp(features) if features.wp && mapping.writable => &[Mode::Rwp, Mode::Wp],
            Self::Rwp(_) => &[Mode::Rwp],
            Self::Writes(_) if mapping.writable => &[Mode::Wp],
            _ => &[],
        }
    }

    /// Whether a mapping may be taken under control together with its neighbours of which the same is true, watched or
    /// not.
    pub(crate) fn joins(self, mapping: &Mapping) -> bool {
        // Memory that allows nothing the kernel does not take in this mode.
        let is_refused = matches!(self, Self::Rwp(_)) && !mapping.readable && !mapping.writable;
        mapping.is_private_memory() && !is_refused
    }
}

/// The engines that work on this kernel, best first, and why the others do not.
#[derive(Debug)]
pub struct Choice {
    usable: Vec<Engine>,
    refused: Vec<(&'static str, Refusal)>,
}

impl Choice {
    /// Tries them.
    pub fn examine() -> Self {
        let mut choice = Self { usable: vec![], refused: vec![] };
        let features = Features::probe();
        match &features {
            Ok(features) if features.rwp => choice.usable.push(Engine::Rwp(*features)),
            other => choice.refuse("rwp", other, "userfaultfd lacks RWP_ASYNC", "use Linux 7.3 or later"),
        }
        let numa = numa::examine();
        if let Ok(true) = numa {
            choice.usable.push(Engine::Numa);
        }
        match &features {
            Ok(features) if features.wp => {
                choice.usable.push(Engine::Writes(Features { rwp: false, ..*features }));
            }
            _ if has_soft_dirty() => choice.usable.push(Engine::SoftDirty),
            other => choice.refuse(
                "writes",
                other,
                "userfaultfd lacks WP_ASYNC, and pages have no soft-dirty bit",
                "use Linux 6.7 or later, or CONFIG_MEM_SOFT_DIRTY",
            ),
        }
        match numa {
            Ok(true) => {}
            // Where its period is a second or more, it is for those who ask for it.
            Ok(false) => choice.usable.push(Engine::Numa),
            Err(refusal) => choice.refused.push(("numa", refusal)),
        }
        choice.usable.push(Engine::None);
        choice
    }

    /// The engines to try: the one asked for, or all that work.
    ///
    /// # Errors
    /// When the one asked for does not work here.
    pub fn of(self, wanted: Option<&str>) -> Result<Vec<Engine>, Vec<(&'static str, Refusal)>> {
        let Some(name) = wanted else { return Ok(self.usable) };
        let usable: Vec<_> = self.usable.into_iter().filter(|engine| engine.name() == name).collect();
        if usable.is_empty() {
            return Err(self.refused.into_iter().filter(|(engine, _)| *engine == name).collect());
        }
        Ok(usable)
    }

    fn refuse(&mut self, variant: &'static str, tried: &io::Result<Features>, lacks: &str, remedy: &str) {
        let (errno, error) = match tried {
            Ok(_) => (None, lacks.to_owned()),
            Err(error) => (
                error.raw_os_error().map(|e| format!("{:?}", nix::errno::Errno::from_raw(e))),
                format!("userfaultfd: {error}"),
            ),
        };
        let refusal = Refusal { errno, error, remedy: remedy.to_owned() };
        self.refused.push((variant, refusal));
    }
}

/// Every engine, in the order in which they are tried here, and why it cannot be used if it cannot.
#[must_use]
pub fn engines() -> Vec<(&'static str, Option<Refusal>)> {
    let Choice { usable, mut refused } = Choice::examine();
    let mut refusal = |name: &str| {
        let at = refused.iter().position(|(engine, _)| *engine == name)?;
        Some(refused.swap_remove(at).1)
    };
    let at = |name: &str| usable.iter().position(|engine| engine.name() == name);
    let mut names = ENGINES.to_vec();
    if let (Some(numa), Some(writes)) = (at("numa"), at("writes"))
        && writes < numa
    {
        names.swap(1, 2);
    }
    names.into_iter().map(|name| (name, refusal(name))).collect()
}

/// Whether the kernel tracks written pages. Pages that were never cleared are all soft-dirty where it does.
fn has_soft_dirty() -> bool {
    // "sd" is among the flags of a mapping only where the kernel has been built with it.
    fs::read_to_string("/proc/self/smaps").is_ok_and(|smaps| {
        smaps.lines().any(|l| l.strip_prefix("VmFlags:").is_some_and(|f| f.split(' ').any(|f| f == "sd")))
    })
}
