//! What a call costs more while it is a span: trapline beside a pair of probes in bpftrace.
//!
//! The workload is this executable run again, pinned to one processor: it calls a function of libc that does nearly
//! nothing, in batches. Every watcher takes its turn in each round; what is compared is the difference to the turn without
//! a watcher of the same round. The result goes to standard output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

mod programs;
#[allow(dead_code)]
mod touch;
mod watch;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::programs::{Timed, run_time};
use crate::touch::Turn;
use crate::watch::{Ready, Watcher, median};

const CALLS: usize = 5_000;
const BATCHES: usize = 40;

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
const SPAN: &str = "libc.so.6:gnu_get_libc_version";
const SOON: Ready = Ready::After(Duration::from_millis(2500));

/// The time of each call: the least that a pair of probes can tell.
const TIME: &str = "uprobe:libc:gnu_get_libc_version { @s[tid] = nsecs } \
    uretprobe:libc:gnu_get_libc_version /@s[tid]/ { @time = hist(nsecs - @s[tid]); delete(@s[tid]) }";
/// What a span tells: calls, their time, their faults and the time of those.
const EQUIVALENT: &str = "software:page-faults:1 { @p[tid] = nsecs } \
    software:minor-faults:1 /@p[tid]/ { @stall[tid] += nsecs - @p[tid]; @minor[tid] += 1 } \
    software:major-faults:1 /@p[tid]/ { @stall[tid] += nsecs - @p[tid]; @major[tid] += 1 } \
    uprobe:libc:gnu_get_libc_version { @s[tid] = nsecs; @b[tid] = @stall[tid]; @n[tid] = @minor[tid]; @m[tid] = @major[tid] } \
    uretprobe:libc:gnu_get_libc_version /@s[tid]/ { @calls = count(); @time = hist(nsecs - @s[tid]); \
        @stalls = hist(@stall[tid] - @b[tid]); @minors = sum(@minor[tid] - @n[tid]); \
        @majors = sum(@major[tid] - @m[tid]); delete(@s[tid]) }";
const PEER: &str = "bpftrace, uprobe pair: time and faults of a call";

#[rustfmt::skip]
const WATCHERS: &[Watcher] = &[
    Watcher { name: "trapline faults --span", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--span", SPAN] },
    Watcher { name: "trapline faults --span --variant counters", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--span", SPAN, "--variant", "counters"] },
    Watcher { name: "bpftrace, uprobe pair: time of a call", ready: SOON, command: &["bpftrace", "-e", TIME] },
    Watcher { name: PEER, ready: SOON, command: &["bpftrace", "-e", EQUIVALENT] },
];

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--workload") {
        return calls();
    }
    let rounds = words.iter().find_map(|w| w.strip_prefix("--rounds=")).map_or(5, |n| n.parse().unwrap());
    assert!(nix::unistd::geteuid().is_root(), "run it as root");
    let watchers: Vec<&Watcher> = WATCHERS.iter().filter(|watcher| watcher.start().is_some()).collect();
    let mut bare = Vec::new();
    let mut extra = vec![Vec::new(); watchers.len()];
    for round in 0..rounds {
        let base = touch::turn(&["--workload"]);
        bare.push(base);
        for (watcher, extra) in watchers.iter().zip(&mut extra) {
            let running = watcher.start().unwrap();
            let turn = touch::turn(&["--workload"]).over(base);
            // Once more, for the time in its own programs: taking that costs something.
            let _timed = Timed::new();
            let before = run_time(running.0.id());
            touch::turn(&["--workload"]);
            let bpf_ns = (run_time(running.0.id()) - before) as f64 / (CALLS * BATCHES) as f64;
            extra.push((turn, bpf_ns));
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    let section = section(rounds, &bare, &watchers, &extra);
    print!("{section}");
}

/// Calls the function in batches; prints the time per call of the best and the median one, nanoseconds.
fn calls() {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::this(), &cpus).unwrap();
    let mut times: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..CALLS {
                // SAFETY: it takes nothing, and gives the address of a constant. No compiler knows it well enough to leave it out.
                std::hint::black_box(unsafe { libc::gnu_get_libc_version() });
            }
            began.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{} {}", times[0], times[BATCHES / 2]);
}

fn section(rounds: usize, bare: &[Turn], watchers: &[&Watcher], extra: &[Vec<(Turn, f64)>]) -> String {
    let least = |turns: &mut dyn Iterator<Item = f64>| turns.fold(f64::INFINITY, f64::min);
    let peer = watchers.iter().position(|watcher| watcher.name == PEER).map(|at| &extra[at]);
    let mut section = format!(
        "A call of a function that does nearly nothing takes {:.0} ns. The table has what it takes *more*, in ns, while it \
         is probed at its entry and its return; {rounds} rounds of {BATCHES} batches of {CALLS} calls, columns as above. \
         *programs* is what the kernel spends in the watcher's own BPF programs for a call, by its own statistics; the rest \
         is the two probes. *ratio* is of the programs.\n\n\
         | watcher | min | best | median | programs | ratio |\n|---|---:|---:|---:|---:|---:|\n",
        least(&mut bare.iter().map(|turn| turn.best)),
    );
    for (watcher, turns) in watchers.iter().zip(extra) {
        let best = median(turns.iter().map(|(turn, _)| turn.best));
        let middle = median(turns.iter().map(|(turn, _)| turn.median));
        let ratio = peer.map(|peer| median(turns.iter().zip(peer).map(|(own, peer)| own.1 / peer.1)));
        let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let programs = median(turns.iter().map(|&(_, bpf_ns)| bpf_ns));
        let (name, min) = (watcher.name, least(&mut turns.iter().map(|(turn, _)| turn.best)));
        writeln!(section, "| {name} | {min:.0} | {best:.0} | {middle:.0} | {programs:.0} | {ratio} |")
            .unwrap();
    }
    section
}
