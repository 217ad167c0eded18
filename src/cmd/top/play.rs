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
use trapline_model::{Event, Header, Item, Source, Value};
use trapline_view::top::{Command, EVENTS, Input, Want};

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
    held: Held,
}

/// What waits for the end of its interval.
#[derive(Debug, Default)]
struct Held(Vec<Item>);

impl Held {
    fn take(&mut self, item: Item) {
        let Item::Events(mut events) = item else { return self.0.push(item) };
        if let Some(Item::Events(held)) = self.0.last_mut() {
            held.append(&mut events);
            events = std::mem::take(held);
            self.0.pop();
        }
        // The screen shows no more than that, and knows by one more that there were others.
        events.drain(..events.len().saturating_sub(EVENTS + 1));
        self.0.push(Item::Events(events));
    }

    /// What came up to this moment; later events stay.
    fn until(&mut self, time_ns: u64) -> Vec<Item> {
        let mut now = vec![];
        for item in std::mem::take(&mut self.0) {
            let Item::Events(events) = item else {
                now.push(item);
                continue;
            };
            let (come, later): (Vec<Event>, Vec<Event>) =
                events.into_iter().partition(|event| event.time_ns <= time_ns);
            now.extend((!come.is_empty()).then_some(Item::Events(come)));
            self.0.extend((!later.is_empty()).then_some(Item::Events(later)));
        }
        now
    }
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
            held: Held::default(),
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
        self.held = Held::default();
        let mut start_ns = 0;
        let mut before: Option<u64> = None;
        let mut has_begun = false;
        let end = loop {
            let item = match items.next() {
                Ok(Some(item)) => item,
                Ok(None) => break "the end of the recording".to_owned(),
                // What is intact stays on the screen.
                Err(error) if has_begun => {
                    self.release(u64::MAX);
                    before.take().into_iter().for_each(|time_ns| self.give(Item::Tick(time_ns)));
                    break trapline_probe::name_errnos(&format!("{error:#}"));
                }
                Err(error) => return Err(error),
            };
            has_begun |= !matches!(item, Item::Header(_));
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
                Item::Header(header) => {
                    start_ns = header.start_ns;
                    self.give(Item::Header(header));
                }
                item @ (Item::Rows(_) | Item::Events(_) | Item::Facts(_)) => self.held.take(item),
                item @ (Item::Totals(_) | Item::End(_)) => {
                    self.release(u64::MAX);
                    self.give(item);
                }
            }
        };
        self.goal = Duration::ZERO;
        self.post.send(Input::Said(end));
        Ok(self.rest())
    }

    fn give(&self, item: Item) {
        self.post.send(Input::Item { tool: 0, run: self.run, item });
    }

    /// Gives what came up to this moment.
    fn release(&mut self, time_ns: u64) {
        self.held.until(time_ns).into_iter().for_each(|item| self.give(item));
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
        self.release(time_ns);
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

#[cfg(test)]
mod tests {
    use trapline_model::faults::EVENT;
    use trapline_model::{Block, Event, Item, Record, Value};

    use super::{EVENTS, Held};

    fn events(times: impl IntoIterator<Item = u64>) -> Item {
        let record = Record::named(EVENT, |_| Value::Null);
        Item::Events(times.into_iter().map(|time_ns| Event { time_ns, record: record.clone() }).collect())
    }

    fn rows(time_ns: u64) -> Item {
        Item::Rows(Block::new(EVENT, time_ns, vec![]))
    }

    #[test]
    fn events_wait_for_the_end_of_their_interval() {
        let mut held = Held::default();
        for item in [events([1, 2]), rows(10), events([9, 11]), events([12, 21])] {
            held.take(item);
        }
        assert_eq!(held.until(10), [events([1, 2]), rows(10), events([9])]);
        held.take(rows(20));
        assert_eq!(held.until(20), [events([11, 12]), rows(20)]);
        assert_eq!(held.until(u64::MAX), [events([21])]);
        assert_eq!(held.until(u64::MAX), []);
    }

    #[test]
    fn no_more_events_wait_than_the_screen_shows() {
        let mut held = Held::default();
        (0..100).for_each(|n| held.take(events(n * 100..(n + 1) * 100)));
        held.take(rows(10_000));
        (100..200).for_each(|n| held.take(events(n * 100..(n + 1) * 100)));
        let last = |end: u64| events(end - EVENTS as u64 - 1..end);
        assert_eq!(held.until(10_000), [last(10_000), rows(10_000)]);
        assert_eq!(held.until(u64::MAX), [last(20_000)]);
    }
}
