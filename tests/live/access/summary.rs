//! Summaries of page accesses against programs whose working set, sharing and distances are known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::access::{AFTER_RESETS, TOUCH, access, judge};
use crate::run::{Place, Said, in_full, lines, missed, place, scratch, trapline, u};
use crate::running::{Recording, Running, Worker};

const PAGE: u64 = 4096;
const MS: u64 = 1_000_000;

/// The period of the resets. Where a touch takes long one in the middle of it must still be an exception.
fn every_ms() -> u64 {
    if place() == Place::Vm { 40 } else { 1 }
}

/// A recording of `workload touch`, and what is true.
struct Recorded {
    file: Recording,
    run: Said,
}

/// An access, whatever number of faults the kernel took for it.
struct Access {
    time_ns: u64,
    page: u64,
    tid: u64,
    writes: bool,
    first: bool,
}

impl Recorded {
    /// Each touch, before which there was a reset, is an access in it. One that was interrupted for half a period and more
    /// may be several: its thread has gone on only then, and a reset was in between.
    fn touch(engine: &str, touch: &[&str]) -> Self {
        let resets = engine != "none";
        let period = format!("{}ms", every_ms());
        let every = ["--every", &period];
        let (mut tracer, file) = access(engine, if resets { &every } else { &[] });
        let own = if resets { &AFTER_RESETS[..] } else { &TOUCH[..] };
        let output = tracer.arg("--").args(own).args(touch).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let run = Said::recorded(file.lines(), &output.stdout);
        assert_eq!(run.end["lost_events"], 0);
        let judged = judge(&run, |round, _| resets || round == 0);
        assert!(judged.wrong.is_empty(), "{:#?}", judged.wrong);
        // Kernels that preempt programs skip one that would interrupt itself, and an access with it.
        let unseen = (judged.due - judged.seen) as u64;
        assert!(unseen <= missed(&run.end), "{unseen} touches of {} were not seen: {}", judged.due, run.end);
        let recorded = Self { file, run };
        let touched = recorded.touched();
        let seen = recorded.accesses().iter().filter(|access| touched.contains(&access.page)).count();
        let touches = recorded.run.truths("touch").count();
        assert!(seen <= touches + touches / 10, "{seen} accesses of {touches} touches");
        recorded
    }

    /// The pages that are touched.
    fn touched(&self) -> BTreeSet<u64> {
        self.run.truths("touch").map(|touch| u(&touch["addr"]) / PAGE).collect()
    }

    /// The same without accesses to anything but the memory that is touched.
    fn only_regions(mut self) -> Self {
        let touched = self.touched();
        let is_meant =
            |line: &Value| line["event"] != "access" || touched.contains(&(u(&line["addr"]) / PAGE));
        let kept = self.file.lines().into_iter().filter(is_meant);
        let mut kept: Vec<Value> = kept.collect();
        let accesses = kept.iter().filter(|line| line["event"] == "access").count();
        // A recording that has fewer than it says is refused.
        kept.last_mut().unwrap()["events"] = accesses.into();
        let kept: Vec<String> = kept.iter().map(Value::to_string).collect();
        std::fs::write(&self.file.0, kept.join("\n")).unwrap();
        self.run.events.retain(is_meant);
        self
    }

    /// Its accesses in order of time.
    fn accesses(&self) -> Vec<Access> {
        let mut events: Vec<&Value> =
            self.run.events.iter().filter(|line| line["event"] == "access").collect();
        events.sort_by_key(|event| u(&event["time_ns"]));
        let mut last: HashMap<u64, &Value> = HashMap::new();
        let mut accesses = Vec::new();
        for event in events {
            let (time_ns, tid) = (u(&event["time_ns"]), u(&event["tid"]));
            let before = last.insert(tid, event);
            let second = before.is_some_and(|before| {
                ["pid", "addr", "ip", "rw"].iter().all(|name| before[name] == event[name])
                    && time_ns - u(&before["time_ns"]) < every_ms() * MS / 2
            });
            if !second {
                let (page, writes, first) =
                    (u(&event["addr"]) / PAGE, event["rw"] == "W", event["first"] == 1);
                accesses.push(Access { time_ns, page, tid, writes, first });
            }
        }
        accesses
    }

