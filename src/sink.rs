//! Opens the sink that the command line asks for.

use std::cell::Cell;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::ColorChoice;
use jiff::tz::TimeZone;
use trapline_model::{Batch, BatchSink, Item, Sink};
use trapline_view::{Live, Screen, Space, Table, end_lines};

use crate::args::Look;
use crate::format::{Ask, Format, Needs};
use crate::output::{Folder, Output, When};
use crate::status::{Usage, warn};
use crate::terminal::{Fit, LiveTable};

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

    /// Whether it shows colors.
    fn has_color(self, look: Look) -> bool {
        match look.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => self.is_terminal() && !is_dumb() && !has_no_color(),
        }
    }
}

/// Whether a terminal has no cursor to move.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Whether a user wants no colors: <https://no-color.org>.
pub(crate) fn has_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
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
    let to = match output {
        Some(path) if about.is_folder => To::Folder(Folder::create(path)?, path.display().to_string()),
        None if about.is_folder => return Err(Usage::error("a recording is a folder: use -o NAME.trapline")),
        _ => To::open(output, stream, when)?,
    };
    let color = match output {
        None => stream.has_color(ask.look),
        Some(_) => ask.look.color == ColorChoice::Always,
    };
    let is_terminal = output.is_none() && stream.is_terminal() && !is_dumb();
    let fit = Fit { stream, is_wide: ask.look.wide, is_whole: ask.is_whole };
    // A command's terminal is the command's.
    let is_live = ask.redrawn && about.for_people && from == From::Machine && is_terminal;
    let sink = if is_live {
        live(to.out(), fit, color, ask)
    } else {
        let space: Option<Box<dyn Fn() -> Space>> =
            if is_terminal { Some(Box::new(move || fit.block())) } else { None };
        format.sink(&to, Screen { space, color }, ask)?
    };
    let is_of_machine = from != From::Recording;
    Ok(Named { sink, to, end_apart: about.end_apart, is_of_machine, has_content: false })
}

/// A table that is redrawn in place.
fn live(out: Out, fit: Fit, color: bool, ask: Ask) -> Box<dyn Sink> {
    let zone = TimeZone::system();
    let used = Rc::new(Cell::new(0));
    let above = Rc::clone(&used);
    let screen = Screen { space: Some(Box::new(move || fit.last(above.get()))), color };
    let table = Table::laid_out(out, ask.layout, screen, zone.clone());
    let live = Live::new(ask.layout, color, io::stdin().is_terminal(), ask.controls, zone);
    Box::new(LiveTable::new(table, live, fit, used))
}

/// What is written to.
pub(crate) enum To {
    File(Output, String),
    Folder(Folder, String),
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
            Self::File(_, name) | Self::Folder(_, name) => name,
            Self::Stream(stream) => stream.name(),
        }
    }

    /// What bytes are written to.
    pub(crate) fn out(&self) -> Out {
        BufWriter::new(match self {
            Self::File(file, _) => Box::new(file.clone()),
            Self::Folder(..) => Box::new(io::sink()),
            Self::Stream(stream) => stream.writer(),
        })
    }

    /// What files are made in.
    ///
    /// # Errors
    /// When it is no folder.
    pub(crate) fn folder(&self) -> Result<OwnedFd> {
        match self {
            Self::Folder(folder, _) => Ok(folder.dir()?),
            Self::File(..) | Self::Stream(_) => Err(io::Error::from(io::ErrorKind::NotADirectory).into()),
        }
    }
}

/// A sink that can say where it writes.
pub(crate) struct Named {
    sink: Box<dyn Sink>,
    to: To,
    /// Standard error gets what a run saw and lost.
    end_apart: bool,
    /// What comes is of now.
    is_of_machine: bool,
    /// Something to keep has come, and no end.
    has_content: bool,
}

impl Named {
    /// Takes one item.
    ///
    /// # Errors
    /// When it cannot be written; the message names the file.
    pub(crate) fn take(&mut self, item: &Item) -> Result<()> {
        let mut written = self.sink.take(item);
        self.has_content |= item.has_content();
        let Item::End(end) = item else { return self.written(written) };
        self.has_content = false;
        if let To::File(file, _) = &self.to {
            written = written.and_then(|()| file.finish());
        }
        self.written(written)?;
        self.sink.remark().iter().for_each(|remark| warn(remark));
        if self.end_apart {
            end_lines(end).iter().for_each(|line| warn(line.trim_start_matches("trapline ")));
        }
        Ok(())
    }

    /// A recording cannot be read on: what came of it is in the file, which is whole for its format.
    ///
    /// # Errors
    /// When it cannot be written; the message names the file.
    pub(crate) fn cut_off(&mut self) -> Result<()> {
        if self.is_of_machine || !std::mem::take(&mut self.has_content) {
            return Ok(());
        }
        let mut written = self.sink.cut_off();
        if let To::File(file, _) = &self.to {
            written = written.and_then(|()| file.finish());
        }
        self.written(written)
    }

    /// Where events can be put before they are records; messages name the file.
    pub(crate) fn batches(&mut self) -> Option<Box<dyn BatchSink>> {
        let (sink, name) = (self.sink.batches()?, self.to.name().to_owned());
        Some(Box::new(NamedBatches { sink, name }))
    }

    fn written(&self, result: io::Result<()>) -> Result<()> {
        result.with_context(|| format!("cannot write to {}", self.to.name()))
    }
}

/// The same of a sink that takes events which are no records.
#[derive(Debug)]
struct NamedBatches {
    sink: Box<dyn BatchSink>,
    name: String,
}

impl BatchSink for NamedBatches {
    fn take(&mut self, events: &dyn Batch) -> io::Result<()> {
        let name = &self.name;
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot write to {name}: {error}"));
        self.sink.take(events).map_err(named)
    }
}
