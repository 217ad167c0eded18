//! Rows, lines and messages of recorded faults: a recording holds each of them, so they can be shown in any way afterwards.

mod columns;
mod filter;
mod group;
mod lost;
mod regrouping;

use std::collections::{HashMap, VecDeque};

use self::columns::{Columns, From, Place};
use self::filter::Chosen;
use self::group::{Group, Known, Places};
use self::lost::{Counts, Lost};
use super::Extremes;
use super::fault_columns::{Chunk, Chunks, FaultColumns, NONE, Values, Words};
use super::messages::Messages;
use crate::field::{Record, Type, Value};
use crate::hosts::{has_host, name};
use crate::item::{Block, Event, Facts, Header, Item, SHOWN, Shown, Source, WHOLE_RUN, WholeRun};
use crate::join::next_end;
use crate::kept::Kept;
use crate::stage::pump_intact;
use crate::table::Columns as _;

pub use self::filter::Filter;
pub use self::regrouping::{Lines, Regrouping};

/// Whether a column is of a fault's stack.
pub(super) fn is_of_stack(name: &str) -> bool {
    matches!(name, "stack" | "lines" | "binaries" | "function")
}

/// Makes rows and totals of the faults in a recording; what is no fault passes, but for its own rows and totals.
#[derive(Debug)]
pub struct Regroup<C: Chunks> {
    source: C,
    how: Regrouping,
    known: Known,
    columns: Columns,
    places: Places,
    /// The numbers of the texts of each copied column.
    words: Vec<Words>,
    groups: HashMap<Box<[u64]>, usize>,
    rows: Vec<Group>,
    messages: Option<Messages>,
    events: Vec<Event>,
    ready: VecDeque<Item>,
    start_ns: u64,
    last_ns: u64,
    /// The end of the interval.
    until_ns: u64,
    /// The length of recorded intervals, if those that are made end with them.
    paced_ns: Option<u64>,
    /// A recorded interval that ended then: what it lost may come after it.
    ended_ns: Option<u64>,
    has_intervals: bool,
    /// What is left of a run of which parts were discarded.
    kept: Option<Kept>,
    lost: Lost,
    /// The number of the only machine, if rows are of machines and there is one.
    host: u64,
    /// The lost faults that are in rows, by the number of the machine.
    in_rows: HashMap<u64, Counts>,
    /// The kernel's counts, by the recorded totals and the number of the machine.
    counted: HashMap<u64, Counts>,
    /// The time that those are of.
    total_ns: Option<(u64, u64)>,
    /// Why the recording cannot be read on, until all that is intact was given.
    error: Option<C::Error>,
}

