//! The fields of the tables.

use super::super::{COMM, PID};
use crate::field::{Field, Kind, Schema, Show, Unit, field, shown};

const VIEW: Field = field("view", Unit::None, Kind::Key, "the table that the record belongs to");
const FROM: Field = field(
    "from_ns",
    Unit::Nanoseconds,
    Kind::Key,
    "when the process was first seen, or executed its program; tells one program of a process from the next",
);
const ACCESSES: Field = shown(
    field("accesses", Unit::Count, Kind::Counter, "accesses that were seen"),
    "ACCESSES",
    10,
    Show::Integer,
);
const READS: Field =
    shown(field("reads", Unit::Count, Kind::Counter, "that read"), "READS", 9, Show::Integer);
const WRITES: Field =
    shown(field("writes", Unit::Count, Kind::Counter, "that wrote"), "WRITES", 9, Show::Integer);
const EXECUTES: Field = field("executes", Unit::Count, Kind::Counter, "that executed");
const FIRST: Field = field("first", Unit::Count, Kind::Counter, "that were first touches");
const SIZE: Field =
    shown(field("bytes", Unit::Bytes, Kind::Gauge, "the same in bytes"), "MB", 9, Show::Megabytes(2));
const ADDR: Field = shown(field("addr", Unit::Address, Kind::Key, "the page"), "PAGE", 14, Show::Hex);
const OFFSET: Field =
    shown(field("offset", Unit::Bytes, Kind::Label, "where in the file it begins"), "OFFSET", 10, Show::Hex);
const FILE: Field = shown(
    field(
        "file",
        Unit::None,
        Kind::Label,
        "what is mapped there: a path, [heap], [stack], [anon]; [unknown] if it was gone before we could look",
    ),
    "FILE",
    6,
    Show::Text,
);

const fn pages(name: &'static str, help: &'static str, title: &'static str) -> Field {
    shown(field(name, Unit::Count, Kind::Gauge, help), title, 8, Show::Integer)
}

/// The working set: a row per window, a total over the run.
pub const WORKING_SET: &Schema = &[
    VIEW,
    shown(
        field("at_ns", Unit::Nanoseconds, Kind::Key, "when it began, after the beginning of the trace"),
        "AT_MS",
        10,
        Show::Milliseconds(1),
    ),
    shown(
        field(
            "span_ns",
            Unit::Nanoseconds,
            Kind::Label,
            "how long it was; a stretch without accesses is one row",
        ),
        "SPAN_MS",
        9,
        Show::Milliseconds(1),
    ),
    pages("pages", "different pages that were accessed", "PAGES"),
    SIZE,
    pages("read_pages", "that were read", "READ"),
    pages("written_pages", "that were written", "WRITTEN"),
    pages("new_pages", "that had not been accessed before in this trace", "NEW"),
    ACCESSES,
    READS,
    WRITES,
    EXECUTES,
    FIRST,
];

/// Heat by mapping: a row per stretch of pages with no gap of more than a megabyte.
pub const MAPPINGS: &Schema = &[
    VIEW,
    PID,
    FROM,
    COMM,
    ACCESSES,
    READS,
    WRITES,
    EXECUTES,
    FIRST,
    pages("pages", "different pages that were accessed", "PAGES"),
    SIZE,
    shown(
        field("start", Unit::Address, Kind::Key, "the first page that was accessed"),
        "START",
        14,
        Show::Hex,
    ),
    shown(
        field("end", Unit::Address, Kind::Label, "the end of the last page that was accessed"),
        "END",
        14,
        Show::Hex,
    ),
    OFFSET,
    FILE,
];

/// The most accessed pages.
pub const PAGES: &Schema =
    &[VIEW, PID, FROM, COMM, ADDR, ACCESSES, READS, WRITES, EXECUTES, FIRST, OFFSET, FILE];

/// Reads and writes: a row per program.
pub const READS_WRITES: &Schema = &[
    VIEW,
    PID,
    FROM,
    COMM,
    ACCESSES,
    READS,
    WRITES,
    shown(EXECUTES, "EXECUTES", 8, Show::Integer),
    shown(FIRST, "FIRST", 8, Show::Integer),
    pages("pages", "different pages that were accessed", "PAGES"),
    pages("only_read", "that were read and not written", "READONLY"),
    pages("only_written", "that were written and not read", "WRITEONLY"),
    pages("both", "that were read and written", "BOTH"),
];

/// Pages that several threads write to.
pub const SHARING: &Schema = &[
    VIEW,
    PID,
    FROM,
    COMM,
    ADDR,
    shown(
        field("threads", Unit::Count, Kind::Gauge, "threads that wrote to it"),
        "THREADS",
        7,
        Show::Integer,
    ),
    shown(field("writes", Unit::Count, Kind::Counter, "their writes"), "WRITES", 9, Show::Integer),
    shown(
        field("writers", Unit::None, Kind::Label, "thread:writes of those that wrote most, +N for N others"),
        "WRITERS",
        24,
        Show::Text,
    ),
    OFFSET,
    FILE,
];

/// Reuse distances.
pub const REUSE: &Schema = &[
    VIEW,
    ACCESSES,
    shown(
        field("cold", Unit::Count, Kind::Counter, "the first accesses to each page in this trace"),
        "COLD",
        9,
        Show::Integer,
    ),
    shown(field("reused", Unit::Count, Kind::Counter, "the others"), "REUSED", 9, Show::Integer),
    pages(
        "mean_pages",
        "mean distance: different other pages accessed since the last access to the page",
        "MEAN",
    ),
    pages("p50_pages", "half of the distances are no larger", "P50"),
    pages("p90_pages", "90 % of the distances are no larger", "P90"),
    pages("p99_pages", "99 % of the distances are no larger", "P99"),
    pages("max_pages", "the largest distance", "MAX"),
    field("buckets", Unit::Count, Kind::Gauge, "how many accesses had a distance from … to …"),
];

/// The miss-ratio curve: a row per size of memory.
pub const MISS_RATIO: &Schema = &[
    VIEW,
    pages("pages", "size of the memory", "PAGES"),
    SIZE,
    ACCESSES,
    shown(
        field(
            "misses",
            Unit::Count,
            Kind::Counter,
            "accesses that would miss if the page accessed longest ago made room, first ones included",
        ),
        "MISSES",
        10,
        Show::Integer,
    ),
    shown(
        field("miss_ppm", Unit::Count, Kind::Gauge, "their share, millionths"),
        "MISS_%",
        8,
        Show::Percent(2),
    ),
];
