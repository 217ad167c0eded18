//! Page accesses: events, totals per process, and what a tracer can and cannot see of a process's memory.

pub mod damon;
mod layout;
mod run;
pub mod summary;

pub use run::{REACHED, Reached, SETTINGS, Settings};

use crate::field::Show::{Hex, Integer, Milliseconds, Path, Text};
use crate::field::{Kind, Record, Unit, Value};
use crate::item::Event;
use crate::table::{Schema, Table, count, flag, id, label, number};

#[rustfmt::skip]
static STEP: Table<Step> = Table::new("access.event", "access", &[&[
    label("event", "The event: start (a process is followed from here), engine (its page table is reset from here), access, end.", |s| Value::word(s.what.name())),
    id("pid", "The process id.", |s| s.pid.into()),
    id("tid", "The thread id.", |s: &Step| s.tid.into()).shown("TID", 8, Integer),
    label("comm", "The name of the thread.", |s: &Step| s.comm.as_str().into()).shown("COMM", 15, Text),
    number("cpu", (Unit::None, Kind::Label), "The processor that the thread ran on.", |s| s.cpu.into()),
    label("rw", "How the memory was accessed: R read, W write, X execute.", |s: &Step| s.of(|p| p.way.map(|way| Value::word(way.name())).into())).shown("RW", 2, Text),
    number("ip", (Unit::Address, Kind::Label), "The instruction, in user mode, that accessed or called the kernel.", |s| s.of(|p| p.ip.into())),
    number("addr", (Unit::Address, Kind::Label), "The address that was accessed.", |s: &Step| s.of(|p| p.addr.into())).shown("ADDR", 14, Hex),
    label("file", "What is mapped at the address: a path, or in brackets the kind of memory.", |s: &Step| s.of(|p| p.file.as_deref().into())).shown("FILE", 6, Path).least(16),
    number("offset", (Unit::Bytes, Kind::Label), "The offset of the address in the file.", |s| s.of(|p| p.offset.into())),
    label("symbol", "The function of the instruction, or its file and offset there (--symbols).", |s| s.of(|p| p.symbol.as_deref().into())),
    flag("first", "Whether the page was accessed for the first time, and would have faulted without us.", |s| s.of(|p| p.first.into())),
    label("note", "What an engine is, what it sees and what it cannot see.", |s| s.note.as_deref().into()),
]]);

/// What a process did in all.
struct TallyRow {
    pid: u32,
    comm: String,
    tally: Tally,
}

#[rustfmt::skip]
static PROCESS: Table<TallyRow> = Table::new("access.process", "access", &[&[
    id("pid", "The process id.", |r: &TallyRow| r.pid.into()).shown("PID", 8, Integer),
    label("comm", "The name of the process.", |r: &TallyRow| r.comm.as_str().into()).shown("COMM", 15, Text),
    count("accesses", "The accesses that were seen.", |r: &TallyRow| r.tally.accesses.into()).shown("ACCESSES", 10, Integer),
    count("reads", "The accesses that read.", |r: &TallyRow| r.tally.reads.into()).shown("READS", 10, Integer),
    count("writes", "The accesses that wrote.", |r: &TallyRow| r.tally.writes.into()).shown("WRITES", 10, Integer),
    count("executes", "The accesses that executed.", |r: &TallyRow| r.tally.executes.into()).shown("EXECUTES", 8, Integer).yields(6),
    count("first", "The accesses that were the first to their page.", |r: &TallyRow| r.tally.first.into()).shown("FIRST", 8, Integer).yields(7),
    number("fault_ns", (Unit::Nanoseconds, Kind::Counter), "Time spent in the faults that tracing caused: those of accesses that were not the first.", |r: &TallyRow| r.tally.fault_ns.into()).shown("COST_MS", 9, Milliseconds(2)),
]]).total("TOTAL");

/// The steps in the lives of processes: their accesses, their beginnings and ends.
pub const EVENT: &Schema = &STEP;

/// Totals: one per process.
pub const TOTAL: &Schema = &PROCESS;

/// All tables of the tool.
pub(crate) fn tables() -> impl Iterator<Item = &'static Schema> {
    let summaries = summary::View::ALL.map(summary::View::schema);
    [EVENT, TOTAL].into_iter().chain(summaries).chain(run::TABLES)
}

pub use layout::{SUMMARY, TRACE};

