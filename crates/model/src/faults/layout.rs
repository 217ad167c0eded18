//! Times of page faults as histograms, in the form that bcc has made familiar.

use crate::layout::{Body, Events, Histogram, Layout, Part, Section};

const fn histograms(id: &'static str, sections: &'static [Section]) -> Layout {
    Layout { id, opening: &[], events: Events::Declared, sections, closing: &["{end}"], mark: "" }
}

const fn section(histogram: Histogram) -> Section {
    let part = Part { body: Body::None, histogram, ..Part::NONE };
    Section {
        table: "",
        rows: Part { title: "\\[{clock}\\] {note}", ended: true, ..part },
        totals: Part { title: "Totals, {note}", ..part },
    }
}

/// Of all faults together.
pub static HIST: Layout = histograms("faults.hist", &[section(Histogram::Sum(""))]);

/// Of each row.
pub static HIST_EACH: Layout = histograms(
    "faults.hist-each",
    &[section(Histogram::Titled(
        "faults[ of {comm}][ pid {pid}][ tid {tid}][ of cgroup {cgroup}][ of {file}][ of {cause}][ of {function}][ of {stack}]",
    ))],
);
