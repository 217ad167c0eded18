//! A trace for Perfetto: events are slices on their threads, and what they come to in a tenth of a second is a counter of
//! their process; rows at intervals are counters.

mod proto;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use prost::Message;
use trapline_model::{Block, Event, Facts, Header, Item, Record, Sink};

use self::proto::{
    Annotation, Clock, ClockSnapshot, CounterDescriptor, Kind, Packet, ProcessDescriptor, ThreadDescriptor,
    Trace, TrackDescriptor, TrackEvent,
};
use crate::blocks::note;
use crate::end::{UNKNOWN, end_lines};
use crate::escape::name;
use crate::frames::{frames, measures};
use crate::moment::{Moment, details};

/// The numbers of clocks in a trace.
const REALTIME: u32 = 1;
const MONOTONIC: u32 = 3;

/// The one sequence of packets.
const SEQUENCE: u32 = 1;

/// Events are counted for so long.
const WINDOW_NS: u64 = 100_000_000;

/// Beyond this number, threads are described again when they are met again: what is kept of them is bounded.
const KNOWN: usize = 65_536;

/// Writes packets as events come; nothing is kept but the names of threads and the counters of an interval.
#[derive(Debug)]
pub struct Perfetto<W> {
    out: W,
    tool: String,
    note: String,
    /// There is a line per event: counters are made of them.
    has_events: bool,
    /// Rows are since the start: no counter can be made of them.
    cumulative: bool,
    /// There was a block of rows.
    has_rows: bool,
    /// When the interval began of which counters are next.
    since_ns: u64,
    /// The names of processes: those of their first threads.
    names: HashMap<u32, String>,
    /// The tracks that were described, with the hash of their names.
    described: HashMap<u64, u64>,
    /// The number of events of each process in this window, and their time, if it is known of any.
    window: BTreeMap<u32, (u64, Option<u64>)>,
    /// The counters that are not 0, with their track and unit.
    counters: BTreeMap<(u64, String), &'static str>,
}

