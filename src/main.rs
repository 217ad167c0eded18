//! trapline: what it costs when a processor leaves the program it was running.
//!
//! Parses the command line, connects a source to a sink, and turns what happened into an exit status.

mod cli;
mod cmd;
mod output;
mod sink;

use std::io::{self, Write};
use std::process::ExitCode;

use trapline_model::kvm::NoSuchExit;
use trapline_probe::{LaunchError, OpenError};
use trapline_workload::Unfit;

use crate::cli::{Command, Usage};

/// Something failed.
const FAILED: u8 = 1;
/// The machine or our privileges do not allow it.
const UNAVAILABLE: u8 = 3;

fn main() -> ExitCode {
    trapline_probe::symbolize_if_asked();
    let cli = cli::parse();
    trapline_probe::set_libbpf_output(cli.libbpf_log);
    let result = match &cli.command {
        Command::Faults(args) => cmd::faults::run(args),
        Command::Kvm(args) => cmd::kvm::run(args),
        Command::Sgx(args) => cmd::sgx::run(args),
        Command::Access(args) => cmd::access::run(args),
        Command::Targets(args) => cmd::targets::run(args).map(|()| 0),
        Command::Doctor(args) => cmd::doctor::run(args),
        Command::Workload(args) => cmd::workload::run(args).map(|()| 0),
    };
    ExitCode::from(result.unwrap_or_else(|error| report(&error)))
}

/// Says in one line what went wrong, and gives the status for it.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if is_broken_pipe(error) {
        // Whoever read us has had enough: that is no failure.
        return 0;
    }
    let text = trapline_view::visible(&format!("{error:#}"));
    // Nothing is left to do if standard error is closed too.
    let _ = writeln!(io::stderr(), "trapline: {text}");
    if let Some(launch) = error.downcast_ref::<LaunchError>() {
        return launch.status();
    }
    if error.is::<trapline_workload::Unavailable>() {
        return UNAVAILABLE;
    }
    if error.is::<NoSuchExit>() || error.is::<Usage>() || error.is::<Unfit>() {
        return cli::USAGE;
    }
    match error.downcast_ref::<OpenError>() {
        Some(OpenError::Refused(_) | OpenError::Unavailable(_)) => UNAVAILABLE,
        Some(OpenError::NoSuchVariant { .. } | OpenError::Unfit { .. } | OpenError::Span(_)) => cli::USAGE,
        Some(OpenError::Filter(filter)) if filter.is_usage() => cli::USAGE,
        _ => FAILED,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
