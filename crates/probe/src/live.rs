//! The frame of every live tool: intervals, signals, the command or processes that end it. It makes a tool a source.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trapline_model::{Block, Event, Facts, Header, Item, Record, Source};

use crate::launch::Launch;
use crate::relay::Relay;
use crate::signals::{self, Signals};
use crate::system;

/// How often what the kernel half sets aside is fetched, at the least: threads that ended.
const DRAIN_EVERY: Duration = Duration::from_millis(250);

/// A tool that is attached.
pub trait Tool {
    /// What to say of it first.
    fn header(&self) -> Header;
    /// Becomes readable when events wait; nothing if the tool has no events.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;
    /// How long events may wait for those that follow, so that not each of a stream wakes us.
    fn gathers_for(&self) -> Duration {
        Duration::ZERO
    }
    /// Fetches events, and what the kernel half set aside.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()>;
    /// The rows of the interval that ends now; nothing if the tool has no rows but totals.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn snapshot(&mut self, cumulative: bool) -> Result<Option<Block>>;
    /// What was counted and lost up to now.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn facts(&mut self) -> Result<Counted>;
    /// Detaches, and gives the last events, the rows of the interval cut short, and the totals.
    ///
    /// # Errors
    /// When the kernel half cannot be read.
    fn finish(&mut self, cumulative: bool, events: &mut Vec<Event>) -> Result<Last>;
}

impl<T: Tool + ?Sized> Tool for Box<T> {
    fn header(&self) -> Header {
        (**self).header()
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).poll_fd()
    }

    fn gathers_for(&self) -> Duration {
        (**self).gathers_for()
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        (**self).drain(events)
    }

    fn snapshot(&mut self, cumulative: bool) -> Result<Option<Block>> {
        (**self).snapshot(cumulative)
    }

    fn facts(&mut self) -> Result<Counted> {
        (**self).facts()
    }

    fn finish(&mut self, cumulative: bool, events: &mut Vec<Event>) -> Result<Last> {
        (**self).finish(cumulative, events)
    }
}

/// The end of a tool's run.
#[derive(Debug)]
pub struct Last {
    /// Since the last interval; nothing if the tool has no rows but totals.
    pub rows: Option<Block>,
    /// Over the run.
    pub totals: Block,
}

/// What a tool has counted and lost.
#[derive(Debug)]
pub struct Counted {
    /// What was counted; nothing where each event has a line, which are counted here.
    pub events: Option<u64>,
    /// Events not delivered.
    pub lost: u64,
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
    /// Rows are since the start, not since the last interval.
    pub cumulative: bool,
    /// Rows that the totals repeat are left out: nobody wants to read the same table twice.
    pub for_people: bool,
    /// End after this time.
    pub duration: Option<Duration>,
    /// Index of the field that rows are sorted by.
    pub sort: usize,
    /// Rows stay in the order in which the tool gives them.
    pub in_order: bool,
    /// Show only so many rows.
    pub top: Option<usize>,
    /// End when all of these processes have.
    pub pids: Vec<u32>,
}

/// A live source.
#[derive(Debug)]
pub struct Live<T> {
    tool: T,
    header: Option<Header>,
    frame: Frame,
    command: Option<Relay>,
    signals: Signals,
    /// The processes, or the command, whose end is ours; those that still run.
    processes: Vec<OwnedFd>,
    ends_by_itself: bool,
    began: Instant,
    began_cpu_ns: u64,
    intervals: u32,
    /// Rows of an interval were given.
    has_rows: bool,
    lines: u64,
    events: Vec<Event>,
    /// No event is waited for until then.
    gathers_until: Instant,
    /// What comes next.
    ready: VecDeque<Item>,
    state: State,
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
    End,
}

impl<T: Tool> Live<T> {
    /// Puts a tool into its frame, and lets the command run. Signals are caught from here on.
    ///
    /// # Errors
    /// When signals cannot be caught, or there is no such command.
    pub fn new(tool: T, frame: Frame, mut launch: Option<Launch>) -> Result<Self> {
        let header = tool.header();
        let signals = Signals::catch(launch.as_ref().map(Launch::pid)).context("cannot catch signals")?;
        let mut processes: Vec<OwnedFd> =
            frame.pids.iter().filter_map(|&pid| system::pidfd(pid).ok()).collect();
        let ends_by_itself = launch.is_some() || !frame.pids.is_empty();
        let began = Instant::now();
        if let Some(launch) = &mut launch {
            processes.push(launch.end().context("cannot watch the command")?);
            launch.go()?;
        }
        Ok(Self {
            header: Some(header),
            processes,
            ends_by_itself,
            tool,
            frame,
            command: launch.map(Relay::new),
            signals,
            began,
            began_cpu_ns: system::own_cpu_ns(),
            intervals: 0,
            has_rows: false,
            lines: 0,
            events: Vec::new(),
            gathers_until: began,
            ready: VecDeque::new(),
            state: State::Running,
        })
    }

