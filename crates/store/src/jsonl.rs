//! JSON lines, as `trapline-view` writes them.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use trapline_model::{
    Block, Event, Facts, Field, Header, Item, Record, SCOPE, Schema, Source, Type, Value, table,
};

/// The version of the form that can be read.
const SCHEMA: u64 = 1;
/// Events that are given together.
const BATCH: usize = 1024;
/// A longer line is no line of ours, bytes.
const LONGEST: u64 = 1 << 20;

/// Whose recording it is, and what is in it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The command's name.
    pub name: &'static str,
    /// The fields of its settings, in the header.
    pub settings: &'static [&'static Schema],
    /// The fields of what was lost and reached, in the end.
    pub facts: &'static [&'static Schema],
    /// The fields of its events.
    pub event: &'static Schema,
    /// The fields of its totals.
    pub total: &'static Schema,
    /// Whether an event can be one of the tool's: the field that cannot be, and why.
    pub check: fn(&Record) -> Result<(), (&'static str, String)>,
    /// Whether an event is among those that the end counts.
    pub is_counted: fn(&Record) -> bool,
}

/// Why a recording cannot be read (on).
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file does not let itself be read.
    #[error("cannot read {name}")]
    Io {
        /// The recording's name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("cannot read {name}: line {line}: {why}")]
    Line {
        /// The recording's name.
        name: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// A recording of one tool, read line by line. Types of lines and fields that are not known are passed over.
#[derive(Debug)]
pub struct Recording<R> {
    lines: Lines<R>,
    tool: Tool,
    header: Header,
    /// What is to be given before anything more is read.
    ready: VecDeque<Item>,
    totals: Block,
    counted: u64,
    ended: bool,
}

impl<R: BufRead> Recording<R> {
    /// Reads the header. `name` is what messages call the recording.
    ///
    /// # Errors
    /// When it is not a recording of this tool.
    pub fn open(input: R, name: impl Into<String>, tool: Tool) -> Result<Self, RecordingError> {
        let mut lines = Lines { input, name: name.into(), number: 0 };
        let Some(first) = lines.next()? else {
            lines.number = 1;
            return Err(lines.wrong("it is empty, not a recording"));
        };
        let header = header(&first, &tool).map_err(|why| lines.wrong(why))?;
        let ready = VecDeque::from([Item::Header(header.clone())]);
        let totals = Block::new(tool.total, 0, vec![]);
        Ok(Self { lines, tool, header, ready, totals, counted: 0, ended: false })
    }

    /// What was run, where and how.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads events until there are enough of them, or to the end.
    fn read(&mut self) -> Result<(), RecordingError> {
        let mut events = Vec::new();
        while events.len() < BATCH {
            let Some(line) = self.lines.next()? else {
                return Err(self.lines.wrong("the recording stops here, and its end is missing"));
            };
            let parsed = match text(&line, "type") {
                Some("event") => record(&line, self.tool.event).and_then(|(time_ns, record)| {
                    (self.tool.check)(&record).map_err(|(field, why)| format!("its `{field}` {why}"))?;
                    self.counted += u64::from((self.tool.is_counted)(&record));
                    events.push(Event { time_ns, record });
                    Ok(())
                }),
                Some("total") => record(&line, self.tool.total).map(|(time_ns, record)| {
                    self.totals.time_ns = time_ns;
                    self.totals.rows.push(record);
                }),
                Some("end") => end(&line, &self.tool).and_then(|end| match (end.events, self.counted) {
                    (events, counted) if events != counted => Err(format!(
                        "its `events` is {events}, and there are {counted}: lines are missing, or too many"
                    )),
                    _ => {
                        self.finish(std::mem::take(&mut events), end);
                        Ok(())
                    }
                }),
                Some("header") => Err("another recording begins here: one file holds one".into()),
                Some(_) => Ok(()),
                None => Err("it has no `type`".into()),
            };
            parsed.map_err(|why| self.lines.wrong(why))?;
            if self.ended {
                return match self.lines.next()? {
                    Some(_) => Err(self.lines.wrong("there is more after the recording's end")),
                    None => Ok(()),
                };
            }
        }
        self.ready.push_back(Item::Events(events));
        Ok(())
    }

    fn finish(&mut self, events: Vec<Event>, end: Facts) {
        let mut totals = self.totals.clone();
        if totals.rows.is_empty() {
            totals.time_ns = self.header.start_ns.saturating_add(end.duration_ns);
        }
        self.ready.extend([Item::Events(events), Item::Totals(totals), Item::End(end)]);
        self.ended = true;
    }
}

impl<R: BufRead> Source for Recording<R> {
    type Error = RecordingError;

    fn next(&mut self) -> Result<Option<Item>, RecordingError> {
        while self.ready.is_empty() && !self.ended {
            self.read()?;
        }
        Ok(self.ready.pop_front())
    }
}

type Line = Map<String, Json>;

#[derive(Debug)]
struct Lines<R> {
    input: R,
    name: String,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line, which is an object.
    fn next(&mut self) -> Result<Option<Line>, RecordingError> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(LONGEST).read_until(b'\n', &mut bytes);
        read.map_err(|source| RecordingError::Io { name: self.name.clone(), source })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let whole = bytes.ends_with(b"\n");
        match serde_json::from_slice(&bytes) {
            Ok(Json::Object(line)) => Ok(Some(line)),
            Err(error) if error.is_eof() && !whole && bytes.first() == Some(&b'{') => {
                Err(self.wrong("the recording is cut off in this line"))
            }
            Ok(_) | Err(_) => Err(self.wrong("it is not a JSON object: this is no recording in JSON lines")),
        }
    }

    fn wrong(&self, why: impl Into<String>) -> RecordingError {
        RecordingError::Line { name: self.name.clone(), line: self.number, why: why.into() }
    }
}

fn text<'a>(line: &'a Line, name: &str) -> Option<&'a str> {
    line.get(name).and_then(Json::as_str)
}

