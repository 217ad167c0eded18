//! A recording that anybody may have written, read as `trapline access --read` does, into everything that it can become.

use std::io::{self, Write};

use crate::{Recording, Tool};
use trapline_model::access::summary::{Options, Summarized};
use trapline_model::access::{self, EVENT, TOTAL};
use trapline_model::{Sink, Source};
use trapline_view::{AccessSummary, Csv, Damo, Ftrace, JsonLines};

const ACCESS: Tool =
    Tool { name: "access", event: EVENT, total: TOTAL, check: access::check, is_counted: access::is_counted };

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
    let open = || Recording::open(bytes, "x.jsonl", ACCESS);
    let Ok(plain) = open() else { return };
    let mut sinks: [Box<dyn Sink>; 4] = [
        Box::new(Ftrace::new(Written::default())),
        Box::new(JsonLines::new(Written::default())),
        Box::new(Csv::new(Written::default(), EVENT)),
        Box::new(Damo::new(Written::default(), 100_000_000)),
    ];
    pour(plain, &mut sinks);
    for intervals in [false, true] {
        let Ok(recording) = open() else { return };
        let options = Options { intervals, ..Options::default() };
        let mut sinks: [Box<dyn Sink>; 2] =
            [Box::new(AccessSummary::new(Written::default())), Box::new(JsonLines::new(Written::default()))];
        pour(Summarized::new(recording, options), &mut sinks);
    }
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
}
