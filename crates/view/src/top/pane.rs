//! A tool's pane: its rows or events, and what is known of the selected row.

use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use trapline_model::{Block, Event, Record, Relative, Schema, Unit, Value};

use super::bars::{Ink, shares, short, time};
use super::draw::{CHOSEN, Pen};
use super::row::{identity, innermost, is_stack, words};
use super::state::State;
use super::tool::{Stage, Tool};
use crate::columns::{cells, constraints, frames, place, relative};
use crate::escape::visible;
use crate::fit::{Constraint, Plan, Text, cut, wrapped};

/// The colors of the parts of a bar; their letters tell them apart, too.
const COLORS: [Color; 7] =
    [Color::Red, Color::Blue, Color::Yellow, Color::Magenta, Color::Cyan, Color::Green, Color::Gray];

/// Why there is nothing where probes were attached after a pause began.
const HELD: &str = "Paused: space goes on.";

impl State {
    /// Whether nothing that comes is shown.
    pub(super) fn is_held(&self) -> bool {
        self.paused && self.playing.is_none()
    }

    /// The first row that is shown: the cursor is in the middle, as far as there are rows.
    pub(super) fn first(&self, tool: &Tool, area: Rect) -> usize {
        let lines = usize::from(area.height).saturating_sub(1);
        tool.at.saturating_sub(lines / 2).min(tool.rows.len().saturating_sub(lines))
    }

    /// Headings and rows.
    pub(super) fn rows(&self, pen: &mut Pen<'_>, tool: &Tool, area: Rect) {
        if area.height == 0 {
            return;
        }
        if tool.shows_events && matches!(tool.stage, Stage::Running | Stage::Ended) {
            return self.events(pen, tool, area);
        }
        // What has failed shows why, and not its last rows as if there were more to come.
        let has_failed = matches!(tool.stage, Stage::Failed(_));
        let Some(block) = tool.block().filter(|_| !tool.rows.is_empty() && !has_failed) else {
            return pen.lines(area, &self.nothing(tool, area.width));
        };
        let first = self.first(tool, area);
        let there = (first..tool.rows.len()).take(usize::from(area.height) - 1);
        let rows: Vec<&Record> = there.filter_map(|at| tool.row(at)).collect();
        let more = relatives(tool, block);
        let texts: Vec<Vec<Text>> = rows.iter().map(|row| texts(row, block, more, self.look.color)).collect();
        let keep = tool.sorted_by().and_then(|at| place(block.table, at));
        let keep = keep.map(|at| at + usize::from(is_stack(block.table)));
        let plan = Plan::new(columns(block.table, more), &texts, Some(area.width.into()), keep);
        pen.line(area.x, area.y, area.width, &plan.headings(self.heading()));
        let chosen = tool.chosen.as_ref().map(identity);
        for (y, (at, (row, text))) in (area.y + 1..).zip((first..).zip(rows.iter().zip(&texts))) {
            let line = plan.line(text);
            let is_chosen = chosen.map_or(at == tool.at, |chosen| identity(row) == chosen);
            if is_chosen {
                pen.marked(Rect { y, height: 1, ..area }, &line, CHOSEN);
            } else {
                pen.line(area.x, y, area.width, &line);
            }
        }
    }

