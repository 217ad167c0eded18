//! `trapline faults`: page faults of threads.

use anyhow::Result;
use trapline_model::faults::{By, HIST, HIST_EACH, TITLED};
use trapline_model::layout::DECLARED;
use trapline_model::{Block, Item, Record, Value};
use trapline_probe::faults::{self, Events, MinorLatency, Options, Stacks, Unwind};
use trapline_probe::{Keep, Launch, Titles};

use crate::args::{self, Shown};
use crate::cmd::run::{self, Items, Opened, Start};
use crate::format::{Ask, Needs, Weight};
use crate::status::{refuse, warn};
use crate::values;

pub(crate) use self::view::{View, by};

mod view;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline faults                                   every thread, each second
  trapline faults -p 1234 -i 5s --by file           a process by mapped file, each 5 seconds
  trapline faults -d 10s --by stack -o faults.svg   a flame graph of 10 seconds
  trapline faults -v -- ./app                       every fault of a command, as it happens
  trapline faults --hist -d 10s                     histograms of the time of faults
  trapline faults --log-step 1000                   a message at every 1000th fault of a process")]
#[command(mut_arg("by", |arg| arg.requires_if("span", "span")))]
pub(crate) struct Args {
    #[command(flatten)]
    view: View,

    /// With --by process, print each process's title, its command line: `postgres: alice shop [local] SELECT`
    #[arg(long)]
    titles: bool,

    /// Measure the page faults in each call of a function, or between two USDT probes (repeatable)
    ///
    /// BINARY is a path, an executable in PATH, or a library; with -p, one that the process has mapped.
    /// FUNCTION is a symbol, or a C++ or Rust name, whole or its last parts. usdt:BINARY:PROVIDER:NAME is a
    /// pair of USDT probes: NAME__start and NAME__done, or NAME-entry and NAME-return.
    #[arg(long, value_name = "BINARY:FUNCTION")]
    span: Vec<String>,

    /// With --by stack, take stacks of all faults, of major ones, or of one in N (1:N); counts stay exact
    /// [default: all]
    #[arg(long, value_name = "WHICH", value_parser = stacks)]
    stacks: Option<Stacks>,

    /// With --by stack, walk stacks by frame pointers (fp), by the unwind tables of executables and libraries (tables),
    /// or by tables where the kernel can (auto) [default: auto]
    #[arg(long, value_name = "HOW", value_parser = unwind)]
    unwind: Option<Unwind>,

    /// Set the width of frames in a flame graph (.folded, .svg) [default: count]
    #[arg(long, value_name = "WHAT")]
    weight: Option<Weight>,

    /// Time all minor faults (exact), one in N (1:N) or none (off); counts stay exact [default: exact; with
    /// --log-step, without -v and -i, no fault is timed]
    #[arg(long, value_name = "WHICH", value_parser = minor_latency)]
    minor_latency: Option<MinorLatency>,

    /// Set the size of the ring buffer for events: MiB, a power of two [default: 8]
    #[arg(long, value_name = "MB", value_parser = values::ring_mib)]
    ring_size: Option<u32>,

    #[command(flatten)]
    memory: args::Memory,

    #[command(flatten)]
    whose: args::Whose,

    #[command(flatten)]
    live: args::Live,

    /// With --keep and --log-step or --stall, record each fault, and also keep the files with the faults around each
    /// message, up to as much again as --keep
    #[arg(long, requires = "keep", help_heading = "Run and output")]
    keep_on_message: bool,
}

impl Args {
    /// What a row is one of.
    fn by(&self) -> By {
        let given = self.view.by.and_then(|grouping| grouping.by);
        given.unwrap_or(if self.span.is_empty() { By::Thread } else { By::Span })
    }

