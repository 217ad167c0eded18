//! The tables of a summary.

use super::View;
use super::pages::Counts;
use super::tables::{Misses, Reuse, Spot};
use super::trace::PAGE;
use super::window::WindowRow;
use crate::field::Show::{Hex, Integer, Megabytes, Milliseconds, Path, Percent, Text};
use crate::field::{Kind, Unit, Value};
use crate::table::{Column, Schema, Table, count, hist, id, key, label, number};

const PAGES_OF: (Unit, Kind) = (Unit::Count, Kind::Gauge);
const SIZE: (Unit, Kind) = (Unit::Bytes, Kind::Gauge);
const START: (Unit, Kind) = (Unit::Address, Kind::Key);

const fn view<R>(get: fn(&R) -> Value) -> Column<R> {
    key("view", "The table that the record belongs to.", get)
}

#[rustfmt::skip]
const fn accesses<R>(get: fn(&R) -> Value) -> Column<R> {
    count("accesses", "The accesses that were seen.", get).shown("ACCESSES", 10, Integer)
}

#[rustfmt::skip]
const fn pages<R>(name: &'static str, help: &'static str, title: &'static str, get: fn(&R) -> Value) -> Column<R> {
    number(name, PAGES_OF, help, get).shown(title, 8, Integer)
}

#[rustfmt::skip]
const fn size<R>(help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    number("bytes", SIZE, help, get).shown("MB", 9, Megabytes(2))
}

/// The counts of accesses.
macro_rules! counts {
    ($of:ty) => {
        [
            accesses(|r: &$of| r.counts().accesses.into()),
            count("reads", "The accesses that read.", |r: &$of| r.counts().reads.into())
                .shown("READS", 9, Integer)
                .yields(5),
            count("writes", "The accesses that wrote.", |r: &$of| r.counts().writes.into())
                .shown("WRITES", 9, Integer)
                .yields(5),
            count("executes", "The accesses that executed.", |r: &$of| r.counts().executes.into()),
            count("first", "The accesses that were the first to their page.", |r: &$of| {
                r.counts().first.into()
            }),
        ]
    };
}

#[rustfmt::skip]
const WHOSE: &[Column<Spot>] = &[
    view(|r| r.view.map(View::value).into()),
    id("pid", "The process id.", |r: &Spot| r.whose.map(|w| w.0).into()).shown("PID", 8, Integer),
    number("from_ns", (Unit::Nanoseconds, Kind::Key), "The time when the process was first seen, or executed its program; it distinguishes the programs that a process executes.", |r| r.whose.map(|w| w.1).into()),
    label("comm", "The name of the process.", |r: &Spot| r.comm.as_str().into()).shown("COMM", 15, Text),
];

const COUNTS: [Column<Spot>; 5] = counts!(Spot);

#[rustfmt::skip]
const PLACE: &[Column<Spot>] = &[
    number("offset", (Unit::Bytes, Kind::Label), "The offset in the file at which it begins.", |r: &Spot| r.offset.into()).shown("OFFSET", 10, Hex).yields(8),
    label("file", "What is mapped there: a path, [heap], [stack], [anon]; [unknown] if it was unmapped before trapline looked.", |r: &Spot| r.file.as_deref().into()).shown("FILE", 6, Path).least(20),
];

#[rustfmt::skip]
const ADDR: &[Column<Spot>] = &[number("addr", START, "The address of the page.", |r: &Spot| r.start.into()).shown("PAGE", 14, Hex)];

#[rustfmt::skip]
const TOUCHED: Column<Spot> = pages("pages", "The different pages that were accessed.", "PAGES", |r| r.pages.into());

/// The working set: a row per window, a total over the run.
#[rustfmt::skip]
pub(super) static WORKING_SET: Table<WindowRow> = Table::new("access.workingset", "access", &[&[
    view(|_| View::WorkingSet.value()),
    number("at_ns", (Unit::Nanoseconds, Kind::Key), "The beginning of the window, after the beginning of the trace.", |r: &WindowRow| r.at_ns.into()).shown("AT_MS", 10, Milliseconds(1)),
    number("span_ns", (Unit::Nanoseconds, Kind::Label), "The length of the window; a stretch without accesses is one row.", |r: &WindowRow| r.span_ns.into()).shown("SPAN_MS", 9, Milliseconds(1)),
    pages("pages", "The different pages that were accessed.", "PAGES", |r| r.touched.pages.into()),
    size("The size of the different pages that were accessed.", |r| (r.touched.pages * PAGE).into()),
    pages("read_pages", "The pages that were read.", "READ", |r| r.touched.read.into()),
    pages("written_pages", "The pages that were written.", "WRITTEN", |r| r.touched.written.into()),
    pages("new_pages", "The pages that had not been accessed before in this trace.", "NEW", |r| r.touched.new.into()),
], &counts!(WindowRow)]);

