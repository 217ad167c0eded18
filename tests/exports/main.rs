//! Files for other tools, made of recordings, as those tools read them.

#![allow(clippy::unwrap_used)]

mod browser;
mod hostile;
mod page;
mod picture;
mod stacks;
mod tools;

use std::fs;
use std::process::Command;

use object::{Object, ObjectSegment, ObjectSymbol};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools::{Profiler, pprof, read, strings};

/// A name that a process may choose: it ends a line, a string, a cell; moves a cursor; and is long.
fn hostile() -> String {
    format!("a\u{1b}[2J\n\"\\<script>alert(1)</script>\u{202e}\u{fffd}{}", "n".repeat(4096))
}

/// A recording of `faults` with these lines between its header and its end.
fn recording(folder: &TempDir, table: &str, events: &str, lines: &[String]) -> String {
    recording_of(("faults", 9), folder, table, events, lines)
}

/// The same of any tool, which counted so many events.
fn recording_of(
    (tool, count): (&str, usize),
    folder: &TempDir,
    table: &str,
    events: &str,
    lines: &[String],
) -> String {
    // A machine may have any name, too.
    let host = Value::from("h\u{1b}]0;<b>\n");
    let header = format!(
        "{{\"type\":\"header\",\"schema\":2,\"tool\":\"{tool}\",\"variant\":\"tracepoint\",\"version\":\"0\",\"host\":{host},\
         \"kernel\":\"6.1\",\"start\":\"2026-01-01T00:00:00Z\",\"start_ns\":1000,\"tables\":[\"{table}\"],\"events\":{events}}}"
    );
    let end = format!(
        "{{\"type\":\"end\",\"duration_ns\":9000000,\"events\":{count},\"lost_events\":2,\"sampled\":1,\"own_cpu_ns\":5}}"
    );
    let path = folder.path().join(format!("{table}.jsonl"));
    fs::write(&path, [header, lines.join("\n"), end, String::new()].join("\n")).unwrap();
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
    let Some(raw) = pprof(&["-raw", &profile]) else { return };
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
    let top = pprof(&["-top", "-sample_index=stall", &profile]).unwrap();
    assert!(top.contains("copy"), "{top}");
}

