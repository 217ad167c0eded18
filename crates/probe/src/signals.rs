//! Signals as something to wait for: those that end a trace, and those that a command is to get from us.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use signal_hook::flag;
use signal_hook_registry::{register, register_sigaction};
use trapline_symbols::ending;
pub(crate) use trapline_symbols::ending::end_by_any;

use crate::{inherited, system, terminal};

/// The signals that somebody ends us by.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The end is to come within a second: it was asked for, by a signal or by a duration.
static IS_WAITED_FOR: AtomicBool = AtomicBool::new(false);
/// How long it may take, where nobody waits for it, to look for what makes the last figures more readable; and where somebody does.
const LAST: [Duration; 2] = [Duration::from_secs(10), Duration::from_millis(250)];

/// How long events may still be read then: they are to be written, too.
const LAST_EVENTS: Duration = Duration::from_millis(400);

/// Up to when events may be read, now that the end has come: nothing if nobody waits for it.
pub(crate) fn read_until() -> Option<Instant> {
    let is_waited_for = IS_WAITED_FOR.load(Ordering::Relaxed) || ending::is_asked_to_end();
    is_waited_for.then(|| Instant::now() + LAST_EVENTS)
}

/// Somebody waits for the end.
pub(crate) fn wait_for_the_end() {
    IS_WAITED_FOR.store(true, Ordering::Relaxed);
}

/// Up to when names may be looked for, now that the end has come.
pub(crate) fn end_by() -> Instant {
    Instant::now() + LAST[usize::from(IS_WAITED_FOR.load(Ordering::Relaxed) || ending::is_asked_to_end())]
}

/// What comes to us and is meant for the command: whoever sends it knows our id only.
const FOR_A_COMMAND: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// In place of the id of a process, which is 0 for one outside of our PID namespace.
const KERNEL: i32 = -1;

/// How long a request to end waits to be taken when a second one comes, by a process or by a key, if nobody takes them any
/// more: we are stuck in writing to somebody who does not read. Keys have longer: a command may want several.
const STUCK: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3)];

/// A signal that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) signal: Signal,
    /// The process that sent it; none if the kernel did: a terminal's key, a hangup, a timer.
    pub(crate) sender: Option<i32>,
}

/// Signals that have come and were not taken yet.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixDatagram,
    tally: Arc<Tally>,
}

/// What a handler knows of the signals that end us.
#[derive(Debug, Default)]
struct Tally {
    came: AtomicU32,
    taken: AtomicU32,
    /// When the first of those that were not taken came, CLOCK_MONOTONIC nanoseconds.
    first_ns: AtomicU64,
    /// The command that is killed if we are stuck; 0: there is none (any more).
    command: AtomicI32,
}

impl Tally {
    /// Notes one that comes now. Tells since when one has been waiting, if any has.
    fn note(&self, now_ns: u64, is_told: bool) -> Option<Duration> {
        let waits = self.came.load(Ordering::Relaxed) != self.taken.load(Ordering::Relaxed);
        self.came.fetch_add(is_told.into(), Ordering::Relaxed);
        if waits {
            return Some(Duration::from_nanos(now_ns.saturating_sub(self.first_ns.load(Ordering::Relaxed))));
        }
        self.first_ns.store(now_ns, Ordering::Relaxed);
        None
    }
}

