//! What the kernel says of a process or a thread to everybody: /proc/PID/stat.

use std::fs::{self, File};
use std::io;
use std::ops::{Add, AddAssign};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use trapline_model::faults::{Process, Stats};

use crate::clock;

/// The kernel tells births in ticks of 10 ms on every machine (USER_HZ).
const TICK_NS: u64 = 10_000_000;

/// Faults, by the kernel's accounting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that waited for a disk.
    pub major: u64,
    /// The others.
    pub minor: u64,
}

impl Counts {
    /// One fault.
    pub fn of(major: bool) -> Self {
        Self { major: major.into(), minor: (!major).into() }
    }

    /// What is more in this than in the other, of each kind.
    pub fn beyond(self, other: Self) -> Self {
        Self { major: self.major.saturating_sub(other.major), minor: self.minor.saturating_sub(other.minor) }
    }

    /// Of each kind no more than the other has.
    pub fn at_most(self, other: Self) -> Self {
        Self { major: self.major.min(other.major), minor: self.minor.min(other.minor) }
    }

    /// Of both kinds.
    pub fn all(self) -> u64 {
        self.major + self.minor
    }

    /// As figures that have nothing else.
    pub fn stats(self) -> Stats {
        Stats { major: self.major, minor: self.minor, ..Stats::default() }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { major: self.major + other.major, minor: self.minor + other.minor }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub comm: String,
    /// Since its birth; of a process those of all threads that it ever had.
    pub faults: Counts,
    /// Of the children that a process has waited for, and of theirs.
    pub waited: Counts,
    /// Birth, ticks since the machine began.
    began: u64,
}

impl Task {
    /// Nothing if it has ended, and has been waited for.
    pub fn process(pid: u32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    /// Nothing if it has ended.
    pub fn thread(pid: u32, tid: u32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/task/{tid}/stat"))
    }

    fn read(path: &str) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(path).ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything.
        let (before, after) = text.rsplit_once(')')?;
        let (_, comm) = before.split_once('(')?;
        // Of proc_pid_stat(5)'s fields, the third and those that follow.
        let words: Vec<&str> = after.split_whitespace().collect();
        let word = |field: usize| words.get(field - 3)?.parse().ok();
        Some(Self {
            comm: comm.to_owned(),
            faults: Counts { minor: word(10)?, major: word(12)? },
            waited: Counts { minor: word(11)?, major: word(13)? },
            began: word(22)?,
        })
    }

    /// Its birth, the kernel's CLOCK_MONOTONIC nanoseconds: the tick before it.
    pub fn start_ns(&self) -> u64 {
        // By a clock that goes on while the machine is asleep. To the millisecond, or the two readings would show.
        let asleep_ms = clock::asleep_ns() / 1_000_000;
        // The clock is our time namespace's. A birth before its zero is told as a number close to 2^64 nanoseconds.
        let since_boot = self.began.wrapping_mul(TICK_NS).wrapping_sub(clock::ahead().boot_ns as u64);
        since_boot.saturating_sub(asleep_ms * 1_000_000)
    }

    /// Whether it is that process, and not another that was given its number. Another's birth is later; its own may be
    /// long before what was recorded of it, for its maker may lose the processor in between.
    pub fn is_of(&self, process: Process) -> bool {
        self.start_ns() <= process.start_ns + TICK_NS
    }
}

/// Whether all of a process has ended, and only its parent has not waited for it. One whose first thread alone has ended
/// goes on.
pub fn is_zombie(pid: u32) -> bool {
    has_ended(pid) && threads(pid).len() <= 1
}

/// Whether a thread has ended, and only the wait for it is missing.
pub fn has_ended(tid: u32) -> bool {
    let stat = fs::read(format!("/proc/{tid}/stat")).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// The threads that a process has.
pub fn threads(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A descriptor that becomes readable when the process ends.
#[allow(unsafe_code)]
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the arguments are numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A number that follows a name in one of the files that /proc has of a process.
///
/// # Errors
/// When it cannot be read: the process has ended.
pub fn number(file: &File, name: &str) -> io::Result<Option<u64>> {
    let mut bytes = [0; 8192];
    let len = file.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..len]);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.and_then(|rest| rest.trim_start_matches([' ', ':', '\t']).split(' ').next()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_do_not_shift_the_fields() {
        let text = "7 (a) R 1 (b)) S 1 7 7 0 -1 4194304 10 11 12 13 1 2 3 4 20 0 1 0 4321 9 9";
        let task = Task::parse(text).unwrap();
        assert_eq!(task.comm, "a) R 1 (b)");
        assert_eq!(task.faults, Counts { minor: 10, major: 12 });
        assert_eq!((task.waited, task.began), (Counts { minor: 11, major: 13 }, 4321));
        assert_eq!(Task::parse("7 (a) S 1"), None);
    }

    #[test]
    fn a_birth_is_near_what_was_seen_of_it() {
        let before = clock::monotonic_ns();
        let mut child = std::process::Command::new("sleep").arg("9").spawn().unwrap();
        let after = clock::monotonic_ns();
        let pid = child.id();
        let told = Task::process(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            (before - 2 * TICK_NS..=after + TICK_NS).contains(&told.start_ns()),
            "{before} {told:?} {after}"
        );
        let of = |start_ns| told.is_of(Process { pid, start_ns });
        assert!(of(after) && of(after + 1_000 * TICK_NS), "however late the record of it was");
        assert!(!of(before - 4 * TICK_NS), "one that was born before had the number before");
    }

    #[test]
    fn numbers_are_found() {
        let status = File::open("/proc/self/status").unwrap();
        assert_eq!(number(&status, "Pid:").unwrap(), Some(u64::from(std::process::id())));
        assert_eq!(number(&status, "Nothing:").unwrap(), None);
    }

    #[test]
    fn ones_own() {
        let pid = std::process::id();
        assert!(Task::process(pid).is_some_and(|task| task.faults.all() > 0));
        assert!(threads(pid).contains(&pid) && Task::thread(pid, pid).is_some());
        assert_eq!(Task::process(u32::MAX >> 1), None);
    }
}