    /// Detaches, waits for the command to end if there is one, and gives the status to exit with: its own, or 128 and
    /// the signal that killed it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn status(mut self) -> Result<u8> {
        drop(self.tool);
        self.command.map_or(Ok(0), |command| command.status(&mut self.signals))
    }

    fn wait(&mut self) -> Result<Wake> {
        loop {
            let now = Instant::now();
            let end = self.frame.duration.map(|d| self.began + d);
            let next = self.frame.interval.map(|i| self.began + i * (self.intervals + 1));
            if end.is_some_and(|end| now >= end) {
                return Ok(Wake::End);
            }
            if let (Some(interval), Some(_)) = (self.frame.interval, next.filter(|next| now >= *next)) {
                // Where showing them takes longer than they are, some are put together: the end is not to be missed.
                let passed = (now - self.began).as_nanos() / interval.as_nanos().max(1);
                self.intervals = passed as u32;
                return Ok(if self.poll(Duration::ZERO)? { Wake::End } else { Wake::Interval });
            }
            let gathers = Some(self.gathers_until).filter(|until| now < *until);
            let until = [end, next, gathers].into_iter().flatten().min().map_or(DRAIN_EVERY, |at| at - now);
            if self.poll(until.min(DRAIN_EVERY))? {
                return Ok(Wake::End);
            }
            // Also when nothing woke us: what the kernel half set aside wants fetching.
            self.tool.drain(&mut self.events)?;
            if !self.events.is_empty() {
                self.gathers_until = Instant::now() + self.tool.gathers_for();
                return Ok(Wake::Events);
            }
        }
    }

    /// Waits for something to happen, at most so long. Tells whether it was the end.
    fn poll(&mut self, until: Duration) -> Result<bool> {
        let mut fds = vec![PollFd::new(self.signals.fd(), PollFlags::POLLIN)];
        fds.extend(self.processes.iter().map(|p| PollFd::new(p.as_fd(), PollFlags::POLLIN)));
        let events = self.tool.poll_fd().filter(|_| Instant::now() >= self.gathers_until);
        fds.extend(events.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // Rounded up, or a wait of less than a millisecond would spin.
        let timeout = PollTimeout::try_from(until.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect::<Vec<_>>().into_iter();
        let signalled = ready.next().unwrap_or(false);
        self.processes.retain(|_| !ready.next().unwrap_or(false));
        let gone = self.ends_by_itself && self.processes.is_empty();
        Ok(gone || signalled && self.take_signals())
    }

    /// Reads the signals that came. Tells whether they mean the end.
    fn take_signals(&mut self) -> bool {
        let mut end = false;
        for came in self.signals.take() {
            end |= self.command.as_mut().is_none_or(|command| command.take(&came));
        }
        end
    }

    fn take_events(&mut self) -> Option<Item> {
        if self.events.is_empty() {
            return None;
        }
        self.lines += self.events.len() as u64;
        Some(Item::Events(std::mem::take(&mut self.events)))
    }

    fn block(&self, mut block: Block) -> Block {
        if self.frame.in_order {
            block.cut(self.frame.top);
        } else {
            block.sort(self.frame.sort, self.frame.top);
        }
        block
    }

    /// What was counted and lost in this time, and what it cost.
    fn facts(&mut self, duration: Duration) -> Result<Facts> {
        let counted = self.tool.facts()?;
        Ok(Facts {
            duration_ns: duration.as_nanos() as u64,
            events: counted.events.unwrap_or(self.lines),
            lost: counted.lost,
            sampled: counted.sampled,
            self_ns: system::own_cpu_ns() - self.began_cpu_ns,
            more: vec![counted.more],
        })
    }

    /// An interval has ended: its rows, what was lost up to now, and that it has.
    fn interval(&mut self) -> Result<VecDeque<Item>> {
        let rows = self.tool.snapshot(self.frame.cumulative)?;
        self.has_rows |= rows.is_some();
        let time_ns = rows.as_ref().map_or_else(system::monotonic_ns, |rows| rows.time_ns);
        let mut items: VecDeque<Item> = rows.map(|rows| Item::Rows(self.block(rows))).into_iter().collect();
        let facts = self.facts(self.began.elapsed())?;
        items.extend([Item::Facts(facts), Item::Tick(time_ns)]);
        Ok(items)
    }

    /// Detaches and puts the last items in order.
    fn finish(&mut self) -> Result<VecDeque<Item>> {
        let duration = self.began.elapsed();
        signals::end_by_any();
        let last = self.tool.finish(self.frame.cumulative, &mut self.events)?;
        let mut items: VecDeque<Item> = self.take_events().into_iter().collect();
        let repeated = self.frame.for_people && (self.frame.cumulative || !self.has_rows);
        if self.frame.interval.is_some() && !repeated {
            items.extend(last.rows.map(|rows| Item::Rows(self.block(rows))));
            items.push_back(Item::Tick(last.totals.time_ns));
        }
        items.push_back(Item::Totals(self.block(last.totals)));
        items.push_back(Item::End(self.facts(duration)?));
        Ok(items)
    }
}

impl<T: Tool> Source for Live<T> {
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

impl<T: Tool> Live<T> {
    fn next_item(&mut self) -> Result<Option<Item>> {
        if let Some(header) = self.header.take() {
            return Ok(Some(Item::Header(header)));
        }
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            match self.state {
                State::Running => {
                    if let Some(events) = self.take_events() {
                        return Ok(Some(events));
                    }
                    match self.wait()? {
                        Wake::Events => {}
                        Wake::Interval => self.ready = self.interval()?,
                        Wake::End => {
                            self.ready = self.finish()?;
                            self.state = State::Ended;
                        }
                    }
                }
                State::Ended => return Ok(None),
            }
        }
    }
}
