//! How long a process that injects waits, and what becomes of it when its parent ends.

#![allow(unsafe_code)]

use std::os::raw::c_int;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Pid, getppid};

/// How often a wait is interrupted, to see whether it has taken too long, microseconds.
const TICK_US: libc::suseconds_t = 10_000;

/// From now on this process dies with its parent.
pub(crate) fn die_with(parent: Pid) {
    set_death_signal(libc::SIGKILL);
    if getppid() != parent {
        // SAFETY: ends the process; nothing of the parent's is to be cleaned up here.
        unsafe { libc::_exit(1) }
    }
}

/// From now on it is only told that its parent has ended: it must put back what it has changed.
pub(crate) fn hear_of_death() {
    set_death_signal(libc::SIGTERM);
}

/// Whether it was told so, or to end. The signal is blocked.
pub(crate) fn is_orphaned() -> bool {
    // SAFETY: the set is a value of ours, filled by the call.
    unsafe {
        let mut pending = std::mem::zeroed();
        libc::sigpending(&raw mut pending) == 0 && libc::sigismember(&raw const pending, libc::SIGTERM) == 1
    }
}

fn set_death_signal(signal: c_int) {
    // SAFETY: numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

extern "C" fn nothing(_: c_int) {}

/// Has every wait interrupted again and again: it sees the time pass.
pub(crate) fn tick() {
    let ticks = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    let every = libc::timeval { tv_sec: 0, tv_usec: TICK_US };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the handler does nothing; the timer is a value of ours.
    unsafe {
        let _ = sigaction(Signal::SIGALRM, &ticks);
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
    let _ = SigSet::from(Signal::SIGALRM).thread_unblock();
}
