//! The command line: what can be typed, and the words shared by all live tools.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use trapline_model::Schema;
use trapline_probe::live::Frame;
use trapline_probe::{Filter, RunAs};

use crate::{cmd, sink};

/// The status for a command line that cannot be understood.
pub(crate) const USAGE: u8 = 2;

/// What is wrong with a command line, where that shows after it was read: options that do not go together, or have no
/// effect.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// As an error.
    pub(crate) fn error(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Shows what it costs when a processor leaves the program it was running.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// Show what libbpf and the kernel's verifier say, on standard error
    #[arg(long, global = true, hide = true)]
    pub(crate) libbpf_log: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Who faults, how often, major or minor, and how long they wait
    Faults(cmd::faults::Args),
    /// Exits of virtual machines: by reason, how long they take, of the guest or of its own guests
    Kvm(cmd::kvm::Args),
    /// EPC paging of SGX enclaves: distinct pages, faults, bandwidth, loads, evictions
    Sgx(cmd::sgx::Args),
    /// Which pages a program touches, when, from which instruction, reading or writing
    Access(cmd::access::Args),
    /// The names of programs that a running `access --exec` follows
    Targets(cmd::targets::Args),
    /// What attaches on this machine, what does not and why
    Doctor(cmd::doctor::Args),
    /// Programs that trap on purpose, and know how often they did
    Workload(cmd::workload::Args),
}

/// The command line, with what `derive` cannot say: to the users of `sgx`, a bare number of `-i` is seconds; and what is
/// below zero is a value that an option does not take, not an option that does not exist.
pub(crate) fn command() -> clap::Command {
    with_values_below_zero(Cli::command()).mut_subcommand("sgx", |sgx| {
        sgx.mut_arg("interval", |arg| {
            arg.value_parser(interval_in_seconds).help(
                "Show rows at each such time; a bare number is seconds [default: 1; with a COMMAND, only the totals]",
            )
        })
    })
}

fn with_values_below_zero(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let takes_values = arg.get_action().takes_values();
        // `-5s` is no number to clap.
        if arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "TIME")) {
            arg.allow_hyphen_values(true)
        } else if takes_values && !arg.is_last_set() {
            arg.allow_negative_numbers(true)
        } else {
            arg
        }
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, with_values_below_zero))
}

/// Reads the command line; ends with a message if it cannot be understood.
pub(crate) fn parse() -> Cli {
    let cli = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.unwrap_or_else(|mut error| {
        // Its advice to put what it does not know after `--`: there it would be a command, and run.
        error.remove(ContextKind::Suggested);
        error.remove(ContextKind::TrailingArg);
        error.exit()
    });
    let traces = !matches!(cli.command, Command::Targets(_) | Command::Doctor(_) | Command::Workload(_));
    let words: Vec<OsString> = std::env::args_os().collect();
    if traces && words.iter().position(|word| word == "--") == words.len().checked_sub(1) {
        let text = "there is no command after `--`: give one, or leave `--` out to trace what runs";
        command().error(ErrorKind::MissingRequiredArgument, text).exit();
    }
    cli
}

/// Refuses the first of these that holds: what is asked for and would have no effect.
pub(crate) fn refuse(cases: &[(bool, &str)]) -> anyhow::Result<()> {
    cases.iter().find(|(holds, _)| *holds).map_or(Ok(()), |(_, text)| Err(Usage::error(*text)))
}

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

/// What every live tool takes.
#[derive(Debug, Args)]
pub(crate) struct Live {
    /// Only these processes (repeatable; 0 or none: all)
    #[arg(short, long = "pid", value_name = "PID", conflicts_with = "command")]
    pid: Vec<u32>,

    /// Only this thread
    #[arg(short, long, value_name = "TID", conflicts_with = "command", value_parser = clap::value_parser!(u32).range(1..))]
    tid: Option<u32>,

    /// Only tasks of this name
    #[arg(long, value_name = "NAME")]
    comm: Option<String>,

    /// Only tasks in this cgroup (v2) or below it
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,

    /// Show rows at each such time [default: 1s; with a COMMAND or lines for events, only the totals]
    #[arg(short, long, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,

