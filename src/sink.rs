//! Chooses the sink that the command line asks for.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;
use terminal_size::{Height, terminal_size};
use trapline_model::{Item, Schema, Sink};
use trapline_view::{Csv, Flame, FlameForm, JsonLines, Screen, Table, end_line};

use crate::cli::{Format, Weight};

/// Where a sink writes.
pub(crate) type Out = BufWriter<Box<dyn Write>>;

/// Opens the output: a file, whose extension tells the form if nothing else does, or standard output. If rows are of
/// stacks, it may be a flame graph, whose frames are as wide as `weight` says.
///
/// # Errors
/// When the file cannot be made, or its extension says nothing.
pub(crate) fn open(
    format: Option<Format>,
    output: Option<&Path>,
    schema: &'static Schema,
    weight: Weight,
) -> Result<Named> {
    let table = |out, screen, zone| -> Box<dyn Sink> { Box::new(Table::new(out, screen, zone)) };
    open_any(format, output, schema, weight, table)
}

/// The same, with a tool's own table.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(
    format: Option<Format>,
    output: Option<&Path>,
    schema: &'static Schema,
    table: impl FnOnce(Out, Screen, TimeZone) -> Box<dyn Sink>,
) -> Result<Named> {
    open_any(format, output, schema, Weight::Count, table)
}

fn open_any(
    format: Option<Format>,
    output: Option<&Path>,
    schema: &'static Schema,
    weight: Weight,
    table: impl FnOnce(Out, Screen, TimeZone) -> Box<dyn Sink>,
) -> Result<Named> {
    let format = form(format, output)?;
    let is_flame = matches!(format, Format::Folded | Format::Svg);
    if is_flame && !schema.iter().any(|field| field.name == "stack") {
        bail!("a flame graph is made of stacks, and there are none here: use `trapline faults --by stack`");
    }
    let weight = match weight {
        Weight::Count => trapline_view::Weight::Count,
        Weight::Time => trapline_view::Weight::Time,
    };
    let (out, name) = destination(output)?;
    let screen = match output {
        None if io::stdout().is_terminal() => {
            let lines = terminal_size().map_or(24, |(_, Height(lines))| lines.into());
            Screen::Terminal { lines }
        }
        _ => Screen::Paper,
    };
    let sink: Box<dyn Sink> = match format {
        Format::Table => table(out, screen, TimeZone::system()),
        Format::Jsonl => Box::new(JsonLines::new(out)),
        Format::Folded => Box::new(Flame::new(out, FlameForm::Folded, weight)),
        Format::Svg => Box::new(Flame::new(out, FlameForm::Svg, weight)),
        Format::Csv => Box::new(Csv::new(out, schema).with_context(|| format!("cannot write to {name}"))?),
    };
    // Its lines have no place for what was lost: readers of that form know stacks only.
    let tells_end = format == Format::Folded;
    Ok(Named { sink, name, tells_end })
}

/// A tool's own form, which is not for people.
///
/// # Errors
/// When the file cannot be made, or there is none and standard output is a terminal.
pub(crate) fn to(output: Option<&Path>, sink: impl FnOnce(Out) -> Box<dyn Sink>) -> Result<Named> {
    if output.is_none() && io::stdout().is_terminal() {
        bail!("this form is not for a terminal: give -o FILE");
    }
    let (out, name) = destination(output)?;
    Ok(Named { sink: sink(out), name, tells_end: false })
}

/// A file, or standard output, and what messages call it.
fn destination(output: Option<&Path>) -> Result<(Out, String)> {
    let (out, name): (Box<dyn Write>, _) = match output {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
            (Box::new(file), path.display().to_string())
        }
        None => (Box::new(io::stdout()), "standard output".into()),
    };
    Ok((BufWriter::new(out), name))
}

/// The form that is asked for: by name, or by the extension of the file.
///
/// # Errors
/// When the extension says nothing.
pub(crate) fn form(format: Option<Format>, output: Option<&Path>) -> Result<Format> {
    match (format, output) {
        (Some(format), _) => Ok(format),
        (None, Some(path)) => by_extension(path),
        (None, None) => Ok(Format::Table),
    }
}

/// A sink that can say where it writes.
pub(crate) struct Named {
    sink: Box<dyn Sink>,
    name: String,
    /// Standard error gets what a run saw and lost.
    tells_end: bool,
}

impl Named {
    /// Takes one item.
    ///
    /// # Errors
    /// When it cannot be written; the message names the file.
    pub(crate) fn take(&mut self, item: &Item) -> Result<()> {
        self.sink.take(item).with_context(|| format!("cannot write to {}", self.name))?;
        if let Item::End(end) = item
            && self.tells_end
        {
            // Nobody may be listening.
            let _ = writeln!(io::stderr(), "trapline: {}", end_line(end));
        }
        Ok(())
    }
}

fn by_extension(path: &Path) -> Result<Format> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => Ok(Format::Jsonl),
        Some("csv") => Ok(Format::Csv),
        Some("txt") => Ok(Format::Table),
        Some("folded") => Ok(Format::Folded),
        Some("svg") => Ok(Format::Svg),
        _ => bail!(
            "the name {} does not tell the form: end it in .jsonl, .csv, .txt, .folded or .svg, or give --format",
            path.display()
        ),
    }
}