fn number(line: &Line, name: &str) -> Result<u64, String> {
    line.get(name)
        .and_then(Json::as_u64)
        .ok_or_else(|| format!("its `{name}` is missing, or not a whole number"))
}

/// A time on the machine's clock. The kernel's are signed.
fn time(line: &Line, name: &str) -> Result<u64, String> {
    let ns = number(line, name)?;
    i64::try_from(ns).map_err(|_| format!("its `{name}` is {ns}, which no clock shows"))?;
    Ok(ns)
}

fn header(line: &Line, tool: &Tool) -> Result<Header, String> {
    if text(line, "type") != Some("header") {
        return Err("it is not the header of a recording".into());
    }
    match number(line, "schema")? {
        SCHEMA => {}
        other => return Err(format!("its form has the number {other}, and this trapline reads {SCHEMA}")),
    }
    match text(line, "tool") {
        Some(name) if name == tool.name => {}
        Some(other) => return Err(format!("it is a recording of `{other}`, not of `{}`", tool.name)),
        None => return Err("it does not say what tool it is of".into()),
    }
    let word = |name| text(line, name).unwrap_or_default().to_owned();
    let start: Timestamp =
        word("start").parse().map_err(|_| "its `start` is missing, or not a time".to_owned())?;
    Ok(Header {
        tool: tool.name.into(),
        variant: word("variant").into(),
        version: word("version").into(),
        host: word("host"),
        kernel: word("kernel"),
        start_unix_ns: i64::try_from(start.as_nanosecond()).unwrap_or(0),
        start_ns: time(line, "start_ns")?,
        tables: ids(line.get("tables").and_then(Json::as_array)),
        events: text(line, "events").and_then(table),
        settings: settings(line, tool),
    })
}

/// The tables of these ids, as far as they are known.
fn ids(ids: Option<&Vec<Json>>) -> Vec<&'static Schema> {
    ids.into_iter().flatten().filter_map(Json::as_str).filter_map(table).collect()
}

/// What the header has of the settings. A setting of another type than ours is not known.
fn settings(line: &Line, tool: &Tool) -> Vec<Record> {
    let schemas = tool.settings.iter().chain([&SCOPE]);
    let said = schemas.filter(|schema| schema.iter().any(|field| line.contains_key(field.name)));
    let values = |&schema: &&'static Schema| {
        let value = |field: &Field| field_of(line, field).unwrap_or(Value::Null);
        Record::new(schema, schema.iter().map(value).collect())
    };
    said.map(values).collect()
}

fn record(line: &Line, schema: &'static Schema) -> Result<(u64, Record), String> {
    let values: Result<Vec<Value>, String> = schema.iter().map(|field| field_of(line, field)).collect();
    Ok((time(line, "time_ns")?, Record::new(schema, values?)))
}

/// A field that is not there is not known.
fn field_of(line: &Line, field: &Field) -> Result<Value, String> {
    let Some(json) = line.get(field.name) else { return Ok(Value::Null) };
    let wanted = match (field.ty, json) {
        (_, Json::Null) => return Ok(Value::Null),
        (Type::U64, _) => match json.as_u64() {
            Some(n) => return Ok(n.into()),
            None => "is not a whole number",
        },
        (Type::Bool, _) => match json.as_u64() {
            Some(n @ (0 | 1)) => return Ok((n == 1).into()),
            _ => "is neither 0 nor 1",
        },
        (Type::Str, _) => match json.as_str() {
            Some(text) => return Ok(text.into()),
            None => "is not a text",
        },
        (Type::Hist, _) => match serde_json::from_value(json.clone()) {
            Ok(buckets) => return Ok(Value::Buckets(buckets)),
            Err(_) => "is not a list of buckets",
        },
    };
    Err(format!("its `{}` {wanted}", field.name))
}

fn end(line: &Line, tool: &Tool) -> Result<Facts, String> {
    let [events, lost, sampled, self_ns] =
        ["events", "lost", "sampled", "self_ns"].map(|name| number(line, name));
    // A figure that is not there is not known; one that is there is a number.
    let figure = |field: &Field| match line.get(field.name) {
        None => Ok(Value::Null),
        Some(_) => number(line, field.name).map(Value::from),
    };
    let figures = |&schema: &&'static Schema| {
        Ok(Record::new(schema, schema.iter().map(figure).collect::<Result<_, String>>()?))
    };
    Ok(Facts {
        duration_ns: time(line, "duration_ns")?,
        events: events?,
        lost: lost?,
        sampled: sampled?,
        self_ns: self_ns?,
        more: tool.facts.iter().map(figures).collect::<Result<_, String>>()?,
    })
}

#[cfg(test)]
mod tests;
