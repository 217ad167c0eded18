//! Findings: each rule on a program that does just that, and nothing on one that does nothing.

#![allow(unsafe_code)]

pub mod elsewhere;
pub mod limits;
pub mod real;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::faults::cause::{Setting, THP, lacks, uffd};
use crate::faults::time::{be_urgent, beside_forks};
use crate::fixture::{PAGE, cold_file, look, map, map_of, read_all, touch, touch_fresh};
use crate::run::{Place, Said, fixture, place, scratch, trapline, u};
use crate::running::Running;

/// What the programs are called by, and the rules that apply to them.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("idle", &[]),
    ("healthy", &[]),
    ("ordered", &["sequential-reads"]),
    ("scattered", &["random-reads"]),
    ("sparse", &[]),
    ("again", &["thrash"]),
    ("fresh", &["first-touch"]),
    ("huge", &["huge-page-clearing"]),
    ("shared", &["shared-memory"]),
    ("copies", &["copy-on-write"]),
    ("served", &["userfaultfd"]),
    ("notified", &["write-notify"]),
    ("beside-forks", &["lock-waits"]),
];

/// What some of them need.
const NEED: &[(&str, &str)] = &[("huge", "huge-page")];

/// A program that gives a rule a reason.
pub fn program(name: &str) {
    if name == "hinted" {
        // The scheduler hides no pages of threads that are urgent.
        return limits::hinted();
    }
    // Findings are about shares of the run: what it waits for is not to be a processor.
    be_urgent();
    match name {
        "idle" => {
            touch_fresh(50);
            std::thread::sleep(Duration::from_millis(200));
        }
        "healthy" => healthy(),
        "ordered" => {
            let (file, pages) = (long_file(), long_pages());
            read_all(&map_of(pages * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ));
        }
        "huge" => (0..8).for_each(|_| huge()),
        "shared" => (0..8).for_each(|_| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            touch(&map_of(10_000 * PAGE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, access));
        }),
        "swapped" => swapped(),
        "scattered" => read(4000, 1),
        "sparse" => sparse(),
        "again" => read(500, 6),
        "fresh" => (0..8).for_each(|_| touch_fresh(10_000)),
        "copies" => copies(),
        "served" => {
            let memory = uffd::slow(30, Duration::from_millis(10));
            (0..memory.len()).step_by(PAGE).for_each(|at| {
                look(&memory, at);
            });
        }
        "notified" => notified(),
        "reads-all" => real::reads_all(),
        "needs-2600-pages" => elsewhere::needs_pages(2600),
        "needs-1500-pages" => elsewhere::needs_pages(1500),
        "shares-pages" => elsewhere::shares_pages(),
        "again-in-order" => again_in_order(),
        "fresh-beside-a-file" => {
            read_all(&map_of(PAGES * PAGE, libc::MAP_SHARED, file().as_raw_fd(), libc::PROT_READ));
            (0..20).for_each(|_| touch_fresh(3000));
        }
        "much" => touch_fresh(4200),
        "beside-forks" => beside_forks(if place() == Place::Vm { 128 } else { 384 }),
        name => panic!("no program {name}"),
    }
}

