//! One way to run a live tool: open the output, start the command, attach, write what comes, see both to their end.

use std::ffi::OsString;

use anyhow::{Context, Result};
use trapline_model::layout::DECLARED;
use trapline_model::stage::{Controls, Sort, Top, Unrepeated, rows};
use trapline_model::{Columns, Item, Record, SHOWN, Schema, Shown, Source};
use trapline_probe::run::{Frame, Run, Tool};
use trapline_probe::{Keep, Launch, RunAs, drop_all_but};

use crate::args::{self, Order};
use crate::format::{Ask, Format};
use crate::sink::{self, Named};
use crate::status;

/// A source that a sink of this program can be filled from.
pub(crate) type Items<'a> = Box<dyn Source<Error = anyhow::Error> + 'a>;

/// A tool, and what it does when all is attached and the command runs.
pub(crate) type Opened = (Box<dyn Tool>, Keep);

/// What is a tool's own in a run.
pub(crate) trait Start {
    /// Before the command is started.
    ///
    /// # Errors
    /// When the tool cannot run here.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Attaches.
    ///
    /// # Errors
    /// When nothing can be attached.
    fn open(&mut self, launch: Option<&Launch>) -> Result<Opened>;

    /// What a reader should know of how the run was asked for, beside what the tool says itself.
    fn shown(&self) -> Shown {
        Shown::default()
    }

    /// Whether rows can be sorted otherwise, and be since the start, while they come.
    fn can_change(&self) -> bool {
        true
    }

    /// What is between the tool and the output.
    fn stages<'a>(&self, source: Items<'a>) -> Items<'a> {
        source
    }

    /// An item was written.
    fn written(&mut self, _item: &Item) {}
}

/// Runs a tool until the end, and gives the exit status.
///
/// # Errors
/// When nothing can be attached, the command cannot be run, or the output cannot be opened.
pub(crate) fn run(
    live: &args::Live,
    frame: Frame,
    order: Order,
    ask: Ask,
    mut start: impl Start,
) -> Result<u8> {
    let run_as = live.run_as()?;
    let controls = Controls {
        sort: order.by.into(),
        cumulative: frame.cumulative.clone(),
        refresh: frame.refresh.clone(),
    };
    let layout = Some(ask.layout.id).filter(|id| *id != DECLARED.id);
    let ask = Ask {
        look: live.look,
        kept: live.keep.unwrap_or_default(),
        is_whole: ask.is_whole || live.rows.top.is_some(),
        controls: start.can_change().then(|| controls.clone()),
        ..ask
    };
    let (about, messages) = (live.format()?.about(), ask.messages);
    let mut sink = sink::open(live.format()?, live.output.as_deref(), live.from(), ask.clone())?;
    // A recording is made while the table is shown.
    let table = about.is_folder.then(|| sink::open(Format::Table, None, live.from(), ask));
    let mut recording = table.transpose()?.map(|table| std::mem::replace(&mut sink, table));
    start.prepare()?;
    let launch = launch(&live.command, run_as.as_ref())?;
    let (mut tool, keep) = start.open(launch.as_ref())?;
    if let Some(recording) = recording.as_mut().filter(|_| start.shown().unshown_events) {
        tool.record(recording.batches());
    }
    let keep = keep.and_if(Keep::FILES, live.writes_at_the_end()?);
    let interval_ns = frame.interval.map(|interval| interval.as_nanos() as u64);
    let mut source = Run::new(vec![tool], frame, launch)?;
    drop_all_but(keep).context("cannot drop capabilities")?;
    let rows = rows(Borrowed(&mut source), controls.cumulative);
    let shown = Shown { layout, cumulative: live.rows.cumulative, interval_ns, ..start.shown() };
    let (settings, unshown) = (vec![SHOWN.record(&shown)], shown.unshown_events);
    let mut rows: Items<'_> = Box::new(Top::new(Sort::new(rows, controls.sort), order.top));
    if let Some(recording) = recording {
        let (source, settings) = (start.stages(rows), settings.clone());
        rows = Box::new(Recorded { source, recording, settings, unshown, messages });
        rows = Box::new(Unrepeated::new(rows, live.rows.cumulative));
    } else {
        if about.for_people {
            rows = Box::new(Unrepeated::new(rows, live.rows.cumulative));
        }
        rows = start.stages(rows);
    }
    let mut items = rows;
    let poured = pour(&mut *items, settings, &mut sink, |item| start.written(item));
    drop(items);
    see_to_the_end(source, poured)
}

/// A source whose items are recorded as they pass.
struct Recorded<'a> {
    source: Items<'a>,
    recording: Named,
    /// What the recorded header has beyond that of the source.
    settings: Vec<Record>,
    /// Events are for the recording alone.
    unshown: bool,
    /// But for those of this table.
    messages: Option<&'static Schema>,
}

impl Source for Recorded<'_> {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        loop {
            let Some(mut item) = self.source.next()? else { return Ok(None) };
            match &mut item {
                Item::Header(header) => {
                    let own = header.settings.len();
                    header.settings.append(&mut self.settings);
                    self.recording.take(&item)?;
                    if let Item::Header(header) = &mut item {
                        header.settings.truncate(own);
                        if self.unshown {
                            header.events = self.messages;
                        }
                    }
                    return Ok(Some(item));
                }
                _ => self.recording.take(&item)?,
            }
            if let (true, Item::Events(events)) = (self.unshown, &item)
                && events.first().map(|event| event.record.schema().id()) != self.messages.map(Columns::id)
            {
                continue;
            }
            return Ok(Some(item));
        }
    }
}

/// A source that stays its owner's.
#[derive(Debug)]
pub(crate) struct Borrowed<'a, S>(pub(crate) &'a mut S);

impl<S: Source> Source for Borrowed<'_, S>
where
    anyhow::Error: From<S::Error>,
{
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        Ok(self.0.next()?)
    }
}

/// The command, started and waiting, if there is one.
fn launch(command: &[OsString], run_as: Option<&RunAs>) -> Result<Option<Launch>> {
    match command {
        [] => Ok(None),
        command => Launch::prepare(command, run_as).map(Some),
    }
}

/// Everything from a source into a sink; the header gets further settings.
///
/// # Errors
/// When the source breaks, or the sink.
pub(crate) fn pour(
    source: &mut dyn Source<Error = anyhow::Error>,
    settings: Vec<Record>,
    sink: &mut Named,
    mut written: impl FnMut(&Item),
) -> Result<()> {
    let mut settings = Some(settings);
    loop {
        let mut item = match source.next() {
            Ok(Some(item)) => item,
            Ok(None) => return Ok(()),
            Err(error) => {
                if let Err(unwritten) = sink.cut_off() {
                    status::warn(&format!("{unwritten:#}"));
                }
                return Err(error);
            }
        };
        if let Item::Header(header) = &mut item {
            header.settings.extend(settings.take().into_iter().flatten());
        }
        sink.take(&item)?;
        written(&item);
    }
}

/// The status, when all was poured or could not be. A command goes on without being traced then, and is waited for: who
/// started it wants to know when it has ended, and how.
fn see_to_the_end(source: Run, poured: Result<()>) -> Result<u8> {
    match poured.map_err(|error| status::report(&error)) {
        // A closed pipe is an end like another.
        Ok(()) | Err(0) => source.status(),
        Err(failed) => source.status().map(|_| failed),
    }
}
