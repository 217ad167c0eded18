//! Tables for people: in a terminal the newest replaces the one before, in a pipe they follow each other.

use std::io::{self, Write};

use jiff::{Timestamp, tz::TimeZone};
use trapline_model::{
    Block, Cell, End, Event, Field, Header, Item, Kind, Record, Schema, Show, Sink, Type, Value,
};
use unicode_width::UnicodeWidthStr;

use crate::escape::{name, visible};
use crate::histogram::histogram;

/// Where a table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// A pipe or a file: block after block.
    Paper,
    /// A terminal with so many lines: each block is drawn over the one before.
    Terminal {
        /// Lines of the terminal.
        lines: usize,
    },
}

/// Writes blocks as tables.
#[derive(Debug)]
pub struct Table<W> {
    out: W,
    screen: Screen,
    zone: TimeZone,
    /// Wall-clock time minus CLOCK_MONOTONIC, nanoseconds.
    wall_minus_monotonic: i128,
    note: String,
    events_headed: bool,
}

impl<W: Write> Table<W> {
    /// Over a writer, which is flushed after each item. Times of day are those of `zone`.
    pub fn new(out: W, screen: Screen, zone: TimeZone) -> Self {
        Self { out, screen, zone, wall_minus_monotonic: 0, note: String::new(), events_headed: false }
    }

    fn header(&mut self, header: &Header) {
        self.wall_minus_monotonic = i128::from(header.start_unix_ns) - i128::from(header.start_ns);
        self.note = note(header);
    }

    /// The time of day at a moment of the monotonic clock.
    fn clock(&self, time_ns: u64, form: &str) -> String {
        let wall =
            Timestamp::from_nanosecond(self.wall_minus_monotonic + i128::from(time_ns)).unwrap_or_default();
        wall.to_zoned(self.zone.clone()).strftime(form).to_string()
    }

    fn rows(&mut self, block: &Block) -> io::Result<()> {
        let time = self.clock(block.time_ns, "%H:%M:%S");
        let title = format!("[{time}] {}", self.note);
        match self.screen {
            Screen::Paper => {
                self::block(&mut self.out, &title, block, usize::MAX)?;
                writeln!(self.out)
            }
            Screen::Terminal { lines } => {
                // Home, draw, then clear what is left of the picture before: nothing flickers.
                write!(self.out, "\x1b[H\x1b[J")?;
                // Title, headings, the sum, a line for what is hidden, and the cursor's own.
                self::block(&mut self.out, &title, block, lines.saturating_sub(5).max(1))
            }
        }
    }

    fn totals(&mut self, block: &Block) -> io::Result<()> {
        if matches!(self.screen, Screen::Terminal { .. }) {
            writeln!(self.out)?;
        }
        self::block(&mut self.out, &format!("Totals, {}", self.note), block, usize::MAX)
    }

    fn events(&mut self, events: &[Event]) -> io::Result<()> {
        for Event { time_ns, record } in events {
            if !self.events_headed {
                self.events_headed = true;
                writeln!(self.out, "{:<15} {}", "TIME", headings(record.schema()))?;
            }
            writeln!(self.out, "{} {}", self.clock(*time_ns, "%H:%M:%S%.6f"), line(record))?;
        }
        Ok(())
    }
}

/// What a run saw and lost, in words.
pub fn end_line(end: &End) -> String {
    let mut text = format!(
        "{:.3} s, {} events, {} lost, sampled 1:{}, {:.1} ms of our own processor time",
        end.duration_ns as f64 / 1e9,
        end.events,
        end.lost,
        end.sampled,
        end.self_ns as f64 / 1e6
    );
    end.losses.iter().for_each(|(name, n)| text.push_str(&format!(", {n} {name}")));
    text
}

impl<W: Write> Sink for Table<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header),
            Item::Events(events) => self.events(events)?,
            Item::Rows(block) => self.rows(block)?,
            Item::Totals(block) => {
                self.totals(block)?;
                if let Some(sum) = &block.sum {
                    histogram(&mut self.out, sum)?;
                }
            }
            Item::End(end) => writeln!(self.out, "{}", end_line(end))?,
        }
        self.out.flush()
    }
}

/// What ran and how, in one line.
pub(crate) fn note(header: &Header) -> String {
    let settings = header.settings.iter().filter_map(|(name, value)| match value {
        Value::U64(n) => Some(format!(", {} {n}", name.replace('_', " "))),
        Value::Str(s) => Some(format!(", {} {}", name.replace('_', " "), visible(s))),
        Value::Null | Value::Bool(_) | Value::Buckets(_) => None,
    });
    format!(
        "trapline {} by {}{}",
        visible(&header.tool),
        visible(&header.variant),
        settings.collect::<String>()
    )
}