/// How memory was touched.
pub use crate::faults::Access as Way;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A process is followed from here.
    Start,
    /// Its page table is reset from here on, or not, as the note says.
    Engine,
    /// A page was accessed.
    Access,
    /// A process has ended.
    End,
}

impl What {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Engine => "engine",
            Self::Access => "access",
            Self::End => "end",
        }
    }
}

/// One step in the life of a traced process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// What it was.
    pub what: What,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name.
    pub comm: String,
    /// The processor; not known for what was not seen by a probe.
    pub cpu: Option<u32>,
    /// The access, if it was one.
    pub page: Option<Page>,
    /// Words.
    pub note: Option<String>,
}

/// An access to a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How.
    pub way: Option<Way>,
    /// The instruction in user mode.
    pub ip: Option<u64>,
    /// The address.
    pub addr: u64,
    /// What is mapped there: a path, or in brackets a sort of memory; nothing if that is not known.
    pub file: Option<String>,
    /// Where in the file, bytes.
    pub offset: Option<u64>,
    /// The function of the instruction.
    pub symbol: Option<String>,
    /// Whether it was the first touch.
    pub first: bool,
}

/// Whether an event is among those that the end of a run counts: an access, not the beginning or end of a process.
#[must_use]
pub fn is_counted(event: &Record) -> bool {
    matches!(event.get("event"), Some(Value::Str(what)) if what == What::Access.name())
}

/// Whether a record of [`EVENT`] can be one of ours: a recording may be written by anybody.
///
/// # Errors
/// The first field that cannot be, and why.
pub fn check(event: &Record) -> Result<(), (&'static str, String)> {
    let text = |name: &'static str| match event.get(name) {
        Some(Value::Str(text)) => Ok(Some(text.as_ref())),
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err((name, "is not a string".to_owned())),
    };
    let number = |name: &'static str, least: u64, most: u64| match event.get(name) {
        Some(&Value::U64(n)) if (least..=most).contains(&n) => Ok(Some(n)),
        Some(Value::Null) | None => Ok(None),
        Some(Value::U64(n)) => Err((name, format!("is {n}, which is out of range"))),
        Some(_) => Err((name, "is not a whole number".to_owned())),
    };
    let given = |name, is: bool| if is { Ok(()) } else { Err((name, "is missing".to_owned())) };
    const WHATS: [What; 4] = [What::Start, What::Engine, What::Access, What::End];
    let what = text("event")?;
    given("event", what.is_some())?;
    let what = WHATS.into_iter().find(|known| Some(known.name()) == what);
    let what = what.ok_or_else(|| ("event", "is none of start, engine, access, end".to_owned()))?;
    for name in ["pid", "tid"] {
        given(name, number(name, 1, u64::from(u32::MAX))?.is_some())?;
    }
    number("cpu", 0, u64::from(u32::MAX))?;
    for name in ["comm", "file", "symbol", "note"] {
        text(name)?;
    }
    if text("rw")?.is_some_and(|letter| way(letter).is_none()) {
        return Err(("rw", "is none of R, W, X".into()));
    }
    let first = match event.get("first") {
        Some(&Value::Bool(first)) => Some(first),
        Some(Value::Null) | None => None,
        Some(_) => return Err(("first", "is neither 0 nor 1".to_owned())),
    };
    number("ip", 0, u64::MAX)?;
    let addr = number("addr", 0, u64::MAX)?;
    if what == What::Access {
        given("addr", addr.is_some())?;
        given("first", first.is_some())?;
    }
    Ok(())
}

/// The way of a letter.
fn way(letter: &str) -> Option<Way> {
    match letter {
        "R" => Some(Way::Read),
        "W" => Some(Way::Write),
        "X" => Some(Way::Execute),
        _ => None,
    }
}

impl Step {
    /// As an event with a record of [`EVENT`].
    #[must_use]
    pub fn event(self) -> Event {
        STEP.event(self.time_ns, &self)
    }

    /// Something of the access, if it was one.
    fn of(&self, part: fn(&Page) -> Value) -> Value {
        self.page.as_ref().map_or(Value::Null, part)
    }
}

