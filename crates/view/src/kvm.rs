//! VM exits for people, in the forms that kvm-bpf-tools and bcc have made familiar.

use std::io::{self, Write};

use jiff::{Timestamp, tz::TimeZone};
use trapline_model::{Block, Event, Header, Item, Record, Sink, Value};

use crate::escape::visible;
use crate::table::end_line;

/// Which table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmForm {
    /// Number, name, and how many in all, of L1 and of L2.
    Count,
    /// The same with mean times in nanoseconds, and how the times are spread.
    Time,
    /// A histogram of all rows together, or one of each.
    Hist {
        /// One of each.
        each: bool,
    },
    /// A line for each slow exit.
    Slower {
        /// What is left out, in words.
        excludes: Vec<String>,
    },
}

/// Writes exits as such a table.
#[derive(Debug)]
pub struct KvmTable<W> {
    out: W,
    form: KvmForm,
    zone: TimeZone,
    /// Wall-clock time minus CLOCK_MONOTONIC, nanoseconds.
    wall_minus_monotonic: i128,
}

impl<W: Write> KvmTable<W> {
    /// Over a writer, which is flushed after each item. Times of day are those of `zone`.
    pub fn new(out: W, form: KvmForm, zone: TimeZone) -> Self {
        Self { out, form, zone, wall_minus_monotonic: 0 }
    }

    fn header(&mut self, header: &Header) -> io::Result<()> {
        self.wall_minus_monotonic = i128::from(header.start_unix_ns) - i128::from(header.start_ns);
        if let KvmForm::Slower { excludes } = &self.form
            && !excludes.is_empty()
        {
            writeln!(self.out, "Excludes: {}", excludes.join(","))?;
        }
        writeln!(self.out, "Tracing... Hit Ctrl-C to end.")
    }

    fn rows(&mut self, block: &Block) -> io::Result<()> {
        let wall = Timestamp::from_nanosecond(self.wall_minus_monotonic + i128::from(block.time_ns))
            .unwrap_or_default();
        writeln!(self.out, "[{}]", wall.to_zoned(self.zone.clone()).strftime("%H:%M:%S"))?;
        self.block(block)?;
        writeln!(self.out)
    }

    fn block(&mut self, block: &Block) -> io::Result<()> {
        match self.form {
            KvmForm::Count => columns(&mut self.out, block, count_heads(), count_cells),
            KvmForm::Time => columns(&mut self.out, block, time_heads(), time_cells),
            KvmForm::Hist { each: false } => match &block.sum {
                Some(sum) => histogram(&mut self.out, sum),
                None => Ok(()),
            },
            KvmForm::Hist { each: true } => block.rows.iter().try_for_each(|row| {
                writeln!(self.out, "exit {} {}", number_of(row), text(row, "name"))?;
                histogram(&mut self.out, row)?;
                writeln!(self.out)
            }),
            KvmForm::Slower { .. } => Ok(()),
        }
    }

    fn slow(&mut self, Event { record, .. }: &Event) -> io::Result<()> {
        write!(
            self.out,
            "{:>3} {:<18} {:>8} ({})  pid {} vcpu {} rip {:#x}",
            number_of(record),
            text(record, "name"),
            figure(record, "latency_ns"),
            text(record, "level"),
            figure(record, "pid"),
            figure(record, "vcpu"),
            figure(record, "rip"),
        )?;
        match record.get("vm") {
            Some(Value::Str(vm)) => writeln!(self.out, " vm {}", visible(vm)),
            _ => writeln!(self.out),
        }
    }
}

impl<W: Write> Sink for KvmTable<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header)?,
            Item::Events(events) => events.iter().try_for_each(|event| self.slow(event))?,
            Item::Rows(block) if !matches!(self.form, KvmForm::Slower { .. }) => self.rows(block)?,
            Item::Rows(_) => {}
            Item::Totals(block) => self.block(block)?,
            Item::End(end) => writeln!(self.out, "{}", end_line(end))?,
        }
        self.out.flush()
    }
}

