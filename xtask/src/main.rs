//! `cargo xtask TASK`: the tasks of the repository that are too much for the Makefile.
//!
//! `vm` boots the kernels of `kernels.rs` and runs the tests there; `kernels` writes down what they say, and `overhead`
//! what watching costs; `soak` looks whether trapline grows in minutes of storms.

mod archive;
mod boot;
mod double;
mod emulator;
mod harness;
mod headers;
mod initramfs;
mod kernels;
mod overhead;
mod page;
mod soak;
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
    /// Run the benchmarks, each where it can be, and write what they say into docs/
    Overhead(overhead::Args),
    /// Run processes that come and go for minutes, and see that trapline does not grow and counts exactly
    Soak(soak::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Vm(args) => stage::run(&args),
        Task::Kernels => page::write(),
        Task::Soak(args) => soak::run(&args),
        Task::Overhead(args) => overhead::write(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
