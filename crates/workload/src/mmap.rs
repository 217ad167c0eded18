//! Reads a file through a memory mapping, in a chosen order and by several threads.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::crew::{self, CrewReport, Job, Slot, ThreadReport};
use crate::map::{Advice, Mapping};
use crate::pattern::{Pattern, Walk};
use crate::report::{Line, footnote, lines, per_second, shown, size, table};
use crate::usage::Faults;
use crate::{Control, Unfit, cache};

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file; a regular one that is not empty.
    pub file: PathBuf,
    /// The order of the accesses.
    pub pattern: Pattern,
    /// Accesses of each thread, at least 1.
    pub count: u64,
    /// Threads, 1 to [`crew::MAX_THREADS`].
    pub threads: usize,
    /// Pages from one access of the stride pattern to the next, at least 1.
    pub stride: usize,
    /// Pause after each access.
    pub delay: Duration,
    /// What the kernel is told about the order; `None` for what fits the pattern, [`Pattern::advice`].
    pub advice: Option<Advice>,
    /// Whether the file is dropped from the page cache first.
    pub cold: bool,
    /// Equal seeds give equal walks.
    pub seed: u64,
}

/// What was read, and what it took.
#[derive(Debug, Clone)]
pub struct MmapReport {
    /// What was asked for.
    pub options: Options,
    /// This process.
    pub pid: u32,
    /// What the kernel was told about the order.
    pub advice: Advice,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The file's size in pages.
    pub pages: usize,
    /// Pages that were in the page cache before the first access; `None` if this user may not know.
    pub resident: Option<usize>,
    /// The threads.
    pub crew: CrewReport,
    /// Faults of the whole process, from its start until now.
    pub process: Faults,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

/// Maps the file and lets every thread read its pages.
///
/// Each access reads one byte at the start of a page. The threads of the ordered patterns begin evenly spread
/// over the file.
///
/// # Errors
/// When an option is out of its range, the file cannot be mapped, or a thread cannot be started.
pub fn run(options: &Options, control: &Control) -> Result<MmapReport> {
    ensure!(options.count > 0, Unfit::new("nothing to do: the count of accesses is 0; choose at least 1"));
    ensure!(options.stride > 0, Unfit::new("a stride of 0 pages stays where it is: choose at least 1"));
    crew::check_threads(options.threads)?;
    let (file, bytes) = cache::open(&options.file)?;
    if options.cold {
        cache::drop_cached(&file, &options.file, bytes)?;
    }
    let advice = options.advice.unwrap_or_else(|| options.pattern.advice());
    let mapping = Mapping::file(&file, bytes, advice)
        .with_context(|| format!("cannot map {}", shown(&options.file)))?;
    let resident = cache::resident_pages(&file, &options.file, bytes)?;

    let crew = crew::run(
        &Job {
            threads: options.threads,
            label: "reading",
            total: options.count.saturating_mul(options.threads as u64),
            progress: None,
            work: &|index, slot| {
                read(&mapping, index, slot, options, control);
                Ok(())
            },
        },
        control,
    )?;
    Ok(MmapReport {
        options: options.clone(),
        pid: std::process::id(),
        advice,
        bytes,
        pages: mapping.pages(),
        resident,
        process: Faults::of_process()?,
        interrupted: crew.done() < options.count.saturating_mul(options.threads as u64),
        crew,
    })
}

fn read(mapping: &Mapping, index: usize, slot: &Slot, options: &Options, control: &Control) {
    let Options { pattern, stride, threads, seed, .. } = *options;
    let walk = Walk::of_thread(pattern, mapping.pages(), stride, index, threads, seed);
    let mut sum = 0u64;
    for (made, page) in (1..=options.count).zip(walk) {
        if control.stopped() {
            break;
        }
        sum = sum.wrapping_add(mapping.read(page).map_or(0, u64::from));
        slot.done.store(made, Ordering::Relaxed);
        if !options.delay.is_zero() {
            thread::sleep(options.delay);
        }
    }
    slot.checksum.store(sum, Ordering::Relaxed);
}

impl MmapReport {
    /// Writes the report for people.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let options = &self.options;
        writeln!(
            out,
            "{} ({}, {} pages, {}), {}, advice {}, seed {}",
            shown(&options.file),
            size(self.bytes),
            self.pages,
            match self.resident {
                None => "the number of them that were cached at the start is unknown".to_owned(),
                Some(pages) if options.cold && pages > 0 =>
                    format!("{pages} of them cached: they would not be dropped"),
                Some(pages) => format!("{pages} of them cached at the start"),
            },
            options.pattern.name(),
            self.advice.name(),
            options.seed
        )?;
        table(out, "ACCESSES", &self.crew.threads)?;
        writeln!(
            out,
            "{:.3} s, {:.0} accesses/s, checksum {}{}",
            self.crew.wall.as_secs_f64(),
            per_second(self.crew.done(), self.crew.wall),
            self.crew.checksum(),
            if self.interrupted { "; interrupted" } else { "" }
        )?;
        footnote(out, self.pid, self.process, self.crew.other)
    }

    /// Writes a JSON line per thread and one for the total.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_jsonl(&self, out: &mut impl Write) -> io::Result<()> {
        let options = &self.options;
        let checksum = |line: Line, thread: &ThreadReport| line.with("checksum", thread.checksum);
        lines(out, ("mmap", "accesses"), (self.pid, self.process), &self.crew, checksum)?
            .with("checksum", self.crew.checksum())
            .with("file", options.file.to_string_lossy().as_ref())
            .with("bytes", self.bytes)
            .with("pages", self.pages)
            .with("resident", self.resident)
            .with("cold", options.cold)
            .with("pattern", options.pattern.name())
            .with("advice", self.advice.name())
            .with("seed", options.seed)
            .with("interrupted", self.interrupted)
            .write(out)
    }
}
