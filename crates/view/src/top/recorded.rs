//! What is on the screen, as a recording: it is as long as the time that its rows or events are of.

use std::collections::VecDeque;

use trapline_model::{Block, Event, Facts, Header, Item, Record};

use super::tool::Tool;

/// Single events that are kept.
pub const EVENTS: usize = 1000;

/// The last single events.
#[derive(Debug, Default)]
pub(super) struct LastEvents {
    kept: VecDeque<Event>,
    /// The number of those that made space for newer ones or came in a pause.
    missing: u64,
    /// The time of the last that made space, and of the last that came in a pause.
    dropped_ns: u64,
    skipped_ns: u64,
}

impl LastEvents {
    pub(super) fn take(&mut self, events: impl Iterator<Item = Event>) {
        self.kept.extend(events);
        let surplus = self.kept.len().saturating_sub(EVENTS);
        for event in self.kept.drain(..surplus) {
            self.missing += 1;
            self.dropped_ns = self.dropped_ns.max(event.time_ns);
        }
    }

    /// What comes in a pause is not kept.
    pub(super) fn skip(&mut self, events: impl Iterator<Item = Event>) {
        for event in events {
            self.missing += 1;
            self.skipped_ns = self.skipped_ns.max(event.time_ns);
        }
    }

    pub(super) fn all(&self) -> &VecDeque<Event> {
        &self.kept
    }

    /// The beginning of the time that these events are of; nothing if there is none.
    fn since_ns(&self, start_ns: u64) -> Option<u64> {
        let first_ns = self.kept.iter().map(|event| event.time_ns).min()?;
        let gaps = [self.dropped_ns, self.skipped_ns].into_iter().filter(|gap| *gap < first_ns);
        Some(gaps.fold(start_ns.min(first_ns), u64::max))
    }
}

impl Tool {
    /// What is on the screen, as the items of a recording; nothing if there is nothing.
    pub(super) fn recorded(&self) -> Option<Vec<Item>> {
        let header = self.header.clone()?;
        if !self.shows_events {
            return self.rows_recorded(header, vec![], 0);
        }
        let since_ns = self.events.since_ns(header.start_ns)?;
        let is_shown = |event: &&Event| self.is_match(&event.record);
        let events: Vec<Event> = self.events.all().iter().filter(is_shown).cloned().collect();
        let lost = self.events.missing + (self.events.all().len() - events.len()) as u64;
        // Findings about exits are made of rows.
        if header.tool == "kvm" {
            return self.rows_recorded(header, events, lost);
        }
        let last_ns = self.events.all().iter().map(|event| event.time_ns).max();
        let end_ns = last_ns.max(self.block().map(|block| block.time_ns)).unwrap_or(since_ns);
        let end = self.end(end_ns.saturating_sub(since_ns), events.len() as u64, lost);
        Some(vec![Item::Header(header.begun(since_ns)), Item::Events(events), Item::End(end)])
    }

    /// The rows that are shown, beside these events: the recording is as long as the interval of the rows.
    fn rows_recorded(&self, header: Header, events: Vec<Event>, lost: u64) -> Option<Vec<Item>> {
        let block = self.block()?;
        let since_ns = block.since_ns.unwrap_or(header.start_ns);
        let first_ns = events.iter().map(|event| event.time_ns).min().unwrap_or(since_ns);
        let figure = |row: &Record| self.face.figures(row)[0];
        let rows: Vec<Record> = self.rows.iter().map(|&row| block.rows[row].clone()).collect();
        let counted: u64 = rows.iter().map(figure).sum();
        let keys = self.level().map_or(&[][..], |level| &level.keys);
        let left_out = block.rows.iter().filter(|row| row.is_within(keys) && !self.is_match(row));
        let (hidden, lost) = left_out.fold((0, lost), |(n, lost), row| (n + 1, lost + figure(row)));
        let end = self.end(block.time_ns.saturating_sub(since_ns), counted, lost);
        let rows = Block { rows, ended: vec![], hidden: block.hidden + hidden, ..block.clone() };
        Some(vec![
            Item::Header(header.begun(since_ns.min(first_ns))),
            Item::Events(events),
            Item::Rows(rows.clone()),
            Item::Tick(block.time_ns),
            Item::Totals(rows),
            Item::End(end),
        ])
    }

    /// The facts of a recording of what is on the screen. All that the run has beyond it counts as lost, so that nobody takes it
    /// for all that there was; what the run cost is not its cost.
    fn end(&self, duration_ns: u64, events: u64, not_recorded: u64) -> Facts {
        let facts = self.facts.clone().unwrap_or_default();
        let lost_events = facts.lost_events + not_recorded;
        Facts { duration_ns, events, lost_events, own_cpu_ns: None, ..facts }
    }
}
