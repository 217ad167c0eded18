//! The period that `trapline access` reaches, and what it costs the target, by engine and size of the target.
//!
//! `cargo bench --bench access -- [ENGINE…] [MB…] [--rounds=N]`, as root; without names, every engine that resets,
//! with every size. A target has so much memory, touched once, and writes to each page of one megabyte of it in turn, as
//! fast as it can: the size is what a reset has to go over, the megabyte what is accessed. How much the target gets done
//! while it is traced is compared with how much just before and just after. The result goes to standard output;
//! `cargo xtask overhead access` runs it on several kernels and puts it into docs/access.md, which explains the columns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

const TRAPLINE: &str = env!("CARGO_BIN_EXE_trapline");
/// What the first argument is where this executable is the target.
const TARGET: &str = "--target";
const PAGE: usize = 4096;
const MB: usize = 1 << 20;
/// How much of a target's memory it goes over.
const HOT: usize = MB;
const SIZES: [usize; 4] = [4, 64, 1024, 4096];
/// What a machine needs besides the target, MB.
const SPARE: usize = 512;
/// How long the target works while it is traced, and how long before and after, milliseconds.
const TRACED: u64 = 6000;
const ALONE: u64 = 2000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [TARGET, size] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return work(size.parse().unwrap());
    }
    assert!(nix::unistd::geteuid().is_root(), "run it as root");
    let rounds = words.iter().find_map(|w| w.strip_prefix("--rounds=")).map_or(3, |n| n.parse().unwrap());
    let words = words.iter().filter(|word| !word.starts_with("--rounds="));
    let (sizes, engines): (Vec<&String>, Vec<&String>) =
        words.partition(|word| word.parse::<usize>().is_ok());
    let mut sizes: Vec<usize> = sizes.iter().map(|size| size.parse().unwrap()).collect();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let engines: Vec<&str> = match engines[..] {
        [] => vec!["rwp", "numa", "writes"],
        _ => engines.into_iter().map(String::as_str).collect(),
    };
    introduction();
    for engine in engines {
        for &size in &sizes {
            let row = match free_mb().checked_sub(SPARE) {
                Some(room) if size <= room => measured(engine, size, rounds),
                room => Ok(blank(&format!("does not fit: there is room for {} MB", room.unwrap_or(0)))),
            };
            let works = row.is_ok();
            println!("| `{engine}` | {size} MB | {} |", row.unwrap_or_else(|why| blank(&why)));
            if !works {
                break;
            }
        }
    }
}

/// The rest of a row that has no figures.
fn blank(why: &str) -> String {
    format!("{why} | | | | |")
}

