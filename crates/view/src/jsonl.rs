//! JSON lines: the contract that programs read.

use std::fmt::Write as _;
use std::io::{self, Write};

use jiff::Timestamp;
use trapline_model::{Block, Item, RUN, Record, Schema, Sink, Value};

/// The version of the format; it grows when the meaning of a field changes.
const SCHEMA: u32 = 2;

/// Writes each item as one JSON object a line.
#[derive(Debug)]
pub struct JsonLines<W> {
    out: W,
}

impl<W: Write> JsonLines<W> {
    /// Over a writer, which is flushed after each item.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    fn record(
        &mut self,
        kind: &str,
        time_ns: u64,
        table: Option<&Schema>,
        record: &Record,
    ) -> io::Result<()> {
        let mut line = format!("{{\"type\":\"{kind}\",\"time_ns\":{time_ns}");
        if let Some(table) = table {
            member(&mut line, "table", &Value::word(table.id()));
        }
        record.iter().for_each(|(field, value)| member(&mut line, field.name, value));
        writeln!(self.out, "{line}}}")
    }

    /// What rows have in common, and they.
    fn block(&mut self, kind: &str, block: &Block) -> io::Result<()> {
        let mut line = format!("{{\"type\":\"block\",\"of\":\"{kind}\",\"time_ns\":{}", block.time_ns);
        if let Some(since_ns) = block.since_ns {
            member(&mut line, "since_ns", &since_ns.into());
        }
        member(&mut line, "table", &Value::word(block.table.id()));
        member(&mut line, "rows", &(block.rows.len() as u64).into());
        member(&mut line, "hidden", &(block.hidden as u64).into());
        match &block.sum {
            None => member(&mut line, "sum", &Value::Null),
            Some(sum) => {
                let mut members = String::new();
                sum.iter().for_each(|(field, value)| member(&mut members, field.name, value));
                line.push_str(&format!(",\"sum\":{{{}}}", members.trim_start_matches(',')));
            }
        }
        writeln!(self.out, "{line}}}")?;
        block.rows.iter().try_for_each(|row| self.record(kind, block.time_ns, Some(block.table), row))
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(h) => {
                let start = Timestamp::from_nanosecond(h.start_unix_ns.into()).unwrap_or_default();
                let mut line = format!("{{\"type\":\"header\",\"schema\":{SCHEMA}");
                member(&mut line, "tool", &h.tool.as_ref().into());
                member(&mut line, "variant", &h.variant.as_ref().into());
                member(&mut line, "version", &h.version.as_ref().into());
                member(&mut line, "host", &h.host.as_str().into());
                member(&mut line, "kernel", &h.kernel.as_str().into());
                member(&mut line, "start", &start.to_string().as_str().into());
                member(&mut line, "start_ns", &h.start_ns.into());
                let settings = h.settings.iter().flat_map(Record::iter);
                settings.for_each(|(field, value)| member(&mut line, field.name, value));
                let tables: Vec<&str> = h.tables.iter().map(|table| table.id()).collect();
                // Writing to a string cannot fail.
                let _ = write!(line, ",\"tables\":{}", serde_json::json!(tables));
                member(&mut line, "events", &h.events.map(Schema::id).into());
                writeln!(self.out, "{line}}}")?;
            }
            // The header names the table of events: there are many of them, and they are of one.
            Item::Events(events) => {
                events
                    .iter()
                    .try_for_each(|event| self.record("event", event.time_ns, None, &event.record))?;
            }
            Item::Rows(block) => self.block("row", block)?,
            Item::Totals(block) => self.block("total", block)?,
            Item::Facts(_) | Item::Tick(_) => {}
            Item::End(end) => {
                let mut line = String::from("{\"type\":\"end\"");
                let run = RUN.record(end);
                run.iter().chain(end.known()).for_each(|(field, value)| member(&mut line, field.name, value));
                writeln!(self.out, "{line}}}")?;
            }
        }
        self.out.flush()
    }
}

fn member(line: &mut String, name: &str, value: &Value) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Null => write!(line, ",\"{name}\":null"),
        Value::U64(n) => write!(line, ",\"{name}\":{n}"),
        Value::I64(n) => write!(line, ",\"{name}\":{n}"),
        Value::Bool(is) => write!(line, ",\"{name}\":{}", u8::from(*is)),
        Value::Str(s) => write!(line, ",\"{name}\":{}", serde_json::Value::from(s.as_ref())),
        // No output has it: what is made of it stands for it.
        Value::Hist(_) => Ok(()),
        Value::Buckets(buckets) => {
            write!(line, ",\"{name}\":{}", serde_json::json!(buckets))
        }
    };
}
