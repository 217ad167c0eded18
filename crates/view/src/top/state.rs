//! The state of the screen, and what keys and items do to it.

use std::time::Duration;

use jiff::tz::TimeZone;
use trapline_model::Item;

use super::face::{Begin, Command, Face, Look};
use super::press::Press;
use super::tool::{Stage, Tool};
use crate::clock::Clock;

/// Something that happens to the screen.
#[derive(Debug)]
pub enum Input {
    /// A key or the mouse is pressed.
    Press(Press),
    /// The terminal has this size: columns, lines.
    Size(u16, u16),
    /// A tool gives an item.
    Item {
        /// The tool.
        tool: usize,
        /// The number that was given with [`Command::Open`].
        run: u32,
        /// The item.
        item: Item,
    },
    /// A tool cannot give any, or no more.
    Failed {
        /// The tool.
        tool: usize,
        /// The number that was given with [`Command::Open`].
        run: u32,
        /// Why, and what to do.
        why: String,
    },
    /// Nanoseconds that our BPF programs took until a tool began, or until the facts that come next; nothing if the kernel
    /// does not measure that.
    Cost {
        /// The tool.
        tool: usize,
        /// The number that was given with [`Command::Open`].
        run: u32,
        /// All programs, also those of other tools.
        ns: Option<u64>,
    },
    /// Something to say once.
    Said(String),
    /// The recording that is played went back to its start.
    Rewound,
}

/// A recording that is played.
#[derive(Debug, Clone)]
pub(super) struct Playing {
    pub(super) name: String,
    /// In per cent.
    pub(super) speed: u32,
}

/// The screen.
#[derive(Debug)]
pub struct State {
    pub(super) tools: Vec<Tool>,
    /// The pane that is shown; without one, the overview.
    pub(super) shown: Option<usize>,
    /// The tool that is chosen in the overview.
    pub(super) at: usize,
    pub(super) size: (u16, u16),
    pub(super) look: Look,
    pub(super) clock: Clock,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// Its first line that is shown, where not all have space.
    pub(super) help_at: usize,
    pub(super) cumulative: bool,
    pub(super) interval: Duration,
    /// The pattern that is being typed.
    pub(super) typed: Option<String>,
    pub(super) said: String,
    pub(super) playing: Option<Playing>,
    /// What to say of whose events there can be.
    pub(super) scope: String,
}

impl State {
    /// Tools with rows at this interval; none has begun.
    #[must_use]
    pub fn new(tools: Vec<(&'static Face, Begin)>, look: Look, interval: Duration, zone: TimeZone) -> Self {
        let tools = tools.into_iter().map(|(face, begin)| Tool::new(face, begin, None, false));
        Self {
            tools: tools.collect(),
            shown: None,
            at: 0,
            size: (80, 24),
            look,
            clock: Clock::new(zone),
            paused: false,
            help: false,
            help_at: 0,
            cumulative: false,
            interval,
            typed: None,
            said: String::new(),
            playing: None,
            scope: String::new(),
        }
    }

    /// The same, with the pane of a tool and its rows grouped so.
    #[must_use]
    pub fn with_pane(mut self, tool: usize, group: Option<&str>) -> Self {
        if let Some(of) = self.tools.get_mut(tool) {
            *of = Tool::new(of.face, of.begin.clone(), group, of.split);
            self.shown = Some(tool);
        }
        self
    }

    /// The same, with what the time was spent on.
    #[must_use]
    pub fn split(mut self) -> Self {
        self.tools.iter_mut().for_each(|tool| tool.split = !tool.face.parts.is_empty());
        self
    }

    /// The same, about these processes.
    #[must_use]
    pub fn of(self, scope: String) -> Self {
        Self { scope, ..self }
    }

    /// The same, for a recording of this name that is played; `is_fixed` if its rows cannot be grouped otherwise.
    #[must_use]
    pub fn playing(mut self, name: String, is_fixed: bool) -> Self {
        self.tools.iter_mut().for_each(|tool| tool.is_fixed = is_fixed);
        Self { playing: Some(Playing { name, speed: 100 }), ..self }
    }

    /// What is to be done first.
    pub fn begin(&mut self) -> Vec<Command> {
        let is_now = |tool: &Tool| tool.begin == Begin::Now;
        let mut commands: Vec<Command> = vec![];
        for at in 0..self.tools.len() {
            if is_now(&self.tools[at]) {
                commands.extend(self.open(at));
            }
        }
        commands.extend(self.shown.and_then(|at| self.wake(at)));
        commands
    }

    /// A tool begins, if it waited to be shown.
    pub(super) fn wake(&mut self, at: usize) -> Option<Command> {
        let waits = |tool: &&Tool| tool.begin != Begin::Now && matches!(tool.stage, Stage::Idle(_));
        self.tools.get(at).filter(waits).filter(|tool| tool.begin == Begin::Shown)?;
        self.open(at)
    }

    /// A tool gives other rows, if it can.
    pub(super) fn open(&mut self, at: usize) -> Option<Command> {
        let tool = self.tools.get_mut(at)?;
        let want = tool.reopen();
        Some(Command::Open { tool: at, run: tool.run, want })
    }

    /// Something happens: what is to be done for it.
    pub fn update(&mut self, input: Input) -> Vec<Command> {
        match input {
            Input::Press(press) => {
                self.said.clear();
                return self.press(press).into_iter().collect();
            }
            Input::Size(columns, lines) => self.size = (columns, lines),
            Input::Item { tool, run, item } => {
                if let Item::Header(header) = &item {
                    self.clock.set(header);
                }
                let paused = self.is_held();
                if let Some(tool) = self.tools.get_mut(tool).filter(|tool| tool.run == run) {
                    tool.take(item, paused);
                }
            }
            Input::Failed { tool, run, why } => {
                if let Some(tool) = self.tools.get_mut(tool).filter(|tool| tool.run == run) {
                    tool.stage = Stage::Failed(why);
                }
            }
            Input::Cost { tool, run, ns } => {
                if let Some(tool) = self.tools.get_mut(tool).filter(|tool| tool.run == run) {
                    tool.cost = [ns, tool.cost[0]];
                }
            }
            Input::Said(text) => self.said = text,
            Input::Rewound => self.tools.iter_mut().for_each(Tool::rewind),
        }
        vec![]
    }

    /// How long the recording was at what is shown of it.
    pub(super) fn played(&self) -> Option<Duration> {
        let tool = self.tools.first()?;
        let start_ns = tool.header.as_ref()?.start_ns;
        Some(Duration::from_nanos(tool.shown_ns.saturating_sub(start_ns)))
    }
}

/// What there is at a place of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    Tab(Option<usize>),
    Tool(usize),
    Row(usize),
}
