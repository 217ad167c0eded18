//! Which engine: the best that works, or the one that was asked for.

use std::fs;
use std::io;

use trapline_model::doctor::Refusal;

use super::numa;
use super::space::Engine;
use super::uffd::Features;

/// All engines, best first, as `--reset` knows them.
pub const ENGINES: &[&str] = &["rwp", "numa", "writes", "none"];

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
            other => {
                choice.refuse("rwp", other, "userfaultfd has no RWP_ASYNC here", "it came with Linux 7.3")
            }
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
                "userfaultfd has no WP_ASYNC here, and pages have no soft-dirty bit",
                "it came with Linux 6.7; older kernels need CONFIG_MEM_SOFT_DIRTY",
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
        let refusal = Refusal { errno, error, remedy: format!("{remedy}; use another engine") };
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
