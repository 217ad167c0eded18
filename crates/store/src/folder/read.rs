//! Reads a recording: write after write, item after item.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value as Json;
use trapline_model::faults::{Chunk, Chunks, FaultColumns, STACK_EVENT, are_faults};
use trapline_model::recorded::{self, ENTRY, EntryKind};
use trapline_model::{
    AsItems, Block, CUT_OFF, Columns as _, CutOff, Event, Facts, Header, Item, KEPT, Kept, RUN, Record,
    Schema, Source, Value, table,
};

use super::manifest::{self, Manifest, Part};
use super::part::{Reader, Row, foreign};
use super::stacks::{ID, Stacks, TEXTS};
use super::{END, HEADER, unseal};
use crate::RecordingError;
use crate::jsonl::{Line, end, header};

/// Longer files are none of ours, bytes.
const LONGEST: u64 = 1 << 30;

/// A recording in a folder.
#[derive(Debug)]
pub struct FolderRecording {
    path: PathBuf,
    name: String,
    header: Header,
    writes: VecDeque<u64>,
    all_writes: Vec<u64>,
    last_write: u64,
    now: Write,
    /// What is to be given next.
    ready: VecDeque<Chunk>,
    /// Faults are given column by column.
    in_columns: bool,
    /// The columns of faults that are read, if not all.
    only: Option<Vec<&'static str>>,
    /// The names of stacks, once they were asked for.
    stacks: Option<Stacks>,
    /// The first thing that is not as it was written.
    damage: Option<String>,
    counted: u64,
    has_totals: bool,
    /// What was counted and lost up to the last time that it was said.
    facts: Option<Facts>,
    last_ns: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// All was given that there is; an error may follow.
    Given,
    Ended,
}

/// The parts of a write that is being read.
#[derive(Default)]
struct Write {
    items: Option<(String, Reader)>,
    tables: HashMap<(EntryKind, &'static str), (String, Reader)>,
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tables.keys()).finish()
    }
}

