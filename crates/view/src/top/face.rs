//! What a screen is told of a tool, as data, and what it asks to be done.

use std::time::Duration;

use trapline_model::{Item, Record, Relative, Value};

use super::history::Figures;

/// How a tool is shown.
#[derive(Debug)]
pub struct Face {
    /// Its name.
    pub tool: &'static str,
    /// What it counts: a noun, of several.
    pub counts: &'static str,
    /// What rows can be grouped by: the first if nobody asks for another.
    pub groups: &'static [Group],
    /// The columns that add up to the number of its events.
    pub events: &'static [&'static str],
    /// The column with the time that they took.
    pub time: Option<&'static str>,
    /// The columns that divide that time, and what they are.
    pub parts: &'static [(&'static str, &'static str)],
    /// Columns beside those of its tables.
    pub relative: &'static [Relative],
    /// It shows single events.
    pub has_events: bool,
}

impl Face {
    /// Events, and the time that they took.
    pub(super) fn figures(&self, row: &Record) -> Figures {
        let sum =
            |names: &[&str]| names.iter().filter_map(|name| row.number(name)).fold(0, u64::saturating_add);
        [sum(self.events), sum(self.time.as_slice())]
    }
}

/// What rows can be grouped by.
#[derive(Debug)]
pub struct Group {
    /// As it is typed.
    pub name: &'static str,
    /// The grouping of what is within a row.
    pub into: Option<&'static str>,
}

/// When a tool begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// At once.
    Now,
    /// When its pane is shown.
    Shown,
    /// Never: why, and what to do.
    Never(String),
}

/// What rows of a tool are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// One of its groups.
    pub group: &'static str,
    /// What they are within: keys of the rows above them, by column.
    pub keys: Vec<(&'static str, Value)>,
    /// With what the time was spent on.
    pub split: bool,
    /// Single events, too.
    pub events: bool,
}

/// What is to be done for a screen.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// The end.
    Quit,
    /// A tool gives other rows from now on, whose items have this number.
    Open {
        /// The tool.
        tool: usize,
        /// The number.
        run: u32,
        /// The rows.
        want: Want,
    },
    /// Rows now, before the interval ends.
    Refresh,
    /// Rows since the start, or of an interval.
    Cumulative(bool),
    /// Rows at such intervals.
    Interval(Duration),
    /// The kernel measures what BPF programs cost, or no longer.
    Measure,
    /// A recording of these items.
    Write(Vec<Item>),
    /// The recording that is played goes on at this time since its start.
    Seek(Duration),
    /// The same, and it stays there.
    StepTo(Duration),
    /// The next interval of it at once, and it stays there.
    Step,
    /// It goes on, or stays where it is.
    Play(bool),
    /// It goes on at this speed, in per cent.
    Speed(u32),
}

/// How a screen looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// It shows colors.
    pub color: bool,
    /// It shows no other characters than those of ASCII.
    pub ascii: bool,
}
