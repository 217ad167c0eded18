//! What one fault on an enclave costs more while somebody watches: trapline beside programs of its peers' kinds.
//!
//! The enclaves are those of the stand-in for an SGX driver (tests/sgx-double), so this runs where that module can be
//! loaded: `cargo xtask vm 6.12 --run EXECUTABLE`. Each fault loads a page, in a pool where nothing has to be evicted.
//! Every method takes its turn in each round and is compared with the turn without a watcher of the same round and
//! device. The table goes to standard output, and to `overhead-sgx.md` in `$TRAPLINE_RESULTS`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const PAGES: usize = 4000;
const BATCHES: usize = 20;
const KERNELS: &str = "/dev/sgx_double";
const LEGACY: &str = "/dev/sgx_double_legacy";

struct Method {
    name: &'static str,
    device: &'static str,
    command: &'static [&'static str],
    /// It prints a line when it is attached; else it is given this time.
    soon: Option<Duration>,
}

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
const SOON: Option<Duration> = Some(Duration::from_secs(12));
/// What the first tool of this kind does: it counts faults, and marks pages.
const COUNT: &str = "kprobe:sgx_fault_page { @faults = count(); @pages[arg1 >> 12] = (uint8)1 }";
/// A line for each fault, as tools do that hand every event to user space.
const LINES: &str = "kprobe:sgx_fault_page { printf(\"%d %llx\\n\", pid, arg1) }";
/// Entry to return, as a histogram: what comes nearest to what trapline does.
const HISTOGRAM: &str = "kprobe:sgx_fault_page { @s[tid] = nsecs; @faults = count(); @pages[arg1 >> 12] = (uint8)1 } \
    kretprobe:sgx_fault_page /@s[tid]/ { @ns[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) }";

#[rustfmt::skip]
const METHODS: &[Method] = &[
    Method { name: "trapline sgx --variant fentry", device: KERNELS, soon: None,
        command: &[TRAPLINE, "sgx", "--format", "jsonl", "--variant", "fentry"] },
    Method { name: "trapline sgx --variant kprobe", device: KERNELS, soon: None,
        command: &[TRAPLINE, "sgx", "--format", "jsonl", "--variant", "kprobe"] },
    Method { name: "trapline sgx --variant legacy", device: LEGACY, soon: None,
        command: &[TRAPLINE, "sgx", "--format", "jsonl", "--variant", "legacy"] },
    Method { name: "bpftrace, count and pages", device: LEGACY, soon: SOON,
        command: &["bpftrace", "-e", COUNT] },
    Method { name: "bpftrace, count, pages and latency", device: LEGACY, soon: SOON,
        command: &["bpftrace", "-e", HISTOGRAM] },
    Method { name: "bpftrace, a line for each fault", device: LEGACY, soon: SOON,
        command: &["bpftrace", "-e", LINES] },
];

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--workload") {
        return workload(&words[at + 1]);
    }
    let rounds = words.iter().find_map(|w| w.strip_prefix("--rounds=")).map_or(3, |n| n.parse().unwrap());
    let Some(module) = std::env::var_os("TRAPLINE_SGX_DOUBLE") else {
        eprintln!("nothing to measure: it needs the module of tests/sgx-double, as `cargo xtask vm` has it");
        return;
    };
    let pool = format!("epc_pages={}", PAGES * 2);
    assert!(Command::new("insmod").arg(module).arg(pool).status().unwrap().success());
    let mut bare = [Vec::new(), Vec::new()];
    let mut extra = vec![Vec::new(); METHODS.len()];
    for round in 0..rounds {
        let base = [KERNELS, LEGACY].map(touch);
        bare.iter_mut().zip(base).for_each(|(bare, turn)| bare.push(turn));
        for (method, extra) in METHODS.iter().zip(&mut extra) {
            let mut watcher = start(method);
            let turn = touch(method.device);
            stop(&mut watcher);
            let base = base[usize::from(method.device == LEGACY)];
            extra.push((turn.0 - base.0, turn.1 - base.1));
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    let page = page(rounds, &bare, &extra);
    print!("{page}");
    if let Some(results) = std::env::var_os("TRAPLINE_RESULTS") {
        std::fs::write(std::path::Path::new(&results).join("overhead-sgx.md"), page).unwrap();
    }
    assert!(Command::new("rmmod").arg("sgx_double").status().unwrap().success());
}

/// Loads the pages of fresh enclaves; prints nanoseconds per fault of the best and the median enclave.
fn workload(device: &str) {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::this(), &cpus).unwrap();
    let file = File::options().read(true).write(true).open(device).unwrap();
    let mut times: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let (len, prot) = (PAGES * PAGE, libc::PROT_READ | libc::PROT_WRITE);
            // SAFETY: a fresh mapping, written to within its bounds and unmapped once.
            unsafe {
                let at = libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, file.as_raw_fd(), 0);
                assert_ne!(at, libc::MAP_FAILED);
                let began = Instant::now();
                for page in 0..PAGES {
                    std::ptr::write_volatile(at.cast::<u8>().add(page * PAGE), 1);
                }
                let time = began.elapsed();
                libc::munmap(at, len);
                time.as_nanos() as f64 / PAGES as f64
            }
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{} {}", times[0], times[BATCHES / 2]);
}

fn touch(device: &str) -> (f64, f64) {
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).args(["--workload", device]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn start(method: &Method) -> Child {
    let mut command = Command::new(method.command[0]);
    command.args(&method.command[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    if method.soon.is_none() {
        out.read_line(&mut String::new()).unwrap();
    }
    // Read what it prints, so that it is not held up.
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    std::thread::sleep(method.soon.unwrap_or_default());
    assert!(child.try_wait().unwrap().is_none(), "{} does not work here", method.name);
    child
}

fn stop(child: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
    child.wait().unwrap();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn page(rounds: usize, bare: &[Vec<(f64, f64)>; 2], extra: &[Vec<(f64, f64)>]) -> String {
    let best = |turns: &[(f64, f64)]| median(turns.iter().map(|turn| turn.0).collect());
    let middle = |turns: &[(f64, f64)]| median(turns.iter().map(|turn| turn.1).collect());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut page = format!(
        "One fault that loads a page takes {:.0} ns here when nobody watches ({:.0} ns in the functions of the \
         out-of-tree driver), on kernel {}. In ns, what it takes *more* under each watcher: the median of {rounds} \
         rounds' best and median enclaves, {BATCHES} of {PAGES} pages each.\n\n\
         | watcher | best | median | share of a fault |\n|---|---:|---:|---:|\n",
        best(&bare[0]),
        best(&bare[1]),
        kernel.trim(),
    );
    for (method, turns) in METHODS.iter().zip(extra) {
        let base = best(&bare[usize::from(method.device == LEGACY)]);
        let (best, middle) = (best(turns), middle(turns));
        writeln!(page, "| {} | {best:.0} | {middle:.0} | {:.0} % |", method.name, best / base * 100.0)
            .unwrap();
    }
    page
}
