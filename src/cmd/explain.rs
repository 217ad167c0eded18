//! `trapline explain`: what stalled whom, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use trapline_model::explain::{Columns, Explain, FINDING, LAYOUT, RULES, check};
use trapline_model::stage::{Sort, Top};
use trapline_model::{Header, SHOWN, Shown as HowShown, Source};
use trapline_probe::faults::{self, Events, Options};
use trapline_probe::{Keep, Launch};

use crate::args::{self, Order, Shown};
use crate::cmd::recording;
use crate::cmd::run::{self, Items, Opened, Start, pour};
use crate::format::Ask;
use crate::sink;
use crate::status::{Usage, refuse, warn};

/// How long is looked at what runs, if nobody says how long.
const DURATION: Duration = Duration::from_secs(10);
/// Memory for faults that were not read yet, bytes: there is one for each fault.
const RING: u32 = 16 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline explain -p 1234             what stalls a process, seen for 10 seconds
  trapline explain -- ./app            the same of a command, from its start to its end
  trapline explain run.trapline        what a recording shows, of faults, kvm, sgx or access
  trapline explain --rules             what is looked for, and from what figures on it is reported")]
pub(crate) struct Args {
    /// Explain this recording: a folder of -o NAME.trapline, a file of -o FILE.jsonl, or - for standard input [default:
    /// trace page faults]
    #[arg(value_name = "FILE", conflicts_with_all = ["pid", "tid", "comm", "user", "cgroup", "unit", "command", "run_as", "duration", "variant"])]
    file: Option<PathBuf>,

    /// Print what is looked for, and from what figures on it is reported
    #[arg(long, exclusive = true)]
    rules: bool,

    #[command(flatten)]
    whose: args::Whose,

    #[command(flatten)]
    live: args::Live,
}

impl Args {
    /// Refuses options that have no effect.
    pub(crate) fn check(&self) -> Result<()> {
        refuse(&[
            (self.live.rows.interval.is_some(), "findings are about the whole run: leave out -i"),
            (self.live.rows.cumulative, "findings are about the whole run: leave out -c"),
            (
                self.live
                    .variant
                    .as_deref()
                    .is_some_and(|variant| matches!(variant, "rootless" | "counters")),
                "this variant times no faults, and findings are about time: leave out --variant",
            ),
        ])?;
        self.whose.check()?;
        self.live.check(Shown::Totals)
    }
}

/// Explains a recording, or what runs, and gives the exit status.
///
/// # Errors
/// When nothing can be attached, the command cannot be run, the recording cannot be read or the output not be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.check()?;
    if args.rules {
        rules();
        return Ok(0);
    }
    let order = args.live.order(FINDING, "cost_ns")?;
    let ask = Ask { layout: &LAYOUT, look: args.live.look, is_whole: true, ..Ask::new(FINDING) };
    let Some(file) = &args.file else {
        let mut frame = args.live.frame(None, args.whose.pids())?;
        let is_endless = args.live.command.is_empty() && frame.duration.is_none();
        frame.duration = frame.duration.or(is_endless.then_some(DURATION));
        let whole = Order { by: None, top: None };
        return run::run(&args.live, frame, whole, ask, Live { args, order, faults: Columns::default() });
    };
    let output = args.live.output.as_deref();
    let input = recording::open(file, output, None)?;
    explainable(input.header())?;
    let mut sink = sink::open(args.live.format()?, output, sink::From::Recording, ask)?;
    let mut source = explained(Explain::new(input), order);
    let shown = SHOWN.record(&HowShown { layout: Some(LAYOUT.id), ..HowShown::default() });
    pour(&mut *source, vec![shown], &mut sink, |_| {})?;
    Ok(0)
}

fn explained<'a>(source: Explain<impl Source<Error = anyhow::Error> + 'a>, order: Order) -> Items<'a> {
    Box::new(Top::new(Sort::new(source, order.by), order.top))
}

fn explainable(header: &Header) -> Result<()> {
    check(header).map_err(|why| Usage::error(format!("cannot explain this: {why}")))
}

/// The list of rules.
fn rules() {
    for rule in RULES {
        println!("{}: {}", rule.name, rule.says);
        println!(
            "    reported from {} % of {} and {} events on",
            rule.least_percent,
            rule.of.words(),
            rule.least_count
        );
        println!("    {}", rule.advice);
    }
}

struct Live<'a> {
    args: &'a Args,
    order: Order,
    /// Where the faults go.
    faults: Columns,
}

impl Start for Live<'_> {
    fn open(&mut self, launch: Option<&Launch>) -> Result<Opened> {
        let options = Options {
            needs_times: true,
            variant: self.args.live.variant.clone(),
            split: true,
            events: Events::Slower(0),
            ring_bytes: RING,
            ..Options::new(self.args.whose.filter(&self.args.live)?)
        };
        let (mut faults, warning) = faults::open(&options, launch)?;
        warning.iter().for_each(|warning| warn(warning));
        faults.record(Some(Box::new(self.faults.clone())));
        explainable(&faults.header())?;
        Ok((faults, Keep::READING))
    }

    fn can_change(&self) -> bool {
        false
    }

    fn stages<'a>(&self, source: Items<'a>) -> Items<'a> {
        explained(Explain::new(source).with(&self.faults), self.order)
    }
}
