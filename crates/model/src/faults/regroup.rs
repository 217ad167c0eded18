//! Rows of recorded faults: a recording holds each of them, so they can be grouped in any way afterwards.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};

use super::tables::EVENT;
use super::{Extremes, Stats};
use crate::field::{Kind, Record, Type, Value};
use crate::hist::{BUCKETS, Hist, bucket};
use crate::item::{Block, Facts, Header, Item, Source};
use crate::table::Schema;

/// What rows are made of recorded faults.
#[derive(Debug, Clone, Copy)]
pub struct Regrouping {
    /// The table of the rows; its keys are columns of the faults.
    pub table: &'static Schema,
    /// Rows at intervals of this length; else where the recording has intervals.
    pub interval_ns: Option<u64>,
    /// The faults are all of the recording: what its totals have beyond them was lost.
    pub all: bool,
}

/// Makes rows and totals of the faults in a recording; what is no fault passes, but for its own rows and totals.
#[derive(Debug)]
pub struct Regroup<S> {
    source: S,
    how: Regrouping,
    is_timed: bool,
    /// Of each column of the table that is one of the faults, too: where it is in both, and whether it is a key.
    copied: Vec<(usize, usize, bool)>,
    /// Rows are of processes: their name and start are those of the first thread.
    of_processes: bool,
    places: Places,
    groups: HashMap<u64, Vec<usize>>,
    rows: Vec<Group>,
    ready: VecDeque<Item>,
    start_ns: u64,
    last_ns: u64,
    /// The end of the interval.
    until_ns: u64,
    has_intervals: bool,
    /// The kernel's counts, by the recorded totals.
    counted: Option<(u64, u64)>,
}

/// Where values are in the record of a fault.
#[derive(Debug, Clone, Copy)]
struct Places {
    pid: usize,
    tid: usize,
    kind: usize,
    latency_ns: usize,
    wait_ns: usize,
    offset: usize,
}

/// What a row has come to.
#[derive(Debug)]
struct Group {
    /// The values of the columns that are copied, in their order.
    values: Vec<Value>,
    stats: Stats,
    times: Box<[u64; BUCKETS]>,
    extremes: Extremes,
    recent: Extremes,
    range: Option<(u64, u64)>,
    is_news: bool,
    knows_waits: bool,
}

impl Group {
    fn new(values: Vec<Value>) -> Self {
        Self {
            values,
            stats: Stats::default(),
            times: Box::new([0; BUCKETS]),
            extremes: Extremes::default(),
            recent: Extremes::default(),
            range: None,
            is_news: false,
            knows_waits: true,
        }
    }

    fn fault(&mut self, fault: &Record, places: &Places) {
        self.is_news = true;
        let number = |at: usize| if let Value::U64(n) = fault.values[at] { Some(n) } else { None };
        let is_major = match &fault.values[places.kind] {
            Value::Str(kind) if kind == "major" => true,
            Value::Str(kind) if kind == "minor" => false,
            _ => {
                self.stats.failed += 1;
                return;
            }
        };
        let stats = &mut self.stats;
        *if is_major { &mut stats.major } else { &mut stats.minor } += 1;
        if let Some(offset) = number(places.offset) {
            let (low, high) = self.range.unwrap_or((offset, offset));
            self.range = Some((low.min(offset), high.max(offset)));
        }
        match number(places.wait_ns) {
            Some(ns) => (stats.waits, stats.wait_ns) = (stats.waits + u64::from(ns > 0), stats.wait_ns + ns),
            None => self.knows_waits = false,
        }
        let Some(ns) = number(places.latency_ns) else { return };
        if is_major {
            (stats.timed_major, stats.major_ns) = (stats.timed_major + 1, stats.major_ns + ns);
        } else {
            (stats.timed_minor, stats.minor_ns) = (stats.timed_minor + 1, stats.minor_ns + ns);
        }
        self.times[bucket(ns)] += 1;
        let one = Extremes { max_ns: ns, min_ns: ns };
        self.extremes.add(one);
        self.recent.add(one);
    }

