//! `cargo xtask TASK`: the tasks of the repository that are too much for the Makefile.
//!
//! `vm` boots the kernels of `kernels.rs` and runs the tests there; `kernels` writes down what they say.

mod archive;
mod boot;
mod double;
mod emulator;
mod harness;
mod headers;
mod initramfs;
mod kernels;
mod page;
mod stage;
mod system;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The tasks of the repository", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Boot other kernels in virtual machines and run the tests there
    Vm(stage::Args),
    /// Ask each kernel what attaches there, and write docs/kernels.md
    Kernels,
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Vm(args) => stage::run(&args),
        Task::Kernels => page::write(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
