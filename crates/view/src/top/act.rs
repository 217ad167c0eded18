//! What keys and the mouse do to the state.

use std::time::Duration;

use super::face::Command;
use super::keys::{self, Does};
use super::press::Press;
use super::state::{Hit, State};
use super::tool::{Pattern, Stage, Tool};

/// The intervals that + and - choose among, milliseconds.
const INTERVALS: [u64; 10] = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000];
/// The speeds that they choose among where a recording is played, in per cent.
const SPEEDS: [u32; 9] = [10, 25, 50, 100, 200, 500, 1000, 5000, 10_000];
/// Why rows of a recording cannot be grouped otherwise.
const FIXED_ROWS: &str = "the recording has these rows, and not the single events that others are made of";
const NO_PANE: &str = "first show a tool's pane: Enter, or Tab";
/// How far an arrow goes in a recording.
const LEAP: Duration = Duration::from_secs(10);

impl State {
    pub(super) fn press(&mut self, press: Press) -> Option<Command> {
        if let Some(mut typed) = self.typed.take() {
            match press {
                Press::Char(c) if typed.chars().count() < 200 => typed.push(c),
                Press::Backspace => {
                    typed.pop();
                }
                Press::Enter => {
                    self.filter(&typed);
                    return None;
                }
                Press::Escape => {
                    self.filter("");
                    return None;
                }
                _ => {}
            }
            // What is found so far is shown.
            self.filter(&typed);
            self.typed = Some(typed);
            return None;
        }
        match press {
            Press::Click { column, line } => return self.click(column, line),
            Press::Wheel(up) => self.step(if up { -3 } else { 3 }),
            Press::Char(c @ '1'..='9') => return self.group(c as usize - '1' as usize),
            press => return self.does(keys::does(press, self.playing.is_some())?),
        }
        None
    }

    fn does(&mut self, does: Does) -> Option<Command> {
        let page = self.page() as isize;
        if self.help {
            let by = match does {
                Does::Quit => return Some(Command::Quit),
                Does::Up => -1,
                Does::Down => 1,
                Does::PageUp => -page,
                Does::PageDown => page,
                _ => {
                    self.help = false;
                    return None;
                }
            };
            let most = self.help_lines().len().saturating_sub(self.page() + 2);
            self.help_at = self.help_at.saturating_add_signed(by).min(most);
            return None;
        }
        match does {
            Does::Quit => return Some(Command::Quit),
            Does::Help => (self.help, self.help_at) = (true, 0),
            Does::Up => self.step(-1),
            Does::Down => self.step(1),
            Does::PageUp => self.step(-page),
            Does::PageDown => self.step(page),
            Does::First => self.step(isize::MIN),
            Does::Last => self.step(isize::MAX),
            Does::Enter => return self.enter(),
            Does::Back => return self.back(),
            Does::Pane(back) => return self.turn(back),
            Does::Overview => self.shown = None,
            Does::Sort(back) => {
                if let Some(tool) = self.pane() {
                    tool.sort(back);
                }
            }
            Does::Reverse => {
                if let Some(tool) = self.pane() {
                    tool.reversed = !tool.reversed;
                    tool.arrange();
                }
            }
            Does::Filter => {
                let now = self.pane().map(|tool| tool.pattern.as_ref().map_or("", |p| &p.text).to_owned());
                self.typed = now;
            }
            Does::Cumulative => {
                self.cumulative = !self.cumulative;
                return Some(Command::Cumulative(self.cumulative));
            }
            Does::Pause => {
                self.paused = !self.paused;
                if self.playing.is_some() {
                    return Some(Command::Play(!self.paused));
                }
                self.go_on();
            }
            Does::Refresh => {
                self.paused = false;
                self.go_on();
                let at = self.shown.unwrap_or(self.at);
                let has_failed =
                    self.tools.get(at).is_some_and(|tool| matches!(tool.stage, Stage::Failed(_)));
                return if has_failed { self.open(at) } else { Some(Command::Refresh) };
            }
            Does::Faster(less) => return Some(self.pace(less)),
            Does::Group => {
                let tool = self.pane()?;
                if tool.blocks.len() > 1 {
                    tool.table = (tool.table + 1) % tool.blocks.len();
                    tool.arrange();
                    return None;
                }
                let name = tool.level()?.group;
                let at = tool.face.groups.iter().position(|group| group.name == name)?;
                let next = (at + 1) % tool.face.groups.len();
                return self.group(next);
            }
            Does::Split => {
                return self.reopen(|tool| {
                    let can = !tool.face.parts.is_empty();
                    tool.split = can && !tool.split;
                    can
                });
            }
            Does::Measure => return Some(Command::Measure),
            Does::Events => return self.reopen(Tool::watch),
            Does::Write if self.shown.is_none() => self.said = NO_PANE.into(),
            Does::Write => {
                let command = self.write();
                if command.is_none() {
                    self.said = "there is nothing to write yet".into();
                }
                return command;
            }
            Does::Leap(back) => {
                let now = self.played()?;
                let to = if back { now.saturating_sub(LEAP) } else { now + LEAP };
                return Some(Command::Seek(to));
            }
            Does::Step(back) => {
                self.paused = true;
                if !back {
                    return Some(Command::Step);
                }
                // All intervals that end before the one that is shown.
                return Some(Command::StepTo(self.played()?.saturating_sub(Duration::from_nanos(1))));
            }
        }
        None
    }

