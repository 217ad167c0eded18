//! What the workloads did, as text for people and as JSON lines for programs.
//!
//! JSON lines hold one object per thread, `"type":"thread"`, and one at the end, `"type":"total"`. Times are
//! integer nanoseconds (`_ns`), sizes bytes. In both the faults of a thread are those of its whole life.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::crew::{CrewReport, ThreadReport};
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

/// A row per thread and one for all.
pub(crate) fn table(out: &mut impl Write, what: &str, threads: &[ThreadReport]) -> io::Result<()> {
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

/// A JSON line per thread, with what `more` adds to it, and the beginning of the one for all. `what` they have done.
pub(crate) fn lines(
    out: &mut impl Write,
    (workload, what): (&str, &str),
    (pid, process): (u32, Faults),
    crew: &CrewReport,
    more: impl Fn(Line, &ThreadReport) -> Line,
) -> io::Result<Line> {
    for thread in &crew.threads {
        let line = Line::new("thread").with("pid", pid).with("tid", thread.tid).with("thread", thread.index);
        more(line.with(what, thread.done).faults("", thread.life), thread).write(out)?;
    }
    let line = Line::new("total").with("workload", workload).with("pid", pid);
    let line = line.with("threads", crew.threads.len()).with(what, crew.done()).faults("", crew.life());
    let line = line.faults("other_", crew.other).faults("process_", process);
    Ok(line.with("wall_ns", nanoseconds(crew.wall)))
}

/// What the figures span, and the process's own.
pub(crate) fn footnote(out: &mut impl Write, pid: u32, process: Faults, other: Faults) -> io::Result<()> {
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

pub(crate) fn per_second(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { count as f64 / span.as_secs_f64() }
}

pub(crate) fn nanoseconds(span: Duration) -> u64 {
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

    pub(crate) fn faults(self, prefix: &str, faults: Faults) -> Self {
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
