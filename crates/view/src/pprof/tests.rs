use std::io::Read;

use flate2::read::GzDecoder;
use trapline_model::Schema;
use trapline_model::faults::By;

use super::*;

fn row(schema: &'static Schema, values: &[(&str, Value)]) -> Record {
    let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    Record::named(schema, |name| value(name).unwrap_or(Value::Null))
}

fn profile(schema: &'static Schema, rows: Vec<Record>) -> Profile {
    let mut out = Vec::new();
    let mut sink = Pprof::new(&mut out);
    let end = Facts { duration_ns: 5, events: 1, lost_events: 2, sampled: 1, ..Facts::default() };
    for item in [
        Item::Header(Header { tool: "faults".into(), start_unix_ns: 77, ..Header::default() }),
        Item::Totals(Block { hidden: 3, ..Block::new(schema, 1, rows) }),
        Item::End(end),
    ] {
        sink.take(&item).unwrap();
    }
    let mut bytes = Vec::new();
    GzDecoder::new(out.as_slice()).read_to_end(&mut bytes).unwrap();
    Profile::decode(bytes.as_slice()).unwrap()
}

impl Profile {
    fn text(&self, number: i64) -> &str {
        &self.string_table[number as usize]
    }

    fn types(&self) -> Vec<(&str, &str)> {
        self.sample_type.iter().map(|of| (self.text(of.r#type), self.text(of.unit))).collect()
    }

    /// The names of a sample's functions, innermost first.
    fn names(&self, sample: usize) -> Vec<&str> {
        let location = |id: &u64| &self.location[*id as usize - 1];
        let function = |at: &Location| &self.function[at.line[0].function_id as usize - 1];
        let ids = self.sample[sample].location_id.iter();
        ids.map(|id| self.text(function(location(id)).name)).collect()
    }
}

#[test]
fn stacks_with_faults_and_stall() {
    let schema = By::Stack.schema();
    let rows = vec![
        row(
            schema,
            &[
                ("stack", "sh;main;do_read_[k]".into()),
                ("lines", ";/a.c:3;".into()),
                ("major", 1u64.into()),
                ("minor", 2u64.into()),
                ("total_ns", 900u64.into()),
                ("major_ns", 800u64.into()),
            ],
        ),
        row(schema, &[("major", 0u64.into()), ("minor", 4u64.into())]),
    ];
    let profile = profile(schema, rows);
    assert_eq!(
        profile.types(),
        [
            ("faults", "count"),
            ("major", "count"),
            ("minor", "count"),
            ("stall", "nanoseconds"),
            ("major_stall", "nanoseconds")
        ]
    );
    assert_eq!(profile.sample[0].value, [3, 1, 2, 900, 800]);
    assert_eq!(profile.names(0), ["do_read", "main", "sh"]);
    assert_eq!(profile.location[1].line[0].line, 3);
    assert_eq!(profile.text(profile.function[1].filename), "/a.c");
    let kernel = profile.location[0].mapping_id as usize - 1;
    assert_eq!(profile.text(profile.mapping[kernel].filename), "[kernel.kallsyms]");
    assert_eq!(profile.names(1), ["[no stack taken]"]);
    assert_eq!(profile.sample[1].value, [4, 0, 4, 0, 0]);
    assert_eq!((profile.time_nanos, profile.duration_nanos), (77, 5));
    let comments: Vec<&str> = profile.comment.iter().map(|comment| profile.text(*comment)).collect();
    for text in ["stall: unknown of 1 rows, which have 0", "3 rows left out"] {
        assert!(comments.contains(&text), "{text} in {comments:?}");
    }
    assert!(comments.iter().any(|text| text.starts_with("2 lost events.")), "{comments:?}");
}

/// What is not known of any row is no sample type: 0 would say that nothing happened.
#[test]
fn what_nobody_timed_is_no_sample_type() {
    let counted = [("major", 1u64.into()), ("minor", 2u64.into()), ("comm", "w".into())];
    let profile = profile(By::Thread.schema(), vec![row(By::Thread.schema(), &counted)]);
    assert_eq!(profile.types(), [("faults", "count"), ("major", "count"), ("minor", "count")]);
}

#[test]
fn rows_of_any_table_are_frames_and_labels() {
    let schema = By::File.schema();
    let hostile = format!("<b>\x1b[2J;{}", "x".repeat(4096));
    let values = [("file", hostile.as_str().into()), ("inode", 7u64.into()), ("minor", u64::MAX.into())];
    let profile = profile(schema, vec![row(schema, &values)]);
    assert_eq!(profile.names(0), [format!("<b>\\x1b[2J;{}", "x".repeat(4096))]);
    assert_eq!(profile.sample[0].value, [i64::MAX]);
    let label = &profile.sample[0].label[1];
    assert_eq!((profile.text(label.key), label.num, profile.text(label.num_unit)), ("inode", 7, "count"));
}
