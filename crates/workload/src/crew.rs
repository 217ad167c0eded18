//! Worker threads whose page faults are known to the last one.
//!
//! A thread cannot count the faults of its own end, since somebody must do the counting. So each worker reads
//! its usage when its work is done and waits; then the workers leave one at a time, and what the process
//! faults meanwhile, beyond what the main thread does, belongs to the one that leaves. The sum is checked
//! against the process's total: what nobody accounts for is reported as [`CrewReport::other`].
//!
//! This holds for a process that does nothing else meanwhile: another busy thread's faults would be taken for
//! those of a worker that leaves. [`ThreadReport::work`] is exact in any company.

use std::hint::black_box;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::unistd::gettid;

use crate::progress;
use crate::usage::Faults;
use crate::{Control, Unfit};

/// The most threads that a crew may have.
pub const MAX_THREADS: usize = 1024;

/// Stack that a worker touches before it works, so that leaving, which needs less, faults no more.
const SETTLED_STACK: usize = 32 * 1024;

/// Where one worker puts its figures: alone on its cache lines, and in memory before the worker starts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Slot {
    tid: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) checksum: AtomicU64,
    work_major: AtomicU64,
    work_minor: AtomicU64,
    life_major: AtomicU64,
    life_minor: AtomicU64,
    may_leave: AtomicBool,
}

impl Slot {
    /// Notes the faults of the work proper, without the thread's start and end.
    pub(crate) fn record_work(&self, faults: Faults) {
        self.work_major.store(faults.major, Ordering::Relaxed);
        self.work_minor.store(faults.minor, Ordering::Relaxed);
    }

    fn record_life(&self, faults: Faults) {
        self.life_major.store(faults.major, Ordering::Relaxed);
        self.life_minor.store(faults.minor, Ordering::Relaxed);
    }

    fn report(&self, index: usize, leaving: Faults) -> ThreadReport {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        ThreadReport {
            index,
            tid: load(&self.tid),
            done: load(&self.done),
            checksum: load(&self.checksum),
            work: Faults { major: load(&self.work_major), minor: load(&self.work_minor) },
            life: Faults { major: load(&self.life_major), minor: load(&self.life_minor) } + leaving,
        }
    }
}

/// What one worker did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadReport {
    /// The worker's number, from 0. Its thread is named `workload-` and this number.
    pub index: usize,
    /// Its thread id.
    pub tid: u64,
    /// Accesses made, or pages faulted in.
    pub done: u64,
    /// The sum of the bytes read, modulo 2^64.
    pub checksum: u64,
    /// Faults of the work proper, where that is measured on its own; otherwise 0.
    pub work: Faults,
    /// Faults of the thread's whole life, from its start to its end.
    pub life: Faults,
}

/// What all workers did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrewReport {
    /// One report per worker, in order of their numbers.
    pub threads: Vec<ThreadReport>,
    /// From the start of the first worker to the end of the last one's work.
    pub wall: Duration,
    /// Faults of the process meanwhile that belong neither to a worker nor to the main thread: those of the
    /// thread that draws progress; without one, 0.
    pub other: Faults,
}

impl CrewReport {
    /// Accesses made by all workers.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.threads.iter().map(|thread| thread.done).sum()
    }

    /// The checksums of all workers together, modulo 2^64.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.threads.iter().fold(0, |sum, thread| sum.wrapping_add(thread.checksum))
    }

    /// Faults of all workers' whole lives.
    #[must_use]
    pub fn life(&self) -> Faults {
        self.threads.iter().map(|thread| thread.life).sum()
    }

    /// Faults of all workers' work proper.
    #[must_use]
    pub fn work(&self) -> Faults {
        self.threads.iter().map(|thread| thread.work).sum()
    }
}

/// The part of a run that the workers share.
pub(crate) struct Job<'a> {
    /// How many workers.
    pub(crate) threads: usize,
    /// What the progress bar is called.
    pub(crate) label: &'static str,
    /// Where progress ends, in the unit that `progress` returns.
    pub(crate) total: u64,
    /// How far the work is, from all workers' slots; by default the sum of what they have done.
    pub(crate) progress: Option<&'a (dyn Fn() -> u64 + Sync)>,
    /// The work of worker `usize`. It stores what it did in its slot.
    pub(crate) work: &'a (dyn Fn(usize, &Slot) -> Result<()> + Sync),
}

