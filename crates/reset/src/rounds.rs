//! The thread that resets page tables, round after round, and takes new processes and mappings under control.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::prctl::set_timerslack;
use trapline_model::access::Coverage;
use trapline_model::{BUCKETS, Hist, bucket};
use trapline_symbols::maps::Maps;
use trapline_symbols::privilege;

use super::engine::Engine;
use super::injector::{Canceller, Injector};
use super::numa::{self, Balance};
use super::own::{GiveWay, Given};
use super::target_memory::{Reset, TargetMemory};

/// Mappings are looked at again at most so often, and for at most a 20th of the time.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOK_WITHIN: Duration = Duration::from_millis(200);
/// A child that is about to become another program is left alone so long.
const SETTLE: Duration = Duration::from_millis(2);

/// A process that cannot be taken under control is tried again so often, after so long.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// At the end an injection that has begun may take so long.
const LAST_INJECTION: Duration = Duration::from_millis(300);

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    /// A process has got memory of its own, by exec.
    Begin(u32),
    /// The same, by fork: it may become another program at once.
    BeginSoon(u32),
    /// A process has mappings that were not seen before.
    Look(u32),
    /// A process has ended.
    End(u32),
}

/// What it tells.
#[derive(Debug)]
pub enum Notice {
    /// A process is under control.
    Began {
        /// The process.
        pid: u32,
        /// How long a thread of it stood still for that, nanoseconds.
        stopped_ns: u64,
        /// What of its memory can be seen.
        coverage: Coverage,
    },
    /// It cannot be.
    Refused {
        /// The process.
        pid: u32,
        /// Why, in words.
        why: String,
    },
    /// The settings of the kernel's balancing cannot be changed any more, or not be put back.
    Balance(anyhow::Error),
}

/// Figures of the rounds so far.
#[derive(Debug)]
pub struct Figures {
    /// Rounds, the first included, before which there is no period.
    rounds: AtomicU64,
    /// From the start of a round to the start of the next, nanoseconds, by bucket.
    periods: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    /// Time in the rounds themselves.
    pub busy_ns: AtomicU64,
    /// The period that is aimed at, nanoseconds.
    pub every_ns: AtomicU64,
    /// Memory that is out of sight.
    pub unseen_bytes: AtomicU64,
    /// Registrations with a userfaultfd of the target's that ours was in the way of.
    pub late: AtomicU64,
}

