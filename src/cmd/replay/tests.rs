//! What a run printed, its recording prints again: for every table of every tool in every layout, through the sinks that
//! the command line opens. What a recording has of a live run is tested with live runs: `tests/live/faults/replay.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use trapline_model::{
    Block, CUT_OFF, Columns as _, Event, Facts, Kind, Part, Record, SHOWN, Shown, TABLES, Type, has_host,
    recorded,
};

use super::*;

#[derive(Parser)]
struct Alone {
    #[command(flatten)]
    args: Args,
}

/// A record whose values tell their places, and which are as bad as they can be.
fn record(schema: &'static Schema, row: u64) -> Record {
    let value = |(at, field): (u64, &trapline_model::Field)| match (field.ty, (at + row) % 5) {
        (Type::U64, 0) if field.kind != Kind::Key => Value::Null,
        (Type::U64, 1) => u64::MAX.into(),
        (Type::U64, n) => (n * 1_000_003 + row).into(),
        (Type::I64, n) => (row.cast_signed() - n.cast_signed() * 1_000_003).into(),
        (Type::Bool, n) => (n > 1).into(),
        (Type::Str, 0) if field.name != "view" => Value::Null,
        (Type::Str, _) if field.name == "view" => schema.id().split('.').next_back().unwrap().into(),
        (Type::Str, 1) => "".into(),
        (Type::Str, _) => format!("a;\"b\\\n\u{1b}[2J\u{202e}{row}").into(),
        (Type::Hist, 0) => Value::from(vec![]),
        (Type::Hist, n) => vec![(0, Some(1), 3), (4, Some(7), n), (7 << 30, None, row + 1)].into(),
    };
    Record::new(schema, (0..).zip(schema.iter()).map(value).collect())
}

fn block(schema: &'static Schema, time_ns: u64, rows: u64) -> Block {
    let sum = (rows != 2).then(|| record(schema, 99));
    Block { sum, ..Block::new(schema, time_ns, (0..rows).map(|row| record(schema, row)).collect()) }
}

/// The header of a run of this tool, with settings of every kind but those of a summary.
fn header(schema: &'static Schema, shown: &Shown) -> Item {
    let settings = recorded::tables(schema.tool(), Part::Settings).into_iter();
    let settings = settings.filter(|table| !table.id().contains("summary") && !table.id().contains("shown"));
    Item::Header(Header {
        tool: schema.tool().into(),
        variant: "x".into(),
        version: "0".into(),
        host: "h\u{1b}".into(),
        kernel: "k".into(),
        start_unix_ns: 1_700_000_000_123_456_789,
        start_ns: 1_000_000_000,
        tables: vec![schema],
        events: None,
        settings: settings.map(|table| record(table, 3)).chain([SHOWN.record(shown)]).collect(),
    })
}

fn end(facts: Option<&'static Schema>, events: u64) -> Item {
    let more = facts.into_iter().map(|table| record(table, 4)).collect();
    let duration_ns = 4_000_000_000;
    Item::End(Facts { duration_ns, events, lost_events: 1, sampled: 8, own_cpu_ns: Some(5_000_000), more })
}

/// What a sink opened as the command line opens it writes of these items.
fn written_bytes(items: &[Item], ask: &Ask, path: &Path) -> Vec<u8> {
    let format = Format::choose(None, Some(path)).unwrap();
    let mut sink = sink::open(format, Some(path), sink::From::Machine, ask.clone()).unwrap();
    items.iter().for_each(|item| sink.take(item).unwrap());
    fs::read(path).unwrap()
}

fn written(items: &[Item], ask: &Ask, path: &Path) -> String {
    String::from_utf8(written_bytes(items, ask, path)).unwrap()
}

/// Recordings of a run: in JSON lines, and as a folder.
struct Recorded<'a> {
    folder: &'a Path,
    paths: [PathBuf; 2],
}

