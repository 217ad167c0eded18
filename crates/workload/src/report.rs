//! What the workloads did, as text for people and as JSON lines for programs.
//!
//! JSON lines hold one object per thread, `"type":"thread"`, and one at the end, `"type":"total"`. Times are
//! integer nanoseconds (`_ns`), sizes bytes. In both the faults of a thread are those of its whole life.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::crew::ThreadReport;
use crate::data::{Contents, DataReport};
use crate::faults::{Amount, FaultsReport, Kind};
use crate::mmap::MmapReport;
use crate::usage::Faults;

/// A path as text on one line: what is not UTF-8 replaced, control characters escaped.
#[must_use]
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// A number of bytes in the largest unit that leaves at least 1 of it: `128.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "bytes" { format!("{bytes} {unit}") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

impl DataReport {
    /// Writes the report for people.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let seconds = self.wall.as_secs_f64();
        writeln!(
            out,
            "{}: {} bytes ({}), {}{}",
            shown(&self.file),
            self.bytes,
            size(self.bytes),
            self.contents.name(),
            match self.contents {
                Contents::Sequential => String::new(),
                Contents::Random | Contents::Sparse => format!(", seed {}", self.seed),
            }
        )?;
        writeln!(
            out,
            "wrote {} in {seconds:.3} s, to disk: {:.1} MB/s; allocated {} ({} blocks of 512 bytes)",
            size(self.written),
            per_second(self.written, self.wall) / 1e6,
            size(self.allocated),
            self.allocated / 512
        )?;
        match self.resident {
            None if !self.dropped => Ok(()),
            None | Some(0) => writeln!(out, "dropped from the page cache"),
            Some(pages) => writeln!(
                out,
                "dropped from the page cache, but {pages} pages stay (mapped by somebody, or a file system in \
                 memory)"
            ),
        }
    }

    /// Writes the report as one JSON line.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_jsonl(&self, out: &mut impl Write) -> io::Result<()> {
        Line::new("total")
            .with("workload", "data")
            .with("file", self.file.to_string_lossy().as_ref())
            .with("bytes", self.bytes)
            .with("written", self.written)
            .with("allocated", self.allocated)
            .with("pattern", self.contents.name())
            .with("seed", self.seed)
            .with("wall_ns", nanoseconds(self.wall))
            .with("dropped", self.dropped)
            .with("resident", self.resident)
            .write(out)
    }
}

impl MmapReport {
    /// Writes the report for people.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let options = &self.options;
        writeln!(
            out,
            "{} ({}, {} pages, {}), {}, advice {}, seed {}",
            shown(&options.file),
            size(self.bytes),
            self.pages,
            match self.resident {
                None => "it is not known how many of them were cached at the start".to_owned(),
                Some(pages) if options.cold && pages > 0 =>
                    format!("{pages} of them cached: they would not be dropped"),
                Some(pages) => format!("{pages} of them cached at the start"),
            },
            options.pattern.name(),
            self.advice.name(),
            options.seed
        )?;
        table(out, "ACCESSES", &self.crew.threads)?;
        writeln!(
            out,
            "{:.3} s, {:.0} accesses/s, checksum {}{}",
            self.crew.wall.as_secs_f64(),
            per_second(self.crew.done(), self.crew.wall),
            self.crew.checksum(),
            if self.interrupted { "; interrupted" } else { "" }
        )?;
        footnote(out, self.pid, self.process, self.crew.other)
    }

    /// Writes a JSON line per thread and one for the total.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_jsonl(&self, out: &mut impl Write) -> io::Result<()> {
        let options = &self.options;
        for thread in &self.crew.threads {
            Line::new("thread")
                .with("pid", self.pid)
                .with("tid", thread.tid)
                .with("thread", thread.index)
                .with("accesses", thread.done)
                .faults("", thread.life)
                .with("checksum", thread.checksum)
                .write(out)?;
        }
        Line::new("total")
            .with("workload", "mmap")
            .with("pid", self.pid)
            .with("threads", self.crew.threads.len())
            .with("accesses", self.crew.done())
            .faults("", self.crew.life())
            .faults("other_", self.crew.other)
            .faults("process_", self.process)
            .with("wall_ns", nanoseconds(self.crew.wall))
            .with("checksum", self.crew.checksum())
            .with("file", options.file.to_string_lossy().as_ref())
            .with("bytes", self.bytes)
            .with("pages", self.pages)
            .with("resident", self.resident)
            .with("cold", options.cold)
            .with("pattern", options.pattern.name())
            .with("advice", self.advice.name())
            .with("seed", options.seed)
            .with("interrupted", self.interrupted)
            .write(out)
    }
}

