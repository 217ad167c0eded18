//! CSV: one table, of events if there are any, else of rows and totals; what was lost is the last line.

use std::io::{self, Write};

use csv::{Writer, WriterBuilder};
use trapline_model::{Event, Field, Item, RUN, Record, Schema, Sink, Value};

use crate::escape::{name, visible};

/// Writes one table with a line of column names; the first two columns are `type` and `time_ns`. The last line is a
/// comment, `# end …`, with the losses. A table has one schema: where events are shown, rows and totals are not.
#[derive(Debug)]
pub struct Csv<W: Write> {
    out: Writer<W>,
    schema: &'static Schema,
}

impl<W: Write> Csv<W> {
    /// Over a writer, which is flushed after each item. `schema` is that of the table to be written. Nothing is written
    /// before the first item.
    pub fn new(out: W, schema: &'static Schema) -> Self {
        Self { out: WriterBuilder::new().flexible(true).from_writer(out), schema }
    }

    fn record(&mut self, kind: &str, time_ns: u64, record: &Record) -> io::Result<()> {
        if self.schema != record.schema() {
            return Ok(());
        }
        let values = record.iter().map(|(field, value)| text(field, value));
        Ok(self.out.write_record([kind.to_owned(), time_ns.to_string()].into_iter().chain(values))?)
    }
}

impl<W: Write> Sink for Csv<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(_) => {
                let names = self.schema.iter().map(|field| field.name);
                self.out.write_record(["type", "time_ns"].into_iter().chain(names))?;
            }
            Item::Events(events) => {
                for Event { time_ns, record } in events {
                    self.record("event", *time_ns, record)?;
                }
            }
            Item::Rows(block) => {
                block.rows.iter().try_for_each(|row| self.record("row", block.time_ns, row))?
            }
            Item::Totals(block) => {
                block.rows.iter().try_for_each(|row| self.record("total", block.time_ns, row))?;
            }
            Item::Facts(_) | Item::Tick(_) => {}
            Item::End(end) => {
                let mut line = String::from("# end");
                for (field, value) in RUN.record(end).iter().chain(end.known()) {
                    line.push_str(&format!(" {}={}", field.name, text(field, value)));
                }
                self.out.write_record([line])?;
            }
        }
        self.out.flush()
    }
}

/// A value as CSV has it.
fn text(field: &Field, value: &Value) -> String {
    match value {
        Value::Null | Value::Hist(_) => String::new(),
        Value::Str(comm) if field.name == "comm" => harmless(&name(comm)),
        Value::U64(n) => n.to_string(),
        Value::I64(n) => n.to_string(),
        Value::Bool(is) => u8::from(*is).to_string(),
        Value::Str(s) => harmless(&visible(s)),
        Value::Buckets(buckets) => listed(buckets),
    }
}

/// `0-1:5 2-3:7`; the highest value of an open-ended bucket is left out.
fn listed(buckets: &[(u64, Option<u64>, u64)]) -> String {
    let one = |&(low, high, n): &(u64, Option<u64>, u64)| match high {
        Some(high) => format!("{low}-{high}:{n}"),
        None => format!("{low}-:{n}"),
    };
    buckets.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A visible name that a spreadsheet shows and does not compute.
fn harmless(name: &str) -> String {
    if name.starts_with(['=', '+', '-', '@']) { format!("'{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_a_formula() {
        assert_eq!(harmless("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
        assert_eq!(harmless(&visible("\tx")), "\\x09x");
        assert_eq!(harmless("kworker/0:1"), "kworker/0:1");
    }
}
