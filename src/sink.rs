//! Chooses the sink that the command line asks for.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;
use terminal_size::{Height, terminal_size};
use trapline_model::{Item, Schema, Sink};
use trapline_view::{Csv, JsonLines, Screen, Table};

use crate::cli::Format;

/// Where a sink writes.
pub(crate) type Out = BufWriter<Box<dyn Write>>;

/// Opens the output: a file, whose extension tells the form if nothing else does, or standard output.
///
/// # Errors
/// When the file cannot be made, or its extension says nothing.
pub(crate) fn open(format: Option<Format>, output: Option<&Path>, schema: &'static Schema) -> Result<Named> {
    open_with(format, output, schema, |out, screen, zone| Box::new(Table::new(out, screen, zone)))
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
    let format = form(format, output)?;
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
        Format::Csv => Box::new(Csv::new(out, schema).with_context(|| format!("cannot write to {name}"))?),
    };
    Ok(Named { sink, name })
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
    Ok(Named { sink: sink(out), name })
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
}

impl Named {
    /// Takes one item.
    ///
    /// # Errors
    /// When it cannot be written; the message names the file.
    pub(crate) fn take(&mut self, item: &Item) -> Result<()> {
        self.sink.take(item).with_context(|| format!("cannot write to {}", self.name))
    }
}

fn by_extension(path: &Path) -> Result<Format> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => Ok(Format::Jsonl),
        Some("csv") => Ok(Format::Csv),
        Some("txt") => Ok(Format::Table),
        _ => bail!(
            "the name {} does not tell the form: end it in .jsonl, .csv or .txt, or give --format",
            path.display()
        ),
    }
}