    /// A figure that has this name in every table of faults.
    fn figure(&self, name: &str, is_timed: bool, extremes: Extremes) -> Value {
        let stats = &self.stats;
        let known = Some(extremes).filter(|extremes| extremes.min_ns <= extremes.max_ns);
        match name {
            "major" => stats.major.into(),
            "minor" => stats.minor.into(),
            "failed" => stats.failed.into(),
            "waits" => Some(stats.waits).filter(|_| self.knows_waits).into(),
            "wait_ns" => Some(stats.wait_ns).filter(|_| self.knows_waits).into(),
            "sampling" => is_timed.then_some(1_u64).into(),
            "timed_major" => stats.timed_major.into(),
            "timed_minor" => stats.timed_minor.into(),
            "timed_major_ns" => stats.major_ns.into(),
            "timed_minor_ns" => stats.minor_ns.into(),
            // None: all minor faults are timed.
            "slept_minor" | "slept_minor_ns" => 0_u64.into(),
            "times" => (&Hist::new(&*self.times)).into(),
            "longest_ns" => known.map(|extremes| extremes.max_ns).into(),
            "shortest_ns" => known.map(|extremes| extremes.min_ns).into(),
            "offset" => self.range.map(|(low, _)| low).into(),
            "offset_end" => self.range.map(|(_, high)| high).into(),
            _ => Value::Null,
        }
    }
}