impl<'a> Recorded<'a> {
    fn new(items: &[Item], ask: &Ask, folder: &'a Path) -> Self {
        let paths = ["x.jsonl", "x.trapline"].map(|name| folder.join(name));
        let mut sink =
            sink::open(Format::Recording, Some(&paths[1]), sink::From::Machine, ask.clone()).unwrap();
        items.iter().for_each(|item| sink.take(item).unwrap());
        written(items, ask, &paths[0]);
        Self { folder, paths }
    }

    /// What `trapline replay` writes of both.
    fn replayed_bytes(&self, name: &str, options: &[&str]) -> Vec<u8> {
        let [of_lines, of_folder] =
            [0, 1].map(|at| replayed_from(&self.paths[at], self.folder, name, options));
        assert!(of_lines == of_folder, "{name} of JSON lines is not that of a folder");
        of_lines
    }

    fn replayed(&self, name: &str, options: &[&str]) -> String {
        String::from_utf8(self.replayed_bytes(name, options)).unwrap()
    }
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.paths[1]).unwrap();
    }
}

fn replayed_from(recording: &Path, folder: &Path, name: &str, options: &[&str]) -> Vec<u8> {
    let to = folder.join(name);
    let paths = [recording.to_str().unwrap(), "-o", to.to_str().unwrap()];
    let args = Alone::try_parse_from([&["replay"], &paths[..], options].concat()).unwrap().args;
    run(&args).unwrap();
    fs::read(to).unwrap()
}

/// The items of a run with intervals; without the rows that a live run does not show to people.
fn items(schema: &'static Schema, shown: &Shown, intervals: u64) -> (Vec<Item>, Vec<Item>) {
    let rows = (1..=intervals).map(|n| Item::Rows(block(schema, (n + 1) * 1_000_000_000, n % 4)));
    let mut all: Vec<Item> = [header(schema, shown)].into_iter().chain(rows).collect();
    let mut for_people = all.clone();
    if intervals > 0 && (shown.cumulative || intervals == 1) {
        for_people.pop();
    }
    // Each of them in turn, but for that in place of an end.
    let mut facts = recorded::tables(schema.tool(), Part::Facts);
    facts.retain(|table| table.id() != CUT_OFF.id());
    let facts = facts.get(intervals as usize % facts.len().max(1)).copied();
    let last = [Item::Totals(block(schema, 5_000_000_000, 3)), end(facts, 0)];
    all.extend(last.clone());
    for_people.extend(last);
    (all, for_people)
}

fn is_of_events(schema: &Schema) -> bool {
    schema.iter().all(|field| !matches!(field.kind, Kind::Counter)) && schema.tool() != "doctor"
}

fn tables() -> impl Iterator<Item = &'static Schema> {
    let recorded = ["faults", "kvm", "sgx", "access"];
    let tables = TABLES.iter().copied().filter(move |table| recorded.contains(&table.tool()));
    // Those of several machines have one column more, no recording of a live run has them.
    tables.filter(|table| table.part() == Part::Rows && !has_host(*table))
}

