//! Summaries of page accesses against programs whose working set, sharing and distances are known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::access::access;
use crate::run::{Place, lines, place, scratch, trapline, u};

const PAGE: u64 = 4096;
const MS: u64 = 1_000_000;

/// Between rounds of touches: many periods, so that a reset lies between.
fn pause_ms() -> u64 {
    if place() == Place::Vm { 320 } else { 90 }
}

/// The period of the resets. Where a touch takes long one in the middle of it must still be an exception.
fn every_ms() -> u64 {
    if place() == Place::Vm { 40 } else { 1 }
}

/// A recording and what is true.
struct Recorded {
    file: PathBuf,
    truth: Vec<Value>,
}

impl Recorded {
    /// Of `workload touch`, which waits for the engine; of a run in which no two rounds of resets were so far apart
    /// that touches could go unseen.
    fn touch(engine: &str, touch: &[&str]) -> Self {
        Self::touch_within(engine, touch, None)
    }

    /// The same, where no thread was taken off its processor for so many nanoseconds between its access and the time that
    /// it tells, if that matters.
    fn touch_within(engine: &str, touch: &[&str], ns: Option<u64>) -> Self {
        const TRIES: u32 = 20;
        let delay = if place() == Place::Vm { "3s" } else { "400ms" };
        let [pause, every] = [pause_ms(), every_ms()].map(|ms| format!("{ms}ms"));
        for _ in 0..TRIES {
            let (mut tracer, file) = access(engine, &["--every", &every]);
            let own = env!("CARGO_BIN_EXE_trapline");
            tracer.args(["--", own, "workload", "touch", "--delay", delay, "--pause", &pause]).args(touch);
            let output = tracer.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let recorded = Self { file, truth: lines(&output.stdout) };
            let end = recorded.lines().pop().unwrap();
            assert_eq!(end["lost"], 0);
            let apart = u(&end["period_max_ns"]) / MS;
            if engine != "none" && apart >= pause_ms() / 3 {
                println!("rounds were {apart} ms apart: once more");
            } else if recorded.is_torn() {
                println!("a touch had a round in the middle of it: once more");
            } else if ns.is_some_and(|ns| !recorded.is_prompt(ns)) {
                println!("a touch was told late: once more");
            } else {
                return recorded;
            }
        }
        panic!("the machine is too busy: rounds were {} ms apart and more in {TRIES} runs", pause_ms() / 3);
    }

    fn lines(&self) -> Vec<Value> {
        lines(&std::fs::read(&self.file).unwrap())
    }

    fn truths(&self, kind: &str) -> Vec<&Value> {
        self.truth.iter().filter(|line| line["type"] == kind).collect()
    }

    /// Whether no thread was taken off its processor for so long between its access and the time that it tells.
    fn is_prompt(&self, ns: u64) -> bool {
        let accesses = self.accesses();
        self.truths("touch").iter().all(|touch| {
            let (time, page) = (u(&touch["time_ns"]), u(&touch["addr"]) / PAGE);
            accesses.iter().any(|access| access.1 == page && access.0.abs_diff(time) < ns)
        })
    }

    /// Whether a thread was taken off its processor between two faults of one touch, for so long that a reset lies
    /// between: then its page was accessed in two rounds, though it was touched once.
    fn is_torn(&self) -> bool {
        let mut left: HashMap<(u64, u64), u64> = HashMap::new();
        for touch in self.truths("touch") {
            *left.entry((u(&touch["tid"]), u(&touch["addr"]) / PAGE)).or_default() += 1;
        }
        let exceeds = |&(_, page, tid, _): &(u64, u64, u64, bool)| match left.get_mut(&(tid, page)) {
            Some(0) => true,
            Some(touches) => {
                *touches -= 1;
                false
            }
            None => false,
        };
        self.accesses().iter().any(exceeds)
    }

