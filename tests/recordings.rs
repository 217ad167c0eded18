//! Recordings, as other programs read them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A recording in JSON lines of faults on these files; one has a name that a shell, a cell or a line would not survive.
fn faults(folder: &Path) -> String {
    let files = ["/srv/db/data", "/lib/a;\"b\\\n\u{1b}[2J\u{202e}.so", "[heap]"];
    let mut lines = vec![
        "{\"type\":\"header\",\"schema\":2,\"tool\":\"faults\",\"variant\":\"tracepoint\",\"version\":\"0\",\"host\":\"h\",\
         \"kernel\":\"6.1\",\"start\":\"2026-01-01T00:00:00Z\",\"start_ns\":1000,\"minor_latency\":\"exact\",\
         \"tables\":[\"faults.thread\"],\"events\":\"faults.fault\"}"
            .to_owned(),
    ];
    for n in 0..5000_u64 {
        let file = files[(n * n % 7 % 3) as usize];
        let kind = if n % 11 == 0 { "major" } else { "minor" };
        // Of every thirteenth the variant knew only that it happened.
        let (file, latency) =
            if n % 13 == 0 { (Value::Null, Value::Null) } else { (file.into(), (500 + n * 7 % 3001).into()) };
        let fault = serde_json::json!({
            "type": "event", "time_ns": 2000 + n * 10, "pid": 7 + n % 2, "tid": 7 + n % 3, "start_ns": 5, "comm": "db",
            "kind": kind, "addr": 4096 * n, "latency_ns": latency, "file": file, "offset": n,
        });
        lines.push(fault.to_string());
    }
    lines.push(
        "{\"type\":\"end\",\"duration_ns\":9000000,\"events\":5000,\"lost_events\":0,\"sampled\":1,\"own_cpu_ns\":5}\n".into(),
    );
    let path = folder.join("x.jsonl").to_str().unwrap().to_owned();
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

fn replay(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).arg("replay").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// File, major faults, minor faults, time.
type Rows = BTreeMap<String, (u64, u64, u64)>;

fn rows(lines: &str) -> Rows {
    let totals = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = |row: Value| {
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        (row["file"].as_str().unwrap().to_owned(), (number("major"), number("minor"), number("total_ns")))
    };
    totals.filter(|line| line["type"] == "total").map(row).collect()
}

/// What DuckDB reads in a recording, and in a single table, is what replay prints of it.
#[test]
fn sql_and_replay_agree() {
    let folder = tempfile::tempdir().unwrap();
    let lines = faults(folder.path());
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (recording, single) = (place("x.trapline"), place("x.parquet"));
    replay(&[&lines, "-o", &recording]);
    replay(&[&lines, "-o", &single]);
    let replayed = rows(&replay(&[&recording, "--by", "file", "--format", "jsonl"]));
    assert_eq!(replayed.values().map(|row| row.0 + row.1).sum::<u64>(), 5000);
    assert!(replayed.contains_key("(not attributed)") && replayed.len() == 4, "{replayed:?}");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oracles/bin/python");
    let script = "
import duckdb, json, sys
for path in sys.argv[1:]:
    rows = duckdb.sql(f'''
        SELECT coalesce(file, '(not attributed)') AS file, count(*) FILTER (kind = 'major') AS major,
               count(*) FILTER (kind = 'minor') AS minor, coalesce(sum(latency_ns), 0)::UBIGINT AS total_ns
        FROM read_parquet('{path}') GROUP BY ALL''').fetchall()
    for file, major, minor, total_ns in rows:
        print(json.dumps(dict(type='total', of=path, file=file, major=major, minor=minor, total_ns=total_ns)))
";
    let has_it = Command::new(&python).args(["-c", "import duckdb"]).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        eprintln!("not compared: DuckDB is not installed in target/oracles");
        return;
    }
    for path in [format!("{recording}/events-*.parquet"), single] {
        let output = Command::new(&python).args(["-c", script, &path]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let of_sql = rows(&String::from_utf8(output.stdout).unwrap());
        // What is not attributed has no time in replay: no fault of it was timed.
        assert_eq!(of_sql, replayed, "{path}");
    }
}

/// Runs on several machines are one: rows add up, by host they stay apart, and what cannot be together is refused in words.
#[test]
fn recordings_of_several_machines_are_shown_together() {
    let folder = tempfile::tempdir().unwrap();
    let lines = faults(folder.path());
    let place = |name: &str| folder.path().join("all").join(name).to_str().unwrap().to_owned();
    fs::create_dir(folder.path().join("all")).unwrap();
    let other = fs::read_to_string(&lines).unwrap().replace("\"host\":\"h\"", "\"host\":\"g\"");
    let other = other.replace("00:00:00Z", "00:00:01Z");
    let later = folder.path().join("later.jsonl").to_str().unwrap().to_owned();
    fs::write(&later, other).unwrap();
    replay(&[&lines, "-o", &place("a.trapline")]);
    replay(&[&later, "-o", &place("b.trapline")]);
    let all = folder.path().join("all").to_str().unwrap().to_owned();
    let total = |arguments: &[&str], key: &str| -> BTreeMap<String, u64> {
        let text = replay(&[arguments, &["--format", "jsonl"]].concat());
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let faults = |row: &Value| row["major"].as_u64().unwrap() + row["minor"].as_u64().unwrap();
        rows.filter(|row| row["type"] == "total").fold(BTreeMap::new(), |mut of, row| {
            *of.entry(row[key].to_string()).or_default() += faults(&row);
            of
        })
    };
    let (one, both) = (total(&[&lines, "--by", "file"], "file"), total(&[&all, "--by", "file"], "file"));
    assert_eq!(both, one.iter().map(|(file, faults)| (file.clone(), 2 * faults)).collect());
    let hosts = total(&[&all, "--by", "host"], "host");
    assert_eq!(hosts, [("\"g\"".to_owned(), 5000), ("\"h\"".to_owned(), 5000)].into());
    assert_eq!(total(&[&all, "--by", "host,file"], "host"), hosts);
    // The second one begins a second later, by the clock of the wall.
    assert_eq!(total(&[&all, "--by", "host", "--from", "500ms"], "host").len(), 1);
    assert_eq!(total(&[&all, "--by", "host", "--to", "2026-01-01T00:00:00.9Z"], "host").len(), 1);
    let header = replay(&[&all, "--by", "host", "--format", "jsonl"]);
    assert!(header.contains("a.trapline, ") && header.contains("\"host\":\"g, h\""), "{header}");
    // What replay wrote of several is a recording, too.
    let again = place("again.jsonl");
    replay(&[&all, "--by", "host,file", "-o", &again]);
    assert_eq!(total(&[&again], "host"), hosts);
    let refused = |arguments: &[&str], words: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_trapline")).arg("replay").args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(words), "{arguments:?}: {error}");
    };
    let kvm = folder.path().join("kvm.jsonl").to_str().unwrap().to_owned();
    let header = "{\"type\":\"header\",\"schema\":2,\"tool\":\"kvm\",\"start\":\"2026-01-01T00:00:00Z\",\"start_ns\":1,\"tables\":[\"kvm.count_reason\"]}";
    let end =
        "{\"type\":\"end\",\"duration_ns\":9,\"events\":0,\"lost_events\":0,\"sampled\":1,\"own_cpu_ns\":5}";
    fs::write(&kvm, format!("{header}\n{end}\n")).unwrap();
    refused(&[&lines, &kvm], "replay recordings of one tool together");
    let vms = kvm.replace("kvm.jsonl", "vm.jsonl");
    fs::write(&vms, format!("{header}\n{end}\n").replace("_reason", "_vm")).unwrap();
    refused(&[&kvm, &vms], "rows of unlike tables cannot be added up");
    refused(&[&kvm, "--by", "file"], "has no single faults");
    refused(&[&kvm, "--log-step", "5"], "has no single faults");
    refused(&[&lines, "--split"], "record with --split");
    refused(&[&lines, "--slower", "1ms"], "record with --split");
    refused(&[&lines, "--by", "stack"], "has no stack of each fault");
    refused(&[&lines, "--by", "span"], "not recorded one by one");
    refused(&[&lines, "--from", "2s", "--to", "1s"], "nothing is between --from and --to");
    refused(&[&lines, "--to", "2025-01-01 00:00"], "nothing is between --from and --to");
    refused(&[&lines, "--from", "noon"], "12:00:05");
    refused(&[&lines, "-c"], "-c needs rows at intervals");
    refused(&[&lines, "--hist", "-v"], "--hist shows rows");
    refused(&[&lines, "--prefetch", "--by", "file"], "made of all recorded faults");
    refused(&[&lines, "--summary"], "it is a recording of `faults`, not of `access`");
}

