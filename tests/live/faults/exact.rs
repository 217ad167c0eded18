//! Counts equal the kernel's own accounting, exactly.

use std::collections::BTreeSet;

use crate::run::{Beside, Said, faults, fixture, one_line, parent_of_all, runs, sum, u};
use crate::running::Worker;

fn command(variant: &str, options: &[&str], fixture: &[String]) -> Said {
    let mut command = faults(variant, options);
    Said::by(command.arg("--").args(fixture))
}

/// Each thread's total equals what the thread said of itself, each process's what wait4 said.
fn assert_truth(said: &Said) {
    assert_truth_of(said, &["thread", "process", "wait4"]);
}

pub fn assert_truth_of(said: &Said, what: &[&str]) {
    let truths = || said.truth.iter().filter(|truth| what.contains(&truth["what"].as_str().unwrap()));
    assert!(truths().next().is_some(), "{:?}", said.truth);
    for truth in truths() {
        let told = (u(&truth["major"]), u(&truth["minor"]));
        let counted = match truth["what"].as_str() {
            Some("thread") => sum(&said.totals, |t| t["tid"] == truth["tid"]),
            Some("process") => sum(&said.totals, |t| t["pid"] == truth["pid"]),
            // With its children: all but the process that waited.
            Some("wait4") => sum(&said.totals, |t| t["pid"] != *parent_of_all(&said.totals)),
            _ => continue,
        };
        assert_eq!(counted, told, "{truth} in {:#?}", said.totals);
    }
    for loss in ["unlisted_faults", "untracked_threads"] {
        assert_eq!(said.end[loss], 0, "{loss}: {}", said.end);
    }
}

pub fn every_kind_of_fault_per_thread(variant: &'static str) {
    let mut fixture = fixture("kinds");
    fixture.push("3".into());
    for _ in 0..runs() {
        let said = command(variant, &[], &fixture);
        assert_truth(&said);
        assert_eq!(said.truth.len(), 7);
        let major: u64 = said.truth.iter().map(|t| u(&t["major"])).sum();
        assert!(major > 0, "no fault waited for the disk: {:?}", said.truth);
        assert_eq!(said.end["lost_events"], 0);
    }
}

pub fn a_command_equals_wait4(variant: &'static str) {
    for _ in 0..runs() {
        let said = command(variant, &[], &fixture("wait4"));
        assert_truth(&said);
        assert_eq!(said.truth.iter().filter(|t| t["what"] == "wait4").count(), 1);
    }
    // Programs that nobody here wrote, with children of their own.
    let mut fixture = fixture("wait4");
    fixture.extend(["sh", "-c", "for i in 1 2; do ls -l /etc | sort | wc -l >&2; done"].map(String::from));
    for _ in 0..runs().div_ceil(10) {
        assert_truth(&command(variant, &[], &fixture));
    }
}

/// A row for each process holds what wait4 says of it.
pub fn by_process(variant: &'static str) {
    let said = command(variant, &["--by", "process"], &fixture("wait4"));
    assert_truth_of(&said, &["process", "wait4"]);
    let pids: BTreeSet<u64> = said.totals.iter().map(|t| u(&t["pid"])).collect();
    assert_eq!(pids.len(), said.totals.len(), "one row a process: {:?}", said.totals);
    assert!(said.totals.iter().all(|t| t.get("tid").is_none() && u(&t["start_ns"]) > 0));
}

pub fn threads_that_exec(variant: &'static str) {
    for _ in 0..runs().div_ceil(2) {
        let said = command(variant, &[], &fixture("exec-in-thread"));
        assert_truth(&said);
    }
}

pub fn cold_files_read_by_many(variant: &'static str) {
    let mut fixture = fixture("cold");
    fixture.push("8".into());
    for _ in 0..runs().div_ceil(5) {
        let said = command(variant, &[], &fixture);
        assert_truth(&said);
        assert!(u(&said.truth[0]["major"]) + u(&said.truth[1]["major"]) > 0, "{:?}", said.truth);
    }
}

/// A process that was there before: only what it does during the trace is counted.
pub fn a_running_process_from_outside(variant: &'static str) {
    for _ in 0..runs().div_ceil(10) {
        let mut worker = Worker::start(&fixture("on-demand"));
        worker.touch(10);
        let before = worker.touch(1000);
        let trapline = Beside::start(faults(variant, &["-p", &worker.id().to_string()]));
        worker.touch(300);
        let after = worker.touch(4000);
        let said = trapline.interrupt();
        assert_eq!(sum(&said.totals, |_| true), (after.0 - before.0, after.1 - before.1));
        assert_eq!(said.totals.len(), 1);
        assert_eq!(u(&said.totals[0]["pid"]), u64::from(worker.id()));
    }
}