    /// What cannot be had together, or has no effect, and clap cannot say.
    pub(crate) fn check(&self) -> Result<()> {
        let (by, events) = (self.by(), self.view.events());
        let no_events = events == Events::None;
        let format = self.live.format()?.about();
        let is_flame = format.needs == Needs::Stacks;
        let skips = self.minor_latency.is_some_and(|minor| minor != MinorLatency::Exact);
        let sampled = matches!(self.minor_latency, Some(MinorLatency::Sampled(_)));
        let times_nothing = matches!(self.live.variant.as_deref(), Some("counters" | "rootless"));
        refuse(&[
            (
                self.view.by.is_some_and(|grouping| grouping.host),
                "a live run has one machine: leave out host (`trapline replay` reads recordings of several)",
            ),
            (
                by == By::Span && sampled,
                "--span adds up all faults of a call: use --minor-latency exact or off",
            ),
            (
                by == By::Span && !no_events,
                "-v, --log-step and --stall report faults of processes, --span those of calls: leave out one of them",
            ),
            (
                by == By::Span && self.view.splits(),
                "--span has the time of calls, not of faults: leave out --split",
            ),
            (by != By::Span && !self.span.is_empty(), "--span prints a row per span: leave out --by"),
            (
                self.titles && self.view.splits(),
                "rows with titles do not have the parts of times: leave out --titles or --split",
            ),
            (
                self.titles && by != By::Process,
                "--titles needs rows by process: add --by process, or leave it out",
            ),
            (
                self.stacks.is_some() && !by.has_stacks(),
                "--stacks needs rows by stack or function: add --by stack, or leave it out",
            ),
            (
                self.unwind.is_some() && !by.has_stacks(),
                "--unwind needs rows by stack or function: add --by stack, or leave it out",
            ),
            (self.weight.is_some() && !is_flame, args::WEIGHS),
            (
                self.view.hist && by == By::Span,
                "--hist shows the times of faults, --span those of calls: leave out one of them",
            ),
            (self.view.hist && times_nothing, "this variant times no faults: leave out --hist or --variant"),
            (
                by.parts().whose.is_some() && !no_events,
                "rows by process and file, and the like, come without events: leave out -v, --log-step and --stall, or use --by file or cause alone",
            ),
            (skips && self.view.splits(), "--split and --slower need every fault: leave out --minor-latency"),
            (
                self.view.splits() && times_nothing,
                "this variant times no faults: leave out --split and --slower, or --variant",
            ),
            (skips && !no_events, "-v, --log-step and --stall report every fault: leave out --minor-latency"),
            (
                skips && by.each_fault(),
                "rows by file, cause, stack or function need every fault: leave out --minor-latency",
            ),
            (
                self.minor_latency.is_some() && times_nothing,
                "this variant times no faults: leave out --minor-latency or --variant",
            ),
            (
                sampled && matches!(self.live.variant.as_deref(), Some("fentry" | "kprobe")),
                "this variant times every fault at no extra cost: leave out --minor-latency, or use --variant tracepoint",
            ),
        ])?;
        let keeps = self.keep_on_message;
        refuse(&[
            (
                keeps && !matches!(events, Events::Steps { .. }),
                "--keep-on-message needs messages: add --log-step or --stall, or leave it out",
            ),
            (
                keeps && matches!(self.live.variant.as_deref(), Some("counters" | "rootless")),
                "this variant makes no messages of single faults: leave out --keep-on-message or --variant",
            ),
            (
                keeps && self.titles,
                "rows with titles are recorded without single faults: leave out --titles or --keep-on-message",
            ),
        ])?;
        self.view.check(format, &self.live.rows)?;
        self.whose.check()?;
        self.live.check(if no_events { Shown::Rows } else { Shown::Events })
    }

