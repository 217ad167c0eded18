//! The options that live tools share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ColorChoice};
use trapline_model::Schema;
use trapline_probe::run::Frame;
use trapline_probe::{Filter, Person, RunAs};
use trapline_store::Kept;

use crate::format::{About, Format, Needs, Weight};
use crate::output::When;
use crate::sink::{From, file};
use crate::status::{Usage, refuse};
use crate::values::{self, interval, positive_duration, size};

/// What an output consists of, as far as options are about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Rows, at intervals also if nobody asks for them.
    Rows,
    /// Rows, at intervals if they are asked for.
    Totals,
    /// A line for each event, and rows as above.
    Events,
}

/// Whose events are meant, of a live run or of a recording.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Tasks {
    /// Count only these processes: -p 1,2 or -p 1 -p 2 [default, and 0: all]
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,

    /// Count only this thread
    #[arg(short, long, value_name = "TID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tid: Option<u32>,

    /// Count only threads of this name (repeatable: any of the names)
    #[arg(long, value_name = "NAME")]
    pub(crate) comm: Vec<OsString>,

    /// Count only threads in this cgroup or below it: a directory of the v2 hierarchy or of a v1 controller's
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Option<PathBuf>,
}

impl Tasks {
    /// The processes, or nothing for all.
    pub(crate) fn pids(&self) -> Vec<u32> {
        // As the monitor's users know it: 0 is everybody.
        if self.pid.contains(&0) { vec![] } else { self.pid.clone() }
    }

    /// Whether not all events are meant.
    pub(crate) fn is_any(&self) -> bool {
        !self.pid.is_empty() || self.tid.is_some() || !self.comm.is_empty() || self.cgroup.is_some()
    }

    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// What to do.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let all_and_some = self.pid.contains(&0) && self.pid.len() > 1;
        refuse(&[(all_and_some, "-p 0 means all processes: leave out 0, or the others")])
    }
}

/// Whose events a live tool means.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Whose {
    #[command(flatten)]
    tasks: Tasks,

    /// With -p, trace descendants that start from now on, too
    #[arg(long, requires = "pid", conflicts_with = "tid")]
    children: bool,

    /// Count only threads of these users, by their real user ID: --user postgres,1000
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    user: Vec<Person>,

    /// Count only threads of this systemd unit, of the system or of a user: --unit postgresql
    #[arg(long, value_name = "NAME", conflicts_with = "cgroup", value_parser = values::unit)]
    unit: Option<String>,
}

impl Whose {
    /// The filter, for a run with this command or without one.
    ///
    /// # Errors
    /// When no cgroup is that of the unit.
    pub(crate) fn filter(&self, live: &Live) -> anyhow::Result<Filter> {
        let filter = self.alone()?;
        Ok(Filter { descendants: filter.descendants || !live.command.is_empty(), ..filter })
    }

    /// The filter, for a run without a command.
    ///
    /// # Errors
    /// When no cgroup is that of the unit.
    pub(crate) fn alone(&self) -> anyhow::Result<Filter> {
        let of_unit = self.unit.as_deref().map(trapline_probe::cgroup_of_unit).transpose()?;
        Ok(Filter {
            pids: self.pids(),
            tid: self.tasks.tid,
            comms: self.tasks.comm.clone(),
            users: self.user.clone(),
            cgroup: self.tasks.cgroup.clone().or(of_unit),
            descendants: self.children,
        })
    }

    /// The processes whose end is that of the run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.tasks.pids()
    }

    /// Whether all are meant.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { tasks, children, user, unit } = self;
        !tasks.is_any() && !children && user.is_empty() && unit.is_none()
    }

    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.tasks.check()?;
        refuse(&[(
            self.children && self.tasks.pid.contains(&0),
            "-p 0 means all processes, new ones too: leave out --children",
        )])
    }
}

/// Which rows are printed, of a live run or of a recording.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run and output")]
pub(crate) struct Rows {
    /// Print rows every TIME, as in 500ms, 2s or 1m [default: only the totals]
    #[arg(short, long, value_name = "TIME", value_parser = interval)]
    pub(crate) interval: Option<Duration>,

    /// Print rows since the start, not since the last interval
    #[arg(short, long)]
    pub(crate) cumulative: bool,

    /// Sort rows by this column, largest first
    #[arg(long, value_name = "FIELD")]
    pub(crate) sort: Option<String>,

    /// Print at most N rows of each table [default: all; on a terminal, those that fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: Option<u32>,
}

