//! Exits for people, in the forms that kvm-bpf-tools and bcc have made familiar.

use crate::layout::{Body, Column, Events, Histogram, Layout, Part, Section};

const TRACING: &str = "Tracing... Hit Ctrl-C to end.";
const END: &[&str] = &["{end}"];
const CLOCK: &str = "\\[{clock}\\]";

/// The exit's number as manuals write it: hexadecimal but for VMX.
const NUMBER: Column = Column {
    title: "",
    cell: "[{?isa=vmx}{reason}|[{reason:#x}]]",
    sum: "",
    width: 3,
    left: false,
    least: 0,
    yields: 0,
};

const fn named(sum: &'static str) -> Column {
    Column { title: "Exit reason", cell: "[{name}]", sum, width: 18, left: true, least: 12, yields: 0 }
}

const fn figures(title: &'static str, cell: &'static str, yields: u8) -> Column {
    Column { title, cell, sum: cell, width: 0, left: true, least: 0, yields }
}

const fn columns(id: &'static str, sections: &'static [Section]) -> Layout {
    let (opening, events) = (&[TRACING], Events::Line(""));
    Layout { id, opening, events, sections, closing: END, mark: "" }
}

const fn section(body: Body, histogram: Histogram) -> Section {
    let totals = Part { body, histogram, ..Part::NONE };
    Section { table: "", rows: Part { title: CLOCK, ended: true, ..totals }, totals }
}

/// Number, name, and how many in all, of L1 and of L2.
pub static COUNT: Layout = columns(
    "kvm.count",
    &[section(
        Body::Columns(&[
            NUMBER,
            named("Total"),
            figures("   Total", "{count:>8}", 0),
            figures("      L1", "{l1_count:>8}", 1),
            figures("      L2", "{l2_count:>8}", 1),
        ]),
        Histogram::None,
    )],
);

/// The same with mean times in nanoseconds, and how the times are spread.
pub static TIME: Layout = columns(
    "kvm.time",
    &[section(
        Body::Columns(&[
            NUMBER,
            named("Total (Avg Time)"),
            figures("   Total (Avg Time)", "{count:>8} ({total_ns/timed:>8})", 0),
            figures("      L1 (Avg Time)", "{l1_count:>8} ({l1_ns/l1_timed:>8})", 1),
            figures("      L2 (Avg Time)", "{l2_count:>8} ({l2_ns/l2_timed:>8})", 1),
            figures("      P50", "{p50_ns:>9}", 4),
            figures("      P90", "{p90_ns:>9}", 5),
            figures("      P99", "{p99_ns:>9}", 3),
            figures("       Max", "{max_ns:>10}", 2),
        ]),
        Histogram::None,
    )],
);

/// A histogram of all exits together.
pub static HIST: Layout = columns("kvm.hist", &[section(Body::None, Histogram::Sum("value"))]);

/// A histogram of each exit.
pub static HIST_EACH: Layout = columns(
    "kvm.hist-each",
    &[section(Body::None, Histogram::Titled("exit [{?isa=vmx}{reason}|[{reason:#x}]] {name}"))],
);

/// A line for each slow exit.
pub static SLOWER: Layout = Layout {
    id: "kvm.slower",
    opening: &["[Excludes: {excludes}]", TRACING],
    events: Events::Line(
        "[{?isa=vmx}{reason:>3}|{reason:>#3x}] {name:<18} {latency_ns:>8} ({level})  pid {pid} vcpu {vcpu} \
         rip {rip:#x}[ vm {vm}][ {stack_at} {stack}]",
    ),
    sections: &[Section { table: "", rows: Part::NONE, totals: Part::NONE }],
    closing: END,
    mark: "",
};