    /// Whether a recording holds each fault, so that faults can be grouped otherwise later.
    fn records_faults(&self) -> Result<bool> {
        let by = self.by();
        let sees_each = by != By::Span && by.parts().whose.is_none() && self.minor_latency.is_none();
        let is_counted = self.live.variant.as_deref() == Some("counters");
        Ok(self.live.format()?.about().is_folder && sees_each && !self.titles && !is_counted)
    }
}

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When nothing can be attached, the command cannot be run, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.check()?;
    let (by, shown) = (args.by(), args.view.events());
    let unshown_events = (shown == Events::None || args.keep_on_message) && args.records_faults()?;
    let interval = args.live.each_second().filter(|_| shown == Events::None);
    let rows = if args.view.splits() { by.split_schema() } else { by.schema() };
    let order = args.live.order(rows, "total_ns")?;
    let frame = args.live.frame(interval, args.whose.pids())?;
    let schema = shown.schema().unwrap_or(if args.titles { TITLED } else { rows });
    let filter = args.whose.filter(&args.live)?;
    let options = Options {
        unwind: args.unwind.unwrap_or(Unwind::Auto),
        filter,
        by,
        spans: args.span.clone(),
        stacks: args.stacks.unwrap_or(Stacks::All),
        hist: args.view.hist,
        needs_times: args.weight == Some(Weight::Time),
        variant: args.live.variant.clone(),
        split: args.view.splits(),
        times: args.view.splits() || args.minor_latency.is_some() || frame.interval.is_some(),
        minor_latency: args.minor_latency.unwrap_or(MinorLatency::Exact),
        events: match shown {
            Events::Steps { of, most } if unshown_events => Events::Recorded { of, most },
            _ if unshown_events => Events::Faults,
            shown => shown,
        },
        ring_bytes: args.ring_size.unwrap_or(8) << 20,
        memory_bytes: args.memory.memory,
    };
    let layout = match (args.view.hist, args.view.by) {
        (false, _) => &DECLARED,
        (true, None) => &HIST,
        (true, Some(_)) => &HIST_EACH,
    };
    let ask = Ask {
        layout,
        weight: args.weight.unwrap_or_default(),
        redrawn: frame.interval.is_some() && shown == Events::None,
        messages: shown.schema().filter(|_| unshown_events),
        ..Ask::new(schema)
    };
    let start = Faults { args, options, unshown_events, variant: String::new(), note: None };
    run::run(&args.live, frame, order, ask, start)
}

struct Faults<'a> {
    args: &'a Args,
    options: Options,
    /// Events are for the recording alone.
    unshown_events: bool,
    /// The variant in use.
    variant: String,
    /// What the totals lack.
    note: Option<String>,
}

impl Faults<'_> {
    /// The column by which each fault has a row, if each has one.
    fn key(&self) -> Option<&'static str> {
        match self.options.by {
            By::File => Some("file"),
            By::Cause => Some("cause"),
            By::Stack if self.options.stacks == Stacks::All => Some("stack"),
            By::Function if self.options.stacks == Stacks::All => Some("function"),
            By::Several(parts) => Some(if parts.file { "file" } else { "cause" }),
            _ => None,
        }
    }
}

impl Start for Faults<'_> {
    fn open(&mut self, launch: Option<&Launch>) -> Result<Opened> {
        let (faults, warning) = faults::open(&self.options, launch)?;
        let variant = faults.header().variant;
        let rings = self.options.events != Events::None || variant == "rootless";
        let minor = self.args.minor_latency;
        refuse(&[
            (
                self.args.ring_size.is_some() && !rings,
                "--ring-size is memory for events, and none are printed: add -v, --log-step or --stall, or leave it out",
            ),
            (
                self.options.hist && variant == "counters",
                "only variants that time no faults attach here (see `trapline doctor`): leave out --hist",
            ),
            (
                minor.is_some() && matches!(&*variant, "counters" | "rootless"),
                "only variants that time no faults attach here (see `trapline doctor`): leave out --minor-latency",
            ),
        ])?;
        if matches!(minor, Some(MinorLatency::Sampled(_))) && variant != "tracepoint" {
            warn(&format!("--minor-latency has no effect: {variant} times every fault at no extra cost"));
        }
        warning.iter().for_each(|warning| warn(warning));
        let names = self.options.by.has_stacks() || self.options.events.name_code();
        Ok((faults, Keep::READING.and_if(Keep::NAMES, names)))
    }

    fn stages<'a>(&self, source: Items<'a>) -> Items<'a> {
        if self.args.titles { Box::new(Titles::new(source)) } else { source }
    }

    fn shown(&self) -> trapline_model::Shown {
        trapline_model::Shown { unshown_events: self.unshown_events, ..Default::default() }
    }

    fn written(&mut self, item: &Item) {
        match item {
            Item::Header(header) => self.variant = header.variant.to_string(),
            Item::Totals(totals) => {
                self.note = unseen(self.key(), &self.variant, self.options.variant.is_some(), totals)
            }
            Item::End(end) => {
                self.note.iter().for_each(|note| warn(note));
                if end.lost_events > 0 {
                    let size = self.options.ring_bytes >> 20;
                    warn(&format!(
                        "events were lost: use a --ring-size larger than {size}, which holds more of them"
                    ));
                }
            }
            _ => {}
        }
    }
}

