//! `trapline sgx`: EPC paging of enclaves.

use anyhow::Result;
use clap::ValueEnum;
use trapline_model::sgx::By;
use trapline_probe::live::Live;
use trapline_probe::sgx::{Options, Sgx};
use trapline_view::{Lines, Table};

use crate::cmd::command::{launch, pour, see_to_the_end};
use crate::{cli, sink};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    live: cli::Live,

    /// A row for each enclave, process or cgroup [default: one for everything]
    #[arg(long, value_name = "WHAT")]
    by: Option<Group>,

    /// Add the histogram of the time that faults with a load took
    #[arg(long)]
    hist: bool,

    /// The driver's module, where more than one driver has functions of the same names
    #[arg(long, value_name = "NAME")]
    module: Option<String>,

    /// Memory for telling distinct pages apart, MiB; what does not fit is counted as unaccounted
    #[arg(long, value_name = "MB", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=4095))]
    memory: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Each enclave, and each virtual EPC of a guest
    Enclave,
    /// Each process: the enclaves on which it faulted first
    Process,
    /// Each cgroup (v2) of such processes
    Cgroup,
}

impl Args {
    fn by(&self) -> By {
        match self.by {
            None => By::All,
            Some(Group::Enclave) => By::Enclave,
            Some(Group::Process) => By::Process,
            Some(Group::Cgroup) => By::Cgroup,
        }
    }
}

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When there is no SGX here, nothing can be attached, the command cannot be run, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let by = args.by();
    let one = by == By::All && (args.live.has_sort() || args.live.has_top());
    cli::refuse(&[(one, "there is one row: leave out --sort and --top, or add --by")])?;
    args.live.check(cli::Shown::Rows)?;
    let frame = args.live.frame(by.schema(), "faults", true)?;
    let output = args.live.output.as_deref();
    let from = sink::From::trace(&args.live.command);
    let run_as = args.live.run_as()?;
    let mut sink = sink::open_with(args.live.format, output, from, by.schema(), |out, screen, zone| {
        if by == By::All { Box::new(Lines::new(out, zone)) } else { Box::new(Table::new(out, screen, zone)) }
    })?;
    let launch = launch(&args.live.command, run_as.as_ref())?;
    let options = Options {
        filter: args.live.filter(),
        variant: args.live.variant.clone(),
        module: args.module.clone(),
        by,
        hist: args.hist,
        memory_mib: args.memory,
    };
    let sgx = Sgx::open(&options, launch.as_ref())?;
    let mut source = Live::new(sgx, frame, launch)?;
    let poured = pour(&mut source, &mut sink);
    see_to_the_end(source, poured)
}