/// Works on memory that it has, and forks now and then.
fn healthy() {
    let memory = map(2000 * PAGE, 0);
    touch(&memory);
    for _ in 0..3 {
        // SAFETY: this process has one thread, and the child does nothing but end.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(0);
            }
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        (0..50).for_each(|_| read_all(&memory));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Touches fresh memory that comes as huge pages.
fn huge() {
    const HUGE: usize = 2 << 20;
    let memory = map(32 * HUGE, 0);
    // SAFETY: the mapping is ours.
    unsafe { libc::madvise(memory.0.cast(), memory.len(), libc::MADV_HUGEPAGE) };
    let first = memory.0.addr().next_multiple_of(HUGE) - memory.0.addr();
    for at in (first..memory.len() - HUGE).step_by(HUGE) {
        // SAFETY: within the mapping, which is writable.
        unsafe { memory.0.add(at).write_volatile(1) };
    }
}

/// Reads memory of which less than all has space, so that the rest is in swap, again and again.
fn swapped() {
    let memory = map(5000 * PAGE, 0);
    touch(&memory);
    (0..3).for_each(|_| read_all(&memory));
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
            let _ = Read::read(&mut ended, &mut [0]);
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
        touch(&memory);
        drop(end);
        // SAFETY: a child of this process, and no status is asked for.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}

/// Writes pages of a shared file mapping that were read before; the file system is told of each.
fn notified() {
    let file = File::options().read(true).write(true).open(scratch().join("explained")).unwrap();
    std::io::copy(&mut (&file).take((4096 * PAGE) as u64), &mut std::io::sink()).unwrap();
    for _ in 0..16 {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let memory = map_of(4096 * PAGE, libc::MAP_SHARED, file.as_raw_fd(), access);
        read_all(&memory);
        touch(&memory);
    }
}

/// A file that can be cold; the test makes it, so that nobody sees the faults of that.
fn file() -> File {
    cold_file("explained", PAGES)
}

const PAGES: usize = 16 << 10;

/// Where readahead is megabytes, a file of 64 MB gives a handful of waits.
fn long_file() -> File {
    cold_file("explained-in-order", long_pages())
}

fn long_pages() -> usize {
    if place() == Place::Vm { PAGES } else { 3 * PAGES }
}

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

/// Reads pages of a file without blocks on the disk: each is a major fault, and none waits.
fn sparse() {
    const BYTES: usize = 1 << 30;
    let file = tempfile::tempfile_in(scratch()).unwrap();
    file.set_len(BYTES as u64).unwrap();
    let memory = map_of(BYTES, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
    for n in 0..4000 {
        look(&memory, n * 40_503 % (BYTES / PAGE) * PAGE);
    }
}

/// Reads a file from its beginning to its end, a page for each fault, and all of that again.
fn again_in_order() {
    let memory = map_of(PAGES * PAGE, libc::MAP_SHARED, file().as_raw_fd(), libc::PROT_READ);
    // SAFETY: the mapping is ours.
    unsafe { libc::madvise(memory.0.cast(), memory.len(), libc::MADV_RANDOM) };
    for _ in 0..2 {
        (0..PAGES).step_by(2).for_each(|n| {
            look(&memory, n * PAGE);
        });
    }
}

/// Each program has the finding that it gives a reason for, and no other.
pub fn each_rule_on_its_program(_: &'static str) {
    file();
    long_file();
    let _madvise = lacks("huge-page").is_none().then(|| Setting::change(THP, "madvise"));
    for (name, rules) in PROGRAMS {
        if let Some(why) = NEED.iter().find(|(of, _)| of == name).and_then(|(_, cause)| lacks(cause)) {
            print!("{name} is not there: {why} ");
            continue;
        }
        if *name == "huge" {
            // Huge pages are found without reclaim where free memory is not in pieces.
            std::fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
        }
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
            if *name == "copies" {
                let evidence = total["evidence"].as_str().unwrap();
                assert!(evidence.ends_with("; it forked 20 times"), "{total}");
            }
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

/// Without CAP_SYS_ADMIN the kernel hides page frames, so the walk through page tables is not found: no cause of a fault is known.
pub fn what_lacks_causes_is_not_judged(_: &'static str) {
    let by_causes = "swap-in, first-touch, huge-page-clearing, shared-memory, copy-on-write, numa-hints, userfaultfd, write-notify";
    let recording = scratch().join("no-causes.trapline");
    let _ = std::fs::remove_dir_all(&recording);
    let without = || {
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set",
            "-sys_admin",
            "--inh-caps",
            "-sys_admin",
            env!("CARGO_BIN_EXE_trapline"),
        ]);
        command
    };
    let said = Said::by(without().args(["explain", "--format", "jsonl", "--", "true"]));
    let mut record = without();
    record.args(["faults", "--split", "-o"]).arg(&recording).args(["--", "true"]);
    assert!(record.output().unwrap().status.success());
    let explain = |format: &str| {
        let output = trapline().args(["explain", "--format", format]).arg(&recording).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let recorded = Said::parse(explain("jsonl").as_bytes(), "");
    for said in [&said, &recorded] {
        assert_eq!(said.totals.len(), 0, "{:#?}", said.totals);
        assert!(u(&said.end["judged_events"]) > 0, "{}", said.end);
        assert_eq!(said.end["verdict"], "nothing stands out by the rules that could be judged");
        assert_eq!(said.end["not_judged"], by_causes);
        let why = "(the causes of faults could not be found: /proc/self/pagemap hides page frames: that needs CAP_SYS_ADMIN)";
        assert_eq!(said.end["not_judged_because"], format!("{by_causes} {why}"));
    }
    let text = explain("table");
    assert!(text.starts_with("nothing stands out by the rules that could be judged in "), "{text}");
    assert!(text.contains("\nnot judged: swap-in, first-touch"), "{text}");
    let page = scratch().join("no-causes.html");
    let mut report = trapline();
    assert!(report.arg("report").arg(&recording).arg("-o").arg(&page).output().unwrap().status.success());
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("Not judged: swap-in, first-touch") && page.contains("hides page frames"));
}

/// The demo shows each step and what stalled its threads, ends with the status of a step that fails, and leaves no file but the report.
pub fn the_demo(_: &'static str) {
    let (folder, pages) =
        (tempfile::tempdir_in(scratch()).unwrap(), tempfile::tempdir_in(scratch()).unwrap());
    let page = pages.path().join("report.html");
    let demo = |words: &[&str]| {
        let mut command = trapline();
        command.arg("demo").args(words).arg("--report").arg(&page).env("TMPDIR", folder.path());
        command
    };
    let left = || folder.path().read_dir().unwrap().count();
    let output = demo(&["--size", "64", "--threads", "2"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && left() == 0, "{output:?}");
    assert_eq!(text.matches("$ trapline ").count(), 4, "{text}");
    assert!(text.contains("data.bin at scattered offsets and waits for the disk"), "{text}");
    assert!(!text.contains("not judged"), "{text}");
    assert!(text.ends_with(&format!("The report is {}: open it in a browser.\n", page.display())), "{text}");
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written.contains("at scattered offsets") && written.contains("io_ns"));
    // 16 TB.
    let output = demo(&["--size", "16777216"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("not enough space"), "{output:?}");
    assert_eq!(left(), 0);
    // A step that fails is the last.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 100; exec \"$0\" demo --size 1"]).arg(env!("CARGO_BIN_EXE_trapline"));
    let output = limited.env("TMPDIR", folder.path()).output().unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("$ trapline ").count(), 1, "{output:?}");
    assert_eq!(left(), 0);
    // Ctrl-C, or a signal to the demo alone, during the second step: all processes end, no file is left, and the page is the one before.
    for (signal, to_all) in [(Signal::SIGINT, true), (Signal::SIGINT, false), (Signal::SIGTERM, false)] {
        let mut command = demo(&["--size", "512", "--threads", "16"]);
        let mut running = Running::start(command.process_group(0).stdout(Stdio::piped()));
        let (demo, stdout) = (running.id() as i32, running.stdout.take().unwrap());
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        // The command's first line: it runs.
        assert!(lines.any(|line| line.ends_with(": 16 threads")));
        kill(Pid::from_raw(if to_all { -demo } else { demo }), signal).unwrap();
        // Until the last one that holds it has ended.
        assert!(!lines.any(|line| line.contains("== what stalled them")));
        let output = running.output();
        assert_eq!(output.status.code(), Some(128 + signal as i32), "{output:?}");
        assert_eq!(left(), 0);
        assert_eq!(std::fs::read_to_string(&page).unwrap(), written);
        assert_eq!(pages.path().read_dir().unwrap().count(), 1);
    }
}
