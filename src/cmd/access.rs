//! `trapline access`: page accesses of programs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use trapline_model::access::summary::{self, Summarized};
use trapline_model::access::{SUMMARY, TOTAL, TRACE};
use trapline_probe::Launch;
use trapline_probe::access::{Access, ENGINES, Options, Prepared, Whose};
use trapline_probe::run::Frame;

use crate::args::{self, KEEPS, OUTLASTS};
use crate::cmd::run::{self, Borrowed, Items, Opened, Start, pour};
use crate::cmd::{recording, summarize};
use crate::format::{Ask, Needs};
use crate::status::refuse;
use crate::{sink, values};

/// Which pages a program touches, when, from which instruction, reading or writing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline access -- ./app                          every page access of a command
  trapline access -p 1234 -d 10s --summary          working set, heat and reuse distances of 10 seconds
  trapline access -p 1234 --symbols -o trace.jsonl  with functions, as a recording")]
#[command(group = clap::ArgGroup::new("traced").required(true).args(["pid", "exec", "read", "command"]))]
pub(crate) struct Args {
    /// Trace these processes: -p 1,2 or -p 1 -p 2
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,

    /// With -p, trace descendants that start from now on, too
    #[arg(long, requires = "pid", conflicts_with_all = ["exec", "read", "command"])]
    children: bool,

    /// Trace processes that execute a file of this name, and their children, until Ctrl-C (repeatable; the
    /// first 15 bytes count). `trapline targets` changes the names meanwhile
    #[arg(long, value_name = "NAME", value_parser = values::program, num_args = 1.., conflicts_with = "run_as")]
    exec: Vec<String>,

    /// Reset page-table entries by this engine: rwp and numa see reads and writes, writes sees writes, none
    /// sees first touches [default: the best that works]
    #[arg(long, value_name = "ENGINE", value_parser = PossibleValuesParser::new(ENGINES))]
    reset: Option<String>,

    /// Reset page-table entries every TIME, if the engine can [default: 1ms]
    #[arg(long, value_name = "TIME", value_parser = every)]
    every: Option<Duration>,

    /// Leave out the first touch of each page, which faults without trapline too
    #[arg(long)]
    no_first_touch: bool,

    /// Print the function of each instruction, and the mapping of each address
    #[arg(long)]
    symbols: bool,

    /// Reset less often when the faults it causes take more than this share of the target's CPU time
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    max_overhead: Option<f64>,

    #[command(flatten)]
    summarize: summarize::Summarize,

    /// Read a recording instead of tracing: a file of `-o FILE.jsonl`, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = LIVE)]
    read: Option<PathBuf>,

    /// Set the size of the ring buffer for events: MiB, a power of two
    #[arg(long, value_name = "MB", default_value = "16", value_parser = values::ring_mib)]
    ring_size: u32,

    #[command(flatten)]
    live: args::Live,
}

impl Args {
    /// Refuses options that have no effect.
    pub(crate) fn check(&self) -> Result<()> {
        let none = self.reset.as_deref() == Some("none");
        let format = self.live.format()?.about();
        let damo = format.needs == Needs::Accesses;
        let live = &self.live;
        let summary = self.summarize.is_summary();
        live.look.check(format, live.output.as_deref())?;
        self.summarize.check(live.rows.top.is_some(), live.rows.sort.is_some(), damo)?;
        refuse(&[
            (
                live.rows.top.is_some() && !summary,
                "--top limits the tables of --summary: add that, or leave out --top",
            ),
            (
                live.rows.interval.is_some() && !summary,
                "accesses are printed as they happen: add --summary, or leave out -i",
            ),
            (
                live.rows.cumulative && live.rows.interval.is_none(),
                "-c needs rows at intervals: add -i TIME, or leave it out",
            ),
            (live.outlasts(), OUTLASTS),
            (live.keep.is_some() && !format.is_folder, KEEPS),
            (
                format.needs == Needs::Time && summary && live.rows.interval.is_none(),
                "a trace needs events, or rows at intervals: add -i TIME, or leave out --summary",
            ),
            (
                format.needs == Needs::Rows,
                "a profile needs rows with figures, and this command prints events: use --format jsonl",
            ),
            (none && self.every.is_some(), "--reset none resets nothing: leave out --every"),
            (none && self.max_overhead.is_some(), "--reset none resets nothing: leave out --max-overhead"),
            (none && self.no_first_touch, "--reset none sees only first touches: leave out --no-first-touch"),
            (
                self.symbols && (summary || damo),
                "--symbols is for single accesses: leave out --summary or --format damo",
            ),
            (
                live.rows.sort.is_some() && (damo || format.one_table),
                "--sort sorts the totals, and this format has none: leave out --sort",
            ),
        ])
    }
}

/// What can only be said of a trace that is made now.
const LIVE: [&str; 11] = [
    "symbols",
    "interval",
    "duration",
    "reset",
    "every",
    "no_first_touch",
    "max_overhead",
    "variant",
    "ring_size",
    "run_as",
    "sort",
];

