//! `trapline doctor`: what attaches here, what does not, and what to do about it.

use std::io::{self, Write};

use anyhow::{Context, Result};
use trapline_model::doctor::{PROGRAMS, Program, VARIANTS, Variant};
use trapline_model::{Block, Facts, Item, Sink};
use trapline_probe::doctor::{examine, header, machine, programs};
use trapline_view::{self as view, JsonLines};

use crate::format::Format;
use crate::status::UNAVAILABLE;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline doctor                     what attaches here, and why the rest does not
  trapline doctor --repair            restore what a killed trapline left changed")]
pub(crate) struct Args {
    /// Set the output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,

    /// Load each BPF program and print the number of instructions that the verifier processed
    #[arg(long)]
    programs: bool,

    /// Restore what a killed trapline left changed, print it, and exit
    #[arg(long, conflicts_with_all = ["programs", "format"])]
    repair: bool,
}

/// Reports, and gives the exit status: 0 if every tool has a variant that works, for any process. A tool about something that this machine
/// does not have does not count.
///
/// # Errors
/// When the report cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.repair {
        return repair();
    }
    if args.programs {
        return each_program(args.format);
    }
    let machine = machine();
    let mut out = io::stdout().lock();
    let variants = match args.format {
        Format::Table => {
            let variants = examine();
            view::doctor(&mut out, &machine, &variants).context("cannot write to standard output")?;
            variants
        }
        _ => jsonl(&mut JsonLines::new(out), header(&machine)).context("cannot write to standard output")?,
    };
    let works = |tool| {
        machine.lacks.iter().any(|(lacking, _)| *lacking == tool)
            || variants.iter().any(|of| of.tool == tool && of.refusal.is_none() && !of.own_only)
    };
    Ok(if variants.iter().all(|of| works(of.tool)) { 0 } else { UNAVAILABLE })
}

fn repair() -> Result<u8> {
    let restored = trapline_probe::access::repair().map_err(|error| trapline_probe::refused(error.into()))?;
    let mut out = io::stdout().lock();
    let written = match restored.as_slice() {
        [] => writeln!(out, "nothing to restore"),
        restored => {
            restored.iter().try_for_each(|what| writeln!(out, "{}", view::visible(&what.to_string())))
        }
    };
    written.context("cannot write to standard output")?;
    Ok(0)
}

fn each_program(format: Format) -> Result<u8> {
    let programs = programs()?;
    let mut out = io::stdout().lock();
    match format {
        Format::Table => view::programs(&mut out, &programs),
        _ => {
            let mut sink = JsonLines::new(out);
            let mut header = header(&machine());
            header.tables = vec![PROGRAMS];
            let (time_ns, rows) = (header.start_ns, programs.iter().map(Program::record).collect());
            sink.take(&Item::Header(header))
                .and_then(|()| sink.take(&Item::Rows(Block::new(PROGRAMS, time_ns, rows))))
        }
    }
    .context("cannot write to standard output")?;
    Ok(if programs.iter().all(|program| program.insns.is_err()) { UNAVAILABLE } else { 0 })
}

fn jsonl(sink: &mut impl Sink, header: trapline_model::Header) -> io::Result<Vec<Variant>> {
    let start_ns = header.start_ns;
    sink.take(&Item::Header(header))?;
    let (variants, end): (_, Facts) = examine_timed();
    let rows = variants.iter().map(Variant::record).collect();
    let time_ns = start_ns + end.duration_ns;
    sink.take(&Item::Rows(Block::new(VARIANTS, time_ns, rows)))?;
    sink.take(&Item::End(end))?;
    Ok(variants)
}

fn examine_timed() -> (Vec<Variant>, Facts) {
    let began = std::time::Instant::now();
    let variants = examine();
    let end = Facts {
        duration_ns: began.elapsed().as_nanos() as u64,
        events: variants.len() as u64,
        lost_events: 0,
        sampled: 1,
        own_cpu_ns: None,
        more: vec![],
    };
    (variants, end)
}
