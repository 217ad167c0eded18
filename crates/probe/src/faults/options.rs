//! What to trace, and how.

use std::fmt;

use trapline_model::Schema;
use trapline_model::faults::{By, EVENT, SLOW_EVENT, SPLIT_EVENT, StepOf};

use crate::filter::Filter;

/// Which minor faults are timed. Counts are exact in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinorLatency {
    /// All of them.
    Exact,
    /// One in so many, where that saves something: on the tracepoint variant.
    Sampled(u32),
    /// None.
    Off,
}

impl fmt::Display for MinorLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Sampled(n) => write!(f, "1:{n}"),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Of which faults the stack is taken, where rows are of stacks. Counts are exact in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacks {
    /// All of them.
    All,
    /// One in so many, by chance.
    Sampled(u32),
    /// Major ones.
    Major,
}

impl fmt::Display for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Sampled(n) => write!(f, "1:{n}"),
            Self::Major => f.write_str("major"),
        }
    }
}

/// How stacks in user mode are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwind {
    /// By unwind tables where the kernel can, else by frame pointers.
    Auto,
    /// By frame pointers.
    FramePointers,
    /// By unwind tables, and by frame pointers where code has none.
    Tables,
}

impl fmt::Display for Unwind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::FramePointers => "fp",
            Self::Tables => "tables",
        })
    }
}

/// Of what there is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// Nothing.
    None,
    /// Each fault.
    Faults,
    /// Each that took at least this long, nanoseconds, with what its time was spent on; if that is more than 0, with its
    /// function.
    Slower(u64),
    /// Each time a process passes a multiple of a step.
    Steps {
        /// What is counted.
        of: StepOf,
        /// Each also tells what caused most of it.
        most: bool,
    },
    /// Each fault, which is recorded, and messages that are made of them.
    Recorded {
        /// What is counted.
        of: StepOf,
        /// Each also tells the file of most of it.
        most: bool,
    },
}

impl Events {
    /// Whether they are single faults.
    pub(super) fn are_faults(self) -> bool {
        matches!(self, Self::Faults | Self::Slower(_) | Self::Recorded { .. })
    }

    /// Whether nobody has them who sees no single fault.
    pub(super) fn need_each_fault(self) -> bool {
        match self {
            Self::None | Self::Faults => false,
            Self::Slower(_) | Self::Recorded { .. } => true,
            Self::Steps { of, most } => most || !matches!(of, StepOf::Faults(_) | StepOf::Major(_)),
        }
    }

    /// Whether they are of faults in which the thread slept.
    pub(super) fn need_waits(self) -> bool {
        let (Self::Steps { of, .. } | Self::Recorded { of, .. }) = self else { return false };
        matches!(of, StepOf::Waits(_) | StepOf::Within(_))
    }

    /// Whether they name functions.
    pub fn name_code(self) -> bool {
        matches!(self, Self::Slower(1..) | Self::Steps { most: true, .. })
    }

    /// The table that they are of.
    pub fn schema(self) -> Option<&'static Schema> {
        match self {
            Self::None => None,
            Self::Faults => Some(EVENT),
            Self::Slower(0) => Some(SPLIT_EVENT),
            Self::Slower(_) => Some(SLOW_EVENT),
            Self::Steps { of, most } | Self::Recorded { of, most } => Some(of.schema(most)),
        }
    }
}

/// What to trace, and how.
#[derive(Debug)]
pub struct Options {
    /// Whose faults.
    pub filter: Filter,
    /// What a row is one of.
    pub by: By,
    /// With [`By::Span`]: `BINARY:FUNCTION` or `usdt:BINARY:PROVIDER:NAME`.
    pub spans: Vec<String>,
    /// Of which faults the stack is taken.
    pub stacks: Stacks,
    /// How they are walked.
    pub unwind: Unwind,
    /// Rows have histograms.
    pub hist: bool,
    /// Figures are wanted that nobody has without times.
    pub needs_times: bool,
    /// Times are wanted beside messages that do without them.
    pub times: bool,
    /// Rows have what the time was spent on.
    pub split: bool,
    /// Only this variant, not the first that works.
    pub variant: Option<String>,
    /// Which minor faults are timed.
    pub minor_latency: MinorLatency,
    /// Events, if there are to be any.
    pub events: Events,
    /// Size of the ring that holds events until they are read, bytes: a power of two of pages.
    pub ring_bytes: u32,
    /// For rows and names, bytes: beyond it, rows of what has ended are folded into one.
    pub memory_bytes: u64,
}

impl Options {
    /// Faults of these by thread, all timed, without events.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            unwind: Unwind::Auto,
            filter,
            by: By::Thread,
            spans: vec![],
            stacks: Stacks::All,
            hist: false,
            needs_times: false,
            times: true,
            split: false,
            variant: None,
            minor_latency: MinorLatency::Exact,
            events: Events::None,
            ring_bytes: 8 << 20,
            memory_bytes: 256 << 20,
        }
    }

    /// What rows of what has ended may take, bytes: at the end, the totals that are made of them take as much again, and
    /// their text in the output may, too. The rest is for what lives.
    pub(super) fn ended_bytes(&self) -> u64 {
        self.memory_bytes / 4
    }

    /// Whether processes were named. Of all processes, copies of stacks would take each other's places in the table.
    pub(super) fn names_processes(&self) -> bool {
        !self.filter.pids.is_empty() || self.filter.tid.is_some() || self.filter.descendants
    }

    /// Nothing is to be known of a fault but that it was.
    pub(super) fn counts_only(&self) -> bool {
        let counted =
            matches!(self.events, Events::Steps { of: StepOf::Faults(_) | StepOf::Major(_), most: false });
        let rows = self.by.each_fault() || self.by == By::Span || self.times;
        // A thread that is in another cgroup, or another user's, is noticed as its next fault begins.
        let filter = &self.filter;
        counted && !rows && filter.cgroup.is_none() && filter.users.is_empty()
    }
}
