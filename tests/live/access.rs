//! Page accesses against programs whose touches are known, one by one.

pub mod children;
pub mod hostile;
pub mod namespaces;
pub mod numa;
pub mod privilege;
pub mod reach;
pub mod replay;
pub mod summary;
pub mod symbols;
pub mod turmoil;
pub mod unharmed;

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::run::{Place, Said, lines, missed, place, trapline, u};
use crate::running::{Recording, Tracer, Worker};

const PAGE: u64 = 4096;

/// The workload.
pub const TOUCH: [&str; 3] = [env!("CARGO_BIN_EXE_trapline"), "workload", "touch"];
/// The same, which touches pages when all of them have been reset: however late that is, each touch is an access.
pub const AFTER_RESETS: [&str; 4] = [TOUCH[0], TOUCH[1], TOUCH[2], "--after-resets"];

/// `trapline access` by an engine, to a file, as JSON lines.
pub fn access(engine: &str, arguments: &[&str]) -> (Command, Recording) {
    let file = Recording::new("access");
    let mut command = trapline();
    command.args(["access", "--format", "jsonl", "-o"]).arg(&file.0);
    if engine != "auto" {
        command.args(["--reset", engine]);
    }
    command.args(arguments).stdin(Stdio::null());
    (command, file)
}

/// The same beside the test.
pub fn tracer(engine: &str, arguments: &[&str]) -> Tracer {
    let (command, file) = access(engine, arguments);
    Tracer::start(command, file)
}

