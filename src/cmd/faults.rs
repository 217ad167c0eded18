//! `trapline faults`: page faults of threads.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use trapline_model::Source;
use trapline_model::faults::{By, EVENT, StepOf};
use trapline_probe::Launch;
use trapline_probe::faults::{self, Events, MinorLatency, Options, Stacks};
use trapline_probe::live::Live;

use crate::cli::Weight;
use crate::{cli, sink};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    live: cli::Live,

    /// What a row is one of: thread, process, cgroup, file, cause, stack or span [default: thread; with --span, span]
    #[arg(long, value_name = "WHAT", value_parser = by, requires_if("span", "span"))]
    by: Option<By>,

    /// How much of each call of a function, or of each stretch between two marks, was page faults (repeatable)
    ///
    /// BINARY is a path, a program in PATH, or a library: with -p, one that the process has mapped. FUNCTION is a symbol
    /// or a C++ or Rust name, whole or its last parts. A pair of USDT points (NAME__start and NAME__done, or NAME-entry
    /// and NAME-return) is usdt:BINARY:PROVIDER:NAME.
    #[arg(long, value_name = "BINARY:FUNCTION")]
    span: Vec<String>,

    /// With --by stack: of which faults the stack is taken: all, major, or 1:N; counts are exact in any case
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = stacks)]
    stacks: Stacks,

    /// What makes a frame of a flame graph (.folded, .svg) wide
    #[arg(long, value_name = "WHAT", default_value = "count")]
    weight: Weight,

    /// Show every fault as a line; with --log-step or --stall: which file and code caused most since the last message
    #[arg(short, long)]
    verbose: bool,

    /// A message each time a process's count of faults passes a multiple of N [N if it is not given: 50]
    #[arg(long, visible_alias = "threshold", alias = "log_step", value_name = "N", num_args = 0..=1,
          default_missing_value = "50", value_parser = clap::value_parser!(u64).range(1..),
          conflicts_with = "stall")]
    log_step: Option<u64>,

    /// With --log-step: count major faults only
    #[arg(long, requires = "log_step")]
    major: bool,

    /// A message each time a process has spent another so long in faults
    #[arg(long, value_name = "TIME", value_parser = cli::positive_duration)]
    stall: Option<Duration>,

    /// Which minor faults are timed: exact (all), 1:N or off; counts are exact in any case [default: exact; with
    /// --log-step, without -v and -i, no fault is timed]
    #[arg(long, value_name = "WHICH", value_parser = minor_latency)]
    minor_latency: Option<MinorLatency>,

    /// Memory for events that wait to be shown, MiB (a power of two)
    #[arg(long, value_name = "MB", default_value = "8", value_parser = ring_mib)]
    ring_size: u32,

    #[command(flatten)]
    memory: cli::Memory,
}

impl Args {
    /// What a row is one of.
    fn by(&self) -> By {
        self.by.unwrap_or(if self.span.is_empty() { By::Thread } else { By::Span })
    }

    /// What cannot be had together, and clap cannot say.
    fn check(&self) -> Result<(), clap::Error> {
        let conflict = |text| Err(cli::command().error(clap::error::ErrorKind::ArgumentConflict, text));
        match (self.by(), self.minor_latency) {
            (By::Span, Some(MinorLatency::Sampled(_))) => conflict(
                "the stall of a call is that of all its faults: with --span, --minor-latency is exact or off",
            ),
            (By::Span, _) if self.events() != Events::None => conflict(
                "-v, --log-step and --stall are about all faults of a process, not those of a call: give them without \
                 --span, or --span without them",
            ),
            (By::Span, _) => Ok(()),
            _ if self.span.is_empty() => Ok(()),
            _ => conflict("with --span, a row is a span: leave --by away, or give --by span"),
        }
    }

    fn events(&self) -> Events {
        let steps = |of| Events::Steps { of, most: self.verbose };
        match (self.log_step, self.stall) {
            (Some(step), _) if self.major => steps(StepOf::Major(step)),
            (Some(step), _) => steps(StepOf::Faults(step)),
            (None, Some(step)) => steps(StepOf::Stall(step.as_nanos() as u64)),
            (None, None) if self.verbose => Events::Faults,
            (None, None) => Events::None,
        }
    }
}

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When nothing can be attached, the command cannot be run, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.check().unwrap_or_else(|error| error.exit());
    let by = args.by();
    let frame = args.live.frame(by.schema(), "total_ns", args.events() == Events::None)?;
    let events = args.events();
    let schema = match events {
        Events::None => by.schema(),
        Events::Faults => EVENT,
        Events::Steps { of, most } => of.schema(most),
    };
    let has_command = !args.live.command.is_empty();
    let output = args.live.output.as_deref();
    let mut sink = sink::open(args.live.format, output, has_command, schema, args.weight)?;
    let launch = match args.live.command.as_slice() {
        [] => None,
        command => Some(Launch::prepare(command)?),
    };
    let options = Options {
        filter: args.live.filter(),
        by,
        spans: args.span.clone(),
        stacks: args.stacks,
        needs_times: args.weight == Weight::Time,
        variant: args.live.variant.clone(),
        times: args.minor_latency.is_some() || frame.interval.is_some(),
        minor_latency: args.minor_latency.unwrap_or(MinorLatency::Exact),
        events,
        ring_bytes: args.ring_size << 20,
        memory_bytes: args.memory.memory,
    };
    let (faults, warning) = faults::open(&options, launch.as_ref())?;
    if let Some(warning) = warning {
        // Nobody may be listening.
        let _ = writeln!(io::stderr(), "trapline: {}", trapline_view::visible(&warning));
    }
    let mut source = Live::new(faults, frame, launch)?;
    while let Some(item) = source.next()? {
        sink.take(&item)?;
    }
    source.into_launch().map_or(Ok(0), |mut launch| launch.wait())
}

fn minor_latency(text: &str) -> Result<MinorLatency, String> {
    match text {
        "exact" | "1:1" => Ok(MinorLatency::Exact),
        "off" => Ok(MinorLatency::Off),
        _ => match text.strip_prefix("1:").map(str::parse) {
            Some(Ok(n @ 2..=1_000_000)) => Ok(MinorLatency::Sampled(n)),
            _ => Err("give exact, off, or 1:N with N from 2 to 1000000".into()),
        },
    }
}

fn by(text: &str) -> Result<By, String> {
    match text {
        "thread" => Ok(By::Thread),
        "process" => Ok(By::Process),
        "cgroup" => Ok(By::Cgroup),
        "file" => Ok(By::File),
        "span" => Ok(By::Span),
        "cause" => Ok(By::Cause),
        "stack" => Ok(By::Stack),
        _ => Err("give thread, process, cgroup, file, cause, stack or span".into()),
    }
}

fn stacks(text: &str) -> Result<Stacks, String> {
    match text {
        "all" | "1:1" => Ok(Stacks::All),
        "major" => Ok(Stacks::Major),
        _ => match text.strip_prefix("1:").map(str::parse) {
            Some(Ok(n @ 2..=1_000_000)) => Ok(Stacks::Sampled(n)),
            _ => Err("give all, major, or 1:N with N from 2 to 1000000".into()),
        },
    }
}

pub(crate) fn ring_mib(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(mib @ 1..=1024) if mib.is_power_of_two() => Ok(mib),
        _ => Err("give a power of two from 1 to 1024".into()),
    }
}
