//! `trapline access`: page accesses of programs.

mod summarize;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use trapline_model::Sink;
use trapline_model::access::TOTAL;
use trapline_model::access::summary::{self, Summarized};
use trapline_probe::RunAs;
use trapline_probe::access::{Access, ENGINES, Options, Prepared, Whose};
use trapline_probe::live::{Frame, Live};
use trapline_view::{AccessSummary, Damo, Ftrace};

use crate::cmd::command::{launch, pour, see_to_the_end};
use crate::cmd::faults::ring_mib;
use crate::{cli, sink};

/// Which pages a program touches, when, from which instruction, reading or writing.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub(crate) struct Args {
    /// The processes to trace, without their children (repeatable)
    #[arg(short, long = "pid", value_name = "PID", group = "whose", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,

    /// Trace whatever executes a program of this name, and its children, until Ctrl-C (repeatable; the first 15
    /// bytes count). `trapline targets` changes the list meanwhile
    #[arg(long, value_name = "NAME", num_args = 1.., group = "whose")]
    exec: Vec<String>,

    /// The engine that resets page-table entries: rwp, numa (reads and writes), writes, none (first touches only)
    /// [default: the best that works]
    #[arg(long, value_name = "ENGINE", value_parser = PossibleValuesParser::new(ENGINES))]
    reset: Option<String>,

    /// Reset page-table entries each such time, if the engine can [default: 1ms]
    #[arg(long, value_name = "TIME", value_parser = every)]
    every: Option<Duration>,

    /// Leave out the first touch of each page, which would have faulted without us
    #[arg(long)]
    no_first_touch: bool,

    /// Show the function of each instruction, and what is mapped at each address
    #[arg(long)]
    symbols: bool,

    /// Reset less often when the faults it causes take more than this share of the target's processor time
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    max_overhead: Option<f64>,

    #[command(flatten)]
    summarize: summarize::Summarize,

    /// End after this time [default: at Ctrl-C, or with the command or processes]
    #[arg(short, long, value_name = "TIME", value_parser = cli::positive_duration)]
    duration: Option<Duration>,

    /// The form of the output [default: table, lines as the kernel's tracer writes them]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Form>,

    /// Write to this file instead of standard output; with a COMMAND, a table goes to standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Use this probe variant, not the first that works
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,

    /// Memory for events that wait to be shown, MiB (a power of two)
    #[arg(long, value_name = "MB", default_value = "16", value_parser = ring_mib)]
    ring_size: u32,

    /// Run the command as this user (a name or a number), with their groups; the environment stays as it is [default: as
    /// trapline itself runs, under sudo as root]
    #[arg(long, value_name = "USER", requires = "command", conflicts_with_all = ["pid", "exec", "read"])]
    run_as: Option<String>,

    /// Run this command, trace it and its children, exit with its status
    #[arg(last = true, value_name = "COMMAND", group = "whose")]
    command: Vec<OsString>,
}

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Table,
    /// One JSON object a line
    Jsonl,
    /// One table of comma-separated values
    Csv,
    /// A record of accesses for damo, the tool of DAMON's users: compressed JSON, written at the end
    Damo,
}

impl Form {
    /// The form that all tools know.
    fn common(self) -> Option<cli::Format> {
        match self {
            Self::Table => Some(cli::Format::Table),
            Self::Jsonl => Some(cli::Format::Jsonl),
            Self::Csv => Some(cli::Format::Csv),
            Self::Damo => None,
        }
    }
}

impl Args {
    /// Refuses options that have no effect.
    fn check(&self) -> Result<()> {
        let none = self.reset.as_deref() == Some("none");
        let plain = !self.summarize.is_summary() && self.format != Some(Form::Damo);
        cli::refuse(&[
            (none && self.every.is_some(), "with --reset none, nothing is reset: leave out --every"),
            (
                none && self.max_overhead.is_some(),
                "with --reset none, nothing is reset: leave out --max-overhead",
            ),
            (
                none && self.no_first_touch,
                "with --reset none, there are first touches only: leave out --no-first-touch",
            ),
            (
                self.symbols && !plain,
                "--symbols names the instruction of each access: leave out --summary or --format damo",
            ),
        ])
    }
}

