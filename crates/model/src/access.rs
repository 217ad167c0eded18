//! Page accesses: events, totals per process, and what a tracer can and cannot see of a process's memory.

pub mod damon;
pub mod summary;

use crate::field::{Field, Kind, Record, Schema, Show, Unit, Value, field, shown};
use crate::item::Event;

const PID: Field = shown(field("pid", Unit::None, Kind::Key, "process id"), "PID", 8, Show::Integer);
const COMM: Field = shown(field("comm", Unit::None, Kind::Label, "its name"), "COMM", 15, Show::Text);

/// The fields of an event.
pub const EVENT: &Schema = &[
    field(
        "event",
        Unit::None,
        Kind::Label,
        "start (a process is followed from here), engine (its page table is reset from here), access, end",
    ),
    field("pid", Unit::None, Kind::Key, "process id"),
    field("tid", Unit::None, Kind::Key, "thread id"),
    field("comm", Unit::None, Kind::Label, "the thread's name"),
    field("cpu", Unit::None, Kind::Label, "the processor it ran on"),
    field("rw", Unit::None, Kind::Label, "R read, W write, X execute"),
    field(
        "ip",
        Unit::Address,
        Kind::Label,
        "the instruction, in user mode, that accessed or called the kernel",
    ),
    field("addr", Unit::Address, Kind::Label, "the address that was accessed"),
    field("file", Unit::None, Kind::Label, "what is mapped there: a path, or in brackets a sort of memory"),
    field("offset", Unit::Bytes, Kind::Label, "where in that file"),
    field(
        "symbol",
        Unit::None,
        Kind::Label,
        "the function of the instruction, or its file and where in it (--symbols)",
    ),
    field(
        "first",
        Unit::None,
        Kind::Label,
        "1: the page was touched for the first time, and would have faulted without us",
    ),
    field("note", Unit::None, Kind::Label, "of an engine: what it is, what it sees and what it cannot see"),
];

/// The fields of a total: one per process.
pub const TOTAL: &Schema = &[
    PID,
    COMM,
    shown(field("accesses", Unit::Count, Kind::Counter, "events of accesses"), "ACCESSES", 10, Show::Integer),
    shown(field("reads", Unit::Count, Kind::Counter, "that read"), "READS", 10, Show::Integer),
    shown(field("writes", Unit::Count, Kind::Counter, "that wrote"), "WRITES", 10, Show::Integer),
    shown(field("executes", Unit::Count, Kind::Counter, "that executed"), "EXECUTES", 8, Show::Integer),
    shown(field("first", Unit::Count, Kind::Counter, "that were first touches"), "FIRST", 8, Show::Integer),
    shown(
        field("fault_ns", Unit::Nanoseconds, Kind::Counter, "time that the other ones took: what we cost"),
        "COST_MS",
        9,
        Show::Milliseconds(2),
    ),
];

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

/// R, W, X.
fn letter(way: Way) -> &'static str {
    match way {
        Way::Read => "R",
        Way::Write => "W",
        Way::Execute => "X",
    }
}

/// Whether an event is among those that the end of a run counts: an access, not the beginning or end of a process.
#[must_use]
pub fn is_counted(event: &Record) -> bool {
    matches!(event.get("event"), Some(Value::Str(what)) if what == "access")
}

/// Whether a record of [`EVENT`] can be one of ours: a recording may be written by anybody.
///
/// # Errors
/// The first field that cannot be, and why.
pub fn check(event: &Record) -> Result<(), (&'static str, String)> {
    let text = |name: &'static str| match event.get(name) {
        Some(Value::Str(text)) => Ok(Some(text.as_str())),
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err((name, "is not a text".to_owned())),
    };
    let number = |name: &'static str, least: u64, most: u64| match event.get(name) {
        Some(&Value::U64(n)) if (least..=most).contains(&n) => Ok(Some(n)),
        Some(Value::Null) | None => Ok(None),
        Some(Value::U64(n)) => Err((name, format!("is {n}, which it cannot be"))),
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
    let first = number("first", 0, 1)?;
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
        let page = self.page;
        let text = |text: Option<String>| text.map_or(Value::Null, Value::Str);
        let of = |part: fn(&Page) -> Value| page.as_ref().map_or(Value::Null, part);
        let values = vec![
            self.what.name().into(),
            self.pid.into(),
            self.tid.into(),
            Value::Str(self.comm),
            self.cpu.into(),
            of(|p| p.way.map(letter).into()),
            of(|p| p.ip.into()),
            of(|p| p.addr.into()),
            of(|p| p.file.as_deref().into()),
            of(|p| p.offset.into()),
            of(|p| p.symbol.as_deref().into()),
            of(|p| u64::from(p.first).into()),
            text(self.note),
        ];
        Event { time_ns: self.time_ns, record: Record::new(EVENT, values) }
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
    pub fn record(&self, pid: Option<u32>, comm: &str) -> Record {
        let values = vec![
            pid.into(),
            comm.into(),
            self.accesses.into(),
            self.reads.into(),
            self.writes.into(),
            self.executes.into(),
            self.first.into(),
            self.fault_ns.into(),
        ];
        Record::new(TOTAL, values)
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
            "nothing is out of its sight".into()
        } else {
            format!("cannot see {} of {}", size(self.unseen_bytes()), list.join(", "))
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
        assert_eq!(event.record.get("first"), Some(&Value::U64(1)));
        assert_eq!(event.record.get("file"), Some(&Value::Null));
    }

    #[test]
    fn what_is_not_seen_is_named_largest_first() {
        let mut coverage = Coverage { seen: 2 << 20, ..Coverage::default() };
        coverage.miss("[vdso]", 8192);
        coverage.miss("/lib/c.so", 100 << 10);
        coverage.miss("/lib/c.so", 100 << 10);
        assert_eq!(coverage.words(), "sees 2.0 MB; cannot see 208 kB of /lib/c.so 200 kB, [vdso] 8 kB");
        let unsure = Coverage { unsure: 3 << 20, ..Coverage::default() };
        assert!(unsure.words().starts_with("may or may not see 3.0 MB of memory that can be shared; "));
    }
}