    /// End after this time [default: at Ctrl-C, or with the command or processes]
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration)]
    duration: Option<Duration>,

    /// Do not clear at each interval: rows are since the start
    #[arg(short, long)]
    cumulative: bool,

    /// Sort rows by this field, largest first
    #[arg(long, value_name = "FIELD")]
    sort: Option<String>,

    /// Show only the first so many rows of each table
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,

    /// The form of the output [default: table, or by the extension of --output]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,

    /// Write to this file instead of standard output; with a COMMAND, a table goes to standard error
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Use this probe variant, not the first that works
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,

    /// Run the command as this user (a name or a number), with their groups; the environment stays as it is [default: as
    /// trapline itself runs, under sudo as root]
    #[arg(long, value_name = "USER", requires = "command", conflicts_with = "pid")]
    run_as: Option<String>,

    /// Run this command, trace it and its children from their first instruction, exit with its status
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl Live {
    /// Whose events are meant.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            pids: self.pids(),
            tid: self.tid,
            comm: self.comm.clone(),
            cgroup: self.cgroup.clone(),
            tree: !self.command.is_empty(),
        }
    }

    /// The form of the output.
    ///
    /// # Errors
    /// When the name of the file does not tell.
    pub(crate) fn form(&self) -> anyhow::Result<Format> {
        sink::form(self.format, self.output.as_deref())
    }

    /// Refuses options that have no effect on what is shown.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(crate) fn check(&self, shown: Shown) -> anyhow::Result<()> {
        let form = self.form()?;
        let has_rows = self.interval.is_some() || shown == Shown::Rows && self.command.is_empty();
        let only_events = shown == Shown::Events && form == Format::Csv;
        let only_totals = matches!(form, Format::Folded | Format::Svg);
        let picture = form == Format::Svg && self.top.is_none();
        let csv = "csv holds the events, and no rows";
        let no_rows = [
            (only_events && self.interval.is_some(), "-i"),
            (only_events && self.cumulative, "-c"),
            (only_events && self.sort.is_some(), "--sort"),
            (only_events && self.top.is_some(), "--top"),
        ];
        if let Some((_, option)) = no_rows.iter().find(|(holds, _)| *holds) {
            return Err(Usage::error(format!("{csv}: leave out {option}, or give --format jsonl")));
        }
        refuse(&[
            (
                self.pid.contains(&0) && self.pid.len() > 1,
                "-p 0 means all processes: leave out the others, or 0",
            ),
            (self.cumulative && only_totals, "a flame graph is of the whole run: leave out -c"),
            (
                self.cumulative && !has_rows,
                "-c is about rows at intervals, and there are none: give -i TIME, too",
            ),
            (
                self.sort.is_some() && picture,
                "frames of a flame graph are in the order of their names: leave out --sort",
            ),
        ])
    }

    /// Whether rows at intervals were asked for.
    pub(crate) fn has_interval(&self) -> bool {
        self.interval.is_some()
    }

    /// Whether only the first rows are wanted.
    pub(crate) fn has_top(&self) -> bool {
        self.top.is_some()
    }

    /// Whom the command runs as, if not as we do.
    ///
    /// # Errors
    /// When there is no such user, or we may not become another.
    pub(crate) fn run_as(&self) -> anyhow::Result<Option<RunAs>> {
        self.run_as.as_deref().map(RunAs::find).transpose()
    }

    /// Whether an order of the rows was asked for.
    pub(crate) fn has_sort(&self) -> bool {
        self.sort.is_some()
    }

    /// When rows are shown, and when it ends.
    ///
    /// # Errors
    /// When there is no field to sort by of the given name.
    ///
    /// `rows` says whether there are rows at each interval if nobody asks for them.
    pub(crate) fn frame(&self, schema: &Schema, sort: &str, rows: bool) -> anyhow::Result<Frame> {
        let wanted = self.sort.as_deref().unwrap_or(sort);
        // The headings and the short forms that people know: avg for avg_ns.
        let is = |name: &str| name == wanted || name.strip_suffix("_ns") == Some(wanted);
        let Some(sort) = schema.iter().position(|field| is(field.name)) else {
            let names: Vec<_> = schema.iter().map(|field| field.name).collect();
            return Err(Usage::error(format!(
                "cannot sort by `{wanted}`: there is no such field; there are {}",
                names.join(", ")
            )));
        };
        let interval = if self.command.is_empty() && rows { Some(Duration::from_secs(1)) } else { None };
        Ok(Frame {
            interval: self.interval.or(interval),
            cumulative: self.cumulative,
            for_people: sink::form(self.format, self.output.as_deref())? == Format::Table,
            duration: self.duration,
            sort,
            in_order: false,
            top: self.top.map(|n| n as usize),
            pids: self.pids(),
        })
    }

    fn pids(&self) -> Vec<u32> {
        // As the monitor's users know it: 0 is everybody.
        if self.pid.contains(&0) { vec![] } else { self.pid.clone() }
    }
}

