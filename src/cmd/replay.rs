//! `trapline replay`: a recording, shown again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use trapline_model::access::summary::Summarized;
use trapline_model::access::{SUMMARY, TRACE};
use trapline_model::faults::By;
use trapline_model::layout::{DECLARED, LAYOUTS, Layout, layout};
use trapline_model::prefetch::{RANGE, Ranges};
use trapline_model::stage::{Sum, Unrepeated};
use trapline_model::{Header, Item, Schema, Source, Value};

use crate::cmd::replay::faults::Choice;
use crate::cmd::run::{Borrowed, Items, pour};
use crate::cmd::{faults as live_faults, prefetch, recording, summarize};
use crate::format::{Ask, Format, Needs};
use crate::status::{Usage, refuse};
use crate::{args, sink, values};

mod faults;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline replay run.trapline                      what the run printed
  trapline replay run.jsonl --sort major --top 10   its rows in another order
  trapline replay trace.jsonl --summary pages       tables of recorded accesses
  trapline replay perf.data -o run.perfetto-trace   page faults that perf recorded
  trapline replay run.jsonl --prefetch -o l.jsonl   a list of file ranges for `trapline prefetch`")]
pub(crate) struct Args {
    /// Read this recording: a folder of -o NAME.trapline, a file of -o FILE.jsonl or perf.data, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Sort rows by this column, largest first [default: as recorded]
    #[arg(long, value_name = "FIELD")]
    sort: Option<String>,

    /// Print at most N rows of each table [default: all; on a terminal, those that fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,

    /// Group recorded faults by thread, process, file, cause or several of them: process,file [default: as
    /// recorded]
    #[arg(long, value_name = "WHAT", value_parser = live_faults::by)]
    by: Option<By>,

    /// Print rows of recorded faults every TIME [default: as recorded]
    #[arg(short, long, value_name = "TIME", value_parser = values::interval)]
    interval: Option<Duration>,

    /// Print every recorded fault
    #[arg(short, long, conflicts_with_all = ["by", "interval"])]
    verbose: bool,

    /// Leave out faults before TIME, counted from the start of the run
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    from: Option<Duration>,

    /// Leave out faults after TIME, counted from the start of the run
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    to: Option<Duration>,

    /// Print only faults of these processes: -p 1,2 or -p 1 -p 2
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,

    /// Print only faults of threads of this name (repeatable: any of the names)
    #[arg(long, value_name = "NAME")]
    comm: Vec<String>,

    /// Print tables in this layout [default: that of the recorded command]
    #[arg(long, value_name = "LAYOUT", value_parser = PossibleValuesParser::new(LAYOUTS.iter().map(|layout| layout.id)))]
    layout: Option<String>,

    #[command(flatten)]
    summarize: summarize::Summarize,

    /// Print what of files the recorded faults were on, in the order of their first fault: a list for `trapline prefetch`
    #[arg(long)]
    prefetch: bool,

    #[command(flatten)]
    out: args::Written,
}

impl Args {
    /// Refuses options that have no effect, whatever is recorded.
    pub(crate) fn check(&self) -> Result<()> {
        let about = self.out.format()?.about();
        let is_summary = self.summarize.is_summary();
        self.out.look.check(about, self.out.output.as_deref())?;
        self.summarize.check(self.top.is_some(), self.sort.is_some(), about.needs == Needs::Accesses)?;
        refuse(&[
            (self.out.weight.is_some() && about.needs != Needs::Stacks, args::WEIGHS),
            (
                self.is_of_faults() && (is_summary || about.needs == Needs::Accesses),
                "--by, -i, -v, --from, --to, -p and --comm are for recorded faults: leave them out",
            ),
            (self.layout.is_some() && !about.for_people, "--layout is for tables: leave it out"),
            (
                self.layout.is_some() && is_summary,
                "the tables of a summary have their own layout: leave out --layout",
            ),
            (
                (self.sort.is_some() || self.top.is_some()) && about.needs == Needs::Accesses,
                "--format damo prints accesses, not rows: leave out --sort and --top",
            ),
        ])?;
        refuse(&[
            (
                self.prefetch && (about.needs != Needs::Nothing || about.binary),
                "--prefetch makes a list of ranges: use jsonl, csv or a table",
            ),
            (self.prefetch && is_summary, "--prefetch is made of single accesses: leave out --summary"),
            (self.prefetch && self.layout.is_some(), "a list of ranges has one layout: leave out --layout"),
            (
                self.prefetch && (self.sort.is_some() || self.top.is_some()),
                "a list of ranges is in the order of their first fault, and whole: leave out --sort and --top",
            ),
        ])?;
        if self.sort.is_some() && self.top.is_none() && about.own_order {
            return Err(Usage::error(format!("{} has its own order: leave out --sort", about.name)));
        }
        Ok(())
    }
}