/// What a process did in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events of accesses.
    pub accesses: u64,
    /// That read.
    pub reads: u64,
    /// That wrote.
    pub writes: u64,
    /// That executed.
    pub executes: u64,
    /// That were first touches.
    pub first: u64,
    /// Time of the faults that were none, nanoseconds.
    pub fault_ns: u64,
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, way: Option<Way>, first: bool, latency_ns: u64) {
        self.accesses += 1;
        match way {
            Some(Way::Read) => self.reads += 1,
            Some(Way::Write) => self.writes += 1,
            Some(Way::Execute) => self.executes += 1,
            None => {}
        }
        if first {
            self.first += 1;
        } else {
            self.fault_ns += latency_ns;
        }
    }

    /// As a record of [`TOTAL`].
    #[must_use]
    pub fn record(&self, pid: u32, comm: &str) -> Record {
        PROCESS.record(&TallyRow { pid, comm: comm.to_owned(), tally: *self })
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accesses += other.accesses;
        self.reads += other.reads;
        self.writes += other.writes;
        self.executes += other.executes;
        self.first += other.first;
        self.fault_ns += other.fault_ns;
    }
}

/// A size for people: `12 kB`, `3.4 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} kB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{:.1} MB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GB", bytes as f64 / 1_073_741_824.0),
    }
}

/// So many mappings are named; the others are put together.
const NAMED: usize = 12;

/// How much of a process's memory is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Bytes of the mappings that are seen whole: reads and writes, or all that can happen to them.
    pub seen: u64,
    /// Bytes of mappings of which writes are seen and reads are not.
    pub writes_only: u64,
    /// Bytes of mappings of which it could not be found out whether they are seen.
    pub unsure: u64,
    /// Names and bytes of mappings that are not seen but for the first touch of each page.
    pub unseen: Vec<(String, u64)>,
}

impl Coverage {
    /// Adds a mapping that is not seen.
    pub fn miss(&mut self, name: &str, bytes: u64) {
        match self.unseen.iter_mut().find(|(n, _)| n == name) {
            Some((_, sum)) => *sum += bytes,
            None => self.unseen.push((name.to_owned(), bytes)),
        }
    }

    /// Adds what another process's is.
    pub fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.writes_only += other.writes_only;
        self.unsure += other.unsure;
        other.unseen.iter().for_each(|(name, bytes)| self.miss(name, *bytes));
    }

    /// Bytes that are not seen.
    #[must_use]
    pub fn unseen_bytes(&self) -> u64 {
        self.unseen.iter().map(|(_, bytes)| bytes).sum()
    }

    /// In words, the largest of the unseen first.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if self.seen > 0 {
            words.push(format!("sees {}", size(self.seen)));
        }
        if self.writes_only > 0 {
            words.push(format!("sees writes to {}", size(self.writes_only)));
        }
        if self.unsure > 0 {
            words.push(format!("may or may not see {} of memory that can be shared", size(self.unsure)));
        }
        let mut unseen: Vec<_> = self.unseen.iter().collect();
        unseen.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut list: Vec<String> =
            unseen.iter().take(NAMED).map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
        if unseen.len() > NAMED {
            let rest = unseen[NAMED..].iter().map(|(_, bytes)| bytes).sum();
            list.push(format!("{} others {}", unseen.len() - NAMED, size(rest)));
        }
        words.push(if list.is_empty() {
            "sees everything".into()
        } else {
            format!("does not see {} of {}", size(self.unseen_bytes()), list.join(", "))
        });
        words.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_has_every_field_of_the_schema() {
        let step = Step {
            time_ns: 5,
            what: What::Access,
            pid: 1,
            tid: 2,
            comm: "x".into(),
            cpu: Some(3),
            page: Some(Page {
                way: Some(Way::Write),
                ip: Some(0x40),
                addr: 0x5000,
                file: None,
                offset: None,
                symbol: None,
                first: true,
            }),
            note: None,
        };
        let event = step.event();
        assert_eq!(event.record.get("rw"), Some(&"W".into()));
        assert_eq!(event.record.get("addr"), Some(&Value::U64(0x5000)));
        assert_eq!(event.record.get("first"), Some(&Value::Bool(true)));
        assert_eq!(event.record.get("file"), Some(&Value::Null));
    }

    #[test]
    fn what_is_not_seen_is_named_largest_first() {
        let mut coverage = Coverage { seen: 2 << 20, ..Coverage::default() };
        coverage.miss("[vdso]", 8192);
        coverage.miss("/lib/c.so", 100 << 10);
        coverage.miss("/lib/c.so", 100 << 10);
        assert_eq!(coverage.words(), "sees 2.0 MB; does not see 208 kB of /lib/c.so 200 kB, [vdso] 8 kB");
        let unsure = Coverage { unsure: 3 << 20, ..Coverage::default() };
        assert!(unsure.words().starts_with("may or may not see 3.0 MB of memory that can be shared; "));
    }
}
