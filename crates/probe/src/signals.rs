//! Signals that end a trace, as something to wait for.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use signal_hook::{flag, low_level::pipe};

/// The signals that somebody ends us by.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Whether one has come, and whether that means the end: a command decides about its own, until it has ended.
static CAME: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static ENDS: AtomicBool = AtomicBool::new(false);

/// Whether a signal has asked for the end: what takes long should stop.
pub(crate) fn is_asked_to_end() -> bool {
    ENDS.load(Ordering::Relaxed) && CAME.get().is_some_and(|came| came.load(Ordering::Relaxed))
}

/// From here on a signal can only mean that the end should come sooner.
pub(crate) fn end_by_any() {
    ENDS.store(true, Ordering::Relaxed);
}

/// Signals that have come and were not taken yet.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixStream,
    came: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    /// Catches them from here on. With `insist`, a second signal ends the process where it stands: it may be stuck in
    /// writing to somebody who does not read.
    pub(crate) fn catch(insist: bool) -> Result<Self> {
        let at_all = CAME.get_or_init(Arc::default);
        if insist {
            end_by_any();
        }
        let (wake, tell) = UnixStream::pair().context("cannot make a pair of sockets")?;
        wake.set_nonblocking(true)?;
        let mut came = Vec::new();
        for signal in ENDING {
            let again = Arc::new(AtomicBool::new(false));
            let here = Arc::new(AtomicBool::new(false));
            let number = signal as i32;
            if insist {
                flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))?;
                flag::register(number, again)?;
            }
            flag::register(number, Arc::clone(&here))?;
            flag::register(number, Arc::clone(at_all))?;
            pipe::register(number, tell.try_clone()?)?;
            came.push((signal, here));
        }
        Ok(Self { wake, came })
    }

    /// Becomes readable when a signal comes.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Those that came since the last call.
    pub(crate) fn take(&mut self) -> Vec<Signal> {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|n| n > 0) {}
        self.came
            .iter()
            .filter(|(_, here)| here.swap(false, Ordering::Relaxed))
            .map(|&(signal, _)| signal)
            .collect()
    }
}