#[test]
fn every_table_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for schema in tables().filter(|table| !is_of_events(*table)) {
        for layout in LAYOUTS {
            if **layout != DECLARED && layout.id.split('.').next() != Some(schema.tool()) {
                continue;
            }
            let ask = Ask { layout, ..Ask::new(schema) };
            for (intervals, cumulative) in [(0, false), (1, false), (3, false), (3, true)] {
                let shown = Shown {
                    layout: Some(layout.id),
                    excludes: Some("HLT".into()),
                    cumulative,
                    ..Shown::default()
                };
                let (all, for_people) = items(schema, &shown, intervals);
                let live = written(&for_people, &ask, &folder.path().join("live.txt"));
                let again = Recorded::new(&all, &ask, folder.path()).replayed("again.txt", &[]);
                assert_eq!(live, again, "{schema:?} in {} at {intervals} intervals", layout.id);
                assert!(live.contains("4.000 s"), "{live}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn other_formats_and_views() {
    let folder = tempfile::tempdir().unwrap();
    for schema in tables().filter(|table| !is_of_events(*table)) {
        let (all, _) = items(schema, &Shown::default(), 3);
        let ask = Ask::new(schema);
        let flame = if schema.id() == "faults.stack" { &["live.folded", "live.svg"][..] } else { &[] };
        let recorded = Recorded::new(&all, &ask, folder.path());
        let names =
            ["live.jsonl", "live.csv", "live.parquet", "live.pb.gz", "live.json.gz", "live.perfetto-trace"];
        for name in names.iter().chain(flame) {
            let live = written_bytes(&all, &ask, &folder.path().join(name));
            let again = recorded.replayed_bytes(&format!("again-{name}"), &[]);
            assert!(live == again, "{schema:?}: {name} of a run is not that of its recording");
        }
        // Sorted and cut as a live run sorts and cuts.
        let field = schema.iter().find(|field| field.kind == Kind::Counter).unwrap();
        let by = schema.iter().position(|other| other.name == field.name).unwrap();
        let sorted: Vec<Item> = all
            .iter()
            .cloned()
            .map(|mut item| {
                if let Item::Rows(block) | Item::Totals(block) = &mut item {
                    block.sort(by);
                    block.cut(2);
                }
                item
            })
            .collect();
        let ask = Ask { layout: &DECLARED, ..ask };
        let live = written(&sorted, &ask, &folder.path().join("live.txt"));
        let options = ["--sort", field.name, "--top", "2", "--layout", "declared"];
        assert_eq!(live, recorded.replayed("again.txt", &options), "{schema:?}");
    }
}

fn with_events(header: Item, schema: &'static Schema) -> Item {
    match header {
        Item::Header(header) => Item::Header(Header { tables: vec![], events: Some(schema), ..header }),
        item => item,
    }
}

#[test]
fn events_of_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for schema in tables().filter(|table| table.tool() != "access" && is_of_events(*table)) {
        let event = |n| Event { time_ns: 1_000_000_000 + n, record: record(schema, n) };
        let items = [
            with_events(header(schema, &Shown::default()), schema),
            Item::Events((0..3000).map(event).collect()),
            end(None, 3000),
        ];
        let ask = Ask::new(schema);
        let recorded = Recorded::new(&items, &ask, folder.path());
        for name in ["live.parquet", "live.json.gz", "live.perfetto-trace"] {
            let live = written_bytes(&items, &ask, &folder.path().join(name));
            let again = recorded.replayed_bytes(&format!("again-{name}"), &[]);
            assert!(live == again, "{schema:?}: {name} of a run is not that of its recording");
        }
        for name in ["live.txt", "live.jsonl", "live.csv"] {
            let mut live = written(&items, &ask, &folder.path().join(name));
            let again = recorded.replayed(&format!("again-{name}"), &[]);
            // Totals that are not there are none; a live run always has some.
            let empty = |line: &str| line.starts_with("Totals") || line.contains("\"type\":\"block\"");
            live = live.lines().filter(|line| !empty(line)).collect::<Vec<_>>().join("\n");
            let again: Vec<_> = again.lines().filter(|line| !empty(line)).collect();
            assert_eq!(live, again.join("\n"), "{schema:?}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn a_layout_of_another_tool_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let schema = tables().find(|table| table.tool() == "kvm").unwrap();
    let path = folder.path().join("x.jsonl");
    written(&items(schema, &Shown::default(), 1).0, &Ask::new(schema), &path);
    let run = |options: &[&str]| {
        let args =
            Alone::try_parse_from([&["replay", path.to_str().unwrap()], options].concat()).unwrap().args;
        run(&args).unwrap_err().to_string()
    };
    assert!(run(&["--layout", "sgx.lines"]).contains("is not for a recording of `kvm`"));
    assert!(run(&["--sort", "nothing"]).contains("no such column"));
    assert!(run(&["--summary"]).contains("it is a recording of `kvm`, not of `access`"));
    assert!(run(&["--format", "svg"]).contains("needs stacks"));
}
