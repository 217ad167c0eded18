//! Tables for people, as a [`Layout`] says: in a terminal the newest replaces the one before, in a pipe they follow each
//! other.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use trapline_model::layout::{Body, DECLARED, Events, Histogram, Layout, Part};
use trapline_model::{Block, Event, Facts, Field, Header, Item, Kind, Record, Sink, Value};

use crate::clock::Clock;
use crate::columns::{cell, drawn, frames, headings, line};
use crate::end::end_lines;
use crate::escape::visible;
use crate::histogram::histogram;
use crate::template::{Template, Word};

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

/// Writes items as tables.
#[derive(Debug)]
pub struct Table<W> {
    out: W,
    screen: Screen,
    layout: &'static Layout,
    clock: Clock,
    start_ns: u64,
    note: String,
    settings: Vec<Record>,
    event: Template,
    /// Headings that are written once were.
    headed: bool,
    /// What the last lines are about, if lines may be appended to them.
    section: &'static str,
}

impl<W: Write> Table<W> {
    /// Over a writer, which is flushed after each item. Times of day are those of `zone`.
    pub fn new(out: W, screen: Screen, zone: TimeZone) -> Self {
        Self::laid_out(out, &DECLARED, screen, zone)
    }

    /// The same in another layout.
    pub fn laid_out(out: W, layout: &'static Layout, screen: Screen, zone: TimeZone) -> Self {
        let screen = if layout.redrawn { screen } else { Screen::Paper };
        let event = match layout.events {
            Events::Line(template) => Template::new(template),
            Events::Declared => Template::default(),
        };
        let (clock, note) = (Clock::new(zone), String::new());
        Self {
            out,
            screen,
            layout,
            clock,
            start_ns: 0,
            note,
            settings: vec![],
            event,
            headed: false,
            section: "",
        }
    }

    fn header(&mut self, header: &Header) -> io::Result<()> {
        self.clock.set(header);
        self.start_ns = header.start_ns;
        self.note = note(header);
        self.settings.clone_from(&header.settings);
        let word = |name: &str| match name {
            "note" => Word::Text(self.note.clone()),
            "tool" => Word::Value(header.tool.as_ref().into()),
            "variant" => Word::Value(header.variant.as_ref().into()),
            name => Word::Value(setting(&self.settings, name)),
        };
        for opening in self.layout.opening {
            let line = Template::new(opening).line(&word);
            if !line.is_empty() {
                writeln!(self.out, "{}{line}", self.layout.mark)?;
            }
        }
        Ok(())
    }