impl<W: Write> Perfetto<W> {
    /// Over a writer, for rows or events of any tool.
    pub fn new(out: W) -> Self {
        Self {
            out,
            tool: String::new(),
            note: String::new(),
            has_events: false,
            cumulative: false,
            has_rows: false,
            since_ns: 0,
            names: HashMap::new(),
            described: HashMap::new(),
            window: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }

    fn packet(&mut self, time_ns: Option<u64>, packet: Packet) -> io::Result<()> {
        let packet = Packet {
            timestamp: time_ns,
            timestamp_clock_id: MONOTONIC,
            trusted_packet_sequence_id: SEQUENCE,
            ..packet
        };
        self.out.write_all(&Trace { packet: vec![packet] }.encode_to_vec())
    }

    fn header(&mut self, header: &Header) -> io::Result<()> {
        self.tool = header.tool.to_string();
        self.note = note(header);
        self.has_events = header.events.is_some() && header.setting("summary").is_none();
        self.since_ns = header.start_ns;
        self.cumulative = header.is("cumulative");
        let start = u64::try_from(header.start_unix_ns).unwrap_or(0);
        let clocks = [(MONOTONIC, header.start_ns), (REALTIME, start)];
        let clocks = clocks.map(|(clock_id, timestamp)| Clock { clock_id, timestamp }).to_vec();
        let clock_snapshot = Some(ClockSnapshot { clocks, primary_trace_clock: MONOTONIC });
        self.packet(Some(header.start_ns), Packet { clock_snapshot, ..Packet::default() })
    }

    /// Describes a track once, and again when its name changes.
    fn describe(&mut self, track: TrackDescriptor) -> io::Result<()> {
        let encoded = hash(&track.encode_to_vec());
        if self.described.get(&track.uuid) == Some(&encoded) {
            return Ok(());
        }
        if self.described.len() >= KNOWN {
            self.described.clear();
        }
        self.described.insert(track.uuid, encoded);
        self.packet(None, Packet { track_descriptor: Some(track), ..Packet::default() })
    }

    /// The track of a process, with its name once that was seen.
    fn process(&mut self, pid: u32, name: Option<String>) -> io::Result<u64> {
        let uuid = u64::from(pid) << 32;
        if let Some(name) = name {
            if self.names.len() >= KNOWN {
                self.names.clear();
            }
            self.names.insert(pid, name);
        }
        let process_name = self.names.get(&pid).cloned().unwrap_or_default();
        let process = Some(ProcessDescriptor { pid: pid.cast_signed(), process_name });
        self.describe(TrackDescriptor { uuid, process, ..TrackDescriptor::default() })?;
        Ok(uuid)
    }

    fn on(&mut self, track_uuid: u64, time_ns: u64, event: TrackEvent) -> io::Result<()> {
        let track_event = Some(TrackEvent { track_uuid, ..event });
        self.packet(Some(time_ns), Packet { track_event, ..Packet::default() })
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let Some(moment) = Moment::of(event) else { return Ok(()) };
        while event.time_ns.saturating_sub(self.since_ns) >= WINDOW_NS {
            self.close_window(event.time_ns)?;
        }
        let (count, sum_ns) = self.window.entry(moment.pid).or_default();
        *count += 1;
        let ns = moment.end_ns - moment.start_ns;
        if ns > 0 {
            *sum_ns = Some(sum_ns.unwrap_or(0).saturating_add(ns));
        }
        self.process(moment.pid, (moment.pid == moment.tid).then(|| moment.thread.clone()))?;
        let uuid = u64::from(moment.pid) << 32 | u64::from(moment.tid);
        let (pid, tid) = (moment.pid.cast_signed(), moment.tid.into());
        let thread = Some(ThreadDescriptor { pid, tid, thread_name: moment.thread });
        self.describe(TrackDescriptor { uuid, thread, ..TrackDescriptor::default() })?;
        let annotation = |(name, text): (&str, String)| Annotation { name: name.to_owned(), text };
        let is_slice = moment.end_ns > moment.start_ns;
        let begin = TrackEvent {
            kind: if is_slice { Kind::SliceBegin } else { Kind::Instant }.into(),
            name: moment.what,
            categories: vec![self.tool.clone()],
            debug_annotations: details(&event.record).map(annotation).collect(),
            ..TrackEvent::default()
        };
        self.on(uuid, moment.start_ns, begin)?;
        if is_slice {
            let end = TrackEvent { kind: Kind::SliceEnd.into(), ..TrackEvent::default() };
            self.on(uuid, moment.end_ns, end)?;
        }
        Ok(())
    }

    /// The counters of the window in which there were events, up to the one with this moment in it.
    fn close_window(&mut self, next_ns: u64) -> io::Result<()> {
        let window = std::mem::take(&mut self.window);
        let mut values = vec![];
        for (pid, (count, sum_ns)) in window {
            let track = self.process(pid, None)?;
            values.push((track, format!("{}/s", self.tool), "", per_second(count, WINDOW_NS)));
            let stall = |ns| (track, "stall".to_owned(), "ms/s", per_second(ns, WINDOW_NS) / 1e6);
            values.extend(sum_ns.map(stall));
        }
        let is_empty = values.is_empty();
        self.counters(values)?;
        // Where nothing happens there is nothing to close.
        let windows = if is_empty { (next_ns - self.since_ns) / WINDOW_NS } else { 1 };
        self.since_ns = self.since_ns.saturating_add(windows * WINDOW_NS);
        Ok(())
    }

    /// Values from the beginning of an interval on. Those that are in no row of it are 0.
    fn counters(&mut self, values: Vec<(u64, String, &'static str, f64)>) -> io::Result<()> {
        let mut gone = std::mem::take(&mut self.counters);
        for (track, name, unit, value) in values {
            gone.remove(&(track, name.clone()));
            self.counter(track, &name, unit, value)?;
            self.counters.insert((track, name), unit);
        }
        gone.into_iter().try_for_each(|((track, name), unit)| self.counter(track, &name, unit, 0.0))
    }

    fn counter(&mut self, parent_uuid: u64, name: &str, unit: &str, value: f64) -> io::Result<()> {
        // No thread's number: their process is not 0.
        let uuid = hash(&(parent_uuid, name)) | 1 << 63;
        let counter = Some(CounterDescriptor { unit_name: unit.to_owned() });
        let name = name.to_owned();
        self.describe(TrackDescriptor { uuid, parent_uuid, name, counter, ..TrackDescriptor::default() })?;
        let event = TrackEvent { kind: Kind::Counter.into(), value: Some(value), ..TrackEvent::default() };
        self.on(uuid, self.since_ns, event)
    }

    /// The rows of an interval: what they count first, and their time.
    fn rows(&mut self, block: &Block) -> io::Result<()> {
        self.has_rows = true;
        let ns = block.time_ns.saturating_sub(self.since_ns).max(1);
        let measures = measures(block);
        let first = measures.first().into_iter();
        let shown: Vec<_> =
            first.chain(measures.iter().find(|(_, unit, _)| *unit == "nanoseconds")).collect();
        let mut sums: BTreeMap<(u64, String, &'static str), f64> = BTreeMap::new();
        for row in &block.rows {
            let pid = row.number("pid").and_then(|pid| u32::try_from(pid).ok());
            let is_first = row.number("tid").is_none_or(|tid| Some(tid) == pid.map(u64::from));
            let name = row.text("comm").or(row.text("vm")).filter(|_| is_first).map(name);
            let track = pid.map(|pid| self.process(pid, name)).transpose()?.unwrap_or(0);
            let of = if pid.is_some() { String::new() } else { of(row) };
            for (name, unit, fields) in &shown {
                let known = fields.iter().filter_map(|field| row.number(field));
                let value = per_second(known.fold(0, u64::saturating_add), ns);
                let is_time = *unit == "nanoseconds";
                let (name, unit) = if is_time { ((*name).into(), "ms/s") } else { (format!("{name}/s"), "") };
                let value = if is_time { value / 1e6 } else { value };
                *sums.entry((track, format!("{of}{name}"), unit)).or_default() += value;
            }
        }
        let values = sums.into_iter().map(|((track, name, unit), value)| (track, name, unit, value));
        self.counters(values.collect())?;
        self.since_ns = block.time_ns;
        Ok(())
    }

    fn end(&mut self, end: Option<&Facts>) -> io::Result<()> {
        if !self.has_events && !self.has_rows {
            return Err(io::Error::other("a trace needs events or rows of intervals, and there are none"));
        }
        if self.has_events {
            self.close_window(self.since_ns)?;
        }
        self.counters(vec![])?;
        let track = hash(&self.tool) | 1 << 63;
        self.describe(TrackDescriptor {
            uuid: track,
            name: "trapline".into(),
            ..TrackDescriptor::default()
        })?;
        let of_end = end.map_or_else(|| vec![UNKNOWN.to_owned()], end_lines);
        let lines = [self.note.clone()].into_iter().chain(of_end).enumerate();
        let lines = lines.map(|(n, text)| Annotation { name: format!("line {n}"), text });
        let event = TrackEvent {
            kind: Kind::Instant.into(),
            name: "end".into(),
            debug_annotations: lines.collect(),
            ..TrackEvent::default()
        };
        self.on(track, self.since_ns, event)
    }
}

impl<W: Write> Sink for Perfetto<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header)?,
            Item::Events(events) => events.iter().try_for_each(|event| self.event(event))?,
            Item::Rows(block) if !self.has_events && !self.cumulative => self.rows(block)?,
            Item::Rows(_) | Item::Totals(_) | Item::Facts(_) | Item::Tick(_) => {}
            Item::End(end) => self.end(Some(end))?,
        }
        self.out.flush()
    }

    fn cut_off(&mut self) -> io::Result<()> {
        self.end(None)?;
        self.out.flush()
    }
}

/// What a row without a process is one of, before the names of its counters.
fn of(row: &Record) -> String {
    let names: Vec<String> = frames(row).into_iter().map(|frame| frame.name).collect();
    format!("{} ", names.join(";"))
}

fn per_second(value: u64, ns: u64) -> f64 {
    value as f64 * 1e9 / ns as f64
}

fn hash(it: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    it.hash(&mut hasher);
    hasher.finish()
}
