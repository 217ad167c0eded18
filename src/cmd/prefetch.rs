//! `trapline prefetch`: reads ahead what an earlier run faulted on.

mod read;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use trapline_model::access::size;
use trapline_model::prefetch::{Identity, Range};
use trapline_model::{Item, Source};
use trapline_probe::Launch;
use trapline_probe::run::{Frame, Run};

use crate::cmd::recording;
use crate::status::{self, warn};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo trapline faults -v -o run.trapline -- ./app     each fault of a cold start
  trapline replay run.trapline --prefetch -o list.jsonl what of files it faulted on, in order
  trapline prefetch list.jsonl -- ./app                read that ahead while the program starts")]
pub(crate) struct Args {
    /// Read ahead what this list has: a file of `trapline replay RECORDING --prefetch -o LIST.jsonl`, or - for standard
    /// input
    #[arg(value_name = "LIST")]
    list: PathBuf,

    /// Run this command at once, while its files are read ahead, and exit with its status
    #[arg(last = true, value_name = "COMMAND", help_heading = "Arguments")]
    command: Vec<OsString>,
}

/// Files that are named one by one of those that are left out.
const NAMED: usize = 10;

/// What was read ahead.
#[derive(Debug, Default)]
struct Report {
    ranges: u64,
    bytes: u64,
    files: u64,
    /// Why, by the path.
    left_out: BTreeMap<String, String>,
    /// Why it ended before the list did.
    stopped: Option<String>,
    took: Duration,
}

/// What a file is, if it is a regular one.
pub(crate) fn identify(path: &str) -> Option<Identity> {
    std::fs::symlink_metadata(path).ok().filter(Metadata::is_file).map(|meta| identity(&meta))
}

fn identity(meta: &Metadata) -> Identity {
    let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Identity { size: meta.size(), mtime_ns: u64::try_from(mtime_ns).unwrap_or(0), inode: meta.ino() }
}

/// Reads a list ahead, beside a command if there is one, and gives the exit status.
///
/// # Errors
/// When the list cannot be read, or there is no such command.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let ranges = ranges(args)?;
    if args.command.is_empty() {
        read_all(&ranges, &AtomicBool::new(false)).print();
        return Ok(0);
    }
    let launch = Launch::prepare(&args.command, None)?;
    let mut command = Run::new(vec![], Frame::default(), Some(launch))?;
    let ended = Arc::new(AtomicBool::new(false));
    let is_ended = Arc::clone(&ended);
    let reader = thread::Builder::new().name("prefetch".into()).spawn(move || {
        // Signals are for the command, and the first thread passes them on.
        let _ = SigSet::all().thread_block();
        read_all(&ranges, &is_ended).print();
    });
    let reader = reader.context("cannot start a thread to read ahead");
    while command.next()?.is_some() {}
    ended.store(true, Ordering::Relaxed);
    let status = command.status();
    match reader {
        Ok(reader) => drop(reader.join()),
        Err(error) => drop(status::report(&error)),
    }
    status
}

/// The ranges of a list.
fn ranges(args: &Args) -> Result<Vec<Range>> {
    let mut list = recording::open(&args.list, None, Some("prefetch"))?;
    let mut ranges = Vec::new();
    while let Some(item) = list.next()? {
        if let Item::Totals(block) | Item::Rows(block) = item {
            let of_record = |row| {
                let name = args.list.display();
                Range::of_record(row).with_context(|| format!("{name} is incomplete: a range lacks a value"))
            };
            for row in &block.rows {
                ranges.push(of_record(row)?);
            }
        }
    }
    Ok(ranges)
}

fn read_all(ranges: &[Range], is_ended: &AtomicBool) -> Report {
    let began = Instant::now();
    let mut ahead = read::Ahead::new();
    for range in ranges {
        if is_ended.load(Ordering::Relaxed) {
            ahead.report.stopped = Some("the command ended first".into());
        }
        if ahead.report.stopped.is_some() {
            break;
        }
        ahead.range(range);
    }
    ahead.finish();
    Report { took: began.elapsed(), ..ahead.report }
}

impl Report {
    fn print(&self) {
        let Self { ranges, bytes, files, left_out, stopped, took } = self;
        let stopped = stopped.as_deref().map(|why| format!("; stopped: {why}")).unwrap_or_default();
        let left = match left_out.len() {
            0 => String::new(),
            n => format!("; files left out: {n}"),
        };
        let seconds = took.as_secs_f64();
        let bytes = size(*bytes);
        warn(&format!(
            "read ahead {bytes} in {seconds:.3} s: {ranges} ranges of {files} files{left}{stopped}"
        ));
        for (file, why) in left_out.iter().take(NAMED) {
            warn(&format!("  left out {file}: {why}"));
        }
        if left_out.len() > NAMED {
            warn(&format!("  and {} more", left_out.len() - NAMED));
        }
    }
}
