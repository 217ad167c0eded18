//! Names that other users choose, in every format of every kind of row and event: parsers that are not ours find each of
//! them whole, at its place, and nothing else.

use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use trapline_view::visible;

use crate::tools::{pprof, read, strings};
use crate::{export, recording_of};

/// Names of processes, files, functions, guests. What was not UTF-8 is U+FFFD in a recording.
pub(crate) fn names() -> Vec<String> {
    let names = [
        "",
        "  ",
        "a\nb\r\tc\0d",
        "\u{1b}[2J\u{1b}]0;title\u{7}",
        "<script>alert(1)</script><!--",
        "]]></text></svg>&amp;&#0;\" onload=\"alert(1)\"",
        "=cmd|' /C calc'!A0",
        "@SUM(1,2)",
        "\"quoted\", and 'so'",
        "\u{fffd}\u{fffd}",
        "\u{202e}gpj.exe\u{2028}\u{feff}",
        "\u{fffe}\u{1ffff}",
        "\\x1b\\n\\",
        "{\"type\":\"end\"}",
        "read 42",
        "漢 é",
    ];
    names.map(String::from).into_iter().chain(["n".repeat(4096)]).collect()
}

/// How a format shows one that may be empty.
pub(crate) fn named(name: &str) -> String {
    if name.trim().is_empty() { "[no name]".to_owned() } else { visible(name) }
}

/// A recording whose rows or events have a name in some columns.
struct Case {
    tool: &'static str,
    table: &'static str,
    /// It is of events.
    has_events: bool,
    /// The columns with names.
    names: &'static [&'static str],
    /// Other columns.
    more: fn(u64) -> Value,
    formats: &'static [&'static str],
}

const EVENTS: &[&str] = &["txt", "jsonl", "csv", "parquet", "json.gz", "perfetto-trace"];
const ROWS: &[&str] = &["txt", "jsonl", "csv", "parquet", "json.gz", "perfetto-trace", "pb.gz"];
const STACKS: &[&str] =
    &["txt", "jsonl", "csv", "parquet", "json.gz", "perfetto-trace", "pb.gz", "folded", "svg"];

fn faults(_: u64) -> Value {
    json!({"major": 1, "minor": 2, "total_ns": 3000, "major_ns": 2000})
}

fn of_thread(n: u64) -> Value {
    json!({"pid": 100 + n, "tid": 100 + n, "start_ns": 5, "major": 1, "minor": 2, "total_ns": 3000, "major_ns": 2000})
}

const CASES: &[Case] = &[
    Case {
        tool: "faults",
        table: "faults.fault",
        has_events: true,
        names: &["comm", "file"],
        more: |n| json!({"pid": 7, "tid": 100 + n, "kind": "major", "addr": 4096, "latency_ns": 500}),
        formats: EVENTS,
    },
    Case {
        tool: "access",
        table: "access.event",
        has_events: true,
        names: &["comm", "file", "symbol", "note"],
        more: |n| json!({"event": "access", "pid": 7, "tid": 100 + n, "cpu": 0, "rw": "R", "ip": 1, "addr": 4096, "offset": 0, "first": 1}),
        formats: EVENTS,
    },
    Case {
        tool: "kvm",
        table: "kvm.slow",
        has_events: true,
        names: &["vm"],
        more: |n| json!({"pid": 7, "tid": 100 + n, "vcpu": n, "isa": "vmx", "reason": 12, "name": "HLT", "level": "L1", "latency_ns": 500}),
        formats: EVENTS,
    },
    Case {
        tool: "faults",
        table: "faults.thread",
        has_events: false,
        names: &["comm"],
        more: of_thread,
        formats: ROWS,
    },
    Case {
        tool: "faults",
        table: "faults.file",
        has_events: false,
        names: &["file"],
        more: faults,
        formats: ROWS,
    },
    Case {
        tool: "faults",
        table: "faults.cgroup",
        has_events: false,
        names: &["cgroup"],
        more: faults,
        formats: ROWS,
    },
    Case {
        tool: "faults",
        table: "faults.function",
        has_events: false,
        names: &["function"],
        more: faults,
        formats: ROWS,
    },
    Case {
        tool: "faults",
        table: "faults.stack",
        has_events: false,
        names: &["stack"],
        more: faults,
        formats: STACKS,
    },
];

