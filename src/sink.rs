//! Opens the sink that the command line asks for.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::ColorChoice;
use jiff::tz::TimeZone;
use terminal_size::{Width, terminal_size_of};
use trapline_model::{Item, Sink};
use trapline_view::{Live, Screen, Space, Table, end_lines};

use crate::args::Look;
use crate::format::{Ask, Format, Needs};
use crate::output::{Output, When};
use crate::status::{Usage, warn};
use crate::terminal::{self, LiveTable};

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
        if format.about().for_people && from == From::Command { Self::Error } else { Self::Output }
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

    fn is_terminal(self) -> bool {
        match self {
            Self::Output => io::stdout().is_terminal(),
            Self::Error => io::stderr().is_terminal(),
        }
    }

    /// What tables are to know of it.
    fn screen(self, look: Look) -> Screen {
        let is_terminal = self.is_terminal() && !is_dumb();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match look.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && !no_color,
        };
        let size: fn() -> Space = match self {
            Self::Output => || width(terminal_size_of(io::stdout())),
            Self::Error => || width(terminal_size_of(io::stderr())),
        };
        Screen { size: Some(size).filter(|_| is_terminal && !look.wide), color }
    }
}

fn width(size: Option<(Width, terminal_size::Height)>) -> Space {
    Space { columns: size.map(|(Width(columns), _)| columns.into()), lines: None }
}

/// Whether a terminal has no cursor to move.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// The file that an output is written to; a dash is none, but standard output.
pub(crate) fn file(output: Option<&Path>) -> Option<&Path> {
    output.filter(|path| *path != Path::new("-"))
}

/// Opens the output: a file, or a standard stream.
///
/// # Errors
/// When the file cannot be made, or the format does not fit what is to be shown.
pub(crate) fn open(format: Format, output: Option<&Path>, from: From, ask: Ask) -> Result<Named> {
    let about = format.about();
    if about.needs == Needs::Stacks && !ask.has_stacks {
        return Err(Usage::error("a flame graph needs stacks: use `trapline faults --by stack`"));
    }
    let stream = if output == file(output) { Stream::of(format, from) } else { Stream::Output };
    let output = file(output);
    if about.binary && output.is_none() && io::stdout().is_terminal() {
        return Err(Usage::error("cannot write binary output to a terminal: use -o FILE"));
    }
    // A recording may turn out to be damaged.
    let when = if from == From::Recording { When::AtTheEnd } else { about.when };
    let to = To::open(output, stream, when)?;
    let screen = match output {
        None => stream.screen(ask.look),
        Some(_) => Screen { size: None, color: ask.look.color == ColorChoice::Always },
    };
    // A command's terminal is the command's.
    let is_live = ask.redrawn
        && about.for_people
        && from == From::Machine
        && output.is_none()
        && stream.is_terminal()
        && !is_dumb();
    let sink = if is_live { live(to.out(), screen, ask) } else { format.sink(to.out(), screen, ask) };
    Ok(Named { sink, to, end_apart: about.end_apart })
}

/// A table that is redrawn in place.
fn live(out: Out, screen: Screen, ask: Ask) -> Box<dyn Sink> {
    let (zone, wide) = (TimeZone::system(), ask.look.wide);
    let size: fn() -> Space = match (wide, ask.has_top) {
        (false, false) => terminal::half,
        (true, false) => || Space { columns: None, ..terminal::half() },
        (false, true) => || Space { lines: None, ..terminal::half() },
        (true, true) => Space::default,
    };
    let table = Table::laid_out(out, ask.layout, Screen { size: Some(size), ..screen }, zone.clone());
    let live = Live::new(ask.layout, screen.color, io::stdin().is_terminal(), ask.chosen, zone);
    Box::new(LiveTable::new(table, live, wide))
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

/// A sink that can say where it writes.
pub(crate) struct Named {
    sink: Box<dyn Sink>,
    to: To,
    /// Standard error gets what a run saw and lost.
    end_apart: bool,
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
        if self.end_apart {
            end_lines(end).iter().for_each(|line| warn(line.trim_start_matches("trapline ")));
        }
        Ok(())
    }

    fn written(&self, result: io::Result<()>) -> Result<()> {
        result.with_context(|| format!("cannot write to {}", self.to.name()))
    }
}
