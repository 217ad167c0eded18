//! Page faults that perf recorded, read by `replay`: what perf itself shows of the file is the oracle.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{lines, scratch, trapline};

/// Records the faults of a workload.
fn record(path: &Path, events: &str, more: &[&str]) {
    let own = env!("CARGO_BIN_EXE_trapline");
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-d", "-e", events]).args(more).arg("-o").arg(path);
    let output = perf.args(["--", own, "workload", "faults", "2000", "-t", "3"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The samples that perf shows: the process, the thread, the time in microseconds, the period, the kind and the address.
fn shown_by_perf(path: &Path) -> Vec<(u64, u64, u64, u64, String, u64)> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--ns", "-F", "pid,tid,time,period,event,addr", "-i"]).arg(path);
    let text = String::from_utf8(perf.output().unwrap().stdout).unwrap();
    let samples = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (pid, tid) = words[0].split_once('/').unwrap();
        let time_ns = words[1].trim_end_matches(':').replace('.', "");
        let number = |text: &str| text.parse().unwrap();
        let addr = u64::from_str_radix(words[4], 16).unwrap();
        (number(pid), number(tid), number(&time_ns), number(words[2]), words[3].replace("-faults:", ""), addr)
    });
    samples.collect()
}

pub fn replay_shows_what_perf_shows(_: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = folder.path().join("perf.data");
    record(&path, "major-faults,minor-faults", &["-c", "1"]);
    let replayed =
        lines(&trapline().arg("replay").arg(&path).args(["--format", "jsonl"]).output().unwrap().stdout);
    let of = |kind: &str| replayed.iter().filter(|line| line["type"] == kind).cloned().collect::<Vec<_>>();
    let number = |line: &Value, field: &str| line[field].as_u64().unwrap();
    let mut events: Vec<_> = of("event")
        .iter()
        .map(|event| {
            let kind = event["kind"].as_str().unwrap().to_owned();
            let [pid, tid, time_ns, addr] =
                ["pid", "tid", "time_ns", "addr"].map(|field| number(event, field));
            (pid, tid, time_ns, 1, kind, addr)
        })
        .collect();
    let mut shown = shown_by_perf(&path);
    assert!(shown.len() >= 2000, "{}", shown.len());
    let mut threads: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    shown.iter().for_each(|sample| *threads.entry((sample.0, sample.1)).or_default() += 1);
    events.sort();
    shown.sort();
    assert_eq!(events, shown);
    let totals = of("total");
    let figures = totals
        .iter()
        .map(|row| ((number(row, "pid"), number(row, "tid")), number(row, "major") + number(row, "minor")));
    assert_eq!(figures.collect::<BTreeMap<_, _>>(), threads);
    assert!(totals.iter().all(|row| row["total_ns"].is_null() && row["comm"].is_string()), "{totals:?}");
    assert_eq!(number(&of("end")[0], "events"), shown.len() as u64);
}

/// One in a hundred is recorded: rows have what the samples stand for, as `perf report` counts it.
pub fn samples_stand_for_their_period(_: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = folder.path().join("perf.data");
    record(&path, "minor-faults", &["-c", "100"]);
    let replayed =
        lines(&trapline().arg("replay").arg(&path).args(["--format", "jsonl"]).output().unwrap().stdout);
    let minor =
        replayed.iter().filter(|line| line["type"] == "total").filter_map(|row| row["minor"].as_u64());
    let shown = shown_by_perf(&path);
    assert_eq!(minor.sum::<u64>(), shown.iter().map(|sample| sample.3).sum::<u64>());
    let end = replayed.last().unwrap();
    assert_eq!((&end["sampled"], &end["events"]), (&100.into(), &shown.len().into()));
    // Events that are no faults are refused, with what to record instead.
    record(&path, "context-switches", &["-c", "1"]);
    let output = trapline().arg("replay").arg(&path).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("is no page fault: record with"), "{error}");
}
