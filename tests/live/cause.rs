//! Each cause by a program that makes faults of just that cause (provoke.rs), watched twice at the same time: fault by
//! fault, and by `--by cause`. What is compared with is the program's own knowledge of where it faults and how often,
//! and the kernel's accounting of the process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command};
use std::time::Duration;

use serde_json::Value;

use crate::run::{Beside, Said, faults, fixture, scratch, spawn, sum, u};

/// A program that makes faults of a cause when it is told to.
struct Provoker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Provoker {
    /// It has done it once, and waits for being told to do it again.
    fn ready(cause: &str) -> Self {
        let mut words = fixture("cause");
        words.push(cause.into());
        let mut child = spawn(&words);
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut provoker = Self { child, to, from };
        assert_eq!(provoker.line(), "ready\n");
        provoker.tell();
        provoker.line();
        provoker.tell();
        assert_eq!(provoker.line(), "ready\n");
        provoker
    }

    fn tell(&mut self) {
        self.to.write_all(b"\n").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line
    }

    /// Major and minor faults, by the kernel, when it waits for us in all its threads, so that they stand still.
    fn counted(&self) -> (u64, u64) {
        let mut last = None;
        loop {
            let now = self.all_sleep().then(|| self.count());
            match now {
                Some(counted) if now == last => return counted,
                _ => last = now,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn all_sleep(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.into_iter().all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(')').unwrap().1.starts_with(" S ")
        })
    }

    fn count(&self) -> (u64, u64) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[9].parse().unwrap(), fields[7].parse().unwrap())
    }
}

impl Drop for Provoker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many of each cause: major, minor, failed.
type Tally = BTreeMap<String, [u64; 3]>;

fn by_rows(said: &Said) -> Tally {
    let of = |row: &Value| [u(&row["major"]), u(&row["minor"]), u(&row["failed"])];
    said.totals.iter().map(|row| (row["cause"].as_str().unwrap().to_owned(), of(row))).collect()
}

fn by_events(said: &Said) -> Tally {
    let mut tally = Tally::new();
    for event in &said.events {
        let kind = ["major", "minor", "failed"].iter().position(|kind| event["kind"] == *kind).unwrap();
        // Of those that are only counted it is not known what they were for.
        tally.entry(event["cause"].as_str().unwrap_or("unknown").to_owned()).or_default()[kind] += 1;
    }
    tally
}

fn check(cause: &str, variant: &str) {
    let mut provoker = Provoker::ready(cause);
    let before = provoker.counted();
    let pid = provoker.child.id().to_string();
    let rows = Beside::start(faults(variant, &["--by", "cause", "-p", &pid]));
    let each = Beside::start(faults(variant, &["-v", "-p", &pid]));
    provoker.tell();
    let answer: Value = serde_json::from_str(&provoker.line()).unwrap();
    let (rows, each) = (rows.interrupt(), each.interrupt());
    let after = provoker.counted();
    let counted = (after.0 - before.0, after.1 - before.1);
    assert_eq!(sum(&rows.totals, |_| true), counted, "{:#?}", rows.totals);
    assert_eq!(sum(&each.totals, |_| true), counted, "{:#?}", each.totals);
    assert!(counted.0 >= u(&answer["major"]) && counted.1 >= u(&answer["minor"]), "{answer}");
    let mut meant = 0;
    for range in answer["at"].as_array().unwrap() {
        let (start, end) = (u(&range[0]), u(&range[1]));
        let there: Vec<_> = each
            .events
            .iter()
            .filter(|e| e["addr"].as_u64().is_some_and(|a| start <= a && a < end))
            .collect();
        assert!(there.iter().all(|e| e["cause"] == cause), "{there:#?}");
        match range[2].as_u64() {
            Some(faults) => {
                assert!(each.is_but_for_missed(there.len() as u64, faults, 1), "{there:#?} {}", each.end);
            }
            None => {
                assert!(
                    each.is_but_for_missed(there.len().min(1) as u64, 1, 1),
                    "none from {start:#x} to {end:#x}"
                );
            }
        }
        meant += there.len() as u64;
    }
    // Both watched the same faults, so each has the other's figures, but for what one of them missed.
    let (in_rows, in_events) = (by_rows(&rows), by_events(&each));
    let missed = u(&rows.end["missed"]) + u(&each.end["missed"]);
    for cause in in_rows.keys().chain(in_events.keys()) {
        let [row, events] = [&in_rows, &in_events].map(|all| all.get(cause).copied().unwrap_or_default());
        let is_same = row.iter().zip(events).all(|(row, events)| row.abs_diff(events) <= missed);
        assert!(is_same, "{cause}: {row:?} {events:?} {missed}");
    }
    let row: u64 = in_rows.get(cause).into_iter().flatten().sum();
    assert!(row + missed >= meant, "{row} < {meant}");
    assert_eq!(u(&each.end["lost"]), 0);
    assert_eq!(rows.end["unattributed"], 0);
}