impl<C: Chunks> Regroup<C> {
    /// Over the stream of a recording with single faults.
    ///
    /// # Errors
    /// When faults do not have the table's keys: the name of the first that is missing.
    pub fn new(source: C, how: Regrouping) -> Result<Self, &'static str> {
        let columns = Columns::new(how.table, how.faults)?;
        let messages = match how.lines {
            Lines::Steps(of, most) => Some(Messages::new(of, most)),
            Lines::None | Lines::Faults(_) => None,
        };
        Ok(Self {
            source,
            known: Known { with_hist: how.hist, ..Known::default() },
            places: Places::of(how.faults, &columns),
            words: columns.copied.iter().map(|_| Words::default()).collect(),
            columns,
            groups: HashMap::new(),
            rows: Vec::new(),
            messages,
            events: Vec::new(),
            ready: VecDeque::new(),
            start_ns: 0,
            last_ns: 0,
            until_ns: u64::MAX,
            paced_ns: None,
            ended_ns: None,
            has_intervals: how.interval_ns.is_some(),
            kept: None,
            lost: Lost::default(),
            host: NONE,
            in_rows: HashMap::new(),
            counted: HashMap::new(),
            total_ns: None,
            error: None,
            how,
        })
    }

    fn header(&mut self, mut header: Header) -> Header {
        // A variant that times nothing has no setting of it.
        self.known.is_timed = header.setting("minor_latency").is_some();
        let of_stacks =
            header.setting("stacks").filter(|_| self.how.table.iter().any(|field| is_of_stack(field.name)));
        self.known.is_part = of_stacks.is_some_and(|which| *which != Value::from("all"));
        (self.start_ns, self.last_ns) = (header.start_ns, header.start_ns);
        self.kept = header.kept();
        self.lost.is_kept = self.kept.is_some();
        self.lost.is_cumulative = header.is("cumulative");
        let interval_ns = self.how.interval_ns;
        self.until_ns = interval_ns.map_or(u64::MAX, |interval| self.since_ns().saturating_add(interval));
        let recorded = header.number("interval_ns").filter(|_| self.how.ticks);
        self.paced_ns = recorded.filter(|recorded| interval_ns.is_some_and(|own| own >= *recorded));
        header.tables = vec![self.how.table];
        header.events = self.how.events;
        header.settings.retain(|record| record.schema().id() != SHOWN.id());
        let Regrouping { layout, cumulative, .. } = self.how;
        let interval_ns = interval_ns.or(recorded);
        header.settings.push(SHOWN.record(&Shown { layout, cumulative, interval_ns, ..Shown::default() }));
        header
    }

    /// When what is shown begins.
    fn since_ns(&self) -> u64 {
        let kept_ns = self.kept.as_ref().and_then(Kept::since_ns).unwrap_or(0);
        self.start_ns.max(kept_ns).max(*self.how.filter.times_ns.start())
    }

    fn batch(&mut self, batch: &FaultColumns) {
        match self.ended_ns {
            None => self.faults(batch, |_| true),
            // What was still in the ring buffer when the interval ended comes first after it.
            Some(ended_ns) if batch.times_ns().iter().all(|time_ns| *time_ns < ended_ns) => {
                self.faults(batch, |_| true);
            }
            Some(ended_ns) => {
                self.faults(batch, |time_ns| time_ns < ended_ns);
                self.close();
                self.faults(batch, |time_ns| time_ns >= ended_ns);
            }
        }
        self.flush();
    }

    /// Takes the faults at these times.
    fn faults(&mut self, batch: &FaultColumns, is_meant: impl Fn(u64) -> bool) {
        if *batch.table() != *self.places.table {
            self.places = Places::of(batch.table(), &self.columns);
        }
        let filter = std::mem::take(&mut self.how.filter);
        let chosen = Chosen::new(&filter, batch);
        self.known.has_waits |= self.places.has_waits(batch);
        self.places.know_parts(batch, &mut self.known.parts);
        let kinds = self.places.kinds(batch);
        let mut key: Vec<u64> = vec![NONE; self.columns.keys];
        let mut last: Option<usize> = None;
        for (row, &time_ns) in batch.times_ns().iter().enumerate() {
            if !is_meant(time_ns) || !chosen.has(batch, row) {
                continue;
            }
            if time_ns >= self.until_ns && self.paced_ns.is_none() {
                self.pass(time_ns);
                last = None;
            }
            self.last_ns = self.last_ns.max(time_ns);
            let mut is_same = last.is_some();
            let mut at = 0;
            for ((copied, from), words) in
                self.columns.copied.iter().zip(&self.places.copied).zip(&mut self.words)
            {
                if copied.is_key {
                    let value = from.number(batch, row, words);
                    is_same &= key[at] == value;
                    key[at] = value;
                    at += 1;
                }
            }
            let group = match last {
                Some(group) if is_same => group,
                _ => self.group(&key),
            };
            last = Some(group);
            let kind = kinds.of(batch, row, &self.places);
            self.count(group, batch, row, kind);
            match self.how.lines {
                Lines::None => {}
                Lines::Faults(least_ns) => {
                    let is_shown = least_ns.is_none_or(|least| {
                        self.places.latency(batch, row).is_some_and(|latency| latency >= least)
                    });
                    if let Some(table) = self.how.events.filter(|_| is_shown) {
                        self.events.push(batch.event(row, table));
                    }
                }
                Lines::Steps(..) => {
                    if let Some(messages) = &mut self.messages
                        && let Some(fault) = self.places.counted(batch, row, kind)
                    {
                        let mut of = messages.count(&fault);
                        if let Some(host) = &batch.host
                            && self.how.events.is_some_and(has_host)
                        {
                            of.iter_mut().for_each(|event| name(&mut event.record, host));
                        }
                        self.events.append(&mut of);
                    }
                }
            }
        }
        self.how.filter = filter;
    }

    /// Adds a fault to a row, which gets its newest labels.
    fn count(&mut self, at: usize, batch: &FaultColumns, row: usize, kind: Option<group::Outcome>) {
        let Some(group) = self.rows.get_mut(at) else { return };
        // Older recordings do not have the name of a process: it is that of its first thread.
        let is_unnamed =
            self.columns.of_processes && *batch.column(self.places.process_comm) == Values::Unknown;
        let is_first =
            || batch.column(self.places.pid).number(row) == batch.column(self.places.tid).number(row);
        for (((copied, from), words), value) in
            self.columns.copied.iter().zip(&self.places.copied).zip(&mut self.words).zip(&mut group.values)
        {
            if copied.is_key {
                continue;
            }
            if !is_unnamed || copied.from != From::Column("process_comm") {
                *value = from.number(batch, row, words);
            } else if is_first() {
                *value = Place::At(self.places.comm).number(batch, row, words);
            }
        }
        group.fault(batch, row, kind, &self.places);
    }

    /// The row of these keys.
    fn group(&mut self, key: &[u64]) -> usize {
        if let Some(at) = self.groups.get(key) {
            return *at;
        }
        let mut keys = key.iter();
        let value = |copied: &columns::Copied| {
            if copied.is_key { keys.next().copied().unwrap_or(NONE) } else { NONE }
        };
        let values = self.columns.copied.iter().map(value).collect();
        self.groups.insert(key.into(), self.rows.len());
        self.rows.push(Group::new(values));
        self.rows.len() - 1
    }

    /// The record of a row.
    fn record(&self, group: &Group, extremes: Extremes) -> Record {
        let table = self.how.table;
        let figure = |field: &&crate::Field| group.figure(field.name, &self.known, extremes);
        let mut values: Vec<Value> = table.all().iter().map(figure).collect();
        let mut is_unknown = true;
        for ((copied, words), value) in self.columns.copied.iter().zip(&self.words).zip(&group.values) {
            let is_host = matches!(copied.from, From::Host);
            is_unknown &= !copied.is_key || is_host || *value == NONE;
            values[copied.at] = copied.value(*value, words);
        }
        // Those whose stack was not taken are more than those of which nothing is known.
        if is_unknown && self.columns.has_keys && !self.known.is_part {
            let is_text = |field: &&crate::Field| field.ty == Type::Str && field.name != "host";
            if let Some(at) = table.iter().position(|field| is_text(&field)) {
                values[at] = Value::word("(not attributed)");
            }
        }
        Record::new(table, values)
    }

    /// Rows with what they have come to: those with news since the last time, or all.
    fn block(&mut self, time_ns: u64, all: bool) -> Block {
        let mut rows = Vec::new();
        let is_since_start = all || self.how.cumulative;
        for (number, group) in (1..).zip(&self.rows) {
            if is_since_start || group.is_news {
                let extremes = if is_since_start { group.extremes } else { group.recent };
                rows.push(self.record(group, extremes).of_row(number));
            }
        }
        if !all {
            for group in &mut self.rows {
                (group.is_news, group.recent) = (false, Extremes::default());
            }
        }
        let mut block = Block::new(self.how.table, time_ns, rows);
        block.sort(0);
        block
    }

    fn flush(&mut self) {
        if !self.events.is_empty() {
            self.ready.push_back(Item::Events(std::mem::take(&mut self.events)));
        }
    }

    fn interval(&mut self, time_ns: u64) {
        self.flush();
        let kept_ns = self.kept.as_ref().and_then(|kept| kept.began_ns(time_ns));
        let since_ns = Some(self.since_ns()).max(kept_ns.filter(|_| !self.how.cumulative));
        let block = Block { since_ns, ..self.block(time_ns, false) };
        self.ready.extend([Item::Rows(block), Item::Tick(time_ns)]);
    }

    /// Ends the intervals before this moment.
    fn pass(&mut self, time_ns: u64) {
        while let Some(interval) =
            self.how.interval_ns.filter(|_| time_ns >= self.until_ns && self.until_ns < u64::MAX)
        {
            let until = self.until_ns;
            let rows = if self.how.cumulative { self.rows.len() } else { 0 };
            self.until_ns = next_end(until, interval, time_ns, rows);
            // Nothing is known of what was discarded.
            let since = until.saturating_sub(interval);
            let is_known = self.kept.as_ref().is_none_or(|kept| kept.within(&(since..=until)) > 0);
            if is_known || self.rows.iter().any(|row| row.is_news) {
                self.interval(until);
            }
        }
    }

    /// A recorded interval has ended, and all that there is of it was taken.
    fn close(&mut self) {
        let Some(time_ns) = self.ended_ns.take() else { return };
        if self.paced_ns.is_none() && self.how.filter.times_ns.contains(&time_ns) {
            self.pass(time_ns.saturating_sub(1));
        }
        if self.how.all && self.how.filter.is_of_all_tasks() {
            let lost = self.lost.end_interval(self.seen(self.host), &self.how.filter.times_ns);
            if self.host != NONE || !self.is_of_hosts() {
                self.lose(self.host, lost);
            }
        }
        if !self.how.filter.times_ns.contains(&time_ns) {
            return;
        }
        match (self.how.interval_ns, self.paced_ns) {
            (None, _) => {
                self.has_intervals = true;
                self.last_ns = self.last_ns.max(time_ns);
                self.interval(time_ns);
            }
            (Some(interval), Some(recorded)) => {
                self.last_ns = self.last_ns.max(time_ns);
                // With the one that ends closest to the time when it should.
                let about = time_ns.saturating_add(recorded / 2);
                if about >= self.until_ns {
                    self.interval(time_ns);
                    let passed = (about - self.until_ns) / interval.max(1) + 1;
                    self.until_ns = self.until_ns.saturating_add(interval.saturating_mul(passed));
                }
            }
            (Some(_), None) => {}
        }
    }

    /// The last rows, and the totals of a run that ended then.
    fn totals(&mut self, end_ns: u64) {
        self.close();
        let run = (self.start_ns, end_ns);
        let (since, until) = self.total_ns.unwrap_or(run);
        let to = *self.how.filter.times_ns.end();
        let time_ns = self.last_ns.max(until.min(to));
        self.pass(time_ns);
        let is_known = |at: usize| self.rows.iter().any(|row| row.values[at] != NONE);
        let name = |copied: &columns::Copied| self.how.table.all()[copied.at].name;
        let unknown = |(at, copied): (usize, &columns::Copied)| {
            let needs = copied.is_key && !matches!(name(copied), "dev" | "inode" | "start_ns" | "binaries");
            (needs && !is_known(at)).then(|| name(copied))
        };
        if !self.rows.is_empty() {
            self.how.unknown.set(self.columns.copied.iter().enumerate().find_map(unknown));
        }
        // Where it is not known of intervals when faults were lost, they are in none.
        if self.lost.knows_intervals() {
            self.rest();
        }
        if self.has_intervals && self.rows.iter().any(|row| row.is_news) {
            self.interval(time_ns);
        }
        self.rest();
        let begin_ns = since.max(self.since_ns()).min(time_ns);
        // Where there are gaps in what was kept, rates are of the time that it is of.
        let within = self.kept.as_ref().map(|kept| kept.within(&(begin_ns..=time_ns)));
        let since_ns = within.map_or(begin_ns, |within_ns| time_ns - within_ns);
        let totals = Block { since_ns: Some(since_ns), ..self.block(time_ns, true) };
        self.ready.push_back(Item::Totals(totals));
        self.rows.clear();
        self.groups.clear();
    }

    fn take(&mut self, item: Item) {
        if matches!(item, Item::Rows(_) | Item::Tick(_)) {
            self.close();
        }
        match item {
            Item::Header(header) => {
                let header = self.header(header);
                self.ready.push_back(Item::Header(header));
            }
            Item::Tick(time_ns) => self.ended_ns = Some(time_ns),
            Item::Totals(block) => {
                let since_ns = block.since_ns.unwrap_or(self.start_ns);
                let (since, until) = self.total_ns.unwrap_or((since_ns, block.time_ns));
                self.total_ns = Some((since.min(since_ns), until.max(block.time_ns)));
                if let Some(counts) = Counts::of(&block) {
                    let host = self.host(&block);
                    let counted = self.counted.entry(host).or_default();
                    *counted = counted.and(counts);
                }
            }
            Item::Rows(block) => {
                let host = self.host(&block);
                self.host = if host == NONE { self.host } else { host };
                self.lost.rows(&block);
            }
            Item::Events(_) => {}
            Item::Facts(facts) => {
                self.lost.facts(&facts);
                self.ready.push_back(Item::Facts(facts));
            }
            Item::End(end) => self.end(end),
        }
    }

    fn end(&mut self, mut end: Facts) {
        self.lost.facts(&end);
        self.totals(self.start_ns.saturating_add(end.duration_ns));
        if !self.how.filter.is_all() || self.kept.is_some() {
            end.set(WHOLE_RUN.record(&WholeRun));
        }
        self.ready.push_back(Item::End(end));
    }
}

impl<C: Chunks> Source for Regroup<C> {
    type Error = C::Error;

    fn next(&mut self) -> Result<Option<Item>, C::Error> {
        pump_intact(
            self,
            |stage| (&mut stage.ready, &mut stage.error),
            |stage| stage.source.next(),
            |stage, chunk| match chunk {
                Chunk::Faults(batch) => stage.batch(&batch),
                Chunk::Item(item) => stage.take(item),
            },
            // Without an end: the totals are of all that is intact.
            |stage| {
                if !stage.rows.is_empty() {
                    stage.totals(stage.last_ns);
                }
            },
        )
    }
}

#[cfg(test)]
mod tests;
