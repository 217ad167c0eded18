//! A run as a profile for the Firefox Profiler: a track for each thread, samples with stacks, markers for what waited.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use fxprof_processed_profile::{
    CategoryColor, CategoryHandle, CpuDelta, Frame as FrameOf, FrameFlags, FrameInfo, Marker,
    MarkerFieldFlags, MarkerFieldFormat, MarkerLocations, MarkerTiming, MarkerTypeHandle, ProcessHandle,
    Profile, ReferenceTimestamp, RuntimeSchemaMarkerField, RuntimeSchemaMarkerSchema, SamplingInterval,
    StackHandle, StringHandle, ThreadHandle, Timestamp,
};
use trapline_model::{Block, Event, Facts, Header, Item, Record, Schema, Sink};

use crate::blocks::note;
use crate::end::{UNKNOWN, in_short};
use crate::escape::visible;
use crate::frames::{Frame, frames, measures};
use crate::moment::{Moment, SAID, details};

/// Writes the profile at the end. All of it is kept until then.
#[derive(Debug)]
pub struct Firefox<W> {
    out: W,
    profile: Profile,
    kernel: CategoryHandle,
    start_ns: u64,
    /// What was run.
    note: String,
    /// There is a line per event: rows only repeat them.
    has_events: bool,
    /// Rows are since the start: only totals count once.
    cumulative: bool,
    /// There were rows of intervals: totals only repeat them.
    has_rows: bool,
    /// The process of each number, and whether its name is that of its first thread.
    processes: HashMap<u32, (ProcessHandle, bool)>,
    threads: HashMap<(u32, u32, String), ThreadHandle>,
    markers: Option<MarkerTypeHandle>,
}

impl<W: Write> Firefox<W> {
    /// Over a writer, for rows or events of any tool.
    pub fn new(out: W) -> Self {
        let zero = ReferenceTimestamp::from_millis_since_unix_epoch(0.0);
        let mut profile = Profile::new("trapline", zero, SamplingInterval::from_millis(1));
        let kernel = profile.add_category("Kernel", CategoryColor::Orange);
        profile.set_symbolicated(true);
        Self {
            out,
            profile,
            kernel,
            start_ns: 0,
            note: String::new(),
            has_events: false,
            cumulative: false,
            has_rows: false,
            processes: HashMap::new(),
            threads: HashMap::new(),
            markers: None,
        }
    }

    fn header(&mut self, header: &Header) {
        let start_ms = header.start_unix_ns as f64 / 1e6;
        self.profile.set_reference_timestamp(ReferenceTimestamp::from_millis_since_unix_epoch(start_ms));
        self.profile.set_os_name(&format!("Linux {}", visible(&header.kernel)));
        self.start_ns = header.start_ns;
        self.note = note(header);
        self.cumulative = header.is("cumulative");
        self.has_events = header.events.is_some() && header.setting("summary").is_none();
        self.markers = header.events.map(|table| self.profile.register_marker_type(marker_schema(table)));
    }

    fn time(&self, time_ns: u64) -> Timestamp {
        Timestamp::from_nanos_since_reference(time_ns.saturating_sub(self.start_ns))
    }

    /// The track of a thread. One that takes another name has another.
    fn thread(&mut self, pid: u32, tid: u32, name: String, time_ns: u64) -> ThreadHandle {
        let time = self.time(time_ns);
        let key = (pid, tid, name);
        if let Some(thread) = self.threads.get(&key) {
            return *thread;
        }
        let (profile, is_first) = (&mut self.profile, pid == tid);
        let process = match self.processes.get(&pid) {
            Some((process, _)) if !is_first => *process,
            Some((process, false)) => {
                profile.set_process_name(*process, &key.2);
                *process
            }
            // It has become another program.
            _ => profile.add_process(&key.2, pid, time),
        };
        self.processes.insert(pid, (process, is_first || self.processes.get(&pid).is_some_and(|of| of.1)));
        let thread = profile.add_thread(process, tid, time, is_first);
        profile.set_thread_name(thread, &key.2);
        self.threads.insert(key, thread);
        thread
    }

    fn stack(&mut self, thread: ThreadHandle, frames: impl Iterator<Item = Frame>) -> Option<StackHandle> {
        let (profile, kernel) = (&mut self.profile, self.kernel);
        let infos: Vec<FrameInfo> = frames
            .map(|frame| {
                let in_kernel = frame.module.as_deref() == Some(crate::frames::KERNEL);
                let category = if in_kernel { kernel } else { CategoryHandle::OTHER };
                FrameInfo {
                    frame: FrameOf::Label(profile.intern_string(&frame.name)),
                    category_pair: category.into(),
                    flags: FrameFlags::empty(),
                }
            })
            .collect();
        profile.intern_stack_frames(thread, infos.into_iter())
    }

