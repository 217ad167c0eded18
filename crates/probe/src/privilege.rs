//! What trapline may do once it is attached: what reading takes, and no more.

#![allow(unsafe_code)]

use std::fs;
use std::io;

use crate::system;

/// include/uapi/linux/capability.h
const CAP_CHOWN: u32 = 0;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_FOWNER: u32 = 3;
const CAP_KILL: u32 = 5;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYSLOG: u32 = 34;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const CAP_CHECKPOINT_RESTORE: u32 = 40;
/// More than there are.
const CAP_END: u32 = 64;

/// _LINUX_CAPABILITY_VERSION_3
const VERSION: u32 = 0x2008_0522;

/// What is still to be done.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Addresses are named: other users' memory is looked at, their files are opened, and a process without privileges is
    /// started that reads them.
    pub names: bool,
    /// A file is made at the end, where its name may belong to another user.
    pub files: bool,
}

impl Keep {
    fn capabilities(self) -> u64 {
        // Maps are read, on a processor that nobody takes away meanwhile; a command is sent the signals that come.
        let mut kept = vec![CAP_BPF, CAP_PERFMON, CAP_SYS_NICE, CAP_KILL];
        // Processes are looked at in /proc, also those of other users.
        kept.push(CAP_SYS_PTRACE);
        if self.names {
            kept.extend([CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE, CAP_SYSLOG]);
        }
        if self.files {
            kept.extend([CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN]);
        }
        kept.into_iter().map(|cap| 1 << cap).sum()
    }
}

/// Drops all other capabilities, and those that this process could come by again in executing a program: of these the
/// process that reads other users' files needs two, to become nobody.
///
/// # Errors
/// When the kernel refuses that, or another thread keeps more.
pub fn drop_all_but(keep: Keep) -> io::Result<()> {
    // Answered by what we may now.
    system::shows_kernel_addresses();
    let kept = keep.capabilities();
    restrict(kept, kept | if keep.names { 1 << CAP_SETUID | 1 << CAP_SETGID } else { 0 })?;
    for task in fs::read_dir("/proc/self/task")? {
        // One that has ended keeps nothing.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        if system::effective(&status) & !kept != 0 {
            return Err(io::Error::other("another thread keeps its capabilities"));
        }
    }
    Ok(())
}

/// The same of a thread that does nothing but live as long as we do: its end is a signal to the command.
pub(crate) fn drop_all_but_signals() -> io::Result<()> {
    restrict(1 << CAP_KILL, 1 << CAP_KILL)
}

/// Of this thread.
fn restrict(kept: u64, executed: u64) -> io::Result<()> {
    for cap in (0..CAP_END).filter(|cap| executed & (1 << cap) == 0) {
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
    Ok(())
}