    fn summary(&self, arguments: &[&str]) -> Summary {
        Summary::by(
            trapline().args(["access", "--format", "jsonl", "--read"]).arg(&self.file.0).args(arguments),
        )
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
    let touch = ["--on", "file", "--pages", "64", "--rounds", "8", "--threads", "2"];
    let recorded = Recorded::touch(engine, &touch);
    let summary = recorded.summary(&["--summary", "--top", "100000"]);
    let accesses = recorded.accesses();
    let mappings = summary.totals("mappings");
    for region in recorded.run.truths("region") {
        let (start, end) = (u(&region["start"]), u(&region["start"]) + PAGES * PAGE);
        let of: Vec<&Access> =
            accesses.iter().filter(|access| (start..end).contains(&(access.page * PAGE))).collect();
        let rows: Vec<_> = mappings.iter().filter(|row| row["start"] == region["start"]).collect();
        let [row] = rows.as_slice() else { panic!("{region}: {rows:#?}") };
        assert_eq!((u(&row["end"]), u(&row["offset"])), (end, 0), "{row}");
        assert_eq!((u(&row["pages"]), u(&row["bytes"])), (PAGES, PAGES * PAGE), "{row}");
        let first = of.iter().filter(|access| access.first).count() as u64;
        let (all, first_touches) = (u(&row["accesses"]), u(&row["first"]));
        assert_eq!((all, u(&row["writes"]), u(&row["reads"])), (of.len() as u64, all, 0), "{row}");
        assert!(first_touches == first && first >= PAGES, "{row}");
        assert!(row["file"].as_str().unwrap().contains("trapline-touch-"), "{row}");
        assert_eq!((&row["pid"], row["comm"].as_str()), (&region["pid"], Some("trapline")));
        let pages = summary.totals("pages");
        let hot: BTreeMap<u64, u64> = pages
            .iter()
            .filter(|row| (start..end).contains(&u(&row["addr"])))
            .map(|row| (u(&row["addr"]) / PAGE, u(&row["accesses"])))
            .collect();
        assert_eq!(hot, tally(of.iter().map(|access| access.page)));
    }
    // Each has its own file.
    let shared = summary.totals("sharing");
    assert!(!shared.iter().any(|row| row["file"].as_str().is_some_and(|f| f.contains("trapline-touch-"))));
    whole(&recorded, &summary);
}

/// How often each is there.
fn tally<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeMap<T, u64> {
    let mut tally = BTreeMap::new();
    all.into_iter().for_each(|one| *tally.entry(one).or_default() += 1);
    tally
}

/// The tables of everything a program did, as counted from its recording by the test.
fn whole(recorded: &Recorded, summary: &Summary) {
    let accesses = recorded.accesses();
    let distinct: BTreeSet<u64> = accesses.iter().map(|access| access.page).collect();
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
    for access in accesses.iter().filter(|access| access.writes) {
        writers.entry(access.page).or_default().insert(access.tid);
    }
    writers.retain(|_, tids| tids.len() > 1);
    let shown: BTreeMap<u64, u64> =
        summary.totals("sharing").iter().map(|row| (u(&row["addr"]) / PAGE, u(&row["threads"]))).collect();
    assert_eq!(shown, writers.iter().map(|(&page, tids)| (page, tids.len() as u64)).collect());
    let end = summary.0.last().unwrap();
    assert_eq!(
        (u(&end["untracked_accesses"]), u(&end["late_accesses"]), u(&end["hidden_rows"])),
        (0, 0, 0),
        "{end}"
    );
    let events = recorded.run.events.iter().filter(|line| line["event"] == "access").count() as u64;
    assert_eq!(u(&end["merged_faults"]), events - all);
}

/// Pages that two threads write in turn, and pages that they do not share.
pub fn sharing_is_what_was_shared(engine: &'static str) {
    let touch = ["--on", "shared", "--pages", "32", "--rounds", "8", "--threads", "2", "--together"];
    let recorded = Recorded::touch(engine, &touch).only_regions();
    let summary = recorded.summary(&["--summary", "sharing,pages", "--top", "1000"]);
    let shown: BTreeMap<(u64, u64), u64> = summary
        .totals("sharing")
        .iter()
        .flat_map(|row| {
            let page = u(&row["addr"]) / PAGE;
            row["writers"].as_str().unwrap().split(' ').map(move |writer| {
                let (tid, writes) = writer.split_once(':').unwrap();
                ((page, tid.parse().unwrap()), writes.parse().unwrap())
            })
        })
        .collect();
    assert_eq!(shown, tally(recorded.accesses().iter().map(|access| (access.page, access.tid))));
    assert_eq!(shown.len(), 2 * 32);
    for row in summary.totals("sharing") {
        let of_page = shown.iter().filter(|((page, _), _)| page * PAGE == u(&row["addr"]));
        assert_eq!(
            (u(&row["threads"]), u(&row["writes"])),
            (2, of_page.map(|(_, writes)| writes).sum()),
            "{row}"
        );
    }
    assert!(summary.of("row", "workingset").is_empty() && summary.totals("rw").is_empty());
}

/// A cycle over 64 pages: each comes back after 63 others, and memory for less than all of it is of no use.
pub fn distances_are_those_of_a_cycle(engine: &'static str) {
    let touch = ["--pages", "64", "--rounds", "8", "--pattern", "seq"];
    let recorded = Recorded::touch(engine, &touch).only_regions();
    let summary = recorded.summary(&["--summary", "reuse,missratio"]);
    // The last one last; its place from the end is the distance.
    let mut stack: Vec<u64> = Vec::new();
    let mut distances = Vec::new();
    let accesses = recorded.accesses();
    for access in &accesses {
        if let Some(at) = stack.iter().position(|page| *page == access.page) {
            distances.push((stack.len() - 1 - at) as u64);
            stack.remove(at);
        }
        stack.push(access.page);
    }
    let times = tally(distances.iter().copied());
    println!("how often each distance: {times:?}");
    // What was interrupted comes back at once.
    let is_cycle = times.get(&63) == Some(&448) && times.keys().all(|distance| [0, 63].contains(distance));
    assert!(is_cycle || missed(&recorded.run.end) > 0, "{times:?}");
    let reuse = summary.totals("reuse")[0];
    let (all, reused) = (accesses.len() as u64, distances.len() as u64);
    assert_eq!((u(&reuse["accesses"]), u(&reuse["cold"]), u(&reuse["reused"])), (all, 64, reused));
    for name in ["p50_pages", "p90_pages", "p99_pages", "max_pages"] {
        assert_eq!(u(&reuse[name]), 63, "{reuse}");
    }
    assert_eq!(u(&reuse["mean_pages"]), distances.iter().sum::<u64>() / reused, "{reuse}");
    for bucket in reuse["buckets"].as_array().unwrap() {
        let within = distances.iter().filter(|distance| (u(&bucket[0])..=u(&bucket[1])).contains(distance));
        assert_eq!(u(&bucket[2]), within.count() as u64, "{reuse}");
    }
    let curve = summary.totals("missratio");
    assert!(curve.len() > 11 && u(&curve.last().unwrap()["pages"]) == 64);
    for row in curve {
        let (pages, misses) = (u(&row["pages"]), u(&row["misses"]));
        let far = distances.iter().filter(|distance| **distance >= pages).count() as u64;
        assert_eq!((u(&row["bytes"]), misses), (pages * PAGE, 64 + far), "{row}");
        assert_eq!(u(&row["miss_ppm"]), misses * 1_000_000 / all, "{row}");
    }
}

/// Pages touched in each window.
pub fn windows_hold_what_was_touched_in_them(engine: &'static str) {
    let touch = ["--pages", "48", "--rounds", "6", "--pattern", "random", "--seed", "5"];
    let recorded = Recorded::touch(engine, &touch).only_regions();
    let window = 2 * every_ms() * MS;
    let began = u(&recorded.run.header["start_ns"]);
    let text = format!("{}ms", window / MS);
    let summary = recorded.summary(&["--summary", "workingset", "--window", &text]);
    let mut expected: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for access in recorded.accesses() {
        expected.entry((access.time_ns - began) / window * window).or_default().insert(access.page);
    }
    let rows = summary.of("row", "workingset");
    let shown: BTreeMap<u64, u64> =
        rows.iter().filter(|r| u(&r["pages"]) > 0).map(|r| (u(&r["at_ns"]), u(&r["pages"]))).collect();
    println!("windows of {text}: {shown:?}");
    assert_eq!(shown, expected.iter().map(|(&at, pages)| (at, pages.len() as u64)).collect());
    assert!(shown.len() >= 3);
    for row in &rows {
        assert_eq!(u(&row["bytes"]), u(&row["pages"]) * PAGE);
        assert_eq!((u(&row["read_pages"]), u(&row["written_pages"])), (0, u(&row["pages"])), "{row}");
    }
    let spans: u64 = rows.iter().map(|row| u(&row["span_ns"])).sum();
    let total = summary.totals("workingset")[0];
    assert_eq!(spans, u(&total["span_ns"]));
    assert_eq!(u(&total["pages"]), recorded.touched().len() as u64);
}

/// On a running process, with intervals: they add up, windows come while it runs, and it ends with the process.
pub fn a_running_process_in_intervals(engine: &'static str) {
    // With nothing to wait for, it begins when the tracer is there, which takes seconds where the processor is emulated.
    let delay = if in_full() { "--delay=1s" } else { "--delay=5s" };
    let own = if engine == "none" { &[&TOUCH[..], &[delay]].concat() } else { &AFTER_RESETS[..] };
    let mut target = Command::new(own[0]);
    target.args(&own[1..]).args(["--pages", "32", "--rounds", "20", "--warm", "--pause", "80ms"]);
    let mut target = Worker::by(&mut target);
    let pid = target.id().to_string();
    // Its pages are there when it says where they are.
    target.line();
    // What it tells is more than a pipe holds.
    let target = std::thread::spawn(move || target.end());
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
    target.join().unwrap();
    let sum = |rows: Vec<&Value>| rows.iter().map(|row| u(&row["accesses"])).sum::<u64>();
    let total = sum(summary.totals("rw"));
    for view in ["rw", "pages", "mappings", "reuse"] {
        assert_eq!(sum(summary.of("row", view)), total, "{view}");
        assert_eq!(sum(summary.totals(view)), total, "{view}");
    }
    assert_eq!(sum(summary.of("row", "workingset")), total);
    let end = summary.0.last().unwrap();
    assert_eq!(u(&end["events"]), total + u(&end["merged_faults"]) + u(&end["untracked_accesses"]), "{end}");
    if engine != "none" {
        assert!(total + missed(end) >= 32 * 20, "{total}");
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
    let text = String::from_utf8(failed.stderr).unwrap();
    assert!(text.contains("Reads and writes") && text.contains("rounds of resets, one each"), "{text}");
    assert!(!text.contains("Most accessed"), "{text}");
    let csv = run(&["--summary", "pages", "--top", "5", "--format", "csv", "--", "true"]);
    let text = String::from_utf8(csv.stdout).unwrap();
    assert!(text.starts_with("type,time_ns,view,pid,from_ns,comm,addr,accesses"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("total,")).count(), 5, "{text}");
    let sleeper = Running::start(Command::new("sleep").arg("60"));
    let idle = run(&["--summary", "-d", "500ms", "-p", &sleeper.id().to_string()]);
    let text = String::from_utf8(idle.stdout).unwrap();
    assert!(idle.status.success() && text.contains("Most accessed pages: none"), "{text}");
    // A recording that is cut off, and one that nobody reads to its end.
    let recorded = Recorded::touch("none", &["--pages", "500", "--rounds", "1"]);
    let bytes = std::fs::read(&recorded.file.0).unwrap();
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
        .arg(&recorded.file.0)
        .arg("-o")
        .arg(&recorded.file.0)
        .output()
        .unwrap();
    assert_eq!(same.status.code(), Some(2));
    assert_eq!(std::fs::read(&recorded.file.0).unwrap(), bytes, "it was overwritten");
    let mut reader = trapline();
    reader.args(["access", "--read"]).arg(&recorded.file.0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reader = Running::start(&mut reader);
    drop(reader.stdout.take());
    let output = reader.output();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