impl FaultsReport {
    /// Writes the report for people.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let made = self.crew.done();
        let (work, rest) = (self.crew.work(), self.rest());
        let source = match self.options.kind {
            Kind::Anon => "first touches of fresh memory".to_owned(),
            Kind::File => format!("first reads of {}", shown(&self.options.file)),
        };
        let seconds = self.crew.wall.as_secs_f64();
        let rate = per_second(made, self.crew.wall);
        writeln!(out, "{made} {source} in {seconds:.3} s, {rate:.0}/s")?;
        table(out, "FAULTS", &self.crew.threads)?;
        writeln!(
            out,
            "around the touching the kernel counted {} major, {} minor: {}{}",
            work.major,
            work.minor,
            if self.exact() { "exact" } else { "NOT what was made" },
            if self.interrupted { ", but interrupted" } else { "" }
        )?;
        writeln!(
            out,
            "besides: {} major, {} minor (start-up, threads' own stacks, this report)",
            rest.major, rest.minor
        )?;
        footnote(out, self.pid, self.process, self.crew.other)
    }

    /// Writes a JSON line per thread and one for the total.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_jsonl(&self, out: &mut impl Write) -> io::Result<()> {
        let options = &self.options;
        for thread in &self.crew.threads {
            Line::new("thread")
                .with("pid", self.pid)
                .with("tid", thread.tid)
                .with("thread", thread.index)
                .with("faults", thread.done)
                .faults("", thread.life)
                .faults("work_", thread.work)
                .write(out)?;
        }
        let asked = match options.amount {
            Amount::Count(count) => Some(count),
            Amount::Storm(_) => None,
        };
        Line::new("total")
            .with("workload", "faults")
            .with("pid", self.pid)
            .with("threads", self.crew.threads.len())
            .with("asked", asked)
            .with("faults", self.crew.done())
            .faults("", self.crew.life())
            .faults("work_", self.crew.work())
            .faults("rest_", self.rest())
            .faults("other_", self.crew.other)
            .faults("process_", self.process)
            .with("wall_ns", nanoseconds(self.crew.wall))
            .with("kind", options.kind.name())
            .with("exact", self.exact())
            .with("interrupted", self.interrupted)
            .write(out)
    }
}

/// A row per thread and one for all.
fn table(out: &mut impl Write, what: &str, threads: &[ThreadReport]) -> io::Result<()> {
    let row = |out: &mut dyn Write, name: &str, done: u64, life: Faults| {
        writeln!(out, "{name:>8} {done:>12} {:>10} {:>10}", life.major, life.minor)
    };
    writeln!(out, "{:>8} {what:>12} {:>10} {:>10}", "TID", "MAJOR", "MINOR")?;
    for thread in threads {
        row(out, &thread.tid.to_string(), thread.done, thread.life)?;
    }
    let done = threads.iter().map(|thread| thread.done).sum();
    row(out, "TOTAL", done, threads.iter().map(|thread| thread.life).sum())
}

/// What the figures span, and the process's own.
fn footnote(out: &mut impl Write, pid: u32, process: Faults, other: Faults) -> io::Result<()> {
    writeln!(
        out,
        "MAJOR and MINOR are getrusage's, of each thread's whole life, its start and end included."
    )?;
    write!(out, "Process {pid}, from its start to now: {} major, {} minor", process.major, process.minor)?;
    if other != Faults::default() {
        write!(out, "; of these by the progress display: {} major, {} minor", other.major, other.minor)?;
    }
    writeln!(out, ".")
}

fn per_second(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { count as f64 / span.as_secs_f64() }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A JSON object on one line, its fields in the order in which they were given.
pub(crate) struct Line(String);

impl Line {
    pub(crate) fn new(kind: &str) -> Self {
        Self(format!("{{\"type\":{}", Value::from(kind)))
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        // Writing to a string does not fail.
        let _ = write!(self.0, ",{}:{}", Value::from(name), value.into());
        self
    }

    fn faults(self, prefix: &str, faults: Faults) -> Self {
        self.with(&format!("{prefix}major"), faults.major).with(&format!("{prefix}minor"), faults.minor)
    }

    pub(crate) fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        self.0.push_str("}\n");
        out.write_all(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_fitting_unit() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(128 << 20), "128.0 MiB");
        assert_eq!(size(5 << 40), "5.0 TiB");
    }

    #[test]
    fn paths_stay_on_one_line() {
        assert_eq!(shown(Path::new("a\nb\u{1b}[31m é")), "a\\nb\\u{1b}[31m é");
    }

    #[test]
    fn lines_keep_their_order_and_escape() {
        let mut out = Vec::new();
        Line::new("total").with("z", "a\"\n").with("a", None::<u64>).write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\"type\":\"total\",\"z\":\"a\\\"\\n\",\"a\":null}\n");
    }
}
