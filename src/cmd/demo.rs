//! `trapline demo`: a data file, a program that reads it, the monitor, what it found, a report: each by a command that is printed.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use trapline_workload::pattern::Pattern;

use crate::cmd::workload::named;
use crate::output::{Output, When};
use crate::status::refuse;

/// Bytes that recording takes beside the data, at most, for each thread.
const RECORDED: u64 = 2 << 20;

/// Show it all at once: make a data file, watch threads read it, explain what stalled them, write a report.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline demo                        128 MB, read at random by four threads
  trapline demo --pattern seq          the same in order: readahead does its work
  trapline demo --size 512 --threads 16
  trapline demo --report report.html   the same, and a page to open in a browser")]
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

    /// Also write a report of the run to this file, an HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Args {
    /// Refuses a page among the lines of the steps.
    pub(crate) fn check(&self) -> Result<()> {
        refuse(&[(
            self.report.as_deref() == Some(Path::new("-")),
            "standard output has what the steps print: give --report the name of a file",
        )])
    }
}

/// Runs the steps until one fails, and gives the exit status.
///
/// # Errors
/// When the report cannot be written, the temporary folder cannot be made or removed, or a step cannot be started.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.check()?;
    // Before the steps, which take their time. The file is changed by the last of them only.
    let report = args.report.as_deref().map(|file| Output::open(file, When::AtTheEnd)).transpose()?;
    // Whatever ends a step, the folder is removed.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).context("cannot handle signals")?;
    let folder = folder(args)?;
    let status = steps(args, folder.path(), &mut signals);
    drop(report);
    let path = folder.path().to_owned();
    folder.close().with_context(|| format!("cannot remove {}: remove it yourself", path.display()))?;
    if let (Ok(0), Some(file)) = (&status, &args.report) {
        let file = file.canonicalize().unwrap_or_else(|_| file.clone());
        let name = trapline_view::visible(&file.to_string_lossy());
        writeln!(std::io::stdout(), "\nThe report is {name}: open it in a browser.").context(NO_OUTPUT)?;
    }
    status
}

const NO_OUTPUT: &str = "cannot write to standard output";

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

fn steps(args: &Args, folder: &Path, signals: &mut Signals) -> Result<u8> {
    let (size, threads) = (args.size.to_string(), args.threads.to_string());
    let (data, recording) = (folder.join("data.bin"), folder.join("run.trapline"));
    let (data, recording) = (data.as_os_str(), recording.as_os_str());
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let make = words("workload data --file").chain([data.to_owned()]);
    let make = make.chain(words("--size")).chain([size.into()]);
    let watch = words("faults --by file --split --top 8 -o").chain([recording.to_owned()]);
    let read = [program.as_os_str().to_owned()].into_iter().chain(words("workload mmap --file"));
    let read = read.chain([data.to_owned()]).chain(words("--cold --count 5000 --pattern"));
    let read = read.chain([args.pattern.name().into()]).chain(words("--threads")).chain([threads.into()]);
    let explained = words("explain").chain([recording.to_owned()]);
    let mut steps = vec![
        ("a data file", make.collect::<Vec<_>>()),
        ("threads that read it, and their page faults", watch.chain(words("--")).chain(read).collect()),
        ("what stalled them, and what to do", explained.collect()),
    ];
    if let Some(file) = &args.report {
        let page = words("report").chain([recording.to_owned()]);
        let page = page.chain(words("-o")).chain([file.as_os_str().to_owned()]);
        steps.push(("all of it as a page", page.collect()));
    }
    for (what, words) in steps {
        let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n== {what}\n$ trapline {}", trapline_view::visible(&line.join(" ")))
            .and_then(|()| out.flush())
            .context(NO_OUTPUT)?;
        drop(out);
        let mut command = Command::new(&program);
        let status = step(command.args(&words), signals);
        let code = status.with_context(|| format!("cannot run {}", program.display()))?;
        if code != 0 {
            return Ok(u8::try_from(code).unwrap_or(1));
        }
    }
    Ok(0)
}

/// Runs a step, which gets what is sent to this process, and gives its exit status; that of a signal that came, whatever the step
/// made of it.
fn step(command: &mut Command, signals: &mut Signals) -> std::io::Result<i32> {
    let mut child = command.spawn()?;
    let mut stop = None;
    let code = |status: ExitStatus| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(stop.map_or_else(|| code(status), |signal| 128 + signal));
        }
        for number in signals.wait().filter(|number| *number != SIGCHLD) {
            stop = Some(number);
            // It was not waited for, so that its id is its own. A terminal has sent it there, too: that is one request.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::try_from(number).ok());
        }
    }
}