    fn events(&mut self, events: &[Event]) -> io::Result<()> {
        for Event { time_ns, record } in events {
            match self.layout.events {
                Events::Declared => {
                    if !std::mem::replace(&mut self.headed, true) {
                        writeln!(self.out, "{:<15} {}", "TIME", headings(record.schema()))?;
                    }
                    writeln!(self.out, "{} {}", self.clock.at(*time_ns, "%H:%M:%S%.6f"), line(record))?;
                }
                Events::Line(_) => {
                    let word = |name: &str| {
                        Word::Value(match record.get(name) {
                            Some(value) => value.clone(),
                            None if name == "time_ns" => (*time_ns).into(),
                            None => setting(&self.settings, name),
                        })
                    };
                    let line = self.event.line(&word);
                    if !line.is_empty() {
                        writeln!(self.out, "{line}")?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the rows of an interval, or the totals.
    fn block(&mut self, block: &Block, is_total: bool) -> io::Result<()> {
        let id = block.table.id();
        let sections = self.layout.sections;
        let Some(section) = sections.iter().find(|section| section.table.is_empty() || section.table == id)
        else {
            return Ok(());
        };
        let part = if is_total { &section.totals } else { &section.rows };
        let mut most = usize::MAX;
        if let Screen::Terminal { lines } = self.screen {
            if is_total {
                writeln!(self.out)?;
            } else {
                // Home, draw, then clear what is left of the picture before: nothing flickers.
                write!(self.out, "\x1b[H\x1b[J")?;
                // Title, headings, the sum, a line for what is hidden, and the cursor's own.
                most = lines.saturating_sub(5).max(1);
            }
        }
        let at_ns = block.time_ns.saturating_sub(self.start_ns);
        let word = |name: &str| match name {
            "note" => Word::Text(self.note.clone()),
            "clock" => Word::Text(self.clock.at(block.time_ns, "%H:%M:%S")),
            "at_ns" => Word::Value(at_ns.into()),
            name => Word::Value(setting(&self.settings, name)),
        };
        let title = |template: &str| Template::new(template).line(&word);
        let is_appended = matches!(part.body, Body::Appended);
        let mut out = Vec::new();
        if is_appended && !block.rows.is_empty() && self.section != id {
            writeln!(out, "\n{}", title(part.title))?;
            writeln!(out, "{}", headings(block.table))?;
        }
        if part.apart {
            writeln!(out)?;
        }
        if is_appended {
            block.rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))?;
        } else if part.or_none && counts_nothing(block) {
            writeln!(out, "{}: none", title(part.title))?;
        } else {
            if !part.title.is_empty() && !matches!(part.body, Body::Line(_)) {
                writeln!(out, "{}", title(part.title))?;
            }
            self.headed |= body(&mut out, part, block, most, self.headed, &title)?;
            histograms(&mut out, part, block)?;
        }
        if part.ended && self.screen == Screen::Paper {
            writeln!(out)?;
        }
        if !out.is_empty() {
            self.section = if is_appended { id } else { "" };
        }
        if self.layout.mark.is_empty() {
            return self.out.write_all(&out);
        }
        let lines = String::from_utf8_lossy(&out);
        lines.lines().try_for_each(|line| writeln!(self.out, "{}{line}", self.layout.mark))
    }

    fn end(&mut self, end: &Facts) -> io::Result<()> {
        let word = |name: &str| match name {
            "end" => Word::Text(end_lines(end).join("\n")),
            name => Word::Value(end.get(name).into()),
        };
        for closing in self.layout.closing {
            let text = Template::new(closing).line(&word);
            // An empty one is an empty line.
            let lines = text.lines().chain(text.is_empty().then_some(""));
            lines.into_iter().try_for_each(|line| writeln!(self.out, "{}{line}", self.layout.mark))?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for Table<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header)?,
            Item::Events(events) => self.events(events)?,
            Item::Rows(block) => self.block(block, false)?,
            Item::Totals(block) => self.block(block, true)?,
            Item::Facts(_) | Item::Tick(_) => {}
            Item::End(end) => self.end(end)?,
        }
        self.out.flush()
    }
}

/// Writes the rows of a block. Whether headings that are written once were written.
fn body(
    out: &mut Vec<u8>,
    part: &Part,
    block: &Block,
    most: usize,
    headed: bool,
    title: &dyn Fn(&str) -> String,
) -> io::Result<bool> {
    match part.body {
        Body::None | Body::Appended => Ok(false),
        Body::Declared => declared(out, block, most).map(|()| false),
        Body::Columns(columns) => drawn(out, columns, block).map(|()| false),
        Body::Line(time) => {
            let Some(sum) = &block.sum else { return Ok(false) };
            let cells = |heading: bool| {
                let shown = sum.iter().filter_map(|(field, value)| Some((field.cell?, value)));
                let cells = shown.map(|(cell, value)| {
                    let text = if heading { cell.title.to_owned() } else { self::cell(value, cell.show) };
                    format!("{text:<width$} ", width = cell.width)
                });
                cells.collect::<String>().trim_end().to_owned()
            };
            if !headed {
                writeln!(out, "{} {}", title("\\[{clock}\\]"), cells(true))?;
            }
            writeln!(out, "{:<10} {}", title(time), cells(false))?;
            Ok(true)
        }
    }
}

fn histograms(out: &mut Vec<u8>, part: &Part, block: &Block) -> io::Result<()> {
    match part.histogram {
        Histogram::None => Ok(()),
        Histogram::Sum(what) => block.sum.iter().try_for_each(|sum| histogram(out, sum, what)),
        Histogram::Rows => block.rows.iter().try_for_each(|row| histogram(out, row, "")),
        Histogram::Titled(title) => block.rows.iter().try_for_each(|row| {
            let word = |name: &str| Word::Value(row.get(name).cloned().unwrap_or(Value::Null));
            writeln!(out, "{}", Template::new(title).line(&word))?;
            histogram(out, row, "value")?;
            writeln!(out)
        }),
    }
}

/// Writes headings, at most so many lines of rows, what is hidden, and the sum.
fn declared(out: &mut impl Write, block: &Block, most: usize) -> io::Result<()> {
    if block.sum.is_none() && block.rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", headings(block.table))?;
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

/// Without rows, or with rows that count nothing.
fn counts_nothing(block: &Block) -> bool {
    let nothing = |row: &Record| {
        row.iter().all(|(field, value)| match value {
            Value::U64(n) => field.kind != Kind::Counter || *n == 0,
            _ => true,
        })
    };
    block.rows.iter().all(nothing)
}

fn setting(settings: &[Record], name: &str) -> Value {
    settings.iter().find_map(|record| record.get(name)).map_or(Value::Null, Value::clone)
}

/// What ran and how, in one line.
pub(crate) fn note(header: &Header) -> String {
    let shown = |(field, value): (&Field, &Value)| {
        let shown = field.cell.filter(|_| *value != Value::Null)?;
        Some(format!(", {} {}", shown.title, cell(value, shown.show)))
    };
    let settings = header.settings.iter().flat_map(Record::iter).filter_map(shown);
    format!(
        "trapline {} by {}{}",
        visible(&header.tool),
        visible(&header.variant),
        settings.collect::<String>()
    )
}

#[cfg(test)]
mod tests;
