//! `trapline replay`: recordings, shown again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use trapline_model::access::summary::Summarized;
use trapline_model::access::{SUMMARY, TRACE};
use trapline_model::faults::{HIST, HIST_EACH, Lines, Regrouping};
use trapline_model::layout::{DECLARED, LAYOUTS, Layout, layout};
use trapline_model::prefetch::{RANGE, Ranges};
use trapline_model::stage::{Sum, Unrepeated};
use trapline_model::{AsItems, Header, Item, Join, Joining, Schema, Source, Value, has_host};

use crate::cmd::faults::View;
use crate::cmd::replay::stream::{Stream, Unshown, alike};
use crate::cmd::run::{Items, pour};
use crate::cmd::{prefetch, recording, summarize};
use crate::format::{Ask, Format, Needs};
use crate::status::{Usage, refuse, warn};
use crate::values::Moment;
use crate::{args, sink, values};

mod faults;
mod stream;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline replay run.trapline                      what the run printed
  trapline replay run.trapline --by process,file    its faults, grouped anew
  trapline replay run.trapline --log-step 1000      messages that `faults --log-step` would have printed
  trapline replay run.trapline --from 12:00:05 --to 12:00:10 --hist
  trapline replay hosts/ --by host,process          recordings of several machines together
  trapline replay run.jsonl --sort major --top 10   recorded rows in another order
  trapline replay trace.jsonl --summary pages       tables of recorded accesses
  trapline replay perf.data -o run.perfetto-trace   page faults that perf recorded
  trapline replay run.jsonl --prefetch -o l.jsonl   a list of file ranges for `trapline prefetch`")]
pub(crate) struct Args {
    /// Read these recordings: folders of -o NAME.trapline or folders of such folders, files of -o FILE.jsonl or perf.data, or - for
    /// standard input; several are shown together
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    view: View,

    #[command(flatten)]
    rows: args::Rows,

    /// Leave out what happened before TIME: since the start of the (first) run, as in 500ms, a time of day, or a date and time
    /// like 2026-11-30T12:00:05
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    from: Option<Moment>,

    /// Leave out what happened after TIME, as for --from
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    to: Option<Moment>,

    #[command(flatten)]
    tasks: args::Tasks,

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
        let (is_sorted, is_cut) = (self.rows.sort.is_some(), self.rows.top.is_some());
        self.out.look.check(about, self.out.output.as_deref())?;
        self.summarize.check(is_cut, is_sorted, about.needs == Needs::Accesses)?;
        self.view.check(about, &self.rows)?;
        self.tasks.check()?;
        refuse(&[
            (self.out.weight.is_some() && about.needs != Needs::Stacks, args::WEIGHS),
            (
                (self.is_of_faults() || self.by_host()) && (is_summary || about.needs == Needs::Accesses),
                "--by, --hist, -v, --log-step, --stall, --slower, --split and filters are for recorded faults: leave them out",
            ),
            (
                about.needs == Needs::Accesses && self.rows.interval.is_some(),
                "--format damo prints accesses, not rows: leave out -i",
            ),
            (
                self.rows.cumulative && self.rows.interval.is_none(),
                "-c needs rows at intervals: add -i TIME, or leave it out",
            ),
            (
                (self.rows.interval.is_some() || self.rows.cumulative) && about.only_totals,
                "this format shows the whole run: leave out -i and -c",
            ),
            (
                self.rows.cumulative && about.own_order,
                "this format shows what came in each interval: leave out -c",
            ),
            (self.layout.is_some() && !about.for_people, "--layout is for tables: leave it out"),
            (self.layout.is_some() && self.view.hist, "--hist has its own layout: leave out --layout"),
            (
                self.layout.is_some() && is_summary,
                "the tables of a summary have their own layout: leave out --layout",
            ),
            (
                (is_sorted || is_cut) && about.needs == Needs::Accesses,
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
                self.prefetch && (is_sorted || is_cut || self.rows.interval.is_some()),
                "a list of ranges is in the order of their first fault, and whole: leave out --sort, --top and -i",
            ),
            (
                self.prefetch
                    && (self.is_of_faults() || self.by_host() || self.from.is_some() || self.to.is_some()),
                "a list of ranges is made of all recorded faults: leave out --by, -v, --from, --to and filters",
            ),
        ])?;
        if is_sorted && !is_cut && about.own_order {
            return Err(Usage::error(format!("{} has its own order: leave out --sort", about.name)));
        }
        Ok(())
    }

    /// Whether rows are of machines, too.
    fn by_host(&self) -> bool {
        self.view.by.is_some_and(|by| by.host)
    }
}

