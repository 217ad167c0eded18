//! What trapline may do once it is attached: what reading takes, and no more.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};

/// include/uapi/linux/capability.h
const CAP_CHOWN: u32 = 0;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_FOWNER: u32 = 3;
const CAP_KILL: u32 = 5;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYSLOG: u32 = 34;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const CAP_CHECKPOINT_RESTORE: u32 = 40;
/// More than there are.
const CAP_END: u32 = 64;

/// _LINUX_CAPABILITY_VERSION_3
const VERSION: u32 = 0x2008_0522;

/// What is still to be done, and the capabilities that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    kept: u64,
    /// What a program that is executed may have, beside those.
    executed: u64,
}

impl Keep {
    /// Maps are read, on a processor that nobody takes away meanwhile; a command is sent the signals that come; processes,
    /// also those of other users, are looked at in /proc.
    pub const READING: Self = Self::of(&[CAP_BPF, CAP_PERFMON, CAP_SYS_NICE, CAP_KILL, CAP_SYS_PTRACE]);
    /// Addresses are named: other users' memory is looked at, their files are opened, and a process without privileges is
    /// started that reads them, which becomes nobody.
    pub const NAMES: Self = Self {
        executed: Self::of(&[CAP_SETUID, CAP_SETGID]).kept,
        ..Self::of(&[CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE, CAP_SYSLOG])
    };
    /// A file is made at the end, where its name may belong to another user.
    pub const FILES: Self = Self::of(&[CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN]);

    /// Page maps and lists of descriptors of other users' processes are read.
    pub const PAGES: Self = Self::of(&[CAP_DAC_READ_SEARCH]);
    /// Soft-dirty bits of other users' processes are cleared: that is a file to write to.
    pub const CLEARING: Self = Self::of(&[CAP_DAC_OVERRIDE]);
    /// Settings of the kernel's NUMA balancing are changed, and put back.
    pub const SETTINGS: Self = Self::of(&[CAP_SYS_ADMIN]);
    /// Threads of other users are stopped, and their memory is read; seccomp is suspended, which takes CAP_SYS_ADMIN.
    pub const INJECTING: Self = Self::of(&[CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH]);
    /// A command's end is waited for, and is a signal to it.
    pub const SIGNALS: Self = Self::of(&[CAP_KILL]);
    /// Nothing that takes a capability.
    pub const NOTHING: Self = Self::of(&[]);

    const fn of(capabilities: &[u32]) -> Self {
        let (mut kept, mut at) = (0, 0);
        while at < capabilities.len() {
            kept |= 1 << capabilities[at];
            at += 1;
        }
        Self { kept, executed: 0 }
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { kept: self.kept | other.kept, executed: self.executed | other.executed }
    }

    /// This, and the other if there is a reason.
    #[must_use]
    pub const fn and_if(self, other: Self, reason: bool) -> Self {
        if reason { self.and(other) } else { self }
    }
}

/// Drops all other capabilities, of all threads, and those that this process could come by again in executing a program.
///
/// # Errors
/// When the kernel refuses that, or another thread keeps more.
pub fn drop_all_but(keep: Keep) -> io::Result<()> {
    restrict(keep)?;
    for task in fs::read_dir("/proc/self/task")? {
        // One that has ended keeps nothing.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        if effective(&status) & !keep.kept != 0 {
            return Err(io::Error::other("another thread keeps its capabilities"));
        }
    }
    Ok(())
}

/// The effective capabilities that a thread's status tells.
pub fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Starts a thread that keeps only this: it has dropped the rest when this returns. `prepare` is what it does before.
///
/// # Errors
/// When there can be no further thread, or the kernel refuses to drop what it has.
pub fn spawn(
    thread: Builder,
    keep: Keep,
    prepare: impl FnOnce() + Send + 'static,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (dropped, wait) = channel();
    let thread = thread.spawn(move || {
        prepare();
        let restricted = restrict(keep);
        let goes_on = restricted.is_ok();
        let _ = dropped.send(restricted);
        if goes_on {
            work();
        }
    })?;
    wait.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
    Ok(thread)
}

/// Drops all other capabilities of this thread.
///
/// # Errors
/// When the kernel refuses that.
pub fn restrict(keep: Keep) -> io::Result<()> {
    let Keep { kept, executed } = keep;
    for cap in (0..CAP_END).filter(|cap| (kept | executed) & (1 << cap) == 0) {
        // It fails where there is no such capability, and where we lack CAP_SETPCAP: executing a program gives those
        // nothing that have not been root.
        // SAFETY: the arguments are numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(cap), 0, 0, 0) };
    }
    // SAFETY: the arguments are numbers.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let header = [VERSION, 0];
    let mut sets = [0u32; 6];
    // SAFETY: the header is of version 3, which has two structures of three words; zero is this thread.
    if unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for (word, kept) in [(0, kept as u32), (3, (kept >> 32) as u32)] {
        // Effective, permitted, inheritable.
        sets[word] &= kept;
        sets[word + 1] &= kept;
        sets[word + 2] = 0;
    }
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if executed == 0 {
        // Nothing is executed any more. Not there before Linux 3.5.
        let _ = nix::sys::prctl::set_no_new_privs();
    }
    Ok(())
}
