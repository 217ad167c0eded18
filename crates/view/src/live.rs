//! A table that is redrawn in place: what it shows, what keys do to it, and how it looks in some space.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use ratatui::text::Line;
use trapline_model::layout::{Body, Events, Layout};
use trapline_model::stage::{Controls, SortKey};
use trapline_model::{Block, Field, Item, Schema, Type};

use crate::blocks::{Before, Blocks};
use crate::fit::{Space, clipped};
use crate::table::event_line;
use crate::template::Template;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The end.
    Quit,
    /// The picture stays as it is, or goes on.
    Pause,
    /// Rows now, before the interval ends.
    Refresh,
    /// Rows sorted by the next column.
    Sort,
    /// Rows since the start, or of an interval.
    Cumulative,
    /// A list of keys, or the table again.
    Help,
}

/// Each key: the bytes that it sends, its name, and what it does.
const KEYS: &[(&[u8], Key, &str, &str)] = &[
    (b"qQ", Key::Quit, "q", "quit: the last table stays, and the totals follow"),
    (b" ", Key::Pause, "space", "pause, and go on: nothing is lost meanwhile"),
    (b"r\r\n", Key::Refresh, "Enter", "refresh now, also r: the rows since the last ones"),
    (b"s", Key::Sort, "s", "sort by the next column"),
    (b"c", Key::Cumulative, "c", "rows since the start, or of each interval"),
    (b"h?", Key::Help, "h", "help: these lines, and back to the table"),
];

impl Key {
    /// The key that sends this byte, if it means anything.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        KEYS.iter().find(|(bytes, ..)| bytes.contains(&byte)).map(|(_, key, ..)| *key)
    }
}

/// The state of such a table.
#[derive(Debug)]
pub struct Live {
    blocks: Blocks,
    event: Template,
    /// The blocks since the last tick.
    coming: Vec<Block>,
    shown: Vec<Block>,
    /// What came while the picture was to stay.
    newest: Option<Vec<Block>>,
    paused: bool,
    help: bool,
    has_keys: bool,
    /// What keys change of rows that come, if they can.
    controls: Option<Controls>,
    /// Lines of events: they stay when the table has gone.
    events: Vec<String>,
}

/// As many blocks of a table that grows are kept as a terminal may have lines.
const HISTORY: usize = 500;
/// Lines of events that are kept.
const EVENTS: usize = 100;

impl Live {
    /// Before the first item. `has_keys` if somebody can press them.
    #[must_use]
    pub fn new(
        layout: &'static Layout,
        color: bool,
        has_keys: bool,
        controls: Option<Controls>,
        zone: TimeZone,
    ) -> Self {
        let event = match layout.events {
            Events::Line(template) => Template::new(template),
            Events::Declared => Template::default(),
        };
        Self {
            blocks: Blocks::new(layout, color, zone),
            event,
            coming: vec![],
            shown: vec![],
            newest: None,
            paused: false,
            help: false,
            has_keys,
            controls,
            events: vec![],
        }
    }

    /// Takes an item. Whether the picture is another one now.
    pub fn take(&mut self, item: &Item) -> bool {
        match item {
            Item::Header(header) => {
                self.blocks.header(header);
            }
            Item::Rows(block) => self.coming.push(block.clone()),
            Item::Events(events) => {
                let lines = events.iter().map(|event| event_line(&self.blocks, &self.event, event));
                self.events.extend(lines.filter(|line| !line.is_empty()));
                self.events.drain(..self.events.len().saturating_sub(EVENTS));
            }
            Item::Tick(_) => {
                let coming = std::mem::take(&mut self.coming);
                let coming = self.after(self.newest.as_ref().unwrap_or(&self.shown), coming);
                if self.paused {
                    self.newest = Some(coming);
                    return false;
                }
                self.shown = coming;
            }
            Item::Facts(_) | Item::Totals(_) | Item::End(_) => return false,
        }
        !matches!(item, Item::Rows(_))
    }

    /// The blocks of an interval, after those before that tables which grow still show.
    fn after(&self, before: &[Block], coming: Vec<Block>) -> Vec<Block> {
        let mut blocks: Vec<Block> = before.iter().filter(|block| self.grows(block)).cloned().collect();
        blocks.drain(..blocks.len().saturating_sub(HISTORY));
        blocks.extend(coming);
        blocks
    }

    /// Whether the blocks of a table follow each other.
    fn grows(&self, block: &Block) -> bool {
        let part = self.blocks.part(block.table.id(), false);
        part.is_some_and(|part| matches!(part.body, Body::Line(_) | Body::Appended))
    }

    /// A key is pressed.
    pub fn press(&mut self, key: Key) {
        match key {
            Key::Quit => self.freeze(),
            Key::Pause => {
                self.paused = !self.paused;
                if let Some(newest) = self.newest.take() {
                    self.shown = newest;
                }
            }
            Key::Refresh => {
                if let Some(controls) = &self.controls {
                    controls.refresh.request();
                    self.paused = false;
                }
            }
            Key::Sort => self.sort(),
            Key::Cumulative => {
                if let Some(controls) = &self.controls {
                    controls.cumulative.turn();
                }
            }
            Key::Help => self.help = !self.help,
        }
    }