/// A frame without a name has what pprof needs to look for it: the file, its build id, the place in it.
#[test]
fn pprof_symbolizes_what_has_no_name() {
    let folder = TempDir::new().unwrap();
    let [source, program] = ["a.c", "a"].map(|name| folder.path().join(name));
    fs::write(&source, "int spin(int n) { return 3 * n; }\nint main(int n) { return spin(n); }\n").unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-g", "-Wl,--build-id=sha1", "-o"]).arg(&program).arg(&source);
    assert!(cc.status().unwrap().success());
    let bytes = fs::read(&program).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let build_id: String =
        elf.build_id().unwrap().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let spin = elf.symbols().find(|symbol| symbol.name() == Ok("spin")).unwrap().address();
    let in_file = elf.segments().find_map(|segment| {
        let at = spin.checked_sub(segment.address()).filter(|at| *at < segment.size())?;
        Some(segment.file_range().0 + at)
    });
    let (place, path) = (in_file.unwrap(), program.to_str().unwrap());
    let row = total(&format!(
        "\"stack\":\"sh;a+{place:#x};do_read_[k]\",\"lines\":\";[the file has no symbols];\",\
         \"binaries\":\";{path}@{build_id};\",\"major\":0,\"minor\":7"
    ));
    let profile = export(&folder, &recording(&folder, "faults.stack", "null", &[row]), "x.pb.gz");
    let Some(raw) = pprof(&["-symbolize=none", "-raw", &profile]) else { return };
    let page = place & !0xfff;
    let mapping = format!("{page:#x}/{:#x}/{page:#x} {path} {build_id}", page + 0x1000);
    assert!(raw.contains(&mapping), "{mapping} in {raw}");
    assert!(raw.contains(&format!("a+{place:#x}")), "{raw}");
    let symbolized = pprof(&["-top", &profile]).unwrap();
    assert!(symbolized.contains(" spin") && symbolized.contains("do_read"), "{symbolized}");
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

/// What is in a profile for the Firefox Profiler.
fn unzipped(profile: &str) -> Value {
    let output = Command::new("gzip").args(["-dc", profile]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Opened by the Firefox Profiler: threads by their names, samples, markers with their times and fields.
#[test]
fn the_profile_of_threads_has_samples_and_markers() {
    let folder = TempDir::new().unwrap();
    let profile = export(&folder, &events(&folder), "x.json.gz");
    let meta = &unzipped(&profile)["meta"];
    assert_eq!(meta["startTime"], 1_767_225_600_000.0);
    assert!(meta["product"].as_str().unwrap().ends_with("9 events, 2 lost events"));
    let Some(profiler) = Profiler::open(&profile) else { return };
    let info = profiler.ask(&["profile", "info", "--all"]);
    let threads = info["processes"][0]["threads"].as_array().unwrap();
    let threads: Vec<_> = threads.iter().map(|thread| (&thread["tid"], &thread["name"])).collect();
    let long = trapline_view::visible(&hostile());
    assert_eq!(threads, [(&json!("7"), &json!("app")), (&json!("8"), &json!(long))]);
    for (thread, samples, duration) in [("t-0", 1, 2), ("t-1", 2, 3)] {
        let found = profiler.ask(&["thread", "samples", "--thread", thread]);
        assert_eq!(found["categoryBreakdown"]["totalSamples"], samples, "{found:#}");
        let found = profiler.ask(&["thread", "markers", "--list", "--thread", thread]);
        let [marker] = found["flatMarkers"].as_array().unwrap().as_slice() else { panic!("{found:#}") };
        assert_eq!((&marker["name"], &marker["duration"]), (&json!("major fault"), &json!(duration)));
        let fields =
            marker["fields"].as_array().unwrap().iter().map(|field| (&field["key"], &field["value"]));
        let fields: Vec<_> = fields.filter(|(_, value)| **value != "").collect();
        assert!(fields.contains(&(&json!("cause"), &json!("file-read"))), "{fields:?}");
        assert!(fields.contains(&(&json!("file"), &json!(long))), "{fields:?}");
    }
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
    let profile = export(&folder, &recording, "x.json.gz");
    let threads = &unzipped(&profile)["threads"];
    let names = threads.as_array().unwrap().iter().map(|thread| &thread["processName"]);
    assert_eq!(names.collect::<Vec<_>>(), ["sh", "ls"]);
    let weights = threads[0]["samples"]["weight"].as_array().unwrap();
    assert_eq!(weights.iter().filter_map(Value::as_u64).sum::<u64>(), 4 + u64::from(u32::MAX));
    let trace = export(&folder, &recording, "x.perfetto-trace");
    let Some(found) = read(&[trace]) else { return };
    // From the start of an interval on, per second; what is in no row any more is 0.
    let counters = json!({
        "sh;main faults/s": [[1000, 4000.0], [1_001_000, 5_000_000_000_999.999], [2_001_000, 0.0]],
        "ls;main faults/s": [[1_001_000, 8000.0], [2_001_000, 0.0]],
    });
    assert_eq!(found[0]["counters"], counters);
}

/// As Perfetto's own messages have it: slices nest and end, counters go on in time.
#[test]
fn the_trace_has_slices_on_threads_and_counters_of_processes() {
    let folder = TempDir::new().unwrap();
    let trace = export(&folder, &events(&folder), "x.perfetto-trace");
    if let Some(found) = read(&[trace]) {
        let long = trapline_view::visible(&hostile());
        let slices = json!([
            ["app", "major fault", 1_001_000, 3_001_000],
            [long, "major fault", 1_001_000, 4_001_000]
        ]);
        assert_eq!((&found[0]["slices"], &found[0]["instants"]), (&slices, &json!(2)));
        // Three faults and 5 ms of stall in a tenth of a second.
        let counters = json!({"faults/s": [[1000, 30.0], [100_001_000, 0.0]], "stall": [[1000, 50.0], [100_001_000, 0.0]]});
        assert_eq!(found[0]["counters"], counters);
        assert!(strings(&found[0]).iter().any(|text| text.contains("2 lost events.")), "{found:?}");
    }
    // What has neither events nor intervals is no trace.
    let totals =
        recording(&folder, "faults.stack", "null", &[total("\"stack\":\"sh\",\"minor\":1,\"major\":0")]);
    let path = folder.path().join("y.perfetto-trace");
    let arguments = ["replay", &totals, "-o", path.to_str().unwrap()];
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("needs events or rows"), "{error}");
}
