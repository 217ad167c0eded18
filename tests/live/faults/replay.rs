//! A recording of a live run is read back whole: what is written of it again is the same, byte for byte. (That tables are
//! the same then, too, `src/cmd/replay/tests.rs` shows for every table in every layout.)

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::run::{lines, scratch, trapline, u};

/// Runs this, records it, and replays the recording into another one.
pub fn is_whole(tool: &[&str], command: &[&str]) -> String {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let (recorded, again) = (folder.path().join("x.jsonl"), folder.path().join("again.jsonl"));
    let run = trapline().args(tool).arg("-o").arg(&recorded).arg("--").args(command).output().unwrap();
    assert!(run.status.success(), "{tool:?}: {run:?}");
    let replay = trapline().arg("replay").arg(&recorded).arg("-o").arg(&again).output().unwrap();
    assert!(replay.status.success(), "{tool:?}: {replay:?}");
    let [text, again] = [&recorded, &again].map(|path| std::fs::read_to_string(path).unwrap());
    // It begins with the command.
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    let since = lines.iter().filter(|line| line["of"] == "total").map(|block| &block["since_ns"]);
    assert!(since.clone().all(|since| since.is_null() || *since == lines[0]["start_ns"]), "{tool:?}");
    assert!(text == again, "{tool:?}: the recording:\n{text}\nand what its replay has:\n{again}");
    // And by way of a folder.
    let (parts, last) = (folder.path().join("x.trapline"), folder.path().join("last.jsonl"));
    for [from, to] in [[&recorded, &parts], [&parts, &last]] {
        let replay = trapline().arg("replay").arg(from).arg("-o").arg(to).output().unwrap();
        assert!(replay.status.success(), "{tool:?}: {replay:?}");
    }
    let last = std::fs::read_to_string(last).unwrap();
    assert!(
        text == last,
        "{tool:?}: the recording:\n{text}\nand what its replay by way of a folder has:\n{last}"
    );
    text
}

/// The data of the page that `trapline report` makes of what a tool records while a command runs, and what the command printed.
pub fn page(tool: &[&str], command: &[String]) -> (Page, Vec<Value>) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let [recorded, page] = ["x.trapline", "x.html"].map(|name| folder.path().join(name));
    let run = trapline().args(tool).arg("-o").arg(&recorded).arg("--").args(command).output().unwrap();
    assert!(run.status.success(), "{tool:?}: {run:?}");
    let report = trapline().arg("report").arg(&recorded).arg("-o").arg(&page).output().unwrap();
    assert!(report.status.success(), "{tool:?}: {report:?}");
    let page = std::fs::read_to_string(page).unwrap();
    let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    (Page(serde_json::from_str(data).unwrap()), lines(&run.stdout))
}

/// The figures of a page.
pub struct Page(pub Value);

impl Page {
    /// The sum of a figure, of all or of those with this name in a dimension.
    pub fn sum(&self, measure: &str, of: Option<(&str, &str)>) -> u64 {
        let place = |list: &str, name: &str| {
            let found = self.0[list].as_array().unwrap().iter().position(|it| it["name"] == name);
            found.unwrap_or_else(|| panic!("no {name} in {}", self.0[list]))
        };
        let cells = &self.0["cells"];
        let figures = cells["figures"][place("measures", measure)].as_array().unwrap();
        let is_meant = |group: &Value| {
            of.is_none_or(|(dim, name)| {
                let dim = place("dims", dim);
                let word = u(&self.0["groups"][u(group) as usize][dim]) as usize;
                self.0["dims"][dim]["words"][word] == name
            })
        };
        let groups = cells["group"].as_array().unwrap();
        groups.iter().zip(figures).filter(|(group, _)| is_meant(group)).map(|(_, figure)| u(figure)).sum()
    }

    /// The intervals of time in which there is something.
    pub fn intervals(&self) -> usize {
        let bins = self.0["cells"]["bin"].as_array().unwrap();
        bins.iter().map(u).collect::<BTreeSet<u64>>().len()
    }

    /// The parts of the time, added up.
    pub fn parts(&self) -> u64 {
        let parts = self.0["measures"].as_array().unwrap().iter().filter(|measure| measure["part"] == true);
        parts.map(|measure| self.sum(measure["name"].as_str().unwrap(), None)).sum()
    }
}

pub fn count(text: &str, kind: &str) -> usize {
    text.lines().filter(|line| line.starts_with(&format!("{{\"type\":\"{kind}\""))).count()
}

/// 3000 faults in a command that takes longer than an interval.
const FAULTS: &[&str] = &["workload", "faults", "3000", "--rate", "20000", "-t", "2"];

