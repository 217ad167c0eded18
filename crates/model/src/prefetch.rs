//! What of files a run faulted on, as a list: ranges in the order of their first fault. `trapline prefetch` reads them ahead.

use std::collections::{BTreeMap, HashMap};

use crate::field::Show::{Hex, Integer, Path};
use crate::field::{Kind, Record, Unit, Value};
use crate::item::{Block, Facts, Header, Item, Source};
use crate::table::{Schema, Table, count, key, loss, number};

/// The kernel maps up to so much around a fault on what is cached (`fault_around_bytes`), at a multiple of it: pages in it may
/// be used without a fault of their own.
pub const AROUND: u64 = 64 << 10;

/// What a file is, so that another one by the same name is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its size, bytes.
    pub size: u64,
    /// When it was last changed, nanoseconds since the epoch.
    pub mtime_ns: u64,
    /// Its number in its file system.
    pub inode: u64,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The path.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// The file when the list was made.
    pub of: Identity,
}

const PLACE: (Unit, Kind) = (Unit::Bytes, Kind::Key);

#[rustfmt::skip]
static RANGES: Table<Range> = Table::new("prefetch.range", "prefetch", &[&[
    key("file", "The path of the file.", |r: &Range| r.file.as_str().into()).shown("FILE", 48, Path),
    number("offset", PLACE, "The offset of the range in the file.", |r: &Range| r.offset.into()).shown("OFFSET", 12, Hex),
    number("length", (Unit::Bytes, Kind::Counter), "The length of the range.", |r: &Range| r.length.into()).shown("LENGTH", 12, Integer),
    number("size", (Unit::Bytes, Kind::Label), "The size of the file when the list was made.", |r| r.of.size.into()),
    number("mtime_ns", (Unit::Nanoseconds, Kind::Label), "The time of the last change of the file when the list was made, since the epoch.", |r| r.of.mtime_ns.into()),
    number("inode", (Unit::None, Kind::Label), "The inode number of the file when the list was made.", |r| r.of.inode.into()),
]]).total("TOTAL");

/// Ranges.
pub const RANGE: &Schema = &RANGES;

/// What is not in a list.
#[derive(Debug, Default)]
struct Left {
    files: u64,
    faults: u64,
}

#[rustfmt::skip]
static FACTS: Table<Left> = Table::facts("prefetch.facts", "prefetch", &[&[
    loss("unlisted_files", "Files with faults that are not in the list: there is no regular file by that path any more.", |l| l.files.into()),
    count("faults_elsewhere", "Faults on memory without a file, which the list leaves out.", |l: &Left| l.faults.into()),
]]);

/// All of them.
pub(crate) const TABLES: &[&Schema] = &[RANGE, &FACTS];

impl Range {
    /// What a record of a list has; nothing if that is no range.
    #[must_use]
    pub fn of_record(record: &Record) -> Option<Self> {
        let Some(Value::Str(file)) = record.get("file") else { return None };
        let [offset, length, size, mtime_ns, inode] =
            ["offset", "length", "size", "mtime_ns", "inode"].map(|name| record.number(name));
        let of = Identity { size: size?, mtime_ns: mtime_ns?, inode: inode? };
        Some(Self { file: file.to_string(), offset: offset?, length: length?, of })
    }
}

/// Makes a list of events that have a file and an offset.
#[derive(Debug)]
pub struct Ranges<S: Source, F> {
    source: S,
    identify: F,
    /// Of each file, the parts of this size with a fault, and at which fault of all.
    files: HashMap<String, BTreeMap<u64, u64>>,
    events: u64,
    last_ns: u64,
    left: Left,
    /// Why the recording cannot be read on, until what is intact was given.
    error: Option<S::Error>,
}

impl<S: Source, F: Fn(&str) -> Option<Identity>> Ranges<S, F> {
    /// Over a source of single faults or accesses. `identify` says what a file is now, if it is a regular one.
    pub fn new(source: S, identify: F) -> Self {
        let (files, left) = (HashMap::new(), Left::default());
        Self { source, identify, files, events: 0, last_ns: 0, left, error: None }
    }

    fn event(&mut self, record: &Record) {
        let offset = record.number("offset");
        let (Some(Value::Str(file)), Some(offset)) = (record.get("file"), offset) else {
            self.left.faults += 1;
            return;
        };
        // Memory without a file has a kind for a name.
        if !file.starts_with('/') {
            self.left.faults += 1;
            return;
        }
        self.events += 1;
        let at = self.events;
        if !self.files.contains_key(file.as_ref()) {
            self.files.insert(file.to_string(), BTreeMap::new());
        }
        if let Some(parts) = self.files.get_mut(file.as_ref()) {
            parts.entry(offset / AROUND).or_insert(at);
        }
    }

    /// The list.
    fn block(&mut self, time_ns: u64) -> Block {
        let mut ranges = Vec::new();
        for (file, parts) in std::mem::take(&mut self.files) {
            match (self.identify)(&file) {
                Some(of) => ranges.extend(merged(&file, &parts, of)),
                None => self.left.files += 1,
            }
        }
        ranges.sort_by_key(|(first, _)| *first);
        let records = ranges.iter().map(|(_, range)| RANGES.record(range)).collect();
        Block::new(RANGE, time_ns, records)
    }
}