impl FolderRecording {
    /// Reads the header. `name` is what messages call the recording; if a tool is named, it is of that one.
    ///
    /// # Errors
    /// When it is not a recording, or of another tool.
    pub fn open(path: &Path, name: impl Into<String>, tool: Option<&str>) -> Result<Self, RecordingError> {
        let name = name.into();
        let failed = |source| RecordingError::Io { name: name.clone(), source };
        let wrong = |why: String| RecordingError::Folder { name: name.clone(), why };
        let mut writes = Vec::new();
        let mut is_empty = true;
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            writes.extend(file.to_str().and_then(manifest::number));
            is_empty = false;
        }
        if is_empty {
            return Err(wrong("the folder is empty, not a recording".into()));
        }
        let of_header = |why: String| wrong(format!("{HEADER}: {why}"));
        let line = match json(&path.join(HEADER)) {
            Ok(Some(line)) => line,
            Ok(None) => {
                return Err(wrong(format!("{HEADER} is missing: it is not a recording, or a part of one")));
            }
            Err(why) => return Err(of_header(why)),
        };
        let mut header = header(&line, tool).map_err(of_header)?;
        writes.sort_unstable();
        let mut damage = None;
        if let Some(last) = writes.last().copied() {
            let Manifest { first, moments, .. } =
                manifest_of(path, last).unwrap_or(Manifest { first: 1, ..Manifest::default() });
            writes.retain(|number| *number >= first || moments.contains(number));
            let missing =
                moments.into_iter().chain(first..last).find(|number| writes.binary_search(number).is_err());
            damage = missing.map(|number| format!("{} is missing", manifest::name(number)));
            if let Some(kept) = kept(path, &writes).filter(|_| first > 1) {
                header.set(KEPT.record(&kept));
            }
        }
        let (last_ns, ready) = (header.start_ns, VecDeque::from([Chunk::Item(Item::Header(header.clone()))]));
        Ok(Self {
            path: path.into(),
            name,
            header,
            last_write: writes.last().copied().unwrap_or(0),
            all_writes: writes.clone(),
            writes: writes.into(),
            now: Write::default(),
            ready,
            in_columns: false,
            only: None,
            stacks: None,
            damage,
            counted: 0,
            has_totals: false,
            facts: None,
            last_ns,
            state: State::Reading,
        })
    }

    /// What was run, where and how.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether it has no end: it is being written, or what wrote it was killed.
    pub fn is_cut_off(&self) -> bool {
        !self.path.join(END).exists()
    }

    fn damaged(&mut self, file: &str, why: &str) {
        self.damage.get_or_insert_with(|| format!("{file}: {why}"));
    }

    /// Reads until there is something to give.
    fn read(&mut self) -> Result<(), RecordingError> {
        let Some(entry) = self.entry() else {
            match self.writes.pop_front() {
                Some(number) => self.open_write(number),
                None => self.finish(),
            }
            return Ok(());
        };
        let (item, time_ns, entry) = entry;
        let chunks = match self.faults(item, time_ns, &entry) {
            Some(faults) => faults.map(|faults| faults.into_iter().map(Chunk::Faults).collect()),
            None => self.item(item, time_ns, &entry).map(|item| item.into_iter().map(Chunk::Item).collect()),
        };
        match chunks {
            Ok::<Vec<Chunk>, _>(chunks) => self.ready.extend(chunks),
            Err((file, why)) => self.damaged(&file, &why),
        }
        Ok(())
    }

    /// Of faults, reads the columns of these names alone.
    pub fn read_only(&mut self, mut columns: Vec<&'static str>) {
        if TEXTS.iter().any(|text| columns.contains(text)) {
            columns.push(ID);
        }
        self.only = Some(columns);
    }

    /// Puts the names of their stacks into the columns of faults that have them, if they are read.
    fn fill(&mut self, batches: &mut [FaultColumns]) {
        let is_read = self.only.as_ref().is_none_or(|only| only.contains(&ID));
        if !is_read || batches.iter().all(|batch| *batch.table() != *STACK_EVENT) {
            return;
        }
        let mut stacks = self.stacks.take().unwrap_or_else(|| self.all_stacks());
        batches.iter_mut().for_each(|batch| stacks.fill(batch));
        self.stacks = Some(stacks);
    }

    /// The names of all stacks: they come later than the first faults that have them.
    fn all_stacks(&mut self) -> Stacks {
        let mut stacks = Stacks::default();
        for number in self.all_writes.clone() {
            // What is wrong with it is said when its items are read.
            let Ok(Manifest { parts, frames, .. }) = manifest_of(&self.path, number) else { continue };
            let older = if number == self.last_write { frames } else { vec![] };
            for part in older.into_iter().chain(parts).filter(Part::is_of_frames) {
                let read = part_content(&self.path, &part).and_then(|content| stacks.add(content));
                if let Err(why) = read {
                    self.damaged(&part.name, &why);
                }
            }
        }
        stacks
    }

    /// The faults of an item column by column, if it has faults and they are given so.
    fn faults(
        &mut self,
        item: u64,
        time_ns: u64,
        entry: &Record,
    ) -> Option<Result<Vec<FaultColumns>, (String, String)>> {
        let word = |name: &str| if let Some(Value::Str(word)) = entry.get(name) { word.as_ref() } else { "" };
        let kind = EntryKind::named(word("kind")).filter(|kind| *kind == EntryKind::Events)?;
        let schema = table(word("tables")).filter(|schema| are_faults(*schema))?;
        if !self.in_columns && *schema != *STACK_EVENT {
            return None;
        }
        self.last_ns = self.last_ns.max(time_ns);
        let mut batches = Vec::new();
        if let Some((file, reader)) = self.now.tables.get_mut(&(kind, schema.id())) {
            let mut read = || {
                // Those of an item that was passed over.
                while let Some(before) = reader.item().filter(|before| *before < item) {
                    reader.batch_of(before)?;
                }
                while let Some(batch) = reader.batch_of(item)? {
                    batches.push(batch);
                }
                Ok(())
            };
            if let Err(why) = read() {
                return Some(Err((file.clone(), why)));
            }
        }
        let rows = batches.iter().map(|batch| batch.times_ns().len() as u64).sum::<u64>();
        let missing = entry.number("rows").unwrap_or(0).abs_diff(rows);
        if missing > 0 {
            return Some(Err((format!("events-{}", schema.id()), format!("{missing} rows are missing"))));
        }
        self.fill(&mut batches);
        Some(Ok(batches))
    }

    /// The next item of the write, without its rows.
    fn entry(&mut self) -> Option<Row> {
        let (file, items) = self.now.items.as_mut()?;
        let number = items.item()?;
        match items.next_of(number) {
            Ok(row) => row,
            Err(why) => {
                let file = std::mem::take(file);
                self.now.items = None;
                self.damaged(&file, &why);
                None
            }
        }
    }

    fn open_write(&mut self, number: u64) {
        self.now = Write::default();
        let manifest = match manifest_of(&self.path, number) {
            Ok(manifest) => manifest,
            Err(why) => return self.damaged(&manifest::name(number), &why),
        };
        for part in manifest.parts {
            if let Err(why) = self.open_part(&part) {
                self.damaged(&part.name, &why);
            }
        }
    }

    fn open_part(&mut self, part: &Part) -> Result<(), String> {
        let Some((kind, id)) = part.kind_and_table() else { return Ok(()) };
        // Those of stacks were read when the first of them was asked for.
        let Some(kind) = EntryKind::named(kind).filter(|kind| *kind != EntryKind::Frames) else {
            return Ok(());
        };
        let schema: &'static Schema = if kind == EntryKind::Items {
            &ENTRY
        } else {
            table(id).ok_or_else(|| format!("this version has no table `{id}`"))?
        };
        let only = self.only.as_deref().filter(|_| kind == EntryKind::Events && are_faults(schema));
        let content = part_content(&self.path, part)?;
        let reader = (part.name.clone(), Reader::open(schema, content, only)?);
        if kind == EntryKind::Items {
            self.now.items = Some(reader);
        } else {
            self.now.tables.insert((kind, schema.id()), reader);
        }
        Ok(())
    }

    /// The rows of an item that are of this table.
    fn rows(&mut self, kind: EntryKind, id: &str, item: u64) -> Result<Vec<Row>, (String, String)> {
        let schema = table(id).ok_or_else(|| (id.to_owned(), "this version has no such table".to_owned()))?;
        let mut rows = Vec::new();
        if let Some((file, reader)) = self.now.tables.get_mut(&(kind, schema.id())) {
            // Those of an item that was passed over.
            while let Some(before) = reader.item().filter(|before| *before < item) {
                reader.next_of(before).map_err(|why| (file.clone(), why))?;
            }
            while let Some(row) = reader.next_of(item).map_err(|why| (file.clone(), why))? {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// The item, if all of it is there.
    fn item(&mut self, item: u64, time_ns: u64, entry: &Record) -> Result<Option<Item>, (String, String)> {
        let word = |name: &str| match entry.get(name) {
            Some(Value::Str(word)) => word.as_ref(),
            _ => "",
        };
        let (kind, tables) = (EntryKind::named(word("kind")), word("tables"));
        let number = |name: &str| entry.number(name).unwrap_or(0);
        let Some(kind) = kind else { return Ok(None) };
        self.last_ns = self.last_ns.max(time_ns);
        if kind == EntryKind::Tick {
            return Ok(Some(Item::Tick(time_ns)));
        }
        let mut rows = Vec::new();
        for id in tables.split(',') {
            rows.append(&mut self.rows(kind, id, item)?);
        }
        if rows.len() as u64 != number("rows") {
            let missing = number("rows").abs_diff(rows.len() as u64);
            return Err((format!("{}-{tables}", kind.name()), format!("{missing} rows are missing")));
        }
        let records = rows.into_iter().map(|(_, time_ns, record)| (time_ns, record));
        Ok(Some(match kind {
            EntryKind::Events => {
                let mut events = Vec::new();
                for (time_ns, record) in records {
                    let wrong = |(field, why)| (tables.to_owned(), format!("its `{field}` {why}"));
                    recorded::check(&record).map_err(wrong)?;
                    self.counted += u64::from(recorded::is_counted(&record));
                    events.push(Event { time_ns, record });
                }
                Item::Events(events)
            }
            EntryKind::Rows | EntryKind::Totals => {
                let sum = self.rows(EntryKind::Sums, tables, item)?.pop().map(|(.., sum)| sum);
                let wrong = || (tables.to_owned(), "this version has no such table".to_owned());
                let table = table(tables).ok_or_else(wrong)?;
                let rows = records.map(|(_, record)| record).collect();
                let hidden = number("hidden") as usize;
                let since_ns = entry.number("since_ns");
                let block = Block { sum, hidden, since_ns, ..Block::new(table, time_ns, rows) };
                self.has_totals |= kind == EntryKind::Totals;
                if kind == EntryKind::Rows { Item::Rows(block) } else { Item::Totals(block) }
            }
            EntryKind::Facts => {
                let facts = facts(records.map(|(_, record)| record));
                self.facts = Some(facts.clone());
                Item::Facts(facts)
            }
            EntryKind::Tick | EntryKind::Sums | EntryKind::Frames | EntryKind::Items => return Ok(None),
        }))
    }

    /// Whether the end counts the events one by one.
    fn are_counted(&self) -> bool {
        recorded::counts_events(&self.header.tool) && self.header.setting("summary").is_none()
    }

    /// What was counted and lost up to the last facts: in place of an end.
    fn known_last(&mut self) -> Option<Facts> {
        let events = self.are_counted().then_some(self.counted);
        self.facts.take().map(|mut facts| {
            facts.events = events.unwrap_or(facts.events);
            facts.set(CUT_OFF.record(&CutOff));
            facts
        })
    }

    /// All was read: the end, if there is one, or else what was known last.
    fn finish(&mut self) {
        self.state = State::Given;
        let last = match json(&self.path.join(END)) {
            Ok(Some(line)) => {
                let last = line.get("writes").and_then(Json::as_u64).unwrap_or(0);
                if last > self.last_write {
                    self.damaged(&manifest::name(last), "it is missing");
                }
                end(&line, &self.header.tool).map(Some)
            }
            Ok(None) => Ok(None),
            Err(why) => Err(why),
        };
        let last = match last {
            Ok(Some(end)) => {
                if self.are_counted() && end.events != self.counted {
                    let why = format!("its `events` is {}, but there are {}", end.events, self.counted);
                    self.damaged(END, &why);
                }
                Some(end)
            }
            Ok(None) => {
                self.damage.get_or_insert_with(|| {
                    let at = self
                        .header
                        .start_unix_ns
                        .saturating_add_unsigned(self.last_ns - self.header.start_ns);
                    let at = Timestamp::from_nanosecond(at.into()).unwrap_or_default();
                    format!("the recording is cut off at {at}: {END} is missing")
                });
                self.known_last()
            }
            Err(why) => {
                self.damaged(END, &why);
                self.known_last()
            }
        };
        if let Some(end) = last {
            // As of JSON lines: a whole run has totals, though they be none.
            let of_rows = recorded::tables(&self.header.tool, trapline_model::Part::Rows);
            let table = self.header.tables.first().or(of_rows.first());
            if let Some(table) = table.filter(|_| !self.has_totals && self.damage.is_none()) {
                let time_ns = self.header.start_ns.saturating_add(end.duration_ns);
                self.ready.push_back(Chunk::Item(Item::Totals(Block::new(*table, time_ns, vec![]))));
            }
            self.ready.push_back(Chunk::Item(Item::End(end)));
        }
    }
}

impl FolderRecording {
    /// All that is as it was written; and last, if something is not, what that is.
    fn step(&mut self) -> Result<Option<Chunk>, RecordingError> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            match self.state {
                State::Reading => self.read()?,
                State::Ended => return Ok(None),
                State::Given => {
                    self.state = State::Ended;
                    let Some(damage) = self.damage.take() else { return Ok(None) };
                    let why = format!("{damage}; all that is intact was read");
                    return Err(RecordingError::Folder { name: self.name.clone(), why });
                }
            }
        }
    }
}