    /// An event: a sample where it began, and a marker if it waited.
    fn event(&mut self, event: &Event) {
        let Some(moment) = Moment::of(event) else { return };
        let thread = self.thread(moment.pid, moment.tid, moment.thread, moment.start_ns);
        let named = |name: String| Frame { name, ..Frame::default() };
        let record = &event.record;
        let code = record.text("symbol").map(visible);
        let code = code.or_else(|| record.number("ip").map(|ip| format!("{ip:#x}")));
        let file = record.text("file").map(crate::escape::name);
        let frames = code.into_iter().chain([moment.what.clone()]).chain(file).map(named);
        let stack = self.stack(thread, frames);
        let (start, end) = (self.time(moment.start_ns), self.time(moment.end_ns));
        self.profile.add_sample(thread, start, stack, CpuDelta::ZERO, 1);
        if let Some(kind) = self.markers.filter(|_| moment.is_slow) {
            let strings = details(record).map(|(name, value)| (name, self.profile.intern_string(&value)));
            let strings: HashMap<&str, StringHandle> = strings.collect();
            let none = self.profile.intern_string("");
            let fields = columns(record.schema());
            let values = fields.map(|field| strings.get(field).copied().unwrap_or(none)).collect();
            let name = self.profile.intern_string(&moment.what);
            let timing = MarkerTiming::Interval(start, end);
            let marker = self.profile.add_marker(thread, timing, Mark { kind, name, values });
            self.profile.set_marker_stack(thread, marker, stack);
        }
    }

    /// Rows: samples at the end of their interval, as heavy as what they count first.
    fn rows(&mut self, block: &Block) {
        let Some((_, _, fields)) = measures(block).into_iter().next() else { return };
        for row in &block.rows {
            let weight = fields.iter().filter_map(|field| row.number(field)).fold(0, u64::saturating_add);
            let (thread, frames) = self.place(row, block.time_ns);
            let stack = self.stack(thread, frames.into_iter());
            let time = self.time(block.time_ns);
            // A sample can be no heavier.
            let mut rest = weight.min(u64::from(u32::MAX));
            while let Some(part) = i32::try_from(rest.min(i32::MAX as u64)).ok().filter(|part| *part > 0) {
                self.profile.add_sample(thread, time, stack, CpuDelta::ZERO, part);
                rest -= u64::from(part.unsigned_abs());
            }
        }
    }

    /// The track of a row, and the frames in it.
    fn place(&mut self, row: &Record, time_ns: u64) -> (ThreadHandle, Vec<Frame>) {
        let mut frames = frames(row);
        let id = |field| row.number(field).and_then(|id| u32::try_from(id).ok());
        let name = frames[0].name.clone();
        let thread = match (id("pid"), id("tid")) {
            (Some(pid), tid) => {
                let name = row.text("comm").or(row.text("vm")).map_or(name, crate::escape::name);
                self.thread(pid, tid.unwrap_or(pid), name, time_ns)
            }
            // Of stacks the process's name is all that is known of it.
            (None, _) if row.get("stack").is_some() && frames.len() > 1 => {
                frames.remove(0);
                self.thread(0, 0, name, time_ns)
            }
            (None, _) => self.thread(0, 0, row.schema().tool().to_owned(), time_ns),
        };
        (thread, frames)
    }

    fn end(&mut self, end: Option<&Facts>) -> io::Result<()> {
        let end =
            end.map_or_else(|| UNKNOWN.to_owned(), |end| format!("{} events, {}", end.events, in_short(end)));
        self.profile.set_product(&format!("{}; {end}", self.note));
        let mut out = GzEncoder::new(&mut self.out, Compression::default());
        serde_json::to_writer(&mut out, &self.profile)?;
        out.finish()?;
        Ok(())
    }
}

impl<W: Write> Sink for Firefox<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header),
            Item::Events(events) => events.iter().for_each(|event| self.event(event)),
            Item::Rows(block) if !self.has_events && !self.cumulative => {
                self.has_rows = true;
                self.rows(block);
            }
            Item::Totals(block) if !self.has_events && !self.has_rows => self.rows(block),
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

/// A marker, with the text of each field.
struct Mark {
    kind: MarkerTypeHandle,
    name: StringHandle,
    values: Vec<StringHandle>,
}

impl Marker for Mark {
    fn marker_type(&self, _: &mut Profile) -> MarkerTypeHandle {
        self.kind
    }

    fn name(&self, _: &mut Profile) -> StringHandle {
        self.name
    }

    fn category(&self, _: &mut Profile) -> CategoryHandle {
        CategoryHandle::OTHER
    }

    fn string_field_value(&self, field: u32) -> StringHandle {
        self.values.get(field as usize).copied().unwrap_or(self.name)
    }

    fn number_field_value(&self, _: u32) -> f64 {
        0.0
    }
}

/// The columns that markers of a table have.
fn columns(table: &'static Schema) -> impl Iterator<Item = &'static str> {
    table.iter().map(|field| field.name).filter(|name| !SAID.contains(name))
}

fn marker_schema(table: &'static Schema) -> RuntimeSchemaMarkerSchema {
    let field = |key: &'static str| RuntimeSchemaMarkerField {
        key: key.to_owned(),
        label: key.to_owned(),
        format: MarkerFieldFormat::String,
        flags: MarkerFieldFlags::SEARCHABLE,
    };
    RuntimeSchemaMarkerSchema {
        type_name: table.id().to_owned(),
        description: None,
        locations: MarkerLocations::MARKER_CHART
            | MarkerLocations::MARKER_TABLE
            | MarkerLocations::TIMELINE_OVERVIEW,
        chart_label: Some("{marker.name}".into()),
        tooltip_label: Some("{marker.name}".into()),
        table_label: Some("{marker.name}".into()),
        fields: columns(table).map(field).collect(),
        graphs: vec![],
    }
}
