//! Chooses the sink that the command line asks for.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;
use terminal_size::{Height, terminal_size_of};
use trapline_model::{Item, Schema, Sink};
use trapline_view::{Csv, Flame, FlameForm, JsonLines, Screen, Table, end_line};

use crate::cli::{Format, Weight};

/// Where a sink writes.
pub(crate) type Out = BufWriter<Box<dyn Write>>;

/// Where an output goes if no file is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error: standard output belongs to the command that is traced.
    Error,
}

impl Stream {
    /// What is for people makes way for a command's own output; what is for programs does not.
    fn of(format: Format, has_command: bool) -> Self {
        if format == Format::Table && has_command { Self::Error } else { Self::Output }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Output => "standard output",
            Self::Error => "standard error",
        }
    }

    fn writer(self) -> Box<dyn Write> {
        match self {
            Self::Output => Box::new(io::stdout()),
            Self::Error => Box::new(io::stderr()),
        }
    }

    /// A terminal is redrawn, unless a command writes its output to it, too.
    fn screen(self) -> Screen {
        let redrawn = match self {
            Self::Output => io::stdout().is_terminal(),
            Self::Error => io::stderr().is_terminal() && !io::stdout().is_terminal(),
        };
        if !redrawn {
            return Screen::Paper;
        }
        let size = match self {
            Self::Output => terminal_size_of(io::stdout()),
            Self::Error => terminal_size_of(io::stderr()),
        };
        Screen::Terminal { lines: size.map_or(24, |(_, Height(lines))| lines.into()) }
    }
}

/// Opens the output: a file, whose extension tells the form if nothing else does, or a standard stream. If rows are of
/// stacks, it may be a flame graph, whose frames are as wide as `weight` says.
///
/// # Errors
/// When the file cannot be made, or its extension says nothing.
pub(crate) fn open(
    format: Option<Format>,
    output: Option<&Path>,
    has_command: bool,
    schema: &'static Schema,
    weight: Weight,
) -> Result<Named> {
    let table = |out, screen, zone| -> Box<dyn Sink> { Box::new(Table::new(out, screen, zone)) };
    open_any(format, output, has_command, schema, weight, table)
}

/// The same, with a tool's own table.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(
    format: Option<Format>,
    output: Option<&Path>,
    has_command: bool,
    schema: &'static Schema,
    table: impl FnOnce(Out, Screen, TimeZone) -> Box<dyn Sink>,
) -> Result<Named> {
    open_any(format, output, has_command, schema, Weight::Count, table)
}

fn open_any(
    format: Option<Format>,
    output: Option<&Path>,
    has_command: bool,
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
    let stream = Stream::of(format, has_command);
    let (out, name) = destination(output, stream)?;
    let screen = if output.is_none() { stream.screen() } else { Screen::Paper };
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
    let (out, name) = destination(output, Stream::Output)?;
    Ok(Named { sink: sink(out), name, tells_end: false })
}

/// A file, or a standard stream, and what messages call it.
fn destination(output: Option<&Path>, stream: Stream) -> Result<(Out, String)> {
    let (out, name): (Box<dyn Write>, _) = match output {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
            (Box::new(file), path.display().to_string())
        }
        None => (stream.writer(), stream.name().into()),
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
