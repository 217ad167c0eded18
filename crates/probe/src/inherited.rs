//! What this process was started with, of which a command gets back what has been changed since: by Rust's runtime (it
//! ignores SIGPIPE and opens what was closed of the standard streams), by libraries (limits) and by ourselves.

#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

/// Signals are 1 to 64.
const SIGNALS: libc::c_int = 64;
/// Bytes of the kernel's own signal set.
const SET: usize = 8;
/// RLIMIT_CPU to RLIMIT_RTTIME.
const LIMITS: usize = 16;

struct Start {
    noted: AtomicBool,
    blocked: AtomicU64,
    ignored: AtomicU64,
    /// What comes when the parent dies (prctl); 0: nothing.
    at_parents_death: AtomicI32,
    /// Standard streams, a bit each.
    closed: AtomicU64,
    /// The soft and the hard one.
    limits: [[AtomicU64; 2]; LIMITS],
}

static START: Start = Start {
    noted: AtomicBool::new(false),
    blocked: AtomicU64::new(0),
    ignored: AtomicU64::new(0),
    at_parents_death: AtomicI32::new(0),
    closed: AtomicU64::new(0),
    limits: [const { [const { AtomicU64::new(0) }; 2] }; LIMITS],
};

// SAFETY: libc calls what this section holds once, before main and before Rust's runtime; note() needs neither.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = note;

/// `struct sigaction` as the kernel has it: libc's leaves out the signals that it needs itself.
#[repr(C)]
#[derive(Default)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

impl Action {
    fn of(signal: libc::c_int) -> Option<Self> {
        let mut action = Self::default();
        // SAFETY: the action is to be filled, and is as large as the kernel's.
        let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, 0, &raw mut action, SET) };
        (done == 0).then_some(action)
    }

    fn set(handler: usize, signal: libc::c_int) {
        let action = Self { handler, ..Self::default() };
        // SAFETY: the action outlives the call, and its handler is one of the kernel's two.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, 0, SET) };
    }
}

fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

extern "C" fn note() {
    let (mut blocked, mut ignored, mut closed) = (0u64, 0, 0);
    // SAFETY: the set is to be filled, and is as large as said.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, &raw mut blocked, SET) };
    for signal in 1..=SIGNALS {
        if Action::of(signal).is_some_and(|action| action.handler == libc::SIG_IGN) {
            ignored |= bit(signal);
        }
    }
    for fd in 0..3 {
        // SAFETY: numbers.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            closed |= 1 << fd;
        }
    }
    for (resource, limit) in START.limits.iter().enumerate() {
        let now = limit_of(resource, None).unwrap_or([libc::RLIM_INFINITY; 2]);
        limit[0].store(now[0], Relaxed);
        limit[1].store(now[1], Relaxed);
    }
    let mut at_parents_death = 0;
    // SAFETY: a number, and one to be filled.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut at_parents_death) };
    START.at_parents_death.store(at_parents_death, Relaxed);
    START.blocked.store(blocked, Relaxed);
    START.ignored.store(ignored, Relaxed);
    START.closed.store(closed, Relaxed);
    START.noted.store(true, Relaxed);
    if ignored & bit(libc::SIGCHLD) != 0 {
        // Or children would end without a status.
        Action::set(libc::SIG_DFL, libc::SIGCHLD);
    }
}

/// Gives a limit, after setting it if it is to be another one.
fn limit_of(resource: usize, to: Option<[u64; 2]>) -> io::Result<[u64; 2]> {
    let mut now = [0u64; 2];
    let to = to.as_ref().map_or(std::ptr::null(), |to| to.as_ptr());
    // SAFETY: both are pairs of 64-bit numbers, as the kernel has them, and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, to, now.as_mut_ptr()) };
    if done == 0 { Ok(now) } else { Err(io::Error::last_os_error()) }
}

/// Whether a signal was ignored when we were started: nohup, or a shell that starts something in the background.
pub(crate) fn ignored(signal: libc::c_int) -> bool {
    START.ignored.load(Relaxed) & bit(signal) != 0
}

/// Limits, standard streams and what is ignored as they were at the start; no signal has a handler any more. To be called
/// between fork and exec: it makes system calls only.
pub(crate) fn restore() -> io::Result<()> {
    if !START.noted.load(Relaxed) {
        return Ok(());
    }
    for signal in (1..=SIGNALS).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let handler = if ignored(signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        if Action::of(signal).is_some_and(|action| action.handler != handler) {
            Action::set(handler, signal);
        }
    }
    for (resource, limit) in START.limits.iter().enumerate() {
        let before = [limit[0].load(Relaxed), limit[1].load(Relaxed)];
        if limit_of(resource, None)? != before {
            limit_of(resource, Some(before))?;
        }
    }
    for fd in (0..3).filter(|fd| START.closed.load(Relaxed) & (1 << fd) != 0) {
        // SAFETY: a number; it is open on /dev/null, which nobody in this process uses.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// The last of it, which nothing may follow but exec. What a change of the user or a fork takes away is there again, and
/// what was blocked at the start is blocked, and nothing else: what has come meanwhile takes its effect now.
pub(crate) fn finish() {
    let at_parents_death = START.at_parents_death.load(Relaxed);
    if at_parents_death != 0 {
        // SAFETY: numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, at_parents_death) };
    }
    let blocked = START.blocked.load(Relaxed);
    let how = libc::SIG_SETMASK;
    // SAFETY: the set outlives the call, and is as large as said.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const blocked, 0, SET) };
}
