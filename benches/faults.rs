//! What one 4 KiB anonymous page fault costs more while somebody watches: trapline beside its peers.
//!
//! Every watcher takes its turn in each round, so that a machine whose speed drifts is the same to all. What is compared
//! is the difference to the turn without a watcher of the same round. The result goes to standard
//! output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

mod touch;
mod watch;

use std::fmt::Write as _;
use std::time::Duration;

use crate::touch::Turn;
use crate::watch::{Ready, Watcher, median};

const PAGES: usize = 20_000;
const BATCHES: usize = 40;

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
const SOON: Ready = Ready::After(Duration::from_millis(2500));
/// From entry to completion, as a histogram by process: what comes nearest to `trapline faults`.
const HISTOGRAM: &str = "software:page-faults:1 { @s[tid] = nsecs } \
    software:minor-faults:1 /@s[tid]/ { @minor[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) } \
    software:major-faults:1 /@s[tid]/ { @major[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) }";
const COUNT: &str = "tracepoint:exceptions:page_fault_user { @[pid] = count() }";
const PEER: &str = "bpftrace, latency histogram by pid";

#[rustfmt::skip]
const WATCHERS: &[Watcher] = &[
    Watcher { name: "trapline faults --variant counters", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "counters"] },
    Watcher { name: "trapline faults --variant tracepoint", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint"] },
    Watcher { name: "trapline faults --variant tracepoint --minor-latency 1:64", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint", "--minor-latency", "1:64"] },
    Watcher { name: "trapline faults --variant tracepoint --minor-latency off", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint", "--minor-latency", "off"] },
    Watcher { name: "trapline faults --variant tracepoint --by cause", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint", "--by", "cause"] },
    Watcher { name: "trapline faults --variant fentry", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "fentry"] },
    Watcher { name: "trapline faults --variant kprobe", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "kprobe"] },
    Watcher { name: "trapline faults --by file --variant tracepoint", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--by", "file", "--format", "jsonl", "--variant", "tracepoint"] },
    Watcher { name: "perf record -d, every fault with its address", ready: SOON,
        command: &["perf", "record", "-a", "-q", "-d", "-o", "/dev/null", "-e", "page-faults", "-c", "1"] },
    Watcher { name: "bpftrace, count by pid", ready: SOON, command: &["bpftrace", "-e", COUNT] },
    Watcher { name: PEER, ready: SOON, command: &["bpftrace", "-e", HISTOGRAM] },
    Watcher { name: "perf record, three events, every fault", ready: SOON,
        command: &["perf", "record", "-a", "-q", "-o", "/dev/null", "-e", "page-faults,minor-faults,major-faults", "-c", "1"] },
    Watcher { name: "perf trace -F all", ready: SOON,
        command: &["perf", "trace", "-a", "-F", "all", "--no-syscalls", "-o", "/dev/null"] },
];

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--workload") {
        return touch::touch(None, PAGES, BATCHES);
    }
    let rounds = words.iter().find_map(|w| w.strip_prefix("--rounds=")).map_or(7, |n| n.parse().unwrap());
    assert!(nix::unistd::geteuid().is_root(), "run it as root");
    let watchers: Vec<&Watcher> = WATCHERS.iter().filter(|watcher| watcher.start().is_some()).collect();
    let mut bare = Vec::new();
    let mut extra = vec![Vec::new(); watchers.len()];
    for round in 0..rounds {
        let base = touch::turn(&["--workload"]);
        bare.push(base);
        for (watcher, extra) in watchers.iter().zip(&mut extra) {
            let _running = watcher.start().unwrap();
            extra.push(touch::turn(&["--workload"]).over(base));
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    print!("{}", page(rounds, &bare, &watchers, &extra));
}

fn page(rounds: usize, bare: &[Turn], watchers: &[&Watcher], extra: &[Vec<Turn>]) -> String {
    let ns = |turns: &[Turn]| {
        let best = turns.iter().map(|turn| turn.best).fold(f64::INFINITY, f64::min);
        (best, median(turns.iter().map(|turn| turn.best)), median(turns.iter().map(|turn| turn.median)))
    };
    let base = ns(bare);
    let peer = watchers.iter().position(|watcher| watcher.name == PEER).map(|at| &extra[at]);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown").to_owned();
    let mut page = format!(
        "Kernel {}, {cpu}.\n\n\
         One 4 KiB anonymous fault takes {:.0} ns here when nobody watches (best batch; median batch {:.0} ns). The \
         table has what it takes *more* under each watcher, in ns. Each watcher takes its turn in each of {rounds} \
         rounds; a turn is {BATCHES} batches of {PAGES} faults on one processor, and the difference is to the turn \
         without a watcher of the same round. *min* is the least of the rounds' best batches, *best* their median, \
         *median* the median of the rounds' median batches. *ratio* is the median, over the rounds, of the watcher's \
         best to that of bpftrace's latency histogram by process.\n\n\
         | watcher | min | best | median | share of a fault | ratio |\n|---|---:|---:|---:|---:|---:|\n",
        read("/proc/sys/kernel/osrelease"),
        base.0,
        base.2,
    );
    for (watcher, turns) in watchers.iter().zip(extra) {
        let (min, best, middle) = ns(turns);
        let ratio = peer.map(|peer| median(turns.iter().zip(peer).map(|(own, peer)| own.best / peer.best)));
        let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        writeln!(
            page,
            "| {} | {min:.0} | {best:.0} | {middle:.0} | {:.1} % | {ratio} |",
            watcher.name,
            best / base.1 * 100.0
        )
        .unwrap();
    }
    page
}
