//! Page faults that perf recorded (`perf record -d -c 1 -e major-faults,minor-faults`): a source like a recording of ours.

mod inspect;
mod records;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io::{Read, Seek};

use linux_perf_data::{PerfFile, PerfFileReader, PerfFileRecord, PerfRecordIter};
use trapline_model::faults::{By, EVENT};
use trapline_model::{Block, Event, Facts, Header, Item, Record, Source, Value};

pub use self::inspect::is_perf_data;
use self::inspect::{Unfit, inspect};
use self::records::{Fault, Kind, Step, events, step};
use crate::RecordingError;

/// Events that are given together.
const BATCH: usize = 1024;

/// The faults of a thread.
#[derive(Debug, Default)]
struct Counts {
    comm: Option<String>,
    major: u64,
    minor: u64,
}

/// Faults recorded by perf. Events come in their order; the totals, by thread, at the end.
pub struct PerfData<R: Read> {
    name: String,
    header: Header,
    file: PerfFile,
    records: PerfRecordIter<R>,
    /// What each event counts, and the faults that a sample of it stands for, if that is the same for all.
    events: Vec<(Kind, Option<u64>)>,
    /// The names of threads.
    comms: HashMap<u32, String>,
    /// Of each thread the exception whose kind may come next: the kernel reports both.
    open: HashMap<u32, Fault>,
    threads: BTreeMap<(u32, u32), Counts>,
    ready: VecDeque<Item>,
    batch: Vec<Event>,
    /// When the first and the last sample were taken.
    times: Option<(u64, u64)>,
    /// Samples, and the faults that they stand for.
    samples: u64,
    weights: u64,
    lost: u64,
    ended: bool,
}

impl<R: Read> fmt::Debug for PerfData<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerfData").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<R: Read + Seek> PerfData<R> {
    /// Reads up to the first sample. `name` is what messages call the file, `changed_unix_ns` when it was last written: its end.
    /// If a tool is named, it is of that one.
    ///
    /// # Errors
    /// When it is damaged, or of other events than page faults.
    pub fn open(
        mut input: R,
        name: impl Into<String>,
        tool: Option<&str>,
        changed_unix_ns: i64,
    ) -> Result<Self, RecordingError> {
        let name = name.into();
        let wrong = |why: String| RecordingError::File { name: name.clone(), why };
        inspect(&mut input).map_err(|unfit| match unfit {
            Unfit::Io(source) => RecordingError::Io { name: name.clone(), source },
            Unfit::Why(why) => wrong(why),
        })?;
        if let Some(tool) = tool.filter(|tool| *tool != EVENT.tool()) {
            return Err(wrong(format!("it is a recording of page faults by perf, not of `{tool}`")));
        }
        let reader = PerfFileReader::parse_file(input).map_err(|error| wrong(error.to_string()))?;
        let events = events(&reader.perf_file).map_err(wrong)?;
        let mut this = Self {
            name,
            header: Header::default(),
            file: reader.perf_file,
            records: reader.record_iter,
            events,
            comms: HashMap::new(),
            open: HashMap::new(),
            threads: BTreeMap::new(),
            ready: VecDeque::new(),
            batch: vec![],
            times: None,
            samples: 0,
            weights: 0,
            lost: 0,
            ended: false,
        };
        while this.times.is_none() && !this.ended {
            this.read()?;
        }
        this.header = this.head(changed_unix_ns);
        this.ready.push_front(Item::Header(this.header.clone()));
        Ok(this)
    }
}

