//! `trapline doctor`: what attaches here, what does not, and what to do about it.

use std::io;

use anyhow::{Context, Result, bail};
use trapline_model::doctor::Variant;
use trapline_model::{Block, End, Item, Sink};
use trapline_probe::doctor::{examine, header, machine};
use trapline_view::{JsonLines, doctor};

use crate::{UNAVAILABLE, cli::Format};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The form of the output: table or jsonl
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// Reports, and gives the exit status: 0 if every tool has a variant that works.
///
/// # Errors
/// When the report cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let machine = machine();
    let mut out = io::stdout().lock();
    let variants = match args.format {
        Format::Table => {
            let variants = examine();
            doctor(&mut out, &machine, &variants).context("cannot write to standard output")?;
            variants
        }
        Format::Jsonl => {
            jsonl(&mut JsonLines::new(out), header(&machine)).context("cannot write to standard output")?
        }
        Format::Csv => bail!("the doctor reports as table or jsonl"),
    };
    // What the machine does not have cannot be watched on it, and that is no fault of it.
    let lacks = |tool| machine.lacks.iter().any(|(lacking, _)| *lacking == tool);
    let works = |tool| lacks(tool) || variants.iter().any(|of| of.tool == tool && of.refusal.is_none());
    Ok(if variants.iter().all(|of| works(of.tool)) { 0 } else { UNAVAILABLE })
}

fn jsonl(sink: &mut impl Sink, header: trapline_model::Header) -> io::Result<Vec<Variant>> {
    let start_ns = header.start_ns;
    sink.take(&Item::Header(header))?;
    let (variants, end): (_, End) = examine_timed();
    let rows = variants.iter().map(Variant::record).collect();
    let time_ns = start_ns + end.duration_ns;
    sink.take(&Item::Rows(Block { time_ns, rows, sum: None, hidden: 0 }))?;
    sink.take(&Item::End(end))?;
    Ok(variants)
}

fn examine_timed() -> (Vec<Variant>, End) {
    let began = std::time::Instant::now();
    let variants = examine();
    let end = End {
        duration_ns: began.elapsed().as_nanos() as u64,
        events: variants.len() as u64,
        lost: 0,
        sampled: 1,
        self_ns: 0,
        losses: vec![],
    };
    (variants, end)
}
