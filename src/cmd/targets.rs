//! `trapline targets`: the names that a running `access --exec` follows.

use std::io::{self, Write};

use anyhow::{Context, Result};
use trapline_probe::access::Targets;
use trapline_probe::refused;
use trapline_view::visible;

use crate::values;

/// The names of programs that a running `access --exec` follows.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline access --exec redis-server   in another terminal: follows this name
  trapline targets add postgres         follow this one, too
  trapline targets clear redis-server   and the first one no more")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Follow executables of these names, from their next exec on
    Add {
        /// Names without a path; the first 15 bytes count
        #[arg(required = true, value_name = "NAME", value_parser = values::program)]
        names: Vec<String>,
    },
    /// Print the names, one per line
    List,
    /// Remove these names, or all
    Clear {
        /// Names without a path
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Changes or prints the list.
///
/// # Errors
/// When the list cannot be used, or a name not be added or removed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let targets = Targets::open().map_err(|error| refused(error.into()))?;
    if let Some(what) = targets.mounted() {
        eprintln!("trapline: {what}");
    }
    match &args.what {
        What::Add { names } => names.iter().try_for_each(|name| targets.add(name)),
        What::Clear { names } => targets.clear(names),
        What::List => {
            let mut out = io::stdout().lock();
            let written = targets.names().iter().try_for_each(|name| writeln!(out, "{}", visible(name)));
            written.context("cannot write to standard output")
        }
    }
}