/// A setting of the machine, put back when this is dropped.
struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    fn change(path: impl Into<PathBuf>, to: &str) -> Self {
        let path = path.into();
        let text = std::fs::read_to_string(&path).unwrap();
        // Some files show all that could be chosen.
        let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        let before = chosen.unwrap_or(text.trim()).to_owned();
        std::fs::write(&path, to).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        std::fs::write(&self.path, &self.before).unwrap();
    }
}

/// A little swap device, until this is dropped.
struct Swap(PathBuf);

impl Swap {
    fn on() -> Self {
        let path = scratch().join("cause-swap");
        std::fs::write(&path, vec![0u8; 16 << 20]).unwrap();
        // What was left by a run that was killed is in the way.
        let swap = Self(path);
        swap.run("chmod", &["600"]);
        swap.run("mkswap", &[]);
        swap.run("swapon", &[]);
        swap
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        self.run("swapoff", &[]);
        let _ = std::fs::remove_file(&self.0);
    }
}

const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const BALANCING: &str = "/proc/sys/kernel/numa_balancing";
const KNOBS: &str = "/sys/kernel/debug/sched/numa_balancing";

/// Why there can be no faults of the cause here, if so.
pub fn lacks(cause: &str) -> Option<String> {
    let missing = |path: &str| (!Path::new(path).exists()).then(|| format!("this kernel has no {path}"));
    match cause {
        "huge-page" => missing(THP),
        "hugetlb" => missing(POOL),
        "numa-hint" => missing(BALANCING).or_else(|| missing(KNOBS)),
        "swap-in" => missing("/proc/swaps"),
        _ => None,
    }
}

pub fn zero_fill(variant: &'static str) {
    check("zero-fill", variant);
}

pub fn copy_on_write(variant: &'static str) {
    check("copy-on-write", variant);
}

pub fn file_map(variant: &'static str) {
    check("file-map", variant);
}

pub fn file_read(variant: &'static str) {
    check("file-read", variant);
}

pub fn swap_in(variant: &'static str) {
    let _swap = Swap::on();
    check("swap-in", variant);
}

pub fn huge_page(variant: &'static str) {
    let _madvise = Setting::change(THP, "madvise");
    check("huge-page", variant);
}

pub fn numa_hint(variant: &'static str) {
    let knob = |name: &str, to| Setting::change(Path::new(KNOBS).join(name), to);
    let _fast = [
        knob("scan_delay_ms", "1"),
        knob("scan_period_min_ms", "10"),
        knob("scan_period_max_ms", "10"),
        Setting::change(BALANCING, "1"),
    ];
    check("numa-hint", variant);
}

pub fn userfaultfd(variant: &'static str) {
    check("userfaultfd", variant);
}

pub fn shmem(variant: &'static str) {
    check("shmem", variant);
}

pub fn hugetlb(variant: &'static str) {
    let free: u64 = std::fs::read_to_string(POOL).unwrap().trim().parse().unwrap();
    let _pool = Setting::change(POOL, &(free + 6).to_string());
    check("hugetlb", variant);
}

pub fn device(variant: &'static str) {
    check("device", variant);
}

pub fn bad_address(variant: &'static str) {
    check("bad-address", variant);
}

pub fn write_notify(variant: &'static str) {
    check("write-notify", variant);
}
