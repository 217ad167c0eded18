//! What one 4 KiB anonymous page fault costs more while somebody watches: trapline beside its peers.
//!
//! Every method takes its turn in each round, so that a machine whose speed drifts is the same to all. A turn starts
//! the watcher, waits until it is attached, and runs this executable again as the workload, pinned to one processor:
//! it touches fresh pages in batches and reports the time per fault of its best and of its median batch. What is
//! compared is the difference to the turn without a watcher of the same round. Results go to docs/overhead.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const PAGES: usize = 20_000;
const BATCHES: usize = 40;

/// How a watcher shows that it is attached.
enum Ready {
    /// It prints a line.
    Line,
    /// It does not say; it is given this time.
    After(Duration),
}

struct Method {
    name: &'static str,
    command: &'static [&'static str],
    ready: Ready,
}

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
const SOON: Ready = Ready::After(Duration::from_millis(2500));
/// From entry to completion, as a histogram by process: what comes nearest to `trapline faults`.
const HISTOGRAM: &str = "software:page-faults:1 { @s[tid] = nsecs } \
    software:minor-faults:1 /@s[tid]/ { @minor[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) } \
    software:major-faults:1 /@s[tid]/ { @major[pid] = hist(nsecs - @s[tid]); delete(@s[tid]) }";
const COUNT: &str = "tracepoint:exceptions:page_fault_user { @[pid] = count() }";
const PEER: &str = "bpftrace, latency histogram by pid";

#[rustfmt::skip]
const METHODS: &[Method] = &[
    Method { name: "trapline faults --variant counters", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "counters"] },
    Method { name: "trapline faults --variant tracepoint", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint"] },
    Method { name: "trapline faults --variant tracepoint --minor-latency 1:64", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint", "--minor-latency", "1:64"] },
    Method { name: "trapline faults --variant tracepoint --minor-latency off", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "tracepoint", "--minor-latency", "off"] },
    Method { name: "trapline faults --variant fentry", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "fentry"] },
    Method { name: "trapline faults --variant kprobe", ready: Ready::Line,
        command: &[TRAPLINE, "faults", "--format", "jsonl", "--variant", "kprobe"] },
    Method { name: "bpftrace, count by pid", ready: SOON, command: &["bpftrace", "-e", COUNT] },
    Method { name: PEER, ready: SOON, command: &["bpftrace", "-e", HISTOGRAM] },
    Method { name: "perf record, three events, every fault", ready: SOON,
        command: &["perf", "record", "-a", "-q", "-o", "/dev/null", "-e", "page-faults,minor-faults,major-faults", "-c", "1"] },
    Method { name: "perf trace -F all", ready: SOON,
        command: &["perf", "trace", "-a", "-F", "all", "--no-syscalls", "-o", "/dev/null"] },
];

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--workload") {
        return workload();
    }
    let rounds = words.iter().find_map(|w| w.strip_prefix("--rounds=")).map_or(7, |n| n.parse().unwrap());
    assert!(nix::unistd::geteuid().is_root(), "run it as root");
    let methods: Vec<&Method> = METHODS.iter().filter(|method| works(method)).collect();
    let mut bare = Vec::new();
    let mut extra = vec![Vec::new(); methods.len()];
    for round in 0..rounds {
        let base = touch();
        bare.push(base);
        for (method, extra) in methods.iter().zip(&mut extra) {
            let mut watcher = start(method);
            let (best, median) = touch();
            stop(&mut watcher);
            extra.push((best - base.0, median - base.1));
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    let page = page(rounds, &bare, &methods, &extra);
    print!("{page}");
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/overhead.md"), page).unwrap();
}

/// Touches fresh pages in batches; prints nanoseconds per fault of the best and the median batch.
fn workload() {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::this(), &cpus).unwrap();
    let mut times: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let len = PAGES * PAGE;
            // SAFETY: a fresh private mapping, written to within its bounds and unmapped once.
            unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let at =
                    libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
                assert_ne!(at, libc::MAP_FAILED);
                libc::madvise(at, len, libc::MADV_NOHUGEPAGE);
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

/// Runs the workload and gives nanoseconds per fault: best and median batch.
fn touch() -> (f64, f64) {
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).arg("--workload").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn command(method: &Method) -> Command {
    let mut command = Command::new(method.command[0]);
    command.args(&method.command[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Whether a watcher can run here; says so if not.
fn works(method: &Method) -> bool {
    let Ok(mut child) = command(method).spawn() else {
        eprintln!("left out: {}: it is not installed", method.name);
        return false;
    };
    discard(child.stdout.take().unwrap());
    std::thread::sleep(Duration::from_millis(1500));
    let runs = child.try_wait().unwrap().is_none();
    stop(&mut child);
    if !runs {
        eprintln!("left out: {}: it does not work on this kernel", method.name);
    }
    runs
}

fn start(method: &Method) -> Child {
    let mut child = command(method).spawn().unwrap();
    match method.ready {
        Ready::Line => {
            let mut out = BufReader::new(child.stdout.take().unwrap());
            out.read_line(&mut String::new()).unwrap();
            discard(out);
        }
        Ready::After(time) => {
            discard(child.stdout.take().unwrap());
            std::thread::sleep(time);
        }
    }
    child
}

/// Reads what a watcher prints, so that it is not held up.
fn discard(mut out: impl std::io::Read + Send + 'static) {
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
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

fn page(rounds: usize, bare: &[(f64, f64)], methods: &[&Method], extra: &[Vec<(f64, f64)>]) -> String {
    let ns = |turns: &[(f64, f64)]| {
        let best = turns.iter().map(|t| t.0).fold(f64::INFINITY, f64::min);
        (best, median(turns.iter().map(|t| t.0).collect()), median(turns.iter().map(|t| t.1).collect()))
    };
    let base = ns(bare);
    let peer = methods.iter().position(|m| m.name == PEER).map(|at| &extra[at]);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown").to_owned();
    let mut page = format!(
        "# What watching costs\n\n\
         Written by `make bench`, which anyone can repeat. Kernel {}, {cpu}.\n\n\
         One 4 KiB anonymous fault takes {:.0} ns here when nobody watches (best batch; median batch {:.0} ns). The \
         table has what it takes *more* under each watcher, in ns. Each method takes its turn in each of {rounds} \
         rounds; a turn is {BATCHES} batches of {PAGES} faults on one processor, and the difference is to the turn \
         without a watcher of the same round. *min* is the least of the rounds' best batches, *best* their median, \
         *median* the median of the rounds' median batches. *ratio* is the median, over the rounds, of the method's \
         best to that of bpftrace's latency histogram by process.\n\n\
         | watcher | min | best | median | share of a fault | ratio |\n|---|---:|---:|---:|---:|---:|\n",
        read("/proc/sys/kernel/osrelease"),
        base.0,
        base.2,
    );
    for (method, turns) in methods.iter().zip(extra) {
        let (min, best, middle) = ns(turns);
        let ratio =
            peer.map(|peer| median(turns.iter().zip(peer).map(|(own, peer)| own.0 / peer.0).collect()));
        let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        writeln!(
            page,
            "| {} | {min:.0} | {best:.0} | {middle:.0} | {:.1} % | {ratio} |",
            method.name,
            best / base.1 * 100.0
        )
        .unwrap();
    }
    page
}
