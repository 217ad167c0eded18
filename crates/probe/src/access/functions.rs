//! The functions of the instructions that access memory.

use anyhow::Result;
use trapline_model::faults::Process;
use trapline_symbols::{Image, Lives, Scope, Symbols};

/// Names the instructions of the processes that are traced, also of those that have ended.
#[derive(Debug)]
pub(crate) struct Functions {
    symbols: Symbols,
    lives: Lives,
}

impl Functions {
    /// Follows what processes map from now on, and looks at those that are there.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn watch(whose: Scope) -> Result<Self> {
        // Of everybody only those matter that become another program while we look.
        let wanted = !matches!(whose, Scope::All);
        let (mut lives, mut symbols) = (Lives::watch(whose)?, Symbols::new());
        if wanted {
            lives.adopt(&mut symbols);
        }
        Ok(Self { symbols, lives })
    }

    /// Before accesses are read: those of whoever is over by now are among them, or were before.
    pub(crate) fn settle(&mut self) {
        if self.lives.is_full_of_ended() {
            self.lives.settle();
        }
    }

    /// Learns what processes have mapped: before the accesses that were read are named.
    pub(crate) fn follow(&mut self) {
        self.lives.drain(&mut self.symbols);
    }

    /// Forgets who was over when that was settled.
    pub(crate) fn forget(&mut self) {
        self.lives.forget(&mut self.symbols, |_| false);
    }

    /// The function; without one, the file and where in it. Nothing if not even that is known.
    pub(crate) fn of(&mut self, pid: u32, time_ns: u64, ip: u64) -> Option<String> {
        let known = self.lives.at(pid, time_ns).map(|(image, _)| image);
        // Its birth was not seen: it may still be there to be asked.
        let image = known.unwrap_or_else(|| Image::from(Process { pid, start_ns: 0 }));
        let names = self.symbols.resolve(image, &[ip]);
        let name = names.first().filter(|name| name.functions.is_ok() || name.module.is_some())?;
        Some(name.to_string())
    }

    /// How many records of births, programs and mappings had no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lives.lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system;

    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn ones_own_function_and_nothing_at_all() {
        let own = std::process::id();
        let mut functions = Functions::watch(Scope::These([own].into())).unwrap();
        let here = ones_own_function_and_nothing_at_all as fn() as usize as u64;
        let now = system::monotonic_ns();
        let name = functions.of(own, now, here).unwrap();
        assert!(name.contains("ones_own_function_and_nothing_at_all"), "{name}");
        assert_eq!(functions.of(own, now, 8), None);
        assert_eq!(functions.of(u32::MAX >> 1, now, here), None);
        assert_eq!(functions.lost(), 0);
    }
}
