//! `cargo xtask TASK`: the tasks of the repository that are too much for the Makefile.
//!
//! Today that is one: `vm`, which boots the kernels of `kernels.rs` and runs the tests there.

mod archive;
mod boot;
mod emulator;
mod harness;
mod initramfs;
mod kernels;
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
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Vm(args) => stage::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