/// The ranges of a file, each with its first fault: parts that touch are one.
fn merged(file: &str, parts: &BTreeMap<u64, u64>, of: Identity) -> Vec<(u64, Range)> {
    let mut ranges: Vec<(u64, Range)> = Vec::new();
    for (&part, &at) in parts {
        let offset = part * AROUND;
        let length = AROUND.min(of.size.saturating_sub(offset));
        match ranges.last_mut() {
            _ if length == 0 => {}
            Some((first, range)) if range.offset + range.length == offset => {
                range.length += length;
                *first = at.min(*first);
            }
            _ => ranges.push((at, Range { file: file.to_owned(), offset, length, of })),
        }
    }
    ranges
}

impl<S: Source, F: Fn(&str) -> Option<Identity>> Source for Ranges<S, F> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        loop {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            let item = match self.source.next() {
                Err(error) if !self.files.is_empty() => {
                    self.error = Some(error);
                    return Ok(Some(Item::Totals(self.block(self.last_ns))));
                }
                item => item?,
            };
            match item {
                None => return Ok(None),
                Some(Item::Header(header)) => {
                    let header = Header {
                        tool: "prefetch".into(),
                        tables: vec![RANGE],
                        events: None,
                        settings: vec![],
                        ..header
                    };
                    return Ok(Some(Item::Header(header)));
                }
                Some(Item::Events(events)) => {
                    self.last_ns = events.last().map_or(self.last_ns, |event| event.time_ns);
                    events.iter().for_each(|event| self.event(&event.record));
                }
                Some(Item::Totals(block)) => return Ok(Some(Item::Totals(self.block(block.time_ns)))),
                Some(Item::Rows(_) | Item::Facts(_) | Item::Tick(_)) => {}
                Some(Item::End(end)) => {
                    let more = vec![FACTS.record(&self.left)];
                    return Ok(Some(Item::End(Facts { events: self.events, more, ..end })));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::faults::EVENT;
    use crate::item::Event;

    const SIZE: u64 = 20 * AROUND + 100;

    fn list(faults: &[(&str, u64)]) -> (Vec<(String, u64, u64)>, Facts) {
        let event = |(file, offset): &(&str, u64)| Event {
            time_ns: 1,
            record: Record::named(EVENT, |name| match name {
                "file" => (*file).into(),
                "offset" => (*offset).into(),
                _ => Value::Null,
            }),
        };
        let items = VecDeque::from([
            Item::Header(Header::default()),
            Item::Events(faults.iter().map(event).collect()),
            Item::Totals(Block::new(EVENT, 7, vec![])),
            Item::End(Facts::default()),
        ]);
        let identify =
            |file: &str| (file != "/gone").then_some(Identity { size: SIZE, mtime_ns: 3, inode: 4 });
        let mut ranges = Ranges::new(items, identify);
        let mut of = Vec::new();
        loop {
            match ranges.next() {
                Ok(Some(Item::Totals(block))) => {
                    let read = block.rows.iter().map(|row| Range::of_record(row).unwrap());
                    of.extend(read.map(|range| (range.file, range.offset / AROUND, range.length)));
                }
                Ok(Some(Item::End(end))) => return (of, end),
                _ => {}
            }
        }
    }

    #[test]
    fn ranges_are_merged_and_in_the_order_of_their_first_fault() {
        let page = 4096;
        let faults = [
            ("/b", 9 * AROUND + page),
            ("/a", 3 * AROUND),
            ("[heap]", 0),
            ("/a", 5 * AROUND),
            ("/b", 20 * AROUND),
            ("/a", 4 * AROUND + 15 * page),
            ("/b", 9 * AROUND + 2 * page),
            ("/a", 0),
            ("/gone", 0),
            ("/b", 10 * AROUND),
            // It was longer once.
            ("/b", 99 * AROUND),
        ];
        let (ranges, end) = list(&faults);
        let expected = [("/b", 9, 2 * AROUND), ("/a", 3, 3 * AROUND), ("/b", 20, 100), ("/a", 0, AROUND)];
        let expected = expected.map(|(file, part, length)| (file.to_owned(), part, length));
        assert_eq!(ranges, expected);
        assert_eq!(
            (end.events, end.get("unlisted_files"), end.get("faults_elsewhere")),
            (10, Some(1), Some(1))
        );
    }

    #[test]
    fn a_record_that_is_no_range_is_none() {
        let record = |file: Value, length: Value| {
            Record::named(RANGE, |name| match name {
                "file" => file.clone(),
                "length" => length.clone(),
                _ => 1u64.into(),
            })
        };
        assert!(Range::of_record(&record("/a".into(), 5u64.into())).is_some());
        assert!(Range::of_record(&record(Value::Null, 5u64.into())).is_none());
        assert!(Range::of_record(&record("/a".into(), Value::Null)).is_none());
    }
}
