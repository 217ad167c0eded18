//! Makes page faults, an exact number of them, and proves it by the kernel's own account.
//!
//! Each worker maps its pages first and reads its usage right before and right after it touches them. All
//! code and memory that the touching needs is used once before, on pages that are not counted, so that
//! nothing else faults between the two readings.

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::crew::{self, CrewReport, Job, Slot, ThreadReport};
use crate::map::{Advice, Mapping};
use crate::report::{Line, footnote, lines, per_second, shown, table};
use crate::usage::Faults;
use crate::{Control, Unfit, cache};

/// Pages that a worker maps at once; with more faults to make it gives them back and starts over, so that
/// any number of faults needs at most 64 MiB of 4 KiB pages per thread.
const REGION_PAGES: u64 = 16_384;
/// Pages that a storm maps, touches and unmaps at a time.
const STORM_PAGES: usize = 1024;

/// Where the faults come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// First touches of fresh anonymous memory: minor faults.
    #[default]
    Anon,
    /// First reads of a file that is not in the page cache, one page at a time: major faults.
    File,
}

impl Kind {
    /// Every kind's name, as it is written on the command line.
    pub const NAMES: [&'static str; 2] = ["anon", "file"];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::File => "file",
        }
    }

    /// What `count` faults of this kind are in the kernel's account.
    #[must_use]
    pub fn faults(self, count: u64) -> Faults {
        match self {
            Self::Anon => Faults { major: 0, minor: count },
            Self::File => Faults { major: count, minor: 0 },
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "anon" => Ok(Self::Anon),
            "file" => Ok(Self::File),
            _ => Err(format!("unknown kind {text:?}: one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// How many faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Exactly so many, at least 1, shared by the threads.
    Count(u64),
    /// As many as there can be in so long a time; anonymous ones only.
    Storm(Duration),
}

/// What faults to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many, or how long.
    pub amount: Amount,
    /// Where they come from.
    pub kind: Kind,
    /// The file of [`Kind::File`]: it is dropped from the page cache first, and needs a page per fault.
    pub file: PathBuf,
    /// Threads, 1 to [`crew::MAX_THREADS`]; they share the faults as evenly as possible.
    pub threads: usize,
    /// Faults per second of all threads together; `None` for as fast as possible.
    pub rate: Option<u64>,
}

/// What faults were made.
#[derive(Debug, Clone)]
pub struct FaultsReport {
    /// What was asked for.
    pub options: Options,
    /// This process.
    pub pid: u32,
    /// The threads; `work` holds the faults around the touching alone, `done` the pages touched.
    pub crew: CrewReport,
    /// Faults of the whole process, from its start until now.
    pub process: Faults,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

impl FaultsReport {
    /// Whether every thread took exactly the faults that it made: one of the kind per page, none of the other.
    #[must_use]
    pub fn exact(&self) -> bool {
        let kind = self.options.kind;
        self.crew.threads.iter().all(|thread| thread.work == kind.faults(thread.done))
    }

    /// What the process took besides: start-up, threads, this program's own memory.
    #[must_use]
    pub fn rest(&self) -> Faults {
        self.process - self.crew.work()
    }
}

/// Makes the faults. Whether they came out exact is for the caller to look at: [`FaultsReport::exact`].
///
/// # Errors
/// When an option is out of its range, a mapping is refused, the file cannot be read or made cold, or a
/// thread cannot be started.
pub fn run(options: &Options, control: &Control) -> Result<FaultsReport> {
    crew::check_threads(options.threads)?;
    ensure!(
        options.rate != Some(0),
        Unfit::new("a rate of 0 faults per second never ends: choose at least 1")
    );
    let begun = Instant::now();
    let (crew, interrupted) = match options.amount {
        Amount::Count(0) => bail!(Unfit::new("nothing to do: the number of faults is 0; choose at least 1")),
        Amount::Count(count) => {
            let crew = counted(count, options, control)?;
            let interrupted = crew.done() < count;
            (crew, interrupted)
        }
        Amount::Storm(_) if options.kind == Kind::File => {
            bail!(Unfit::new("a storm is of anonymous memory: leave out --kind file"))
        }
        Amount::Storm(_) if options.rate.is_some() => {
            bail!(Unfit::new("a storm is as fast as possible: leave out --rate"))
        }
        Amount::Storm(span) => {
            ensure!(
                !span.is_zero(),
                Unfit::new("a storm of no duration makes no faults: choose at least 1ms")
            );
            let elapsed = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let job = Job {
                threads: options.threads,
                label: "storming",
                total: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
                progress: Some(&elapsed),
                work: &|_, slot| storm(slot, span, control),
            };
            (crew::run(&job, control)?, false)
        }
    };
    let process = Faults::of_process()?;
    Ok(FaultsReport { options: options.clone(), pid: std::process::id(), crew, process, interrupted })
}

fn counted(count: u64, options: &Options, control: &Control) -> Result<CrewReport> {
    let threads = options.threads as u64;
    ensure!(
        count >= threads,
        Unfit::new(format!("{count} faults cannot be shared by {threads} threads: choose fewer threads"))
    );
    let file = match options.kind {
        Kind::File => Some(cold_file(count, options)?),
        Kind::Anon => None,
    };
    let pace = options.rate.map(|rate| Duration::from_secs_f64(threads as f64 / rate as f64));
    let work = |index: usize, slot: &Slot| {
        let index = index as u64;
        // The first `count % threads` threads take one more.
        let share = count / threads + u64::from(index < count % threads);
        let first = count / threads * index + index.min(count % threads);
        let (mut practice, mut region);
        let practice_page = memory(1)?;
        if let Some(mapping) = &file {
            practice = Region::Read { mapping: &practice_page, first: 0 };
            region = Region::Read { mapping, first: usize::try_from(first)? };
        } else {
            practice = Region::Write(practice_page);
            region = Region::Write(memory(usize::try_from(share.min(REGION_PAGES))?)?);
        }
        // Two faults in one page: also the giving back between them is practised, and the pacing.
        let practice_pace = pace.map(|_| Duration::from_micros(1));
        measured(|| touch(&mut practice, 2, practice_pace, control, &AtomicU64::new(0)))?;
        slot.record_work(measured(|| touch(&mut region, share, pace, control, &slot.done))?);
        Ok(())
    };
    let label = "faulting";
    crew::run(&Job { threads: options.threads, label, total: count, progress: None, work: &work }, control)
}

fn memory(pages: usize) -> Result<Mapping> {
    Mapping::anonymous(pages)
        .with_context(|| format!("cannot map {pages} pages of memory; fewer threads need less"))
}

/// Maps the file without read-ahead, cold, and with a page for each fault.
fn cold_file(count: u64, options: &Options) -> Result<Mapping> {
    let name = shown(&options.file);
    let (file, bytes) = cache::open(&options.file)?;
    let resident = cache::drop_cached(&file, &options.file, bytes)?.unwrap_or(0);
    let mapping =
        Mapping::file(&file, bytes, Advice::Random).with_context(|| format!("cannot map {name}"))?;
    let pages = mapping.pages();
    ensure!(pages as u64 >= count, "{name} has {pages} pages, too few for {count} major faults");
    ensure!(
        resident == 0,
        "{resident} of the {pages} pages of {name} stay in the page cache, so their faults would not be major: a process maps them, or the file system is in memory"
    );
    Ok(mapping)
}

/// The pages that a worker faults in.
enum Region<'a> {
    /// Fresh memory of its own, written to.
    Write(Mapping),
    /// Its part of a mapping, from page `first` on, read.
    Read { mapping: &'a Mapping, first: usize },
}

/// The faults that the calling thread takes in `work`.
fn measured(work: impl FnOnce() -> Result<()>) -> Result<Faults> {
    let before = Faults::of_thread()?;
    work()?;
    Ok(Faults::of_thread()? - before)
}

/// Faults in `share` pages, one every `pace`; `done` tells how many are.
///
/// Never inlined: practice and measurement must run the very same code.
#[inline(never)]
fn touch(
    region: &mut Region<'_>,
    share: u64,
    pace: Option<Duration>,
    control: &Control,
    done: &AtomicU64,
) -> Result<()> {
    let begun = Instant::now();
    for made in 0..share {
        if control.stopped() {
            break;
        }
        if let Some(pace) = pace {
            let due = pace.mul_f64(made as f64);
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        match region {
            Region::Write(mapping) => {
                let page = usize::try_from(made % mapping.pages() as u64)?;
                if page == 0 && made > 0 {
                    mapping.discard()?;
                }
                mapping.touch(page);
            }
            Region::Read { mapping, first } => {
                let _ = mapping.read(*first + usize::try_from(made)?);
            }
        }
        done.store(made + 1, Ordering::Relaxed);
    }
    Ok(())
}

fn storm(slot: &Slot, span: Duration, control: &Control) -> Result<()> {
    measured(|| storm_for(Duration::ZERO, control, &AtomicU64::new(0)))?;
    slot.record_work(measured(|| storm_for(span, control, &slot.done))?);
    Ok(())
}

/// Maps, touches and unmaps memory for as long as `span`, at least once; `done` tells how many pages.
#[inline(never)]
fn storm_for(span: Duration, control: &Control, done: &AtomicU64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut mapping = memory(STORM_PAGES)?;
        for page in 0..mapping.pages() {
            mapping.touch(page);
        }
        done.fetch_add(mapping.pages() as u64, Ordering::Relaxed);
        if begun.elapsed() >= span || control.stopped() {
            return Ok(());
        }
    }
}

impl FaultsReport {
    /// Writes the report for people.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let made = self.crew.done();
        let (work, rest) = (self.crew.work(), self.rest());
        let source = match self.options.kind {
            Kind::Anon => "first touches of fresh memory".to_owned(),
            Kind::File => format!("first reads of {}", shown(&self.options.file)),
        };
        let seconds = self.crew.wall.as_secs_f64();
        let rate = per_second(made, self.crew.wall);
        writeln!(out, "{made} {source} in {seconds:.3} s, {rate:.0}/s")?;
        table(out, "FAULTS", &self.crew.threads)?;
        writeln!(
            out,
            "around the touching the kernel counted {} major, {} minor: {}{}",
            work.major,
            work.minor,
            if self.exact() { "exact" } else { "NOT what was made" },
            if self.interrupted { ", but interrupted" } else { "" }
        )?;
        writeln!(
            out,
            "besides: {} major, {} minor, of start-up, threads' stacks and this report",
            rest.major, rest.minor
        )?;
        footnote(out, self.pid, self.process, self.crew.other)
    }

    /// Writes a JSON line per thread and one for the total.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_jsonl(&self, out: &mut impl Write) -> io::Result<()> {
        let options = &self.options;
        let asked = match options.amount {
            Amount::Count(count) => Some(count),
            Amount::Storm(_) => None,
        };
        let work = |line: Line, thread: &ThreadReport| line.faults("work_", thread.work);
        lines(out, ("faults", "faults"), (self.pid, self.process), &self.crew, work)?
            .with("asked", asked)
            .faults("work_", self.crew.work())
            .faults("rest_", self.rest())
            .with("kind", options.kind.name())
            .with("exact", self.exact())
            .with("interrupted", self.interrupted)
            .write(out)
    }
}