impl Source for FolderRecording {
    type Error = RecordingError;

    fn next(&mut self) -> Result<Option<Item>, RecordingError> {
        AsItems(Whole(self)).next()
    }
}

/// A recording that gives each fault as a record.
struct Whole<'a>(&'a mut FolderRecording);

impl Chunks for Whole<'_> {
    type Error = RecordingError;

    fn next(&mut self) -> Result<Option<Chunk>, RecordingError> {
        self.0.in_columns = false;
        self.0.step()
    }
}

impl Chunks for FolderRecording {
    type Error = RecordingError;

    fn next(&mut self) -> Result<Option<Chunk>, RecordingError> {
        self.in_columns = true;
        self.step()
    }
}

/// What was counted and lost, of its records.
fn facts(records: impl Iterator<Item = Record>) -> Facts {
    let mut facts = Facts::default();
    for record in records {
        if record.schema().id() != RUN.id() {
            facts.more.push(record);
            continue;
        }
        let number = |name| record.number(name).unwrap_or(0);
        facts.duration_ns = number("duration_ns");
        facts.events = number("events");
        facts.lost_events = number("lost_events");
        facts.sampled = number("sampled");
        facts.own_cpu_ns = record.number("own_cpu_ns");
    }
    facts
}

/// What a file holds; nothing if there is none.
fn content(path: &Path, expected: u64) -> Result<Option<Vec<u8>>, String> {
    if expected > LONGEST {
        return Err(format!("{expected} bytes are more than a part can have"));
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(expected + 1).read_to_end(&mut content));
    match read {
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What a part holds, if it is as it was written.
fn part_content(folder: &Path, part: &Part) -> Result<Vec<u8>, String> {
    let path = folder.join(&part.name);
    let length = fs::metadata(&path).map_or(0, |file| file.len()).clamp(part.bytes, LONGEST.max(part.bytes));
    let content = content(&path, length)?.ok_or("it is missing")?;
    if Part::new(part.name.clone(), &content) != *part {
        return Err(foreign(content.into())
            .unwrap_or_else(|| "it is not as it was written: its length or checksum does not match".into()));
    }
    Ok(content)
}

/// The object in a file that is sealed.
fn json(path: &Path) -> Result<Option<Line>, String> {
    let Some(bytes) = content(path, 1 << 24)? else { return Ok(None) };
    match serde_json::from_slice(unseal(&bytes)?) {
        Ok(Json::Object(line)) => Ok(Some(line)),
        Ok(_) | Err(_) => Err("it is not a JSON object".into()),
    }
}

/// What these writes are of, where others were discarded. Each goes on where the one before it ended.
fn kept(folder: &Path, writes: &[u64]) -> Option<Kept> {
    let times = |number: &u64| manifest_of(folder, *number).ok().map(|manifest| manifest.times);
    let range = |run: &[u64]| Some((run.first().and_then(times)?.0, run.last().and_then(times)?.1));
    let ranges = writes.chunk_by(|number, next| number + 1 == *next).map(range);
    ranges.collect::<Option<_>>().map(Kept::new)
}

fn manifest_of(folder: &Path, number: u64) -> Result<Manifest, String> {
    let bytes = content(&folder.join(manifest::name(number)), 1 << 24)?.ok_or("it is missing")?;
    Manifest::read(unseal(&bytes)?).map_err(|error| error.to_string())
}
