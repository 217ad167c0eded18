//! One way to run a live tool: open the output, start the command, attach, write what comes, see both to their end.

use std::ffi::OsString;

use anyhow::{Context, Result};
use trapline_model::layout::DECLARED;
use trapline_model::stage::{Controls, Sort, Top, Unrepeated, rows};
use trapline_model::{Item, Record, SHOWN, Shown, Source};
use trapline_probe::run::{Frame, Run, Tool};
use trapline_probe::{Keep, Launch, RunAs, drop_all_but};

use crate::args::{self, Order};
use crate::format::Ask;
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
        is_whole: ask.is_whole || live.top.is_some(),
        controls: start.can_change().then(|| controls.clone()),
        ..ask
    };
    let mut sink = sink::open(live.format()?, live.output.as_deref(), live.from(), ask)?;
    start.prepare()?;
    let launch = launch(&live.command, run_as.as_ref())?;
    let (tool, keep) = start.open(launch.as_ref())?;
    let keep = keep.and_if(Keep::FILES, live.writes_at_the_end()?);
    let mut source = Run::new(vec![tool], frame, launch)?;
    drop_all_but(keep).context("cannot drop capabilities")?;
    let rows = rows(Borrowed(&mut source), controls.cumulative);
    let mut rows: Items<'_> = Box::new(Top::new(Sort::new(rows, controls.sort), order.top));
    if live.format()?.about().for_people {
        rows = Box::new(Unrepeated::new(rows, live.cumulative));
    }
    let mut items = start.stages(rows);
    let shown = Shown { layout, cumulative: live.cumulative, ..start.shown() };
    let settings = vec![SHOWN.record(&shown)];
    let poured = pour(&mut *items, settings, &mut sink, |item| start.written(item));
    drop(items);
    see_to_the_end(source, poured)
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
    while let Some(mut item) = source.next()? {
        if let Item::Header(header) = &mut item {
            header.settings.extend(settings.take().into_iter().flatten());
        }
        sink.take(&item)?;
        written(&item);
    }
    Ok(())
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
