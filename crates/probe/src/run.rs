//! The run of live tools: intervals, signals, the command or processes that end it. It makes tools a source.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trapline_model::stage::{Cumulative, Pace, Refresh};
use trapline_model::{BatchSink, Block, COMMAND, Event, Facts, Header, Item, Record, Source, Took};

use crate::launch::Launch;
use crate::relay::Relay;
use crate::signals::{self, Signals};
use crate::system;

/// How often what the kernel half sets aside is fetched, at the least: threads that ended.
const DRAIN_EVERY: Duration = Duration::from_millis(250);

/// A tool that is attached.
pub trait Tool: fmt::Debug {
    /// What to say of it first.
    fn header(&self) -> Header;
    /// Becomes readable when events wait; nothing if the tool has no events.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;
    /// How long events may wait for those that follow, so that not each of a stream wakes us, after some `came` or not.
    fn gathers_for(&self, _came: bool) -> Duration {
        Duration::ZERO
    }
    /// Fetches events, and what the kernel half set aside.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()>;
    /// From now on events are put there, and [`Tool::drain`] gives none, if the tool can do that.
    fn record(&mut self, _events: Option<Box<dyn BatchSink>>) {}
    /// Whether [`Tool::drain`] would find something to do at once.
    fn has_work(&self) -> bool {
        false
    }
    /// An interval ends now: the rows that have more than at the end of the one before, or `all`, with what they have come to
    /// since the start; nothing if the tool has no rows but totals.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn snapshot(&mut self, all: bool) -> Result<Option<Block>>;
    /// What was counted and lost up to now.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn facts(&mut self) -> Result<Counted>;
    /// Detaches, reads the kernel half for the last time, and gives the last events. What is asked for after it is of that
    /// moment.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn detach(&mut self, events: &mut Vec<Event>) -> Result<()>;
    /// All rows, after it has detached.
    fn totals(&mut self) -> Block;
}

/// What a tool has counted and lost.
#[derive(Debug)]
pub struct Counted {
    /// What was counted; nothing where each event has a line, which are counted here.
    pub events: Option<u64>,
    /// Events not delivered.
    pub lost_events: u64,
    /// One in how many was timed.
    pub sampled: u64,
    /// Further losses, and what was reached.
    pub more: Record,
}

/// When to show rows and when to end.
#[derive(Debug, Default)]
pub struct Frame {
    /// Rows at each such time; without it only totals.
    pub interval: Option<Duration>,
    /// Intervals are of another length from now on.
    pub pace: Pace,
    /// Rows are since the start, not since the last interval.
    pub cumulative: Cumulative,
    /// Rows before the next interval ends.
    pub refresh: Refresh,
    /// What was counted and lost, at least at each such time in which events came.
    pub facts: Option<Duration>,
    /// End after this time.
    pub duration: Option<Duration>,
    /// End when all of these processes have.
    pub pids: Vec<u32>,
    /// Stop, without totals, when this becomes readable; then signals are not caught here, but by who holds the other end.
    pub until: Option<OwnedFd>,
}

/// Live tools as one source: the header of each comes first, the facts of each last.
#[derive(Debug)]
pub struct Run {
    tools: Vec<Running>,
    frame: Frame,
    command: Option<Relay>,
    signals: Signals,
    /// The processes, or the command, whose end is ours; those that still run.
    processes: Vec<OwnedFd>,
    ends_by_itself: bool,
    began: Instant,
    /// The same, CLOCK_MONOTONIC: a command begins to run.
    began_ns: u64,
    began_cpu_ns: u64,
    intervals: u32,
    /// The length of those, and when the first of them began.
    paced: (Option<Duration>, Instant),
    /// When the last facts were.
    told: Instant,
    /// Events were not fetched since the last interval.
    is_overdue: bool,
    /// Nobody wants the totals.
    is_left: bool,
    /// What comes next.
    ready: VecDeque<Item>,
    state: State,
}

/// A tool, and what it has given.
#[derive(Debug)]
struct Running {
    tool: Box<dyn Tool>,
    lines: u64,
    events: Vec<Event>,
    /// The events of its last facts.
    told: u64,
    /// No event is waited for until then.
    gathers_until: Instant,
}

impl Running {
    /// Fetches events.
    fn drain(&mut self) -> Result<()> {
        self.tool.drain(&mut self.events)?;
        self.gathers_until = Instant::now() + self.tool.gathers_for(!self.events.is_empty());
        Ok(())
    }