/// The period that was reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// How many rounds there were.
    pub rounds: u64,
    /// Their mean period.
    pub mean_ns: u64,
    /// What 99 of 100 periods were at most.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Figures {
    fn new(every: Duration) -> Self {
        Self {
            rounds: AtomicU64::new(0),
            periods: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            every_ns: AtomicU64::new(every.as_nanos() as u64),
            unseen_bytes: AtomicU64::new(0),
            late: AtomicU64::new(0),
        }
    }

    /// A round, and the period that it ends unless it is the first of a row.
    fn record(&self, period: Option<Duration>) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        if let Some(period) = period {
            self.record_periods(period.as_nanos() as u64, 1);
        }
    }

    /// `times` periods of `ns` nanoseconds each.
    fn record_periods(&self, ns: u64, times: u64) {
        self.periods[bucket(ns)].fetch_add(times, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns * times, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// What was reached so far.
    pub fn reached(&self) -> Reached {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let periods: Vec<u64> = self.periods.iter().map(load).collect();
        let (count, max_ns) = (periods.iter().sum(), load(&self.max_ns));
        let hist = Hist::new(&periods);
        Reached {
            rounds: load(&self.rounds),
            mean_ns: load(&self.sum_ns).checked_div(count).unwrap_or(0),
            p99_ns: hist.quantile(0.99, 0, max_ns).unwrap_or(0),
            max_ns,
        }
    }
}

/// The thread, as its client sees it.
#[derive(Debug)]
pub struct Rounds {
    orders: Option<Sender<Order>>,
    /// What it tells.
    pub notices: Receiver<Notice>,
    /// What it counts.
    pub figures: Arc<Figures>,
    thread: Option<JoinHandle<()>>,
    injection: Canceller,
    /// Which processes are not reset any more, for they have a userfaultfd of their own.
    pub given: Option<Given>,
}

impl Rounds {
    /// Starts the thread, with processes that are under control already.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(
        engine: Engine,
        every: Duration,
        injector: Injector,
        spaces: Vec<(TargetMemory, Coverage)>,
        balance: Option<Balance>,
        give_way: Option<GiveWay>,
    ) -> Result<Self> {
        let (orders, receive) = channel();
        let (notify, notices) = channel();
        let figures = Arc::new(Figures::new(every));
        let injection = injector.canceller();
        let given = give_way.as_ref().map(GiveWay::given);
        let mut resetter = Resetter {
            engine,
            injector,
            balance,
            give_way,
            spaces: HashMap::new(),
            soon: vec![],
            begin: VecDeque::new(),
            tries: HashMap::new(),
            notify,
            figures: Arc::clone(&figures),
        };
        for (space, coverage) in spaces {
            resetter.spaces.insert(space.pid, Watched::new(space, &coverage));
        }
        // A period of a millisecond wants to be woken on time; if not, it is a little longer.
        let prepare = || {
            let _ = set_timerslack(1000);
        };
        let thread = Builder::new().name("rounds".into());
        let thread = privilege::spawn(thread, engine.keeps(), prepare, move || {
            resetter.run(&receive);
            resetter.spaces.clear();
            if let Some(give_way) = resetter.give_way.take() {
                resetter.figures.late.store(give_way.late(), Ordering::Relaxed);
            }
            if let Some(Err(error)) = resetter.balance.take().map(Balance::end) {
                let _ = resetter.notify.send(Notice::Balance(error));
            }
        });
        let thread = thread.context("cannot start the thread that resets page tables")?;
        Ok(Self { orders: Some(orders), notices, figures, thread: Some(thread), injection, given })
    }

    /// Tells it something.
    pub fn tell(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only when it is told to.
            let _ = orders.send(order);
        }
    }

    /// Ends the rounds: every page table is as it was when this returns.
    pub fn stop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let until = Instant::now() + LAST_INJECTION;
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            // A target that does not stop must not keep us.
            self.injection.cancel();
            let _ = thread.join();
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Watched {
    space: TargetMemory,
    look: bool,
    looked: Instant,
    /// How long a look takes.
    look_takes: Duration,
    unseen: u64,
}

impl Watched {
    fn new(space: TargetMemory, coverage: &Coverage) -> Self {
        let unseen = coverage.unseen_bytes();
        Self { space, look: false, looked: Instant::now(), look_takes: Duration::ZERO, unseen }
    }
}

struct Resetter {
    engine: Engine,
    injector: Injector,
    balance: Option<Balance>,
    spaces: HashMap<u32, Watched>,
    /// Behind the spaces, which it lets go.
    give_way: Option<GiveWay>,
    soon: Vec<(Instant, u32)>,
    /// Processes that are to be taken under control now.
    begin: VecDeque<u32>,
    /// How often a process has not let itself be taken under control.
    tries: HashMap<u32, u32>,
    notify: Sender<Notice>,
    figures: Arc<Figures>,
}

