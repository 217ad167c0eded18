//! The function that a fault came from, by where its thread was in user mode: in a system call, what called it.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use trapline_model::faults::Process;
use trapline_symbols::{Image, Lives, Name, Scope, Symbols};

use crate::abi::{self, FaultsEvent};

/// How long events wait for the names in them that are of files of other users.
const NAMES_WAIT: Duration = Duration::from_secs(1);

/// What processes are, and the names of what is in them.
#[derive(Debug)]
pub(super) struct Code {
    lives: Lives,
    symbols: Symbols,
}

impl Code {
    /// Of these processes.
    pub(super) fn watch(whose: Scope) -> Result<Self> {
        let mut symbols = Symbols::new();
        let mut lives = Lives::watch(whose)?;
        lives.adopt(&mut symbols);
        Ok(Self { lives, symbols })
    }

    /// Learns what has happened up to now. Events that are named then have come before.
    pub(super) fn follow(&mut self) {
        self.lives.drain(&mut self.symbols);
        self.symbols.wait_for(NAMES_WAIT);
    }

    /// These events have their names. What ended before those of the last time is not asked for any more, but for what is
    /// kept.
    pub(super) fn forget(&mut self, is_kept: impl Fn(Image) -> bool) {
        if self.lives.is_full_of_ended() {
            self.lives.forget(&mut self.symbols, is_kept);
            self.lives.settle();
        }
    }

    /// What a fault's process was when it faulted, and the instruction in it; nothing if the thread never was in user mode.
    pub(super) fn place(&self, fault: &FaultsEvent) -> Option<(Image, u64)> {
        let process = Process { pid: fault.pid, start_ns: fault.process_start_ns };
        let image = self.lives.at(fault.pid, fault.time_ns).map(|(image, _)| image);
        (fault.user_ip != abi::NONE).then(|| (image.unwrap_or_else(|| Image::from(process)), fault.user_ip))
    }

    /// What is known of an instruction.
    pub(super) fn name(&mut self, image: Image, ip: u64) -> Option<Rc<Name>> {
        self.symbols.resolve(image, &[ip]).pop()
    }
}