/// Which faults are in no row of their own where they are more than a tenth, and which variant would see them.
fn unseen(key: Option<&str>, variant: &str, is_forced: bool, totals: &Block) -> Option<String> {
    let key = key?;
    let better = match (variant, is_forced) {
        ("tracepoint", false) => "fentry and kprobe would see them, but do not attach here",
        ("tracepoint", true) => {
            "fentry and kprobe see them: if `trapline doctor` has one of them, leave out --variant"
        }
        ("rootless", _) => "as root, other variants see them",
        _ => return None,
    };
    let faults = |row: &Record| ["major", "minor"].iter().filter_map(|name| row.number(name)).sum::<u64>();
    let is_unseen = |row: &&Record| match row.get(key) {
        Some(Value::Str(name)) => matches!(name.as_ref(), "(not attributed)" | "unknown"),
        other => matches!(other, Some(Value::Null)),
    };
    let unseen: u64 = totals.rows.iter().filter(is_unseen).map(faults).sum();
    let percent = (unseen * 100).checked_div(totals.sum.as_ref().map_or(0, faults))?;
    (percent > 10).then(|| {
        format!("{percent} % of the faults have no {key}: {variant} does not see faults in system calls and exec; {better}")
    })
}

fn minor_latency(text: &str) -> Result<MinorLatency, String> {
    match text {
        "exact" | "1:1" => Ok(MinorLatency::Exact),
        "off" => Ok(MinorLatency::Off),
        _ => match text.strip_prefix("1:").map(str::parse) {
            Some(Ok(n @ 2..=1_000_000)) => Ok(MinorLatency::Sampled(n)),
            _ => Err("use exact, off, or 1:N with N from 2 to 1000000".into()),
        },
    }
}

fn stacks(text: &str) -> Result<Stacks, String> {
    match text {
        "all" | "1:1" => Ok(Stacks::All),
        "major" => Ok(Stacks::Major),
        _ => match text.strip_prefix("1:").map(str::parse) {
            Some(Ok(n @ 2..=1_000_000)) => Ok(Stacks::Sampled(n)),
            _ => Err("use all, major, or 1:N with N from 2 to 1000000".into()),
        },
    }
}

fn unwind(text: &str) -> Result<Unwind, String> {
    let all = [Unwind::Auto, Unwind::FramePointers, Unwind::Tables];
    let found = all.into_iter().find(|unwind| unwind.to_string() == text);
    found.ok_or_else(|| "use auto, fp or tables".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(file: &str, minor: u64) -> Record {
        let schema = By::File.schema();
        let value = |name| match name {
            "file" => file.into(),
            "minor" => minor.into(),
            _ => Value::Null,
        };
        Record::new(schema, schema.iter().map(|field| value(field.name)).collect())
    }

    #[test]
    fn faults_that_the_variant_does_not_see_are_explained() {
        let rows = vec![row("(not attributed)", 97), row("/lib/c.so", 3)];
        let totals = Block { sum: Some(row("", 100)), ..Block::new(By::File.schema(), 0, rows) };
        let note = unseen(Some("file"), "tracepoint", false, &totals).unwrap_or_default();
        assert!(note.starts_with("97 % of the faults have no file: tracepoint does not see"), "{note}");
        assert!(note.ends_with("do not attach here"), "{note}");
        let forced = unseen(Some("file"), "tracepoint", true, &totals).unwrap_or_default();
        assert!(forced.ends_with("leave out --variant"), "{forced}");
        assert_eq!(unseen(Some("file"), "kprobe", false, &totals), None);
        let most_seen = Block { sum: Some(row("", 1000)), ..totals };
        assert_eq!(unseen(Some("file"), "tracepoint", false, &most_seen), None);
    }
}