/// Heat by mapping: a row per stretch of pages with no gap of more than a megabyte.
#[rustfmt::skip]
pub(super) static MAPPINGS: Table<Spot> = Table::new("access.mappings", "access", &[WHOSE, &COUNTS, &[
    TOUCHED,
    size("The size of the different pages that were accessed.", |r| r.pages.map(|n| n * PAGE).into()),
    number("start", START, "The address of the first page that was accessed.", |r: &Spot| r.start.into()).shown("START", 14, Hex).yields(4),
    number("end", (Unit::Address, Kind::Label), "The end of the last page that was accessed.", |r: &Spot| r.end.into()).shown("END", 14, Hex).yields(9),
], PLACE]);

/// The most accessed pages.
pub(super) static PAGES: Table<Spot> = Table::new("access.pages", "access", &[WHOSE, ADDR, &COUNTS, PLACE]);

/// Reads and writes: a row per program.
#[rustfmt::skip]
pub(super) static READS_WRITES: Table<Spot> = Table::new("access.rw", "access", &[WHOSE, &[
    COUNTS[0], COUNTS[1], COUNTS[2], COUNTS[3].shown("EXECUTES", 8, Integer).yields(6), COUNTS[4].shown("FIRST", 8, Integer).yields(7),
    TOUCHED,
    pages("only_read", "The pages that were read and not written.", "READONLY", |r| r.ways.only_read.into()),
    pages("only_written", "The pages that were written and not read.", "WRITEONLY", |r| r.ways.only_written.into()),
    pages("both", "The pages that were read and written.", "BOTH", |r| r.ways.both.into()),
]]);

/// Pages that several threads write to.
#[rustfmt::skip]
pub(super) static SHARING: Table<Spot> = Table::new("access.sharing", "access", &[WHOSE, ADDR, &[
    number("threads", PAGES_OF, "The threads that wrote to the page.", |r: &Spot| r.threads.into()).shown("THREADS", 7, Integer),
    count("writes", "The writes of these threads.", |r: &Spot| r.counts.writes.into()).shown("WRITES", 9, Integer),
    label("writers", "The threads that wrote most, as thread:writes, and +N for N others.", |r: &Spot| r.writers.as_deref().into()).shown("WRITERS", 24, Text).yields(3),
], PLACE]);

/// Reuse distances.
#[rustfmt::skip]
pub(super) static REUSE: Table<Reuse> = Table::new("access.reuse", "access", &[&[
    view(|_| View::Reuse.value()),
    accesses(|r| r.accesses.into()),
    count("cold", "The first accesses to each page in this trace.", |r: &Reuse| r.distances.cold().into()).shown("COLD", 9, Integer),
    count("reused", "The accesses that were not the first to their page in this trace.", |r: &Reuse| r.distances.reused().into()).shown("REUSED", 9, Integer),
    pages("mean_pages", "The mean distance: different other pages accessed since the last access to the page.", "MEAN", |r| r.distances.mean().into()),
    pages("p50_pages", "Half of the distances are no larger than this.", "P50", |r| r.distances.quantile(50).into()),
    pages("p90_pages", "90 % of the distances are no larger than this.", "P90", |r| r.distances.quantile(90).into()),
    pages("p99_pages", "99 % of the distances are no larger than this.", "P99", |r| r.distances.quantile(99).into()),
    pages("max_pages", "The largest distance.", "MAX", |r| r.distances.max().into()),
    hist("buckets", Unit::Count, "The accesses by distance, [[lowest, highest, accesses], …].", |r| r.distances.buckets().into()),
]]);

/// The miss-ratio curve: a row per size of memory.
#[rustfmt::skip]
pub(super) static MISS_RATIO: Table<Misses> = Table::new("access.missratio", "access", &[&[
    view(|_| View::MissRatio.value()),
    pages("pages", "The size of the memory in pages.", "PAGES", |r| r.pages.into()),
    size("The size of the memory.", |r| (r.pages * PAGE).into()),
    accesses(|r| r.accesses.into()),
    count("misses", "The accesses that would miss if the page accessed longest ago made way, first ones included.", |r: &Misses| r.misses.into()).shown("MISSES", 10, Integer),
    number("miss_ppm", PAGES_OF, "The share of accesses that would miss, millionths.", |r: &Misses| r.share().into()).shown("MISS_%", 8, Percent(2)),
]]);

impl View {
    pub(super) fn value(self) -> Value {
        Value::word(self.name())
    }

    /// The fields of its records.
    #[must_use]
    pub fn schema(self) -> &'static Schema {
        match self {
            Self::WorkingSet => &WORKING_SET,
            Self::Mappings => &MAPPINGS,
            Self::Pages => &PAGES,
            Self::ReadsWrites => &READS_WRITES,
            Self::Sharing => &SHARING,
            Self::Reuse => &REUSE,
            Self::MissRatio => &MISS_RATIO,
        }
    }
}

impl Spot {
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl WindowRow {
    fn counts(&self) -> &Counts {
        &self.touched.counts
    }
}
