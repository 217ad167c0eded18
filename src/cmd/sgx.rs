//! `trapline sgx`: EPC paging of enclaves.

use anyhow::Result;
use clap::ValueEnum;
use trapline_model::layout::DECLARED;
use trapline_model::sgx::{By, LINES};
use trapline_probe::sgx::{Options, Sgx};
use trapline_probe::{Keep, Launch};

use crate::args::{self, Shown};
use crate::cmd::run::{self, Opened, Start};
use crate::format::Ask;
use crate::status::refuse;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline sgx                        all enclaves together, each second
  trapline sgx --by enclave -i 5      a row per enclave, each 5 seconds
  trapline sgx --hist -- ./app        a command, with a histogram at its end")]
pub(crate) struct Args {
    /// Print a row per enclave, process or cgroup [default: one row]
    #[arg(long, value_name = "WHAT")]
    by: Option<Group>,

    /// Print a histogram of the time of faults that load a page
    #[arg(long)]
    hist: bool,

    /// Trace the driver of this module, where several drivers have functions of the same names
    #[arg(long, value_name = "NAME")]
    module: Option<String>,

    /// Limit memory for counting distinct pages, MiB; pages beyond it are counted as unaccounted
    #[arg(long, value_name = "MB", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=4095))]
    memory: u32,

    #[command(flatten)]
    whose: args::Whose,

    #[command(flatten)]
    live: args::Live,
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

    /// Refuses options that have no effect.
    pub(crate) fn check(&self) -> Result<()> {
        let live = &self.live;
        let one = self.by.is_none() && (live.rows.sort.is_some() || live.rows.top.is_some());
        refuse(&[
            (one, "this prints one row: leave out --sort and --top, or add --by"),
            (
                self.hist && !live.format()?.about().histograms(),
                "this format has no histograms: leave out --hist, or use --format jsonl",
            ),
        ])?;
        self.whose.check()?;
        live.check(Shown::Rows)
    }
}

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When there is no SGX here, nothing can be attached, the command cannot be run, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let (by, live) = (args.by(), &args.live);
    args.check()?;
    let order = live.order(by.schema(), "faults")?;
    let frame = live.frame(live.each_second(), args.whose.pids())?;
    let layout = if by == By::All { &LINES } else { &DECLARED };
    let ask = Ask { layout, redrawn: frame.interval.is_some(), ..Ask::new(by.schema()) };
    let options = Options {
        filter: args.whose.filter(live)?,
        variant: live.variant.clone(),
        module: args.module.clone(),
        by,
        hist: args.hist,
        memory_mib: args.memory,
    };
    run::run(live, frame, order, ask, options)
}

impl Start for Options {
    fn open(&mut self, launch: Option<&Launch>) -> Result<Opened> {
        Ok((Box::new(Sgx::open(self, launch)?), Keep::READING))
    }
}
