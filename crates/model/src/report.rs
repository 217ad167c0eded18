//! What a report shows of runs: their events, or where there are none their rows, put together by time and by whose they are. So a
//! page draws ten million events as fast as a thousand.

mod cube;
mod gather;
mod heat;
mod processes;

use crate::field::Record;
use crate::hist::{bounds, bucket};
use crate::item::{Block, Facts, Header};

pub use self::cube::{Cube, Measure, OTHERS, Place};
pub use self::gather::Gather;
pub use self::heat::{Area, Heat};

/// What is not known of an event.
pub const UNKNOWN: &str = "(unknown)";

/// A run in a report.
#[derive(Debug, Clone)]
pub struct Run {
    /// The name of its recording.
    pub name: String,
    /// What was run.
    pub header: Header,
    /// What was lost and reached.
    pub end: Facts,
    /// Whether the recording has that.
    pub has_facts: bool,
    /// Why it was not read to its end, if it was not.
    pub broken: Option<String>,
    /// The time that the figures are of, nanoseconds: the run, or a part of it.
    pub covered_ns: u64,
    /// The events in the report, and of them those that the kernel counted; what it counted beyond them was lost.
    pub events: u64,
    /// What the tool counted.
    pub counted: Option<u64>,
    /// Findings.
    pub findings: Vec<Record>,
    /// That there are none, where findings were looked for.
    pub verdict: Option<String>,
    /// Why there can be none, or what of them could not be judged.
    pub unjudged: Option<String>,
}

/// What a page shows.
#[derive(Debug)]
pub struct Report {
    /// The runs.
    pub runs: Vec<Run>,
    /// Their figures.
    pub cube: Cube,
    /// Whether it is known when each was.
    pub has_time: bool,
    /// Addresses of accesses by time.
    pub heat: Option<Heat>,
    /// Totals by stack.
    pub stacks: Vec<Record>,
    /// Tables of a summary of accesses.
    pub summary: Vec<Block>,
}

/// The power of two below a time.
fn octave(ns: u64) -> u8 {
    (bucket(ns) / 4) as u8
}

/// The power of two below the times of cells with this number, nanoseconds.
#[must_use]
pub fn least_ns(octave: u8) -> u64 {
    bounds(usize::from(octave) * 4).0 & !1
}

#[cfg(test)]
mod tests;
