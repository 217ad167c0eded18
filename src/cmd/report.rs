//! `trapline report`: recordings as one HTML page.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trapline_model::access::summary::{Options, Summarized, View};
use trapline_model::explain::{Explain, check};
use trapline_model::faults::Chunks;
use trapline_model::report::Gather;
use trapline_model::{Block, Header, Item, Record, Source, Value};
use trapline_view::write_report;

use crate::cmd::recording;
use crate::output::{Output, When};
use crate::status::{Usage, refuse};

/// The page, if no name is given.
const PAGE: &str = "report.html";
/// The tools whose recordings it shows.
const TOOLS: [&str; 4] = ["faults", "kvm", "sgx", "access"];
/// The windows of the working set in a page, at most.
const WINDOWS: u64 = 240;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline report run.trapline                   writes report.html
  trapline report run.trapline -o slow.html      writes another file
  trapline report before.trapline after.trapline -o both.html    two runs in one page")]
pub(crate) struct Args {
    /// Report on these recordings: folders of -o NAME.trapline or folders of such folders, files of -o FILE.jsonl or
    /// perf.data; several of one tool are one page
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Write the page to this file
    #[arg(short, long, value_name = "FILE", default_value = PAGE)]
    output: PathBuf,
}

impl Args {
    /// Refuses what cannot be read twice.
    pub(crate) fn check(&self) -> Result<()> {
        refuse(&[(
            self.files.iter().any(|file| file == Path::new("-")),
            "a report reads its recordings several times: use files, not -",
        )])
    }
}

/// Writes the page.
///
/// # Errors
/// When a recording cannot be read, or the page not be written.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    write(&args.files, &args.output)
}

/// Writes the report of these recordings to a file, which is replaced when the page is whole; a dash is standard output.
///
/// # Errors
/// When a recording cannot be read, or the page not be written.
pub(crate) fn write(files: &[PathBuf], output: &Path) -> Result<()> {
    let inputs = recording::open_all(files, Some(output), None)?;
    let headers: Vec<&Header> = inputs.iter().map(recording::Input::header).collect();
    if let Some(other) = headers.iter().find(|header| !TOOLS.contains(&&*header.tool)) {
        let why = format!("a report shows no recording of `{}`: use `trapline replay`", other.tool);
        return Err(Usage::error(why));
    }
    if headers.iter().any(|header| header.setting("summary").is_some()) {
        return Err(Usage::error("the recording contains a summary, not accesses: record without --summary"));
    }
    let mut gather = Gather::new(&headers);
    let mut ways = Vec::new();
    let mut broken = None;
    for mut input in inputs {
        let header = input.header().clone();
        gather.begin(input.name(), &header);
        ways.push((PathBuf::from(input.name()), header));
        loop {
            match Chunks::next(&mut input) {
                Ok(Some(chunk)) => gather.take(&chunk),
                Ok(None) => break,
                // What is intact is in the page.
                Err(error) => {
                    gather.broken(format!("{error:#}"));
                    broken.get_or_insert(error);
                    break;
                }
            }
        }
    }
    let mut report = gather.finish();
    for (run, (path, header)) in report.runs.iter_mut().zip(&ways) {
        match check(header) {
            Ok(()) => (run.findings, run.verdict, run.unjudged) = findings(path)?,
            Err(why) => run.unjudged = Some(format!("Findings are left out: {why}")),
        }
    }
    if let [(path, _)] = &*ways
        && report.heat.is_some()
    {
        let duration_ns = report.runs.first().map_or(0, |run| run.end.duration_ns);
        report.summary = summary(path, duration_ns)?;
    }
    let failed = || format!("cannot write to {}", output.display());
    if output == Path::new("-") {
        write_report(&mut io::stdout().lock(), &report).with_context(failed)?;
    } else {
        let file = Output::open(output, When::AtTheEnd)?;
        write_report(&mut io::BufWriter::new(file.clone()), &report).with_context(failed)?;
        file.finish().with_context(failed)?;
    }
    broken.map_or(Ok(()), Err)
}

/// What stands out in a recording, that nothing does, and the rules that lack figures.
fn findings(path: &Path) -> Result<(Vec<Record>, Option<String>, Option<String>)> {
    let mut source = Explain::new(recording::open(path, None, None)?);
    let (mut findings, mut verdict, mut unjudged) = (vec![], None, None);
    loop {
        let item = match source.next() {
            Ok(Some(item)) => item,
            // That it is cut off is in the page. What it knows of itself came before.
            Err(_) if verdict.is_none() && findings.is_empty() => {
                unjudged = Some("Findings are left out: the recording was not read to its end".to_owned());
                break;
            }
            Ok(None) | Err(_) => break,
        };
        match item {
            Item::Totals(block) => findings.extend(block.rows),
            Item::End(end) => {
                let text = |name: &str| match end.value(name) {
                    Some(Value::Str(text)) => Some(text.to_string()),
                    _ => None,
                };
                verdict = text("verdict");
                unjudged = text("not_judged_because").map(|rules| format!("Not judged: {rules}"));
            }
            _ => {}
        }
    }
    Ok((findings, verdict, unjudged))
}

/// The working set and the miss-ratio curve of recorded accesses.
fn summary(path: &Path, duration_ns: u64) -> Result<Vec<Block>> {
    let options = Options {
        views: vec![View::WorkingSet, View::MissRatio],
        window_ns: (duration_ns / WINDOWS).max(1_000_000),
        ..Options::default()
    };
    let mut source = Summarized::new(recording::open(path, None, Some("access"))?, options);
    let mut blocks: Vec<Block> = Vec::new();
    // One that cannot be read to its end is named in the page.
    while let Ok(Some(item)) = source.next() {
        // The working set is rows of windows, the curve totals.
        match (item, blocks.first_mut()) {
            (Item::Rows(block), Some(of)) if *of.table == *block.table => of.rows.extend(block.rows),
            (Item::Rows(block), None) => blocks.push(block),
            (Item::Totals(block), _) if *block.table == *View::MissRatio.schema() => blocks.push(block),
            _ => {}
        }
    }
    Ok(blocks)
}
