//! Several recordings as one stream, in the order of wall-clock time.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::faults::{Chunk, Chunks, FaultColumns};
use crate::hosts::{hosted, name_all};
use crate::item::{Block, Facts, Header, Item, Source};
use crate::kept::{KEPT, Kept};
use crate::table::{Table, label};

/// Which recordings a stream is made of.
#[derive(Debug)]
pub struct Recordings {
    names: String,
}

/// Which recordings a stream is made of, as records.
#[rustfmt::skip]
pub(crate) static RECORDINGS: Table<Recordings> = Table::settings("trapline.recordings", "trapline", &[&[
    label("recordings", "The recordings that are shown together.", |r: &Recordings| r.names.as_str().into()).shown("recordings", 0, crate::field::Show::Text),
]]);

/// Several recordings as one stream: its clock is that of the one that began first. Rows of several come without ticks, and totals and the end when all
/// have ended.
#[derive(Debug)]
pub struct Merged<C: Chunks> {
    inputs: Vec<Input<C>>,
    /// Rows and events have the name of their machine.
    by_host: bool,
    ready: VecDeque<Chunk>,
    header: Header,
    totals: Vec<Block>,
    ends: Vec<Facts>,
    /// One stopped without an end: what all lost together is not known.
    lacks_end: bool,
    until_ns: u64,
    error: Option<C::Error>,
    ended: bool,
}

#[derive(Debug)]
struct Input<C> {
    source: C,
    host: Rc<str>,
    ahead_ns: i64,
    start_ns: u64,
    head: Option<Chunk>,
    has_end: bool,
    ended: bool,
}

impl<C: Chunks> Merged<C> {
    /// Of recordings of one tool with their names and headers, the one that began first in front.
    pub fn new(inputs: Vec<(String, Header, C)>, by_host: bool) -> Self {
        let mut header = inputs.first().map(|(_, header, _)| header.clone()).unwrap_or_default();
        let all = |of: fn(&Header) -> &str| {
            let mut words: Vec<&str> = inputs.iter().map(|(_, header, _)| of(header)).collect();
            words.sort_unstable();
            words.dedup();
            words.join(", ")
        };
        (header.host, header.kernel) = (all(|header| &header.host), all(|header| &header.kernel));
        header.variant = all(|header| &header.variant).into();
        let zero = header.start_unix_ns - header.start_ns.cast_signed();
        let ahead = |own: &Header| own.start_unix_ns - own.start_ns.cast_signed() - zero;
        let names = inputs.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
        let kept = |own: &Header| own.kept().unwrap_or_else(|| Kept::since(own.start_ns)).shifted(ahead(own));
        if inputs.iter().any(|(_, own, _)| own.kept().is_some()) {
            let all = inputs.iter().map(|(_, own, _)| kept(own));
            header.set(KEPT.record(&all.fold(Kept::default(), Kept::and)));
        }
        header.set(RECORDINGS.record(&Recordings { names }));
        header.events = header.events.map(|table| hosted(table, by_host));
        header.tables = header.tables.into_iter().map(|table| hosted(table, by_host)).collect();
        let input = |(_, own, source): (String, Header, C)| Input {
            source,
            host: own.host.as_str().into(),
            ahead_ns: ahead(&own),
            start_ns: own.start_ns,
            head: None,
            has_end: false,
            ended: false,
        };
        Self {
            inputs: inputs.into_iter().map(input).collect(),
            by_host,
            ready: VecDeque::from([Chunk::Item(Item::Header(header.clone()))]),
            until_ns: header.start_ns,
            header,
            totals: vec![],
            ends: vec![],
            lacks_end: false,
            error: None,
            ended: false,
        }
    }

    /// The header of all together.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads on in each recording until its next rows or events are there.
    fn fill(&mut self) {
        let is_one = self.inputs.len() == 1;
        for input in &mut self.inputs {
            while input.head.is_none() && !input.ended {
                let chunk = match input.source.next() {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => {
                        input.ended = true;
                        break;
                    }
                    Err(error) => {
                        // What is intact of it and the others is shown before.
                        input.ended = true;
                        self.lacks_end |= !input.has_end;
                        self.error.get_or_insert(error);
                        break;
                    }
                };
                let ahead_ns = input.ahead_ns;
                match chunk {
                    Chunk::Faults(mut batch) => {
                        batch.shift_clock(ahead_ns);
                        batch.host = Some(Rc::clone(&input.host));
                        input.head = Some(Chunk::Faults(batch));
                    }
                    Chunk::Item(mut item) => {
                        item.shift_clock(ahead_ns);
                        if self.by_host {
                            name_all(&mut item, &input.host);
                        }
                        match item {
                            Item::Header(_) => {}
                            // Of several, none is of all.
                            Item::Facts(_) | Item::Tick(_) if is_one => input.head = Some(Chunk::Item(item)),
                            Item::Facts(_) | Item::Tick(_) => {}
                            Item::End(end) => {
                                let start_ns = input.start_ns.saturating_add_signed(ahead_ns);
                                self.until_ns = self.until_ns.max(start_ns.saturating_add(end.duration_ns));
                                input.has_end = true;
                                self.ends.push(end);
                            }
                            Item::Totals(block) => self.totals.push(block),
                            Item::Events(events) if events.is_empty() => {}
                            Item::Rows(_) | Item::Events(_) => input.head = Some(Chunk::Item(item)),
                        }
                    }
                }
            }
        }
    }