/// Accesses of several machines, too: in every line, in the totals, and in a recording of them.
#[test]
fn accesses_are_told_apart_by_their_machine() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let access = |host: &str, n: u64| {
        format!(
            "{{\"type\":\"header\",\"schema\":2,\"tool\":\"access\",\"variant\":\"kprobe\",\"version\":\"0\",\"host\":\"{host}\",\
             \"kernel\":\"6.1\",\"start\":\"2026-01-01T00:00:00Z\",\"start_ns\":1000,\"reset\":\"writes\",\
             \"tables\":[\"access.process\"],\"events\":\"access.event\"}}\n{}\
             {{\"type\":\"block\",\"of\":\"total\",\"table\":\"access.process\",\"time_ns\":9000,\"rows\":1,\"hidden\":0}}\n\
             {{\"type\":\"total\",\"time_ns\":9000,\"pid\":7,\"comm\":\"db\",\"accesses\":{n}}}\n\
             {{\"type\":\"end\",\"duration_ns\":8000,\"events\":{n},\"lost_events\":0,\"sampled\":1,\"own_cpu_ns\":5}}\n",
            (0..n)
                .map(|at| format!(
                    "{{\"type\":\"event\",\"time_ns\":{},\"event\":\"access\",\"pid\":7,\"tid\":7,\"comm\":\"db\",\"rw\":\"R\",\
                     \"ip\":64,\"addr\":{},\"first\":1}}\n",
                    2000 + at,
                    4096 * at
                ))
                .collect::<String>()
        )
    };
    for (host, n) in [("g", 2), ("h", 3)] {
        fs::write(place(&format!("{host}.jsonl")), access(host, n)).unwrap();
    }
    let both = [place("g.jsonl"), place("h.jsonl")];
    let by_host = [&both[0], both[1].as_str(), "--by", "host"];
    let counts = |arguments: &[&str]| {
        let text = replay(&[arguments, &["--format", "jsonl"]].concat());
        let mut of: BTreeMap<(String, String), u64> = BTreeMap::new();
        for line in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let count = if line["type"] == "total" { line["accesses"].as_u64().unwrap() } else { 1 };
            if line["type"] == "total" || line["type"] == "event" {
                let word = |name: &str| line[name].as_str().unwrap().to_owned();
                *of.entry((word("type"), word("host"))).or_default() += count;
            }
        }
        of
    };
    let of = |kind: &str, host: &str, n| ((kind.to_owned(), host.to_owned()), n);
    let expected =
        BTreeMap::from([of("event", "g", 2), of("event", "h", 3), of("total", "g", 2), of("total", "h", 3)]);
    assert_eq!(counts(&by_host), expected);
    for name in ["again.jsonl", "again.trapline"] {
        let again = place(name);
        replay(&[&by_host[..], &["-o", &again]].concat());
        assert_eq!(counts(&[&again]), expected, "{name}");
    }
    let text = replay(&by_host);
    let lines = |host: &str| text.lines().filter(|line| line.starts_with(&format!("{host} "))).count();
    assert_eq!((lines("g"), lines("h")), (2, 3), "{text}");
    assert!(text.contains("HOST") && !replay(&[&both[0]]).contains("HOST"), "{text}");
}

