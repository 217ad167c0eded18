//! Accesses for people: as the kernel's tracer writes its lines, for those who read the output of the page-access patch;
//! and summaries, a section per table.

use crate::layout::{Body, Events, Histogram, Layout, Part, Section};

const BEGUN: &str = "trapline access by {variant}[, reset {reset}][, wished every {every_ns:ms} ms]\
                     [, at most {max_overhead_percent} % of the target's time][; {changed}][; {sight}]";
const END: &str = "{end}";
const REACHED: &str = "{rounds} rounds of resets, one each {period_ns:.3ms} ms on average, 99 % within {period_p99_ns:.3ms} ms, \
                       all within {period_max_ns:.3ms} ms; resets took {reset_ns:.1ms} ms, the faults that they caused \
                       {fault_ns:.1ms} ms[{?unwatched_bytes=0}|; only first accesses are seen in {unwatched_bytes:size}]";
/// Each access in a line; what is no event is a comment.
pub static TRACE: Layout = Layout {
    id: "access.trace",
    opening: &[BEGUN],
    events: Events::Line(
        "[{host} |]{comm:>16}-{tid:<7} \\[[{cpu:03}|---]\\] .... {time_ns:>12.6s}: \
         [{?event=start}init_page_access_trace: START {comm}|\
         [{?event=end}__reset_page_access_trace: END {comm}|\
         [{?event=engine}page_access_engine: {note}|\
         handle_mm_fault: {tid} [{rw}|-] [{ip:x}|0] [{addr:x}|0]\
         [{?symbols} [{symbol}|-] [{file}[+{offset:#x}]|\\[unknown\\]]]\
         [{?first=1} first]]]]",
    ),
    sections: &[Section {
        table: "",
        rows: Part::NONE,
        totals: Part { title: "Totals", body: Body::Declared, ..Part::NONE },
    }],
    closing: &[END, REACHED],
    mark: "# ",
};

const fn section(
    table: &'static str,
    until: &'static str,
    title: &'static str,
    histogram: Histogram,
) -> Section {
    let totals = Part { title, body: Body::Declared, histogram, apart: true, ended: false, or_none: true };
    Section { table, rows: Part { title: until, ..totals }, totals }
}

/// The title of a table, and the same of an interval.
macro_rules! titled {
    ($table:literal, $title:literal, $histogram:expr) => {
        section($table, concat!($title, ", until {at_ns:.1ms} ms"), $title, $histogram)
    };
}

/// The tables of a summary one after the other, the windows of the working set as they end.
pub static SUMMARY: Layout = Layout {
    id: "access.summary",
    opening: &[BEGUN],
    events: Events::Line("[{?event=engine}{comm} ({pid}): {note}]"),
    sections: &[
        Section {
            table: "access.workingset",
            rows: Part { title: "Working set over time", body: Body::Appended, ..Part::NONE },
            totals: Part {
                title: "Working set in all",
                body: Body::Declared,
                apart: true,
                or_none: true,
                ..Part::NONE
            },
        },
        titled!("access.mappings", "Heat by mapping", Histogram::None),
        titled!("access.pages", "Most accessed pages", Histogram::None),
        titled!("access.rw", "Reads and writes", Histogram::None),
        titled!("access.sharing", "Pages written by several threads", Histogram::None),
        titled!(
            "access.reuse",
            "Reuse distance, in different pages between two accesses to a page",
            Histogram::Rows
        ),
        titled!(
            "access.missratio",
            "Misses by size of memory (LRU: the page accessed longest ago is dropped)",
            Histogram::None
        ),
    ],
    closing: &[
        "",
        END,
        REACHED,
        "an access counts once per page and round; {merged_faults} further faults of an access are left out",
    ],
    mark: "",
};