pub fn a_recording_is_read_back_whole(variant: &str) {
    let own = env!("CARGO_BIN_EXE_trapline");
    let command = [&[own], FAULTS].concat();
    for by in ["thread", "process", "cgroup", "file", "cause", "stack"] {
        let known = variant != "rootless" || ["thread", "process", "file", "stack"].contains(&by);
        let counted = variant != "counters" || ["thread", "process", "cgroup"].contains(&by);
        if known && counted {
            let text = is_whole(&["faults", "--by", by, "-i", "50ms", "--variant", variant], &command);
            assert!(count(&text, "row") > 0 && count(&text, "total") > 0, "{by}: {text}");
            assert!(count(&text, "block") > 2, "{by}: {text}");
        }
    }
    if variant != "counters" {
        let text = is_whole(&["faults", "-v", "--variant", variant], &command);
        assert!(count(&text, "event") >= 3000, "{text}");
    }
}

/// What the rows of a replay have in these columns.
fn totals(recording: &Path, options: &[&str], columns: &[&str]) -> BTreeSet<Vec<String>> {
    let out =
        trapline().arg("replay").arg(recording).args(["--format", "jsonl"]).args(options).output().unwrap();
    assert!(out.status.success(), "{options:?}: {out:?}");
    let lines = String::from_utf8(out.stdout).unwrap();
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rows = rows.filter(|row| row["type"] == "total" && (row["major"] != 0 || row["minor"] != 0));
    rows.map(|row| columns.iter().map(|name| row[*name].to_string()).collect()).collect()
}

/// A recording has each fault: grouped afterwards, they are as many as the kernel counted, by thread the same rows.
pub fn a_recording_answers_every_by(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = folder.path().join("x.trapline");
    let own = env!("CARGO_BIN_EXE_trapline");
    let run = trapline()
        .args(["faults", "--variant", variant, "-o"])
        .arg(&path)
        .args(["--", own])
        .args(FAULTS)
        .output();
    let run = run.unwrap();
    assert!(run.status.success(), "{run:?}");
    // Meanwhile the table was shown, and no event.
    let shown = String::from_utf8(run.stderr).unwrap();
    assert!(shown.contains("TOTAL") && !shown.contains("LATENCY_US"), "{shown}");
    let counts = ["pid", "tid", "start_ns", "comm", "major", "minor"];
    let counted = totals(&path, &[], &counts);
    assert!(counted.len() >= 2, "{counted:?}");
    assert_eq!(totals(&path, &["--by", "thread"], &counts), counted);
    let sum = |rows: &BTreeSet<Vec<String>>| {
        let counts = rows.iter().flat_map(|row| &row[row.len() - 2..]);
        counts.map(|count| count.parse::<u64>().unwrap()).sum::<u64>()
    };
    let groupings = [
        ("process", "pid"),
        ("file", "file"),
        ("cause", "cause"),
        ("process,file", "file"),
        ("comm", "comm"),
        ("cgroup", "cgroup"),
        ("comm,file", "file"),
        ("host,process", "host"),
    ];
    for (by, key) in groupings {
        // Only the kernel half tells causes and cgroups.
        if variant != "rootless" || !["cause", "cgroup"].contains(&by) {
            let rows = totals(&path, &["--by", by], &[key, "pid", "offset", "major", "minor"]);
            assert_eq!(sum(&rows), sum(&counted), "{by}: {rows:?} for {counted:?}");
        }
    }
    // Rows, and messages, are what the kernel half made of the same faults.
    if variant != "rootless" {
        let figures = [
            "tid", "waits", "total_ns", "major_ns", "wait_ns", "avg_ns", "max_ns", "min_ns", "p50_ns",
            "p99_ns",
        ];
        assert_eq!(totals(&path, &["--by", "thread"], &figures), totals(&path, &[], &figures));
        let hist = totals(&path, &["--hist"], &["tid", "buckets"]);
        assert!(!hist.is_empty() && hist.iter().all(|row| row[1].starts_with("[[")), "{hist:?}");
    }
    let steps = trapline()
        .arg("replay")
        .arg(&path)
        .args(["--log-step", "500", "--format", "jsonl"])
        .output()
        .unwrap();
    let steps = String::from_utf8(steps.stdout).unwrap();
    assert_eq!(count(&steps, "event") as u64, sum(&counted) / 500, "{steps}");
    // Twice the same is twice as many.
    let second = path.with_file_name("y.trapline");
    let copied = std::process::Command::new("cp").arg("-r").arg(&path).arg(&second).status().unwrap();
    assert!(copied.success());
    let both = totals(folder.path(), &["--by", "process"], &["pid", "major", "minor"]);
    assert_eq!(sum(&both), 2 * sum(&counted));
    // Each fault is there; parts of the time are parts of the faults, and both together are all.
    let out = trapline().arg("replay").arg(&path).args(["-v", "--format", "jsonl"]).output().unwrap();
    let lines = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let time = |line: &Value, name: &str| line[name].as_u64().unwrap();
    let start = time(&lines[0], "start_ns");
    let mut times: Vec<u64> = lines
        .iter()
        .filter(|line| line["type"] == "event")
        .map(|line| time(line, "time_ns") - start)
        .collect();
    assert_eq!(times.len() as u64, sum(&counted));
    times.sort_unstable();
    let half = times[times.len() / 2];
    let part = |options: &[&str]| {
        sum(&totals(&path, &[options, &["--by", "process"]].concat(), &["pid", "major", "minor"]))
    };
    let before = part(&["--to", &format!("{half}ns")]);
    let after = part(&["--from", &format!("{}ns", half + 1)]);
    assert!(before > 0 && after > 0, "{before} and {after}");
    assert_eq!(before + after, sum(&counted));
}

