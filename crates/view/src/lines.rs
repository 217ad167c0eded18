//! One line an interval, under headings that are written once: what a tool shows that has only one row.

use std::io::{self, Write};

use jiff::{Timestamp, tz::TimeZone};
use trapline_model::{Block, Header, Item, Record, Sink};

use crate::histogram::histogram;
use crate::table::{cell, end_line, note};

/// The heading's place for the time, and its width.
const TIME: &str = "%H:%M:%S";

/// Writes the sum of each block as a line after the time of day, left-aligned.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    zone: TimeZone,
    /// Wall-clock time minus CLOCK_MONOTONIC, nanoseconds.
    wall_minus_monotonic: i128,
    headed: bool,
}

impl<W: Write> Lines<W> {
    /// Over a writer, which is flushed after each item. Times of day are those of `zone`.
    pub fn new(out: W, zone: TimeZone) -> Self {
        Self { out, zone, wall_minus_monotonic: 0, headed: false }
    }

    fn header(&mut self, header: &Header) -> io::Result<()> {
        self.wall_minus_monotonic = i128::from(header.start_unix_ns) - i128::from(header.start_ns);
        writeln!(self.out, "{}. Tracing... Ctrl-C to end.", note(header))
    }

    fn clock(&self, time_ns: u64) -> String {
        let wall =
            Timestamp::from_nanosecond(self.wall_minus_monotonic + i128::from(time_ns)).unwrap_or_default();
        wall.to_zoned(self.zone.clone()).strftime(TIME).to_string()
    }

    fn block(&mut self, block: &Block, title: &str) -> io::Result<()> {
        let Some(sum) = &block.sum else { return Ok(()) };
        if !self.headed {
            self.headed = true;
            let headings = cells(sum, |title, _| title.to_owned());
            writeln!(self.out, "{} {headings}", format_args!("[{}]", self.clock(block.time_ns)))?;
        }
        writeln!(self.out, "{title:<10} {}", cells(sum, |_, text| text))
    }
}

/// The columns of a record, each filled up to its width.
fn cells(record: &Record, text: impl Fn(&str, String) -> String) -> String {
    let shown = record.iter().filter_map(|(field, value)| field.cell.map(|column| (column, value)));
    let line: String = shown
        .map(|(column, value)| {
            format!("{:<width$} ", text(column.title, cell(value, column.show)), width = column.width)
        })
        .collect();
    line.trim_end().to_owned()
}

impl<W: Write> Sink for Lines<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header)?,
            Item::Events(_) => {}
            Item::Rows(block) => self.block(block, &format!("[{}]", self.clock(block.time_ns)))?,
            Item::Totals(block) => {
                self.block(block, "[total]")?;
                if let Some(sum) = &block.sum {
                    histogram(&mut self.out, sum)?;
                }
            }
            Item::End(end) => writeln!(self.out, "{}", end_line(end))?,
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use trapline_model::sgx::{By, Figures, Known, Ledger, Owner, Report};
    use trapline_model::{End, Hist, Value};

    use super::*;

    #[test]
    fn the_lines_are_those_that_the_tools_users_know() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, TimeZone::UTC);
        let settings = vec![("memory_mb".into(), Value::U64(16)), ("module".into(), Value::Null)];
        let header = Header {
            tool: "sgx".into(),
            variant: "fentry".into(),
            version: "0".into(),
            host: "h".into(),
            kernel: "k".into(),
            start_unix_ns: 0,
            start_ns: 0,
            settings,
        };
        lines.take(&Item::Header(header)).unwrap();
        let mut ledger = Ledger::new(By::All, Known { added: true, outcomes: false }, true, 0);
        let second = 1_000_000_000;
        lines.take(&Item::Rows(ledger.interval(second, false))).unwrap();
        let mut counts = [0; trapline_model::BUCKETS];
        counts[trapline_model::bucket(5000)] = 39_113;
        let figures = Figures {
            pages: 23_164,
            faults: 39_113,
            loads: 39_113,
            evictions: 39_000,
            refaults: 15_949,
            hist: Hist::new(&counts),
            ..Figures::default()
        };
        ledger.take(Report { serial: 1, owner: Owner::default(), figures, longest_ns: 5000 }, false);
        lines.take(&Item::Rows(ledger.interval(2 * second, false))).unwrap();
        lines.take(&Item::Totals(ledger.totals(2 * second))).unwrap();
        let end =
            End { duration_ns: 2 * second, events: 39_113, lost: 0, sampled: 1, self_ns: 0, losses: vec![] };
        lines.take(&Item::End(end)).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
