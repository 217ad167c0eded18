//! What a recording of every fault costs while all processors fault as fast as they can: trapline beside perf. Then, how long
//! it takes to group what was recorded by file, and how much memory.
//!
//! `cargo bench --bench record -- --faults=10000000`. The result goes to standard output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
const FAULTS: u64 = 10_000_000;

/// What a process took: processor time, and the most memory at once, bytes.
fn end(mut child: Child) -> (Duration, u64) {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: our own child, and memory for what is written.
    let usage = unsafe {
        assert!(libc::wait4(child.id() as i32, std::ptr::null_mut(), 0, usage.as_mut_ptr()) > 0);
        usage.assume_init()
    };
    // It has been waited for.
    drop(child.stdin.take());
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    (time(usage.ru_utime) + time(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

fn bytes(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(files) => files.map(|file| file.unwrap().metadata().unwrap().len()).sum(),
        Err(_) => std::fs::metadata(path).unwrap().len(),
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let faults =
        words.iter().find_map(|w| w.strip_prefix("--faults=")).map_or(FAULTS, |n| n.parse().unwrap());
    assert!(nix::unistd::geteuid().is_root(), "run it as root");
    let threads = std::thread::available_parallelism().unwrap().to_string();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (recording, perf_data) = (folder.path().join("x.trapline"), folder.path().join("perf.data"));
    let maker = || {
        let mut maker = Command::new(TRAPLINE);
        maker.args(["workload", "faults", &faults.to_string(), "-t", &threads]);
        maker
    };
    println!(
        "{faults} minor faults by {threads} threads on as many processors, with the default ring. Processor time is the recorder's own.\n"
    );
    println!("| recorder | recorded | lost | processor time a fault | bytes a fault | the makers took |");
    println!("|---|--:|--:|--:|--:|--:|");
    let line = |name: &str, recorded: u64, lost: &str, cpu: Duration, bytes: u64, took: Duration| {
        let each = |n: f64| n / recorded as f64;
        println!(
            "| {name} | {recorded} | {lost} | {:.2} µs | {:.1} | {:.1} s |",
            each(cpu.as_nanos() as f64 / 1000.0),
            each(bytes as f64),
            took.as_secs_f64()
        );
    };
    let began = Instant::now();
    let mut alone = maker();
    assert!(quiet(&mut alone).status().unwrap().success());
    println!("| none | | | | | {:.1} s |", began.elapsed().as_secs_f64());

    let began = Instant::now();
    let mut command = Command::new(TRAPLINE);
    command.args(["faults", "-o"]).arg(&recording).arg("--").arg(TRAPLINE).args(maker().get_args());
    assert!(quiet(&mut command).status().unwrap().success());
    let took = began.elapsed();
    let last: Value = serde_json::from_slice(&std::fs::read(recording.join("end.json")).unwrap()).unwrap();
    let number = |name: &str| last[name].as_u64().unwrap();
    let (recorded, lost) = (number("events"), number("lost_events").to_string());
    let own = Duration::from_nanos(number("own_cpu_ns"));
    line("`trapline faults -o x.trapline`", recorded, &lost, own, bytes(&recording), took);

    let mut perf = Command::new("perf");
    perf.args(["record", "-a", "-d", "-e", "page-faults", "-c", "1", "-o"]).arg(&perf_data);
    if let Ok(perf) = quiet(&mut perf).spawn() {
        std::thread::sleep(Duration::from_millis(2500));
        let began = Instant::now();
        assert!(quiet(&mut maker()).status().unwrap().success());
        let took = began.elapsed();
        kill(Pid::from_raw(perf.id() as i32), Signal::SIGINT).unwrap();
        let (cpu, _) = end(perf);
        let mut stats = Command::new("perf");
        let stats = stats.args(["report", "--stats", "-i"]).arg(&perf_data).output().unwrap();
        let stats = String::from_utf8_lossy(&stats.stdout).into_owned();
        let of = |name: &str| {
            let line = stats.lines().find(|line| line.trim_start().starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let lost = (faults.saturating_sub(of("SAMPLE"))).to_string();
        line("`perf record -d -c 1`", of("SAMPLE").max(1), &lost, cpu, bytes(&perf_data), took);
    }

    let began = Instant::now();
    let mut replay = Command::new(TRAPLINE);
    replay.arg("replay").arg(&recording).args(["--by", "file"]);
    let (cpu, memory) = end(quiet(&mut replay).spawn().unwrap());
    println!(
        "\n`trapline replay x.trapline --by file` took {:.1} s ({:.1} s of processor time) and {} MB.",
        began.elapsed().as_secs_f64(),
        cpu.as_secs_f64(),
        memory / 1_000_000
    );
}