/// Writes a block under a title: headings, at most so many rows, their sum.
pub(crate) fn block(out: &mut impl Write, title: &str, block: &Block, most: usize) -> io::Result<()> {
    writeln!(out, "{title}")?;
    let Some(schema) = block.sum.as_ref().or(block.rows.first()).map(Record::schema) else {
        return Ok(());
    };
    writeln!(out, "{}", headings(schema))?;
    let (mut shown, mut lines) = (0, 0);
    for row in &block.rows {
        let frames = frames(row);
        lines += 1 + frames.len();
        if lines > most && shown > 0 || lines.min(1) > most {
            break;
        }
        writeln!(out, "{}", line(row))?;
        frames.iter().try_for_each(|frame| writeln!(out, "{frame}"))?;
        shown += 1;
    }
    let hidden = block.hidden + block.rows.len() - shown;
    if hidden > 0 {
        writeln!(out, "({hidden} more)")?;
    }
    if let Some(sum) = &block.sum {
        writeln!(out, "{}", line(sum))?;
        frames(sum).iter().try_for_each(|frame| writeln!(out, "{frame}"))?;
    }
    Ok(())
}

/// A row's stack, a frame a line, innermost first.
fn frames(row: &Record) -> Vec<String> {
    let mut fields = row.iter();
    let Some((_, stack)) = fields.find(|(field, _)| field.cell.is_some_and(|c| c.show == Show::Stack)) else {
        return vec![];
    };
    let Value::Str(stack) = stack else { return vec!["    (no stack taken)".into()] };
    let lines = match fields.next() {
        Some((_, Value::Str(lines))) => lines.as_ref(),
        _ => "",
    };
    let lines = lines.split(';').map(visible).chain(std::iter::repeat(String::new()));
    let frames = stack.split(';').zip(lines).map(|(frame, line)| {
        let frame = visible(frame);
        if line.is_empty() { format!("    {frame}") } else { format!("    {frame}  {line}") }
    });
    let mut frames: Vec<String> = frames.collect();
    frames.reverse();
    frames
}

/// The column of a field, if it has one in the row itself.
fn column(field: &Field) -> Option<Cell> {
    field.cell.filter(|cell| cell.show != Show::Stack)
}

pub(crate) fn headings(schema: &Schema) -> String {
    let cells = schema.iter().filter_map(|field| column(field).map(|c| (field, c.title.to_owned())));
    join(cells)
}

pub(crate) fn line(record: &Record) -> String {
    // A sum, and what was folded, have no key: words for what a key does not have are not for them.
    let is_key = |(field, value): (&Field, &Value)| {
        field.kind == Kind::Key && field.ty == Type::U64 && *value != Value::Null
    };
    let has_key = record.iter().any(is_key);
    let text = |field: &Field, value: &Value, show| match (value, show) {
        (Value::Str(comm), _) if field.name == "comm" => name(comm),
        (Value::Null, Show::HexOr(_)) if !has_key => cell(value, Show::Hex),
        _ => cell(value, show),
    };
    join(
        record.iter().filter_map(|(field, value)| column(field).map(|c| (field, text(field, value, c.show)))),
    )
}

fn join<'a>(cells: impl Iterator<Item = (&'a Field, String)>) -> String {
    let mut line = String::new();
    for (i, (field, text)) in cells.enumerate() {
        let Some(column) = field.cell else { continue };
        if i > 0 {
            line.push(' ');
        }
        let pad = " ".repeat(column.width.saturating_sub(text.width()));
        if column.show == Show::Text { line.extend([text, pad]) } else { line.extend([pad, text]) }
    }
    line.truncate(line.trim_end().len());
    line
}

pub(crate) fn cell(value: &Value, show: Show) -> String {
    match (value, show) {
        (Value::Null, Show::HexOr(none)) => none.into(),
        (Value::Null | Value::Buckets(_), _) => "-".into(),
        (Value::Str(s), _) => visible(s),
        (Value::Bool(is), _) => if *is { "yes" } else { "no" }.into(),
        (Value::U64(n), Show::Hex | Show::HexOr(_)) => format!("{n:#x}"),
        (Value::U64(n), Show::Milliseconds(decimals)) => format!("{:.decimals$}", *n as f64 / 1e6),
        (Value::U64(n), Show::Microseconds(decimals)) => format!("{:.decimals$}", *n as f64 / 1e3),
        (Value::U64(n), Show::Percent(decimals)) => format!("{:.decimals$}", *n as f64 / 1e4),
        (Value::U64(n), Show::Thousandths(decimals)) => format!("{:.decimals$}", *n as f64 / 1e3),
        (Value::U64(n), Show::Megabytes(decimals)) => format!("{:.decimals$}", *n as f64 / 1_048_576.0),
        (Value::U64(n), Show::Integer | Show::Text | Show::Stack) => n.to_string(),
    }
}
