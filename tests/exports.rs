//! Files for other tools, made of recordings, as those tools read them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
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
    piped(program, arguments, fs::File::open("/dev/null").unwrap())
}

/// The same of a program that reads a file.
fn piped(program: &str, arguments: &[&str], input: fs::File) -> Option<String> {
    let there = std::env::var_os("PATH").unwrap();
    if !std::env::split_paths(&there).any(|folder| folder.join(program).exists()) {
        eprintln!("not compared: {program} is not installed");
        return None;
    }
    let Output { status, stdout, stderr } =
        Command::new(program).args(arguments).stdin(input).output().unwrap();
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
            Value::from(hostile())
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

/// Two major faults of 2 ms and 3 ms, a minor one of unknown duration, on two threads.
fn events(folder: &TempDir) -> String {
    let event = |time: u64, tid: u32, comm: &str, kind: &str, latency: &str| {
        let (comm, file) = (Value::from(comm), Value::from(hostile()));
        format!(
            "{{\"type\":\"event\",\"time_ns\":{time},\"pid\":7,\"tid\":{tid},\"comm\":{comm},\"kind\":\"{kind}\",\
             \"addr\":8192,\"ip\":4096,\"rw\":\"R\",\"latency_ns\":{latency},\"cause\":\"file-read\",\"file\":{file},\"offset\":0}}"
        )
    };
    let lines = [
        event(3_001_000, 7, "app", "major", "2000000"),
        event(4_001_000, 8, &hostile(), "major", "3000000"),
        event(5_001_000, 8, &hostile(), "minor", "null"),
    ];
    recording(folder, "faults.thread", "\"faults.fault\"", &lines)
}

#[test]
fn the_profile_of_threads_has_samples_and_markers() {
    let folder = TempDir::new().unwrap();
    let profile = export(&folder, &events(&folder), "x.json.gz");
    let text = printed("gzip", &["-dc", &profile]).unwrap();
    let profile: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(profile["meta"]["startTime"], 1_767_225_600_000.0);
    assert!(profile["meta"]["product"].as_str().unwrap().ends_with("9 events, 2 lost events"));
    let strings =
        profile["threads"][0]["stringArray"].as_array().or(profile["shared"]["stringArray"].as_array());
    let string = |thread: &Value, at: &Value| {
        let own = thread["stringArray"].as_array().or(strings).unwrap();
        own[at.as_u64().unwrap() as usize].as_str().unwrap().to_owned()
    };
    let threads = profile["threads"].as_array().unwrap();
    assert_eq!(threads.iter().map(|thread| &thread["tid"]).collect::<Vec<_>>(), ["7", "8"]);
    let mut markers = vec![];
    for thread in threads {
        // Tables of columns of one length, whose indexes lead somewhere.
        for table in ["frameTable", "funcTable", "stackTable", "samples", "markers"] {
            let table = thread[table].as_object().unwrap();
            let length = table["length"].as_u64().unwrap() as usize;
            let mut columns = table.values().filter_map(Value::as_array);
            assert!(columns.all(|column| column.len() == length), "{table:?}");
        }
        let stacks = thread["stackTable"]["length"].as_u64();
        let samples = thread["samples"]["stack"].as_array().unwrap();
        assert!(samples.iter().all(|stack| stack.as_u64() < stacks));
        let table = &thread["markers"];
        for at in 0..table["length"].as_u64().unwrap() as usize {
            let ms = |column: &str| table[column][at].as_f64().unwrap();
            markers.push((string(thread, &table["name"][at]), ms("startTime"), ms("endTime")));
        }
    }
    let samples = |thread: usize| threads[thread]["samples"]["length"].as_u64();
    assert_eq!((samples(0), samples(1)), (Some(1), Some(2)));
    assert_eq!(markers, [("major fault".into(), 1.0, 3.0), ("major fault".into(), 1.0, 4.0)]);
    assert!(!text.contains('\u{1b}') && text.contains(r"a\\x1b[2J\\x0a"), "{text}");
}

/// Rows at intervals are samples as heavy as what they count, and not again in the totals.
#[test]
fn rows_are_samples_of_their_weight() {
    let folder = TempDir::new().unwrap();
    let row = |kind: &str, name: &str, time: u64, minor: u64| {
        format!(
            "{{\"type\":\"{kind}\",\"time_ns\":{time},\"table\":\"faults.stack\",\"stack\":\"{name};main\",\"lines\":\";\",\"major\":1,\"minor\":{minor}}}"
        )
    };
    let lines = [
        row("row", "sh", 1_001_000, 3),
        row("row", "sh", 2_001_000, 5_000_000_000),
        row("row", "ls", 2_001_000, 7),
        row("total", "sh", 3_001_000, 8),
    ];
    let recording = recording(&folder, "faults.stack", "null", &lines);
    let text = printed("gzip", &["-dc", &export(&folder, &recording, "x.json.gz")]).unwrap();
    let profile: Value = serde_json::from_str(&text).unwrap();
    let names = profile["threads"].as_array().unwrap().iter().map(|thread| &thread["processName"]);
    assert_eq!(names.collect::<Vec<_>>(), ["sh", "ls"]);
    let weights = profile["threads"][0]["samples"]["weight"].as_array().unwrap();
    let sum: u64 = weights.iter().filter_map(Value::as_u64).sum();
    assert_eq!(sum, 4 + u64::from(u32::MAX));
    let trace = export(&folder, &recording, "x.perfetto-trace");
    assert!(fs::metadata(trace).unwrap().len() > 0);
}

#[test]
fn the_trace_has_slices_on_threads_and_counters_of_processes() {
    let folder = TempDir::new().unwrap();
    let trace = export(&folder, &events(&folder), "x.perfetto-trace");
    let file = fs::File::open(trace).unwrap();
    let Some(text) = piped("protoc", &["--decode_raw"], file) else { return };
    let count = |what: &str| text.matches(what).count();
    // Slices: their beginnings, their ends, and one without a duration; counters of one window, and their end.
    let kinds = [1, 2, 3, 4].map(|kind| count(&format!("\n    9: {kind}\n")));
    assert_eq!(kinds, [2, 2, 2, 4], "{text}");
    assert_eq!(count("23: \"major fault\""), 2, "{text}");
    assert!(text.contains("2: \"faults/s\"") && text.contains("2: \"stall\""), "{text}");
    assert!(text.contains("5: \"app\"") && !text.contains("\\033"), "{text}");
    assert!(text.contains("2 lost events."), "{text}");
    // What has neither events nor intervals is no trace.
    let totals =
        recording(&folder, "faults.stack", "null", &[total("\"stack\":\"sh\",\"minor\":1,\"major\":0")]);
    let path = folder.path().join("y.perfetto-trace");
    let arguments = ["replay", &totals, "-o", path.to_str().unwrap()];
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("needs events or rows"), "{error}");
}
