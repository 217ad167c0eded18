//! Files for other tools, made of recordings, as those tools read them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A name that a process may choose: it ends a line, a string, a cell; moves a cursor; and is long.
fn hostile() -> String {
    format!("a\u{1b}[2J\n\"\\<script>alert(1)</script>\u{202e}\u{fffd}{}", "n".repeat(4096))
}

/// A recording with these lines between its header and its end.
fn recording(folder: &TempDir, tables: &str, events: &str, lines: &[String]) -> String {
    let header = format!(
        "{{\"type\":\"header\",\"schema\":2,\"tool\":\"faults\",\"variant\":\"tracepoint\",\"version\":\"0\",\"host\":\"h\",\
         \"kernel\":\"6.1\",\"start\":\"2026-01-01T00:00:00Z\",\"start_ns\":1000,\"tables\":[\"{tables}\"],\"events\":{events}}}"
    );
    let end = "{\"type\":\"end\",\"duration_ns\":9000000,\"events\":9,\"lost_events\":2,\"sampled\":1,\"own_cpu_ns\":5}";
    let path = folder.path().join("x.jsonl");
    fs::write(&path, [header, lines.join("\n"), end.to_owned(), String::new()].join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The recording in a file of this name.
fn export(folder: &TempDir, recording: &str, name: &str) -> String {
    let path = folder.path().join(name).to_str().unwrap().to_owned();
    let arguments = ["replay", recording, "-o", &path];
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    path
}

/// What a program prints; nothing, with a line that says so, if it is not installed.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let there = std::env::var_os("PATH").unwrap();
    if !std::env::split_paths(&there).any(|folder| folder.join(program).exists()) {
        eprintln!("not compared: {program} is not installed");
        return None;
    }
    let Output { status, stdout, stderr } = Command::new(program).args(arguments).output().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    Some(String::from_utf8(stdout).unwrap())
}

fn total(rest: &str) -> String {
    format!("{{\"type\":\"total\",\"time_ns\":9,\"table\":\"faults.stack\",{rest}}}")
}

#[test]
fn pprof_adds_up_what_the_rows_have() {
    let folder = TempDir::new().unwrap();
    let rows = [
        total(
            "\"stack\":\"sh;main;copy\",\"lines\":\";/src/a.c:17;\",\"major\":3,\"minor\":4,\"total_ns\":700,\"major_ns\":600",
        ),
        total(&format!(
            "\"stack\":{},\"lines\":\"\",\"major\":0,\"minor\":5,\"total_ns\":50,\"major_ns\":0",
            serde_json::Value::from(hostile())
        )),
        total("\"stack\":null,\"lines\":null,\"major\":0,\"minor\":6,\"total_ns\":null,\"major_ns\":null"),
    ];
    let recording = recording(&folder, "faults.stack", "null", &rows);
    let profile = export(&folder, &recording, "x.pb.gz");
    let Some(raw) = printed("go", &["tool", "pprof", "-raw", &profile]) else { return };
    assert!(
        raw.contains("faults/count[dflt] major/count minor/count stall/nanoseconds major_stall/nanoseconds")
    );
    let samples = raw.split_once("Samples:\n").unwrap().1.split_once("Locations").unwrap().0;
    let values = samples.lines().filter_map(|line| line.split_once(':')).filter_map(|(values, _)| {
        let values: Result<Vec<u64>, _> = values.split_whitespace().map(str::parse).collect();
        values.ok().filter(|values| values.len() == 5)
    });
    let sums = values.fold([0; 5], |sums, values| std::array::from_fn(|at| sums[at] + values[at]));
    assert_eq!(sums, [18, 3, 15, 750, 600], "{raw}");
    assert!(raw.contains("main /src/a.c:17"), "{raw}");
    assert!(raw.contains("2 lost events"), "{raw}");
    assert!(!raw.contains('\u{1b}') && raw.contains(r"a\x1b[2J\x0a"), "{raw}");
    let top = printed("go", &["tool", "pprof", "-top", "-sample_index=stall", &profile]).unwrap();
    assert!(top.contains("copy"), "{top}");
}
