//! A message each time a process's count passes a multiple of a step: exactly as many as there are multiples.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::run::{Place, Said, faults, fixture, in_full, missed, place, u};

/// Each process's count at the end, by (pid, birth of its oldest thread); and checks its messages against it.
fn assert_steps(said: &Said, step: u64, of: fn(&Value) -> u64) {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for total in &said.totals {
        *counts.entry(u(&total["pid"])).or_default() += of(total);
    }
    let mut messages: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for event in &said.events {
        assert_eq!(u(&event["step"]), step);
        messages.entry(u(&event["pid"])).or_default().push(u(&event["count"]));
    }
    for (pid, count) in counts {
        let expected: Vec<u64> = (1..=count / step).map(|n| n * step).collect();
        assert_eq!(messages.remove(&pid).unwrap_or_default(), expected, "process {pid} with {count} faults");
    }
    assert!(messages.is_empty(), "messages of nobody: {messages:?}");
    assert_eq!(said.end["lost_events"], 0);
    assert_eq!(said.end["uncounted_faults"], 0);
}

fn run(variant: &str, options: &[&str], words: &[&str]) -> Said {
    let mut all = fixture(words[0]);
    all.extend(words[1..].iter().map(ToString::to_string));
    Said::by(faults(variant, options).arg("--").args(all))
}

fn all(total: &Value) -> u64 {
    u(&total["major"]) + u(&total["minor"])
}

pub fn one_message_a_multiple(variant: &'static str) {
    // Each message is a line, which takes long under emulation.
    let (n, times) = if place() == Place::Vm { ("4", 2) } else { ("20", 6) };
    let (threads, forks) = (&["kinds", "3"][..], &["processes", n, "1200"][..]);
    let runs = [("1", threads), ("7", forks), ("1", forks), ("50", threads), ("50", forks), ("1000", forks)];
    for (step, words) in runs.into_iter().take(times) {
        assert_steps(&run(variant, &["--log-step", step], words), step.parse().unwrap(), all);
    }
    if in_full() {
        assert_steps(&run(variant, &["--log_step"], &["kinds", "2"]), 50, all);
    }
    let major = run(variant, &["--threshold", "3", "--major"], &["kinds", "3"]);
    assert!(!major.events.is_empty());
    assert_steps(&major, 3, |total| u(&total["major"]));
}

/// However a process's faults are shared out among its threads, a message is sent by the fault that it is about.
pub fn in_time(variant: &'static str) {
    let said = run(variant, &["--log-step", "1000"], &["company"]);
    assert_steps(&said, 1000, all);
    let mut after = 0;
    for truth in &said.truth {
        let message = said.events.iter().find(|event| event["count"] == truth["count"]).unwrap();
        let is_in_time = (after..u(&truth["now_ns"])).contains(&u(&message["time_ns"]));
        // Where a program was skipped, the next fault makes up for it.
        assert!(is_in_time || missed(&said.end) > 0, "{message} {truth}");
        after = u(&truth["now_ns"]);
    }
    assert_eq!(said.truth.len(), 2);
}

pub fn short_processes(variant: &'static str) {
    let n = if place() == Place::Vm { "200" } else { "20000" };
    let said = run(variant, &["--log-step", "10"], &["processes", n, "12"]);
    // Ids may be reused among so many, so the processes are told apart by number only: each has the same count.
    let expected: u64 = said.totals.iter().map(|total| all(total) / 10).sum();
    assert_eq!(said.events.len() as u64, expected);
    assert!(expected >= n.parse::<u64>().unwrap() * 2);
    assert_eq!(said.end["lost_events"], 0);
    assert_eq!(said.end["uncounted_faults"], 0);
}

