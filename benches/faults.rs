//! What one 4 KiB anonymous page fault, one that sleeps, and a context switch cost more while somebody watches: trapline
//! beside its peers.
//!
//! Every watcher takes its turn in each round, so that a machine whose speed drifts is the same to all. What is compared
//! is the difference to the turn without a watcher of the same round. The result goes to standard output. Words on the
//! command line choose questions: `cargo bench --bench faults -- --rounds=5 "a line"`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

mod sleep;
mod touch;
mod watch;

use std::fmt::Write as _;
use std::time::Duration;

use crate::touch::Turn;
use crate::watch::{Ready, Watcher, median};

const PAGES: usize = 2000;
const BATCHES: usize = 300;
/// In which perf reads the 16 MB of stacks of a batch.
const PAUSE: Duration = Duration::from_millis(40);

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
const SOON: Ready = Ready::After(Duration::from_millis(2500));
/// From entry to completion, as a histogram by process: what comes nearest to `trapline faults`.
const HISTOGRAM: &str = "software:page-faults:1 { @s[tid] = nsecs } \
    software:minor-faults:1 /@s[tid]/ { @minor[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) } \
    software:major-faults:1 /@s[tid]/ { @major[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) }";
const COUNT: &str = "tracepoint:exceptions:page_fault_user { @[pid] = count() }";
const USTACK: &str = "software:page-faults:1 { @[ustack] = count() }";
/// The line of `--log-step`; processors that count the same process at once may lose a fault.
const EVERY_50: &str = "software:page-faults:1 { @n[pid]++; if (@n[pid] % 50 == 0) { \
    printf(\"%s %d %s %d\\n\", strftime(\"%H:%M:%S\", nsecs), pid, comm, @n[pid]) } }";
const EVERY_1000: &str = "software:page-faults:1 { @n[pid]++; if (@n[pid] % 1000 == 0) { \
    printf(\"%s %d %s %d\\n\", strftime(\"%H:%M:%S\", nsecs), pid, comm, @n[pid]) } }";

/// What is asked, of what, and who answers: first the nearest peer, which the others are compared with.
type Question = (&'static str, Work, &'static [Watcher]);

/// What is watched.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    Fault,
    /// With time between batches, in which watchers read what they were sent.
    Paced,
    Wait,
    Switch,
}

impl Work {
    const ALL: [Self; 4] = [Self::Fault, Self::Paced, Self::Wait, Self::Switch];

    const fn word(self) -> &'static str {
        ["--fault", "--paced", "--wait", "--switch"][self as usize]
    }

    /// Only what is more urgent takes the processor from it.
    fn run(self) {
        let how = libc::sched_param { sched_priority: 10 };
        // SAFETY: numbers. Where it is refused, other batches are the best.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const how) };
        touch::pin();
        match self {
            Self::Fault => touch::touch(None, PAGES, BATCHES, Duration::ZERO),
            Self::Paced => touch::touch(None, PAGES, BATCHES / 5, PAUSE),
            Self::Wait => sleep::wait(PAGES / 10, BATCHES),
            Self::Switch => sleep::switch(PAGES / 10, BATCHES),
        }
    }

    fn turn(self) -> Turn {
        touch::turn(&[self.word()])
    }
}

