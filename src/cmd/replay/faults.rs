//! What is chosen of recorded faults, and how they are grouped.

use std::ops::RangeInclusive;

use anyhow::Result;
use trapline_model::faults::{EVENT, Regrouping};
use trapline_model::{Event, Header, Item, Schema, Source, Value};

use super::Args;
use crate::cmd::recording;
use crate::cmd::run::Items;
use crate::status::Usage;

/// What becomes of the faults in a recording.
pub(super) struct Choice<'a> {
    args: &'a Args,
    /// The table of the rows that are made of them, if any are.
    pub(super) rows: Option<&'static Schema>,
    /// They stay out of what is shown.
    is_unshown: bool,
}

impl<'a> Choice<'a> {
    /// Of what is shown, or `is_recorded` again.
    ///
    /// # Errors
    /// When faults are asked for and the recording has none.
    pub(super) fn new(args: &'a Args, header: &Header, is_recorded: bool) -> Result<Self> {
        let has_faults = header.events == Some(EVENT);
        if !has_faults && args.is_of_faults() {
            return Err(Usage::error(
                "the recording has no single faults, which --by, -i, -v, --from, --to, -p and --comm need: record with `trapline faults -o NAME.trapline`",
            ));
        }
        let was_unshown = header.is("unshown_events");
        let is_unshown = has_faults && was_unshown && !args.verbose && !is_recorded;
        let by = args.by.map(trapline_model::faults::By::schema);
        // Rows of the run are of all its faults: where some are left out, they are made anew.
        let anew = args.interval.is_some() || is_unshown && args.has_filter();
        let rows = by.or(header.tables.first().copied().filter(|_| anew));
        Ok(Self { args, rows: rows.filter(|_| has_faults), is_unshown })
    }

    /// The table of the events that are shown.
    pub(super) fn events(&self, header: &Header) -> Option<&'static Schema> {
        header.events.filter(|_| !self.is_unshown && self.rows.is_none())
    }

    /// What is chosen of a recording.
    ///
    /// # Errors
    /// When faults cannot be grouped so.
    pub(super) fn of<'b>(&self, source: Items<'b>, header: &Header) -> Result<Items<'b>> {
        let Args { from, to, pid, comm, interval, .. } = self.args;
        let ns = |time: &std::time::Duration| header.start_ns.saturating_add(time.as_nanos() as u64);
        let times = from.as_ref().map_or(0, ns)..=to.as_ref().map_or(u64::MAX, ns);
        let source: Items<'b> = if self.args.has_filter() {
            Box::new(Chosen { source, times, pids: pid.clone(), comms: comm.clone() })
        } else {
            source
        };
        let Some(table) = self.rows else {
            return Ok(if self.is_unshown { Box::new(Unshown(source)) } else { source });
        };
        let interval_ns = interval.map(|interval| interval.as_nanos() as u64);
        let how = Regrouping { table, interval_ns, all: !self.args.has_filter() };
        recording::grouped(source, how, header.is("cumulative"))
    }
}

impl Args {
    fn has_filter(&self) -> bool {
        self.from.is_some() || self.to.is_some() || !self.pid.is_empty() || !self.comm.is_empty()
    }

    /// Whether an option is about recorded faults.
    pub(super) fn is_of_faults(&self) -> bool {
        self.has_filter() || self.by.is_some() || self.interval.is_some() || self.verbose
    }
}

/// The faults of some time and processes.
struct Chosen<'a> {
    source: Items<'a>,
    times: RangeInclusive<u64>,
    pids: Vec<u32>,
    comms: Vec<String>,
}

impl Chosen<'_> {
    fn has(&self, event: &Event) -> bool {
        let is_one = || {
            event.record.number("pid").is_some_and(|pid| self.pids.iter().any(|one| u64::from(*one) == pid))
        };
        let is_named = || match event.record.get("comm") {
            Some(Value::Str(name)) => self.comms.iter().any(|comm| comm == name),
            _ => false,
        };
        self.times.contains(&event.time_ns)
            && (self.pids.is_empty() || is_one())
            && (self.comms.is_empty() || is_named())
    }
}

impl Source for Chosen<'_> {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        let mut item = self.source.next()?;
        if let Some(Item::Events(events)) = &mut item {
            events.retain(|event| self.has(event));
        }
        Ok(item)
    }
}

/// A stream without its events.
struct Unshown<'a>(Items<'a>);

impl Source for Unshown<'_> {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        loop {
            match self.0.next()? {
                Some(Item::Events(_)) => {}
                Some(Item::Header(header)) => {
                    return Ok(Some(Item::Header(Header { events: None, ..header })));
                }
                item => return Ok(item),
            }
        }
    }
}