/// Shows recordings.
///
/// # Errors
/// When they cannot be read, options do not fit them, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    let format = args.out.format()?;
    let about = format.about();
    let damo = about.needs == Needs::Accesses;
    let summary =
        args.summarize.options(args.rows.top).map(|options| trapline_model::access::summary::Options {
            intervals: args.rows.interval.is_some(),
            cumulative: args.rows.cumulative,
            ..options
        });
    let accesses = (damo || summary.is_some()).then_some("access");
    let mut inputs = recording::open_all(&args.files, args.out.output.as_deref(), accesses)?;
    let is_summary = inputs.iter().any(|input| input.header().setting("summary").is_some());
    refuse(&[
        (
            accesses.is_some() && is_summary,
            "the recording contains a summary, not accesses: record without --summary",
        ),
        (
            is_summary && inputs.len() > 1,
            "summaries of accesses cannot be added up: record accesses, and use --summary here",
        ),
    ])?;
    let Some(first) = inputs.first().map(|input| input.header().clone()) else { return Ok(()) };
    let moment = |of: Option<Moment>, none| of.map_or(Ok(none), |of| of.of(&first).map_err(Usage::error));
    let times_ns = moment(args.from, 0)?..=moment(args.to, u64::MAX)?;
    refuse(&[(
        times_ns.is_empty() || *times_ns.end() < first.start_ns,
        "nothing is between --from and --to: the run began later, or --to is before --from",
    )])?;
    let headers: Vec<(&str, &Header)> = inputs.iter().map(|input| (input.name(), input.header())).collect();
    let is_cut_off = inputs.iter().any(recording::Input::is_cut_off);
    let has_ticks = inputs.len() == 1 && inputs[0].has_ticks();
    let made = faults::made(args, &headers, args.tasks.filter(times_ns.clone()), is_cut_off)?
        .map(|how| Regrouping { ticks: has_ticks, ..how });
    let is_several = inputs.len() > 1 || args.by_host();
    if made.is_none() && is_several {
        alike(&headers, args.by_host())?;
    }
    if args.prefetch {
        return list(args, format, inputs);
    }
    if made.as_ref().is_some_and(|how| how.lines != Lines::Faults(None)) {
        inputs.iter().try_for_each(recording::Input::check_groupable)?;
    }
    if let Some(how) = &made
        && let Some(columns) = how.columns().map_err(recording::no_key)?
    {
        inputs.iter_mut().for_each(|input| input.read_only(columns.clone()));
    }
    let is_part = times_ns != (0..=u64::MAX);
    let source = Stream::of(inputs, args.by_host());
    let header = source.header().clone();
    let mut by_time = false;
    let unknown = made.as_ref().map(|how| Rc::clone(&how.unknown)).unwrap_or_default();
    let (mut items, events, tables): (Items<'_>, _, _) = match made {
        Some(how) => {
            // As a live run sorts them.
            by_time = true;
            let (events, table) = (how.events, how.table);
            (recording::grouped(source, how)?, events, vec![table])
        }
        None => {
            let is_joined = is_several || args.rows.interval.is_some() || is_part;
            refuse(&[(
                args.rows.interval.is_some() && header.is("cumulative") && summary.is_none(),
                "the recorded rows are since the start: leave out -i",
            )])?;
            let how = Joining {
                interval_ns: args.rows.interval.map(|interval| interval.as_nanos() as u64),
                times_ns,
                several: is_several,
                cumulative: args.rows.cumulative,
            };
            let items = AsItems(source);
            // A table of events alone shows those; what was not shown then is not shown now.
            let unshown = header.is("unshown_events")
                && !about.is_folder
                && about.needs != Needs::Accesses
                && summary.is_none();
            let is_hidden = unshown || is_summary || about.needs == Needs::Rows;
            let events = header.events.filter(|_| !is_hidden);
            let items: Items<'_> = if unshown { Box::new(Unshown(items)) } else { Box::new(items) };
            let items: Items<'_> = if is_joined { Box::new(Join::new(items, how)) } else { items };
            (items, events, header.tables.clone())
        }
    };
    let recorded = match events.or(tables.first().copied()) {
        Some(schema) => schema,
        None => {
            let mut ahead = Ahead { source: items, items: VecDeque::new() };
            let schema = ahead.schema()?.unwrap_or(trapline_model::access::EVENT);
            items = Box::new(ahead);
            schema
        }
    };
    let schema = match &summary {
        Some(summary) => summarize::schema(Some(summary), about.one_table)?,
        None => recorded,
    };
    let layout = if summary.is_some() { &SUMMARY } else { shown(args, &header, recorded)? };
    let has_no_rows = if about.for_people { !layout.has_rows() } else { about.one_table && events.is_some() };
    refuse(&[(
        has_no_rows && summary.is_none() && (args.rows.sort.is_some() || args.rows.top.is_some()),
        "this prints no rows of the recording: leave out --sort and --top, or use --format jsonl",
    )])?;
    let ask = Ask {
        layout,
        weight: args.out.weight.unwrap_or_default(),
        window_ns: args.summarize.window().as_nanos() as u64,
        look: args.out.look,
        // Exits are in the order of their numbers.
        is_whole: args.rows.top.is_some() || args.rows.sort.is_none() && header.tool == "kvm",
        ..Ask::new(schema)
    };
    let mut sink = sink::open(format, args.out.output.as_deref(), sink::From::Recording, ask)?;
    let mut items: Items<'_> = match summary {
        Some(summary) => Box::new(Summarized::new(items, summary)),
        None => {
            let top = args.rows.top.map(|top| top as usize);
            let sort = args.rows.sort.clone().or_else(|| by_time.then(|| "total_ns".to_owned()));
            let view = Ordered { source: items, sort, top };
            if about.for_people && !is_summary {
                Box::new(Unrepeated::new(view, header.is("cumulative") || args.rows.cumulative))
            } else {
                Box::new(view)
            }
        }
    };
    let mut duration_ns = 0;
    let mut is_empty = is_part;
    pour(&mut *items, vec![], &mut sink, |item| {
        is_empty &= !item.has_content();
        if let Item::End(end) = item {
            duration_ns = end.duration_ns;
        }
    })?;
    if is_empty {
        let seconds = duration_ns as f64 / 1e9;
        let why = if header.kept().is_some() { ", of which --keep discarded parts" } else { "" };
        warn(&format!(
            "nothing of the time between --from and --to is recorded: the run took {seconds:.3} s{why}"
        ));
    }
    if let Some(key) = unknown.get() {
        warn(&format!(
            "no fault in the recording has a known {key}: its variant or an older version did not record it"
        ));
    }
    Ok(())
}