    /// Where the memory that is touched begins and ends.
    fn regions(&self) -> Vec<(u64, u64)> {
        let bounds = |r: &&Value| (u(&r["start"]), u(&r["start"]) + u(&r["bytes"]));
        self.truths("region").iter().map(bounds).collect()
    }

    /// The same without accesses to anything but the memory that is touched.
    fn only_regions(self) -> Self {
        let regions = self.regions();
        let elsewhere = |line: &Value| {
            line["event"] == "access" && {
                let addr = u(&line["addr"]);
                !regions.iter().any(|&(start, end)| (start..end).contains(&addr))
            }
        };
        let kept: Vec<String> =
            self.lines().iter().filter(|line| !elsewhere(line)).map(Value::to_string).collect();
        std::fs::write(&self.file, kept.join("\n")).unwrap();
        self
    }

    /// Its accesses, without further faults of the same access, as `(time, page, tid, writes)` in order of time.
    fn accesses(&self) -> Vec<(u64, u64, u64, bool)> {
        let mut events: Vec<Value> =
            self.lines().into_iter().filter(|line| line["event"] == "access").collect();
        events.sort_by_key(|event| u(&event["time_ns"]));
        let mut last: HashMap<u64, Value> = HashMap::new();
        let mut accesses = Vec::new();
        for event in events {
            let tid = u(&event["tid"]);
            let before = last.insert(tid, event.clone());
            let second = before.is_some_and(|b| {
                ["pid", "addr", "ip", "rw"].iter().all(|name| b[name] == event[name])
                    && u(&event["time_ns"]) - u(&b["time_ns"]) < every_ms() * MS / 2
            });
            if !second {
                accesses.push((u(&event["time_ns"]), u(&event["addr"]) / PAGE, tid, event["rw"] == "W"));
            }
        }
        accesses
    }

