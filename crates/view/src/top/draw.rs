//! The screen in a buffer: tabs, a pane or the overview, the status, and the keys.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::keys::{self, Does};
use super::state::{Hit, State};
use super::tool::{Stage, Tool};
use crate::escape::visible;
use crate::fit::{HEADING, HIGHLIGHT, cut, wrapped};

/// What is chosen, also where there are no colors.
pub(super) const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// The lines and columns of what there is on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Areas {
    pub(super) tabs: Option<u16>,
    pub(super) crumbs: Option<u16>,
    pub(super) body: Rect,
    pub(super) details: Option<Rect>,
    pub(super) status: Option<u16>,
    pub(super) keys: Option<u16>,
}

/// From this width on, details are beside the rows.
const WIDE: u16 = 120;
/// Characters of details beside the rows, and lines of those below them.
const BESIDE: u16 = 42;
const BELOW: u16 = 7;

impl Areas {
    pub(super) fn of((columns, lines): (u16, u16), has_details: bool) -> Self {
        // What matters least goes first where there is no space.
        let [keys, tabs, crumbs, status] = [7, 6, 4, 2].map(|least| lines >= least);
        let top = u16::from(tabs) + u16::from(crumbs);
        let bottom = u16::from(keys) + u16::from(status);
        let (height, width) = (lines - top.min(lines) - bottom.min(lines - top.min(lines)), columns);
        let body = Rect::new(0, top, width, height);
        let (body, details) = match has_details {
            true if columns >= WIDE => {
                let left = width - BESIDE - 1;
                (Rect { width: left, ..body }, Some(Rect::new(left + 1, top, BESIDE, height)))
            }
            true if columns >= 60 && height >= BELOW + 6 => {
                let above = height - BELOW;
                (Rect { height: above, ..body }, Some(Rect::new(0, top + above, width, BELOW)))
            }
            _ => (body, None),
        };
        Self {
            tabs: tabs.then_some(0),
            crumbs: crumbs.then_some(u16::from(tabs)),
            body,
            details,
            status: status.then_some(top + height),
            keys: keys.then_some(top + height + 1),
        }
    }
}

impl State {
    pub(super) fn areas(&self) -> Areas {
        let has_details = self.shown.and_then(|at| self.tools.get(at)).is_some_and(|tool| !tool.shows_events);
        Areas::of(self.size, has_details && !self.help)
    }

    /// The rows that a page has.
    pub(super) fn page(&self) -> usize {
        usize::from(self.areas().body.height).saturating_sub(2).max(1)
    }

    /// Draws it all.
    pub fn draw(&self, buffer: &mut Buffer) {
        let areas = self.areas();
        let mut pen = Pen { buffer, state: self };
        if let Some(line) = areas.tabs {
            pen.line(0, line, self.size.0, &self.tabs());
        }
        let tool = self.shown.and_then(|at| self.tools.get(at));
        if let Some(line) = areas.crumbs {
            let text = tool.map_or_else(|| self.about(), |tool| self.crumbs(tool));
            pen.line(0, line, self.size.0, &text);
        }
        match tool {
            _ if self.help => pen.help(areas.body),
            None => self.overview(&mut pen, areas.body),
            Some(tool) => {
                self.rows(&mut pen, tool, areas.body);
                if let Some(area) = areas.details {
                    self.details(&mut pen, tool, area);
                }
            }
        }
        if let Some(line) = areas.status {
            pen.line(0, line, self.size.0, &self.status(tool));
        }
        if let Some(line) = areas.keys {
            pen.line(0, line, self.size.0, &self.bottom());
        }
        if self.look.ascii {
            for cell in &mut buffer.content {
                if !cell.symbol().is_ascii() {
                    cell.set_char(if cell.symbol() == "…" { '~' } else { '?' });
                }
            }
        }
    }

    /// The panes, and where each begins.
    fn panes(&self) -> impl Iterator<Item = (u16, Option<usize>, String)> {
        let names = self.tools.iter().enumerate().map(|(at, tool)| (Some(at), tool.face.tool));
        let names = [(None, "overview")].into_iter().chain(names);
        let mut column = "trapline ".len() as u16;
        names.map(move |(pane, name)| {
            let text = format!(" {name} ");
            let begin = column;
            column += text.len() as u16;
            (begin, pane, text)
        })
    }

