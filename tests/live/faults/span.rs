//! Spans: how much of each call was page faults, compared with what the kernel told the caller itself.
//!
//! `span/program.c` is the caller.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::run::{
    Beside, Said, Source, all_or_first, as_nobody, faults, fixture, in_full, missed, one_line, runs, scratch,
    trapline, u,
};
use crate::running::Worker;

pub const PROGRAM: Source = Source {
    compiler: "gcc",
    file: "faults/span/program.c",
    options: &["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-Wl,-z,now"],
};

/// clang is needed to build trapline, so it is there; what it links needs no C++ library.
pub const BLOCK: Source = Source {
    compiler: "clang-19",
    file: "faults/span/block.cc",
    options: &["-O1", "-Wall", "-Wextra", "-Werror"],
};

fn program() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| PROGRAM.program().to_str().unwrap().to_owned())
}

fn command(variant: &str, spans: &[String], options: &[&str], words: &[&str]) -> Command {
    let mut command = faults(variant, options);
    spans.iter().for_each(|span| {
        command.args(["--span", span]);
    });
    command.arg("--").args(words);
    // After a fork the kernel's next write to a thread's rseq area is a fault, whenever a preemption makes it write: now
    // within a span, now between its end and our look at getrusage.
    command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
    command
}

/// Runs the program with spans on these functions.
fn run(variant: &str, functions: &[&str], words: &[&str]) -> Said {
    let spans: Vec<String> = functions.iter().map(|function| format!("{}:{function}", program())).collect();
    Said::by(&mut command(variant, &spans, &[], &[&[program()], words].concat()))
}

fn total<'a>(said: &'a Said, function: &str) -> &'a Value {
    let is = |total: &&Value| total["span"].as_str().unwrap().ends_with(&format!(":{function}"));
    said.totals.iter().find(is).unwrap_or_else(|| panic!("no {function} in {:?}", said.totals))
}

/// Each span's row equals what the caller was told by the kernel.
fn assert_truth(said: &Said) {
    assert!(!said.truth.is_empty());
    for truth in &said.truth {
        let total = total(said, truth["span"].as_str().unwrap());
        let each = (u(&truth["major"]) + u(&truth["minor"])).div_ceil(u(&truth["calls"])) + 1;
        for (figure, each) in [("calls", 1), ("major", each), ("minor", each)] {
            let is_right = said.is_but_for_missed(u(&total[figure]), u(&truth[figure]), each);
            assert!(is_right, "{figure} of {truth} in {total}, {}", said.end);
        }
        let (faults, calls) = (u(&total["major"]) + u(&total["minor"]), u(&total["calls"]));
        assert_eq!(u(&total["faults_per_1000_calls"]), (faults * 1000 + calls / 2) / calls, "{total}");
    }
    assert_lost(said, &[]);
}

/// Nothing was passed over but this.
fn assert_lost(said: &Said, but: &[(&str, u64)]) {
    for name in [
        "unfinished_calls",
        "unmatched_returns",
        "open_calls",
        "too_deep_calls",
        "untracked_calls",
        "lost_events",
    ] {
        let expected = but.iter().find(|(of, _)| *of == name).map_or(0, |&(_, n)| n);
        // A call whose begin or return was skipped is one of these.
        let told = u(&said.end[name]);
        let missed = missed(&said.end);
        assert!((expected..=expected + missed).contains(&told), "{name} in {}", said.end);
    }
}

/// Calls of one function, of one in another, of both in many threads, and of one that ends in another.
pub fn calls_and_faults_are_exact(variant: &'static str) {
    for _ in 0..runs().div_ceil(20) {
        let said = run(variant, &["work", "outer", "tail_first", "tail_last"], &["calls"]);
        assert_eq!(said.truth.len(), 4);
        assert_truth(&said);
    }
}

pub fn recursion(variant: &'static str) {
    assert_truth(&run(variant, &["recurse"], &["recursive", "64"]));
    // The kernel waits for the returns of 64 calls of a thread; those beyond are told.
    let said = run(variant, &["recurse"], &["recursive", "100"]);
    assert_eq!(
        (u(&total(&said, "recurse")["calls"]), &total(&said, "recurse")["minor"]),
        (64, &said.truth[0]["minor"])
    );
    assert_lost(&said, &[("too_deep_calls", 36)]);
}

