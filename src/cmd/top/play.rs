//! A recording that is played: its items come when they came, faster or slower, from another time on, or grouped otherwise.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use trapline_model::access::EVENT as ACCESS;
use trapline_model::access::summary::{Options, Summarized};
use trapline_model::faults::{
    By, EVENT, InColumns, Lines, Regroup, Regrouping, are_all_faults, have_parts, shown_as,
};
use trapline_model::stage::rows;
use trapline_model::{Header, Item, Source, Value};
use trapline_view::top::{Command, Input, Want};

use super::attach::summary;
use super::shown::{EndIfPanicked, Post};
use crate::cmd::recording;
use crate::cmd::run::Items;

/// Plays a recording.
pub(super) struct Player {
    pub(super) path: PathBuf,
    pub(super) interval: Duration,
    pub(super) orders: Receiver<Command>,
    pub(super) post: Post,
    /// The number of its items.
    run: u32,
    want: Option<Want>,
    plays: bool,
    /// In per cent.
    speed: u32,
    /// The time that was reached, since the start.
    at: Duration,
    /// Up to there nothing is waited for.
    goal: Duration,
    steps: u32,
}

/// What is to be done next.
enum Next {
    Go,
    /// From the beginning.
    Again,
    End,
}

impl Player {
    pub(super) fn new(path: &Path, interval: Duration, orders: Receiver<Command>, post: Post) -> Self {
        Self {
            path: path.to_owned(),
            interval,
            orders,
            post,
            run: 0,
            want: None,
            plays: true,
            speed: 100,
            at: Duration::ZERO,
            goal: Duration::ZERO,
            steps: 0,
        }
    }

    /// Plays until the end of the screen.
    pub(super) fn run(mut self) {
        let _end = EndIfPanicked;
        loop {
            let next = self.once().unwrap_or_else(|error| {
                let why = trapline_probe::name_errnos(&format!("{error:#}"));
                self.post.send(Input::Failed { tool: 0, run: self.run, why });
                self.rest()
            });
            if matches!(next, Next::End) {
                return;
            }
        }
    }

    /// Once from the beginning; at the end, something else may be wanted.
    fn once(&mut self) -> Result<Next> {
        // The screen says first what it wants.
        while self.want.is_none() {
            if matches!(self.order(None), Next::End) {
                return Ok(Next::End);
            }
        }
        let mut items = self.open()?;
        self.post.send(Input::Rewound);
        self.at = Duration::ZERO;
        let mut start_ns = 0;
        let mut before: Option<u64> = None;
        while let Some(item) = items.next()? {
            // Lines of JSON have no ticks: an interval ends where the rows of the next begin.
            let ended = match &item {
                Item::Rows(block) => before.replace(block.time_ns).filter(|last| *last != block.time_ns),
                Item::Totals(_) | Item::End(_) | Item::Tick(_) => before.take(),
                _ => None,
            };
            if let Some(time_ns) = ended {
                match self.tick(time_ns, start_ns) {
                    Next::Go => {}
                    other => return Ok(other),
                }
            }
            match item {
                Item::Tick(_) => {}
                item => {
                    if let Item::Header(header) = &item {
                        start_ns = header.start_ns;
                    }
                    self.give(item);
                }
            }
        }
        self.goal = Duration::ZERO;
        self.post.send(Input::Said("the end of the recording".into()));
        Ok(self.rest())
    }

    fn give(&self, item: Item) {
        self.post.send(Input::Item { tool: 0, run: self.run, item });
    }