/// Makes a list of what of files the recorded events were on.
fn list(args: &Args, format: Format, inputs: Vec<recording::Input>) -> Result<()> {
    let has_offset = |events: &Schema| events.has("offset");
    if !inputs.iter().all(|input| input.header().events.is_some_and(has_offset)) {
        return Err(Usage::error("--prefetch needs single faults: record with `trapline faults -v`"));
    }
    let mut ranges = Sum::new(Ranges::new(AsItems(Stream::of(inputs, false)), prefetch::identify));
    let ask = Ask { look: args.out.look, ..Ask::new(RANGE) };
    let mut sink = sink::open(format, args.out.output.as_deref(), sink::From::Recording, ask)?;
    pour(&mut ranges, vec![], &mut sink, |_| {})
}

/// The layout of a table.
fn shown(args: &Args, header: &Header, table: &Schema) -> Result<&'static Layout> {
    let of_faults = args.view.hist.then(|| if args.view.by.is_some() { HIST_EACH.id } else { HIST.id });
    let is_made = args.is_of_faults() && header.tool == "faults";
    let id = match (&args.layout, header.setting("layout")) {
        (Some(id), _) => Some(id.as_str()),
        (None, _) if of_faults.is_some() => of_faults,
        // What is made of single faults, or has a column more, is no longer what was laid out.
        (None, _) if is_made || has_host(table) && header.tool != "access" => None,
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
    source: Items<'a>,
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
            None => self.source.next(),
        }
    }
}

/// The recorded items, sorted and cut as a live run does it.
struct Ordered<S> {
    source: S,
    sort: Option<String>,
    top: Option<usize>,
}

impl<S: Source<Error = anyhow::Error>> Source for Ordered<S> {
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