    /// Why there are no rows.
    fn nothing(&self, tool: &Tool, width: u16) -> Vec<Line<'static>> {
        let mut lines = vec![Line::default()];
        let text = match &tool.stage {
            Stage::Idle(why) => why.clone(),
            Stage::Attaching => "Attaching the probes.".into(),
            Stage::Failed(why) => why.clone(),
            Stage::Running if tool.blocks.is_empty() && self.is_held() => HELD.into(),
            Stage::Running if tool.blocks.is_empty() => "The first interval has not ended yet.".into(),
            _ if tool.pattern.is_some() => "No row matches the filter; Esc shows all.".into(),
            _ if tool.blocks.len() > 1 => "No row in this table.".into(),
            _ if self.cumulative => format!("No {} since the start.", tool.face.counts),
            _ => format!("No {} in this interval.", tool.face.counts),
        };
        lines.extend(wrapped(&visible(&text), "", Some(width.into())).into_iter().map(Line::raw));
        if matches!(tool.stage, Stage::Failed(_)) {
            lines.push(Line::default());
            let text = if tool.levels.len() > 1 {
                "Esc goes back."
            } else if self.playing.is_some() {
                "Keys 1 to 9 and S choose other rows."
            } else {
                "r tries again. `trapline doctor` shows what attaches here, and what to do about the rest."
            };
            lines.extend(wrapped(text, "", Some(width.into())).into_iter().map(Line::raw));
        }
        lines
    }

    /// The last events, the newest at the end.
    fn events(&self, pen: &mut Pen<'_>, tool: &Tool, area: Rect) {
        let lines = usize::from(area.height).saturating_sub(1);
        let shown = tool.events.all().iter().rev().filter(|event| tool.is_match(&event.record));
        let events: Vec<&Event> = shown.take(lines).collect();
        let Some(last) = events.first() else {
            let text = match tool.events.all().is_empty() {
                false => "No event matches the filter; Esc shows all.",
                true if self.is_held() => HELD,
                true => "No event yet.",
            };
            return pen.lines(area, &[Line::default(), Line::raw(text)]);
        };
        let schema = last.record.schema();
        let rows: Vec<(u64, Vec<Text>)> = events
            .iter()
            .rev()
            .filter(|event| *event.record.schema() == *schema)
            .map(|event| (event.time_ns, cells(&event.record, self.look.color)))
            .collect();
        let texts: Vec<&Vec<Text>> = rows.iter().map(|(_, texts)| texts).collect();
        const TIME: usize = 16;
        let space = usize::from(area.width).saturating_sub(TIME);
        let plan = Plan::new(constraints(schema), &texts, Some(space), None);
        let timed = |time: String, mut line: Line<'static>| {
            line.spans.insert(0, Span::raw(format!("{time:<TIME$}")));
            line
        };
        pen.line(area.x, area.y, area.width, &timed("TIME".into(), plan.headings(self.heading())));
        for (y, (time_ns, text)) in (area.y + 1..area.bottom()).zip(&rows) {
            let time = self.clock.at(*time_ns, "%H:%M:%S%.6f");
            pen.line(area.x, y, area.width, &timed(time, plan.line(text)));
        }
    }

    /// The history of the selected row, what its time was spent on, and its histogram or stack.
    pub(super) fn details(&self, pen: &mut Pen<'_>, tool: &Tool, area: Rect) {
        let Some(row) = tool.selected() else { return };
        let beside = area.x > 0;
        let left = if beside { area.width } else { (area.width / 2).saturating_sub(1) };
        let mut lines =
            vec![Line::styled(cut(&words(row, |_| true), left.into(), false).into_owned(), self.heading())];
        lines.extend(self.past(tool, identity(row), left.into(), beside));
        lines.extend(self.parts(tool, row, left.into()));
        if beside {
            lines.push(Line::default());
            let below = usize::from(area.height).saturating_sub(lines.len());
            lines.extend(self.shape(row, left.into(), below));
            pen.lines(area, &lines);
        } else {
            pen.lines(Rect { width: left, ..area }, &lines);
            let right = Rect { x: left + 2, width: area.width - left - 2, ..area };
            pen.lines(right, &self.shape(row, right.width.into(), right.height.into()));
        }
    }

    /// What it came to in the last intervals.
    fn past(&self, tool: &Tool, row: u64, width: usize, apart: bool) -> Vec<Line<'static>> {
        let ink = Ink::new(self.look.ascii);
        let mut lines = vec![];
        for figure in 0..=usize::from(tool.face.time.is_some()) {
            let points = tool.histories.of(row, figure, width);
            let last = points.last().copied().unwrap_or(0);
            if figure == 1 && points.iter().all(|n| *n == 0) {
                continue;
            }
            let now = if figure == 0 { format!("{}/s", short(last)) } else { format!("{}/s", time(last)) };
            if apart {
                let title = if figure == 0 { "events" } else { "time in them" };
                lines.push(Line::raw(format!("{title}: {now}")));
                lines.push(Line::raw(ink.spark(&points, width)));
            } else {
                let left = width.saturating_sub(13);
                lines.push(Line::raw(format!(
                    "{now:>12} {}",
                    ink.spark(&tool.histories.of(row, figure, left), left)
                )));
            }
        }
        lines
    }

    /// What its time was spent on, as a bar in parts.
    fn parts(&self, tool: &Tool, row: &Record, width: usize) -> Vec<Line<'static>> {
        let parts = tool.face.parts.iter().zip(COLORS.iter().cycle());
        let parts = parts.filter_map(|((column, name), color)| Some((row.number(column)?, *name, *color)));
        let parts: Vec<(u64, &str, Color)> = parts.collect();
        let all: u64 = parts.iter().map(|(n, ..)| *n).sum();
        if all == 0 {
            return vec![];
        }
        let widths = shares(&parts.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), width);
        let style = |color: Color| if self.look.color { Style::new().fg(color) } else { Style::new() };
        let letter = |name: &str| name.chars().next().unwrap_or('?').to_ascii_uppercase();
        let bar = parts.iter().zip(widths).map(|((_, name, color), width)| {
            Span::styled(letter(name).to_string().repeat(width), style(*color))
        });
        let mut lines = vec![Line::from(bar.collect::<Vec<_>>())];
        let mut legend: Vec<&(u64, &str, Color)> = parts.iter().filter(|(n, ..)| *n > 0).collect();
        legend.sort_by_key(|(n, ..)| std::cmp::Reverse(*n));
        let names = legend.iter().map(|(n, name, color)| {
            (format!("{} {:.0} %", named(name), *n as f64 * 100.0 / all as f64), style(*color))
        });
        let mut line: Vec<Span<'static>> = vec![];
        let mut used = 0;
        for (text, style) in names {
            if used + text.len() + 2 > width && used > 0 {
                lines.push(Line::from(std::mem::take(&mut line)));
                used = 0;
            }
            used += text.len() + 2;
            line.extend([Span::styled(text, style), Span::raw("  ")]);
        }
        lines.push(Line::from(line));
        lines
    }

    /// Its stack, or its histogram.
    fn shape(&self, row: &Record, width: usize, most: usize) -> Vec<Line<'static>> {
        if is_stack(row.schema()) {
            let frames = frames(row);
            return frames.iter().take(most).map(|frame| Line::raw(frame.trim_start().to_owned())).collect();
        }
        let buckets = row.iter().find_map(|(field, value)| match value {
            Value::Buckets(buckets) if field.name == "buckets" && !buckets.is_empty() => {
                Some((field, buckets))
            }
            _ => None,
        });
        let Some((field, buckets)) = buckets else { return vec![] };
        let is_time = field.unit == Unit::Nanoseconds;
        let time = |n: u64| if is_time { time(n) } else { short(n) };
        // Where there is no space for all, those of the shortest times are one.
        let surplus = buckets.len().saturating_sub(most.saturating_sub(1).max(1));
        let (short_ones, long) =
            buckets.split_at(if surplus > 0 { surplus + 1 } else { 0 }.min(buckets.len()));
        let lowest = long.first().map_or(0, |(low, ..)| *low);
        let first = (!short_ones.is_empty()).then(|| {
            (format!("less than {}", time(lowest)), short_ones.iter().map(|(.., n)| n).sum::<u64>())
        });
        let others = long.iter().map(|(low, _, n)| (format!("from {}", time(*low)), *n));
        let bars: Vec<(String, u64)> = first.into_iter().chain(others).collect();
        let highest = bars.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let ink = Ink::new(self.look.ascii);
        let mut lines = vec![Line::styled(if is_time { "latency" } else { "distance" }, self.heading())];
        lines.extend(bars.iter().map(|(name, n)| {
            let bar = ink.bar(*n, highest, width.saturating_sub(28));
            Line::raw(format!("{name:>18} {:>7} {bar}", short(*n)))
        }));
        lines.truncate(most);
        lines
    }
}

/// A part with its letter as in the bar.
fn named(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// The columns beside those of the table.
fn relatives(tool: &Tool, block: &Block) -> &'static [Relative] {
    if block.table.relative().is_empty() { tool.face.relative } else { block.table.relative() }
}

fn columns(table: &Schema, more: &[Relative]) -> Vec<Constraint> {
    let stack = Constraint {
        title: "FUNCTION",
        width: 40,
        least: Some(16),
        yields: 0,
        left: true,
        is_path: false,
        grows: false,
    };
    let stack = is_stack(table).then_some(stack);
    let own = stack.into_iter().chain(constraints(table));
    own.chain(more.iter().map(Constraint::of_relative)).collect()
}

fn texts(row: &Record, block: &Block, more: &[Relative], color: bool) -> Vec<Text> {
    let function = match row.get("stack") {
        Some(Value::Str(stack)) => visible(innermost(stack)),
        _ => "(no stack taken)".into(),
    };
    let function = is_stack(block.table).then_some(Text { text: function, highlight: false });
    let own = function.into_iter().chain(cells(row, color));
    own.chain(relative(more, block, row)).collect()
}