pub fn stalls(variant: &'static str) {
    let said = run(variant, &["--stall", "1ms"], &["touch", "20000"]);
    let total: u64 = said.totals.iter().map(|total| u(&total["total_ns"])).sum();
    let stalls: Vec<u64> = said.events.iter().map(|event| u(&event["stall_ns"])).collect();
    let expected: Vec<u64> = (1..=total / 1_000_000).map(|n| n * 1_000_000).collect();
    assert_eq!(stalls, expected);
    assert!(!stalls.is_empty());
}

/// A process that slept within a window for as long as was asked has a message, and another after the window.
pub fn stalls_within_a_window(variant: &'static str) {
    let (stall, window) = (8_000_000, 16_000_000);
    let said = run(variant, &["--stall", "8ms/16ms"], &["for-somebody"]);
    let (truth, row) =
        (&said.truth[0], said.totals.iter().find(|row| row["tid"] == said.truth[0]["tid"]).unwrap());
    // Each of 20 sleeps is long enough, and after a message there is none for a window; other sleeps may come between.
    let most = u(&truth["off_ns"]).max(u(&row["wait_ns"])) / window + 2;
    assert!((2..=most).contains(&(said.events.len() as u64)), "{row} {:?}", said.events);
    let mut after = 0;
    for event in &said.events {
        assert_eq!(
            (&event["pid"], &event["start_ns"], u(&event["window_ns"])),
            (&row["pid"], &row["start_ns"], window)
        );
        assert!((stall..=window).contains(&u(&event["wait_ns"])), "{event}");
        assert!(u(&event["time_ns"]) >= after + window, "{:?}", said.events);
        after = u(&event["time_ns"]);
    }
    assert_eq!((&said.end["lost_events"], &said.end["uncounted_faults"]), (&0.into(), &0.into()));
    // It sleeps in 20 faults, ten milliseconds each, and somewhat longer on a busy machine.
    let once = run(variant, &["--stall", "150ms/1h"], &["for-somebody"]);
    assert_eq!(once.events.len(), 1, "{:?}", once.events);
    assert!(
        (150_000_000..=u(&once.truth[0]["off_ns"]) / 20 * 21 + 400_000)
            .contains(&u(&once.events[0]["wait_ns"])),
        "{:?}",
        once.events
    );
    let never = run(variant, &["--stall", "1h/1h"], &["for-somebody"]);
    assert_eq!(never.events, Vec::<Value>::new());
}

/// With a message for each fault, what caused most is what that fault was; with fewer, it is one of those.
pub fn what_caused_most(variant: &'static str) {
    let said = run(variant, &["--log-step", "1", "-v"], &["chains"]);
    assert_steps(&said, 1, all);
    let told = |said: &Said, code: &str| {
        said.events.iter().filter(|e| e["code"] == code && e["file"] == "[anon]").count() as u64
    };
    for code in ["chain_leaf", "chain_reads"] {
        let made =
            said.truth.iter().filter(|t| t["chain"].as_str().is_some_and(|chain| chain.ends_with(code)));
        let expected: u64 = made.map(|t| u(&t["pages"])).sum();
        assert!(expected > 0);
        // A fault that a program missed is in the next message, which has one place for what caused most.
        let different = told(&said, code).abs_diff(expected);
        assert!(different <= missed(&said.end), "{code}: {different} of {expected}, {}", said.end);
    }
    assert_eq!(said.end["unexplained_faults"], 0);
    let said = run(variant, &["--log-step", "20", "-v"], &["chains"]);
    assert_steps(&said, 20, all);
    assert!(told(&said, "chain_leaf") > told(&said, "chain_reads"));
    assert!(told(&said, "chain_reads") > 0, "{:#?}", said.events);
    if !in_full() {
        return;
    }
    let slept = run(variant, &["--stall", "50ms/1h", "-v"], &["for-somebody"]);
    assert!(slept.events.len() == 1 && slept.events[0]["file"] == "[anon]", "{:#?}", slept.events);
    let stalls = run(variant, &["--stall", "20us", "-v"], &["chains"]);
    assert!(stalls.events.iter().any(|e| e["code"] == "chain_leaf"), "{:#?}", stalls.events);
}