impl Signals {
    /// Catches them from here on: those that end us, or those that are for this command. One that insists ends the process
    /// where it stands if that is stuck, and the command with it.
    pub(crate) fn catch(command: Option<u32>) -> Result<Self> {
        let at_all = ending::came();
        if command.is_none() {
            end_by_any();
        }
        let (wake, tell) = UnixDatagram::pair().context("cannot make a pair of sockets")?;
        wake.set_nonblocking(true)?;
        let tell = Arc::new(tell);
        let caught = if command.is_some() { &FOR_A_COMMAND[..] } else { &ENDING[..] };
        let tally = Tally { command: AtomicI32::new(command.unwrap_or(0) as i32), ..Tally::default() };
        let signals = Self { wake, tally: Arc::new(tally) };
        for &signal in caught {
            let number = signal as i32;
            // Who was started by nohup stays at a hangup; what a shell without job control ignores cannot stop us.
            if [Signal::SIGHUP, Signal::SIGTSTP].contains(&signal) && inherited::ignored(number) {
                continue;
            }
            if command.is_none() {
                // Before anything can end us.
                // SAFETY: it makes system calls and changes atomic numbers.
                unsafe { register(number, terminal::end) }.context("cannot catch a signal")?;
                // A second one does not wait for anything.
                let again = Arc::new(AtomicBool::new(false));
                flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))?;
                flag::register(number, again)?;
            }
            if ENDING.contains(&signal) {
                flag::register(number, Arc::clone(at_all))?;
            }
            signals.register(signal, Arc::clone(&tell))?;
        }
        // Whoever started us may have blocked them; for the command, they still are.
        caught.iter().copied().collect::<SigSet>().thread_unblock()?;
        Ok(signals)
    }

    /// None of them: another catches them.
    pub(crate) fn uncaught() -> Result<Self> {
        let (wake, _) = UnixDatagram::pair().context("cannot make a pair of sockets")?;
        Ok(Self { wake, tally: Arc::default() })
    }

    fn register(&self, signal: Signal, tell: Arc<UnixDatagram>) -> Result<()> {
        let tally = Arc::clone(&self.tally);
        let came = move |info: &libc::siginfo_t| {
            // SAFETY: what a process has sent holds its id; what the kernel has sent has a code above 0.
            let sender = if info.si_code > 0 { KERNEL } else { unsafe { info.si_pid() } };
            let message = [(signal as i32).to_ne_bytes(), sender.to_ne_bytes()];
            let bytes = size_of_val(&message);
            // SAFETY: an open descriptor, and as many bytes as said.
            let sent =
                unsafe { libc::send(tell.as_raw_fd(), message.as_ptr().cast(), bytes, libc::MSG_DONTWAIT) };
            if !ENDING.contains(&signal) {
                return;
            }
            let waits = tally.note(system::monotonic_ns(), sent == bytes as isize);
            let command = tally.command.load(Ordering::Relaxed);
            let is_stuck = waits.is_some_and(|waits| waits > STUCK[usize::from(sender == KERNEL)]);
            if is_stuck && command > 0 {
                // SAFETY: the command was not waited for, so that its id is its own; nothing is left to be done here.
                unsafe {
                    libc::kill(command, libc::SIGKILL);
                    libc::_exit(128 + signal as i32);
                }
            }
        };
        // SAFETY: the action makes system calls and changes atomic numbers: it may interrupt whatever it likes.
        unsafe { register_sigaction(signal as i32, came) }.context("cannot catch a signal")?;
        Ok(())
    }

    /// Becomes readable when a signal comes.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Those that came since the last call, in order.
    pub(crate) fn take(&mut self) -> Vec<Came> {
        let mut came = Vec::new();
        let mut message = [0; 8];
        while self.wake.recv(&mut message).is_ok_and(|n| n == message.len()) {
            let number = |at: usize| {
                message[at..].first_chunk().map_or(0, |bytes: &[u8; 4]| i32::from_ne_bytes(*bytes))
            };
            if let Ok(signal) = Signal::try_from(number(0)) {
                self.tally.taken.fetch_add(ENDING.contains(&signal).into(), Ordering::Relaxed);
                came.push(Came { signal, sender: Some(number(4)).filter(|&sender| sender != KERNEL) });
            }
        }
        came
    }

    /// The command is waited for now, and its id may then be somebody else's.
    pub(crate) fn forget_command(&self) {
        self.tally.command.store(0, Ordering::Relaxed);
    }
}

/// Stops, as SIGTSTP stops a process that does not catch it, and returns when it is continued.
pub(crate) fn stop() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code, and the one that was there comes back.
    unsafe {
        if let Ok(ours) = sigaction(Signal::SIGTSTP, &default) {
            let _ = raise(Signal::SIGTSTP);
            let _ = sigaction(Signal::SIGTSTP, &ours);
        }
    }
}
