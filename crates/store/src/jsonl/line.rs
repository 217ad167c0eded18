//! One line: an object, whose values are of the types that tables declare.

use std::cmp::Reverse;
use std::io::{BufRead, Read};

use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use trapline_model::recorded;
use trapline_model::{Facts, Field, Header, Part, Record, Schema, TABLES, Type, Value, table};

use super::RecordingError;

/// The version of the format that can be read.
const SCHEMA: u64 = 2;
/// A longer line is no line of ours, bytes.
const LONGEST: u64 = 1 << 20;
/// More buckets are no histogram of ours.
const MOST_BUCKETS: usize = 256;

pub(crate) type Line = Map<String, Json>;

#[derive(Debug)]
pub(super) struct Lines<R> {
    pub(super) input: R,
    pub(super) name: String,
    pub(super) number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line, which is an object.
    pub(super) fn next(&mut self) -> Result<Option<Line>, RecordingError> {
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
            Ok(_) | Err(_) => {
                Err(self.wrong("it is not a JSON object, so this is not a recording in JSON lines"))
            }
        }
    }

    pub(super) fn wrong(&self, why: impl Into<String>) -> RecordingError {
        RecordingError::Line { name: self.name.clone(), line: self.number, why: why.into() }
    }
}

pub(super) fn text<'a>(line: &'a Line, name: &str) -> Option<&'a str> {
    line.get(name).and_then(Json::as_str)
}

pub(super) fn number(line: &Line, name: &str) -> Result<u64, String> {
    line.get(name)
        .and_then(Json::as_u64)
        .ok_or_else(|| format!("its `{name}` is missing, or not a whole number"))
}

/// A time on the machine's clock. The kernel's are signed.
pub(super) fn time(line: &Line, name: &str) -> Result<u64, String> {
    let ns = number(line, name)?;
    i64::try_from(ns).map_err(|_| format!("its `{name}` is {ns}, which is out of range"))?;
    Ok(ns)
}

/// The header of a recording of this tool, or of any.
pub(crate) fn header(line: &Line, tool: Option<&str>) -> Result<Header, String> {
    if text(line, "type") != Some("header") {
        return Err("it is not the header of a recording".into());
    }
    let schema = number(line, "schema")?;
    if schema != SCHEMA {
        let by = text(line, "version").map(|version| format!(", trapline {version}")).unwrap_or_default();
        return Err(if schema < SCHEMA {
            format!(
                "the recording uses schema {schema} of a build before the first release{by}; this version reads schema {SCHEMA}, in which losses have other names: replay it with the build that wrote it"
            )
        } else {
            format!(
                "the recording uses schema {schema} of a later version{by}, and this version reads schema {SCHEMA}: replay it with that version"
            )
        });
    }
    let own = match (text(line, "tool"), tool) {
        (Some(name), Some(wanted)) if name != wanted => {
            return Err(format!("it is a recording of `{name}`, not of `{wanted}`"));
        }
        (Some(name), _) => name,
        (None, _) => return Err("its `tool` is missing".into()),
    };
    if !TABLES.iter().any(|table| table.tool() == own) {
        return Err(format!("it is a recording of `{own}`, which this version does not know"));
    }
    let word = |name| text(line, name).unwrap_or_default().to_owned();
    let start: Timestamp =
        word("start").parse().map_err(|_| "its `start` is missing, or not a time".to_owned())?;
    let tables = line.get("tables").and_then(Json::as_array).into_iter().flatten();
    Ok(Header {
        tool: own.to_owned().into(),
        variant: word("variant").into(),
        version: word("version").into(),
        host: word("host"),
        kernel: word("kernel"),
        start_unix_ns: i64::try_from(start.as_nanosecond()).unwrap_or(0),
        start_ns: time(line, "start_ns")?,
        tables: tables.filter_map(Json::as_str).filter_map(table).collect(),
        events: text(line, "events").map(|id| of_id(own, id)).transpose()?,
        // A setting of another type than ours is not known.
        settings: of_part(line, own, Part::Settings, |field| {
            Ok(field_of(line, field).unwrap_or(Value::Null))
        })?,
    })
}