/// A cold file: every call waits for the disk once, and is told to have done little else.
pub fn times(variant: &'static str) {
    let file = scratch().join("span-cold");
    std::fs::write(&file, vec![7; 64 * 4096]).unwrap();
    let said = run(variant, &["reads"], &["cold", "64", file.to_str().unwrap()]);
    assert_truth(&said);
    let total = total(&said, "reads");
    assert_eq!(u(&total["major"]), 64, "{total}");
    let [stall, major, avg, max, min, p50, p99] =
        ["total_ns", "major_ns", "avg_ns", "max_ns", "min_ns", "p50_ns", "p99_ns"]
            .map(|name| u(&total[name]));
    let [span, span_avg, span_p50, span_p99, span_max] =
        ["span_ns", "span_avg_ns", "span_p50_ns", "span_p99_ns", "span_max_ns"].map(|name| u(&total[name]));
    assert_eq!((avg, span_avg), (stall / 64, span / 64), "{total}");
    assert!(0 < min && min <= p50 && p50 <= p99 && p99 <= max && max <= stall, "{total}");
    assert!(major <= stall && stall <= span && max <= span_max && span_p50 <= span_p99, "{total}");
    assert_eq!(u(&total["stall_ppm"]), (stall * 1_000_000 + span / 2) / span, "{total}");
    // There is nothing in the function but the read.
    assert!(major * 2 > stall, "{total}");
    if !in_full() {
        return;
    }
    // What is not timed is not known, and counts are none the worse for it.
    let off = faults(variant, &["--minor-latency", "off", "--span", &format!("{}:work", program()), "--"])
        .args([program(), "plain", "20"])
        .output()
        .unwrap();
    let off = Said::of(&off);
    assert_truth(&off);
    assert!(off.totals[0]["total_ns"].is_null() && off.totals[0]["p50_ns"].is_null());
    assert_eq!(off.totals[0]["major_ns"], 0);
}

/// Calls that are left: by longjmp from several depths, by the end of the thread, by exec; and the return of a call that
/// only the parent of a fork has begun.
pub fn returns_that_never_come(variant: &'static str) {
    let said = run(variant, &["jumps", "jumps_from_below"], &["jumping", "40"]);
    let (jumps, below) = (total(&said, "jumps"), total(&said, "jumps_from_below"));
    assert_eq!((&jumps["calls"], &jumps["minor"]), (&said.truth[0]["calls"], &said.truth[0]["minor"]));
    assert_eq!((u(&jumps["calls"]), u(&jumps["unfinished_calls"])), (20, 20), "{jumps}");
    assert_eq!((u(&below["calls"]), u(&below["unfinished_calls"])), (0, 10), "{below}");
    assert_lost(&said, &[("unfinished_calls", 30)]);

    let said = run(variant, &["ends"], &["endings", "10"]);
    assert_eq!((u(&said.totals[0]["calls"]), u(&said.totals[0]["unfinished_calls"])), (0, 10));
    assert_lost(&said, &[("unfinished_calls", 10)]);

    let said = run(variant, &["execs", "work"], &["exec"]);
    assert_eq!((u(&total(&said, "execs")["unfinished_calls"]), u(&total(&said, "work")["calls"])), (1, 5));
    assert_lost(&said, &[("unfinished_calls", 1)]);

    let said = run(variant, &["forks"], &["forking"]);
    let [around, inside] = [0, 1].map(|at| u(&said.truth[at]["minor"]));
    assert_eq!(u(&said.totals[0]["calls"]), 1);
    assert!(inside >= 3 && (inside..=around).contains(&u(&said.totals[0]["minor"])), "{said:?}");
    assert_lost(&said, &[("unmatched_returns", 1)]);
}

/// The header's marks in C and C++, and the crate's in Rust: within each other, and left before their end.
pub fn marks(variant: &'static str) {
    let span = format!("usdt:{}:trapline:marked", program());
    let said = Said::by(&mut command(variant, &[span], &[], &[program(), "marking", "50"]));
    let row = total(&said, "marked");
    for figure in ["calls", "major", "minor"] {
        assert_eq!(row[figure], said.truth[0][figure], "{figure} in {row}");
    }
    assert_eq!(u(&row["unfinished_calls"]), 10, "{row}");
    assert_lost(&said, &[("unfinished_calls", 10)]);

    let block = BLOCK.program();
    let block = block.to_str().unwrap();
    let spans = ["block", "get"].map(|name| format!("usdt:{block}:trapline:{name}"));
    let said = Said::by(&mut command(variant, &spans, &[], &[block]));
    assert_eq!((u(&total(&said, "block")["calls"]), u(&total(&said, "get")["calls"])), (30, 20));
    assert_lost(&said, &[]);

    let own = fixture("span");
    let span = |name: &str| format!("usdt:{}:trapline:{name}", own[0]);
    let words: Vec<&str> = own.iter().map(String::as_str).collect();
    let said = Said::by(&mut command(variant, &[span("live_block"), span("live_pair")], &[], &words));
    assert_truth(&said);
}

