//! What the kernel says of a process or a thread to everybody: /proc/PID/stat.

use std::fs;
use std::ops::{Add, AddAssign};

use nix::time::{ClockId, clock_gettime};
use trapline_model::faults::Stats;

/// Faults, by the kernel's accounting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) major: u64,
    pub(super) minor: u64,
}

impl Counts {
    pub(super) fn of(major: bool) -> Self {
        Self { major: major.into(), minor: (!major).into() }
    }

    /// What is more in this than in the other, of each kind.
    pub(super) fn beyond(self, other: Self) -> Self {
        Self { major: self.major.saturating_sub(other.major), minor: self.minor.saturating_sub(other.minor) }
    }

    /// Of each kind no more than the other has.
    pub(super) fn at_most(self, other: Self) -> Self {
        Self { major: self.major.min(other.major), minor: self.minor.min(other.minor) }
    }

    pub(super) fn all(self) -> u64 {
        self.major + self.minor
    }

    pub(super) fn stats(self) -> Stats {
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
pub(super) struct Task {
    pub(super) comm: String,
    /// Since its birth; of a process those of all threads that it ever had.
    pub(super) faults: Counts,
    /// Of the children that a process has waited for, and of theirs.
    pub(super) waited: Counts,
    /// Birth, ticks since the machine began.
    began: u64,
}

impl Task {
    /// Nothing if it has ended, and has been waited for.
    pub(super) fn process(pid: u32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    pub(super) fn thread(pid: u32, tid: u32) -> Option<Self> {
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

    /// Its birth, CLOCK_MONOTONIC nanoseconds, to the tick.
    pub(super) fn start_ns(&self) -> u64 {
        // The kernel tells it in ticks of 10 ms on every machine (USER_HZ), by a clock that goes on in suspension.
        let since_boot = self.began * 10_000_000;
        let now = |clock| clock_gettime(clock).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec());
        let asleep = now(ClockId::CLOCK_BOOTTIME) - now(ClockId::CLOCK_MONOTONIC);
        // To the millisecond, or the two readings of the clock would show.
        since_boot.saturating_sub(asleep as u64 / 1_000_000 * 1_000_000)
    }
}

/// The threads that a process has.
pub(super) fn threads(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
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
    fn ones_own() {
        let pid = std::process::id();
        assert!(Task::process(pid).is_some_and(|task| task.faults.all() > 0));
        assert!(threads(pid).contains(&pid) && Task::thread(pid, pid).is_some());
        assert_eq!(Task::process(u32::MAX >> 1), None);
    }
}
