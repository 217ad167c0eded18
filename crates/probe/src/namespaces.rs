//! Namespaces: in which of them we are that are not the initial ones, and what follows for ids, times and cgroups.
//!
//! In a PID namespace the kernel half gives every id as the namespace has it, and follows nothing that is outside. Times
//! are the kernel's own CLOCK_MONOTONIC everywhere; what leaves trapline is told by the clock that we read (live.rs).

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, anyhow};
use bytemuck::{Zeroable, pod_read_unaligned};
use libbpf_rs::Iter;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use trapline_symbols::clock;

use crate::abi::maps::namespaces as maps;
use crate::abi::{Namespaces, TrapFilter};
use crate::compiled::Compiled;
use crate::refusal;
use crate::variant::{OpenError, Refused};

/// The kernel half.
pub(crate) const OBJECT: Compiled = compiled!("namespaces");

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cgroup,
    Pid,
    Time,
    User,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Pid, Self::Cgroup, Self::Time, Self::User];

    /// Its name in /proc/PID/ns, and the inode number of the initial one, which never moved (include/linux/proc_ns.h).
    fn file(self) -> (&'static str, u64) {
        match self {
            Self::Cgroup => ("cgroup", 0xeffffffb),
            Self::Pid => ("pid", 0xeffffffc),
            Self::Time => ("time", clock::INITIAL_TIME_NAMESPACE),
            Self::User => ("user", 0xeffffffd),
        }
    }

    fn inode(self) -> Option<u64> {
        fs::metadata(format!("/proc/self/ns/{}", self.file().0)).ok().map(|meta| meta.ino())
    }

    /// Whether we are in the initial one; so we are where the kernel has none of the kind.
    pub(crate) fn is_initial(self) -> bool {
        self.inode().is_none_or(|inode| inode == self.file().1)
    }

    /// What is not as it is outside.
    fn cost(self) -> &'static str {
        match self {
            Self::Cgroup => "paths of cgroups begin at its root, those of cgroups outside with /..",
            Self::Pid => "ids are its own, and processes outside of it are not seen",
            Self::Time => "times are of its clocks",
            Self::User => {
                "its root has no privilege over the machine, and can trace only page faults of its own processes"
            }
        }
    }
}

/// The namespaces that are not the initial ones: their names, and what that costs.
pub(crate) fn entered() -> Vec<(&'static str, &'static str)> {
    let all = Kind::ALL.into_iter().filter(|kind| !kind.is_initial());
    all.map(|kind| (kind.file().0, kind.cost())).collect()
}

/// Why numbers in /proc would not be what they seem, and what to do about it.
pub(crate) fn problem() -> Option<(&'static str, &'static str)> {
    let foreign = "/proc belongs to another PID namespace than trapline, so process ids do not match";
    let mount = "mount -t proc proc /proc, or unshare with --mount-proc";
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return Some(match statfs("/proc") {
            Ok(fs) if fs.filesystem_type() == PROC_SUPER_MAGIC => (foreign, mount),
            _ => ("/proc is not mounted", "mount -t proc proc /proc"),
        });
    };
    // Our numbers, from the PID namespace that /proc was mounted for down to our own.
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    if numbers.is_some_and(|numbers| numbers.split_whitespace().count() > 1) {
        return Some((foreign, mount));
    }
    clock::clocks().is_none().then_some((
        "cannot read the offsets of this time namespace: trapline's children will be in another one",
        "start trapline in a new process: unshare with --fork",
    ))
}

/// Refuses where process ids or times would be others'.
///
/// # Errors
/// When they would be.
pub(crate) fn check() -> Result<(), OpenError> {
    problem().map_or(Ok(()), |(why, remedy)| Err(OpenError::Unavailable(anyhow!("{why}: {remedy}"))))
}

/// What the kernel half has to know to tell ids as our PID namespace has them, and nothing more.
///
/// # Errors
/// [`OpenError::Refused`] when the kernel does not let us find out.
pub(crate) fn ids() -> Result<TrapFilter, OpenError> {
    if Kind::Pid.is_initial() {
        return Ok(TrapFilter::zeroed());
    }
    let refused = |error: anyhow::Error| {
        OpenError::Refused(vec![Refused { variant: "namespaces", refusal: refusal::explain(&error) }])
    };
    let own = read(None).context("cannot identify the PID namespace").map_err(refused)?;
    Ok(TrapFilter {
        pid_level: own.pid_level,
        pid_inum: Kind::Pid.inode().unwrap_or(0) as u32,
        numbers: own.numbers,
        ..TrapFilter::zeroed()
    })
}

/// What the kernel knows of our namespaces, and of the cgroup with that directory.
///
/// # Errors
/// When the kernel does not let us ask.
pub(crate) fn read(directory: Option<BorrowedFd<'_>>) -> Result<Namespaces> {
    let mut object = OBJECT.open()?;
    let fd = directory.map_or(-1, |fd| fd.as_raw_fd());
    for mut map in object.maps_mut().filter(|map| map.name() == maps::DIRECTORY.0) {
        map.set_initial_value(&fd.to_ne_bytes())?;
    }
    let object = object.load()?;
    let program = object.progs_mut().next().context("the BPF object has no program")?;
    let link = program.attach()?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut Iter::new(&link)?, &mut bytes)?;
    let own = bytes.get(..size_of::<Namespaces>()).context("the kernel showed no task")?;
    Ok(pod_read_unaligned(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_initial_namespaces_are_those_of_the_first_process() {
        // Without privilege they cannot be seen; in a container it is in the same ones.
        let first = |name| fs::metadata(format!("/proc/1/ns/{name}")).ok().map(|meta| meta.ino());
        for kind in Kind::ALL {
            let Some(inode) = first(kind.file().0) else { continue };
            let own = kind.inode();
            assert!(own != Some(inode) || !Kind::Pid.is_initial() || kind.is_initial(), "{kind:?}");
        }
    }
}