impl Resetter {
    fn run(&mut self, orders: &Receiver<Order>) {
        let mut last: Option<Instant> = None;
        let mut next = Instant::now();
        loop {
            let idle = self.spaces.is_empty() || !self.engine.has_rounds();
            let wake = if idle { Instant::now() + Duration::from_millis(100) } else { next };
            let wake = self.soon.iter().map(|&(at, _)| at).fold(wake, Instant::min);
            let wait = wake.saturating_duration_since(Instant::now());
            match orders.recv_timeout(if self.begin.is_empty() { wait } else { Duration::ZERO }) {
                Ok(order) => {
                    std::iter::once(order).chain(orders.try_iter()).for_each(|order| self.obey(order))
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // One at a time: an injection takes about as long as a round may be late, and a target that
            // starts one process after the other must not keep the rest of its processes from being reset.
            self.queue_those_that_settled();
            if let Some(pid) = self.begin.pop_front() {
                self.begin(pid);
            }
            self.look();
            if idle || Instant::now() < next {
                last = last.filter(|_| !idle);
                continue;
            }
            let began = Instant::now();
            let period = last.replace(began).map(|last| began - last);
            if self.engine != Engine::Numa {
                self.figures.record(period);
            }
            let figures = &self.figures;
            self.spaces.retain(|_, watched| match watched.space.reset() {
                Reset::Gone => false,
                Reset::Stale | Reset::GaveWay => {
                    watched.look = true;
                    true
                }
                Reset::Passed(times, time) => {
                    figures.rounds.fetch_add(times, Ordering::Relaxed);
                    figures.record_periods((time.as_nanos() as u64).checked_div(times).unwrap_or(0), times);
                    true
                }
                Reset::Done | Reset::Waiting => true,
            });
            let busy = began.elapsed();
            self.figures.busy_ns.fetch_add(busy.as_nanos() as u64, Ordering::Relaxed);
            let mut every = Duration::from_nanos(self.figures.every_ns.load(Ordering::Relaxed));
            if let Some(balance) = &mut self.balance {
                let processes = self.spaces.values().filter_map(|watched| watched.space.scanned.as_ref());
                if let Err(error) = balance.follow(processes, every) {
                    let _ = self.notify.send(Notice::Balance(error));
                    self.balance = None;
                }
                // It is the kernel that resets; we look.
                every = numa::LOOK_EVERY;
            }
            // What is late by less than a period is caught up with; what is later begins a new row of rounds.
            let due = if began >= next + every { began } else { next };
            // A round that takes longer than the period leaves the target at least a quarter of its own length.
            next = (due + every).max(Instant::now() + busy / 4).max(began + every / 2);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(pid) => {
                // Only its last program is there to be taken under control; what belonged to the one before is void.
                self.forget(pid);
                self.begin.push_back(pid);
            }
            Order::BeginSoon(pid) => self.soon.push((Instant::now() + SETTLE, pid)),
            Order::Look(pid) => {
                if let Some(watched) = self.spaces.get_mut(&pid) {
                    watched.look = true;
                }
            }
            Order::End(pid) => {
                self.forget(pid);
                self.tries.remove(&pid);
            }
        }
    }

    fn forget(&mut self, pid: u32) {
        self.spaces.remove(&pid);
        self.soon.retain(|&(_, soon)| soon != pid);
        self.begin.retain(|&begin| begin != pid);
    }

    fn begin(&mut self, pid: u32) {
        let begun = TargetMemory::open(pid, self.engine, &self.injector, self.give_way.as_ref()).and_then(
            |mut space| {
                space.learn(self.balance.as_ref());
                let coverage = space.cover(&Maps::read(pid).context("it has ended")?);
                Ok((space, coverage))
            },
        );
        let notice = match begun {
            Ok((space, coverage)) => {
                let stopped_ns = space.stopped_ns;
                self.spaces.insert(pid, Watched::new(space, &coverage));
                Notice::Began { pid, stopped_ns, coverage }
            }
            Err(error) => {
                // It may have waited for a disk, or become another program just then.
                let tries = self.tries.entry(pid).or_insert(0);
                *tries += 1;
                if *tries < TRIES {
                    self.soon.push((Instant::now() + TRY_AGAIN, pid));
                    return;
                }
                Notice::Refused { pid, why: format!("{error:#}") }
            }
        };
        self.tries.remove(&pid);
        let _ = self.notify.send(notice);
    }

    fn queue_those_that_settled(&mut self) {
        let now = Instant::now();
        let due = self.soon.extract_if(.., |&mut (at, _)| at <= now).map(|(_, pid)| pid);
        self.begin.extend(due);
    }

    /// Looks at mappings anew where that is wanted, and has not been done just now.
    fn look(&mut self) {
        for watched in self.spaces.values_mut().filter(|w| w.look) {
            if watched.looked.elapsed() < LOOK_EVERY.max((watched.look_takes * 20).min(LOOK_WITHIN)) {
                continue;
            }
            let began = Instant::now();
            // Of one that has just ended stays known what it had.
            if let Ok(maps) = Maps::read(watched.space.pid)
                && !maps.is_empty()
            {
                watched.unseen = watched.space.cover(&maps).unseen_bytes();
            }
            watched.look = false;
            watched.looked = Instant::now();
            watched.look_takes = watched.looked - began;
        }
        if !self.spaces.is_empty() {
            let unseen = self.spaces.values().map(|w| w.unseen).sum();
            self.figures.unseen_bytes.store(unseen, Ordering::Relaxed);
        }
    }
}
