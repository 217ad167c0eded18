//! `trapline demo`: a data file, a program that reads it, the monitor, what it found: each by a command that is printed.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use trapline_workload::pattern::Pattern;

use crate::cmd::workload::named;

/// Bytes that recording takes beside the data, at most, for each thread.
const RECORDED: u64 = 2 << 20;

/// Show it all at once: make a data file, watch threads read it, explain what stalled them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline demo                        128 MB, read at random by four threads
  trapline demo --pattern seq          the same in order: readahead does its work
  trapline demo --size 512 --threads 16")]
pub(crate) struct Args {
    /// Size of the data file in MB (1 MB = 1048576 bytes)
    #[arg(long, value_name = "MB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    size: u64,

    /// Order of the accesses; mixed is 70 % random and 30 % sequential
    #[arg(long, default_value = "random", value_parser = named::<Pattern>(&Pattern::NAMES))]
    pattern: Pattern,

    /// Threads that read (1 to 1024)
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
}

/// Runs the steps until one fails, and gives the exit status.
///
/// # Errors
/// When the temporary folder cannot be made or removed, or a step cannot be started.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let stop = Arc::new(AtomicUsize::new(0));
    // A step gets Ctrl-C from the terminal itself: this is so that the folder is removed.
    for signal in [SIGINT, SIGTERM] {
        let number = signal.unsigned_abs() as usize;
        signal_hook::flag::register_usize(signal, Arc::clone(&stop), number)
            .context("cannot handle signals")?;
    }
    let folder = folder(args)?;
    let status = steps(args, folder.path(), &stop);
    let path = folder.path().to_owned();
    folder.close().with_context(|| format!("cannot remove {}: remove it yourself", path.display()))?;
    status
}

/// A folder for the files, on a file system that reads from a disk where there is one: /tmp is often memory.
fn folder(args: &Args) -> Result<tempfile::TempDir> {
    let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let needed = (args.size << 20) + u64::from(args.threads) * RECORDED;
    trapline_workload::data::check_space(&parent.join("data"), needed)?;
    tempfile::Builder::new().prefix("trapline-demo-").tempdir_in(&parent).with_context(|| {
        format!("cannot make a folder in {}: set TMPDIR to one that can be written", parent.display())
    })
}

/// The words of a command.
fn words(line: &'static str) -> impl Iterator<Item = OsString> {
    line.split(' ').map(OsString::from)
}

fn steps(args: &Args, folder: &Path, stop: &AtomicUsize) -> Result<u8> {
    let (size, threads) = (args.size.to_string(), args.threads.to_string());
    let (data, recording) = (folder.join("data.bin"), folder.join("run.trapline"));
    let (data, recording) = (data.as_os_str(), recording.as_os_str());
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let make = words("workload data --file").chain([data.to_owned()]);
    let make = make.chain(words("--size")).chain([size.into()]);
    let watch = words("faults --by file --top 8 -o").chain([recording.to_owned()]);
    let read = [program.as_os_str().to_owned()].into_iter().chain(words("workload mmap --file"));
    let read = read.chain([data.to_owned()]).chain(words("--cold --count 5000 --pattern"));
    let read = read.chain([args.pattern.name().into()]).chain(words("--threads")).chain([threads.into()]);
    let explained = words("explain").chain([recording.to_owned()]);
    let steps = [
        ("a data file", make.collect::<Vec<_>>()),
        ("threads that read it, and their page faults", watch.chain(words("--")).chain(read).collect()),
        ("what stalled them, and what to do", explained.collect()),
    ];
    for (what, words) in steps {
        let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n== {what}\n$ trapline {}", trapline_view::visible(&line.join(" ")))
            .and_then(|()| out.flush())
            .context("cannot write to standard output")?;
        drop(out);
        let status = Command::new(&program).args(&words).status();
        let status = status.with_context(|| format!("cannot run {}", program.display()))?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let stopped = stop.load(Ordering::Relaxed);
        let code = if stopped != 0 { 128 + stopped } else { usize::try_from(code).unwrap_or(1) };
        if code != 0 {
            return Ok(u8::try_from(code).unwrap_or(1));
        }
    }
    Ok(0)
}