/// Shows a recording.
///
/// # Errors
/// When it cannot be read, options do not fit it, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    let format = args.out.format()?;
    let about = format.about();
    let damo = about.needs == Needs::Accesses;
    let summary = args.summarize.options(args.top);
    let accesses = (damo || summary.is_some()).then_some("access");
    let mut input = recording::open(&args.file, args.out.output.as_deref(), accesses)?;
    let header = input.header().clone();
    refuse(&[(
        accesses.is_some() && header.setting("summary").is_some(),
        "the recording contains a summary, not accesses: record without --summary",
    )])?;
    if args.prefetch {
        return list(args, format, input);
    }
    let choice = Choice::new(args, &header, about.is_folder)?;
    if choice.rows.is_some() {
        input.check_groupable()?;
    }
    let mut read = Ahead { source: &mut input, items: VecDeque::new() };
    // A table of events alone shows those.
    let is_summary = header.setting("summary").is_some();
    let events = choice.events(&header).filter(|_| !is_summary && about.needs != Needs::Rows);
    let recorded_events = events.is_some();
    let recorded = match events.or(choice.rows).or(header.tables.first().copied()) {
        Some(schema) => schema,
        None => read.schema()?.unwrap_or(trapline_model::access::EVENT),
    };
    let schema = match &summary {
        Some(summary) => summarize::schema(Some(summary), about.one_table)?,
        None => recorded,
    };
    let layout = if summary.is_some() { &SUMMARY } else { shown(args, &header)? };
    let has_no_rows = if about.for_people { !layout.has_rows() } else { about.one_table && recorded_events };
    refuse(&[(
        has_no_rows && summary.is_none() && (args.sort.is_some() || args.top.is_some()),
        "this prints no rows of the recording: leave out --sort and --top, or use --format jsonl",
    )])?;
    let ask = Ask {
        layout,
        weight: args.out.weight.unwrap_or_default(),
        window_ns: args.summarize.window().as_nanos() as u64,
        look: args.out.look,
        // Exits are in the order of their numbers.
        is_whole: args.top.is_some() || args.sort.is_none() && header.tool == "kvm",
        ..Ask::new(schema)
    };
    let mut sink = sink::open(format, args.out.output.as_deref(), sink::From::Recording, ask)?;
    let mut items: Items<'_> = match summary {
        Some(summary) => Box::new(Summarized::new(read, summary)),
        None => {
            let top = args.top.map(|top| top as usize);
            // As a live run sorts them.
            let by_time = choice.rows.map(|_| "total_ns".to_owned());
            let source = choice.of(Box::new(read), &header)?;
            let view = View { source, sort: args.sort.clone().or(by_time), top };
            if about.for_people && header.setting("summary").is_none() {
                Box::new(Unrepeated::new(view, header.is("cumulative")))
            } else {
                Box::new(view)
            }
        }
    };
    pour(&mut *items, vec![], &mut sink, |_| {})
}

/// Makes a list of what of files the recorded events were on.
fn list(args: &Args, format: Format, mut input: recording::Input) -> Result<()> {
    let has_offset = |events: &Schema| events.iter().any(|field| field.name == "offset");
    if !input.header().events.is_some_and(has_offset) {
        return Err(Usage::error("--prefetch needs single faults: record with `trapline faults -v`"));
    }
    let mut ranges = Sum::new(Ranges::new(Borrowed(&mut input), prefetch::identify));
    let ask = Ask { look: args.out.look, ..Ask::new(RANGE) };
    let mut sink = sink::open(format, args.out.output.as_deref(), sink::From::Recording, ask)?;
    pour(&mut ranges, vec![], &mut sink, |_| {})
}

/// The layout of a table.
fn shown(args: &Args, header: &Header) -> Result<&'static Layout> {
    let id = match (&args.layout, header.setting("layout")) {
        (Some(id), _) => Some(id.as_str()),
        (None, Some(Value::Str(id))) => Some(id.as_ref()),
        // A trace of before layouts had names.
        (None, _) if header.tool == "access" => Some(TRACE.id),
        (None, _) => None,
    };
    let Some(layout) = id.and_then(layout) else { return Ok(&DECLARED) };
    let is_own = *layout == DECLARED || layout.id.split('.').next() == Some(&header.tool);
    if is_own {
        Ok(layout)
    } else {
        Err(Usage::error(format!("layout `{}` is not for a recording of `{}`", layout.id, header.tool)))
    }
}

/// Reads ahead, as far as it takes to know what a recording is of.
struct Ahead<'a> {
    source: &'a mut recording::Input,
    items: VecDeque<Item>,
}

impl Ahead<'_> {
    /// The table of the first record.
    fn schema(&mut self) -> Result<Option<&'static Schema>> {
        loop {
            let Some(item) = self.source.next()? else { return Ok(None) };
            let schema = match &item {
                Item::Events(events) => events.first().map(|event| event.record.schema()),
                Item::Rows(block) | Item::Totals(block) => Some(block.table),
                Item::Header(_) | Item::Facts(_) | Item::Tick(_) | Item::End(_) => None,
            };
            self.items.push_back(item);
            if schema.is_some() {
                return Ok(schema);
            }
        }
    }
}

impl Source for Ahead<'_> {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        match self.items.pop_front() {
            Some(item) => Ok(Some(item)),
            None => Borrowed(self.source).next(),
        }
    }
}

/// The recorded items, sorted and cut as a live run does it.
struct View<S> {
    source: S,
    sort: Option<String>,
    top: Option<usize>,
}

impl<S: Source<Error = anyhow::Error>> Source for View<S> {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        let mut item = self.source.next()?;
        if let Some(Item::Rows(block) | Item::Totals(block)) = &mut item {
            if let Some(sort) = &self.sort {
                block.sort(args::order(block.table, sort)?);
            }
            if let Some(top) = self.top {
                block.cut(top);
            }
        }
        Ok(item)
    }
}

#[cfg(test)]
mod tests;