    /// Gives them.
    fn take_events(&mut self) -> Option<Item> {
        self.lines += self.events.len() as u64;
        Some(std::mem::take(&mut self.events)).filter(|events| !events.is_empty()).map(Item::Events)
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Running,
    Ended,
}

/// Why a wait was over.
#[derive(Debug, PartialEq)]
enum Wake {
    Events,
    Interval,
    Facts,
    End,
}

impl Run {
    /// Puts tools into their frame, and lets the command run. Signals are caught from here on.
    ///
    /// # Errors
    /// When signals cannot be caught, or there is no such command.
    pub fn new(tools: Vec<Box<dyn Tool>>, frame: Frame, mut launch: Option<Launch>) -> Result<Self> {
        let signals = match frame.until {
            Some(_) => Signals::uncaught(),
            None => Signals::catch(launch.as_ref().map(Launch::pid)),
        };
        let signals = signals.context("cannot catch signals")?;
        let mut processes: Vec<OwnedFd> =
            frame.pids.iter().filter_map(|&pid| system::pidfd(pid).ok()).collect();
        let ends_by_itself = launch.is_some() || !frame.pids.is_empty();
        let (began, began_ns) = (Instant::now(), system::monotonic_ns());
        // A run with a command begins with it, not when the tool was attached.
        let begun = |header: Header| if launch.is_some() { header.begun(began_ns) } else { header };
        let headers = tools.iter().map(|tool| Item::Header(begun(tool.header()))).collect();
        if let Some(launch) = &mut launch {
            processes.push(launch.end().context("cannot watch the command")?);
            launch.go()?;
        }
        let running = |tool| Running { tool, lines: 0, events: Vec::new(), told: 0, gathers_until: began };
        Ok(Self {
            tools: tools.into_iter().map(running).collect(),
            frame,
            command: launch.map(Relay::new),
            signals,
            processes,
            ends_by_itself,
            began,
            began_ns,
            began_cpu_ns: system::own_cpu_ns(),
            intervals: 0,
            paced: (None, began),
            told: began,
            is_overdue: false,
            is_left: false,
            ready: headers,
            state: State::Running,
        })
    }

    /// Detaches, waits for the command to end if there is one, and gives the status to exit with: its own, or 128 and
    /// the signal that killed it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn status(mut self) -> Result<u8> {
        drop(self.tools);
        self.command.map_or(Ok(0), |command| command.status(&mut self.signals))
    }

    fn wait(&mut self) -> Result<Wake> {
        loop {
            let now = Instant::now();
            let end = self.frame.duration.map(|d| self.began + d);
            let interval = self.frame.pace.get().or(self.frame.interval);
            if self.paced.0.is_some_and(|paced| interval != Some(paced)) {
                (self.paced.1, self.intervals) = (now, 0);
            }
            self.paced.0 = interval;
            let next = interval.map(|i| self.paced.1 + i * (self.intervals + 1));
            if end.is_some_and(|end| now >= end) {
                return Ok(Wake::End);
            }
            if self.frame.refresh.take() {
                return Ok(Wake::Interval);
            }
            if let (Some(interval), Some(_)) = (interval, next.filter(|next| now >= *next)) {
                // Where showing them takes longer than they are, some are put together: the end is not to be missed.
                let passed = (now - self.paced.1).as_nanos() / interval.as_nanos().max(1);
                if std::mem::take(&mut self.is_overdue) && self.drain()? {
                    // Or nothing but intervals would ever be looked after.
                    return Ok(Wake::Events);
                }
                self.is_overdue = true;
                self.intervals = passed as u32;
                return Ok(if self.poll(Duration::ZERO)? { Wake::End } else { Wake::Interval });
            }
            let facts = self.frame.facts.map(|every| self.told + every);
            if facts.is_some_and(|at| now >= at) {
                return Ok(Wake::Facts);
            }
            let gather = self.tools.iter().map(|running| running.gathers_until).filter(|until| now < *until);
            let until = [end, next, facts].into_iter().flatten().chain(gather).min();
            let until = until.map_or(DRAIN_EVERY, |at| at - now);
            let has_work = self.tools.iter().any(|running| running.tool.has_work());
            let at_most = if has_work { Duration::ZERO } else { DRAIN_EVERY };
            if self.poll(until.min(at_most))? {
                return Ok(Wake::End);
            }
            // Also when nothing woke us: what the kernel half set aside wants fetching.
            self.is_overdue = false;
            if self.drain()? {
                return Ok(Wake::Events);
            }
        }
    }

    /// Fetches events. Tells whether there are any.
    fn drain(&mut self) -> Result<bool> {
        self.tools.iter_mut().try_for_each(Running::drain)?;
        Ok(self.tools.iter().any(|running| !running.events.is_empty()))
    }