    fn summary(&self, arguments: &[&str]) -> Summary {
        Summary::by(
            trapline().args(["access", "--format", "jsonl", "--read"]).arg(&self.file).args(arguments),
        )
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// What a summary says.
struct Summary(Vec<Value>);

impl Summary {
    fn by(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = lines(&output.stdout);
        assert_eq!(lines.last().unwrap()["type"], "end");
        Self(lines)
    }

    fn of(&self, kind: &str, view: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["type"] == kind && line["view"] == view).collect()
    }

    fn totals(&self, view: &str) -> Vec<&Value> {
        self.of("total", view)
    }
}

/// Files of 64 pages, one of each thread: each is a mapping of which everything is known.
pub fn heat_is_what_was_touched(engine: &'static str) {
    const PAGES: u64 = 64;
    const ROUNDS: u64 = 8;
    let touch = ["--on", "file", "--pages", "64", "--rounds", "8", "--threads", "2"];
    let recorded = Recorded::touch(engine, &touch);
    let summary = recorded.summary(&["--summary", "--top", "100000"]);
    // Without resets there are first touches only.
    let each = if engine == "none" { 1 } else { ROUNDS };
    let mappings = summary.totals("mappings");
    for region in recorded.truths("region") {
        let rows: Vec<_> = mappings.iter().filter(|row| row["start"] == region["start"]).collect();
        let [row] = rows.as_slice() else { panic!("{region}: {rows:#?}") };
        assert_eq!(u(&row["end"]), u(&region["start"]) + u(&region["bytes"]), "{row}");
        assert_eq!(
            (u(&row["pages"]), u(&row["bytes"]), u(&row["offset"])),
            (PAGES, PAGES * PAGE, 0),
            "{row}"
        );
        assert_eq!((u(&row["accesses"]), u(&row["writes"])), (PAGES * each, PAGES * each), "{row}");
        assert_eq!((u(&row["reads"]), u(&row["first"])), (0, PAGES), "{row}");
        assert!(row["file"].as_str().unwrap().contains("trapline-touch-"), "{row}");
        assert_eq!((&row["pid"], row["comm"].as_str()), (&region["pid"], Some("trapline")));
    }
    let (start, bytes) = (u(&recorded.truths("region")[0]["start"]), PAGES * PAGE);
    let pages = summary.totals("pages");
    let hot: Vec<_> = pages.iter().filter(|row| (start..start + bytes).contains(&u(&row["addr"]))).collect();
    assert_eq!(hot.len() as u64, PAGES);
    assert!(hot.iter().all(|row| u(&row["accesses"]) == each), "{hot:#?}");
    // Each has its own file.
    let shared = summary.totals("sharing");
    assert!(!shared.iter().any(|row| row["file"].as_str().is_some_and(|f| f.contains("trapline-touch-"))));
    whole(&recorded, &summary);
}

/// The tables of everything a program did, as counted from its recording by the test.
fn whole(recorded: &Recorded, summary: &Summary) {
    let accesses = recorded.accesses();
    let distinct: BTreeSet<u64> = accesses.iter().map(|&(_, page, ..)| page).collect();
    let all = accesses.len() as u64;
    for view in ["mappings", "pages", "rw", "reuse", "workingset"] {
        let sum: u64 = summary.totals(view).iter().map(|row| u(&row["accesses"])).sum();
        assert_eq!(sum, all, "{view}");
    }
    let windows: u64 = summary.of("row", "workingset").iter().map(|row| u(&row["accesses"])).sum();
    assert_eq!(windows, all);
    for view in ["mappings", "rw", "workingset"] {
        let sum: u64 = summary.totals(view).iter().map(|row| u(&row["pages"])).sum();
        assert_eq!(sum, distinct.len() as u64, "{view}");
    }
    assert_eq!(u(&summary.totals("reuse")[0]["cold"]), distinct.len() as u64);
    let mut writers: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    accesses.iter().filter(|a| a.3).for_each(|&(_, page, tid, _)| {
        writers.entry(page).or_default().insert(tid);
    });
    writers.retain(|_, tids| tids.len() > 1);
    let shown: BTreeMap<u64, u64> =
        summary.totals("sharing").iter().map(|row| (u(&row["addr"]) / PAGE, u(&row["threads"]))).collect();
    assert_eq!(shown, writers.iter().map(|(&page, tids)| (page, tids.len() as u64)).collect());
    let end = summary.0.last().unwrap();
    assert_eq!((u(&end["untracked"]), u(&end["late"]), u(&end["hidden_rows"])), (0, 0, 0), "{end}");
    let events = recorded.lines().iter().filter(|line| line["event"] == "access").count() as u64;
    assert_eq!(u(&end["merged"]), events - all);
}

/// Pages that two threads write in turn, and pages that they do not share.
pub fn sharing_is_what_was_shared(engine: &'static str) {
    const ROUNDS: u64 = 8;
    let stagger = format!("{}ms", pause_ms() / 2);
    let touch = [
        "--on",
        "shared",
        "--pages",
        "32",
        "--rounds",
        "8",
        "--threads",
        "2",
        "--together",
        "--stagger",
        &stagger,
    ];
    let recorded = Recorded::touch(engine, &touch).only_regions();
    let summary = recorded.summary(&["--summary", "sharing,pages", "--top", "1000"]);
    let region = recorded.truths("region")[0];
    let rows = summary.totals("sharing");
    let addresses: BTreeSet<u64> = rows.iter().map(|row| u(&row["addr"])).collect();
    let start = u(&region["start"]);
    assert_eq!(addresses, (0..32).map(|page| start + page * PAGE).collect());
    let tids: Vec<u64> = recorded.truths("region").iter().map(|r| u(&r["tid"])).collect();
    let writers = format!("{}:{ROUNDS} {}:{ROUNDS}", tids[0].min(tids[1]), tids[0].max(tids[1]));
    for row in rows {
        assert_eq!((u(&row["threads"]), u(&row["writes"])), (2, 2 * ROUNDS), "{row}");
        assert_eq!(row["writers"], writers.as_str(), "{row}");
    }
    assert!(summary.of("row", "workingset").is_empty() && summary.totals("rw").is_empty());
}

/// A cycle over 64 pages: each comes back after 63 others, and memory for less than all of it is of no use.
pub fn distances_are_those_of_a_cycle(engine: &'static str) {
    let touch = ["--pages", "64", "--rounds", "8", "--pattern", "seq"];
    let recorded = Recorded::touch(engine, &touch).only_regions();
    let summary = recorded.summary(&["--summary", "reuse,missratio"]);
    let reuse = summary.totals("reuse")[0];
    assert_eq!((u(&reuse["accesses"]), u(&reuse["cold"]), u(&reuse["reused"])), (512, 64, 448));
    for name in ["mean_pages", "p50_pages", "p90_pages", "p99_pages", "max_pages"] {
        assert_eq!(u(&reuse[name]), 63, "{reuse}");
    }
    let used: Vec<&Value> =
        reuse["buckets"].as_array().unwrap().iter().filter(|bucket| u(&bucket[2]) > 0).collect();
    assert_eq!(used, [&serde_json::json!([32, 63, 448])]);
    let curve = summary.totals("missratio");
    let (last, others) = curve.split_last().unwrap();
    assert_eq!((u(&last["pages"]), u(&last["bytes"]), u(&last["misses"])), (64, 64 * PAGE, 64));
    assert_eq!(u(&last["miss_ppm"]), 125_000);
    assert!(others.len() > 10 && others.iter().all(|row| u(&row["misses"]) == 512 && u(&row["pages"]) < 64));
}

/// Pages touched in each window, with windows whose borders lie far from any touch.
pub fn windows_hold_what_was_touched_in_them(engine: &'static str) {
    const FAR: u64 = 4 * MS;
    let touch = ["--pages", "48", "--rounds", "6", "--pattern", "random", "--seed", "5"];
    let recorded = Recorded::touch_within(engine, &touch, Some(FAR)).only_regions();
    let began = u(&recorded.lines()[0]["start_ns"]);
    let touches: Vec<(u64, u64)> =
        recorded.truths("touch").iter().map(|t| (u(&t["time_ns"]), u(&t["addr"]) / PAGE)).collect();
    let times: Vec<u64> =
        touches.iter().map(|t| t.0).chain(recorded.accesses().iter().map(|a| a.0)).collect();
    let clear =
        |window: u64| times.iter().all(|time| (FAR..window - FAR).contains(&((time - began) % window)));
    let window = (50..1500).map(|ms| ms * MS).find(|&window| clear(window)).expect("no such window");
    let text = format!("{}ms", window / MS);
    let summary = recorded.summary(&["--summary", "workingset", "--window", &text]);
    let mut expected: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    touches.iter().for_each(|&(time, page)| {
        expected.entry((time - began) / window * window).or_default().insert(page);
    });
    let rows = summary.of("row", "workingset");
    let shown: BTreeMap<u64, u64> =
        rows.iter().filter(|r| u(&r["pages"]) > 0).map(|r| (u(&r["at_ns"]), u(&r["pages"]))).collect();
    println!("windows of {text}: {shown:?}");
    assert_eq!(shown, expected.iter().map(|(&at, pages)| (at, pages.len() as u64)).collect());
    for row in &rows {
        assert_eq!(u(&row["bytes"]), u(&row["pages"]) * PAGE);
        assert_eq!((u(&row["read_pages"]), u(&row["written_pages"])), (0, u(&row["pages"])), "{row}");
    }
    let spans: u64 = rows.iter().map(|row| u(&row["span_ns"])).sum();
    let total = summary.totals("workingset")[0];
    assert_eq!(spans, u(&total["span_ns"]));
    let distinct: BTreeSet<u64> = touches.iter().map(|t| t.1).collect();
    assert_eq!(u(&total["pages"]), distinct.len() as u64);
}

/// On a running process, with intervals: they add up, windows come while it runs, and it ends with the process.
pub fn a_running_process_in_intervals(engine: &'static str) {
    let own = env!("CARGO_BIN_EXE_trapline");
    let pause = format!("{}ms", pause_ms());
    let arguments = [
        "workload", "touch", "--pages", "32", "--rounds", "20", "--warm", "--delay", "1s", "--pause", &pause,
    ];
    let target = Command::new(own).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let pid = target.id().to_string();
    // What it tells is more than a pipe holds.
    let target = std::thread::spawn(move || target.wait_with_output().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(300));
    let summary = Summary::by(trapline().args([
        "access",
        "--reset",
        engine,
        "-p",
        &pid,
        "--summary",
        "-i",
        "300ms",
        "--top",
        "100000",
        "--format",
        "jsonl",
    ]));
    assert!(target.join().unwrap().status.success());
    let sum = |rows: Vec<&Value>| rows.iter().map(|row| u(&row["accesses"])).sum::<u64>();
    let total = sum(summary.totals("rw"));
    for view in ["rw", "pages", "mappings", "reuse"] {
        assert_eq!(sum(summary.of("row", view)), total, "{view}");
        assert_eq!(sum(summary.totals(view)), total, "{view}");
    }
    assert_eq!(sum(summary.of("row", "workingset")), total);
    let end = summary.0.last().unwrap();
    assert_eq!(u(&end["events"]), total + u(&end["merged"]) + u(&end["untracked"]), "{end}");
    if engine != "none" {
        // Once a round of touches, at the least in those between which a reset was.
        assert!(total >= 32 * 10, "{total}");
    }
    assert!(summary.of("row", "reuse").len() >= 3);
}

/// The other frames: a command's status, a duration, a closed pipe, forms, bad recordings.
pub fn frames(engine: &'static str) {
    let run = |arguments: &[&str]| {
        trapline().args(["access", "--reset", engine]).args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    let failed = run(&["--summary", "rw", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    let text = String::from_utf8(failed.stdout).unwrap();
    assert!(text.contains("Reads and writes") && text.contains("rounds, one each"), "{text}");
    assert!(!text.contains("Most accessed"), "{text}");
    let csv = run(&["--summary", "pages", "--top", "5", "--format", "csv", "--", "true"]);
    let text = String::from_utf8(csv.stdout).unwrap();
    assert!(text.starts_with("type,time_ns,view,pid,from_ns,comm,addr,accesses"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("total,")).count(), 5, "{text}");
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let idle = run(&["--summary", "-d", "500ms", "-p", &sleeper.id().to_string()]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let text = String::from_utf8(idle.stdout).unwrap();
    assert!(idle.status.success() && text.contains("Most accessed pages: none"), "{text}");
    // A recording that is cut off, and one that nobody reads to its end.
    let recorded = Recorded::touch("none", &["--pages", "500", "--rounds", "1"]);
    let bytes = std::fs::read(&recorded.file).unwrap();
    let cut = scratch().join(format!("cut-{}.jsonl", std::process::id()));
    // In the middle of a line.
    let half = bytes.len() / 2 + bytes[bytes.len() / 2..].iter().position(|byte| *byte == b'\n').unwrap();
    std::fs::write(&cut, &bytes[..half - 5]).unwrap();
    let read =
        |file: &Path| trapline().args(["access", "--summary", "pages", "--read"]).arg(file).output().unwrap();
    let broken = read(&cut);
    let error = String::from_utf8(broken.stderr).unwrap();
    assert_eq!(broken.status.code(), Some(1));
    assert!(error.contains(": line ") && error.contains("cut off") && error.lines().count() == 1, "{error}");
    std::fs::remove_file(&cut).unwrap();
    let same = trapline()
        .args(["access", "--read"])
        .arg(&recorded.file)
        .arg("-o")
        .arg(&recorded.file)
        .output()
        .unwrap();
    assert_eq!(same.status.code(), Some(1));
    assert_eq!(std::fs::read(&recorded.file).unwrap(), bytes, "it was overwritten");
    let mut reader = trapline()
        .args(["access", "--read"])
        .arg(&recorded.file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(reader.stdout.take());
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