/// Checks a number of threads.
pub(crate) fn check_threads(threads: usize) -> Result<()> {
    ensure!(
        (1..=MAX_THREADS).contains(&threads),
        Unfit::new(format!("cannot work with {threads} threads: choose 1 to {MAX_THREADS}"))
    );
    Ok(())
}

/// Runs a job to its end, or until `control` stops it.
pub(crate) fn run(job: &Job<'_>, control: &Control) -> Result<CrewReport> {
    check_threads(job.threads)?;
    let slots: Vec<Slot> = (0..job.threads).map(|_| Slot::default()).collect();
    let arrived = AtomicUsize::new(0);
    let main = thread::current();
    if let Some(ready) = control.ready {
        ready(job.threads);
    }
    let before = others_faults()?;
    let done = || slots.iter().map(|slot| slot.done.load(Ordering::Relaxed)).sum();

    let (threads, wall) = thread::scope(|scope| {
        let begun = Instant::now();
        let mut workers = Vec::with_capacity(job.threads);
        let mut refused = None;
        for (index, slot) in slots.iter().enumerate() {
            let (main, arrived) = (&main, &arrived);
            let builder = thread::Builder::new().name(format!("workload-{index}"));
            match builder.spawn_scoped(scope, move || live(index, slot, job, arrived, main)) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    control.stop.store(true, Ordering::Relaxed);
                    refused = Some((index, error));
                    break;
                }
            }
        }
        let shown: &(dyn Fn() -> u64 + Sync) = job.progress.unwrap_or(&done);
        progress::watch(control, job.label, job.total, shown, || {
            while arrived.load(Ordering::Acquire) < workers.len() {
                thread::park();
            }
        });
        let wall = begun.elapsed();
        // Every worker is let go before any error is looked at: one left waiting would be waited for.
        let left: Vec<_> = slots.iter().zip(workers).map(|(slot, worker)| let_go(slot, worker)).collect();
        if let Some((index, error)) = refused {
            let wanted = job.threads;
            return Err(error)
                .with_context(|| format!("cannot start thread {} of {wanted}; choose fewer", index + 1));
        }
        let reports = slots.iter().zip(left).enumerate();
        let threads: Result<Vec<_>> =
            reports.map(|(index, (slot, leaving))| Ok(slot.report(index, leaving?))).collect();
        Ok((threads?, wall))
    })?;

    let lives: Faults = threads.iter().map(|thread| thread.life).sum();
    Ok(CrewReport { threads, wall, other: others_faults()? - before - lives })
}

/// One worker from its first instruction to its last.
fn live(index: usize, slot: &Slot, job: &Job<'_>, arrived: &AtomicUsize, main: &Thread) -> Result<()> {
    settle();
    slot.tid.store(u64::try_from(gettid().as_raw()).unwrap_or(0), Ordering::Relaxed);
    // A worker that never arrived would be waited for without end.
    let result = catch_unwind(AssertUnwindSafe(|| (job.work)(index, slot)))
        .unwrap_or_else(|_| Err(anyhow!("worker {index} panicked: this is a bug of the workload")));
    if let Ok(faults) = Faults::of_thread() {
        slot.record_life(faults);
    }
    arrived.fetch_add(1, Ordering::Release);
    main.unpark();
    while !slot.may_leave.load(Ordering::Acquire) {
        thread::park();
    }
    result
}

/// Does once what the end of a thread does, so that the end meets memory which is there: a stretch of stack,
/// a reading of the usage, a wait.
#[inline(never)]
fn settle() {
    let mut stack = [0u8; SETTLED_STACK];
    black_box(&mut stack);
    black_box(Box::new(0u64));
    let _ = black_box(Faults::of_thread());
    thread::park_timeout(Duration::ZERO);
}

/// Lets a worker end, and returns the faults that this took it.
fn let_go(slot: &Slot, worker: ScopedJoinHandle<'_, Result<()>>) -> Result<Faults> {
    let before = others_faults();
    slot.may_leave.store(true, Ordering::Release);
    worker.thread().unpark();
    worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked at its end")))?;
    Ok(others_faults()? - before?)
}

/// The faults of all threads of this process except the calling one, ended ones included.
fn others_faults() -> io::Result<Faults> {
    Ok(Faults::of_process()? - Faults::of_thread()?)
}
