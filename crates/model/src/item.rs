//! The stream between a source and a sink: a header, blocks and events, the totals, the end.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;

use crate::batch::BatchSink;
use crate::field::{Field, Kind, Record, Show, Unit, Value};
use crate::kept::{KEPT, Kept};
use crate::table::{Columns as _, Schema, Table, count, flag, label, number};

/// A word of a stream: known when trapline was built, or read from a recording.
pub type Name = Cow<'static, str>;

/// The first item: what was run, where and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Wall-clock time of the start, nanoseconds since the epoch (UTC): of the command, if the run has one.
    pub start_unix_ns: i64,
    /// CLOCK_MONOTONIC at the same moment, nanoseconds.
    pub start_ns: u64,
    /// The tables that its rows and totals are of.
    pub tables: Vec<&'static Schema>,
    /// The table that its events are of, if there can be any.
    pub events: Option<&'static Schema>,
    /// What else a reader should know: settings of the tool, and of what was done with its items since.
    pub settings: Vec<Record>,
}

impl Header {
    /// The setting of that name, if it is known.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&Value> {
        self.settings.iter().find_map(|record| record.get(name)).filter(|value| **value != Value::Null)
    }

    /// The same, if it is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        if let Some(Value::U64(n)) = self.setting(name) { Some(*n) } else { None }
    }

    /// Whether a setting of that name is known, and true.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.setting(name) == Some(&Value::Bool(true))
    }

    /// Sets what no tool says of a run, in the order of a run's settings: how it is shown comes last.
    pub fn set(&mut self, setting: Record) {
        self.settings.retain(|record| record.schema() != setting.schema());
        let shown = self.settings.iter().position(|record| record.schema().id() == SHOWN.id());
        self.settings.insert(shown.unwrap_or(self.settings.len()), setting);
    }

    /// What a recording still has, if older parts were discarded.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        match self.setting("kept_ranges")? {
            Value::Str(words) => Kept::read(words),
            _ => None,
        }
    }

    /// The same with another start: CLOCK_MONOTONIC, nanoseconds.
    #[must_use]
    pub fn begun(self, start_ns: u64) -> Self {
        let later = start_ns.cast_signed() - self.start_ns.cast_signed();
        Self { start_ns, start_unix_ns: self.start_unix_ns + later, ..self }
    }
}

/// The rows of one interval, or the totals of the run. A live source gives rows that grow: those that did since the last
/// interval, with what they have come to; [`stage::Delta`](crate::stage::Delta) makes an interval's figures of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The table that they are of, also if there are none.
    pub table: &'static Schema,
    /// CLOCK_MONOTONIC at its end, nanoseconds.
    pub time_ns: u64,
    /// The same at its beginning, if that is known: what its figures grew since.
    pub since_ns: Option<u64>,
    /// One record per key.
    pub rows: Vec<Record>,
    /// All of them added up, for a table's last line.
    pub sum: Option<Record>,
    /// How many rows `--top` left out.
    pub hidden: usize,
    /// Rows that end, with the number of the row in which their figures are from now on.
    pub ended: Vec<(Record, u64)>,
}

impl Block {
    /// Rows without a sum.
    #[must_use]
    pub fn new(table: &'static Schema, time_ns: u64, rows: Vec<Record>) -> Self {
        Self { table, time_ns, since_ns: None, rows, sum: None, hidden: 0, ended: vec![] }
    }

    /// The moment that its interval is known by: the middle, which no jitter of the ends takes out of it; or, where it is not known
    /// when it began, just before its end.
    #[must_use]
    pub fn moment_ns(&self) -> u64 {
        match self.since_ns {
            Some(since_ns) if since_ns <= self.time_ns => since_ns + (self.time_ns - since_ns) / 2,
            _ => self.time_ns.saturating_sub(1),
        }
    }

    /// Sorts by the field at `index`; equal ones by their keys, so that they come in the same order each time.
    pub fn sort(&mut self, index: usize) {
        self.rows.sort_by(|a, b| a.compare(b, index).then_with(|| a.by_key(b)));
    }