/// How often page tables are reset, if nobody says.
const EVERY: Duration = Duration::from_millis(1);

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When nothing can be attached, the processes cannot be traced, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.summarize.check(args.format == Some(Form::Damo));
    args.check()?;
    let summary = args.summarize.options();
    if let Some(path) = &args.summarize.read {
        let recording = summarize::open(path, args.output.as_deref())?;
        let mut sink = sink(args, summary.as_ref())?;
        match summary {
            Some(summary) => pour(&mut Summarized::new(recording, summary), &mut sink)?,
            None => pour(&mut { recording }, &mut sink)?,
        }
        return Ok(0);
    }
    let run_as = args.run_as.as_deref().map(RunAs::find).transpose()?;
    let mut sink = sink(args, summary.as_ref())?;
    let options = Options {
        whose: match (args.command.is_empty(), args.exec.is_empty()) {
            (false, _) => Whose::Command,
            (_, false) => Whose::Named(args.exec.clone()),
            _ => Whose::Processes(args.pid.clone()),
        },
        reset: args.reset.clone(),
        every: args.every.unwrap_or(EVERY),
        first_touch: !args.no_first_touch,
        symbols: args.symbols,
        variant: args.variant.clone(),
        ring_bytes: args.ring_size << 20,
        max_overhead: args.max_overhead,
    };
    let prepared = Prepared::new(&options).map_err(|error| trapline_probe::refused(error.into()))?;
    let launch = launch(&args.command, run_as.as_ref())?;
    let access = Access::open(&options, prepared, launch.as_ref())?;
    let frame = Frame {
        duration: args.duration,
        interval: args.summarize.tick(),
        cumulative: args.summarize.cumulative,
        for_people: form(args)? == Some(cli::Format::Table),
        pids: args.pid.clone(),
        sort: TOTAL.iter().position(|field| field.name == "accesses").unwrap_or(0),
        ..Frame::default()
    };
    let mut source = Live::new(access, frame, launch)?;
    let poured;
    if let Some(summary) = summary {
        let mut summarized = Summarized::new(source, summary);
        poured = pour(&mut summarized, &mut sink);
        source = summarized.into_source();
    } else {
        poured = pour(&mut source, &mut sink);
    }
    see_to_the_end(source, poured)
}

fn sink(args: &Args, summary: Option<&summary::Options>) -> Result<sink::Named> {
    let output = args.output.as_deref();
    if args.format == Some(Form::Damo) {
        let window_ns = args.summarize.window().as_nanos() as u64;
        return sink::to(output, |out| Box::new(Damo::new(out, window_ns)));
    }
    let schema = summarize::schema(summary, form(args)? == Some(cli::Format::Csv))?;
    let format = args.format.and_then(Form::common);
    let summarized = summary.is_some();
    let from = match args.summarize.read {
        Some(_) => sink::From::Recording,
        None => sink::From::trace(&args.command),
    };
    sink::open_with(format, output, from, schema, |out, _, _| -> Box<dyn Sink> {
        if summarized { Box::new(AccessSummary::new(out)) } else { Box::new(Ftrace::new(out)) }
    })
}

/// The form of the output, if it is one that all tools know.
fn form(args: &Args) -> Result<Option<cli::Format>> {
    match args.format.map(Form::common) {
        Some(None) => Ok(None),
        Some(format) => sink::form(format, args.output.as_deref()).map(Some),
        None => sink::form(None, args.output.as_deref()).map(Some),
    }
}

/// The shortest period: the time that a round takes is of this order.
const SHORTEST: Duration = Duration::from_micros(100);

fn every(text: &str) -> Result<Duration, String> {
    let time = cli::positive_duration(text)?;
    if time < SHORTEST { Err(format!("it must be at least {SHORTEST:?}")) } else { Ok(time) }
}

/// `5%` or `5`, as a share of 1.
fn share(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("give a percentage above 0 and up to 100, as in 5%".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_periods() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("100"), Ok(1.0));
        assert!(share("0").is_err() && share("101%").is_err() && share("few").is_err());
        assert_eq!(every("1"), Ok(Duration::from_millis(1)));
        assert!(every("99us").is_err());
    }
}
