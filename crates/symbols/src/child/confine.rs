//! The cage: what the symbolizer gives up before it reads anything.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::RawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Gid, Uid, getppid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::privilege::{self, Keep};

/// The user and group `nobody`, as the kernel has it for ids that it cannot show (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65534;

/// Memory for what is made of files, bytes: the lines of a program with a gigabyte of debug information take a tenth.
pub(super) const MEMORY: u64 = 1 << 30;

/// Addresses, bytes: those files themselves, as many as are open at a time, which take no memory that others need.
pub(super) const ADDRESSES: u64 = 16 << 30;

/// Descriptors: a socket, standard output and error, what is opened before, and the file that comes with a request.
const DESCRIPTORS: u64 = 16;

/// Gives up everything but standard input, which is the socket. What comes back tells how much memory is used.
///
/// # Errors
/// When something cannot be given up: then nothing may be read.
pub(super) fn confine() -> Result<Option<File>> {
    let parent = getppid();
    close_from(3);
    let memory = File::open("/proc/self/statm").ok();
    // A stack that is too deep, and a file that was truncated, are to be told apart from a lack of memory.
    for fatal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: the default is what it was before this program began.
        unsafe { signal(fatal, SigHandler::SigDfl) }?;
    }
    for (what, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_DATA, MEMORY),
        (Resource::RLIMIT_AS, ADDRESSES),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ] {
        // It may be lower already.
        let limit = getrlimit(what).map_or(limit, |(_, hard)| hard.min(limit));
        setrlimit(what, limit, limit).with_context(|| format!("cannot limit {what:?}"))?;
    }
    become_nobody().context("cannot change to user nobody")?;
    privilege::restrict(Keep::NOTHING).context("cannot drop capabilities")?;
    prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    prctl::set_dumpable(false).context("cannot clear the dumpable flag")?;
    // Another user forgets it, so it is set again; and whoever started us may have ended before.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot set the parent-death signal")?;
    if getppid() != parent {
        anyhow::bail!("trapline has ended");
    }
    seccompiler::apply_filter(&filter()?).context("cannot set the seccomp filter")?;
    Ok(memory)
}

fn close_from(first: RawFd) {
    // SAFETY: nothing of this program has a descriptor yet but the first three.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    // Before Linux 5.9.
    for fd in first..1024 {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// In a user namespace that has no nobody, root stays what it is there: without capabilities it is nobody elsewhere.
fn become_nobody() -> Result<(), Errno> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let allowed = |result: Result<(), Errno>| match result {
        Err(Errno::EPERM | Errno::EINVAL) => Ok(()),
        other => other,
    };
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    allowed(setgroups(&[]))?;
    allowed(setresgid(gid, gid, gid))?;
    allowed(setresuid(uid, uid, uid))
}

/// What reading mapped files and answering takes. Everything else fails with EPERM.
fn filter() -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_close,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigaction,
        libc::SYS_sigaltstack,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_restart_syscall,
        libc::SYS_getpid,
        libc::SYS_gettid,
    ]
    .into_iter()
    .map(|call| (call, vec![]))
    .collect();
    // Memory that is executed stays what it was.
    let executable = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let none = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![none])?]);
    }
    // How a program of Rust's and C's libraries aborts; nobody else is signalled.
    let own = u64::from(std::process::id());
    let own = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter =
        SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}