/// How often page tables are reset, if nobody says.
const EVERY: Duration = Duration::from_millis(1);

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When nothing can be attached, the processes cannot be traced, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.check()?;
    let live = &args.live;
    let summary = args.summarize.options(live.rows.top).map(|options| summary::Options {
        intervals: live.rows.interval.is_some(),
        cumulative: live.rows.cumulative,
        ..options
    });
    let ask = ask(args, summary.as_ref())?;
    if let Some(path) = &args.read {
        let mut recording = recording::open(path, live.output.as_deref(), Some("access"))?;
        if recording.header().setting("summary").is_some() {
            bail!(
                "{} contains a summary, not accesses: record with -o FILE.jsonl and without --summary",
                path.display()
            );
        }
        let mut sink = sink::open(live.format()?, live.output.as_deref(), sink::From::Recording, ask)?;
        let mut items: Items<'_> = match summary {
            Some(summary) => Box::new(Summarized::new(Borrowed(&mut recording), summary)),
            None => Box::new(Borrowed(&mut recording)),
        };
        pour(&mut *items, vec![], &mut sink, |_| {})?;
        return Ok(0);
    }
    let frame = Frame {
        interval: summary.as_ref().map(|_| {
            // It tells what time it is: without rows of its own, for windows to end in which nothing happens.
            live.rows.interval.unwrap_or(args.summarize.window().max(Duration::from_millis(100)))
        }),
        ..live.frame(None, args.pid.clone())?
    };
    let order = live.order(TOTAL, "accesses")?;
    let options = Options {
        whose: match (live.command.is_empty(), args.exec.is_empty()) {
            (false, _) => Whose::Command,
            (_, false) => Whose::Named(args.exec.clone()),
            _ => Whose::Processes { pids: args.pid.clone(), children: args.children },
        },
        reset: args.reset.clone(),
        every: args.every.unwrap_or(EVERY),
        first_touch: !args.no_first_touch,
        symbols: args.symbols,
        variant: live.variant.clone(),
        ring_bytes: args.ring_size << 20,
        max_overhead: args.max_overhead,
    };
    run::run(
        live,
        frame,
        order,
        ask,
        Accesses {
            every: args.every.is_some(),
            max_overhead: args.max_overhead.is_some(),
            options,
            prepared: None,
            summary,
        },
    )
}

struct Accesses {
    options: Options,
    prepared: Option<Prepared>,
    summary: Option<summary::Options>,
    /// A period, and a limit of overhead, were asked for.
    every: bool,
    max_overhead: bool,
}

impl Accesses {
    fn prepared(&self) -> Result<Prepared> {
        Prepared::new(&self.options).map_err(|error| trapline_probe::refused(error.into()))
    }
}

impl Start for Accesses {
    fn prepare(&mut self) -> Result<()> {
        self.prepared = Some(self.prepared()?);
        Ok(())
    }

    fn open(&mut self, launch: Option<&Launch>) -> Result<Opened> {
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => self.prepared()?,
        };
        let access = Access::open(&self.options, prepared, launch)?;
        // The best engine that works here may be none.
        let resets = access.resets();
        refuse(&[
            (!resets && self.every, "nothing can be reset here (trapline doctor): leave out --every"),
            (
                !resets && self.max_overhead,
                "nothing can be reset here (trapline doctor): leave out --max-overhead",
            ),
            (
                !resets && !self.options.first_touch,
                "nothing can be reset here (trapline doctor), so there are first touches only: leave out --no-first-touch",
            ),
        ])?;
        let keep = access.keeps();
        Ok((Box::new(access), keep))
    }

    fn can_change(&self) -> bool {
        false
    }

    fn stages<'a>(&self, source: Items<'a>) -> Items<'a> {
        match &self.summary {
            Some(summary) => Box::new(Summarized::new(source, summary.clone())),
            None => source,
        }
    }
}

fn ask(args: &Args, summary: Option<&summary::Options>) -> Result<Ask> {
    let schema = summarize::schema(summary, args.live.format()?.about().one_table)?;
    let layout = if summary.is_some() { &SUMMARY } else { &TRACE };
    Ok(Ask {
        layout,
        window_ns: args.summarize.window().as_nanos() as u64,
        redrawn: summary.is_some() && args.live.rows.interval.is_some(),
        look: args.live.look,
        ..Ask::new(schema)
    })
}

/// The shortest period: the time that a round takes is of this order.
const SHORTEST: Duration = Duration::from_micros(100);

fn every(text: &str) -> Result<Duration, String> {
    let time = values::positive_duration(text)?;
    if time < SHORTEST { Err(format!("it must be at least {SHORTEST:?}")) } else { Ok(time) }
}

/// `5%` or `5`, as a share of 1.
fn share(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("it must be a percentage above 0 and up to 100, as 5%".into()),
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
        assert_eq!(every("1ms"), Ok(Duration::from_millis(1)));
        assert!(every("1").is_err());
        assert!(every("99us").is_err());
    }
}
