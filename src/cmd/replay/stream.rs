//! Recordings as one stream.

use anyhow::Result;
use trapline_model::faults::{Chunk, Chunks};
use trapline_model::{Header, Item, Merged, Source, with_host};

use crate::cmd::recording;
use crate::status::{Usage, refuse};

/// Refuses recordings whose rows cannot be shown together.
pub(super) fn alike(of: &[(&str, &Header)], by_host: bool) -> Result<()> {
    let [(first, header), others @ ..] = of else { return Ok(()) };
    let tables =
        |header: &Header| header.tables.iter().map(|table| table.id()).collect::<Vec<_>>().join(", ");
    let words = |header: &Header| match (tables(header), header.events) {
        (tables, None) => format!("{tables} without events"),
        (tables, Some(events)) => format!("{tables} and events {}", events.id()),
    };
    for (name, other) in others {
        if header.tables != other.tables || header.events != other.events {
            let (own, its) = (words(header), words(other));
            return Err(Usage::error(format!(
                "{first} has {own}, {name} has {its}: rows of unlike tables cannot be added up"
            )));
        }
    }
    let has_none = header.tables.iter().chain(&header.events).any(|table| with_host(*table).is_none());
    refuse(&[(by_host && has_none, "these rows cannot be grouped by host: leave out host")])
}

/// Recordings as one stream.
pub(super) enum Stream {
    One(Box<recording::Input>),
    Several(Box<Merged<recording::Input>>),
}

impl Stream {
    pub(super) fn of(mut inputs: Vec<recording::Input>, by_host: bool) -> Self {
        if inputs.len() == 1
            && !by_host
            && let Some(input) = inputs.pop()
        {
            return Self::One(Box::new(input));
        }
        let inputs = inputs.into_iter().map(|input| (input.name().to_owned(), input.header().clone(), input));
        Self::Several(Box::new(Merged::new(inputs.collect(), by_host)))
    }

    pub(super) fn header(&self) -> &Header {
        match self {
            Self::One(input) => input.header(),
            Self::Several(merged) => merged.header(),
        }
    }
}

impl Chunks for Stream {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Chunk>> {
        match self {
            Self::One(input) => Chunks::next(&mut **input),
            Self::Several(merged) => merged.next(),
        }
    }
}

/// A stream without its events.
pub(super) struct Unshown<S>(pub(super) S);

impl<S: Source> Source for Unshown<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
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
