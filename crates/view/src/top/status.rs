//! The status line: what the figures are worth and what they cost, in words for which the width has space.

use ratatui::text::Line;
use trapline_model::{Facts, Value};
use unicode_width::UnicodeWidthStr;

use super::state::State;
use super::tool::{Stage, Tool};
use crate::end::in_short;
use crate::escape::visible;
use crate::fit::cut;

/// A part of the line: in full, and in as few characters as can be understood.
#[derive(Debug)]
struct Part {
    full: String,
    short: String,
    /// Parts of a lower number are shortened first.
    rank: u8,
}

impl Part {
    fn new(rank: u8, full: impl Into<String>, short: impl Into<String>) -> Self {
        Self { full: full.into(), short: short.into(), rank }
    }
}

/// Losses are the last that is shortened, and the only part that is cut.
const LOSSES: u8 = 6;
/// A number and the beginning of a word are left of them.
const LEAST: usize = 8;

impl State {
    pub(super) fn status(&self, tool: Option<&Tool>) -> Line<'static> {
        let running = || self.tools.iter().find(|tool| tool.stage == Stage::Running);
        let Some(tool) = tool.or_else(running) else { return Line::default() };
        let has_losses = tool.facts.as_ref().is_some_and(|facts| !facts.losses().is_empty());
        let style = if has_losses { self.warning() } else { Default::default() };
        Line::styled(fitting(self.about_figures(tool), self.size.0.into()), style)
    }

    fn about_figures(&self, tool: &Tool) -> Vec<Part> {
        let mut parts = vec![];
        if let Some(header) = &tool.header {
            parts.push(Part::new(9, visible(&header.variant), visible(&header.variant)));
            if let Some(Value::Str(own)) = header.setting("processes") {
                parts.push(Part::new(4, visible(own), visible(own)));
            } else if header.variant == "rootless" {
                parts.push(Part::new(4, "your processes only", "yours only"));
            }
        }
        if self.playing.is_none() {
            let interval = format!("{:?}", self.interval);
            parts.push(Part::new(3, format!("every {interval}"), interval));
        }
        if let Some(facts) = &tool.facts {
            let losses = in_short(facts);
            let short = match facts.losses().len() {
                0 => "0 lost".into(),
                1 => losses.clone(),
                n => format!("{} +{}", losses.split(", ").next().unwrap_or_default(), n - 1),
            };
            parts.push(Part::new(LOSSES, losses, short));
            parts.push(match facts.sampled {
                0 | 1 => Part::new(5, "not sampled", "1:1"),
                n => Part::new(5, format!("1 in {n} timed"), format!("1:{n}")),
            });
            if let Some(share) = own_cpu(facts, tool.before.as_ref()) {
                parts.push(Part::new(1, format!("own CPU {share:.1} %"), format!("CPU {share:.1}%")));
            }
        }
        if self.playing.is_none() {
            parts.push(self.cost(tool));
        }
        parts
    }

    /// What our BPF programs took in the last interval, per event of all tools.
    fn cost(&self, tool: &Tool) -> Part {
        let [Some(now), before] = tool.cost else { return Part::new(2, "BPF cost off", "BPF off") };
        let took = before.map(|before| now.saturating_sub(before));
        let all: f64 = self.tools.iter().filter_map(Tool::events_per_second).sum();
        let events = all * tool.seconds();
        match took {
            Some(took) if events > 0.0 => {
                let each = took as f64 / events;
                Part::new(2, format!("BPF {each:.0} ns/event"), format!("BPF {each:.0} ns"))
            }
            _ => Part::new(2, "BPF cost -", "BPF -"),
        }
    }
}

/// The share of a CPU that trapline took in the last interval, in per cent.
fn own_cpu(facts: &Facts, before: Option<&Facts>) -> Option<f64> {
    let (now, then) = facts.own_cpu_ns.zip(before.map_or(Some(0), |facts| facts.own_cpu_ns))?;
    let passed = facts.duration_ns.saturating_sub(before.map_or(0, |facts| facts.duration_ns));
    (passed > 0).then(|| now.saturating_sub(then) as f64 * 100.0 / passed as f64)
}

/// The parts in a line of this width: as many as possible in full.
fn fitting(mut parts: Vec<Part>, width: usize) -> String {
    let line = |parts: &[Part], between: &str| {
        parts.iter().map(|part| part.full.as_str()).collect::<Vec<_>>().join(between)
    };
    for rank in 0..=LOSSES {
        let text = line(&parts, " | ");
        if text.width() <= width {
            return text;
        }
        for part in parts.iter_mut().filter(|part| part.rank == rank) {
            part.full = std::mem::take(&mut part.short);
        }
    }
    let between = if line(&parts, " | ").width() <= width { " | " } else { " " };
    let surplus = line(&parts, between).width().saturating_sub(width);
    for part in parts.iter_mut().filter(|part| surplus > 0 && part.rank == LOSSES) {
        let left = part.full.width().saturating_sub(surplus).max(LEAST);
        part.full = cut(&part.full, left, false).into_owned();
    }
    line(&parts, between)
}

#[cfg(test)]
mod tests {
    use super::{LOSSES, Part, fitting};

    fn parts(losses: (&str, &str)) -> Vec<Part> {
        vec![
            Part::new(9, "tracepoint", "tracepoint"),
            Part::new(3, "every 500ms", "500ms"),
            Part::new(LOSSES, losses.0, losses.1),
            Part::new(5, "1 in 64 timed", "1:64"),
            Part::new(1, "own CPU 10.2 %", "CPU 10.2%"),
            Part::new(2, "BPF 1234 ns/event", "BPF 1234 ns"),
        ]
    }

    #[test]
    fn what_has_no_space_is_said_in_fewer_words() {
        let none = || parts(("nothing lost", "0 lost"));
        let lines = [120, 89, 80, 76, 72, 56].map(|width| fitting(none(), width));
        assert_eq!(
            lines,
            [
                "tracepoint | every 500ms | nothing lost | 1 in 64 timed | own CPU 10.2 % | BPF 1234 ns/event",
                "tracepoint | every 500ms | nothing lost | 1 in 64 timed | CPU 10.2% | BPF 1234 ns/event",
                "tracepoint | 500ms | nothing lost | 1 in 64 timed | CPU 10.2% | BPF 1234 ns",
                "tracepoint | 500ms | nothing lost | 1 in 64 timed | CPU 10.2% | BPF 1234 ns",
                "tracepoint | 500ms | nothing lost | 1:64 | CPU 10.2% | BPF 1234 ns",
                "tracepoint 500ms 0 lost 1:64 CPU 10.2% BPF 1234 ns",
            ]
        );
        for (width, line) in [120, 89, 80, 76, 72, 56].into_iter().zip(lines) {
            assert!(line.len() <= width, "{line}");
        }
    }

    #[test]
    fn losses_are_cut_before_anything_is_left_out() {
        let losses = parts((
            "1234567 unattributed faults, 88 lost events, 3 truncated stacks",
            "1234567 unattributed faults +2",
        ));
        let line = fitting(losses, 60);
        assert_eq!(line, "tracepoint 500ms 1234567 unattri… 1:64 CPU 10.2% BPF 1234 ns");
    }
}