impl<S: Source> Regroup<S> {
    /// Over the stream of a recording whose events are faults. Nothing if faults do not have the table's keys: the first that
    /// is missing.
    ///
    /// # Errors
    /// The name of the key.
    pub fn new(source: S, how: Regrouping) -> Result<Self, &'static str> {
        let place = |name: &str| EVENT.iter().position(|field| field.name == name);
        let mut copied = Vec::new();
        let mut has_key = false;
        let has_tid = how.table.iter().any(|field| field.name == "tid");
        for (at, field) in how.table.iter().enumerate() {
            let is_figure = matches!(field.name, "offset" | "offset_end" | "wait_ns");
            if (field.name, field.kind) == ("comm", Kind::Key) {
                // That of a process; a fault has its thread's.
                return Err("process name");
            }
            match place(field.name).filter(|_| !is_figure) {
                Some(from) => {
                    let is_key = field.kind == Kind::Key && (has_tid || field.name != "start_ns");
                    has_key |= is_key;
                    copied.push((at, from, is_key));
                }
                // Numbers of devices and files belong to a name that is a key.
                None if field.kind == Kind::Key && !has_key => return Err(field.name),
                None => {}
            }
        }
        let at = |name: &str| place(name).ok_or("the faults");
        let places = Places {
            pid: at("pid")?,
            tid: at("tid")?,
            kind: at("kind")?,
            latency_ns: at("latency_ns")?,
            wait_ns: at("wait_ns")?,
            offset: at("offset")?,
        };
        let of_processes = !has_tid && how.table.iter().any(|field| field.name == "start_ns");
        Ok(Self {
            source,
            how,
            is_timed: false,
            copied,
            of_processes,
            places,
            groups: HashMap::new(),
            rows: Vec::new(),
            ready: VecDeque::new(),
            start_ns: 0,
            last_ns: 0,
            until_ns: u64::MAX,
            has_intervals: how.interval_ns.is_some(),
            counted: None,
        })
    }

    fn header(&mut self, mut header: Header) -> Header {
        // A variant that times nothing has no setting of it.
        self.is_timed = header.setting("minor_latency").is_some();
        (self.start_ns, self.last_ns) = (header.start_ns, header.start_ns);
        self.until_ns = self.how.interval_ns.map_or(u64::MAX, |interval| header.start_ns + interval);
        header.tables = vec![self.how.table];
        header.events = None;
        header
    }

    fn fault(&mut self, fault: &Record) {
        let at = self.row(|from| &fault.values[from]);
        let row = &mut self.rows[at];
        let is_first_thread = fault.values[self.places.pid] == fault.values[self.places.tid];
        if !self.of_processes || is_first_thread {
            // The newest name, and the start of a process.
            for ((_, from, is_key), value) in self.copied.iter().zip(&mut row.values) {
                if !is_key && *value != fault.values[*from] {
                    *value = fault.values[*from].clone();
                }
            }
        }
        row.fault(fault, &self.places);
    }

    /// The row of the faults with these values.
    fn row<'a>(&mut self, value: impl Fn(usize) -> &'a Value) -> usize {
        let mut hasher = DefaultHasher::new();
        let keys = || self.copied.iter().filter(|(.., is_key)| *is_key);
        keys().for_each(|(_, from, _)| value(*from).hash(&mut hasher));
        let of = self.groups.entry(hasher.finish()).or_default();
        let is_same = |row: &Group| {
            self.copied.iter().zip(&row.values).all(|((_, from, is_key), own)| !is_key || own == value(*from))
        };
        if let Some(at) = of.iter().find(|at| is_same(&self.rows[**at])) {
            return *at;
        }
        let copy = |(_, from, is_key): &(usize, usize, bool)| {
            if *is_key || !self.of_processes { value(*from).clone() } else { Value::Null }
        };
        of.push(self.rows.len());
        self.rows.push(Group::new(self.copied.iter().map(copy).collect()));
        self.rows.len() - 1
    }

    /// Rows with what they have come to: those with news since the last time, or all.
    fn block(&mut self, time_ns: u64, all: bool) -> Block {
        let table = self.how.table;
        let mut rows = Vec::new();
        for (number, group) in (1..).zip(&mut self.rows) {
            if !all && !group.is_news {
                continue;
            }
            let extremes = if all { group.extremes } else { group.recent };
            let figure = |field: &&crate::Field| group.figure(field.name, self.is_timed, extremes);
            let mut values: Vec<Value> = table.all().iter().map(figure).collect();
            let mut is_unknown = true;
            for ((at, _, is_key), value) in self.copied.iter().zip(&group.values) {
                is_unknown &= !is_key || *value == Value::Null;
                values[*at] = value.clone();
            }
            if is_unknown {
                let text = |field: &&crate::Field| field.ty == Type::Str;
                if let Some(at) = table.iter().position(|field| text(&field)) {
                    values[at] = Value::word("(not attributed)");
                }
            }
            rows.push(Record::new(table, values).of_row(number));
            if !all {
                (group.is_news, group.recent) = (false, Extremes::default());
            }
        }
        let mut block = Block::new(table, time_ns, rows);
        block.sort(0);
        block
    }

    fn interval(&mut self, time_ns: u64) {
        let block = self.block(time_ns, false);
        self.ready.extend([Item::Rows(block), Item::Tick(time_ns)]);
    }

    /// Ends the intervals before this moment.
    fn pass(&mut self, time_ns: u64) {
        self.last_ns = self.last_ns.max(time_ns);
        while let Some(interval) = self.how.interval_ns.filter(|_| time_ns >= self.until_ns) {
            let until = self.until_ns;
            self.until_ns += interval;
            self.interval(until);
        }
    }

    /// Faults that the kernel counted and that are no events: they were lost.
    fn rest(&mut self) {
        let Some((major, minor)) = self.counted.filter(|_| self.how.all) else { return };
        let seen = |count: fn(&Stats) -> u64| self.rows.iter().map(|row| count(&row.stats)).sum::<u64>();
        let major = major.saturating_sub(seen(|stats| stats.major));
        let minor = minor.saturating_sub(seen(|stats| stats.minor));
        if major + minor > 0 {
            let at = self.row(|_| &Value::Null);
            let row = &mut self.rows[at];
            row.is_news = true;
            (row.stats.major, row.stats.minor) = (row.stats.major + major, row.stats.minor + minor);
        }
    }

    fn end(&mut self, end: Facts) {
        self.pass(self.start_ns + end.duration_ns);
        let time_ns = self.last_ns;
        self.rest();
        if self.has_intervals && self.rows.iter().any(|row| row.is_news) {
            self.interval(time_ns);
        }
        let totals = self.block(time_ns, true);
        self.ready.extend([Item::Totals(totals), Item::End(end)]);
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Header(header) => {
                let header = self.header(header);
                self.ready.push_back(Item::Header(header));
            }
            Item::Events(events) => {
                for event in &events {
                    self.pass(event.time_ns);
                    if event.record.schema() == EVENT {
                        self.fault(&event.record);
                    }
                }
            }
            Item::Tick(time_ns) => {
                self.last_ns = self.last_ns.max(time_ns);
                if self.how.interval_ns.is_none() {
                    self.has_intervals = true;
                    self.interval(time_ns);
                }
            }
            Item::Totals(block) => {
                let number = |name| block.sum.as_ref().and_then(|sum| sum.number(name));
                self.counted = number("major").zip(number("minor"));
            }
            Item::Rows(_) => {}
            Item::Facts(_) => self.ready.push_back(item),
            Item::End(end) => self.end(end),
        }
    }
}

impl<S: Source> Source for Regroup<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        while self.ready.is_empty() {
            match self.source.next()? {
                Some(item) => self.take(item),
                None => return Ok(None),
            }
        }
        Ok(self.ready.pop_front())
    }
}
