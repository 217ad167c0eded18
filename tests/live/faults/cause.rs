//! Each cause by a program that makes faults of just that cause (provoke.rs), watched twice at the same time: fault by
//! fault, and by `--by cause`. What is compared with is the program's own knowledge of where it faults and how often,
//! and the kernel's accounting of the process.

pub mod provoke;
pub mod uffd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::run::{Beside, Said, faults, fixture, missed, scratch, sum, u};
use crate::running::{Worker, until};

/// A program that makes faults of a cause when it is told to.
struct Provoker(Worker);

impl Provoker {
    /// It has done it once, and waits for being told to do it again.
    fn ready(cause: &str) -> Self {
        let mut words = fixture("cause");
        words.push(cause.into());
        let mut worker = Worker::start(&words);
        assert_eq!(worker.line(), "ready");
        worker.tell("");
        worker.line();
        worker.tell("");
        assert_eq!(worker.line(), "ready");
        Self(worker)
    }

    /// Has it do it, and gives what it said of that.
    fn provoke(&mut self) -> Value {
        self.0.tell("");
        serde_json::from_str(&self.0.line()).unwrap()
    }

    /// Major and minor faults, by the kernel, when it waits for us in all its threads, so that they stand still.
    fn counted(&self) -> (u64, u64) {
        let mut last = None;
        until("it stands still", || {
            let now = self.all_sleep().then(|| self.count());
            let stands = now.is_some() && now == last;
            last = now;
            stands
        });
        last.unwrap()
    }

    fn all_sleep(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        threads.into_iter().all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(')').unwrap().1.starts_with(" S ")
        })
    }

    fn count(&self) -> (u64, u64) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[9].parse().unwrap(), fields[7].parse().unwrap())
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

/// Has each cause provoked while two watch, and compares what they saw.
fn check(causes: &[&str], variant: &str) {
    let mut provokers: Vec<_> = causes.iter().map(|cause| Provoker::ready(cause)).collect();
    let before = count_of(&provokers);
    let pids: Vec<String> = provokers.iter().map(|provoker| provoker.0.id().to_string()).collect();
    let processes: Vec<&str> = pids.iter().flat_map(|pid| ["-p", pid]).collect();
    let rows = Beside::start(faults(variant, &[&["--by", "cause"], &processes[..]].concat()));
    let each = Beside::start(faults(variant, &[&["-v"], &processes[..]].concat()));
    let answers: Vec<Value> = provokers.iter_mut().map(Provoker::provoke).collect();
    // What they do until they wait for us again is to be watched, too.
    let after = count_of(&provokers);
    let (rows, each) = (rows.interrupt(), each.interrupt());
    let counted = (after.0 - before.0, after.1 - before.1);
    for said in [&rows, &each] {
        assert_eq!(sum(&said.totals, |_| true), counted, "{:#?} {}", said.totals, said.end);
    }
    assert_eq!(u(&each.end["lost_events"]), 0);
    assert_eq!(rows.end["unlisted_faults"], 0);
    // Both watched the same faults, so each has the other's figures, but for what one of them missed.
    let (in_rows, in_events) = (by_rows(&rows), by_events(&each));
    let missed = missed(&rows.end) + missed(&each.end);
    for cause in in_rows.keys().chain(in_events.keys()) {
        let [row, events] = [&in_rows, &in_events].map(|all| all.get(cause).copied().unwrap_or_default());
        let is_same = row.iter().zip(events).all(|(row, events)| row.abs_diff(events) <= missed);
        assert!(is_same, "{cause}: {row:?} {events:?} {missed}");
    }
    for ((cause, provoker), answer) in causes.iter().zip(&provokers).zip(&answers) {
        let meant = assert_meant(&each, cause, provoker.0.id(), answer);
        let row: u64 = in_rows.get(*cause).into_iter().flatten().sum();
        assert!(row + missed >= meant, "{cause}: {row} < {meant}");
    }
}

/// What a program meant to do is there, and of that cause; gives how many faults it meant.
fn assert_meant(each: &Said, cause: &str, pid: u32, answer: &Value) -> u64 {
    let mut meant = 0;
    for range in answer["at"].as_array().unwrap() {
        let (start, end) = (u(&range[0]), u(&range[1]));
        let is_there = |e: &&Value| e["addr"].as_u64().is_some_and(|at| (start..end).contains(&at));
        let there: Vec<_> = each.events.iter().filter(|e| e["pid"] == pid).filter(is_there).collect();
        assert!(there.iter().all(|e| e["cause"] == cause), "{cause}: {there:#?}");
        let seen = there.len() as u64;
        let is_right = match range[2].as_u64() {
            Some(faults) => each.is_but_for_missed(seen, faults, 1),
            None => each.is_but_for_missed(seen.min(1), 1, 1),
        };
        assert!(is_right, "{cause}, {start:#x} to {end:#x}: {there:#?} {}", each.end);
        meant += seen;
    }
    let of = |kind: &str| each.events.iter().filter(|e| e["pid"] == pid && e["kind"] == kind).count() as u64;
    assert!(of("major") >= u(&answer["major"]) && of("minor") >= u(&answer["minor"]), "{cause}: {answer}");
    meant
}

/// Major and minor faults of all together.
fn count_of(provokers: &[Provoker]) -> (u64, u64) {
    provokers.iter().map(Provoker::counted).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
}

/// A setting of the machine, put back when this is dropped.
pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    pub fn change(path: impl Into<PathBuf>, to: &str) -> Self {
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
pub struct Swap(PathBuf);

impl Swap {
    pub fn on() -> Self {
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

pub const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
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

/// All that need nothing but this program, or a setting that does not matter to the others.
const CAUSES: &[&str] = &[
    "zero-fill",
    "copy-on-write",
    "file-map",
    "file-read",
    "swap-in",
    "huge-page",
    "userfaultfd",
    "shmem",
    "hugetlb",
    "device",
    "bad-address",
    "write-notify",
];

/// Each by a program of its own, whose faults are told apart by their process.
pub fn each_by_its_program(variant: &'static str) {
    let (there, lacking): (Vec<&str>, Vec<&str>) = CAUSES.iter().partition(|cause| lacks(cause).is_none());
    lacking.iter().for_each(|cause| print!("{cause} is not there: {} ", lacks(cause).unwrap()));
    let has = |cause| there.contains(&cause);
    let _swap = has("swap-in").then(Swap::on);
    let _madvise = has("huge-page").then(|| Setting::change(THP, "madvise"));
    let _pool = has("hugetlb").then(|| {
        let free: u64 = std::fs::read_to_string(POOL).unwrap().trim().parse().unwrap();
        Setting::change(POOL, &(free + 6).to_string())
    });
    check(&there, variant);
}

/// Pages are hidden often, until what this gives is dropped.
pub fn many_hints() -> [Setting; 5] {
    let knob = |name: &str, to| Setting::change(Path::new(KNOBS).join(name), to);
    [
        knob("scan_delay_ms", "1"),
        knob("scan_period_min_ms", "10"),
        knob("scan_period_max_ms", "10"),
        // The less is hidden at once, the sooner it may be again.
        knob("scan_size_mb", "16"),
        Setting::change(BALANCING, "1"),
    ]
}

pub fn numa_hint(variant: &'static str) {
    let _fast = many_hints();
    check(&["numa-hint"], variant);
}