/// Messages, slow faults and histograms of a recording are those of its faults.
#[test]
fn recorded_faults_are_shown_as_a_live_run_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let lines = faults(folder.path());
    let events = |options: &[&str]| {
        let text = replay(&[&[lines.as_str(), "--format", "jsonl"], options].concat());
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["type"] == "event").collect::<Vec<_>>()
    };
    let all = events(&["-v"]);
    assert_eq!(all.len(), 5000);
    let of = |pid: u64| all.iter().filter(move |event| event["pid"] == pid);
    let messages = events(&["--log-step", "100", "--major", "-v"]);
    for pid in [7, 8] {
        let major: Vec<_> = of(pid).filter(|event| event["kind"] == "major").collect();
        let expected: Vec<_> = major.chunks_exact(100).map(|chunk| chunk[99]["time_ns"].clone()).collect();
        let said: Vec<_> =
            messages.iter().filter(|m| m["pid"] == pid).map(|m| m["time_ns"].clone()).collect();
        assert_eq!(said, expected);
        assert!(said.len() >= 2);
    }
    assert!(messages.iter().all(|message| message["file"].is_string()));
    assert_eq!(events(&["-v", "-p", "7", "-t", "8"]).len(), of(7).filter(|event| event["tid"] == 8).count());
    let hist = replay(&[&lines, "--hist"]);
    assert!(hist.contains("1024 -> 2047") && hist.contains("distribution"), "{hist}");
}