fn introduction() {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let processors = std::thread::available_parallelism().unwrap();
    println!("On kernel {}, {processors} processors:\n", kernel.trim());
    println!(
        "| `--reset` | memory | period, mean | 99 % within | a reset | faults a second | each | gets done |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
}

/// What could be allocated, MB.
fn free_mb() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

/// The row of one engine with one size: of several rounds the one in which the target got the middling share done. Or
/// why the engine has none.
fn measured(engine: &str, size: usize, rounds: usize) -> Result<String, String> {
    let mut target = Target::start(size);
    let measured: Result<Vec<Round>, String> = (0..rounds).map(|_| Round::of(engine, &mut target)).collect();
    let mut measured = measured?;
    measured.sort_by(|a, b| a.share.total_cmp(&b.share));
    Ok(measured[rounds / 2].cells(engine))
}

/// What was seen of a target in one trace of it.
struct Round {
    /// The record at the end.
    end: Value,
    took: Duration,
    /// How much the target got done, of what it does alone.
    share: f64,
}

impl Round {
    fn of(engine: &str, target: &mut Target) -> Result<Self, String> {
        let before = target.turn(ALONE);
        let pid = target.process.id().to_string();
        let mut tracer = Command::new(TRAPLINE)
            .args(["access", "--reset", engine, "--format", "jsonl", "-p", &pid])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::with_capacity(1 << 20, tracer.stdout.take().unwrap());
        if said.read_line(&mut String::new()).unwrap() == 0 {
            let status = tracer.wait().unwrap();
            return Err(format!("does not work here ({status})"));
        }
        let reader = std::thread::spawn(move || last_line(said));
        let began = Instant::now();
        let traced = target.turn(TRACED);
        let took = began.elapsed();
        kill(Pid::from_raw(tracer.id() as i32), Signal::SIGINT).unwrap();
        let end = reader.join().unwrap();
        assert!(tracer.wait().unwrap().success(), "{end}");
        let alone = f64::midpoint(before, target.turn(ALONE));
        Ok(Self { end: serde_json::from_str(&end).unwrap(), took, share: traced / alone })
    }

    fn cells(&self, engine: &str) -> String {
        let number =
            |name: &str| self.end[name].as_f64().unwrap_or_else(|| panic!("no {name}: {}", self.end));
        let (events, rounds) = (number("events"), number("rounds"));
        let (period, most) = match rounds {
            // There is a period between two.
            0.0..2.0 => (format!("resets in {} s: {rounds}", self.took.as_secs()), "-".into()),
            _ => (ms(number("period_ns")), ms(number("period_p99_ns"))),
        };
        // By NUMA balancing the target resets its pages itself; what we take is for looking whether it did.
        let own_resets = engine != "numa" && rounds > 0.0;
        let reset = if own_resets { ms(number("reset_ns") / rounds) } else { "-".into() };
        let lost = number("lost_events") + number("missed_programs");
        format!(
            "{period} | {most} | {} | {:.0} | {} | {:.0} %{}",
            reset,
            events / self.took.as_secs_f64(),
            if events > 0.0 {
                format!("{:.1} µs", number("fault_ns") / events / 1000.0)
            } else {
                "-".into()
            },
            self.share * 100.0,
            if lost > 0.0 { format!("; {lost} faults were lost") } else { String::new() },
        )
    }
}

/// Of a long text, of which no more is kept.
fn last_line(mut text: impl BufRead) -> String {
    const LONGEST: usize = 4096;
    let mut end: Vec<u8> = Vec::new();
    loop {
        let read = text.fill_buf().unwrap();
        if read.is_empty() {
            let lines = String::from_utf8_lossy(&end).into_owned();
            return lines.lines().last().unwrap_or_default().to_owned();
        }
        let len = read.len();
        end.extend_from_slice(&read[len.saturating_sub(LONGEST)..]);
        end.drain(..end.len().saturating_sub(LONGEST));
        text.consume(len);
    }
}

fn ms(ns: f64) -> String {
    format!("{:.2} ms", ns / 1e6)
}

/// A process that works when it is told to.
struct Target {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Target {
    fn start(size: usize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([TARGET, &size.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut target = Self { process, orders, answers: BufReader::new(answers) };
        // It answers once when all of its memory is there.
        target.answer();
        target
    }

    /// Has it work so many milliseconds: how often it went over its megabyte in a second of its processor time.
    fn turn(&mut self, ms: u64) -> f64 {
        writeln!(self.orders, "{ms}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> f64 {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The life of a target.
fn work(size: usize) {
    let len = size * MB;
    // SAFETY: a fresh mapping of that length, which stays until the end.
    let memory = unsafe {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let at = libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0);
        assert_ne!(at, libc::MAP_FAILED);
        libc::madvise(at, len, libc::MADV_NOHUGEPAGE);
        std::slice::from_raw_parts_mut(at.cast::<u8>(), len)
    };
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    println!("0");
    for order in std::io::stdin().lines() {
        let turn = Duration::from_millis(order.unwrap().parse().unwrap());
        let (began, before) = (Instant::now(), processor_time());
        let mut rounds = 0u32;
        while began.elapsed() < turn {
            for byte in memory[..HOT].iter_mut().step_by(PAGE) {
                *byte = std::hint::black_box(byte.wrapping_add(1));
            }
            rounds += 1;
        }
        println!("{}", f64::from(rounds) / (processor_time() - before).as_secs_f64());
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    Duration::from_nanos(time.num_nanoseconds() as u64)
}