/// What every live tool takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run and output")]
pub(crate) struct Live {
    #[command(flatten)]
    pub(crate) rows: Rows,

    /// End after TIME, as in 500ms, 10s or 1m [default: at Ctrl-C, or with the command or processes]
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration)]
    duration: Option<Duration>,

    /// Set the output format [default: table, or by the extension of --output]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Write to this file, or - for standard output [default: standard output; with a COMMAND, a table goes to
    /// standard error]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// In a recording (-o NAME.trapline), keep only the files of the last TIME or SIZE, as in 10m or 2G [default: all]
    #[arg(long, value_name = "TIME|SIZE", value_parser = values::kept)]
    pub(crate) keep: Option<Kept>,

    #[command(flatten)]
    pub(crate) look: Look,

    /// Use this probe variant instead of the first that attaches
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,

    /// Run the command as this user, a name or number, with their groups and the same environment [default: the
    /// user of trapline, root under sudo]
    #[arg(long, value_name = "USER", requires = "command", conflicts_with = "pid")]
    run_as: Option<String>,

    /// Run this command, trace it and its descendants from their first instruction, and exit with its status
    #[arg(last = true, value_name = "COMMAND", help_heading = "Arguments")]
    pub(crate) command: Vec<OsString>,
}

/// How a table looks on a terminal.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Look {
    /// Show every column of a table and whole names, even where the terminal is too narrow for them
    #[arg(long)]
    pub(crate) wide: bool,

    /// Highlight major faults and long stalls in a table: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: ColorChoice,
}

impl Look {
    /// Refuses what has no effect on an output.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(crate) fn check(self, format: &About, output: Option<&Path>) -> anyhow::Result<()> {
        let has_color = self.color != ColorChoice::Auto;
        refuse(&[
            (self.wide && !format.for_people, "--wide is for tables: leave it out"),
            (self.wide && file(output).is_some(), "a table in a file has every column: leave out --wide"),
            (has_color && !format.for_people, "--color is for tables: leave it out"),
        ])
    }
}

/// Where the output of a command that reads recordings goes, and what it looks like.
#[derive(Debug, Args)]
pub(crate) struct Written {
    /// Set the width of frames in a flame graph (.folded, .svg) [default: count]
    #[arg(long, value_name = "WHAT")]
    pub(crate) weight: Option<Weight>,

    #[command(flatten)]
    pub(crate) look: Look,

    /// Set the output format [default: table, or by the extension of --output]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Write to this file, or - for standard output [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

impl Written {
    /// The format of the output.
    ///
    /// # Errors
    /// When the name of the file does not tell.
    pub(crate) fn format(&self) -> anyhow::Result<Format> {
        Format::choose(self.format, self.output.as_deref())
    }
}

/// The order of rows, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// The column that they are sorted by, if they do not stay as they come.
    pub(crate) by: Option<usize>,
    /// How many are kept, if not all.
    pub(crate) top: Option<usize>,
}

/// Why frames have no width.
pub(crate) const WEIGHS: &str =
    "--weight needs a flame graph: add -o FILE.svg or -o FILE.folded, or leave it out";

/// Why nothing is kept.
pub(crate) const KEEPS: &str = "--keep is for recordings: add -o NAME.trapline, or leave it out";

/// Why an interval has no effect.
pub(crate) const OUTLASTS: &str =
    "-i is longer than -d, so no interval ends: use a shorter one, or leave it out";

impl Live {
    /// The format of the output.
    ///
    /// # Errors
    /// When the name of the file does not tell.
    pub(crate) fn format(&self) -> anyhow::Result<Format> {
        Format::choose(self.format, self.output.as_deref())
    }

    /// Whether a file is made at the end.
    ///
    /// # Errors
    /// When the name of the file does not tell the format.
    pub(crate) fn writes_at_the_end(&self) -> anyhow::Result<bool> {
        Ok(file(self.output.as_deref()).is_some() && self.format()?.about().when == When::AtTheEnd)
    }

    /// What is traced: what runs, or the command.
    pub(crate) fn from(&self) -> From {
        if self.command.is_empty() { From::Machine } else { From::Command }
    }