/// The records of the tables of a part whose fields a line has.
fn of_part(
    line: &Line,
    tool: &str,
    part: Part,
    value: impl Fn(&Field) -> Result<Value, String>,
) -> Result<Vec<Record>, String> {
    let has = |table: &&&'static Schema| {
        table.iter().filter(|field| line.contains_key(field.name)).map(|field| field.name).collect::<Vec<_>>()
    };
    let tables = recorded::tables(tool, part);
    let mut records = Vec::new();
    for table in &tables {
        let own = has(&table);
        // Two tables may have fields in common: that which has all of the other's is meant.
        let others = tables.iter().filter(|other| *other != table);
        let is_within = |other: &&'static Schema| {
            let others = has(&other);
            others.len() > own.len() && own.iter().all(|name| others.contains(name))
        };
        if !own.is_empty() && !others.into_iter().any(is_within) {
            let values: Result<Vec<Value>, String> = table.iter().map(&value).collect();
            records.push(Record::new(*table, values?));
        }
    }
    Ok(records)
}

/// The end of a recording.
pub(crate) fn end(line: &Line, tool: &str) -> Result<Facts, String> {
    let [events, lost, sampled] = ["events", "lost_events", "sampled"].map(|name| number(line, name));
    // A figure that is not there is not known; one that is there is a number.
    let figure = |field: &Field| match line.get(field.name) {
        None => Ok(Value::Null),
        Some(_) if field.ty == Type::U64 => number(line, field.name).map(Value::from),
        Some(_) => field_of(line, field),
    };
    Ok(Facts {
        duration_ns: time(line, "duration_ns")?,
        events: events?,
        lost_events: lost?,
        sampled: sampled?,
        own_cpu_ns: match line.get("own_cpu_ns") {
            Some(Json::Null) => None,
            _ => Some(number(line, "own_cpu_ns")?),
        },
        more: of_part(line, tool, Part::Facts, figure)?,
    })
}

/// The table of a tool that has this id.
pub(super) fn of_id(tool: &str, id: &str) -> Result<&'static Schema, String> {
    table(id)
        .filter(|table| table.tool() == tool)
        .ok_or_else(|| format!("`{tool}` has no table `{id}` in this version"))
}

/// The table of a tool that has the most of a line's fields, for recordings that do not name it.
pub(super) fn of_fields(tool: &str, line: &Line) -> Result<&'static Schema, String> {
    // How many fields are there, and how many are not.
    let fit = |table: &&'static Schema| {
        let there = table.iter().filter(|field| line.contains_key(field.name)).count();
        (there, Reverse(table.iter().count() - there))
    };
    let tables = recorded::tables(tool, Part::Rows);
    let best = tables.into_iter().max_by_key(fit).filter(|table| fit(table).0 > 0);
    best.ok_or_else(|| format!("it belongs to no table of `{tool}`"))
}

/// The values of a table's fields.
pub(super) fn record(line: &Line, schema: &'static Schema) -> Result<Record, String> {
    let values: Result<Vec<Value>, String> = schema.iter().map(|field| field_of(line, field)).collect();
    Ok(Record::new(schema, values?))
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
        (Type::I64, _) => match json.as_i64() {
            Some(n) => return Ok(n.into()),
            None => "is not a whole number",
        },
        (Type::Bool, _) => match json.as_u64() {
            Some(n @ (0 | 1)) => return Ok((n == 1).into()),
            _ => "is neither 0 nor 1",
        },
        (Type::Str, _) => match json.as_str() {
            Some(text) => return Ok(text.into()),
            None => "is not a string",
        },
        (Type::Hist, Json::Array(of)) if of.len() <= MOST_BUCKETS => {
            match serde_json::from_value::<Vec<_>>(json.clone()) {
                Ok(buckets) if in_order(&buckets) => return Ok(buckets.into()),
                _ => "is not a list of buckets in order",
            }
        }
        (Type::Hist, _) => "is not a list of buckets",
    };
    Err(format!("its `{}` {wanted}", field.name))
}

/// Whether buckets follow each other; the last one may have no end.
fn in_order(buckets: &[(u64, Option<u64>, u64)]) -> bool {
    let is_whole = buckets.iter().all(|&(low, high, _)| high.is_none_or(|high| low <= high));
    is_whole && buckets.windows(2).all(|pair| pair[0].1.is_some_and(|high| high < pair[1].0))
}