    fn pane(&mut self) -> Option<&mut Tool> {
        self.tools.get_mut(self.shown?)
    }

    fn go_on(&mut self) {
        if !self.paused {
            self.tools.iter_mut().for_each(Tool::go_on);
        }
    }

    fn filter(&mut self, text: &str) {
        let pattern = Pattern::new(text);
        if let Some(tool) = self.pane() {
            tool.pattern = pattern;
            tool.arrange();
        }
    }

    fn step(&mut self, by: isize) {
        let moved = |at: usize, most: usize| at.saturating_add_signed(by).min(most.saturating_sub(1));
        match self.shown {
            None => self.at = moved(self.at, self.tools.len()),
            Some(shown) => {
                if let Some(tool) = self.tools.get_mut(shown) {
                    tool.choose(moved(tool.at, tool.rows.len()));
                }
            }
        }
    }

    fn enter(&mut self) -> Option<Command> {
        let Some(shown) = self.shown else {
            return self.show(Some(self.at));
        };
        let tool = self.tools.get_mut(shown).filter(|tool| !tool.shows_events)?;
        if tool.is_fixed {
            self.said = FIXED_ROWS.into();
            return None;
        }
        let want = tool.enter()?;
        Some(Command::Open { tool: shown, run: tool.run, want })
    }

    fn back(&mut self) -> Option<Command> {
        let shown = self.shown?;
        let tool = self.tools.get_mut(shown)?;
        if tool.pattern.take().is_some() {
            tool.arrange();
            return None;
        }
        if tool.levels.len() > 1 {
            tool.levels.pop();
            tool.shows_events = false;
            return self.open(shown);
        }
        self.shown = None;
        None
    }

    fn show(&mut self, pane: Option<usize>) -> Option<Command> {
        self.shown = pane;
        self.wake(pane?)
    }

    /// The next pane, or the one before.
    fn turn(&mut self, back: bool) -> Option<Command> {
        let all = self.tools.len() + 1;
        let now = self.shown.map_or(0, |at| at + 1);
        let next = (now + if back { all - 1 } else { 1 }) % all;
        self.show(next.checked_sub(1))
    }

    fn group(&mut self, at: usize) -> Option<Command> {
        let shown = match self.shown {
            Some(shown) => shown,
            None => return self.show(Some(at).filter(|at| *at < self.tools.len())),
        };
        let tool = self.tools.get_mut(shown)?;
        if tool.blocks.len() > 1 {
            if at < tool.blocks.len() {
                tool.table = at;
                tool.arrange();
            }
            return None;
        }
        let group = tool.face.groups.get(at)?;
        if tool.is_fixed {
            self.said = FIXED_ROWS.into();
            return None;
        }
        let want = tool.regroup(group)?;
        Some(Command::Open { tool: shown, run: tool.run, want })
    }

    /// The tool that is shown gives other rows, if `change` has changed something.
    fn reopen(&mut self, change: impl FnOnce(&mut Tool) -> bool) -> Option<Command> {
        let Some(shown) = self.shown else {
            self.said = NO_PANE.into();
            return None;
        };
        if self.tools.get(shown)?.is_fixed {
            self.said = FIXED_ROWS.into();
            return None;
        }
        if !change(self.tools.get_mut(shown)?) {
            self.said = "this tool has none".into();
            return None;
        }
        self.open(shown)
    }

    /// A longer or a shorter interval, or a greater or lower speed.
    fn pace(&mut self, less: bool) -> Command {
        if let Some(playing) = &mut self.playing {
            let next = if less {
                SPEEDS.iter().rfind(|speed| **speed < playing.speed)
            } else {
                SPEEDS.iter().find(|speed| **speed > playing.speed)
            };
            playing.speed = next.copied().unwrap_or(playing.speed);
            return Command::Speed(playing.speed);
        }
        let now = self.interval.as_millis() as u64;
        let next = if less {
            INTERVALS.iter().rfind(|ms| **ms < now)
        } else {
            INTERVALS.iter().find(|ms| **ms > now)
        };
        self.interval = Duration::from_millis(next.copied().unwrap_or(now));
        Command::Interval(self.interval)
    }

    /// What is on the screen stays on it, and is to be recorded.
    fn write(&mut self) -> Option<Command> {
        let items = self.tools.get(self.shown?)?.recorded()?;
        self.paused = true;
        Some(Command::Write(items))
    }

    fn click(&mut self, column: u16, line: u16) -> Option<Command> {
        if std::mem::take(&mut self.help) {
            return None;
        }
        match self.hit(column, line)? {
            Hit::Tab(pane) => self.show(pane),
            Hit::Tool(at) if self.at == at => self.show(Some(at)),
            Hit::Tool(at) => {
                self.at = at;
                None
            }
            Hit::Row(at) => {
                let tool = self.pane()?;
                if tool.at == at && tool.chosen.is_some() {
                    return self.enter();
                }
                tool.choose(at);
                None
            }
        }
    }
}