    /// The order of rows, where there are rows in columns.
    fn key(&self) -> Option<(&SortKey, &'static Schema)> {
        let key = &self.controls.as_ref()?.sort;
        let table = self.shown.first()?.table;
        let body = self.blocks.part(table.id(), false)?.body;
        matches!(body, Body::Declared | Body::Columns(_)).then_some((key, table))
    }

    /// Sorts by the next number that is shown, also what is there.
    fn sort(&mut self) {
        let Some((key, table)) = self.key() else { return };
        let shown = |(_, field): &(usize, &Field)| field.cell.is_some() && field.ty == Type::U64;
        let numbers: Vec<usize> = table.iter().enumerate().filter(shown).map(|(at, _)| at).collect();
        let next = numbers.iter().find(|at| key.column().is_none_or(|now| **at > now)).or(numbers.first());
        let Some(&next) = next else { return };
        key.set(next);
        let blocks = self.shown.iter_mut().chain(self.newest.iter_mut().flatten());
        blocks.filter(|block| *block.table == *table).for_each(|block| block.sort(next));
    }

    /// The picture stays: the end is under way.
    pub fn freeze(&mut self) {
        (self.paused, self.help) = (true, false);
    }

    /// The picture in some space, of which the last line says which keys there are.
    #[must_use]
    pub fn draw(&self, space: Space) -> Vec<Line<'static>> {
        let most = space.lines.unwrap_or(usize::MAX).saturating_sub(self.has_keys.into());
        let text = |text: &str| clipped(Line::raw(text.to_owned()), space.columns);
        let mut lines = if self.help {
            KEYS.iter().map(|(_, _, name, does)| text(&format!("{name:<6} {does}"))).collect()
        } else if self.shown.is_empty() {
            vec![text(&self.blocks.note), text("The first interval has not ended yet.")]
        } else {
            self.picture(Space { lines: Some(most), ..space })
        };
        lines.truncate(most);
        if self.has_keys {
            lines.resize(most.min(usize::from(u16::MAX)), Line::default());
            let event = self.events.last().map_or("", String::as_str);
            let pause = if self.paused { "space: go on (paused)" } else { "space: pause" };
            let sort = self.key().map_or_else(String::new, |(key, table)| {
                let field = key.column().and_then(|column| table.iter().nth(column));
                let title = field.map(|field| field.cell.map_or(field.name, |cell| cell.title));
                format!("  s: sort{}", title.map_or_else(String::new, |title| format!(" ({title})")))
            });
            let since = match &self.controls {
                Some(controls) if controls.cumulative.is_on() => "  c: cumulative (on)",
                Some(_) => "  c: cumulative",
                None => "",
            };
            lines.push(text(&format!("q: quit  {pause}{sort}{since}  h: help  {event}")));
        }
        lines
    }

    /// The last picture, and the events, for a terminal on which they stay.
    #[must_use]
    pub fn last(&self, space: Space) -> Vec<Line<'static>> {
        let events = self.events.iter().map(|event| clipped(Line::raw(event.clone()), space.columns));
        let mut lines: Vec<_> = events.collect();
        if !self.shown.is_empty() {
            lines.extend(self.picture(space));
            lines.push(Line::default());
        }
        lines
    }

    fn picture(&self, space: Space) -> Vec<Line<'static>> {
        let most = space.lines.unwrap_or(usize::MAX);
        let (past, now): (Vec<&Block>, Vec<&Block>) = self.shown.iter().partition(|block| self.grows(block));
        let mut before = Before::default();
        let mut draw = |block: &Block, lines| {
            let sort = self.controls.as_ref().and_then(|controls| controls.sort.column());
            self.blocks.block(block, false, Space { lines, ..space }, sort, &mut before)
        };
        let mut out: Vec<_> = past.iter().flat_map(|block| draw(block, None)).collect();
        let blank = |line: &Line<'_>| line.width() == 0;
        out.drain(..out.iter().take_while(|line| blank(line)).count());
        // Headings stay, and the last lines.
        let headings = match past.first().and_then(|block| self.blocks.part(block.table.id(), false)) {
            Some(part) if matches!(part.body, Body::Appended) => 2,
            _ => 1,
        };
        let most_past = if now.is_empty() { most } else { most / 2 };
        let surplus = out.len().saturating_sub(most_past.max(headings));
        out.drain(headings.min(out.len())..(headings + surplus).min(out.len()));
        for block in now {
            let left = most.saturating_sub(out.len());
            out.extend(draw(block, space.lines.map(|_| left)));
        }
        out.truncate(out.len() - out.iter().rev().take_while(|line| blank(line)).count());
        if out.len() > most {
            let hidden = out.len() + 1 - most;
            out.truncate(most.saturating_sub(1));
            out.push(clipped(Line::from(Cow::Owned(format!("({hidden} more lines)"))), space.columns));
        }
        out
    }
}

#[cfg(test)]
mod tests;
