//! What one fault on an enclave costs more while somebody watches: trapline beside programs of its peers' kinds.
//!
//! The enclaves are those of the stand-in for an SGX driver (tests/sgx-double), so this runs where that module can be
//! loaded: `cargo xtask overhead sgx` boots such a machine. Each fault loads a page, in a pool where nothing has to be evicted.
//! Every watcher takes its turn in each round and is compared with the turn without a watcher of the same round and
//! device; then it takes another, in which the kernel times the watcher's programs. The result goes to standard output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

mod programs;
mod touch;
mod watch;

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use crate::programs::{Timed, run_time};
use crate::touch::Turn;
use crate::watch::{Ready, Watcher, median};

const PAGES: usize = 4000;
const BATCHES: usize = 20;
const KERNELS: &str = "/dev/sgx_double";
const LEGACY: &str = "/dev/sgx_double_legacy";

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
/// Long enough where software executes the machine.
const SOON: Ready = Ready::After(Duration::from_secs(12));
/// What the first tool of this kind does: it counts faults, and marks pages.
const COUNT: &str = "kprobe:sgx_fault_page { @faults = count(); @pages[arg1 >> 12] = (uint8)1 }";
/// A line for each fault, as tools do that hand every event to user space.
const LINES: &str = "kprobe:sgx_fault_page { printf(\"%d %llx\\n\", pid, arg1) }";
/// Entry to return, as a histogram: what comes nearest to what trapline does.
const HISTOGRAM: &str = "kprobe:sgx_fault_page { @s[tid] = nsecs; @faults = count(); @pages[arg1 >> 12] = (uint8)1 } \
    kretprobe:sgx_fault_page /@s[tid]/ { @ns[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) }";

/// Each with the device whose faults it sees.
#[rustfmt::skip]
const WATCHERS: &[(&str, Watcher)] = &[
    (KERNELS, Watcher { name: "trapline sgx --variant fentry", ready: Ready::Line,
        command: &[TRAPLINE, "sgx", "--format", "jsonl", "--variant", "fentry"] }),
    (KERNELS, Watcher { name: "trapline sgx --variant kprobe", ready: Ready::Line,
        command: &[TRAPLINE, "sgx", "--format", "jsonl", "--variant", "kprobe"] }),
    (LEGACY, Watcher { name: "trapline sgx --variant legacy", ready: Ready::Line,
        command: &[TRAPLINE, "sgx", "--format", "jsonl", "--variant", "legacy"] }),
    (LEGACY, Watcher { name: "bpftrace, count and pages", ready: SOON,
        command: &["bpftrace", "-e", COUNT] }),
    (LEGACY, Watcher { name: "bpftrace, count, pages and latency", ready: SOON,
        command: &["bpftrace", "-e", HISTOGRAM] }),
    (LEGACY, Watcher { name: "bpftrace, a line for each fault", ready: SOON,
        command: &["bpftrace", "-e", LINES] }),
];

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--workload") {
        let file = File::options().read(true).write(true).open(&words[at + 1]).unwrap();
        return touch::touch(Some(file.as_fd()), PAGES, BATCHES, Duration::ZERO);
    }
    let rounds = words.iter().find_map(|w| w.strip_prefix("--rounds=")).map_or(3, |n| n.parse().unwrap());
    let Some(module) = std::env::var_os("TRAPLINE_SGX_DOUBLE") else {
        eprintln!("nothing to measure: it needs the module of tests/sgx-double, as `cargo xtask vm` has it");
        return;
    };
    let pool = format!("epc_pages={}", PAGES * 2);
    assert!(Command::new("insmod").arg(module).arg(pool).status().unwrap().success());
    let turn = |device| touch::turn(&["--workload", device]);
    let mut bare = [Vec::new(), Vec::new()];
    let mut extra = vec![(Vec::new(), Vec::new()); WATCHERS.len()];
    for round in 0..rounds {
        let base = [KERNELS, LEGACY].map(turn);
        bare.iter_mut().zip(base).for_each(|(bare, turn)| bare.push(turn));
        for ((device, watcher), (extra, run)) in WATCHERS.iter().zip(&mut extra) {
            let Some(running) = watcher.start() else { continue };
            extra.push(turn(device).over(base[usize::from(*device == LEGACY)]));
            let _timed = Timed::new();
            turn(device);
            run.push(run_time(running.0.id()) as f64 / (PAGES * BATCHES) as f64);
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    print!("{}", page(rounds, &bare, &extra));
    assert!(Command::new("rmmod").arg("sgx_double").status().unwrap().success());
}

fn page(rounds: usize, bare: &[Vec<Turn>; 2], extra: &[(Vec<Turn>, Vec<f64>)]) -> String {
    let best = |turns: &[Turn]| median(turns.iter().map(|turn| turn.best));
    let middle = |turns: &[Turn]| median(turns.iter().map(|turn| turn.median));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut page = format!(
        "On kernel {}, a fault that loads a page of the stand-in's enclaves takes {:.0} ns when nobody watches, {:.0} ns \
         in the functions of the out-of-tree driver. What it takes *more* under each watcher, in ns: in the watcher's \
         BPF programs, by the kernel's own statistics of them, and in all. *best* and *median* are the medians of \
         {rounds} rounds' best and median enclaves, {BATCHES} of {PAGES} pages each. bpftrace is attached to the \
         out-of-tree driver's functions.\n\n\
         | watcher | in BPF | best | median | share of a fault |\n|---|---:|---:|---:|---:|\n",
        kernel.trim(),
        best(&bare[0]),
        best(&bare[1]),
    );
    for ((device, watcher), (turns, run)) in
        WATCHERS.iter().zip(extra).filter(|(_, (turns, _))| !turns.is_empty())
    {
        let base = best(&bare[usize::from(*device == LEGACY)]);
        let (run, best, middle) = (median(run.iter().copied()), best(turns), middle(turns));
        let share = best / base * 100.0;
        writeln!(page, "| {} | {run:.0} | {best:.0} | {middle:.0} | {share:.0} % |", watcher.name).unwrap();
    }
    page
}