fn columns(
    out: &mut impl Write,
    block: &Block,
    (total, heads): (&str, String),
    cells: fn(&Record) -> String,
) -> io::Result<()> {
    let name = |row: &Record| text(row, "name");
    let number_width = block.rows.iter().map(|row| number_of(row).len()).max().unwrap_or(0).max(3);
    let name_width = block.rows.iter().map(|row| name(row).len()).max().unwrap_or(0).max(18);
    let mut line = |number: &str, name: &str, cells: String| {
        writeln!(out, "{number:>number_width$} {name:<name_width$} {}", cells.trim_end())
    };
    line("", "Exit reason", heads)?;
    block.rows.iter().try_for_each(|row| line(&number_of(row), &name(row), cells(row)))?;
    if block.hidden > 0 {
        line("", &format!("({} more)", block.hidden), String::new())?;
    }
    block.sum.as_ref().map_or(Ok(()), |sum| line("", total, cells(sum)))
}

fn count_heads() -> (&'static str, String) {
    ("Total", format!("{:>8} {:>8} {:>8}", "Total", "L1", "L2"))
}

fn count_cells(row: &Record) -> String {
    let [all, l1, l2] = ["count", "l1_count", "l2_count"].map(|name| figure(row, name));
    format!("{all:>8} {l1:>8} {l2:>8}")
}

fn time_heads() -> (&'static str, String) {
    let levels = ["Total", "L1", "L2"].map(|level| format!("{level:>8} (Avg Time)")).join(" ");
    ("Total (Avg Time)", format!("{levels} {:>9} {:>9} {:>9} {:>10}", "P50", "P90", "P99", "Max"))
}

fn time_cells(row: &Record) -> String {
    let mean = |ns: &str, timed: &str| figure(row, ns).checked_div(figure(row, timed)).unwrap_or(0);
    let levels = [
        ("count", "total_ns", "timed"),
        ("l1_count", "l1_ns", "l1_timed"),
        ("l2_count", "l2_ns", "l2_timed"),
    ]
    .map(|(count, ns, timed)| format!("{:>8} ({:>8})", figure(row, count), mean(ns, timed)))
    .join(" ");
    let [p50, p90, p99, max] = ["p50_ns", "p90_ns", "p99_ns", "max_ns"].map(|name| figure(row, name));
    format!("{levels} {p50:>9} {p90:>9} {p99:>9} {max:>10}")
}

/// Characters of the longest bar.
const BAR: u64 = 40;

fn histogram(out: &mut impl Write, row: &Record) -> io::Result<()> {
    let Some(Value::Buckets(buckets)) = row.get("buckets") else { return Ok(()) };
    writeln!(out, "     value               : count     distribution")?;
    let most = buckets.iter().map(|&(.., n)| n).max().unwrap_or(0);
    let mut next = 0;
    for &(low, high, n) in buckets {
        // The empty ones before it.
        while next < low {
            let high = if next == 0 { 1 } else { next * 2 - 1 };
            bucket(out, next, Some(high.min(low - 1)), 0, most)?;
            next = high.min(low - 1) + 1;
        }
        bucket(out, low, high, n, most)?;
        next = high.map_or(u64::MAX, |high| high + 1);
    }
    Ok(())
}

fn bucket(out: &mut impl Write, low: u64, high: Option<u64>, n: u64, most: u64) -> io::Result<()> {
    let high = high.map_or_else(|| "...".into(), |high| high.to_string());
    let bar = (BAR * n).checked_div(most).unwrap_or(0) as usize;
    writeln!(out, "{low:>10} -> {high:<10} : {n:<8} |{:<width$}|", "*".repeat(bar), width = BAR as usize)
}

/// The exit's number as manuals write it: hexadecimal but for VMX.
fn number_of(row: &Record) -> String {
    match (row.get("isa"), row.get("reason")) {
        (Some(Value::Str(isa)), Some(Value::U64(reason))) if isa == "vmx" => reason.to_string(),
        (_, Some(Value::U64(reason))) => format!("{reason:#x}"),
        _ => String::new(),
    }
}

fn text(row: &Record, name: &str) -> String {
    match row.get(name) {
        Some(Value::Str(text)) => visible(text),
        _ => String::new(),
    }
}

fn figure(row: &Record, name: &str) -> u64 {
    match row.get(name) {
        Some(&Value::U64(n)) => n,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