pub fn times_are_plausible(variant: &'static str) {
    let mut fixture = fixture("kinds");
    fixture.push("2".into());
    let said = command(variant, &["-v"], &fixture);
    assert!(said.totals.iter().any(|t| u(&t["timed"]) > 100), "{:?}", said.totals);
    for total in said.totals.iter().filter(|t| u(&t["timed"]) > 0) {
        let [total_ns, major_ns, avg, max, min, p50, p99] =
            ["total_ns", "major_ns", "avg_ns", "max_ns", "min_ns", "p50_ns", "p99_ns"]
                .map(|name| u(&total[name]));
        let timed = u(&total["timed"]);
        assert!(timed <= u(&total["major"]) + u(&total["minor"]), "{total}");
        assert_eq!(avg, total_ns / timed, "{total}");
        assert!(min > 0 && min <= p50 && p50 <= p99 && p99 <= max && max <= total_ns, "{total}");
        assert!(major_ns <= total_ns && min <= avg && avg <= max, "{total}");
        assert!(total_ns <= u(&said.end["duration_ns"]) + 1_000_000_000, "{total}");
    }
    // A read from a disk takes longer than clearing a page: the median one, for some are held up by other things.
    let median = |kind: &str| {
        let mut times: Vec<u64> = said
            .events
            .iter()
            .filter(|e| e["kind"] == kind)
            .filter_map(|e| e["latency_ns"].as_u64())
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    assert!(median("major") > median("minor"), "{} and {} ns", median("major"), median("minor"));
}

pub fn sampled_minor_latency(variant: &'static str) {
    let mut fixture = fixture("touch");
    fixture.push("20000".into());
    let sampled = ["--minor-latency", "1:64"];
    if variant != "tracepoint" {
        // It times every fault: the option would have no effect.
        let mut command = faults(variant, &sampled);
        return one_line(&command.arg("--").args(fixture).output().unwrap(), 2, "leave out --minor-latency");
    }
    let exact = command(variant, &[], &fixture);
    let sampled = command(variant, &sampled, &fixture);
    let off = command(variant, &["--minor-latency", "off"], &fixture);
    let counts = sum(&exact.totals, |_| true);
    // The start of a program is not the same to the last fault each time: address space randomisation.
    for other in [&sampled, &off] {
        assert!(sum(&other.totals, |_| true).1.abs_diff(counts.1) < 40, "{:?}", other.totals);
    }
    assert!(off.totals[0]["total_ns"].is_null() && off.totals[0]["p50_ns"].is_null());
    assert_eq!((u(&exact.end["sampled"]), u(&sampled.end["sampled"])), (1, 64));
    let timed = u(&sampled.totals[0]["timed"]);
    let faults = u(&sampled.totals[0]["minor"]);
    assert!(timed.abs_diff(faults / 64) <= faults / 64 / 4 + 200, "{timed} of {faults} timed");
}

pub fn verbose_shows_every_fault(variant: &'static str) {
    let mut fixture = fixture("kinds");
    fixture.push("2".into());
    for _ in 0..runs().div_ceil(10) {
        let said = command(variant, &["-v"], &fixture);
        assert_truth(&said);
        let faults = sum(&said.totals, |_| true);
        assert_eq!(u(&said.end["events"]) + u(&said.end["lost_events"]), faults.0 + faults.1);
        assert_eq!(said.end["lost_events"], 0);
        assert_eq!(said.events.len() as u64, u(&said.end["events"]));
        for total in &said.totals {
            let of = |kind: &str| {
                said.events.iter().filter(|e| e["tid"] == total["tid"] && e["kind"] == kind).count()
            };
            let shown = (of("major") as u64, of("minor") as u64);
            assert_eq!(shown, (u(&total["major"]), u(&total["minor"])), "{total}");
        }
        if variant != "counters" {
            let seen = said.events.iter().filter(|e| !e["addr"].is_null()).count();
            assert!(seen * 10 > said.events.len() * 6, "{seen} of {} seen", said.events.len());
            assert!(said.events.iter().any(|e| e["rw"] == "W" && u(&e["latency_ns"]) > 0));
        }
    }
}