    fn tabs(&self) -> Line<'static> {
        if let Some(playing) = &self.playing {
            let at = self.played().unwrap_or_default().as_secs_f64();
            let speed = f64::from(playing.speed) / 100.0;
            let pause = if self.paused { ", paused" } else { "" };
            return Line::raw(format!(
                "trapline {}  at {at:.1} s, {speed} times as fast{pause}",
                visible(&playing.name)
            ));
        }
        let mut spans = vec![Span::styled("trapline ", self.heading())];
        for (_, pane, text) in self.panes() {
            spans.push(Span::styled(text, if pane == self.shown { CHOSEN } else { Style::new() }));
        }
        Line::from(spans)
    }

    pub(super) fn heading(&self) -> Style {
        if self.look.color { HEADING } else { Style::new() }
    }

    pub(super) fn warning(&self) -> Style {
        if self.look.color { HIGHLIGHT } else { Style::new() }
    }

    fn about(&self) -> Line<'static> {
        Line::raw(if self.scope.is_empty() { String::new() } else { format!("of {}", visible(&self.scope)) })
    }

    /// What rows are of.
    fn crumbs(&self, tool: &Tool) -> Line<'static> {
        let mut text = String::new();
        for level in &tool.levels {
            if !level.of.is_empty() {
                text += &format!(" > {}", level.of);
            }
        }
        let what = match (tool.shows_events, tool.level()) {
            (true, _) => format!("events of {}{text}", tool.face.tool),
            (false, Some(level)) if tool.blocks.len() < 2 && !tool.is_fixed && !level.group.is_empty() => {
                format!("{}{text} by {}", tool.face.tool, level.group)
            }
            _ => {
                // Without the name of the tool.
                let id = tool.block().and_then(|block| block.table.id().rsplit('.').next());
                let table = id.map_or_else(String::new, |id| format!(": {}", id.replace('_', " ")));
                format!("{}{text}{table}", tool.face.tool)
            }
        };
        let mut more = vec![];
        if let Some(typed) = &self.typed {
            more.push(format!("filter: {}_", visible(typed)));
        } else if let Some(pattern) = &tool.pattern {
            more.push(format!("filter: {}", visible(&pattern.text)));
        }
        let title = tool.sorted_by().and_then(|at| tool.block()?.table.iter().nth(at));
        let title = title.map(|field| field.cell.map_or(field.name, |cell| cell.title));
        if let Some(title) = title.filter(|_| !tool.shows_events) {
            let up = if tool.reversed { ", inverted" } else { "" };
            let rows = if tool.rows.len() == 1 { "row" } else { "rows" };
            more.push(format!("{} {rows} by {title}{up}", tool.rows.len()));
        }
        if self.cumulative {
            more.push("since the start".into());
        }
        if self.paused {
            more.push("paused".into());
        }
        if tool.stage == Stage::Ended && self.playing.is_none() {
            more.push("ended".into());
        }
        let more = format!("  {}", more.join(", "));
        let width = usize::from(self.size.0);
        // What it is of in the end matters more than where that is.
        let what = cut(&what, width.saturating_sub(more.len()).max(width / 2), true).into_owned();
        Line::from(vec![Span::styled(what, self.heading()), Span::raw(more)])
    }

    /// What the keys 1 to 9 choose, and names of it.
    fn choices(&self) -> Option<(&'static str, Vec<&'static str>)> {
        let Some(tool) = self.shown.and_then(|at| self.tools.get(at)) else {
            return Some(("show a tool", self.tools.iter().map(|tool| tool.face.tool).collect()));
        };
        if tool.blocks.len() > 1 {
            let tables = tool.blocks.iter().map(|block| block.table.id());
            return Some(("another table", tables.filter_map(|id| id.rsplit('.').next()).collect()));
        }
        let groups = tool.face.groups.iter().map(|group| group.name);
        (!tool.is_fixed).then(|| ("group by", groups.collect()))
    }

    /// The lines of the help: keys, and what they do here.
    pub(super) fn help_lines(&self) -> Vec<String> {
        const KEY: usize = 11;
        let width = if self.size.0 < TWO_COLUMNS { self.size.0 } else { self.size.0 / 2 };
        let lines = keys::help(self.playing.is_some()).flat_map(|(key, does, words)| {
            let choices = self.choices().filter(|(_, names)| does == Does::Group && !names.is_empty());
            let words = choices.map_or_else(
                || vec![words.to_owned()],
                |(what, names)| {
                    // A number stays with its name.
                    let names: Vec<String> =
                        (1..=9).zip(names).map(|(n, name)| format!("{n}\u{a0}{name}")).collect();
                    let text = format!("{what}: {}", names.join(", "));
                    let lines = wrapped(&text, "", Some(usize::from(width).saturating_sub(KEY).max(20)));
                    lines.into_iter().map(|line| line.replace('\u{a0}', " ")).collect()
                },
            );
            let keys = [key].into_iter().chain(std::iter::repeat(""));
            keys.zip(words).map(|(key, words)| format!("{key:<10} {words}")).collect::<Vec<_>>()
        });
        lines.collect()
    }

    fn bottom(&self) -> Line<'static> {
        if !self.said.is_empty() {
            return Line::styled(visible(&self.said), self.warning());
        }
        let keys = match self.shown.and_then(|at| self.tools.get(at)) {
            _ if self.typed.is_some() => "type a text or a regular expression; Enter: keep it, Esc: all rows",
            _ if self.playing.is_some() => {
                "?: help  q: quit  space: pause  Left Right: 10 s  , .: interval  + -: speed"
            }
            None => "?: help  q: quit  Enter: pane  Tab: next  space: pause  + -: interval",
            Some(tool) => return Line::raw(pane_keys(tool)),
        };
        Line::raw(keys)
    }

    /// What is at a place.
    pub(super) fn hit(&self, column: u16, line: u16) -> Option<Hit> {
        let areas = self.areas();
        if areas.tabs == Some(line) && self.playing.is_none() {
            let panes: Vec<_> = self.panes().collect();
            return panes.iter().rfind(|(begin, ..)| *begin <= column).map(|(_, pane, _)| Hit::Tab(*pane));
        }
        let within = line.checked_sub(areas.body.y).filter(|line| *line < areas.body.height)?;
        match self.shown.and_then(|at| self.tools.get(at)) {
            None => self.tool_at(within).map(Hit::Tool),
            Some(tool) => {
                let at = usize::from(within.checked_sub(1)?) + self.first(tool, areas.body);
                (at < tool.rows.len()).then_some(Hit::Row(at))
            }
        }
    }
}

