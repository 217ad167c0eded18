//! Chooses the sink that the command line asks for.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use terminal_size::{Height, terminal_size_of};
use trapline_model::{Item, Schema, Sink};
use trapline_view::{Csv, Flame, FlameForm, JsonLines, Screen, Table, end_line};

use crate::cli::{Format, Usage, Weight};
use crate::output::{Output, When};

/// Where a sink writes.
pub(crate) type Out = BufWriter<Box<dyn Write>>;

/// Where the items come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// What runs on the machine.
    Machine,
    /// A command that was started for it.
    Command,
    /// A file.
    Recording,
}

impl From {
    /// Of what is traced: this command, if it is one.
    pub(crate) fn trace(command: &[OsString]) -> Self {
        if command.is_empty() { Self::Machine } else { Self::Command }
    }
}

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
    fn of(format: Format, from: From) -> Self {
        if format == Format::Table && from == From::Command { Self::Error } else { Self::Output }
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
    from: From,
    schema: &'static Schema,
    weight: Weight,
) -> Result<Named> {
    let table = |out, screen, zone| -> Box<dyn Sink> { Box::new(Table::new(out, screen, zone)) };
    open_any(format, output, from, schema, weight, table)
}

/// The same, with a tool's own table.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(
    format: Option<Format>,
    output: Option<&Path>,
    from: From,
    schema: &'static Schema,
    table: impl FnOnce(Out, Screen, TimeZone) -> Box<dyn Sink>,
) -> Result<Named> {
    open_any(format, output, from, schema, Weight::Count, table)
}

fn open_any(
    format: Option<Format>,
    output: Option<&Path>,
    from: From,
    schema: &'static Schema,
    weight: Weight,
    table: impl FnOnce(Out, Screen, TimeZone) -> Box<dyn Sink>,
) -> Result<Named> {
    let format = form(format, output)?;
    let is_flame = matches!(format, Format::Folded | Format::Svg);
    if is_flame && !schema.iter().any(|field| field.name == "stack") {
        return Err(Usage::error(
            "a flame graph is made of stacks, and there are none here: use `trapline faults --by stack`",
        ));
    }
    let weight = match weight {
        Weight::Count => trapline_view::Weight::Count,
        Weight::Time => trapline_view::Weight::Time,
    };
    let stream = Stream::of(format, from);
    // A recording may turn out to be damaged.
    let at_the_end = is_flame || from == From::Recording;
    let to = To::open(output, stream, if at_the_end { When::AtTheEnd } else { When::Meanwhile })?;
    let screen = if output.is_none() { stream.screen() } else { Screen::Paper };
    let out = to.out();
    let sink: Box<dyn Sink> = match format {
        Format::Table => table(out, screen, TimeZone::system()),
        Format::Jsonl => Box::new(JsonLines::new(out)),
        Format::Folded => Box::new(Flame::new(out, FlameForm::Folded, weight)),
        Format::Svg => Box::new(Flame::new(out, FlameForm::Svg, weight)),
        Format::Csv => Box::new(Csv::new(out, schema)),
    };
    // Its lines have no place for what was lost: readers of that form know stacks only.
    let tells_end = format == Format::Folded;
    Ok(Named { sink, to, tells_end })
}

/// A tool's own form, which is not for people, and is written at the end.
///
/// # Errors
/// When the file cannot be made, or there is none and standard output is a terminal.
pub(crate) fn to(output: Option<&Path>, sink: impl FnOnce(Out) -> Box<dyn Sink>) -> Result<Named> {
    if output.is_none() && io::stdout().is_terminal() {
        return Err(Usage::error("this form is not for a terminal: give -o FILE"));
    }
    let to = To::open(output, Stream::Output, When::AtTheEnd)?;
    Ok(Named { sink: sink(to.out()), to, tells_end: false })
}

/// What is written to.
enum To {
    File(Output, String),
    Stream(Stream),
}

impl To {
    fn open(output: Option<&Path>, stream: Stream, when: When) -> Result<Self> {
        Ok(match output {
            Some(path) => Self::File(Output::open(path, when)?, path.display().to_string()),
            None => Self::Stream(stream),
        })
    }

    /// What messages call it.
    fn name(&self) -> &str {
        match self {
            Self::File(_, name) => name,
            Self::Stream(stream) => stream.name(),
        }
    }

    fn out(&self) -> Out {
        BufWriter::new(match self {
            Self::File(file, _) => Box::new(file.clone()),
            Self::Stream(stream) => stream.writer(),
        })
    }
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
    to: To,
    /// Standard error gets what a run saw and lost.
    tells_end: bool,
}

impl Named {
    /// Takes one item.
    ///
    /// # Errors
    /// When it cannot be written; the message names the file.
    pub(crate) fn take(&mut self, item: &Item) -> Result<()> {
        let mut written = self.sink.take(item);
        let Item::End(end) = item else { return self.written(written) };
        if let To::File(file, _) = &self.to {
            written = written.and_then(|()| file.finish());
        }
        self.written(written)?;
        if self.tells_end {
            // Nobody may be listening.
            let _ = writeln!(io::stderr(), "trapline: {}", end_line(end));
        }
        Ok(())
    }

    fn written(&self, result: io::Result<()>) -> Result<()> {
        result.with_context(|| format!("cannot write to {}", self.to.name()))
    }
}

fn by_extension(path: &Path) -> Result<Format> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => Ok(Format::Jsonl),
        Some("csv") => Ok(Format::Csv),
        Some("txt") => Ok(Format::Table),
        Some("folded") => Ok(Format::Folded),
        Some("svg") => Ok(Format::Svg),
        _ => Err(Usage::error(format!(
            "the name {} does not tell the form: end it in .jsonl, .csv, .txt, .folded or .svg, or give --format",
            path.display()
        ))),
    }
}
