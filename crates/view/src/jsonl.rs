//! JSON lines: the contract that programs read.

use std::fmt::Write as _;
use std::io::{self, Write};

use jiff::Timestamp;
use trapline_model::{Item, Record, Sink, Value};

/// The version of the form; it grows when the meaning of a field changes.
const SCHEMA: u32 = 1;

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

    fn records<'a>(
        &mut self,
        kind: &str,
        records: impl Iterator<Item = (u64, &'a Record)>,
    ) -> io::Result<()> {
        for (time_ns, record) in records {
            let mut line = format!("{{\"type\":\"{kind}\",\"time_ns\":{time_ns}");
            record.iter().for_each(|(field, value)| member(&mut line, field.name, value));
            writeln!(self.out, "{line}}}")?;
        }
        Ok(())
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
                h.settings.iter().for_each(|(name, value)| member(&mut line, name, value));
                writeln!(self.out, "{line}}}")?;
            }
            Item::Events(events) => self.records("event", events.iter().map(|e| (e.time_ns, &e.record)))?,
            Item::Rows(block) => self.records("row", block.rows.iter().map(|row| (block.time_ns, row)))?,
            Item::Totals(block) => {
                self.records("total", block.rows.iter().map(|row| (block.time_ns, row)))?
            }
            Item::End(end) => {
                let mut line = String::from("{\"type\":\"end\"");
                let figures = [
                    ("duration_ns", end.duration_ns),
                    ("events", end.events),
                    ("lost", end.lost),
                    ("sampled", end.sampled),
                    ("self_ns", end.self_ns),
                ];
                let losses = end.losses.iter().map(|(name, value)| (name.as_ref(), *value));
                figures
                    .into_iter()
                    .chain(losses)
                    .for_each(|(name, value)| member(&mut line, name, &value.into()));
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
        Value::Bool(is) => write!(line, ",\"{name}\":{}", u8::from(*is)),
        Value::Str(s) => write!(line, ",\"{name}\":{}", serde_json::Value::from(s.as_ref())),
        Value::Buckets(buckets) => {
            write!(line, ",\"{name}\":{}", serde_json::json!(buckets))
        }
    };
}