    /// Keeps the first `most` rows.
    pub fn cut(&mut self, most: usize) {
        self.hidden += self.rows.len().saturating_sub(most);
        self.rows.truncate(most);
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

/// What the run saw up to a moment, what it did not see, and what it cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// For how long.
    pub duration_ns: u64,
    /// What was counted; with a line per event, how many lines there were.
    pub events: u64,
    /// Events that happened and were not delivered.
    pub lost_events: u64,
    /// One in how many was timed: 1 is all of them.
    pub sampled: u64,
    /// Processor time that trapline itself took in user and system mode, nanoseconds; nothing if that was not measured.
    pub own_cpu_ns: Option<u64>,
    /// Further losses, and what was reached: of the tool, and of what was done with its items since.
    pub more: Vec<Record>,
}

/// What every run has, as records.
#[rustfmt::skip]
pub static RUN: Table<Facts> = Table::facts("trapline.run", "trapline", &[&[
    number("duration_ns", (Unit::Nanoseconds, Kind::Gauge), "The duration of the run.", |f| f.duration_ns.into()),
    count("events", "The events that were counted; with a line per event, the lines.", |f| f.events.into()),
    number("lost_events", (Unit::Count, Kind::Loss), "Events that happened and are not shown: the ring buffer was full.", |f| f.lost_events.into()),
    number("sampled", (Unit::Count, Kind::Gauge), "One in this number of events was timed.", |f| f.sampled.into()),
    number("own_cpu_ns", (Unit::Nanoseconds, Kind::Counter), "Own CPU time of trapline, user and system; null if it was not measured.", |f| f.own_cpu_ns.into()),
]]);

/// What a command took that ended with the run, with the descendants that were waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// From its start to its end.
    pub wall_ns: u64,
    /// CPU time in user mode.
    pub user_ns: u64,
    /// CPU time in the kernel.
    pub system_ns: u64,
}

/// What a command took, as records.
#[rustfmt::skip]
pub static COMMAND: Table<Took> = Table::facts("trapline.command", "trapline", &[&[
    number("command_wall_ns", (Unit::Nanoseconds, Kind::Gauge), "The time from the start to the end of the command.", |t| t.wall_ns.into()),
    number("command_user_ns", (Unit::Nanoseconds, Kind::Counter), "CPU time in user mode of the command and the descendants that were waited for.", |t| t.user_ns.into()),
    number("command_system_ns", (Unit::Nanoseconds, Kind::Counter), "CPU time in the kernel of the command and the descendants that were waited for.", |t| t.system_ns.into()),
]]);

/// Whose events are meant.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The filter, in words; nothing if all are meant.
    pub filter: Option<String>,
    /// Where processes can be only ours to see, in words.
    pub processes: Option<&'static str>,
}

/// Whose events are meant, as records.
#[rustfmt::skip]
pub static SCOPE: Table<Scope> = Table::settings("trapline.scope", "trapline", &[&[
    label("filter", "Whose events are counted; null for all.", |s: &Scope| s.filter.as_deref().into()),
    label("processes", "The processes that can be seen at all; null for all.", |s: &Scope| s.processes.into()).shown("processes", 0, Show::Text),
]]);

/// How a run is shown: what a reader needs to show it so again.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The layout of its tables for people.
    pub layout: Option<&'static str>,
    /// What was left out, in words.
    pub excludes: Option<String>,
    /// Rows are since the start.
    pub cumulative: bool,
    /// Events are for the recording alone.
    pub unshown_events: bool,
    /// The length of the intervals that rows are of, nanoseconds, if there are any.
    pub interval_ns: Option<u64>,
}

/// How a run is shown, as records.
#[rustfmt::skip]
pub static SHOWN: Table<Shown> = Table::settings("trapline.shown", "trapline", &[&[
    label("layout", "The layout of the tables for people, null for that which the columns declare.", |s| s.layout.into()),
    label("excludes", "The kinds of events that were left out.", |s| s.excludes.as_deref().into()),
    flag("cumulative", "Whether rows are since the start, and not of an interval.", |s| s.cumulative.into()),
    flag("unshown_events", "Whether events were recorded and not shown, so that they can be grouped otherwise.", |s| s.unshown_events.into()),
    number("interval_ns", (Unit::Nanoseconds, Kind::Gauge), "The length of the intervals that rows are of; null if there are only totals, and in recordings of older versions.", |s| s.interval_ns.into()),
]]);

/// Beside the facts at the end, where a part of a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeRun;

/// The same, as records.
#[rustfmt::skip]
pub static WHOLE_RUN: Table<WholeRun> = Table::facts("trapline.whole_run", "trapline", &[&[
    flag("whole_run", "Whether the duration, the losses and the CPU time are of the whole run, and rows and events of a part of it.", |_| true.into()),
]]);

/// Beside the facts in place of an end, where a recording has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutOff;

