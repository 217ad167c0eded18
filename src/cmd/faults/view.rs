//! What is shown of faults, live or recorded.

use std::time::Duration;

use anyhow::Result;
use trapline_model::faults::{By, StepOf};
use trapline_probe::faults::Events;

use crate::args::Rows;
use crate::format::About;
use crate::status::{Usage, refuse};
use crate::values;

/// What is shown of faults: the options that need no live system.
#[derive(Debug, clap::Args)]
pub(crate) struct View {
    /// Print a row per thread, process, comm (process name), cgroup, file, cause, stack, function (where stacks end)
    /// or span, or per several of them: process,file [default: thread; with --span, span]
    ///
    /// One of thread, process, comm and cgroup can stand beside file, cause or both, and file beside cause.
    #[arg(long, value_name = "WHAT", value_parser = grouping)]
    pub(crate) by: Option<Grouping>,

    /// Print log2 histograms of the time of faults, of all and of major ones; with --by, per row
    #[arg(long)]
    pub(crate) hist: bool,

    /// Print every fault as a line; with --log-step or --stall, the file and function with most faults in each
    /// message
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print a message at every N-th fault of each process [default without N: 50]
    #[arg(long, visible_alias = "threshold", alias = "log_step", value_name = "N", num_args = 0..=1,
          default_missing_value = "50", value_parser = clap::value_parser!(u64).range(1..),
          conflicts_with = "stall")]
    pub(crate) log_step: Option<u64>,

    /// With --log-step, count major faults only
    #[arg(long, requires = "log_step")]
    major: bool,

    /// With --log-step, count the faults in which the thread slept
    #[arg(long, requires = "log_step", conflicts_with = "major")]
    waits: bool,

    /// Print each fault that took at least TIME, with its function and what the time was spent on
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration,
          conflicts_with_all = ["log_step", "stall", "verbose"])]
    pub(crate) slower: Option<Duration>,

    /// Split the time of faults: lock of the address space, I/O, reclaim, memory.high, preemption, other sleep,
    /// and the kernel's own work
    #[arg(long)]
    pub(crate) split: bool,

    /// Print a message each time a process has spent another TIME in faults; with /WINDOW, when its threads slept TIME
    /// in faults within WINDOW (100ms/1s)
    #[arg(long, value_name = "TIME[/WINDOW]", value_parser = values::stall)]
    stall: Option<StepOf>,
}

/// What a row is one of; in recordings of several machines also of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grouping {
    /// Nothing where it is one of a machine alone.
    pub(crate) by: Option<By>,
    pub(crate) host: bool,
}

fn grouping(text: &str) -> Result<Grouping, String> {
    let others: Vec<&str> = text.split(',').filter(|word| *word != "host").collect();
    let host = others.len() < text.split(',').count();
    let by = if others.is_empty() { None } else { Some(others.join(",").parse::<By>()?) };
    Ok(Grouping { by, host })
}

/// One of the groupings of faults, without machines.
pub(crate) fn by(text: &str) -> Result<By, String> {
    text.parse().map_err(str::to_owned)
}

impl View {
    /// Whether something is asked for that needs single faults.
    pub(crate) fn is_any(&self) -> bool {
        self.by.is_some_and(|by| by.by.is_some())
            || self.hist
            || self.splits()
            || self.events() != Events::None
    }

    /// Whether rows and lines have what the time was spent on.
    pub(crate) fn splits(&self) -> bool {
        self.split || self.slower.is_some()
    }

    /// The lines and messages that are printed.
    pub(crate) fn events(&self) -> Events {
        let steps = |of| Events::Steps { of, most: self.verbose };
        if let Some(slower) = self.slower {
            return Events::Slower(slower.as_nanos() as u64);
        }
        match (self.log_step, self.stall) {
            (Some(step), _) if self.waits => steps(StepOf::Waits(step)),
            (Some(step), _) if self.major => steps(StepOf::Major(step)),
            (Some(step), _) => steps(StepOf::Faults(step)),
            (None, Some(of)) => steps(of),
            (None, None) if self.verbose && self.split => Events::Slower(0),
            (None, None) if self.verbose => Events::Faults,
            (None, None) => Events::None,
        }
    }

    /// Refuses what cannot be had together, or has no effect on an output.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(crate) fn check(&self, format: &About, rows: &Rows) -> Result<()> {
        let no_events = self.events() == Events::None;
        refuse(&[
            (
                self.by.is_some() && !no_events && format.one_table,
                "this format prints the events, not rows: leave out --by, or use --format jsonl",
            ),
            (
                self.hist && !format.histograms(),
                "this format has no histograms: leave out --hist, or use --format jsonl",
            ),
            (
                self.hist && self.splits() && format.for_people,
                "--hist prints histograms, --split columns: leave out one of them, or use --format jsonl",
            ),
            (self.hist && !no_events, "--hist shows rows: leave out -v, --log-step and --stall"),
            (
                self.hist
                    && self.by.is_none()
                    && format.for_people
                    && (rows.sort.is_some() || rows.top.is_some()),
                "--hist prints one histogram of all rows: leave out --sort and --top, or add --by",
            ),
        ])?;
        if format.only_totals && !no_events {
            let words = format!("{} shows rows: leave out -v, --log-step and --stall", format.name);
            return Err(Usage::error(words));
        }
        Ok(())
    }
}