    /// An interval of the recording has ended: it is shown when it is time for it.
    fn tick(&mut self, time_ns: u64, start_ns: u64) -> Next {
        let at = Duration::from_nanos(time_ns.saturating_sub(start_ns));
        let mut due = Instant::now();
        let mut left = at.saturating_sub(self.at);
        // Nothing is waited for before the first one.
        while at > self.goal && self.at > Duration::ZERO {
            let wait = left * 100 / self.speed.max(1);
            if self.steps > 0 {
                self.steps -= 1;
                break;
            }
            let until = self.plays.then(|| due + wait);
            let begun = Instant::now();
            match self.order(until) {
                Next::Go if self.plays && until.is_some_and(|until| Instant::now() >= until) => break,
                Next::Go => {
                    // What was waited is waited, at another speed.
                    let waited = begun.elapsed() * self.speed / 100;
                    left = if until.is_some() { left.saturating_sub(waited) } else { left };
                    due = Instant::now();
                }
                other => return other,
            }
        }
        self.at = at;
        self.give(Item::Tick(time_ns));
        match self.orders.try_recv() {
            Ok(command) => self.obey(command),
            Err(TryRecvError::Empty) => Next::Go,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }

    /// Waits for another wish.
    fn rest(&mut self) -> Next {
        loop {
            match self.order(None) {
                Next::Go => {}
                other => return other,
            }
        }
    }

    /// Waits for an order, until a moment at most.
    fn order(&mut self, until: Option<Instant>) -> Next {
        let received = match until {
            Some(until) => self.orders.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(command) => self.obey(command),
            Err(RecvTimeoutError::Timeout) => Next::Go,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    fn obey(&mut self, command: Command) -> Next {
        match command {
            Command::Quit => return Next::End,
            Command::Open { run, want, .. } => {
                (self.run, self.want, self.goal) = (run, Some(want), self.at);
                return Next::Again;
            }
            Command::Seek(to) => return self.seek(to),
            Command::StepTo(to) => {
                self.plays = false;
                return self.seek(to);
            }
            Command::Step => (self.plays, self.steps) = (false, self.steps + 1),
            Command::Play(plays) => self.plays = plays,
            Command::Speed(speed) => self.speed = speed,
            Command::Write(items) => self.post.write(&items),
            Command::Refresh | Command::Cumulative(_) | Command::Interval(_) | Command::Measure => {}
        }
        Next::Go
    }

    fn seek(&mut self, to: Duration) -> Next {
        self.goal = to;
        if to < self.at { Next::Again } else { Next::Go }
    }

    /// The recording, grouped as it is wanted.
    fn open(&self) -> Result<Items<'static>> {
        let input = recording::open(&self.path, None, None)?;
        let header = input.header().clone();
        let Some(want) = self.want.as_ref().filter(|_| has_single_events(&header)) else {
            return Ok(Box::new(input));
        };
        if header.tool == "access" {
            let whole = Options { intervals: false, ..summary(false) };
            return Ok(if want.events { Box::new(input) } else { Box::new(Summarized::new(input, whole)) });
        }
        let by: By = want.group.parse().map_err(anyhow::Error::msg)?;
        let interval_ns = Some(self.interval.as_nanos() as u64);
        let recorded = header.events.unwrap_or(EVENT);
        let has_parts = have_parts(&header);
        ensure!(
            has_parts || !want.split,
            "the recording does not have what the time of each fault was spent on: record faults with --split"
        );
        let how = Regrouping {
            interval_ns,
            hist: true,
            all: want.keys.is_empty(),
            lines: if want.events { Lines::Faults(None) } else { Lines::None },
            events: want.events.then_some(shown_as(recorded, has_parts)),
            ..Regrouping::of(if want.split { by.split_schema() } else { by.schema() }, recorded)
        };
        let within = InColumns(Within { source: Box::new(input), keys: want.keys.clone() });
        let regrouped = Regroup::new(within, how).map_err(|key| {
            anyhow!("the recording has no {key} of each fault: group its rows by something else")
        })?;
        Ok(Box::new(rows(regrouped, false)))
    }
}

/// Whether rows can be made of what is in a recording: single faults, or accesses.
pub(super) fn has_single_events(header: &Header) -> bool {
    header.events.is_some_and(|events| are_all_faults(events) || events == ACCESS)
}

/// The faults within some rows.
struct Within {
    source: Items<'static>,
    keys: Vec<(&'static str, Value)>,
}

impl Source for Within {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        let mut item = self.source.next()?;
        if let Some(Item::Events(events)) = &mut item {
            events.retain(|event| event.record.is_within(&self.keys));
        }
        Ok(item)
    }
}