#[test]
fn a_recording_is_not_overwritten_and_what_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lines = faults(folder.path());
    let refused = |arguments: &[&str], words: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_trapline")).arg("replay").args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(words), "{arguments:?}: {error}");
    };
    let recording = folder.path().join("x.trapline").to_str().unwrap().to_owned();
    replay(&[&lines, "-o", &recording]);
    refused(&[&lines, "-o", &recording], "recordings are not overwritten");
    refused(&[&lines, "--format", "recording"], "use -o NAME.trapline");
    let empty = tempfile::tempdir().unwrap();
    refused(&[empty.path().to_str().unwrap()], "the folder is empty");
    fs::remove_file(Path::new(&recording).join("end.json")).unwrap();
    refused(&[&recording], "cut off at 2026-01-01T00:00:00");
}

/// What a kill leaves has no end: totals are of all that is intact, and then comes the error.
#[test]
fn a_recording_without_an_end_has_totals_of_what_is_intact() {
    let folder = tempfile::tempdir().unwrap();
    let lines = faults(folder.path());
    let recording = folder.path().join("x.trapline").to_str().unwrap().to_owned();
    replay(&[&lines, "-o", &recording]);
    let by_file = [&recording, "--by", "file", "--format", "jsonl"];
    let whole = rows(&replay(&by_file));
    fs::remove_file(Path::new(&recording).join("end.json")).unwrap();
    let cut = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_trapline")).arg("replay").args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains("cut off at 2026-01-01"), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(rows(&cut(&by_file)), whole);
    for options in [&["--by", "file", "-i", "10ms"][..], &["--hist"], &["--by", "file"]] {
        let shown = cut(&[&[recording.as_str()], options].concat());
        assert!(shown.lines().count() > 3, "{options:?}: {shown}");
    }
    assert!(cut(&[&recording, "--by", "file"]).contains("/srv/db/data"));
}

/// Replays what cannot be read to its end into a file of this format.
fn salvaged(from: &str, to: &str, options: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.args(["replay", from, "-o", to]).args(options).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("cannot read"), "{to}: {error}");
    assert!(Path::new(to).exists(), "{to}: {error}");
    fs::read(to).unwrap()
}

