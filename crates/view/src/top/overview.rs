//! All tools on one screen: what each counts, and whose most of it is.

use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::bars::{Ink, short, time};
use super::draw::{CHOSEN, Pen};
use super::row::words;
use super::state::State;
use super::tool::{ALL, Stage, Tool};
use crate::escape::visible;
use crate::fit::{cut, wrapped};

/// Lines of a tool, where there is space for them.
const LINES: u16 = 5;

impl State {
    /// Lines of each tool.
    fn lines_each(&self, height: u16) -> u16 {
        (height / (self.tools.len() as u16).max(1)).clamp(1, LINES)
    }

    /// The tool at a line of the overview.
    pub(super) fn tool_at(&self, line: u16) -> Option<usize> {
        let at = usize::from(line / self.lines_each(self.areas().body.height));
        (at < self.tools.len()).then_some(at)
    }

    pub(super) fn overview(&self, pen: &mut Pen<'_>, area: Rect) {
        let lines = self.lines_each(area.height);
        for (at, tool) in self.tools.iter().enumerate() {
            let y = area.y + lines * at as u16;
            if y >= area.bottom() {
                break;
            }
            let area = Rect { y, height: lines.min(area.bottom() - y), ..area };
            let text = self.in_short(tool, area.width.into());
            let style = if at == self.at { CHOSEN } else { Style::new() };
            if let Some((first, others)) = text.split_first() {
                pen.marked(Rect { height: 1, ..area }, first, style);
                pen.lines(Rect { y: y + 1, height: area.height - 1, ..area }, others);
            }
        }
        let works = |tool: &Tool| !matches!(tool.stage, Stage::Failed(_) | Stage::Idle(_));
        let y = area.y + lines * self.tools.len() as u16;
        if !self.tools.iter().any(works) && y < area.bottom() {
            let text = "No tool works here. Run it as root (sudo trapline top), or see `trapline doctor`: it shows what does not attach, why, and what to do about it.";
            let text: Vec<_> =
                wrapped(text, "", Some(area.width.into())).into_iter().map(Line::raw).collect();
            pen.lines(Rect { y, height: area.bottom() - y, ..area }, &text);
        }
    }

    /// A tool in a few lines.
    fn in_short(&self, tool: &Tool, width: usize) -> Vec<Line<'static>> {
        let name = format!("{:<8}", tool.face.tool);
        let reason = |why: &str| {
            let mut lines = wrapped(&visible(why), "", Some(width.saturating_sub(9))).into_iter();
            let first = lines.next().unwrap_or_default();
            let first = Line::from(vec![Span::styled(name.clone(), self.heading()), Span::raw(first)]);
            let others = lines.map(|line| Line::raw(format!("{:8}{line}", "")));
            [first].into_iter().chain(others).take(usize::from(LINES) - 1).collect()
        };
        match &tool.stage {
            Stage::Idle(why) | Stage::Failed(why) => return reason(why),
            Stage::Attaching => return reason("attaching the probes"),
            Stage::Running | Stage::Ended => {}
        }
        let ink = Ink::new(self.look.ascii);
        let space = width.saturating_sub(31);
        let rate = |figure: usize| tool.whole.of(ALL, figure, 1).last().copied().unwrap_or(0);
        let variant = tool.header.as_ref().map_or_else(String::new, |header| visible(&header.variant));
        let mut lines = vec![Line::from(vec![
            Span::styled(name.clone(), self.heading()),
            Span::raw(format!("{} {}/s", short(rate(0)), tool.face.counts)),
            Span::raw(if rate(1) > 0 {
                format!(", which took {} a second", time(rate(1)))
            } else {
                String::new()
            }),
            Span::raw(format!("  ({variant})")),
        ])];
        for (figure, title) in [(0, "events"), (1, "time")] {
            let points = tool.whole.of(ALL, figure, space);
            if figure == 0 || points.iter().any(|n| *n > 0) {
                let most = points.iter().copied().max().unwrap_or(0);
                let most = if figure == 0 { short(most) } else { time(most) };
                lines.push(Line::raw(format!(
                    "{:8}{title:<7}{} max {most}/s",
                    "",
                    ink.spark(&points, space)
                )));
            }
        }
        let worst = tool.worst().map(|row| {
            let [events, took] = tool.face.figures(row);
            let most = words(row, |_| true);
            let took = if took > 0 { format!(", {}", time(took)) } else { String::new() };
            format!("{:8}most: {most}: {} {}{took}", "", short(events), tool.face.counts)
        });
        let worst = worst.unwrap_or_else(|| format!("{:8}none in this interval", ""));
        lines.push(Line::raw(cut(&worst, width, false).into_owned()));
        lines
    }
}