/// The keys that do something in a pane.
fn pane_keys(tool: &Tool) -> String {
    let goes_in = tool.group().is_some_and(|group| group.into.is_some());
    let tables = tool.blocks.len();
    let keys = [
        Some("?: help q: quit"),
        (goes_in && !tool.shows_events).then_some("Enter: into"),
        Some("Esc: back"),
        (tables < 2 && !tool.face.groups.is_empty()).then_some("1-9 b: group"),
        (tables > 1 && !tool.shows_events).then_some("1-9 b: table"),
        Some(if tool.shows_events { "/: filter" } else { "< >: sort /: filter" }),
        (tool.face.has_events && !tool.shows_events).then_some("v: events"),
        tool.shows_events.then_some("space: pause"),
    ];
    keys.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// From this width on, a help that is too long has two columns.
const TWO_COLUMNS: u16 = 160;

/// What draws.
pub(super) struct Pen<'a> {
    buffer: &'a mut Buffer,
    pub(super) state: &'a State,
}

impl Pen<'_> {
    /// A line, as far as there is space.
    pub(super) fn line(&mut self, x: u16, y: u16, width: u16, line: &Line<'_>) {
        let area = self.buffer.area;
        if x < area.width && y < area.height {
            self.buffer.set_line(x, y, line, width.min(area.width - x));
        }
    }

    /// The same in this style, up to the end.
    pub(super) fn marked(&mut self, area: Rect, line: &Line<'_>, style: Style) {
        self.line(area.x, area.y, area.width, line);
        self.buffer.set_style(area.intersection(self.buffer.area), style);
    }

    /// Lines one below the other.
    pub(super) fn lines(&mut self, area: Rect, lines: &[Line<'_>]) {
        for (y, line) in (area.y..area.bottom()).zip(lines) {
            self.line(area.x, y, area.width, line);
        }
    }

    fn help(&mut self, area: Rect) {
        let lines = self.state.help_lines().into_iter().map(Line::raw);
        let lines: Vec<_> = lines.skip(self.state.help_at).collect();
        // In two columns where there are too many lines.
        let half = if lines.len() > usize::from(area.height) { lines.len().div_ceil(2) } else { lines.len() };
        let right = area.width / 2;
        let left = if half < lines.len() && area.width >= TWO_COLUMNS { right } else { area.width };
        self.lines(
            Rect { width: left, ..area },
            &lines[..if left < area.width { half } else { lines.len() }],
        );
        if left < area.width {
            self.lines(Rect { x: right, width: area.width - right, ..area }, &lines[half..]);
        }
    }
}
