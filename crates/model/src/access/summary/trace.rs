//! Events, as far as summaries need them: small, and in order of time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::super::Way;
use crate::field::{Record, Value};
use crate::item::Event;

/// The base-2 logarithm of a page's size.
const PAGE_SHIFT: u32 = 12;
/// Bytes of a page.
pub const PAGE: u64 = 1 << PAGE_SHIFT;
/// An event that comes later than this after a younger one is not put in order any more.
pub(in crate::access) const GRACE_NS: u64 = 50_000_000;
/// Mappings that are told apart at most.
const MOST_MAPPINGS: usize = 1 << 20;

/// An access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::access) struct Access {
    pub(in crate::access) time_ns: u64,
    /// Index of the program.
    pub(in crate::access) space: u32,
    pub(in crate::access) tid: u32,
    pub(in crate::access) addr: u64,
    /// The instruction, 0 if it is not known.
    pub(in crate::access) ip: u64,
    /// Index of the mapping.
    pub(in crate::access) mapping: u32,
    pub(in crate::access) way: Option<Way>,
    pub(in crate::access) first: bool,
}

impl Access {
    /// Its address divided by [`PAGE`].
    pub(in crate::access) fn page(&self) -> u64 {
        self.addr >> PAGE_SHIFT
    }
}

/// A program in a process: an exec makes another one, in which no page is that of before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::access) struct Space {
    pub(in crate::access) pid: u32,
    /// When it was first seen, CLOCK_MONOTONIC nanoseconds.
    pub(in crate::access) from_ns: u64,
    /// When it was over, the same; `u64::MAX` if it is not.
    until_ns: u64,
    pub(in crate::access) comm: String,
}

/// What is mapped: a file and where, or a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Mapping {
    file: u32,
    /// The offset in the file minus the address, modulo 2^64; nothing if there is no file.
    shift: Option<u64>,
}

/// Names of what occurs in a trace, which accesses refer to by number.
#[derive(Debug, Default)]
pub(in crate::access) struct Words {
    spaces: Vec<Space>,
    /// The program that each process runs now.
    running: HashMap<u32, u32>,
    /// Since when a process runs a program, and its name, as far as it was told.
    told: HashMap<u32, (u64, String)>,
    files: HashMap<Box<str>, u32>,
    names: Vec<Box<str>>,
    mappings: HashMap<Mapping, u32>,
    all: Vec<Mapping>,
}

/// Memory whose mapping was not known: it was not read yet, or not any more.
const UNKNOWN: &str = "[unknown]";
/// What did not get a number any more.
const OTHERS: &str = "[others]";

impl Words {
    /// The access that an event tells of; nothing if it tells of none, an error if it does not say where.
    pub(in crate::access) fn read(&mut self, event: &Event) -> Result<Option<Access>, Nowhere> {
        let seen = Seen::of(&event.record);
        let is_access = seen.event == "access";
        let Some(pid) = seen.pid else { return if is_access { Err(Nowhere) } else { Ok(None) } };
        match seen.event {
            "start" => {
                self.over(pid, event.time_ns);
                self.told.insert(pid, (event.time_ns, seen.comm.to_owned()));
                Ok(None)
            }
            "engine" => {
                match self.running.get(&pid) {
                    Some(&space) => self.spaces[space as usize].comm = seen.comm.to_owned(),
                    None => {
                        let told = self.told.entry(pid).or_insert_with(|| (event.time_ns, String::new()));
                        told.1 = seen.comm.to_owned();
                    }
                }
                Ok(None)
            }
            "end" => {
                self.over(pid, event.time_ns);
                self.told.remove(&pid);
                Ok(None)
            }
            "access" => {
                let Some(addr) = seen.addr else { return Err(Nowhere) };
                Ok(Some(Access {
                    time_ns: event.time_ns,
                    space: self.space(pid, event.time_ns, seen.comm),
                    tid: seen.tid,
                    addr,
                    ip: seen.ip.unwrap_or(0),
                    mapping: self.mapping(seen.file, seen.offset.map(|offset| offset.wrapping_sub(addr))),
                    way: seen.way,
                    first: seen.first,
                }))
            }
            _ => Ok(None),
        }
    }

    fn space(&mut self, pid: u32, time_ns: u64, comm: &str) -> u32 {
        *self.running.entry(pid).or_insert_with(|| {
            let (from_ns, comm) = self.told.remove(&pid).unwrap_or_else(|| (time_ns, comm.to_owned()));
            self.spaces.push(Space { pid, from_ns, until_ns: u64::MAX, comm });
            (self.spaces.len() - 1) as u32
        })
    }

    fn mapping(&mut self, file: Option<&str>, shift: Option<u64>) -> u32 {
        let (name, shift) =
            if self.all.len() < MOST_MAPPINGS { (file.unwrap_or(UNKNOWN), shift) } else { (OTHERS, None) };
        let file = match self.files.get(name) {
            Some(&file) => file,
            None => {
                let file = self.names.len() as u32;
                self.names.push(name.into());
                self.files.insert(name.into(), file);
                file
            }
        };
        *self.mappings.entry(Mapping { file, shift }).or_insert_with_key(|&mapping| {
            self.all.push(mapping);
            (self.all.len() - 1) as u32
        })
    }

    pub(in crate::access) fn of(&self, space: u32) -> &Space {
        &self.spaces[space as usize]
    }