/// Traces a command to its end, which must be a good one.
pub fn traced(engine: &str, arguments: &[&str], command: &[&str]) -> Said {
    let (mut tracer, file) = access(engine, arguments);
    let output = tracer.arg("--").args(command).output().unwrap();
    if !output.status.success() {
        // What became of the engine is the reason, if it is one.
        let said = file.lines();
        let engine: Vec<_> = said.iter().filter(|line| line["event"] == "engine").collect();
        panic!("{:?}: {} {engine:?}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Said::recorded(file.lines(), &output.stdout)
}

/// Traces `workload touch`, which waits for the engine before it begins.
pub fn touched(engine: &str, arguments: &[&str], touch: &[&str]) -> Said {
    let wait = if place() == Place::Vm { "2s" } else { "400ms" };
    traced(engine, arguments, &[&TOUCH[..], &["--delay", wait], touch].concat())
}

impl Said {
    /// What was recorded, and as truth what the command printed.
    pub fn recorded(recorded: Vec<Value>, stdout: &[u8]) -> Self {
        Self { truth: lines(stdout), ..Self::of_lines(recorded, "") }
    }

    pub fn truths(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.truth.iter().filter(move |line| line["type"] == kind)
    }

    /// Accesses to the memory that is touched, by the threads that touch.
    pub fn accesses(&self) -> Vec<&Value> {
        let regions: Vec<_> = self.truths("region").collect();
        let known = |event: &&Value| {
            let addr = event["addr"].as_u64().unwrap_or(0);
            event["event"] == "access"
                && regions.iter().any(|r| {
                    let start = u(&r["start"]);
                    event["pid"] == r["pid"] && (start..start + u(&r["bytes"])).contains(&addr)
                })
        };
        self.events.iter().filter(known).collect()
    }
}

/// How what was said agrees with what is true.
#[derive(Debug)]
pub struct Judged {
    /// Touches that were seen.
    pub seen: usize,
    /// Touches that should have been.
    pub due: usize,
    /// Which touches were seen, by their place in the truth.
    pub touches: HashSet<usize>,
    /// Events that are no touch: wrong thread, page, kind, time or instruction.
    pub wrong: Vec<String>,
}

/// Compares. `due` says of a touch (its round, whether it writes) whether it must be seen.
pub fn judge(run: &Said, due: impl Fn(u64, bool) -> bool) -> Judged {
    let mut touches: HashMap<u64, Vec<&Value>> = HashMap::new();
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, touch) in run.truths("touch").enumerate() {
        touches.entry(u(&touch["tid"])).or_default().push(touch);
        places.entry(u(&touch["tid"])).or_default().push(at);
    }
    let functions: HashMap<&str, (u64, u64)> = run
        .truths("function")
        .map(|f| (f["name"].as_str().unwrap(), (u(&f["start"]), u(&f["end"]))))
        .collect();
    let mut seen = HashSet::new();
    let mut wrong = Vec::new();
    for event in run.accesses() {
        // A thread does one thing at a time: the access is its last touch before.
        let of_thread = touches.get(&u(&event["tid"])).map_or(&[][..], Vec::as_slice);
        let time = u(&event["time_ns"]);
        let Some(last) = of_thread.partition_point(|t| u(&t["time_ns"]) <= time).checked_sub(1) else {
            // Before the rounds the pages are made ready, where that was asked for.
            if of_thread.is_empty() {
                wrong.push(format!("{event} by a thread that touches nothing"));
            }
            continue;
        };
        let touch = of_thread[last];
        let (start, end) = functions[touch["function"].as_str().unwrap()];
        let right = u(&touch["addr"]) / PAGE == u(&event["addr"]) / PAGE
            && touch["rw"] == event["rw"]
            && (start..end).contains(&u(&event["ip"]));
        if right {
            seen.insert((u(&event["tid"]), last));
        } else {
            wrong.push(format!("{event} is not {touch} in {start:#x}-{end:#x}"));
        }
    }
    // Of a page that is touched twice in a round, with no pause between, the first time.
    let mut met = HashSet::new();
    let wanted: HashSet<(u64, usize)> = touches
        .iter()
        .flat_map(|(&tid, of)| of.iter().enumerate().map(move |(i, t)| (tid, i, *t)))
        .filter(|(_, _, t)| due(u(&t["round"]), t["rw"] == "W"))
        .filter(|(tid, _, t)| met.insert((*tid, u(&t["addr"]), u(&t["round"]))))
        .map(|(tid, i, _)| (tid, i))
        .collect();
    let seen_at = seen.iter().map(|(tid, at)| places[tid][*at]).collect();
    Judged { seen: wanted.intersection(&seen).count(), due: wanted.len(), touches: seen_at, wrong }
}

/// On every sort of memory, from two threads: each touch with a reset before it is seen, and nothing else is.
pub fn every_touch_on_every_memory(engine: &'static str) {
    for (at, on) in ["anon", "file", "private", "shared", "stack"].into_iter().enumerate() {
        for (other, order) in ["seq", "random"].into_iter().enumerate() {
            // Emulation is slow: there each memory is touched in one order.
            if place() == Place::Vm && at % 2 != other {
                continue;
            }
            let rounds = if place() == Place::Vm { "5" } else { "8" };
            let memory = ["--on", on, "--pages", "64", "--rounds", rounds, "--threads", "2"];
            let touch = ["--pattern", order, "--access", "both", "--warm"];
            let run = traced(engine, &[], &[&AFTER_RESETS[..], &memory, &touch].concat());
            let judged =
                judge(&run, |_, writes| writes || engine == "rwp" && !matches!(on, "file" | "private"));
            println!(
                "{engine} {on} {order}: {} of {} seen, {} wrong",
                judged.seen,
                judged.due,
                judged.wrong.len()
            );
            assert!(judged.wrong.is_empty(), "{on}: {:#?}", judged.wrong);
            // Kernels that preempt programs skip one that would interrupt itself, and an access with it.
            let unseen = (judged.due - judged.seen) as u64;
            assert!(unseen <= missed(&run.end) && judged.due > 150, "{on} {order}: {judged:?} {}", run.end);
            assert_eq!(run.end["lost_events"], 0);
            let accesses = run.accesses();
            // Some may come when the target has gone, and with it the list of its mappings: they have no file, or the name
            // that the kernel half knows.
            let named = |access: &&&Value| access["file"].as_str().is_some_and(|file| file != "[shmem]");
            let any = |access: &&&Value| !access["file"].is_null();
            let found = accesses.iter().rev().find(named).or_else(|| accesses.iter().find(any));
            let Some(region) = found else {
                assert!(matches!(on, "anon" | "stack"), "no access to {on} has a file");
                continue;
            };
            match on {
                "file" | "private" => {
                    assert!(region["file"].as_str().unwrap().contains("trapline-touch-"), "{region}");
                    assert!(u(&region["offset"]) < 64 * PAGE, "{region}");
                }
                "shared" => {
                    let file = region["file"].as_str().unwrap();
                    assert_eq!(file, "[shmem]", "{region}");
                }
                _ => {}
            }
        }
    }
}

/// First touches are seen by every engine, marked as such, and left out on request.
pub fn first_touches_are_marked(engine: &'static str) {
    let touch = ["--pages", "100", "--rounds", "3", "--threads", "2", "--pause", "5ms"];
    let run = touched(engine, &[], &touch);
    let accesses = run.accesses();
    let first: Vec<_> = accesses.iter().filter(|e| e["first"] == 1).collect();
    let pages: HashSet<u64> = first.iter().map(|e| u(&e["addr"]) / PAGE).collect();
    assert_eq!(pages.len(), 200);
    // A reset at the very moment of a first touch makes the kernel take a second fault for it.
    assert!(first.len() <= 204, "{} first touches", first.len());
    let judged = judge(&run, |round, _| round == 0);
    assert!(judged.wrong.is_empty(), "{:#?}", judged.wrong);
    assert_eq!((judged.seen, judged.due), (200, 200), "{}", run.end);
    if engine == "none" {
        // There is nothing else to see, and leaving it out is refused.
        assert_eq!(accesses.len(), 200);
        return;
    }
    let without = touched(engine, &["--no-first-touch"], &touch);
    assert!(without.events.iter().all(|e| e["first"] != 1));
    // The kernel's balancing may not have come by.
    assert!(engine == "numa" || !without.accesses().is_empty(), "{}", without.end);
    assert_eq!(
        u(&without.end["events"]),
        without.events.iter().filter(|e| e["event"] == "access").count() as u64
    );
}

/// A hot megabyte, gone over each half millisecond: each page comes back about once a round.
pub fn hot_pages_come_back(engine: &'static str) {
    let rounds = if place() == Place::Vm { 50 } else { 500 };
    let touch = ["--pages", "256", "--rounds", &rounds.to_string(), "--pause", "0.5", "--warm"];
    let run = touched(engine, &["--ring-size", "64"], &touch);
    let judged = judge(&run, |_, _| false);
    assert!(judged.wrong.is_empty(), "{:#?}", &judged.wrong[..judged.wrong.len().min(9)]);
    let times: Vec<u64> = run.truths("touch").map(|t| u(&t["time_ns"])).collect();
    let span = times[times.len() - 1] - times[0];
    let mut by_page: HashMap<u64, u64> = HashMap::new();
    for event in run.accesses().iter().filter(|e| u(&e["time_ns"]) >= times[0]) {
        *by_page.entry(u(&event["addr"]) / PAGE).or_default() += 1;
    }
    assert_eq!(by_page.len(), 256);
    // A target that does not run cannot touch: its own rounds bound what can come back.
    // Under emulation resets come slower while pages are touched than in the wait before: the mean is of both.
    let period = if place() == Place::Vm { "period_p99_ns" } else { "period_ns" };
    let (resets, rounds) = (u(&run.end[period]), span / rounds);
    println!("{engine}: resets each {resets} ns, rounds of touches each {rounds} ns");
    for (page, times) in by_page {
        let every = span / times;
        assert!(every < 2 * resets.max(rounds), "page {page:#x} came back each {every} ns");
    }
}

/// A process that is there already, by its id; its children are not traced.
pub fn a_running_process(engine: &'static str) {
    let touch = ["--pages", "50", "--rounds", "12", "--warm"];
    let mut target = Worker::by(Command::new(AFTER_RESETS[0]).args(&AFTER_RESETS[1..]).args(touch));
    // Its pages are there when it says where they are.
    let region = target.line();
    let tracer = tracer(engine, &["-p", &target.id().to_string()]);
    let truth = region + "\n" + &target.end();
    let run = Said::recorded(tracer.wait(), truth.as_bytes());
    let judged = judge(&run, |_, writes| writes);
    assert!(judged.wrong.is_empty(), "{:#?}", judged.wrong);
    assert_eq!((judged.seen, judged.due), (600, 600), "{}", run.end);
    assert!(run.accesses().iter().all(|e| e["first"] == 0), "its pages were there before us");
    let sight = run.header["sight"].as_str().unwrap();
    assert!(sight.contains("does not see") && sight.contains("libc.so"), "{sight}");
    assert_eq!(run.header["reset"], engine);
    for (at, event) in [(0, "start"), (run.events.len() - 1, "end")] {
        assert_eq!(run.events[at]["event"], event);
    }
}

/// `--every` is honoured, and said.
pub fn the_period_is_what_is_wished(engine: &'static str) {
    let run = touched(
        engine,
        &["--every", "20ms"],
        &["--pages", "16", "--rounds", "400", "--pause", "2ms", "--warm"],
    );
    assert_eq!(run.header["every_ns"], 20_000_000);
    let period = u(&run.end["period_ns"]);
    let rounds = u(&run.end["rounds"]);
    // Not shorter, but for a first round that was late by less than a period; how much longer is the machine's to say,
    // when others keep it busy.
    assert!(rounds > 1 && (period + 1) * rounds >= 20_000_000 * (rounds - 1), "{period} ns, {rounds} rounds");
    assert!(period < 400_000_000, "{period} ns");
    let judged = judge(&run, |_, _| true);
    // 400 touches of each page, 2 ms apart or more: each reset shows each page once at most.
    let resets = rounds as usize + 1;
    assert!(judged.wrong.is_empty() && judged.seen > 16 && judged.seen <= 16 * resets, "{judged:?}");
}
