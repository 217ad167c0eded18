//! Findings: each rule on a program that does just that, and nothing on one that does nothing.

#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::time::Duration;

use serde_json::Value;

use crate::faults::cause::uffd;
use crate::faults::time::be_urgent;
use crate::fixture::{PAGE, cold_file, look, map, map_of, touch, touch_fresh};
use crate::run::{Said, fixture, scratch, trapline, u};

/// What the programs are called by, and the rules that apply to them.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("idle", &[]),
    ("scattered", &["random-reads"]),
    ("again", &["thrash"]),
    ("fresh", &["first-touch"]),
    ("copies", &["copy-on-write"]),
    ("served", &["userfaultfd"]),
];

/// A program that gives a rule a reason.
pub fn program(name: &str) {
    // Findings are about shares of the run: what it waits for is not to be a processor.
    be_urgent();
    match name {
        "idle" => {
            touch_fresh(50);
            std::thread::sleep(Duration::from_millis(200));
        }
        "scattered" => read(4000, 1),
        "again" => read(500, 6),
        "fresh" => (0..8).for_each(|_| touch_fresh(10_000)),
        "copies" => copies(),
        "served" => {
            let memory = uffd::slow(30, Duration::from_millis(10));
            (0..memory.len()).step_by(PAGE).for_each(|at| {
                look(&memory, at);
            });
        }
        name => panic!("no program {name}"),
    }
}

/// Writes to memory that a child shares, again and again.
fn copies() {
    let memory = map(2000 * PAGE, 0);
    touch(&memory);
    for _ in 0..20 {
        let (mut ended, end) = std::io::pipe().unwrap();
        // SAFETY: this process has one thread at this point.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(end);
            let _ = std::io::Read::read(&mut ended, &mut [0]);
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
        touch(&memory);
        drop(end);
        // SAFETY: a child of this process, and no status is asked for.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}

/// A file that can be cold; the test makes it, so that nobody sees the faults of that.
fn file() -> std::fs::File {
    cold_file("explained", PAGES)
}

const PAGES: usize = 16 << 10;

/// Reads pages of the cold file, far from each other, and all of that a number of times; it is cold again each time.
fn read(pages: usize, times: usize) {
    for _ in 0..times {
        let file = file();
        let memory = map_of(PAGES * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
        // SAFETY: the mapping is ours.
        unsafe { libc::madvise(memory.0.cast(), memory.len(), libc::MADV_RANDOM) };
        for n in 0..pages {
            look(&memory, n * 40_503 % PAGES * PAGE);
        }
    }
}

/// Each program has the finding that it gives a reason for, and no other.
pub fn each_rule_on_its_program(_: &'static str) {
    file();
    for (name, rules) in PROGRAMS {
        let mut words = fixture("explain");
        words.push((*name).into());
        let said = Said::by(trapline().args(["explain", "--format", "jsonl", "--"]).args(&words));
        let found: Vec<&str> = said.totals.iter().map(|total| total["rule"].as_str().unwrap()).collect();
        assert_eq!(found, *rules, "{name}: {:#?}", said.totals);
        assert_eq!(u(&said.end["findings"]), rules.len() as u64);
        assert_eq!(said.end["not_judged"], Value::Null, "{}", said.end);
        for total in &said.totals {
            let text = total["finding"].as_str().unwrap();
            assert!(text.contains(&format!("({})", u(&total["pid"]))), "{total}");
            assert!(u(&total["cost_ns"]) >= 10_000_000 && u(&total["count"]) > 0, "{total}");
        }
    }
}

/// A recording says what the live run says; what people read has the same sentences.
pub fn a_recording_is_explained(_: &'static str) {
    let recording = scratch().join("explained.trapline");
    let _ = std::fs::remove_dir_all(&recording);
    let mut record = trapline();
    record.args(["faults", "-v", "--split", "-o"]).arg(&recording).arg("--");
    let status = record.args(fixture("explain")).arg("served").output().unwrap().status;
    assert!(status.success());
    let explained = |format: &str| {
        let output = trapline().args(["explain", "--format", format]).arg(&recording).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = Said::parse(explained("jsonl").as_bytes(), "");
    assert_eq!(said.totals.len(), 1, "{:#?}", said.totals);
    let text = explained("table");
    for part in ["finding", "evidence", "advice"] {
        assert!(text.contains(said.totals[0][part].as_str().unwrap()), "{text}");
    }
    assert!(text.starts_with("1. "), "{text}");
}