/// The same, as records.
#[rustfmt::skip]
pub static CUT_OFF: Table<CutOff> = Table::facts("trapline.cut_off", "trapline", &[&[
    flag("cut_off", "Whether the recording was cut off, so that the duration, the losses and the CPU time are those up to about a second before.", |_| true.into()),
]]);

/// What every run has.
pub(crate) const TABLES: &[&Schema] = &[
    &RUN,
    &COMMAND,
    &SCOPE,
    &SHOWN,
    &KEPT,
    &WHOLE_RUN,
    &CUT_OFF,
    &crate::merge::RECORDINGS,
    &crate::recorded::ENTRY,
];

impl Facts {
    /// What is known of the others, in order: losses also when they are 0.
    pub fn known(&self) -> impl Iterator<Item = (&'static Field, &Value)> {
        self.more.iter().flat_map(Record::iter).filter(|(_, value)| **value != Value::Null)
    }

    /// The losses that are not 0, those of the run before those of the tool.
    #[must_use]
    pub fn losses(&self) -> Vec<(u64, &'static Field)> {
        let run = RUN.record(self);
        let all = run.iter().map(|(field, value)| (field, value.clone()));
        let all = all.chain(self.known().map(|(field, value)| (field, value.clone())));
        let losses = all.filter(|(field, _)| field.kind == Kind::Loss);
        losses
            .filter_map(|(field, n)| if let Value::U64(n @ 1..) = n { Some((n, field)) } else { None })
            .collect()
    }

    /// Whether one of that name is known, and true.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.value(name) == Some(&Value::Bool(true))
    }

    /// Sets one of the others, in the place of what was there.
    pub fn set(&mut self, record: Record) {
        match self.more.iter_mut().find(|own| own.schema() == record.schema()) {
            Some(own) => *own = record,
            None => self.more.push(record),
        }
    }

    /// One of the others, if there is one of that name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.more.iter().find_map(|record| record.get(name))
    }

    /// One of the others, if it is known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(&Value::U64(n)) => Some(n),
            _ => None,
        }
    }
}

/// A number of what a loss is named after, in words: `1 lost event`.
#[must_use]
pub fn lost(n: u64, name: &str) -> String {
    let name = match (n, name.strip_suffix("sses"), name.strip_suffix('s')) {
        (1, Some(stem), _) => format!("{stem}ss"),
        (1, None, Some(one)) => one.to_owned(),
        _ => name.to_owned(),
    };
    format!("{n} {}", name.replace('_', " "))
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
    /// Comes at every interval, after its rows.
    Facts(Facts),
    /// Nothing more comes that was before this moment, CLOCK_MONOTONIC nanoseconds: an interval has ended.
    Tick(u64),
    /// Comes last, once.
    End(Facts),
}

impl Item {
    /// Whether it has events or rows.
    #[must_use]
    pub fn has_content(&self) -> bool {
        match self {
            Self::Events(events) => !events.is_empty(),
            Self::Rows(block) | Self::Totals(block) => !block.rows.is_empty(),
            Self::Header(_) | Self::Facts(_) | Self::Tick(_) | Self::End(_) => false,
        }
    }

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
                block.since_ns.iter_mut().for_each(shift);
                let ended = block.ended.iter_mut().map(|(record, _)| record);
                let records = block.rows.iter_mut().chain(&mut block.sum).chain(ended);
                records.for_each(|record| record.shift_clock(ahead_ns));
            }
            Self::Tick(time_ns) => shift(time_ns),
            Self::Facts(_) | Self::End(_) => {}
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

/// Items that are there.
impl Source for VecDeque<Item> {
    type Error = Infallible;

    fn next(&mut self) -> Result<Option<Item>, Infallible> {
        Ok(self.pop_front())
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        (**self).next()
    }
}

/// Takes items: a table, JSON lines, CSV.
pub trait Sink {
    /// Takes one item.
    ///
    /// # Errors
    /// When it cannot be written.
    fn take(&mut self, item: &Item) -> std::io::Result<()>;

    /// Nothing more comes, and no end: the source broke. What was taken becomes whole, without saying that nothing was lost.
    ///
    /// # Errors
    /// When it cannot be written.
    fn cut_off(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    /// Where events can be put before they are records, from the header on; nothing where they cannot.
    fn batches(&mut self) -> Option<Box<dyn BatchSink>> {
        None
    }

    /// What a user should know of the output that no item says, after the end.
    fn remark(&self) -> Option<String> {
        None
    }
}