impl<R: Read> PerfData<R> {
    /// What was run, where and how.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Why its samples are no faults that can be counted by something else than their thread, if they are not: what was not
    /// recorded is not 0.
    pub fn ungroupable(&self) -> Option<&'static str> {
        let of = |wanted| move |(kind, _): &&(Kind, Option<u64>)| *kind == wanted;
        if [Kind::Major, Kind::Minor].iter().any(|kind| !self.events.iter().any(|event| of(*kind)(&event))) {
            return Some("it does not have both major-faults and minor-faults");
        }
        let counts = self.events.iter().filter(|event| !of(Kind::Dummy)(event));
        counts
            .clone()
            .any(|(_, weight)| *weight != Some(1))
            .then_some("each of its samples stands for several faults")
    }

    fn head(&self, changed_unix_ns: i64) -> Header {
        let word = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (first, _) = self.times.unwrap_or_default();
        let range = self.file.sample_time_range().ok().flatten();
        let lasted = range.map_or(0, |range| range.last_sample_time.saturating_sub(range.first_sample_time));
        let start_unix_ns = match self.file.clock_data().ok().flatten() {
            Some(clock) => {
                (clock.wall_clock_ns.wrapping_add(first)).wrapping_sub(clock.clockid_time_ns).cast_signed()
            }
            None => changed_unix_ns.saturating_sub_unsigned(lasted),
        };
        Header {
            tool: EVENT.tool().into(),
            variant: "perf".into(),
            version: word(self.file.perf_version().ok().flatten()).into(),
            host: word(self.file.hostname().ok().flatten()),
            kernel: word(self.file.os_release().ok().flatten()),
            start_unix_ns,
            start_ns: first,
            tables: vec![By::Thread.schema()],
            events: Some(EVENT),
            settings: vec![],
        }
    }

    /// Reads one record.
    fn read(&mut self) -> Result<(), RecordingError> {
        let wrong = |why: String| RecordingError::File { name: self.name.clone(), why };
        let step = match self.records.next_record(&mut self.file) {
            Err(error) => return Err(wrong(error.to_string())),
            Ok(None) => {
                self.finish();
                return Ok(());
            }
            Ok(Some(PerfFileRecord::UserRecord(_))) => Step::Other,
            Ok(Some(PerfFileRecord::EventRecord { attr_index, record })) => {
                step(&record, self.events.get(attr_index)).map_err(wrong)?
            }
        };
        match step {
            Step::Fault(fault) => self.fault(fault),
            Step::Named(tid, comm) => drop(self.comms.insert(tid, comm)),
            Step::Born(tid, parent) => {
                if let Some(comm) = self.comms.get(&parent).cloned() {
                    self.comms.entry(tid).or_insert(comm);
                }
            }
            Step::Lost(lost) => self.lost = self.lost.saturating_add(lost),
            Step::Other => {}
        }
        Ok(())
    }

    /// An exception is followed by the accounting of its fault, if it ends well: one event is made of both.
    fn fault(&mut self, fault: Fault) {
        let (first, last) = self.times.unwrap_or((fault.time_ns, fault.time_ns));
        self.times = Some((first.min(fault.time_ns), last.max(fault.time_ns)));
        let before = self.open.remove(&fault.tid);
        let is_exception = matches!(fault.kind, Kind::Any | Kind::Exception);
        let fault = match before {
            Some(before) if !is_exception && before.addr == fault.addr => Fault { rw: before.rw, ..fault },
            Some(before) => {
                self.give(&before);
                fault
            }
            None => fault,
        };
        let has_kinds = self.events.iter().any(|(kind, _)| matches!(kind, Kind::Major | Kind::Minor));
        if is_exception && has_kinds {
            self.open.insert(fault.tid, fault);
        } else {
            self.give(&fault);
        }
    }

    fn give(&mut self, fault: &Fault) {
        let comm = self.comms.get(&fault.tid);
        let counts = self.threads.entry((fault.pid, fault.tid)).or_default();
        if counts.comm.as_ref() != comm {
            counts.comm = comm.cloned();
        }
        match fault.kind {
            Kind::Major => counts.major = counts.major.saturating_add(fault.weight),
            Kind::Minor => counts.minor = counts.minor.saturating_add(fault.weight),
            Kind::Any | Kind::Exception | Kind::Dummy => {}
        }
        self.samples += 1;
        self.weights = self.weights.saturating_add(fault.weight);
        let record = Record::named(EVENT, |field| match field {
            "pid" => fault.pid.into(),
            "tid" => fault.tid.into(),
            "comm" => comm.map(String::as_str).into(),
            "kind" => fault.kind.value(),
            "addr" => fault.addr.into(),
            "ip" => fault.ip.into(),
            "rw" => fault.rw.map(Value::word).into(),
            _ => Value::Null,
        });
        self.batch.push(Event { time_ns: fault.time_ns, record });
    }

    /// The row of a thread, or of all.
    fn row(&self, of: Option<(u32, u32)>, counts: &Counts) -> Record {
        let has = |wanted| self.events.iter().any(|(kind, _)| *kind == wanted);
        Record::named(By::Thread.schema(), |field| match field {
            "pid" => of.map(|(pid, _)| pid).into(),
            "tid" => of.map(|(_, tid)| tid).into(),
            "comm" => counts.comm.as_deref().into(),
            "major" => has(Kind::Major).then_some(counts.major).into(),
            "minor" => has(Kind::Minor).then_some(counts.minor).into(),
            _ => Value::Null,
        })
    }

    fn finish(&mut self) {
        let mut open: Vec<Fault> = std::mem::take(&mut self.open).into_values().collect();
        open.sort_by_key(|fault| fault.time_ns);
        open.iter().for_each(|fault| self.give(fault));
        self.give_batch();
        let (first, last) = self.times.unwrap_or_default();
        let all = self.threads.values().fold(Counts::default(), |sum, counts| Counts {
            comm: None,
            major: sum.major.saturating_add(counts.major),
            minor: sum.minor.saturating_add(counts.minor),
        });
        let all = Counts { comm: By::Thread.schema().total().map(str::to_owned), ..all };
        let mut threads: Vec<_> = self.threads.iter().collect();
        threads.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.major.saturating_add(counts.minor)));
        let rows = threads.into_iter().map(|(of, counts)| self.row(Some(*of), counts)).collect();
        let sum = Some(self.row(None, &all));
        self.ready.push_back(Item::Totals(Block { sum, ..Block::new(By::Thread.schema(), last, rows) }));
        self.ready.push_back(Item::End(Facts {
            duration_ns: last - first,
            events: self.samples,
            lost_events: self.lost,
            sampled: self.weights.checked_div(self.samples).unwrap_or(1).max(1),
            ..Facts::default()
        }));
        self.ended = true;
    }

    fn give_batch(&mut self) {
        if !self.batch.is_empty() {
            self.ready.push_back(Item::Events(std::mem::take(&mut self.batch)));
        }
    }
}

impl<R: Read> Source for PerfData<R> {
    type Error = RecordingError;

    fn next(&mut self) -> Result<Option<Item>, RecordingError> {
        while self.ready.is_empty() && !self.ended {
            self.read()?;
            if self.batch.len() >= BATCH {
                self.give_batch();
            }
        }
        Ok(self.ready.pop_front())
    }
}

#[cfg(test)]
mod tests;
