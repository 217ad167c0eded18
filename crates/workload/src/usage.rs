//! The kernel's own account of page faults, per thread and per process.

use std::io;
use std::ops::{Add, AddAssign, Sub};

use nix::sys::resource::{UsageWho, getrusage};

/// Page faults by kind, as `getrusage` counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Faults that had to wait for input or output.
    pub major: u64,
    /// Faults that did not.
    pub minor: u64,
}

impl Faults {
    /// Both kinds together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.major + self.minor
    }

    /// The faults of the calling thread since it started.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    #[inline(never)]
    pub fn of_thread() -> io::Result<Self> {
        Self::of(UsageWho::RUSAGE_THREAD)
    }

    /// The faults of the calling process since it started, by all its threads, ended ones included.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    #[inline(never)]
    pub fn of_process() -> io::Result<Self> {
        Self::of(UsageWho::RUSAGE_SELF)
    }

    fn of(who: UsageWho) -> io::Result<Self> {
        let usage = getrusage(who)?;
        Ok(Self {
            major: u64::try_from(usage.major_page_faults()).unwrap_or(0),
            minor: u64::try_from(usage.minor_page_faults()).unwrap_or(0),
        })
    }
}

impl Add for Faults {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { major: self.major + other.major, minor: self.minor + other.minor }
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What lies between two readings of a counter that only grows; never below 0.
impl Sub for Faults {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            major: self.major.saturating_sub(earlier.major),
            minor: self.minor.saturating_sub(earlier.minor),
        }
    }
}

impl std::iter::Sum for Faults {
    fn sum<I: Iterator<Item = Self>>(faults: I) -> Self {
        faults.fold(Self::default(), Add::add)
    }
}
