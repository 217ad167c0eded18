//! trapline: what it costs when a processor leaves the program it was running.
//!
//! Parses the command line, connects a source to a sink, and turns what happened into an exit status.

mod args;
mod cli;
mod cmd;
mod format;
mod output;
mod sink;
mod status;
mod terminal;
mod values;

use std::process::ExitCode;

use crate::cli::Command;

fn main() -> ExitCode {
    trapline_probe::symbolize_if_asked();
    let cli = cli::parse();
    trapline_probe::set_libbpf_output(cli.libbpf_log);
    let result = match &cli.command {
        Command::Faults(args) => cmd::faults::run(args),
        Command::Kvm(args) => cmd::kvm::run(args),
        Command::Sgx(args) => cmd::sgx::run(args),
        Command::Access(args) => cmd::access::run(args),
        Command::Explain(args) => cmd::explain::run(args),
        Command::Top(args) => cmd::top::run(args),
        Command::Replay(args) => cmd::replay::run(args).map(|()| 0),
        Command::Report(args) => cmd::report::run(args).map(|()| 0),
        Command::Diff(args) => cmd::diff::run(args).map(|()| 0),
        Command::Prefetch(args) => cmd::prefetch::run(args),
        Command::Targets(args) => cmd::targets::run(args).map(|()| 0),
        Command::Doctor(args) => cmd::doctor::run(args),
        Command::Demo(args) => cmd::demo::run(args),
        Command::Workload(args) => cmd::workload::run(args).map(|()| 0),
        Command::Help(args) => cmd::help::run(args, cli::command()).map(|()| 0),
        Command::Generate(args) => cmd::generate::run(args, cli::command()).map(|()| 0),
    };
    ExitCode::from(result.unwrap_or_else(|error| status::report(&error)))
}
