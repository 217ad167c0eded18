//! Every layout, as it looks.

mod declared;
mod kvm;
mod sgx;
mod summary;
mod trace;

use trapline_model::layout::{Body, Histogram, LAYOUTS};
use trapline_model::{Field, Header, Record, TABLES, Value};

use crate::template::Template;

use super::*;

/// Names in a layout are fields of its tool's tables, or words that the writer gives.
#[test]
fn layouts_are_of_fields_that_there_are() {
    const WORDS: [&str; 9] =
        ["note", "number", "clock", "at_ns", "end", "time_ns", "variant", "excludes", "symbols"];
    for layout in LAYOUTS {
        let tool = layout.id.split('.').next().unwrap();
        let fields: Vec<&str> = TABLES
            .iter()
            .filter(|table| table.tool() == tool)
            .flat_map(|table| table.iter())
            .map(|field| field.name)
            .collect();
        let check = |text: &str| {
            let template = Template::read(text);
            let template = template.unwrap_or_else(|| panic!("{}: {text}", layout.id));
            for name in template.names() {
                assert!(WORDS.contains(&name) || fields.contains(&name), "{}: {name} in {text}", layout.id);
            }
        };
        // What a run was asked for, saw and lost is not among the tables.
        layout
            .opening
            .iter()
            .chain(layout.closing)
            .for_each(|text| assert!(Template::read(text).is_some(), "{text}"));
        if let Events::Line(line) = layout.events {
            check(line);
        }
        for section in layout.sections {
            assert!(
                section.table.is_empty() || TABLES.iter().any(|table| table.id() == section.table),
                "{section:?}"
            );
            for part in [section.rows, section.totals] {
                check(part.title);
                match part.body {
                    Body::Columns(columns) => {
                        columns.iter().flat_map(|column| [column.cell, column.sum]).for_each(check)
                    }
                    Body::Line(time) => check(time),
                    Body::Paragraphs(lines) => lines.iter().for_each(|line| check(line)),
                    Body::None | Body::Declared | Body::Appended => {}
                }
                if let Histogram::Titled(title) = part.histogram {
                    check(title);
                }
            }
        }
    }
}
