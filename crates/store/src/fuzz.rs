//! A recording that anybody may have written, read as `trapline replay` does, into everything that it can become.

use std::io::{self, Cursor, Write};

use jiff::tz::TimeZone;

use crate::folder::read_part;
use crate::{PerfData, Recording};
use trapline_model::access::summary::{Options, Summarized};
use trapline_model::access::{EVENT, SUMMARY, TRACE};
use trapline_model::faults::{self, By};
use trapline_model::layout::{DECLARED, Layout};
use trapline_model::recorded::ENTRY;
use trapline_model::{RUN, Sink, Source};
use trapline_view::{Csv, Damo, Firefox, JsonLines, Perfetto, Pprof, Screen, Table};

/// Of what is written for one recording of at most 64 KiB, bytes.
const MOST: usize = 64 << 20;

/// Counts what is written, and keeps nothing.
#[derive(Debug, Default)]
struct Written(usize);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        assert!(self.0 < MOST, "more than {MOST} bytes are written for a small recording");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads it in each way.
pub fn recording(bytes: &[u8]) {
    let open = || Recording::open(bytes, "x.jsonl", None);
    let Ok(plain) = open() else { return };
    let mut sinks: [Box<dyn Sink>; 7] = [
        table(&TRACE),
        Box::new(JsonLines::new(Written::default())),
        Box::new(Csv::new(Written::default(), EVENT)),
        Box::new(Damo::new(Written::default(), 100_000_000)),
        Box::new(Pprof::new(Written::default())),
        Box::new(Firefox::new(Written::default())),
        Box::new(Perfetto::new(Written::default())),
    ];
    pour(plain, &mut sinks);
    for intervals in [false, true] {
        let Ok(recording) = open() else { return };
        let options = Options { intervals, ..Options::default() };
        let mut sinks: [Box<dyn Sink>; 2] = [table(&SUMMARY), Box::new(JsonLines::new(Written::default()))];
        pour(Summarized::new(recording, options), &mut sinks);
    }
}

/// Reads page faults of perf.
pub fn perf_data(bytes: &[u8]) {
    let Ok(faults) = PerfData::open(Cursor::new(bytes), "perf.data", None, 0) else { return };
    let mut sinks: [Box<dyn Sink>; 3] = [
        table(&DECLARED),
        Box::new(JsonLines::new(Written::default())),
        Box::new(Perfetto::new(Written::default())),
    ];
    pour(faults, &mut sinks);
}

/// Reads a part of a recording, as if it were one of each of these tables.
pub fn part(bytes: &[u8]) {
    for table in [&ENTRY, faults::EVENT, By::File.schema(), &RUN] {
        let _ = read_part(table, bytes.to_vec());
    }
}

fn table(layout: &'static Layout) -> Box<dyn Sink> {
    Box::new(Table::laid_out(Written::default(), layout, Screen::default(), TimeZone::UTC))
}

fn pour<S: Source>(mut source: S, sinks: &mut [Box<dyn Sink>]) {
    while let Ok(Some(item)) = source.next() {
        for sink in &mut *sinks {
            // What a sink refuses it refuses in words.
            let _ = sink.take(&item);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn recordings() {
        trapline_fuzz::bounded("recording", 2000, super::recording);
    }

    #[test]
    fn parts() {
        trapline_fuzz::bounded("part", 500, super::part);
    }

    #[test]
    fn recordings_by_perf() {
        trapline_fuzz::bounded("perf_data", 2000, super::perf_data);
    }
}