const fn trapline(name: &'static str, command: &'static [&'static str]) -> Watcher {
    Watcher { name, ready: Ready::Line, command }
}

const fn peer(name: &'static str, command: &'static [&'static str]) -> Watcher {
    Watcher { name, ready: SOON, command }
}

#[rustfmt::skip]
const QUESTIONS: &[Question] = &[
    ("who, and how long", Work::Fault, &[
        peer("bpftrace, latency histogram by pid", &["bpftrace", "-e", HISTOGRAM]),
        trapline("trapline faults --variant counters",
            &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "counters"]),
        trapline("trapline faults --variant tracepoint",
            &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint"]),
        trapline("trapline faults --variant tracepoint --minor-latency 1:64",
            &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint", "--minor-latency", "1:64"]),
        trapline("trapline faults --variant tracepoint --minor-latency off",
            &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint", "--minor-latency", "off"]),
        trapline("trapline faults --variant fentry",
            &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "fentry"]),
        trapline("trapline faults --variant kprobe",
            &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "kprobe"]),
        peer("bpftrace, count by pid", &["bpftrace", "-e", COUNT]),
        peer("perf record, three events, every fault",
            &["perf", "record", "-a", "-q", "-o", "/dev/null", "-e", "page-faults,minor-faults,major-faults", "-c", "1"]),
        peer("perf trace -F all", &["perf", "trace", "-a", "-F", "all", "--no-syscalls", "-o", "/dev/null"]),
    ]),
    ("which file, which cause, which part of the time", Work::Fault, &[
        peer("perf record -d, every fault with its address",
            &["perf", "record", "-a", "-q", "-d", "-o", "/dev/null", "-e", "page-faults", "-c", "1"]),
        trapline("trapline faults --by file", &[TRAPLINE, "faults", "--format", "jsonl", "--by", "file"]),
        trapline("trapline faults --by cause", &[TRAPLINE, "faults", "--format", "jsonl", "--by", "cause"]),
        trapline("trapline faults --split", &[TRAPLINE, "faults", "--format", "jsonl", "--split"]),
    ]),
    ("which code", Work::Fault, &[
        peer("perf record -g -d, every fault with its stack",
            &["perf", "record", "-a", "-q", "-g", "-d", "-o", "/dev/null", "-e", "page-faults", "-c", "1"]),
        trapline("trapline faults --by stack", &[TRAPLINE, "faults", "--format", "jsonl", "--by", "stack"]),
        peer("perf record --call-graph dwarf -d, to be unwound later",
            &["perf", "record", "-a", "-q", "--call-graph", "dwarf", "-d", "-o", "/dev/null", "-e", "page-faults", "-c", "1"]),
        trapline("trapline faults --by stack --unwind fp",
            &[TRAPLINE, "faults", "--format", "jsonl", "--by", "stack", "--unwind", "fp"]),
        trapline("trapline faults --by stack --stacks 1:64",
            &[TRAPLINE, "faults", "--format", "jsonl", "--by", "stack", "--stacks", "1:64"]),
        trapline("trapline faults --by stack --stacks major",
            &[TRAPLINE, "faults", "--format", "jsonl", "--by", "stack", "--stacks", "major"]),
        peer("bpftrace, count by ustack", &["bpftrace", "-e", USTACK]),
    ]),
    ("which code, where all has been read before the next batch", Work::Paced, &[
        peer("perf record --call-graph dwarf -d -m 64M, to be unwound later",
            &["perf", "record", "-a", "-q", "--call-graph", "dwarf", "-d", "-m", "64M", "-o", "/dev/null", "-e", "page-faults", "-c", "1"]),
        trapline("trapline faults --by stack --unwind tables",
            &[TRAPLINE, "faults", "--format", "jsonl", "--by", "stack", "--unwind", "tables"]),
        trapline("trapline faults --by stack --unwind fp",
            &[TRAPLINE, "faults", "--format", "jsonl", "--by", "stack", "--unwind", "fp"]),
        peer("perf record -g -d -m 64M",
            &["perf", "record", "-a", "-q", "-g", "-d", "-m", "64M", "-o", "/dev/null", "-e", "page-faults", "-c", "1"]),
        peer("bpftrace, count by ustack", &["bpftrace", "-e", USTACK]),
    ]),
    ("a line every 50 faults of a process", Work::Fault, &[
        peer("bpftrace, count by pid and printf", &["bpftrace", "-e", EVERY_50]),
        trapline("trapline faults --log-step 50", &[TRAPLINE, "faults", "--format", "jsonl", "--log-step", "50"]),
    ]),
    ("a line every 1000 faults of a process", Work::Fault, &[
        peer("bpftrace, count by pid and printf", &["bpftrace", "-e", EVERY_1000]),
        trapline("trapline faults --log-step 1000", &[TRAPLINE, "faults", "--format", "jsonl", "--log-step", "1000"]),
    ]),
    ("a fault that sleeps until another thread has put the page in", Work::Wait, &[
        peer("perf record, faults and switches",
            &["perf", "record", "-a", "-q", "-o", "/dev/null", "-e", "page-faults,context-switches", "-c", "1"]),
        trapline("trapline faults", &[TRAPLINE, "faults", "--format", "jsonl"]),
        trapline("trapline faults --split", &[TRAPLINE, "faults", "--format", "jsonl", "--split"]),
        trapline("trapline faults --by cause", &[TRAPLINE, "faults", "--format", "jsonl", "--by", "cause"]),
    ]),
    ("a context switch", Work::Switch, &[
        peer("perf record, every switch",
            &["perf", "record", "-a", "-q", "-o", "/dev/null", "-e", "context-switches", "-c", "1"]),
        trapline("trapline faults", &[TRAPLINE, "faults", "--format", "jsonl"]),
        trapline("trapline faults --split", &[TRAPLINE, "faults", "--format", "jsonl", "--split"]),
    ]),
];

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let Some(work) = Work::ALL.into_iter().find(|work| words.iter().any(|word| word == work.word())) {
        return work.run();
    }
    let rounds = words.iter().find_map(|w| w.strip_prefix("--rounds=")).map_or(7, |n| n.parse().unwrap());
    assert!(nix::unistd::geteuid().is_root(), "run it as root");
    let chosen: Vec<&String> = words[1..].iter().filter(|word| !word.starts_with("--")).collect();
    // Of each question those that work here.
    let questions: Vec<(&Question, Vec<&Watcher>)> = QUESTIONS
        .iter()
        .filter(|(asked, ..)| chosen.is_empty() || chosen.iter().any(|words| asked.contains(*words)))
        .map(|question| (question, question.2.iter().filter(|watcher| watcher.start().is_some()).collect()))
        .collect();
    let mut bare = Work::ALL.map(|_| Vec::new());
    let mut extra: Vec<Vec<Vec<Turn>>> =
        questions.iter().map(|(_, watchers)| vec![Vec::new(); watchers.len()]).collect();
    for round in 0..rounds {
        let base = Work::ALL.map(Work::turn);
        bare.iter_mut().zip(base).for_each(|(bare, base)| bare.push(base));
        for (((_, work, _), watchers), extra) in questions.iter().zip(&mut extra) {
            for (watcher, extra) in watchers.iter().zip(extra) {
                let _running = watcher.start().unwrap();
                extra.push(work.turn().over(base[*work as usize]));
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    let mut page = introduction(rounds, &bare);
    for (((asked, work, all), watchers), extra) in questions.iter().zip(&extra) {
        let base = median(bare[*work as usize].iter().map(|turn| turn.best));
        page += &rows(asked, all[0].name, base, watchers, extra);
    }
    print!("{page}");
}

fn least(turns: &[Turn]) -> f64 {
    turns.iter().map(|turn| turn.best).fold(f64::INFINITY, f64::min)
}

fn introduction(rounds: usize, bare: &[Vec<Turn>; 4]) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
    format!(
        "Kernel {}, {cpu}.\n\n\
         One 4 KiB anonymous fault takes {:.0} ns here when nobody watches (best batch; median batch {:.0} ns), one that \
         sleeps until another thread has put the page in {:.0} ns, a context switch with the system calls that make it \
         {:.0} ns. The table has what each takes *more* under each watcher, in ns. Each watcher takes its turn in each of \
         {rounds} rounds; a turn is {BATCHES} batches of {PAGES} faults ({} where they sleep) or twice as many switches as \
         those, or {} batches with {} ms between, at real-time priority on one processor, and the difference is to the turn without a watcher of the same \
         round. *min* is the least of the rounds' best batches, *best* their median, \
         *median* the median of the rounds' median batches. Watchers that answer the same question stand together, the \
         nearest peer of trapline first: *ratio* is the median, over the rounds, of a watcher's best to that peer's. \
         Where no variant is named, trapline takes the first that works here.\n\n\
         | watcher | min | best | median | share of a fault | ratio |\n|---|---:|---:|---:|---:|---:|\n",
        read("/proc/sys/kernel/osrelease"),
        least(&bare[0]),
        median(bare[0].iter().map(|turn| turn.median)),
        least(&bare[Work::Wait as usize]),
        least(&bare[Work::Switch as usize]),
        PAGES / 10,
        BATCHES / 5,
        PAUSE.as_millis(),
    )
}

/// The lines of a question.
fn rows(asked: &str, peer: &str, base: f64, watchers: &[&Watcher], extra: &[Vec<Turn>]) -> String {
    let peer = watchers.iter().position(|watcher| watcher.name == peer).map(|at| &extra[at]);
    let mut rows = format!("| **{asked}** | | | | | |\n");
    for (watcher, turns) in watchers.iter().zip(extra) {
        let best = median(turns.iter().map(|turn| turn.best));
        let ratio = peer.map(|peer| median(turns.iter().zip(peer).map(|(own, peer)| own.best / peer.best)));
        writeln!(
            rows,
            "| {} | {:.0} | {best:.0} | {:.0} | {:.1} % | {} |",
            watcher.name,
            least(turns),
            median(turns.iter().map(|turn| turn.median)),
            best / base * 100.0,
            ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
        )
        .unwrap();
    }
    rows
}
