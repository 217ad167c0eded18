//! Programs that trap on purpose, and know how often they did.
//!
//! A monitor of page faults is checked against a program whose faults are known. This crate holds five:
//! [`data`] makes a file, [`mmap`] reads one through a memory mapping in a chosen order, [`faults`] makes an exact
//! number of page faults, [`touch`] touches given pages at given times, and [`guest`] is a virtual machine that takes
//! an exact number of exits. Each returns a report with what it did, those that fault with the major and minor faults
//! of each thread by the kernel's own accounting; [`report`] prints those as text or as JSON lines.

pub mod cache;
pub mod crew;
pub mod data;
pub mod faults;
#[cfg(target_arch = "x86_64")]
pub mod guest;
pub mod map;
pub mod mmap;
pub mod pattern;
mod progress;
pub mod report;
pub mod touch;
pub mod usage;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Options out of their range, or that cannot be had together.
#[derive(Debug)]
pub struct Unfit(String);

impl Unfit {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// What the work needs is not on this machine, or not for us.
#[derive(Debug)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// How a run is watched and ended from outside.
#[derive(Debug, Default)]
pub struct Control {
    /// Set to end the work early; the report then covers what was done and says that it was interrupted.
    pub stop: Arc<AtomicBool>,
    /// Show progress on stderr, from a thread of its own. Has no effect when stderr is not a terminal.
    pub progress: bool,
    /// Called with the number of threads when all is checked and prepared, right before they start.
    pub ready: Option<fn(usize)>,
}

impl Control {
    /// Whether the work should end now.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
