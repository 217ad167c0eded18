//! `trapline diff`: what got better or worse between recordings.

use std::path::{Path, PathBuf};

use anyhow::Result;
use trapline_model::diff::{Figures, LAYOUT, Per, ROWS, Run, diff};
use trapline_model::faults::{By, Regrouping, are_all_faults};
use trapline_model::stage::{Sort, Top};
use trapline_model::{SHOWN, Shown};

use crate::cmd::run::{Borrowed, pour};
use crate::cmd::{faults, recording};
use crate::format::{Ask, Format, Needs, Weight};
use crate::status::{Usage, refuse};
use crate::{args, sink};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline diff old.jsonl new.jsonl                      figures per second of each run
  trapline diff --before a1.jsonl a2.jsonl --after b1.jsonl b2.jsonl    with the noise between repeated runs
  trapline diff old.jsonl new.jsonl --per 5000           per operation, where each run made 5000
  trapline diff old.jsonl new.jsonl --figures p99_ns     a latency, as it is
  trapline diff old.trapline new.trapline --by file      recorded faults, grouped by file
  trapline diff old.jsonl new.jsonl -o diff.svg          a differential flame graph (faults --by stack)")]
pub(crate) struct Args {
    /// Compare these two recordings
    #[arg(value_names = ["BEFORE", "AFTER"], num_args = 2, required_unless_present = "before", conflicts_with_all = ["before", "after"])]
    pair: Vec<PathBuf>,

    /// Compare these recordings, repeated runs of one thing, with those of --after
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "after")]
    before: Vec<PathBuf>,

    /// Compare these recordings, repeated runs of one thing, with those of --before
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "before")]
    after: Vec<PathBuf>,

    /// Group recorded faults by thread, process, file, cause or several of them: process,file [default: as
    /// recorded]
    #[arg(long, value_name = "WHAT", value_parser = faults::by)]
    by: Option<By>,

    /// Divide figures by the operations of a run: a number, two for before and after (N,M), or a column that
    /// counts them, like calls or count [default: divide by the duration of the run]
    #[arg(long, value_name = "N|COLUMN", value_parser = per)]
    per: Option<Per>,

    /// Compare these columns of the recordings [default: times and counts that a table shows; in jsonl and csv all]
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    figures: Vec<String>,

    /// Sort the rows of each figure by this column, largest first [default: the size of the difference]
    #[arg(long, value_name = "FIELD")]
    sort: Option<String>,

    /// Print at most N rows of each figure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,

    #[command(flatten)]
    out: args::Written,
}

/// What figures are divided by.
fn per(text: &str) -> Result<Per, String> {
    let number = |text: &str| match text.parse() {
        Ok(n @ 1..) => Ok(n),
        _ => Err(format!("`{text}` is not a number of operations")),
    };
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Ok(Per::Figure(text.to_owned()));
    }
    let (before, after) = text.split_once(',').unwrap_or((text, text));
    Ok(Per::Operations(number(before)?, number(after)?))
}

impl Args {
    /// Refuses options that have no effect, whatever is recorded.
    pub(crate) fn check(&self) -> Result<()> {
        let format = self.out.format()?;
        let about = format.about();
        let is_flame = about.needs == Needs::Stacks;
        self.out.look.check(about, self.out.output.as_deref())?;
        refuse(&[
            (
                !Format::of("diff").contains(&format),
                "differences are a table, jsonl, csv, or a flame graph: use another extension or --format",
            ),
            (self.out.weight.is_some() && !is_flame, args::WEIGHS),
            (
                is_flame && !self.figures.is_empty(),
                "a flame graph shows counts or times: use --weight, and leave out --figures",
            ),
            (
                is_flame && self.by.is_some_and(|by| by != By::Stack),
                "a flame graph needs rows by stack: use --by stack, or leave out --by",
            ),
            (is_flame && self.sort.is_some(), "a flame graph has its own order: leave out --sort"),
            (is_flame && self.top.is_some(), "a flame graph shows every stack: leave out --top"),
        ])
    }
}

/// Compares recordings.
///
/// # Errors
/// When they cannot be read or compared, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    let format = args.out.format()?;
    let about = format.about();
    let is_flame = about.needs == Needs::Stacks;
    let weight = args.out.weight.unwrap_or_default();
    let figures = match weight {
        _ if !args.figures.is_empty() => Figures::Named(args.figures.clone()),
        Weight::Count if is_flame => Figures::Named(vec!["major".into(), "minor".into()]),
        Weight::Time if is_flame => Figures::Named(vec!["total_ns".into()]),
        _ if about.for_people => Figures::Shown,
        _ => Figures::All,
    };
    let (before, after) = match args.pair.as_slice() {
        [before, after] => (std::slice::from_ref(before), std::slice::from_ref(after)),
        _ => (args.before.as_slice(), args.after.as_slice()),
    };
    let read = |paths: &[PathBuf]| paths.iter().map(|path| read(path, args)).collect::<Result<Vec<Run>>>();
    let (before, after) = (read(before)?, read(after)?);
    let mut of = after.iter().flat_map(|run| &run.totals);
    if is_flame && !of.any(|block| block.table.has("stack")) {
        return Err(Usage::error("a flame graph needs stacks: record with `trapline faults --by stack`"));
    }
    let per = args.per.clone().unwrap_or_default();
    let mut items = diff(&before, &after, &per, &figures).map_err(Usage::error)?;
    let by = args.sort.as_deref().map(|sort| args::order(ROWS, sort)).transpose()?;
    let ask = Ask { layout: &LAYOUT, weight, look: args.out.look, has_stacks: true, ..Ask::new(ROWS) };
    let mut sink = sink::open(format, args.out.output.as_deref(), sink::From::Recording, ask)?;
    let source = Borrowed(&mut items);
    let mut source = Top::new(Sort::new(source, by), args.top.map(|top| top as usize));
    let shown = SHOWN.record(&Shown { layout: Some(LAYOUT.id), ..Shown::default() });
    pour(&mut source, vec![shown], &mut sink, |_| {})
}

/// The end of a recording.
fn read(path: &Path, args: &Args) -> Result<Run> {
    let mut input = recording::open(path, args.out.output.as_deref(), None)?;
    let (name, header) = (path.display().to_string(), input.header().clone());
    // What was grouped so when it was recorded has what the kernel counted.
    let Some(table) = args.by.map(By::schema).filter(|table| header.tables != [*table]) else {
        return Run::read(name, &mut input);
    };
    let Some(faults) = header.events.filter(|events| are_all_faults(*events)) else {
        return Err(Usage::error(format!(
            "{name} has no single faults, which --by needs: record with `trapline faults -o NAME.trapline`"
        )));
    };
    input.check_groupable()?;
    let how = Regrouping::of(table, faults);
    if let Some(columns) = how.columns().map_err(recording::no_key)? {
        input.read_only(columns);
    }
    let mut grouped = recording::grouped(input, how)?;
    Run::read(name, &mut grouped)
}
