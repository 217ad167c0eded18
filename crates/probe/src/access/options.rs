//! Whose accesses are traced, and how.

use std::time::Duration;

use crate::filter::Filter;

/// Whose accesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Of these processes, and of those that they make from now on if `children` are meant.
    Processes {
        /// The processes.
        pids: Vec<u32>,
        /// Their later descendants are meant too.
        children: bool,
    },
    /// Of whatever executes a program of these names, or of one in the list of [`Targets`](super::Targets), and of its children.
    Named(Vec<String>),
    /// Of the command that is launched, and of its children.
    Command,
}

impl Whose {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Processes { pids, children } => {
                let filter = Filter { pids: pids.clone(), descendants: *children, ..Filter::default() };
                filter.words().unwrap_or_default()
            }
            Self::Named(names) => format!("exec {}", names.join(",")),
            Self::Command => "the command and its descendants".into(),
        }
    }

    /// The first of the processes, if that is what is meant.
    pub(super) fn pid(&self) -> Option<u32> {
        if let Self::Processes { pids, .. } = self { pids.first().copied() } else { None }
    }
}

/// What to trace, and how.
#[derive(Debug)]
pub struct Options {
    /// Whose accesses.
    pub whose: Whose,
    /// Only this engine of [`ENGINES`](super::ENGINES), not the best that works.
    pub reset: Option<String>,
    /// The period that is wished for.
    pub every: Duration,
    /// Show the first touch of each page too.
    pub first_touch: bool,
    /// Name the functions of the instructions.
    pub symbols: bool,
    /// Only this probe variant, not the first that works.
    pub variant: Option<String>,
    /// Size of the ring that holds events until they are read, bytes: a power of two of pages.
    pub ring_bytes: u32,
    /// The share of the target's processor time that our faults may take, 0 to 1.
    pub max_overhead: Option<f64>,
}
