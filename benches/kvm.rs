//! What an exit of a virtual machine costs more while somebody watches: trapline beside its peers.
//!
//! Needs a machine on which guests make real exits: `cargo xtask vm` gives one. In each round every watcher has its turn
//! with the same guest, `trapline workload guest` with CPUID exits, which KVM handles by itself. Two figures: the time
//! that the kernel spent in the watcher's BPF programs per exit and entry, by the kernel's own BPF statistics; and how much
//! longer the guest took per exit than without a watcher. The result goes to standard output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const EXITS: u64 = 20_000;
const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What `trapline kvm time` keeps: counts, sums and histograms by reason and level.
const EQUIVALENT: &str = "tracepoint:kvm:kvm_exit { @s[tid] = nsecs; @r[tid] = args->exit_reason; @n[tid] = 0 } \
    tracepoint:kvm:kvm_nested_vmexit { @n[tid] = 1 } \
    tracepoint:kvm:kvm_entry /@s[tid]/ { $t = nsecs - @s[tid]; @time[@r[tid], @n[tid]] = stats($t); \
        @hist[@r[tid], @n[tid]] = hist($t); delete(@s[tid]); delete(@r[tid]); delete(@n[tid]) }";
const COUNTER: &str = "tracepoint:kvm:kvm_exit { @[args->exit_reason] = count() } \
    tracepoint:kvm:kvm_nested_vmexit { @n[args->exit_reason] = count() }";

struct Method {
    name: &'static str,
    command: &'static [&'static str],
}

#[rustfmt::skip]
const METHODS: &[Method] = &[
    Method { name: "trapline kvm count", command: &[TRAPLINE, "kvm", "count", "--format", "jsonl"] },
    Method { name: "trapline kvm time", command: &[TRAPLINE, "kvm", "time", "--format", "jsonl"] },
    Method { name: "trapline kvm time --variant format", command: &[TRAPLINE, "kvm", "time", "--format", "jsonl", "--variant", "format"] },
    Method { name: "trapline kvm time --split", command: &[TRAPLINE, "kvm", "time", "--format", "jsonl", "--split"] },
    Method { name: "bpftrace, counts by reason", command: &["bpftrace", "-e", COUNTER] },
    Method { name: "bpftrace, the same as trapline kvm time", command: &["bpftrace", "-e", EQUIVALENT] },
    Method { name: "perf kvm stat record", command: &["perf", "kvm", "stat", "record", "-a", "-o", "/dev/null"] },
];

fn main() {
    let rounds = std::env::args().find_map(|w| w.strip_prefix("--rounds=")?.parse().ok()).unwrap_or(3);
    let works = guest();
    assert!(works > 0.0, "no guest runs here");
    fs::write(STATISTICS, "1").expect("run it as root");
    let mut bare = Vec::new();
    let mut turns = vec![(Vec::new(), Vec::new()); METHODS.len()];
    for _ in 0..rounds {
        let base = guest();
        bare.push(base);
        for (method, (run, wall)) in METHODS.iter().zip(&mut turns) {
            let Some(mut watcher) = start(method) else { continue };
            let before = run_time(watcher.id());
            wall.push(guest() - base);
            run.push((run_time(watcher.id()) - before) as f64 / EXITS as f64);
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(watcher.id() as i32),
                nix::sys::signal::Signal::SIGINT,
            );
            watcher.wait().unwrap();
        }
    }
    fs::write(STATISTICS, "0").unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!(
        "Kernel {}; an exit and entry takes {:.0} ns when nobody watches.\n",
        kernel.trim(),
        median(&bare)
    );
    println!("| watcher | BPF ns per exit | guest's ns per exit more |\n|---|---:|---:|");
    for (method, (run, wall)) in METHODS.iter().zip(&turns) {
        if !run.is_empty() {
            println!("| {} | {:.0} | {:.0} |", method.name, median(run), median(wall));
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

/// Starts a watcher, and waits until it is attached; nothing if it is not installed or does not work.
fn start(method: &Method) -> Option<Child> {
    let mut command = Command::new(method.command[0]);
    command.args(&method.command[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut out = BufReader::new(child.stdout.take().unwrap());
    if method.command[0] == TRAPLINE {
        out.read_line(&mut String::new()).unwrap();
    } else {
        std::thread::sleep(Duration::from_secs(10));
    }
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    if child.try_wait().unwrap().is_some() {
        eprintln!("left out: {}: it does not work here", method.name);
        return None;
    }
    Some(child)
}

/// Nanoseconds that the kernel has spent in the programs that a process holds.
fn run_time(pid: u32) -> u64 {
    let mut programs = HashMap::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let text = fs::read_to_string(fd.path()).unwrap_or_default();
        let number =
            |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(time)) = (number("prog_id:"), number("run_time_ns:")) {
            programs.insert(id, time);
        }
    }
    programs.values().sum()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