/// What replay prints of a recording.
fn replayed(recording: &Path, options: &[&str]) -> String {
    let out = trapline().arg("replay").arg(recording).args(options).output().unwrap();
    assert!(out.status.success(), "{options:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The totals of a replay, line by line, in one order.
fn total_lines(recording: &Path, options: &[&str]) -> Vec<String> {
    let lines = replayed(recording, &[options, &["--format", "jsonl"]].concat());
    let totals = lines.lines().filter(|line| line.starts_with("{\"type\":\"total\""));
    let mut totals: Vec<String> = totals.map(str::to_owned).collect();
    totals.sort();
    totals
}

/// Records a run of a command with many faults, and gives where.
fn recorded(folder: &Path, name: &str, options: &[&str]) -> std::path::PathBuf {
    let path = folder.join(name);
    let mut run = trapline();
    run.arg("faults").args(options).arg("-o").arg(&path).args(["--", env!("CARGO_BIN_EXE_trapline")]);
    let run = run.args(FAULTS).output().unwrap();
    assert!(run.status.success(), "{options:?}: {run:?}");
    path
}

/// The rows that the run printed by stack, and those that are made of the recorded faults, are the same, byte for byte; and so is a
/// flame graph. Rows by anything else, and of a part of the run, are made of the same faults.
pub fn a_recording_has_the_stack_of_each_fault(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = recorded(folder.path(), "x.trapline", &["--variant", variant, "--by", "stack"]);
    let live = total_lines(&path, &[]);
    assert!(live.iter().any(|row| row.contains(";")), "{live:?}");
    assert_eq!(total_lines(&path, &["--by", "stack"]), live);
    assert_eq!(total_lines(&path, &["--from", "0s"]), live);
    let folded = |options: &[&str]| {
        let text = replayed(&path, &[options, &["--format", "folded"]].concat());
        text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(folded(&["--by", "stack"]), folded(&[]));
    // Of each fault the function that it was in.
    let faults = |options: &[&str]| {
        let rows = total_lines(&path, options);
        let row = |row: &String| serde_json::from_str::<Value>(row).unwrap();
        rows.iter().map(row).map(|row| u(&row["major"]) + u(&row["minor"])).sum::<u64>()
    };
    let all = faults(&[]);
    assert_eq!(faults(&["--by", "function"]), all);
    assert_eq!(faults(&["--by", "file"]), all);
    let processes = totals(&path, &["--by", "process"], &["pid", "minor"]);
    let [pid, _] = processes.iter().map(|row| [&row[0], &row[1]]).max_by_key(|row| row[1].len()).unwrap();
    let of_one = faults(&["--by", "process", "-p", pid]);
    assert!(of_one > 0 && of_one <= all);
    assert_eq!(faults(&["--by", "stack", "-p", pid]), of_one);
    // A copy has them, too.
    let copy = folder.path().join("copy.trapline");
    let copied = trapline().arg("replay").arg(&path).arg("-o").arg(&copy).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(total_lines(&copy, &["--by", "stack"]), live);
}

/// With `--split`, rows by anything have the parts of the time, and those by thread are the ones that the run printed.
pub fn a_recording_has_what_the_time_of_each_fault_was_spent_on(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = recorded(folder.path(), "x.trapline", &["--variant", variant, "--split"]);
    let parts = ["io_ns", "preempted_ns", "kernel_ns", "major", "minor"];
    let by_thread = totals(&path, &["--by", "thread", "--split"], &[&["tid"], &parts[..]].concat());
    assert_eq!(by_thread, totals(&path, &[], &[&["tid"], &parts[..]].concat()));
    let sums = |rows: &BTreeSet<Vec<String>>| {
        let column = |at: usize| rows.iter().map(|row| row[at].parse::<u64>().unwrap_or(0)).sum::<u64>();
        (1..=parts.len()).map(column).collect::<Vec<_>>()
    };
    let by_file = totals(&path, &["--by", "file", "--split"], &[&["file"], &parts[..]].concat());
    assert_eq!(sums(&by_file), sums(&by_thread), "{by_file:?}");
    assert!(sums(&by_file)[2] > 0, "{by_file:?}");
    // Both at once.
    let path = recorded(folder.path(), "y.trapline", &["--variant", variant, "--split", "--by", "stack"]);
    assert_eq!(total_lines(&path, &["--by", "stack", "--split"]), total_lines(&path, &[]));
}