    /// Waits for something to happen, at most so long. Tells whether it was the end.
    fn poll(&mut self, until: Duration) -> Result<bool> {
        let mut fds = vec![PollFd::new(self.signals.fd(), PollFlags::POLLIN)];
        fds.extend(self.frame.until.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.processes.iter().map(|p| PollFd::new(p.as_fd(), PollFlags::POLLIN)));
        let now = Instant::now();
        let waiting = self.tools.iter().filter(|running| now >= running.gathers_until);
        let events = waiting.filter_map(|running| running.tool.poll_fd());
        fds.extend(events.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // Rounded up, or a wait of less than a millisecond would spin.
        let timeout = PollTimeout::try_from(until.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>().into_iter();
        let signalled = ready.next().unwrap_or(false);
        self.is_left = self.frame.until.is_some() && ready.next().unwrap_or(false);
        self.processes.retain(|_| !ready.next().unwrap_or(false));
        let gone = self.ends_by_itself && self.processes.is_empty();
        Ok(self.is_left || gone || signalled && self.take_signals())
    }

    /// Reads the signals that came. Tells whether they mean the end.
    fn take_signals(&mut self) -> bool {
        let mut end = false;
        for came in self.signals.take() {
            end |= self.command.as_mut().is_none_or(|command| command.take(&came));
        }
        end
    }

    /// What a tool counted and lost in this time, and what it all cost.
    fn facts(&mut self, at: usize, duration: Duration, took: Option<Took>) -> Result<Item> {
        let running = &mut self.tools[at];
        let counted = running.tool.facts()?;
        let facts = Facts {
            duration_ns: duration.as_nanos() as u64,
            events: counted.events.unwrap_or(running.lines),
            lost_events: counted.lost_events,
            sampled: counted.sampled,
            own_cpu_ns: Some(system::own_cpu_ns() - self.began_cpu_ns),
            more: took.iter().map(|took| COMMAND.record(took)).chain([counted.more]).collect(),
        };
        Ok(if matches!(self.state, State::Ended) { Item::End(facts) } else { Item::Facts(facts) })
    }

    /// What the tools counted and lost up to now, of those that counted more than the last time.
    fn meanwhile(&mut self) -> Result<()> {
        self.told = Instant::now();
        for at in 0..self.tools.len() {
            let facts = self.facts(at, self.began.elapsed(), None)?;
            if let Item::Facts(Facts { events, .. }) = facts
                && std::mem::replace(&mut self.tools[at].told, events) != events
            {
                self.ready.push_back(facts);
            }
        }
        Ok(())
    }

    /// An interval has ended: the rows of each tool, what was lost up to now, and that it has.
    fn interval(&mut self) -> Result<()> {
        let mut time_ns = None;
        self.told = Instant::now();
        for at in 0..self.tools.len() {
            let running = &mut self.tools[at];
            if let Some(mut rows) = running.tool.snapshot(self.frame.cumulative.is_on())? {
                time_ns = Some(rows.time_ns);
                rows.since_ns = Some(self.began_ns);
                self.ready.push_back(Item::Rows(rows));
            }
            let facts = self.facts(at, self.began.elapsed(), None)?;
            self.ready.push_back(facts);
        }
        self.ready.push_back(Item::Tick(time_ns.unwrap_or_else(system::monotonic_ns)));
        Ok(())
    }

    /// Detaches and puts the last items in order.
    fn finish(&mut self) -> Result<()> {
        let duration = self.began.elapsed();
        signals::end_by_any();
        if !self.ends_by_itself || !self.processes.is_empty() {
            signals::wait_for_the_end();
            system::before_ordinary();
        }
        self.state = State::Ended;
        let mut totals = Vec::new();
        for running in &mut self.tools {
            running.tool.detach(&mut running.events)?;
            self.ready.extend(running.take_events());
            if self.frame.interval.is_some() {
                let rows = running.tool.snapshot(self.frame.cumulative.is_on())?;
                let since = |block| Block { since_ns: Some(self.began_ns), ..block };
                self.ready.extend(rows.map(since).map(Item::Rows));
            }
            totals.push(Block { since_ns: Some(self.began_ns), ..running.tool.totals() });
        }
        // An interval that was cut short.
        if let (Some(last), Some(_)) = (totals.last(), self.frame.interval) {
            self.ready.push_back(Item::Tick(last.time_ns));
        }
        // Tools have read what the kernel keeps of it until it is waited for.
        let times = self.command.as_mut().and_then(Relay::times);
        let took = times
            .map(|times| times.map(|time| time.as_nanos() as u64))
            .map(|[user_ns, system_ns]| Took { wall_ns: duration.as_nanos() as u64, user_ns, system_ns });
        for (at, totals) in totals.into_iter().enumerate() {
            self.ready.push_back(Item::Totals(totals));
            let facts = self.facts(at, duration, took)?;
            self.ready.push_back(facts);
        }
        Ok(())
    }
}

impl Source for Run {
    type Error = anyhow::Error;

    /// Gives times out by the clock that we read, which in a time namespace is not the kernel's own.
    fn next(&mut self) -> Result<Option<Item>> {
        let mut item = self.next_item()?;
        if let Some(item) = &mut item {
            item.shift_clock(system::clocks().monotonic_ns);
        }
        Ok(item)
    }
}

impl Run {
    fn next_item(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            match self.state {
                State::Running => match self.wait()? {
                    Wake::Events => {
                        self.ready.extend(self.tools.iter_mut().filter_map(Running::take_events));
                    }
                    Wake::Interval => self.interval()?,
                    Wake::Facts => self.meanwhile()?,
                    Wake::End if self.is_left => self.state = State::Ended,
                    Wake::End => self.finish()?,
                },
                State::Ended => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