/// Names as Rust and the linker write them, whole and in part.
pub fn names(variant: &'static str) {
    let own = fixture("span");
    let words: Vec<&str> = own.iter().map(String::as_str).collect();
    for name in all_or_first(["Store::query", concat!(module_path!(), "::store::Store::query")]) {
        let said = Said::by(&mut command(variant, &[format!("{}:{name}", own[0])], &[], &words));
        assert_eq!(u(&said.totals[0]["calls"]), 12, "{name}");
    }
    // A library that the program uses, and a program in PATH.
    let said =
        Said::by(&mut command(variant, &["libc.so.6:getrusage".into()], &[], &[program(), "plain", "5"]));
    assert_eq!(u(&said.totals[0]["calls"]), 11, "{:?}", said.totals);
    if !in_full() {
        return;
    }
    let span = format!("{}:work", program());
    let said = Said::by(&mut command(variant, &[span], &["--by", "span"], &[program(), "plain", "5"]));
    assert_eq!(u(&said.totals[0]["calls"]), 5);
}

/// A process that runs already: by its id, its library by the beginning of its name, interval by interval.
pub fn a_running_process(variant: &'static str) {
    let mut worker = Worker::start(&fixture("on-demand"));
    worker.touch(3);
    let pid = worker.id().to_string();
    // A bystander that calls the same function is not meant.
    let mut trapline = Beside::start(faults(variant, &["-p", &pid, "--span", "libc:getrusage", "-i", "200"]));
    for _ in 0..3 {
        for _ in 0..7 {
            worker.touch(2);
            Command::new(program()).args(["plain", "3"]).output().unwrap();
        }
        // What comes next is in another interval.
        while trapline.next()["type"] != "row" {}
    }
    let said = trapline.interrupt();
    assert_eq!(u(&said.totals[0]["calls"]), 21, "{:?}", said.totals);
    let shown: u64 = said.rows.iter().map(|row| u(&row["calls"])).sum();
    assert_eq!(shown, 21);
    assert!(said.rows.len() >= 2 && said.rows.iter().all(|row| row["span"] == "libc:getrusage"));
}

fn refused(output: &Output, holds: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.starts_with("trapline: ") && error.trim_end().lines().count() == 1, "{error}");
    assert!(error.contains(holds), "{error}");
}

pub fn what_cannot_be_is_said(_: &'static str) {
    let try_it = |span: String, holds: &str| {
        refused(&command("auto", &[span], &[], &["true"]).output().unwrap(), holds);
    };
    try_it(format!("{}:wrok", program()), "similar names: `work`");
    if !in_full() {
        return;
    }
    let stripped = format!("{}-stripped", program());
    let strip = Command::new("strip").args(["-o", &stripped, program()]).status();
    assert!(strip.unwrap().success());
    let own = fixture("span").swap_remove(0);
    let wrong = [
        (format!("{stripped}:work"), "it is stripped"),
        (format!("{own}:Twin::query"), "2 functions"),
        (format!("usdt:{}:trapline:market", program()), "it has `trapline:marked`"),
        ("usdt:/bin/true:a:b".into(), "has no USDT probes"),
        ("/nowhere:f".into(), "no such file"),
        ("/etc/passwd:f".into(), "it is not an ELF file"),
        (format!("{}:0x0", program()), "no code at 0x0"),
        ("work".into(), "is not a span"),
    ];
    for (span, holds) in wrong {
        try_it(span, holds);
    }
    let twice = format!("{}:work", program());
    refused(&command("auto", &[twice.clone(), twice], &[], &["true"]).output().unwrap(), "the same function");
    for options in [
        &["--by", "span"][..],
        &["--by", "thread", "--span", "a:b"],
        &["--span", "a:b", "--minor-latency", "1:2"],
    ] {
        assert_eq!(faults("auto", options).output().unwrap().status.code(), Some(2), "{options:?}");
    }
    // Where the symbols are gone, an address does.
    let nm = Command::new("nm").arg(program()).output().unwrap();
    let nm = String::from_utf8(nm.stdout).unwrap();
    let address = nm.lines().find_map(|line| line.strip_suffix(" T work")).unwrap().trim_start_matches('0');
    let span = format!("{stripped}:0x{address}");
    let said = Said::by(&mut command("auto", &[span], &[], &[&stripped, "plain", "9"]));
    assert_eq!(u(&said.totals[0]["calls"]), 9);
}

