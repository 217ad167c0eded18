//! The command line: the list of commands, and how it is read.

use std::ffi::OsString;
use std::io::{self, Write};

use anyhow::Context;
use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::format::Format;
use crate::{cmd, status, values};

/// Count and time page faults, SGX paging, page accesses and VM exits
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print messages of libbpf and of the kernel's verifier on standard error
    #[arg(long, global = true, hide = true)]
    pub(crate) libbpf_log: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Count and time page faults by thread, process, file, cgroup, cause, stack or span
    Faults(cmd::faults::Args),
    /// Count and time exits of virtual machines by reason, of the guest and of its own guests
    Kvm(cmd::kvm::Args),
    /// Count EPC paging of SGX enclaves: distinct pages, faults, bandwidth, loads, evictions
    Sgx(cmd::sgx::Args),
    /// Trace which pages a process reads and writes, when, and from which instruction
    Access(cmd::access::Args),
    /// Explain what stalled a process, a cgroup or a command, and what to do about it; or what a recording shows
    Explain(cmd::explain::Args),
    /// Show page faults, VM exits and SGX paging live on one screen; or play a recording
    Top(cmd::top::Args),
    /// Print a recording again, with other options or in another format
    Replay(cmd::replay::Args),
    /// Write one HTML page about recordings: findings, who stalled, when, and the latency
    Report(cmd::report::Args),
    /// Compare recordings: what takes more or fewer faults, exits or time than before
    Diff(cmd::diff::Args),
    /// Read ahead what of files an earlier run faulted on, while a command starts
    Prefetch(cmd::prefetch::Args),
    /// Change the names of executables that a running `access --exec` follows
    Targets(cmd::targets::Args),
    /// Show which probe variants attach on this machine, and why others do not
    Doctor(cmd::doctor::Args),
    /// Show it all at once: make a data file, watch threads read it, explain what stalled them
    Demo(cmd::demo::Args),
    /// Run test programs that cause a known number of faults or exits
    Workload(cmd::workload::Args),
    /// Print the help of a command, or a page about losses, columns, variants or containers
    Help(cmd::help::Args),
    /// Write man pages and shell completions below a folder like /usr/local/share
    #[command(hide = true)]
    Generate(cmd::generate::Args),
}

/// The command line, with what `derive` cannot say: which formats a command can write; what a shared option is to one
/// tool (to the users of `sgx`, a bare number of `-i` is seconds, to those of `faults` milliseconds); and that a value below zero is one that an option does
/// not take, not an unknown option.
pub(crate) fn command() -> clap::Command {
    let command = with_whose(with_values_below_zero(Cli::command()));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |sub| with_formats(sub, Format::of(name)))
    });
    let command = command.mut_subcommand("sgx", |sgx| {
        sgx.mut_arg("interval", |arg| {
            arg.value_parser(values::interval_in_seconds).help(
                "Print rows every TIME; a bare number is seconds [default: 1s; with a COMMAND, only the totals]",
            )
        })
    });
    let command = command.mut_subcommand("faults", |faults| {
        faults.mut_arg("interval", |arg| {
            arg.value_parser(values::interval_in_ms).help(
                "Print rows every TIME; a bare number is milliseconds [default: 1s; with a COMMAND, -v, --log-step \
                 or --stall, only the totals]",
            )
        })
    });
    let command = command.mut_subcommand("replay", |replay| {
        replay
            .mut_arg("by", |arg| {
                arg.help(
                    "Print a row per thread, process, comm (process name), cgroup, file, cause, stack, function (where \
                     stacks end) or host (of several recordings), or per several of them: host,process,file [default: as \
                     recorded]",
                )
            })
            .mut_arg("interval", |arg| arg.help("Print rows every TIME [default: as recorded]"))
    });
    command.mut_subcommand("access", |access| {
        access
            .mut_arg("interval", |arg| arg.help("Print the tables of a summary every TIME, and at the end"))
            .mut_arg("cumulative", |arg| {
                arg.help("Print tables of a summary since the start, not since the last interval")
            })
            .mut_arg("sort", |arg| {
                arg.help("Sort the totals by this column, largest first [default: accesses]")
            })
            .mut_arg("top", |arg| arg.help("Print at most N rows of each table of a summary [default: 20]"))
    })
}

/// Whose events are meant is clear where a command is started.
fn with_whose(command: clap::Command) -> clap::Command {
    let has = |name: &str| command.get_arguments().any(|arg| arg.get_id() == name);
    let command = if has("command") && has("tid") {
        // In place: `mut_arg` would give them another place in the help.
        command.mut_args(|arg| {
            let is_of_whose = ["pid", "children", "tid"].contains(&arg.get_id().as_str());
            if is_of_whose { arg.conflicts_with("command") } else { arg }
        })
    } else {
        command
    };
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, with_whose))
}

/// Options named `--format`, here and below, take these values.
fn with_formats(command: clap::Command, formats: &'static [Format]) -> clap::Command {
    let has_format = command.get_arguments().any(|arg| arg.get_id() == "format");
    let command = if has_format {
        command.mut_arg("format", |arg| arg.value_parser(Format::parser(formats)))
    } else {
        command
    };
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, |sub| with_formats(sub, formats)))
}

fn with_values_below_zero(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let takes_values = arg.get_action().takes_values();
        // `-5s` is no number to clap.
        if arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.starts_with("TIME"))) {
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
        if error.use_stderr() {
            error.exit()
        }
        // Help or the version, which somebody wants to read.
        let written = error.print().and_then(|()| io::stdout().flush());
        let written = written.context("cannot write to standard output");
        std::process::exit(written.map_or_else(|error| status::report(&error), |()| 0).into())
    });
    let traces = matches!(
        cli.command,
        Command::Faults(_) | Command::Kvm(_) | Command::Sgx(_) | Command::Access(_) | Command::Explain(_)
    );
    let words: Vec<OsString> = std::env::args_os().collect();
    if traces && words.iter().position(|word| word == "--") == words.len().checked_sub(1) {
        let text = "no command after `--`: add one, or leave out `--`";
        command().error(ErrorKind::MissingRequiredArgument, text).exit();
    }
    cli
}

#[cfg(test)]
mod tests;
