//! `trapline faults`: page faults of threads.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use trapline_model::faults::{By, EVENT, StepOf};
use trapline_probe::faults::{self, Events, MinorLatency, Options, Stacks};
use trapline_probe::live::{Live, Tool};
use trapline_probe::privilege::{Keep, drop_all_but};

use crate::cli::{Format, Shown, Weight};
use crate::cmd::command::{launch, pour, see_to_the_end};
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

    /// With --by stack: of which faults the stack is taken: all, major, or 1:N; counts are exact in any case [default:
    /// all]
    #[arg(long, value_name = "WHICH", value_parser = stacks)]
    stacks: Option<Stacks>,

    /// What makes a frame of a flame graph (.folded, .svg) wide [default: count]
    #[arg(long, value_name = "WHAT")]
    weight: Option<Weight>,

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

    /// Memory for events that wait to be shown, MiB (a power of two) [default: 8]
    #[arg(long, value_name = "MB", value_parser = ring_mib)]
    ring_size: Option<u32>,

    #[command(flatten)]
    memory: cli::Memory,
}

impl Args {
    /// What a row is one of.
    fn by(&self) -> By {
        self.by.unwrap_or(if self.span.is_empty() { By::Thread } else { By::Span })
    }

    /// What cannot be had together, or has no effect, and clap cannot say.
    fn check(&self) -> Result<()> {
        let (by, events) = (self.by(), self.events());
        let no_events = events == Events::None;
        let form = self.live.form()?;
        let is_flame = matches!(form, Format::Folded | Format::Svg);
        let skips = self.minor_latency.is_some_and(|minor| minor != MinorLatency::Exact);
        let sampled = matches!(self.minor_latency, Some(MinorLatency::Sampled(_)));
        let times_nothing = matches!(self.live.variant.as_deref(), Some("counters" | "rootless"));
        cli::refuse(&[
            (
                by == By::Span && sampled,
                "the stall of a call is that of all its faults: with --span, --minor-latency is exact or off",
            ),
            (
                by == By::Span && !no_events,
                "-v, --log-step and --stall are about all faults of a process, not those of a call: give them without \
                 --span, or --span without them",
            ),
            (
                by != By::Span && !self.span.is_empty(),
                "with --span, a row is a span: leave --by away, or give --by span",
            ),
            (
                self.stacks.is_some() && by != By::Stack,
                "--stacks is about rows by stack: add --by stack, or leave it out",
            ),
            (
                self.weight.is_some() && !is_flame,
                "--weight is how wide frames of a flame graph are: write one with -o FILE.svg or -o FILE.folded",
            ),
            (is_flame && !no_events, "a flame graph is of rows: leave out -v, --log-step and --stall"),
            (
                self.by.is_some() && !no_events && form == Format::Csv,
                "csv holds the events, and no rows: leave out --by, or give --format jsonl",
            ),
            (
                skips && !no_events,
                "with -v, --log-step or --stall, --minor-latency is exact: no fault is left out of them",
            ),
            (
                skips && by.each_fault(),
                "rows by file, cause or stack are of each fault: with them, --minor-latency is exact",
            ),
            (
                self.minor_latency.is_some() && times_nothing,
                "this variant times no fault: leave out --minor-latency, or take another",
            ),
        ])?;
        self.live.check(if no_events { Shown::Rows } else { Shown::Events })
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
    args.check()?;
    let by = args.by();
    let frame = args.live.frame(by.schema(), "total_ns", args.events() == Events::None)?;
    let events = args.events();
    let schema = match events {
        Events::None => by.schema(),
        Events::Faults => EVENT,
        Events::Steps { of, most } => of.schema(most),
    };
    let from = sink::From::trace(&args.live.command);
    let output = args.live.output.as_deref();
    let run_as = args.live.run_as()?;
    let mut sink = sink::open(args.live.format, output, from, schema, args.weight.unwrap_or(Weight::Count))?;
    let launch = launch(&args.live.command, run_as.as_ref())?;
    let options = Options {
        filter: args.live.filter(),
        by,
        spans: args.span.clone(),
        stacks: args.stacks.unwrap_or(Stacks::All),
        needs_times: args.weight == Some(Weight::Time),
        variant: args.live.variant.clone(),
        times: args.minor_latency.is_some() || frame.interval.is_some(),
        minor_latency: args.minor_latency.unwrap_or(MinorLatency::Exact),
        events,
        ring_bytes: args.ring_size.unwrap_or(8) << 20,
        memory_bytes: args.memory.memory,
    };
    let (faults, warning) = faults::open(&options, launch.as_ref())?;
    let rings = events != Events::None || faults.header().variant == "rootless";
    cli::refuse(&[(
        args.ring_size.is_some() && !rings,
        "--ring-size is memory for events, and none are shown: add -v, --log-step or --stall, or leave it out",
    )])?;
    if let Some(warning) = warning {
        // Nobody may be listening.
        let _ = writeln!(io::stderr(), "trapline: {}", trapline_view::visible(&warning));
    }
    let mut source = Live::new(faults, frame, launch)?;
    let files = output.is_some() && matches!(args.live.form()?, Format::Folded | Format::Svg);
    let names = by == By::Stack || matches!(events, Events::Steps { most: true, .. });
    drop_all_but(Keep { names, files }).context("cannot drop capabilities")?;
    let poured = pour(&mut source, &mut sink);
    see_to_the_end(source, poured)
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
