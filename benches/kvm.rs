//! What an exit of a virtual machine costs more while somebody watches: trapline beside its peers.
//!
//! Needs a machine on which guests make real exits: `cargo xtask overhead kvm` boots one. In each round every watcher has
//! its turn with the same guest, `trapline workload guest` with CPUID exits, which KVM handles by itself. Two figures: the
//! time that the kernel spent in the watcher's BPF programs per exit and entry, by the kernel's own BPF statistics; and
//! how much longer the guest took per exit than without a watcher. The result goes to standard output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod programs;
mod watch;

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::programs::{Timed, run_time};
use crate::watch::{Ready, Watcher, median};

const EXITS: u64 = 20_000;
const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");

/// What `trapline kvm time` keeps: counts, sums and histograms by reason and level.
const EQUIVALENT: &str = "tracepoint:kvm:kvm_exit { @s[tid] = nsecs; @r[tid] = args->exit_reason; @n[tid] = 0 } \
    tracepoint:kvm:kvm_nested_vmexit { @n[tid] = 1 } \
    tracepoint:kvm:kvm_entry /@s[tid]/ { $t = nsecs - @s[tid]; @time[@r[tid], @n[tid]] = stats($t); \
        @hist[@r[tid], @n[tid]] = hist($t); delete(@s[tid]); delete(@r[tid]); delete(@n[tid]) }";
const COUNTER: &str = "tracepoint:kvm:kvm_exit { @[args->exit_reason] = count() } \
    tracepoint:kvm:kvm_nested_vmexit { @n[args->exit_reason] = count() }";

/// Bpftrace and perf do not say when they are attached, and take long where software executes the machine.
const SOON: Ready = Ready::After(Duration::from_secs(10));

#[rustfmt::skip]
const WATCHERS: &[Watcher] = &[
    Watcher { name: "trapline kvm count", ready: Ready::Line, command: &[TRAPLINE, "kvm", "count", "--format", "jsonl"] },
    Watcher { name: "trapline kvm time", ready: Ready::Line, command: &[TRAPLINE, "kvm", "time", "--format", "jsonl"] },
    Watcher { name: "trapline kvm time --variant format", ready: Ready::Line, command: &[TRAPLINE, "kvm", "time", "--format", "jsonl", "--variant", "format"] },
    Watcher { name: "trapline kvm time --split", ready: Ready::Line, command: &[TRAPLINE, "kvm", "time", "--format", "jsonl", "--split"] },
    Watcher { name: "bpftrace, counts by reason", ready: SOON, command: &["bpftrace", "-e", COUNTER] },
    Watcher { name: "bpftrace, the same as trapline kvm time", ready: SOON, command: &["bpftrace", "-e", EQUIVALENT] },
    Watcher { name: "perf kvm stat record", ready: SOON, command: &["perf", "kvm", "stat", "record", "-a", "-o", "/dev/null"] },
];

fn main() {
    let rounds: usize = std::env::args().find_map(|w| w.strip_prefix("--rounds=")?.parse().ok()).unwrap_or(3);
    let works = guest();
    assert!(works > 0.0, "no guest runs here");
    let timed = Timed::new();
    let mut bare = Vec::new();
    let mut turns = vec![(Vec::new(), Vec::new()); WATCHERS.len()];
    for _ in 0..rounds {
        let base = guest();
        bare.push(base);
        for (watcher, (run, wall)) in WATCHERS.iter().zip(&mut turns) {
            let Some(running) = watcher.start() else { continue };
            let before = run_time(running.0.id());
            wall.push(guest() - base);
            run.push((run_time(running.0.id()) - before) as f64 / EXITS as f64);
        }
    }
    drop(timed);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!(
        "On kernel {}, an exit of CPUID and the entry after it take {:.0} ns when nobody watches. What they take *more* \
         under each watcher, in ns: in the watcher's BPF programs, by the kernel's own statistics of them, and by the \
         guest's clock. Each is the median of {rounds} rounds of {EXITS} exits.\n",
        kernel.trim(),
        median(bare)
    );
    println!("| watcher | in BPF | in all |\n|---|---:|---:|");
    for (watcher, (run, wall)) in WATCHERS.iter().zip(turns) {
        if !run.is_empty() {
            // What has no programs spends nothing in them.
            let run = Some(median(run)).filter(|ns| *ns > 0.0).map_or("-".into(), |ns| format!("{ns:.0}"));
            println!("| {} | {run} | {:.0} |", watcher.name, median(wall));
        }
    }
}

/// Runs the guest; nanoseconds per exit.
fn guest() -> f64 {
    let exits = EXITS.to_string();
    let output = Command::new(TRAPLINE)
        .args(["workload", "guest", "--format", "jsonl", "--cpuid", &exits])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    said["wall_ns"].as_u64().unwrap() as f64 / EXITS as f64
}
