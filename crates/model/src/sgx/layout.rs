//! Enclaves for people: a line an interval, as the tool's users know it.

use crate::layout::{Body, Events, Histogram, Layout, Part, Section};

/// The figures of everything in a line an interval.
pub static LINES: Layout = Layout {
    id: "sgx.lines",
    opening: &["{note}. Tracing... Ctrl-C to end."],
    events: Events::Line(""),
    sections: &[Section {
        table: "",
        rows: Part { body: Body::Line("\\[{clock}\\]"), ..Part::NONE },
        totals: Part { body: Body::Line("\\[total\\]"), histogram: Histogram::Sum(""), ..Part::NONE },
    }],
    closing: &["{end}"],
    mark: "",
};