    /// Refuses options that have no effect on what is shown.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(crate) fn check(&self, shown: Shown) -> anyhow::Result<()> {
        let format = self.format()?.about();
        self.look.check(format, self.output.as_deref())?;
        let has_rows = self.rows.interval.is_some() || shown == Shown::Rows && self.command.is_empty();
        let only_events = shown == Shown::Events && format.one_table;
        let no_rows = [
            (self.rows.interval.is_some(), "-i"),
            (self.rows.cumulative, "-c"),
            (self.rows.sort.is_some(), "--sort"),
            (self.rows.top.is_some(), "--top"),
        ];
        if let Some((_, option)) = no_rows.iter().find(|(given, _)| *given && only_events) {
            let text = format!("{} prints the events, not rows", format.name);
            return Err(Usage::error(format!("{text}: leave out {option}, or use --format jsonl")));
        }
        if shown == Shown::Events && format.only_totals {
            let words = "shows rows, and this command prints events: use --format jsonl";
            return Err(Usage::error(format!("{} {words}", format.name)));
        }
        for (given, why, option) in [
            (self.rows.cumulative && format.only_totals, "shows the whole run", "-c"),
            (self.rows.interval.is_some() && format.only_totals, "shows the whole run", "-i"),
            (self.rows.cumulative && format.own_order, "shows what came in each interval", "-c"),
            (
                self.rows.sort.is_some() && self.rows.top.is_none() && format.own_order,
                "has its own order",
                "--sort",
            ),
        ] {
            if given {
                return Err(Usage::error(format!("{} {why}: leave out {option}", format.name)));
            }
        }
        refuse(&[
            (self.keep.is_some() && !format.is_folder, KEEPS),
            (self.outlasts(), OUTLASTS),
            (
                format.needs == Needs::Time && !has_rows && shown != Shown::Events,
                "a trace needs events, or rows at intervals: add -i TIME",
            ),
            (self.rows.cumulative && !has_rows, "-c needs rows at intervals: add -i TIME, or leave it out"),
        ])
    }

    /// Whether the run ends before its first interval.
    pub(crate) fn outlasts(&self) -> bool {
        self.rows.interval.zip(self.duration).is_some_and(|(interval, duration)| interval > duration)
    }

    /// Whom the command runs as, if not as we do.
    ///
    /// # Errors
    /// When there is no such user, or we may not become another.
    pub(crate) fn run_as(&self) -> anyhow::Result<Option<RunAs>> {
        self.run_as.as_deref().map(RunAs::find).transpose()
    }

    /// The order of rows. `sort` is the field if nobody asks for another.
    ///
    /// # Errors
    /// When there is no field to sort by of the given name.
    pub(crate) fn order(&self, schema: &Schema, sort: &str) -> anyhow::Result<Order> {
        let by = order(schema, self.rows.sort.as_deref().unwrap_or(sort))?;
        Ok(Order { by: Some(by), top: self.rows.top.map(|n| n as usize) })
    }

    /// When rows are shown, and when it ends. `interval` is that between rows if nobody asks for another.
    ///
    /// # Errors
    /// When the name of the file does not tell the format.
    pub(crate) fn frame(&self, interval: Option<Duration>, pids: Vec<u32>) -> anyhow::Result<Frame> {
        Ok(Frame {
            interval: self.rows.interval.or(interval),
            cumulative: self.rows.cumulative.into(),
            duration: self.duration,
            pids,
            facts: self.format()?.about().is_folder.then_some(FACTS_EVERY),
            ..Frame::default()
        })
    }

    /// The interval of tools that show rows also if nobody asks for them.
    pub(crate) fn each_second(&self) -> Option<Duration> {
        self.command.is_empty().then_some(Duration::from_secs(1))
    }
}

/// How much of what a recording says of its losses a kill may cost.
const FACTS_EVERY: Duration = Duration::from_secs(1);

/// The index of the field that rows are to be sorted by.
///
/// # Errors
/// When there is no such field.
pub(crate) fn order(schema: &Schema, wanted: &str) -> anyhow::Result<usize> {
    // The headings and the short forms that people know: avg for avg_ns.
    let is = |name: &str| name == wanted || name.strip_suffix("_ns") == Some(wanted);
    schema.iter().position(|field| is(field.name)).ok_or_else(|| {
        let names: Vec<_> = schema.iter().map(|field| field.name).collect();
        Usage::error(format!("cannot sort by `{wanted}`: no such column; there are {}", names.join(", ")))
    })
}

/// What tools with rows that end take.
#[derive(Debug, Args)]
pub(crate) struct Memory {
    /// Limit memory for rows and names, MiB or with a unit; beyond it, rows of what has ended are folded into
    /// one
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    pub(crate) memory: u64,
}
