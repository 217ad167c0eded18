//! The functions of the instructions that access memory.

use std::collections::HashMap;

use trapline_model::faults::Process;

use crate::symbols::{Image, Symbols};

/// Names the instructions of the processes that are traced.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    symbols: Symbols,
    /// How often each process has called exec.
    execs: HashMap<u32, u32>,
}

impl Functions {
    /// A process runs a program from here on: what it has mapped is remembered, as it may soon end.
    pub(crate) fn begin(&mut self, pid: u32) {
        self.symbols.forget(self.image(pid));
        *self.execs.entry(pid).or_default() += 1;
        self.symbols.know(self.image(pid));
    }

    /// It has ended, and its number may be used again.
    pub(crate) fn end(&mut self, pid: u32) {
        self.symbols.forget(self.image(pid));
        self.execs.remove(&pid);
    }

    /// The function; without one, the file and where in it. Nothing if not even that is known.
    pub(crate) fn of(&mut self, pid: u32, ip: u64) -> Option<String> {
        let image = self.image(pid);
        let names = self.symbols.resolve(image, &[ip]);
        let name = names.first().filter(|name| name.functions.is_ok() || name.module.is_some())?;
        Some(name.to_string())
    }

    fn image(&self, pid: u32) -> Image {
        // Whose number it is the tracer knows from its lives: its birth need not be compared.
        let execs = self.execs.get(&pid).copied().unwrap_or(0);
        Image { process: Process { pid, start_ns: 0 }, execs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_function_and_nothing_at_all() {
        let mut functions = Functions::default();
        let own = std::process::id();
        functions.begin(own);
        let here = ones_own_function_and_nothing_at_all as fn() as usize as u64;
        let name = functions.of(own, here).unwrap();
        assert!(name.contains("ones_own_function_and_nothing_at_all"), "{name}");
        assert_eq!(functions.of(own, 8), None);
        functions.end(own);
        assert_eq!(functions.of(u32::MAX >> 1, here), None);
    }
}
