//! Tables for people, as a [`Layout`] says: blocks that follow each other.

use std::fmt;
use std::io::{self, Write};

use jiff::tz::TimeZone;
use ratatui::text::Line;
use trapline_model::layout::{DECLARED, Events, Layout};
use trapline_model::{Block, Event, Facts, Item, Schema, Sink};

use crate::blocks::{Before, Blocks};
use crate::columns::{cells, constraints};
use crate::fit::{HEADING, HIGHLIGHT, Plan, Space, Text, clipped};
use crate::template::{Template, Word};

/// What a table is written to.
#[derive(Default)]
pub struct Screen {
    /// The space on the terminal that it is, asked for at each block.
    pub space: Option<Box<dyn Fn() -> Space>>,
    /// It shows colors.
    pub color: bool,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("color", &self.color).finish_non_exhaustive()
    }
}

impl Screen {
    fn space(&self) -> Space {
        self.space.as_ref().map_or_else(Space::default, |space| space())
    }
}

/// Writes items as tables.
#[derive(Debug)]
pub struct Table<W> {
    out: W,
    screen: Screen,
    blocks: Blocks,
    event: Template,
    /// The columns of events, if they are shown in columns.
    events: Option<(&'static Schema, Space, Plan)>,
    before: Before,
}

impl<W: Write> Table<W> {
    /// Over a writer, which is flushed after each item. Times of day are those of `zone`.
    pub fn new(out: W, screen: Screen, zone: TimeZone) -> Self {
        Self::laid_out(out, &DECLARED, screen, zone)
    }

    /// The same in another layout.
    pub fn laid_out(out: W, layout: &'static Layout, screen: Screen, zone: TimeZone) -> Self {
        let event = match layout.events {
            Events::Line(template) => Template::new(template),
            Events::Declared => Template::default(),
        };
        let mut blocks = Blocks::new(layout, screen.color, zone);
        blocks.stays = true;
        Self { out, screen, blocks, event, events: None, before: Before::default() }
    }

    /// Writes lines that were made elsewhere.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn show(&mut self, lines: Vec<Line<'static>>) -> io::Result<()> {
        self.lines(lines)
    }

    /// Writes lines, each after the mark of the layout.
    fn lines(&mut self, lines: impl IntoIterator<Item = Line<'static>>) -> io::Result<()> {
        for line in lines {
            self.out.write_all(self.blocks.layout.mark.as_bytes())?;
            write(&mut self.out, &line)?;
        }
        Ok(())
    }

    fn events(&mut self, events: &[Event]) -> io::Result<()> {
        let space = Space { columns: self.screen.space().columns, ..Space::default() };
        for event in events {
            match self.blocks.layout.events {
                Events::Declared => self.declared(event, space)?,
                Events::Line(_) => {
                    let line = event_line(&self.blocks, &self.event, event);
                    if !line.is_empty() {
                        write(&mut self.out, &clipped(Line::from(line), space.columns))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes an event in columns, under headings where these are others than before.
    fn declared(&mut self, Event { time_ns, record }: &Event, space: Space) -> io::Result<()> {
        let schema = record.schema();
        let is_planned = |(of, in_space, _): &(&Schema, Space, Plan)| **of == *schema && *in_space == space;
        if !self.events.as_ref().is_some_and(is_planned) {
            let columns = space.columns.map(|columns| columns.saturating_sub(TIME + 1));
            self.events =
                Some((schema, space, Plan::new::<Vec<Text>>(constraints(schema), &[], columns, None)));
        }
        let Some((_, _, plan)) = &self.events else { return Ok(()) };
        if self.before.headed.as_ref() != Some(&plan.shown()) {
            self.before.headed = Some(plan.shown());
            let style = self.blocks.heading();
            let mut headings = plan.headings(style);
            headings.spans.insert(0, ratatui::text::Span::styled(format!("{:<TIME$} ", "TIME"), style));
            write(&mut self.out, &headings)?;
        }
        write!(self.out, "{} ", self.blocks.clock.at(*time_ns, "%H:%M:%S%.6f"))?;
        write(&mut self.out, &plan.line(&cells(record, self.blocks.color)))
    }

    /// Writes the rows of an interval, or the totals.
    fn block(&mut self, block: &Block, is_total: bool) -> io::Result<()> {
        let mark = self.blocks.layout.mark.len();
        let space = self.screen.space();
        let space = Space { columns: space.columns.map(|columns| columns.saturating_sub(mark)), ..space };
        let lines = self.blocks.block(block, is_total, space, None, &mut self.before);
        self.lines(lines)
    }

    fn end(&mut self, end: &Facts) -> io::Result<()> {
        let lines = self.blocks.closing(end);
        self.lines(lines.into_iter().map(Line::from))
    }
}

/// Characters of the time of an event.
const TIME: usize = 15;

/// An event in a line, as a template says; empty if it is not shown.
pub(crate) fn event_line(blocks: &Blocks, template: &Template, Event { time_ns, record }: &Event) -> String {
    let word = |name: &str| {
        Word::Value(match record.get(name) {
            Some(value) => value.clone(),
            None if name == "time_ns" => (*time_ns).into(),
            None => blocks.setting(name),
        })
    };
    template.line(&word)
}

/// Writes a line, and what stands out as terminals show it.
fn write(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    for span in &line.spans {
        match span.style {
            HIGHLIGHT => write!(out, "\x1b[1;31m{}\x1b[0m", span.content)?,
            HEADING => write!(out, "\x1b[1m{}\x1b[0m", span.content)?,
            _ => out.write_all(span.content.as_bytes())?,
        }
    }
    writeln!(out)
}

impl<W: Write> Sink for Table<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => {
                let lines = self.blocks.header(header);
                self.lines(lines.into_iter().map(Line::from))?;
            }
            Item::Events(events) => self.events(events)?,
            Item::Rows(block) => self.block(block, false)?,
            Item::Totals(block) => self.block(block, true)?,
            Item::Facts(_) | Item::Tick(_) => {}
            Item::End(end) => self.end(end)?,
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
