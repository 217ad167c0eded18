//! Tables, and the formats for programs, of rows as their fields declare.

use trapline_model::faults::{By, Cause, EVENT, LOSSES, Losses, SETTINGS, Settings};
use trapline_model::{Schema, Sink};

use super::*;
use crate::{Csv, JsonLines};

/// A row whose figures tell their places, with hostile names.
fn row(schema: &'static Schema, factor: u64) -> Record {
    let value = |(at, field): (usize, &Field)| match field.name {
        "comm" | "file" | "cgroup" => Value::from("=a b\n\u{202e}"),
        "cause" => Cause::ZeroFill.name().into(),
        "stack" => "db;main;read_7;handle_mm_fault_[k]".into(),
        "lines" => ";main.c:3;[no symbols];".into(),
        "inode" if factor > 1 => Value::Null,
        _ if field.ty == trapline_model::Type::Str => field.name.into(),
        _ if field.ty == trapline_model::Type::Hist => vec![(4, Some(7), factor), (1 << 32, None, 2)].into(),
        _ => Value::U64((at as u64 + 1) * 1_000_003 * factor),
    };
    Record::new(schema, schema.iter().enumerate().map(value).collect())
}

fn items(by: By) -> Vec<Item> {
    let schema = by.schema();
    let settings = Settings { minor_latency: Some("exact".into()), memory_mb: 256, ..Settings::default() };
    let header = Header {
        tool: "faults".into(),
        variant: "x".into(),
        version: "0".into(),
        host: "h\u{1b}".into(),
        kernel: "k".into(),
        start_unix_ns: 1_700_000_000_123_456_789,
        start_ns: 1_000_000_000,
        settings: vec![SETTINGS.record(&settings)],
        ..Header::default()
    };
    let block = |time_ns| Block {
        sum: Some(row(schema, 8)),
        hidden: 3,
        ..Block::new(schema, time_ns, vec![row(schema, 1), row(schema, 7)])
    };
    let more = vec![LOSSES.record(&Losses { missed_programs: Some(4), ..Losses::default() })];
    vec![
        Item::Header(header),
        Item::Events(vec![Event { time_ns: 1_234_567_890, record: row(EVENT, 1) }]),
        Item::Rows(block(2_000_000_000)),
        Item::Totals(block(3_000_000_000)),
        Item::End(Facts {
            duration_ns: 2_000_000_000,
            events: 9,
            lost_events: 1,
            sampled: 8,
            own_cpu_ns: Some(5_000_000),
            more,
        }),
    ]
}

fn told(sink: &mut dyn Sink, items: &[Item]) {
    items.iter().for_each(|item| sink.take(item).unwrap());
}

#[test]
fn tables_of_faults() {
    for by in [By::Thread, By::Process, By::Cgroup, By::File, By::Cause, By::Stack, By::Span] {
        let mut out = Vec::new();
        told(&mut Table::new(&mut out, Screen::default(), TimeZone::UTC), &items(by));
        insta::assert_snapshot!(format!("faults_by_{by:?}").to_lowercase(), String::from_utf8(out).unwrap());
    }
}

#[test]
fn lines_of_json_and_of_values() {
    let (mut json, mut csv) = (Vec::new(), Vec::new());
    told(&mut JsonLines::new(&mut json), &items(By::File));
    told(&mut Csv::new(&mut csv, By::File.schema()), &items(By::File));
    insta::assert_snapshot!("jsonl", String::from_utf8(json).unwrap());
    insta::assert_snapshot!("csv", String::from_utf8(csv).unwrap());
}

/// On a terminal a table that stays has a number of rows, the next option to type below them, and no line longer than the
/// terminal's; elsewhere it is whole.
#[test]
fn a_terminal_gets_rows_that_fit_and_how_to_see_more() {
    let schema = By::Thread.schema();
    let rows = |rows| Item::Totals(Block::new(schema, 1, (0..rows).map(|n| row(schema, n + 1)).collect()));
    let shown = |rows_of_space, item: &Item| {
        let space = Space { columns: Some(80), rows: rows_of_space, ..Space::default() };
        let mut out = Vec::new();
        let screen = Screen { space: Some(Box::new(move || space)), color: false };
        Table::new(&mut out, screen, TimeZone::UTC).take(item).unwrap();
        String::from_utf8(out).unwrap()
    };
    let cut = shown(Some(20), &rows(30));
    assert!(cut.ends_with("\n(10 more; --top 30 prints all rows)\n"), "{cut}");
    assert_eq!(cut.lines().count(), 2 + 20 + 1, "{cut}");
    assert!(!shown(Some(20), &rows(20)).contains("more"));
    assert!(!shown(None, &rows(300)).contains("more"));
}

/// Lines of events are cut where the terminal ends.
#[test]
fn lines_of_events_end_with_the_terminal() {
    let schema = trapline_model::kvm::EVENT;
    let value = |field: &Field| match (field.name, field.ty) {
        ("isa", _) => "vmx".into(),
        (_, trapline_model::Type::Str) => "x".repeat(100).into(),
        _ => 1_u64.into(),
    };
    let record = Record::new(schema, schema.iter().map(value).collect());
    let line = |columns| {
        let mut out = Vec::new();
        let space = Space { columns, ..Space::default() };
        let screen = Screen { space: Some(Box::new(move || space)), color: false };
        let mut table = Table::laid_out(&mut out, &trapline_model::kvm::SLOWER, screen, TimeZone::UTC);
        table.take(&Item::Events(vec![Event { time_ns: 1, record: record.clone() }])).unwrap();
        String::from_utf8(out).unwrap()
    };
    let cut = line(Some(80));
    assert!(cut.chars().count() == 81 && cut.ends_with("…\n"), "{cut}");
    assert!(line(None).len() > 200);
}