/// The lines of a recording, one for each name and kind of line.
fn lines(case: &Case) -> Vec<String> {
    let kinds: &[(&str, u64)] =
        if case.has_events { &[("event", 2000)] } else { &[("row", 1_001_000), ("total", 2_001_000)] };
    let line = |&(kind, time): &(&str, u64), n: u64, name: &str| {
        let mut line = (case.more)(n).as_object().unwrap().clone();
        let mut head = Map::new();
        head.insert("type".into(), kind.into());
        head.insert("time_ns".into(), (time + if case.has_events { n } else { 0 }).into());
        if !case.has_events {
            head.insert("table".into(), case.table.into());
        }
        for column in case.names {
            line.insert((*column).into(), if *column == "stack" { frames(name) } else { name.into() });
        }
        head.append(&mut line);
        Value::Object(head).to_string()
    };
    let all = kinds.iter().flat_map(|kind| (0..).zip(names()).map(move |(n, name)| (kind, n, name)));
    all.map(|(kind, n, name)| line(kind, n, &name)).collect()
}

/// The stack of a function of this name; what is between functions is in none.
pub(crate) fn frames(name: &str) -> Value {
    format!("sh;main;{};end", name.replace(';', ":")).into()
}

/// What a name is in a format.
fn expected(format: &str, column: &str, name: &str) -> String {
    let name = if column == "stack" { name.replace(';', ":") } else { name.to_owned() };
    match format {
        "jsonl" | "parquet" if column == "stack" => frames(&name).as_str().unwrap().to_owned(),
        "jsonl" | "parquet" => name,
        "csv" => {
            let cell = match column {
                "comm" => named(&name),
                "stack" => visible(frames(&name).as_str().unwrap()),
                _ => visible(&name),
            };
            // A spreadsheet shows it, and does not compute.
            if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell }
        }
        _ => named(&name),
    }
}

#[test]
fn every_name_is_whole_in_every_format() {
    let folder = TempDir::new().unwrap();
    let (mut files, mut of) = (vec![], vec![]);
    for case in CASES {
        let (table, events) = match case.tool {
            _ if !case.has_events => (case.table, Value::Null),
            "kvm" => ("kvm.count_reason", case.table.into()),
            "access" => ("access.process", case.table.into()),
            _ => ("faults.thread", case.table.into()),
        };
        let recording =
            recording_of((case.tool, names().len()), &folder, table, &events.to_string(), &lines(case));
        for format in case.formats {
            files.push(export(&folder, &recording, &format!("{}.again.{format}", case.table)));
            of.push((case, *format));
        }
    }
    let is_own = |file: &String| !file.ends_with(".pb.gz");
    let Some(found) = read(&files.iter().filter(|file| is_own(file)).cloned().collect::<Vec<_>>()) else {
        return;
    };
    let mut found = found.into_iter();
    for ((case, format), file) in of.into_iter().zip(&files) {
        let raw;
        let found = if is_own(file) {
            found.next().unwrap()
        } else {
            let Some(text) = pprof(&["-raw", file]) else { continue };
            raw = text;
            json!({"texts": [raw]})
        };
        let texts = strings(&found);
        if format == "txt" {
            // Long names are cut: that nothing in them moves a cursor or ends a line is what counts.
            let lines = texts.iter().filter(|line| line.contains("0x1b") || line.contains("\\x1b")).count();
            assert!(lines > 0, "{file}");
            continue;
        }
        if !["json.gz", "perfetto-trace", "pb.gz", "svg"].contains(&format) {
            let kinds = if case.has_events || format == "folded" { 1 } else { 2 };
            assert_eq!(found["rows"], names().len() * kinds, "{file}");
        }
        for name in names() {
            for column in case.names {
                let shown = expected(format, column, &name);
                let has = match format {
                    "pb.gz" => texts[0].contains(&shown),
                    // Numbers of threads, or of what a counter counts, are beside it.
                    "json.gz" | "perfetto-trace" => texts.iter().any(|text| text.contains(&shown)),
                    _ => texts.contains(&shown.as_str()),
                };
                assert!(has, "{file}: no {column} {shown:?}");
            }
        }
    }
}

/// A recording with bytes that are no text is refused, in each format, and nothing is written.
#[test]
fn what_is_not_utf_8_is_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let line = b"{\"type\":\"total\",\"time_ns\":9,\"table\":\"faults.comm\",\"comm\":\"\xff\xfe\",\"major\":1,\"minor\":2}";
    let recording = recording_of(("faults", 9), &folder, "faults.comm", "null", &["LINE".into()]);
    let text = fs::read(&recording).unwrap();
    let at = text.windows(4).position(|bytes| bytes == b"LINE").unwrap();
    fs::write(&recording, [&text[..at], line, &text[at + 4..]].concat()).unwrap();
    for format in ["csv", "json.gz", "pb.gz", "parquet"] {
        let to = folder.path().join(format!("x.{format}"));
        let arguments = ["replay", &recording, "-o", to.to_str().unwrap()];
        let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains("line 2"), "{error}");
        assert!(!to.exists(), "{format}");
    }
}