    /// What comes next by its time.
    fn earliest(&mut self) -> Option<Chunk> {
        self.fill();
        let times = || self.inputs.iter().map(|input| input.head.as_ref().map(time_of));
        let (at, _) =
            times().enumerate().filter_map(|(at, time)| Some((at, time?))).min_by_key(|(_, time)| *time)?;
        let others = times().enumerate().filter(|(other, _)| *other != at);
        let until = others.filter_map(|(_, time)| time).min().unwrap_or(u64::MAX);
        let head = self.inputs[at].head.take()?;
        let (first, rest) = split(head, until);
        self.inputs[at].head = rest;
        Some(first)
    }

    fn end(&mut self) {
        self.ended = true;
        let totals = std::mem::take(&mut self.totals);
        self.ready.extend(totals.into_iter().map(|block| Chunk::Item(Item::Totals(block))));
        let mut ends = std::mem::take(&mut self.ends).into_iter();
        let Some(mut end) = ends.next().filter(|_| !self.lacks_end) else { return };
        for other in ends {
            end.events += other.events;
            end.lost_events += other.lost_events;
            end.own_cpu_ns = end.own_cpu_ns.zip(other.own_cpu_ns).map(|(a, b)| a + b);
            end.sampled = end.sampled.max(other.sampled);
            for record in other.more {
                match end.more.iter_mut().find(|own| own.schema() == record.schema()) {
                    Some(own) => own.join(&record),
                    None => end.more.push(record),
                }
            }
        }
        end.duration_ns = self.until_ns - self.header.start_ns;
        self.ready.push_back(Chunk::Item(Item::End(end)));
    }
}

fn time_of(chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Faults(batch) => batch.times_ns().first().copied().unwrap_or(0),
        Chunk::Item(Item::Events(events)) => events.first().map_or(0, |event| event.time_ns),
        Chunk::Item(Item::Rows(block)) => block.moment_ns(),
        Chunk::Item(_) => 0,
    }
}

/// What of it is before a moment, at least the first event; and the rest.
fn split(chunk: Chunk, until_ns: u64) -> (Chunk, Option<Chunk>) {
    let count = |mut times: &mut dyn Iterator<Item = u64>| {
        (&mut times).position(|time| time > until_ns).map(|count| count.max(1))
    };
    match chunk {
        Chunk::Faults(mut batch) => match count(&mut batch.times_ns().iter().copied()) {
            None => (Chunk::Faults(batch), None),
            Some(at) => {
                let first: FaultColumns = batch.split_front(at);
                (Chunk::Faults(first), Some(Chunk::Faults(batch)))
            }
        },
        Chunk::Item(Item::Events(mut events)) => match count(&mut events.iter().map(|event| event.time_ns)) {
            None => (Chunk::Item(Item::Events(events)), None),
            Some(at) => {
                let rest = events.split_off(at);
                (Chunk::Item(Item::Events(events)), Some(Chunk::Item(Item::Events(rest))))
            }
        },
        other => (other, None),
    }
}

impl<C: Chunks> Chunks for Merged<C> {
    type Error = C::Error;

    fn next(&mut self) -> Result<Option<Chunk>, C::Error> {
        if self.ready.is_empty() && !self.ended {
            match self.earliest() {
                Some(chunk) => return Ok(Some(chunk)),
                None => self.end(),
            }
        }
        match self.ready.pop_front() {
            Some(chunk) => Ok(Some(chunk)),
            None => self.error.take().map_or(Ok(None), Err),
        }
    }
}

/// The items of a stream whose faults come column by column.
#[derive(Debug)]
pub struct AsItems<C>(pub C);

impl<C: Chunks> Source for AsItems<C> {
    type Error = C::Error;

    fn next(&mut self) -> Result<Option<Item>, C::Error> {
        Ok(self.0.next()?.map(|chunk| match chunk {
            Chunk::Faults(batch) => Item::Events(batch.events()),
            Chunk::Item(item) => item,
        }))
    }
}
