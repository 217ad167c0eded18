//! The stream between a source and a sink: a header, blocks and events, the totals, the end.

use std::borrow::Cow;

use crate::field::{Record, Value};

/// A word of a stream: known when trapline was built, or read from a recording.
pub type Name = Cow<'static, str>;

/// The first item: what was run, where and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The command's name: `faults`.
    pub tool: Name,
    /// The probe variant in use.
    pub variant: Name,
    /// trapline's version.
    pub version: Name,
    /// The machine's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// Wall-clock time of the start, nanoseconds since the epoch (UTC).
    pub start_unix_ns: i64,
    /// CLOCK_MONOTONIC at the same moment, nanoseconds.
    pub start_ns: u64,
    /// What else a reader should know, by name: settings of the tool.
    pub settings: Vec<(Name, Value)>,
}

impl Header {
    /// The same with another start: CLOCK_MONOTONIC, nanoseconds.
    #[must_use]
    pub fn begun(self, start_ns: u64) -> Self {
        let later = start_ns.cast_signed() - self.start_ns.cast_signed();
        Self { start_ns, start_unix_ns: self.start_unix_ns + later, ..self }
    }
}

/// The rows of one interval, or the totals of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// CLOCK_MONOTONIC at its end, nanoseconds.
    pub time_ns: u64,
    /// One record per key.
    pub rows: Vec<Record>,
    /// All of them added up, for a table's last line.
    pub sum: Option<Record>,
    /// How many rows `--top` left out.
    pub hidden: usize,
}

impl Block {
    /// Sorts by the field at `index`, equal ones by the fields in order, and keeps the first `top`.
    pub fn sort(&mut self, index: usize, top: Option<usize>) {
        self.rows.sort_by(|a, b| {
            let ties = (0..a.schema().iter().count()).map(|i| b.compare(a, i));
            ties.fold(a.compare(b, index), std::cmp::Ordering::then)
        });
        self.cut(top);
    }

    /// Keeps the first `top` rows.
    pub fn cut(&mut self, top: Option<usize>) {
        if let Some(top) = top {
            self.hidden = self.rows.len().saturating_sub(top);
            self.rows.truncate(top);
        }
    }
}

/// Something that happened at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// What it was.
    pub record: Record,
}

/// The last item: what the whole run saw, and what it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// From the start to the end, nanoseconds.
    pub duration_ns: u64,
    /// What was counted; with a line per event, how many lines there were.
    pub events: u64,
    /// Events that happened and were not delivered.
    pub lost: u64,
    /// One in how many was timed: 1 is all of them.
    pub sampled: u64,
    /// Processor time that trapline itself took in user and system mode, nanoseconds.
    pub self_ns: u64,
    /// Further losses by name; shown even when they are 0.
    pub losses: Vec<(Name, u64)>,
}

/// One step of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Comes first, once.
    Header(Header),
    /// Things that happened, as many as are known now.
    Events(Vec<Event>),
    /// The rows of an interval.
    Rows(Block),
    /// Comes once, after the last interval.
    Totals(Block),
    /// Comes last, once.
    End(End),
}

impl Item {
    /// Tells all times by a clock that is so far ahead of the one that they were told by. What was before its zero is told
    /// as 0.
    pub fn shift_clock(&mut self, ahead_ns: i64) {
        let shift = |time: &mut u64| *time = time.saturating_add_signed(ahead_ns);
        match self {
            Self::Header(header) => shift(&mut header.start_ns),
            Self::Events(events) => events.iter_mut().for_each(|event| {
                shift(&mut event.time_ns);
                event.record.shift_clock(ahead_ns);
            }),
            Self::Rows(block) | Self::Totals(block) => {
                shift(&mut block.time_ns);
                block.rows.iter_mut().chain(&mut block.sum).for_each(|record| record.shift_clock(ahead_ns));
            }
            Self::End(_) => {}
        }
    }
}

/// Yields items: a live probe, or a recording.
pub trait Source {
    /// Why there is no next item.
    type Error;

    /// The next item, waiting for it if need be; nothing after the end.
    ///
    /// # Errors
    /// When the source breaks: a probe that cannot be read, a recording that is cut off.
    fn next(&mut self) -> Result<Option<Item>, Self::Error>;
}

/// Takes items: a table, JSON lines, CSV.
pub trait Sink {
    /// Takes one item.
    ///
    /// # Errors
    /// When it cannot be written.
    fn take(&mut self, item: &Item) -> std::io::Result<()>;
}