/// What a kill leaves has no end, and nobody knows what was lost: the file has what is intact, is whole for its format, and does
/// not claim that nothing was lost.
#[test]
fn what_is_intact_of_a_recording_is_in_the_file_whatever_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let lines = faults(folder.path());
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (recording, short) = (place("x.trapline"), place("short.jsonl"));
    replay(&[&lines, "-o", &recording]);
    fs::remove_file(Path::new(&recording).join("end.json")).unwrap();
    let text = fs::read_to_string(&lines).unwrap();
    // In the middle of a line, after 3,000 faults: some are in a batch that is not full.
    let at = text.match_indices('\n').nth(3000).unwrap().0 + 20;
    fs::write(&short, &text[..at]).unwrap();
    let json = |bytes: &[u8]| -> Vec<Value> {
        let lines = str::from_utf8(bytes).unwrap().lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let of = |lines: &[Value], kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    for (from, events) in [(&recording, 5000), (&short, 3000)] {
        let lines = json(&salvaged(from, &place("y.jsonl"), &[]));
        assert_eq!((of(&lines, "event"), of(&lines, "end")), (events, 0));
        let csv = String::from_utf8(salvaged(from, &place("y.csv"), &[])).unwrap();
        let rows = csv.lines().filter(|line| line.starts_with("event,")).count();
        assert!(rows == events && !csv.contains("# end"), "{rows}");
        let by = json(&salvaged(from, &place("by.jsonl"), &["--by", "file"]));
        let faults = |line: &Value| line["major"].as_u64().unwrap() + line["minor"].as_u64().unwrap();
        let total: u64 = by.iter().filter(|line| line["type"] == "total").map(faults).sum();
        assert_eq!((total, of(&by, "end")), (events as u64, 0));
        let parquet = salvaged(from, &place("y.parquet"), &[]);
        assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
        // Compressed files have a checksum at their end.
        for (name, words) in [("y.pb.gz", "losses are unknown"), ("y.json.gz", "losses are unknown")] {
            salvaged(from, &place(name), &[]);
            let text = Command::new("gzip").args(["-dc", &place(name)]).output().unwrap();
            assert!(text.status.success(), "{name}: {text:?}");
            let text = String::from_utf8_lossy(&text.stdout).into_owned();
            assert!(text.contains(words) && !text.contains("nothing lost"), "{name}: {text}");
        }
        let trace = salvaged(from, &place("y.perfetto-trace"), &[]);
        assert!(String::from_utf8_lossy(&trace).contains("losses are unknown"));
        let copy = place(&format!("{events}.trapline"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
        assert_eq!(command.args(["replay", from, "-o", &copy]).output().unwrap().status.code(), Some(1));
        // The copy is cut off like what it is of.
        let copied = json(&salvaged(&copy, &place("copied.jsonl"), &[]));
        assert_eq!((of(&copied, "event"), of(&copied, "end")), (events, 0));
        // Several together: what one lost is unknown, so what all did is.
        let both =
            json(&salvaged(from, &place("both.jsonl"), &[&lines_of(&text, folder.path()), "--by", "host"]));
        let total: u64 = both.iter().filter(|line| line["type"] == "total").map(faults).sum();
        assert_eq!((total, of(&both, "end")), (events as u64 + 5000, 0));
    }
    // Where nothing is intact but the header, there is no file.
    fs::write(&short, text.lines().next().unwrap()).unwrap();
    let none = place("none.jsonl");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    assert_eq!(command.args(["replay", &short, "-o", &none]).output().unwrap().status.code(), Some(1));
    assert!(!Path::new(&none).exists());
}

/// A whole recording of another machine.
fn lines_of(text: &str, folder: &Path) -> String {
    let path = folder.join("other.jsonl").to_str().unwrap().to_owned();
    fs::write(&path, text.replace("\"host\":\"h\"", "\"host\":\"g\"")).unwrap();
    path
}

/// Rows of intervals have all that is in the totals, but what does not follow from parts.
#[test]
fn totals_of_rows_that_are_cut_off_are_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let header = "{\"type\":\"header\",\"schema\":2,\"tool\":\"kvm\",\"start\":\"2026-01-01T00:00:00Z\",\"start_ns\":1,\"tables\":[\"kvm.count_reason\"]}";
    let interval = |time_ns: u64, counts: &[(u64, u64)]| {
        let block = format!(
            "{{\"type\":\"block\",\"of\":\"row\",\"table\":\"kvm.count_reason\",\"time_ns\":{time_ns},\"since_ns\":{},\"rows\":{},\"hidden\":0}}",
            time_ns - 100,
            counts.len()
        );
        let row = |(reason, count): &(u64, u64)| {
            format!(
                "{{\"type\":\"row\",\"time_ns\":{time_ns},\"isa\":\"vmx\",\"reason\":{reason},\"name\":\"R{reason}\",\"count\":{count}}}"
            )
        };
        [block].into_iter().chain(counts.iter().map(row)).collect::<Vec<_>>().join("\n")
    };
    let text = [
        header.to_owned(),
        interval(101, &[(1, 5), (2, 1)]),
        interval(201, &[(1, 7)]),
        interval(301, &[(1, 100), (2, 100)]),
    ]
    .join("\n");
    // The last interval is not whole.
    let cut = place("x.jsonl");
    fs::write(&cut, &text[..text.len() - 40]).unwrap();
    let rows = |options: &[&str], kind: &str| {
        let bytes = salvaged(&cut, &place("y.jsonl"), options);
        let lines = String::from_utf8(bytes).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of = lines.filter(|line| line["type"] == kind);
        of.map(|line| (line["reason"].as_u64().unwrap(), line["count"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(rows(&[], "total"), [(1, 12), (2, 1)]);
    assert_eq!(rows(&[], "row"), [(1, 5), (2, 1), (1, 7)]);
    assert_eq!(rows(&["-i", "1s"], "row"), [(1, 12), (2, 1)]);
    // Of a part, its rows.
    assert_eq!(rows(&["--to", "100ns"], "total"), [(1, 5), (2, 1)]);
    // A table has them once, though they are the last rows, too.
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(["replay", &cut]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("12"), "{table}");
    // Without any rows, the error is alone.
    fs::write(&cut, header).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_trapline")).args(["replay", &cut, "--format", "jsonl"]).output();
    let output = output.unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.iter().filter(|byte| **byte == b'\n').count()),
        (Some(1), 1)
    );
}

/// A report of what is intact, which does not claim that nothing was lost; and then the error.
#[test]
fn a_report_has_what_is_intact() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(faults(folder.path())).unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (short, page) = (place("short.jsonl"), place("x.html"));
    let at = text.match_indices('\n').nth(3000).unwrap().0 + 20;
    fs::write(&short, &text[..at]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.args(["report", &short, "-o", &page]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("line 3002"), "{error}");
    let page = fs::read_to_string(&page).unwrap();
    for words in ["\"events\":3000", "\"has_facts\":false", "line 3002", "Findings are left out"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.trim_end().ends_with("</html>"));
}