/// What tools with rows that end take.
#[derive(Debug, Args)]
pub(crate) struct Memory {
    /// Memory for rows and names: beyond it, rows of what has ended are folded into one (a bare number is MiB)
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    pub(crate) memory: u64,
}

/// A size of memory: a bare number is MiB, units are accepted (`512K`, `64M`, `1G`).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[number.len()..] {
        "K" | "k" | "KiB" => 10,
        "" | "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        _ => return Err(format!("`{text}` has no unit that is known; try 512K, 64M or 1G")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size; try 512K, 64M or 1G"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1_048_576..=0x100_0000_0000) => Ok(bytes),
        _ => Err("it must be from 1M to 1024G".into()),
    }
}

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object a line
    Jsonl,
    /// One table of comma-separated values
    Csv,
    /// Stacks for flame graphs: `frame;frame N` a line (faults --by stack)
    Folded,
    /// A flame graph (faults --by stack)
    Svg,
}

/// What makes a frame wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weight {
    /// Faults
    Count,
    /// Time in faults; not with the variant rootless, which times nothing
    Time,
}

/// A time: a bare number is milliseconds, units are accepted (`500ms`, `2s`, `1m`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        let is_time = text.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let why = if is_time { "is less than 0" } else { "is no time; try 500ms, 2s or 1m" };
        return Err(format!("`{text}` {why}"));
    }
    if let Ok(ms) = text.parse::<f64>() {
        let time = Duration::try_from_secs_f64(ms / 1e3);
        return time.map_err(|_| format!("`{text}` is no time that can be waited for"));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; try 500ms, 2s or 1m"))
}

pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than 0".into()),
        time => Ok(time),
    }
}

/// The shortest interval: reading all threads takes a fair part of it on a large machine.
const SHORTEST: Duration = Duration::from_millis(10);

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let time = positive_duration(text)?;
    if time < SHORTEST { Err(format!("it must be at least {SHORTEST:?}")) } else { Ok(time) }
}

fn interval_in_seconds(text: &str) -> Result<Duration, String> {
    let bare = text.parse::<f64>().is_ok();
    interval(&if bare { format!("{text}s") } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_bare_number_is_milliseconds() {
        assert_eq!(duration("1500"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0.5"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert!(duration("-1").is_err());
        assert!(duration("nan").is_err());
        assert!(duration("soon").is_err());
        assert!(interval("0").is_err());
        assert!(interval("1").is_err());
        assert!(interval("0s").is_err());
    }

    #[test]
    fn sizes_of_memory() {
        assert_eq!(size("64"), Ok(64 << 20));
        assert_eq!(size("2048K"), Ok(2 << 20));
        assert_eq!(size("1G"), Ok(1 << 30));
        for wrong in ["", "M", "0", "1K", "-1", "5X", "1.5G", "99999999999G", "2000G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bare_interval_of_sgx_is_seconds() {
        assert_eq!(interval_in_seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval_in_seconds("500ms"), Ok(Duration::from_millis(500)));
        assert!(interval_in_seconds("0").is_err() && interval_in_seconds("-1").is_err());
        let seconds = command().try_get_matches_from(["trapline", "sgx", "-i", "3"]).unwrap();
        let Ok(Cli { command: Command::Sgx(_), .. }) = Cli::from_arg_matches(&seconds) else {
            panic!("not understood");
        };
        assert!(
            command().try_get_matches_from(["trapline", "faults", "-i", "3"]).is_err(),
            "3 ms are too short"
        );
    }
}