/// Functions of names that are alike.
mod store {
    use super::touch;

    pub struct Store;
    pub struct Twin<T>(pub T);

    impl Store {
        #[inline(never)]
        pub fn query(&self, pages: usize) {
            touch(pages);
        }
    }

    impl Twin<u8> {
        #[inline(never)]
        pub fn query(&self) {
            touch(self.0.into());
        }
    }

    impl Twin<u16> {
        #[inline(never)]
        pub fn query(&self) {
            touch(self.0.into());
        }
    }
}

fn touch(pages: usize) {
    crate::fixture::touch_fresh(pages);
}

/// Calls and marks whose number is known; tells what the kernel counted around the marks.
pub fn work() {
    let (mut block, mut pair) = ((0, 0), (0, 0));
    crate::fixture::stay_resident();
    for pages in 0..12 {
        store::Store.query(pages % 3);
        store::Twin(1_u8).query();
        store::Twin(1_u16).query();
        let measured = |sums: &mut (i64, i64), work: &dyn Fn()| {
            let before = crate::fixture::thread_faults();
            work();
            let after = crate::fixture::thread_faults();
            *sums = (sums.0 + after.0 - before.0, sums.1 + after.1 - before.1);
        };
        measured(&mut block, &|| {
            trapline_mark::span!("live_block");
            touch(pages);
        });
        measured(&mut pair, &|| {
            trapline_mark::begin!("live_pair");
            touch(1);
            trapline_mark::end!("live_pair");
        });
    }
    for (span, (major, minor)) in [("live_block", block), ("live_pair", pair)] {
        println!(r#"{{"type":"truth","span":"{span}","calls":12,"major":{major},"minor":{minor}}}"#);
    }
}

/// What another user puts under the name of a program: refused at once, if it is no file of a fair size; and links in a root
/// directory of that user's lead nowhere out of it.
pub fn files_of_another_user(_: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let by_nobody = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-e", "-c", script]).current_dir(directory.path());
        let output = as_nobody(&mut command);
        assert!(output.status.success(), "{output:?}");
    };
    by_nobody("mkfifo fifo; ln -s /dev/ptmx device; ln -s fifo link; truncate -s 5G vast; mkdir folder");
    let span = |name: &str, more: &[&str]| {
        let path = directory.path().join(name);
        let path = if more.is_empty() { path.to_str().unwrap() } else { name };
        trapline()
            .args(["faults", "-d", "1ms", "--span", &format!("{path}:main")])
            .args(more)
            .output()
            .unwrap()
    };
    for name in ["fifo", "device", "link", "folder"] {
        one_line(&span(name, &[]), 2, "it is not a regular file");
    }
    one_line(&span("vast", &[]), 2, "it is larger than 4 GiB");
    // Another root directory: a link to a program of ours is one to what the same path leads to in there.
    let root = directory.path().join("root");
    by_nobody("mkdir root root/bin; ln -s /bin/inside root/app; ln -s ../../../../bin/true root/other");
    compile_waiting(&root.join("bin/waiting"));
    let mut inside = Command::new("chroot");
    inside.args(["--userspec=65534:65534", root.to_str().unwrap(), "/bin/waiting"]);
    let mut inside = Worker::by(&mut inside);
    assert_eq!(inside.line(), "ready");
    let pid = inside.id().to_string();
    for name in ["/app", "/other"] {
        one_line(&span(name, &["-p", &pid]), 2, "no such file");
    }
    inside.end();
}

/// A program that needs nothing else: it says that it is there, and waits for the end of its input.
fn compile_waiting(program: &Path) {
    let source = program.with_extension("c");
    let text =
        "#include <stdio.h>\nint main(void) { puts(\"ready\"); fflush(stdout); while (getchar() != EOF); }\n";
    std::fs::write(&source, text).unwrap();
    let made = Command::new("cc").args(["-static", "-o"]).args([program, &source]).status().unwrap();
    assert!(made.success());
}
