//! `trapline sgx` beside the stand-in for a driver, whose counts it must equal exactly.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::run::{Beside, Said, lines, spawn, trapline, u};
use crate::sgx_driver::{Counts, Double, PAGE, device, touching, unload};

/// `trapline sgx` on a variant, as JSON lines.
fn sgx(variant: &str, arguments: &[&str]) -> Command {
    let mut command = trapline();
    command.args(["sgx", "--module", "sgx_double", "--format", "jsonl"]);
    if variant != "auto" {
        command.args(["--variant", variant]);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Whether this kernel cannot attach `fentry` to a module's function, because its own driver has one of that name: up
/// to 6.3 it takes that. Then this must be said, and the other variants are used.
fn is_refused(variant: &str) -> bool {
    if variant != "fentry" {
        return false;
    }
    let output = sgx(variant, &["-d", "100ms"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let refused = error.contains("the kernel attached it to another function of that name");
    assert_eq!(output.status.code(), Some(if refused { 3 } else { 0 }), "{error}");
    if refused {
        println!("fentry is refused: {error}");
        let auto = sgx("auto", &["-d", "100ms"]).output().unwrap();
        assert_eq!(lines(&auto.stdout)[0]["variant"], "kprobe");
    }
    refused
}

/// What the module counts, by the names of our fields.
const SAME: &[&str] =
    &["faults", "pages", "loads", "evictions", "added", "mapped", "busy", "secs_loads", "secs_evictions"];

fn assert_same(row: &Value, counted: &Counts, but: &[&str]) {
    for &name in SAME.iter().filter(|name| !but.contains(name)) {
        if row[name].is_null() {
            assert!(name == "added" && counted[name] == 0, "{name} is not known: {row}");
            continue;
        }
        assert_eq!(u(&row[name]), counted[name], "{name}: {row} for {counted:?}");
    }
    if !row["evicted_by_daemon"].is_null() {
        assert_eq!(u(&row["evicted_by_daemon"]), counted["by_daemon"], "{row} for {counted:?}");
    }
    assert_eq!(row["unaccounted"], 0);
    assert_eq!(row["failed"], 0);
}

fn assert_nothing_lost(said: &Said) {
    for loss in ["lost", "missed", "untracked", "unpaired", "unmarked", "unended", "folded"] {
        assert_eq!(said.end[loss], 0, "{loss}: {}", said.end);
    }
}

/// Whether it saw everything, as it must, but for one case: where the kernel preempts itself, it may leave programs of
/// `fentry` out. Then what it says of that must add up.
fn is_complete(variant: &str, said: &Said, double: &Double) -> bool {
    let mode = std::fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap();
    let preempts = mode.contains("(full)") || mode.contains("(lazy)");
    let [faults, others] = ["missed_faults", "missed"].map(|name| u(&said.end[name]));
    if variant != "fentry" || !preempts || faults + others == 0 {
        assert_nothing_lost(said);
        return true;
    }
    let counted = double.counts()["faults"];
    println!("fentry, preempted: {faults} faults of {counted} and {others} other events missed");
    assert_eq!(said.end["lost"], faults);
    let seen: u64 = said.totals.iter().map(|row| u(&row["faults"])).sum();
    assert_eq!(seen + faults, counted, "{}", said.end);
    false
}

/// Runs a fixture under it; checks the row of all against all counts, and gives what was said.
fn one(variant: &'static str, double: &Double, options: &[&str], words: &[String]) -> Said {
    let said = Said::by(sgx(variant, options).arg("--").args(words));
    if is_complete(variant, &said, double) {
        assert_same(&said.totals[0], &double.counts(), &[]);
    }
    assert_eq!(said.totals.len(), 1, "{:?}", said.totals);
    said
}

pub fn one_enclave(variant: &'static str) {
    let double = Double::load(200);
    if is_refused(variant) {
        return;
    }
    let words = touching(variant, &[("pages", 900), ("rounds", 3)]);
    let said = one(variant, &double, &["--by", "enclave"], &words);
    let row = &said.totals[0];
    let truth = &said.truth[0];
    for name in ["pid", "base", "size"] {
        assert_eq!(row[name], truth[name], "{row}");
    }
    assert_eq!((u(&row["pages"]), u(&row["loads"])), (900, 2700));
    assert_eq!(u(&row["bytes"]), 900 * PAGE as u64);
    assert_eq!(u(&row["brought_bytes"]), 2700 * PAGE as u64);
    // Each page is loaded once fresh and twice after it was evicted, all in one interval.
    assert_eq!((u(&row["refaults"]), u(&row["refault_percent"])), (1800, 66));
    assert_eq!(u(&row["timed"]), 2700);
    assert!(u(&row["p50_ns"]) <= u(&row["p99_ns"]) && u(&row["p99_ns"]) <= u(&row["max_ns"]), "{row}");
    assert!(u(&row["max_ns"]) <= u(&row["load_ns"]) && u(&row["load_ns"]) <= u(&said.end["duration_ns"]));
    assert_eq!(said.header["module"], "sgx_double");
}

pub fn one_that_grows(variant: &'static str) {
    let double = Double::load(200);
    if is_refused(variant) {
        return;
    }
    let words = touching(variant, &[("pages", 900), ("rounds", 2), ("grows", 1)]);
    let said = one(variant, &double, &[], &words);
    assert_eq!((u(&said.totals[0]["added"]), u(&said.totals[0]["loads"])), (900, 900));
    assert_eq!(u(&said.totals[0]["brought_bytes"]), 1800 * PAGE as u64);
}

pub fn three_at_once_at_the_same_addresses(variant: &'static str) {
    let double = Double::load(300);
    if is_refused(variant) {
        return;
    }
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    let at = 0x7000_0000_0000;
    let start = |pages: usize| spawn(&touching(variant, &[("pages", pages), ("at", at), ("rounds", 2)]));
    let children: Vec<Child> = [400, 700, 1000].into_iter().map(start).collect();
    let mut truths = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        truths.extend(lines(&output.stdout));
    }
    let said = trapline.interrupt();
    if !is_complete(variant, &said, &double) {
        return;
    }
    assert_eq!((said.totals.len(), truths.len()), (3, 3), "{:?}", said.totals);
    for truth in &truths {
        let row = said.totals.iter().find(|row| row["pid"] == truth["pid"]).unwrap();
        assert_eq!(u(&row["base"]), at as u64);
        // Evictions may go on until the enclave is gone, after it told its counts.
        for name in ["faults", "pages", "loads", "size"] {
            assert_eq!(row[name], truth[name], "{name}: {row} for {truth}");
        }
    }
    let all = double.counts();
    for name in SAME {
        let sum: u64 = said.totals.iter().map(|row| row[name].as_u64().unwrap_or(0)).sum();
        assert_eq!(sum, all[*name], "{name}");
    }
    assert_eq!(all["pages"], 2100);
}

pub fn far_apart_in_32_gb(variant: &'static str) {
    let double = Double::load(300);
    if is_refused(variant) {
        return;
    }
    let pages = 32 << 18;
    let words = touching(variant, &[("pages", pages), ("stride", 4099), ("rounds", 2)]);
    let said = one(variant, &double, &[], &words);
    assert_eq!(u(&said.totals[0]["pages"]), pages.div_ceil(4099) as u64);
}

pub fn threads_on_all_processors(variant: &'static str) {
    let double = Double::load(300);
    if is_refused(variant) {
        return;
    }
    let threads = std::thread::available_parallelism().unwrap().get() * 4;
    let words = touching(variant, &[("pages", 2000), ("threads", threads), ("rounds", 3)]);
    one(variant, &double, &[], &words);
}

pub fn one_that_dies(variant: &'static str) {
    let double = Double::load(100);
    if is_refused(variant) {
        return;
    }
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    for _ in 0..3 {
        let before = double.counts()["loads"];
        let mut child = spawn(&touching(variant, &[("pages", 500), ("rounds", 100_000)]));
        while double.counts()["loads"] < before + 1000 {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(100));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let said = trapline.interrupt();
    if !is_complete(variant, &said, &double) {
        return;
    }
    assert_eq!(said.totals.len(), 3, "one for each: {:?}", said.totals);
    let all = double.counts();
    for name in SAME {
        let sum: u64 = said.totals.iter().map(|row| row[name].as_u64().unwrap_or(0)).sum();
        assert_eq!(sum, all[*name], "{name}");
    }
}

/// A driver's structure is used again for the next enclave: it is another enclave all the same.
pub fn one_after_the_other(variant: &'static str) {
    let double = Double::load(300);
    if is_refused(variant) {
        return;
    }
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    for _ in 0..5 {
        assert!(spawn(&touching(variant, &[("pages", 50)])).wait().unwrap().success());
    }
    let said = trapline.interrupt();
    assert_eq!(said.totals.len(), 5, "{:?}", said.totals);
    assert!(said.totals.iter().all(|row| row["pages"] == 50), "{:?}", said.totals);
    assert_eq!(double.counts()["pages"], 250);
}

pub fn a_guests_memory(variant: &'static str) {
    let double = Double::load(300);
    if is_refused(variant) {
        return;
    }
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    let mut words = touching(variant, &[("pages", 120)]);
    let at = words.iter().position(|word| word == device(variant)).unwrap();
    words[at] = "/dev/sgx_double_vepc".into();
    assert!(spawn(&words).wait().unwrap().success());
    let said = trapline.interrupt();
    assert_eq!(said.totals.len(), 1, "{:?}", said.totals);
    let row = &said.totals[0];
    assert_eq!((row["class"].as_str(), u(&row["size"])), (Some("guest"), 120 * PAGE as u64));
    assert_same(row, &double.counts(), &[]);
    assert_eq!((u(&row["added"]), u(&row["evictions"])), (120, 0));
}

/// An enclave that touches what it is asked to.
struct Asked {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Asked {
    fn start(variant: &str, pages: usize) -> Self {
        let mut child = spawn(&touching(variant, &[("pages", pages), ("asked", 1)]));
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn touch(&mut self, first: usize, count: usize) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{first} {count}").unwrap();
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

pub fn who_evicted(variant: &'static str) {
    let double = Double::load(1000);
    if is_refused(variant) {
        return;
    }
    let trapline = Beside::start(sgx(variant, &["-c"]));
    let mut enclave = Asked::start(variant, 400);
    enclave.touch(0, 320);
    double.evict(5);
    enclave.touch(0, 320);
    enclave.end();
    let said = trapline.interrupt();
    let row = &said.totals[0];
    assert_same(row, &double.counts(), &[]);
    assert_eq!((u(&row["evicted_by_tasks"]), u(&row["evicted_by_daemon"])), (80, 0));
    assert_eq!((u(&row["refaults"]), u(&row["loads"])), (80, 400));
}

pub fn clearing_and_not(variant: &'static str) {
    for cumulative in [false, true] {
        let double = Double::load(1000);
        if is_refused(variant) {
            return;
        }
        let options: &[&str] = if cumulative { &["-i", "500ms", "-c"] } else { &["-i", "500ms"] };
        let trapline = Beside::start(sgx(variant, options));
        let mut enclave = Asked::start(variant, 400);
        enclave.touch(0, 200);
        std::thread::sleep(Duration::from_millis(1500));
        // Evicted without a fault in this interval, then brought back: by those alone that were evicted.
        double.evict(4);
        enclave.touch(0, 200);
        std::thread::sleep(Duration::from_millis(1500));
        enclave.touch(100, 200);
        enclave.end();
        let said = trapline.interrupt();
        let counted = double.counts();
        assert_eq!((counted["pages"], counted["faults"], counted["loads"]), (300, 364, 364));
        let row = &said.totals[0];
        assert_eq!((u(&row["faults"]), u(&row["loads"]), u(&row["evictions"])), (364, 364, 64));
        assert_eq!(u(&row["refaults"]), 64, "{row}");
        assert!(said.rows.len() >= 6, "{} rows", said.rows.len());
        let pages = |row: &Value| u(&row["pages"]);
        if cumulative {
            assert_eq!((pages(row), pages(said.rows.last().unwrap())), (300, 300));
            assert!(said.rows.iter().map(pages).is_sorted());
        } else {
            // 200, then the 64 that were evicted, then 100 that were not there yet.
            assert_eq!(said.rows.iter().map(pages).sum::<u64>(), 364);
            assert_eq!(said.rows.iter().map(|row| u(&row["faults"])).sum::<u64>(), 364);
            assert!(row["pages"].is_null(), "distinct in each interval is not distinct over all: {row}");
        }
        let idle = said.rows.iter().filter(|row| row["faults"] == 0).count();
        assert!(cumulative || idle >= 1, "an interval in which nothing happens has its row too");
    }
}

pub fn groups_and_filters(variant: &'static str) {
    let _double = Double::load(1000);
    if is_refused(variant) {
        return;
    }
    let mut enclaves = [Asked::start(variant, 100), Asked::start(variant, 100)];
    let pids = enclaves.each_ref().map(|enclave| enclave.child.id().to_string());
    for group in ["process", "cgroup"] {
        let trapline = Beside::start(sgx(variant, &["--by", group, "-c"]));
        let fresh = if group == "process" { 0 } else { 30 };
        enclaves.iter_mut().for_each(|enclave| enclave.touch(fresh, 30));
        let said = trapline.interrupt();
        let faults: Vec<_> = said.totals.iter().map(|row| u(&row["faults"])).collect();
        if group == "process" {
            assert_eq!(faults, [30, 30]);
        } else {
            assert_eq!(faults, [60]);
            assert!(said.totals[0]["cgroup"].as_str().unwrap().starts_with('/'), "{:?}", said.totals);
        }
    }
    let trapline = Beside::start(sgx(variant, &["-p", &pids[1], "--by", "process", "-c"]));
    enclaves.iter_mut().for_each(|enclave| enclave.touch(60, 40));
    enclaves.into_iter().for_each(Asked::end);
    let said = trapline.wait();
    assert_eq!(said.totals.len(), 1, "{:?}", said.totals);
    assert_eq!((u(&said.totals[0]["faults"]), said.totals[0]["pid"].to_string()), (40, pids[1].clone()));
}

/// What the budget cannot hold is counted as such, and nothing else suffers.
pub fn little_memory(variant: &'static str) {
    let double = Double::load(3000);
    if is_refused(variant) {
        return;
    }
    let stride = 7552;
    let words = touching(variant, &[("pages", 2000 * stride), ("stride", stride)]);
    let said = Said::by(sgx(variant, &["--memory", "1"]).arg("--").args(&words));
    let (row, counted) = (&said.totals[0], double.counts());
    assert_eq!((u(&row["faults"]), u(&row["loads"])), (counted["faults"], counted["loads"]));
    assert_eq!((u(&row["pages"]), u(&row["unaccounted"])), (992, 2000 - 992), "{row}");
    assert_eq!(said.header["memory_mb"], 1);
}

pub fn a_storm(variant: &'static str) {
    let double = Double::load(512);
    if is_refused(variant) {
        return;
    }
    let threads = std::thread::available_parallelism().unwrap().get() * 2;
    let words = touching(variant, &[("pages", 3000), ("threads", threads), ("rounds", 4)]);
    let said = one(variant, &double, &[], &words);
    let row = &said.totals[0];
    let seconds = u(&said.end["duration_ns"]) as f64 / 1e9;
    println!("{variant}: {:.0} faults a second for {seconds:.1} s", u(&row["faults"]) as f64 / seconds);
    assert!(u(&row["loads"]) + u(&said.end["missed"]) >= 12_000, "{row}");
}

pub fn the_form_for_people(_: &'static str) {
    let _double = Double::load(200);
    let words = touching("auto", &[("pages", 500)]);
    let table = |options: &[&str]| {
        let output = trapline().arg("sgx").args(options).arg("--").args(&words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = table(&["-i", "1", "--hist"]);
    let heading = text.lines().find(|line| line.contains("PAGES")).unwrap();
    assert!(heading.starts_with('[') && heading.as_bytes()[9] == b']', "{heading}");
    let five = &heading[11..];
    assert!(
        five.starts_with("PAGES        SIZE (MB)    UNACCOUNTED  FAULTS       BANDWIDTH (MB)"),
        "{heading}"
    );
    assert!(text.lines().next().unwrap().contains("memory mb 16"), "{text}");
    assert!(text.contains("distribution") && text.contains("|****"), "{text}");
    assert!(table(&["--by", "enclave"]).contains("ENCLAVE"));
}

/// An enclave of 64 GB: one page in each chunk of marks makes all chunks, as touching all of its pages would.
pub fn sixty_four_gigabytes(_: &'static str) {
    let double = Double::load(3000);
    let trapline = Beside::start(sgx("auto", &["-c"]));
    let before = map_memory(trapline.pid());
    let words = touching("auto", &[("pages", 64 << 18), ("stride", 7000), ("rounds", 1)]);
    assert!(spawn(&words).wait().unwrap().success());
    let after = map_memory(trapline.pid());
    let said = trapline.interrupt();
    assert_eq!(u(&said.totals[0]["pages"]), double.counts()["pages"]);
    assert_eq!(said.totals[0]["unaccounted"], 0);
    println!("marks of 64 GB: {before} bytes before, {after} after");
    // Up to 6.4 the kernel says what a map could hold, not what it holds.
    if after != before {
        assert!(before < 600_000, "{before} bytes for nothing");
        assert!(after <= 3 << 20, "{after} bytes");
    }
}

/// Bytes of the map that holds the marks, as the kernel tells them.
fn map_memory(pid: u32) -> u64 {
    let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let texts: Vec<String> = infos.filter_map(|info| std::fs::read_to_string(info.path()).ok()).collect();
    let marks = texts.iter().find(|text| text.contains("value_size:\t944\n")).unwrap();
    let line = marks.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
    line.trim().parse().unwrap()
}

/// Without the stand-in: the probes attach to the kernel's own driver, and it is said that nothing will come of it.
pub fn the_kernels_own_functions(_: &'static str) {
    unload();
    let doctor = trapline().args(["doctor", "--format", "jsonl"]).output().unwrap();
    let said = lines(&doctor.stdout);
    for (variant, attaches) in [("fentry", "yes"), ("kprobe", "yes"), ("legacy", "no")] {
        let row = said.iter().find(|row| row["tool"] == "sgx" && row["variant"] == variant).unwrap();
        assert_eq!(row["attaches"], attaches, "{row}");
    }
    assert!(said[0]["sgx"].as_str().unwrap().starts_with("there is no SGX here: "), "{}", said[0]);
    let output = trapline().arg("sgx").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("trapline: there is no SGX here: ") && error.lines().count() == 1, "{error}");
    let output = trapline().args(["sgx", "--module", "sgx_double"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "it is not loaded");
}