    /// Whether a program was over at a time.
    pub(in crate::access) fn is_over(&self, space: u32, time_ns: u64) -> bool {
        self.spaces.get(space as usize).is_some_and(|space| space.until_ns <= time_ns)
    }

    /// The program that a process runs is over.
    fn over(&mut self, pid: u32, time_ns: u64) {
        if let Some(space) = self.running.remove(&pid) {
            self.spaces[space as usize].until_ns = time_ns;
        }
    }

    /// What is mapped.
    pub(in crate::access) fn file(&self, mapping: u32) -> &str {
        &self.names[self.all[mapping as usize].file as usize]
    }

    /// Whether it was not known what is mapped.
    pub(in crate::access) fn is_unknown(&self, mapping: u32) -> bool {
        self.file(mapping) == UNKNOWN
    }

    /// Where in the file a page is, if it is in a file.
    pub(in crate::access) fn offset(&self, mapping: u32, page: u64) -> Option<u64> {
        self.all[mapping as usize].shift.map(|shift| (page << PAGE_SHIFT).wrapping_add(shift))
    }
}

/// An access that does not say of whom or where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::access) struct Nowhere;

/// The fields of an event that matter here.
#[derive(Debug, Default)]
struct Seen<'a> {
    event: &'a str,
    pid: Option<u32>,
    tid: u32,
    comm: &'a str,
    way: Option<Way>,
    addr: Option<u64>,
    ip: Option<u64>,
    file: Option<&'a str>,
    offset: Option<u64>,
    first: bool,
}

impl<'a> Seen<'a> {
    fn of(record: &'a Record) -> Self {
        let mut seen = Self::default();
        for (field, value) in record.iter() {
            match (field.name, value) {
                ("event", Value::Str(text)) => seen.event = text,
                ("pid", &Value::U64(n)) => seen.pid = u32::try_from(n).ok(),
                ("tid", &Value::U64(n)) => seen.tid = u32::try_from(n).unwrap_or(u32::MAX),
                ("comm", Value::Str(text)) => seen.comm = text,
                ("rw", Value::Str(text)) => seen.way = super::super::way(text),
                ("addr", &Value::U64(n)) => seen.addr = Some(n),
                ("ip", &Value::U64(n)) => seen.ip = Some(n),
                ("file", Value::Str(text)) => seen.file = Some(text),
                ("offset", &Value::U64(n)) => seen.offset = Some(n),
                ("first", &Value::Bool(first)) => seen.first = first,
                _ => {}
            }
        }
        seen
    }
}

/// Holds accesses back for a moment, to give them in order: processors tell independently of each other.
#[derive(Debug, Default)]
pub(in crate::access) struct Order {
    waiting: BinaryHeap<Reverse<Waiting>>,
    serial: u64,
    latest_ns: u64,
}

#[derive(Debug)]
struct Waiting(Access, u64);

impl Waiting {
    fn key(&self) -> (u64, u64) {
        (self.0.time_ns, self.1)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Order {
    pub(in crate::access) fn push(&mut self, access: Access) {
        self.latest_ns = self.latest_ns.max(access.time_ns);
        self.waiting.push(Reverse(Waiting(access, self.serial)));
        self.serial += 1;
    }

    /// It is this time by now.
    pub(in crate::access) fn advance(&mut self, time_ns: u64) {
        self.latest_ns = self.latest_ns.max(time_ns);
    }

    /// Up to when all is known.
    pub(in crate::access) fn settled_ns(&self) -> u64 {
        self.latest_ns.saturating_sub(GRACE_NS)
    }

    /// The next access that no older one is expected before.
    pub(in crate::access) fn settled(&mut self) -> Option<Access> {
        let due = self.waiting.peek().is_some_and(|w| w.0.0.time_ns <= self.settled_ns());
        if due { self.pop() } else { None }
    }

    /// The next access.
    pub(in crate::access) fn pop(&mut self) -> Option<Access> {
        self.waiting.pop().map(|Reverse(Waiting(access, _))| access)
    }
}

/// Threads whose last access is remembered; when there are more, all are forgotten.
const MOST_THREADS: usize = 1 << 16;

/// Knows what is no access of its own. One write may take several faults: one that brings the page, one that lets it
/// be written to, one in which a file system is told.
#[derive(Debug)]
pub(in crate::access) struct Twice {
    last: HashMap<u32, Access>,
    within_ns: u64,
    pub(in crate::access) merged: u64,
}

impl Twice {
    /// For such a period: two rounds are at least half of it apart.
    pub(in crate::access) fn new(period_ns: u64) -> Self {
        Self { last: HashMap::new(), within_ns: period_ns / 2, merged: 0 }
    }

    /// Whether an access is another fault of the one before: of the same instruction at the same address, next in its
    /// thread, and too soon for a round to lie between.
    pub(in crate::access) fn is(&mut self, access: &Access) -> bool {
        if self.last.len() >= MOST_THREADS {
            self.last.clear();
        }
        let before = self.last.insert(access.tid, *access);
        let twice = before.is_some_and(|before| {
            let same = |a: &Access| (a.space, a.addr, a.ip, a.way);
            // Of an instruction that is not known nothing can be said.
            access.ip != 0
                && same(&before) == same(access)
                && access.time_ns.saturating_sub(before.time_ns) < self.within_ns
        });
        self.merged += u64::from(twice);
        twice
    }
}
