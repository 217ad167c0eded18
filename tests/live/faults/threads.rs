//! Every thread counts, from one moment on: those that the kernel makes in a process by itself, those that work on the
//! memory of others, and those that are made while trapline starts.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::fixture::{self, Memory, PAGE, in_child, map, map_of, rusage, touch};
use crate::run::{Beside, Said, all_or_first, faults, fixture, in_full, missed, scratch, spawn, sum, u};
use crate::running::until;

/// Pages that a worker of io_uring reads into.
const READ_INTO: u64 = 200;
/// Pages of each sort that a process touches in another one's memory.
const REMOTE: usize = 64;
/// A variant that every kernel has.
const AT_EXCEPTION: &str = "tracepoint";

fn command(variant: &str, options: &[&str], fixture: &[String]) -> Said {
    let mut command = faults(variant, options);
    Said::by(command.arg("--").args(fixture))
}

fn faults_of(record: &Value) -> u64 {
    u(&record["major"]) + u(&record["minor"])
}

/// A child, so that it is not the command's own process, has a worker of io_uring read a file into fresh memory.
pub fn io_uring() {
    let (child, (major, minor)) = in_child(|| {
        let file = fixture::cold_file("io-uring", READ_INTO as usize);
        read_by_worker(&file, &map(READ_INTO as usize * PAGE, 0));
    });
    println!(r#"{{"type":"truth","what":"process","pid":{child},"major":{major},"minor":{minor}}}"#);
}

/// include/uapi/linux/io_uring.h
fn read_by_worker(file: &File, into: &Memory) {
    const READ: u8 = 22;
    const ASYNC: u8 = 1 << 4;
    const GETEVENTS: u32 = 1;
    const ARRAY: usize = 16;
    const TAIL: usize = 11;
    let mut params = [0u32; 30];
    // SAFETY: a structure of 120 bytes to be filled.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) } as i32;
    assert!(ring >= 0, "io_uring_setup: {}", std::io::Error::last_os_error());
    let shared = libc::MAP_SHARED | libc::MAP_POPULATE;
    let (array, tail) = (params[ARRAY] as usize, params[TAIL] as usize);
    let map_ring = |len, offset| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, shared, ring, offset)
        };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        at.cast::<u8>()
    };
    let (queue, entries) = (map_ring(array + 64, 0), map_ring(PAGE, 0x1000_0000));
    // SAFETY: both mappings are as long as what is written there, and the kernel reads neither before the call below.
    let done = unsafe {
        entries.write(READ);
        entries.add(1).write(ASYNC);
        entries.add(4).cast::<i32>().write(file.as_raw_fd());
        entries.add(16).cast::<u64>().write(into.0 as u64);
        entries.add(24).cast::<u32>().write(into.len() as u32);
        queue.add(array).cast::<u32>().write(0);
        queue.add(tail).cast::<u32>().write_volatile(1);
        libc::syscall(libc::SYS_io_uring_enter, ring, 1, 1, GETEVENTS, ptr::null::<u8>(), 0)
    };
    assert_eq!(done, 1, "io_uring_enter: {}", std::io::Error::last_os_error());
    assert_eq!(fixture::look(into, into.len() - 1), 7);
}

/// A worker of io_uring is born without the kernel's tracepoint of forks.
pub fn workers_of_io_uring(variant: &'static str) {
    let said = command(variant, &[], &fixture("io-uring"));
    let truth = &said.truth[0];
    let of_child: Vec<Value> = said.totals.iter().filter(|t| t["pid"] == truth["pid"]).cloned().collect();
    if variant != "rootless" {
        assert_eq!(sum(&of_child, |_| true), (u(&truth["major"]), u(&truth["minor"])), "{of_child:?}");
    }
    let worker = of_child.iter().find(|t| t["comm"].as_str().unwrap().starts_with("iou-wrk"));
    let worker = worker.unwrap_or_else(|| panic!("no worker in {of_child:?}"));
    assert!(u(&worker["minor"]) >= READ_INTO, "{worker}");
    if matches!(variant, "counters" | "rootless") {
        return;
    }
    assert_eq!(u(&worker["timed"]), faults_of(worker), "{worker}");
    for (by, name) in all_or_first([("cause", "zero-fill"), ("file", "[anon]")]) {
        let said = command(variant, &["--by", by], &fixture("io-uring"));
        let row = said.totals.iter().find(|t| t[by] == name);
        let row = row.unwrap_or_else(|| panic!("no {name} in {:?}", said.totals));
        assert!(u(&row["minor"]) >= READ_INTO && u(&row["timed"]) >= READ_INTO, "{row}");
    }
    if variant != AT_EXCEPTION && !in_full() {
        return;
    }
    // It has no stack in user mode: what its registers were when it was made is the stack of who made it.
    let said = command(variant, &["--by", "stack"], &fixture("io-uring"));
    let stacks = said.totals.iter().filter(|t| faults_of(t) >= READ_INTO);
    let frames: Vec<&str> = stacks.filter_map(|t| t["stack"].as_str()).collect();
    assert!(!frames.is_empty(), "{:?}", said.totals);
    for stack in frames {
        assert!(stack.split(';').skip(1).all(|frame| frame.ends_with("_[k]")), "{stack}");
    }
}

/// One process touches the memory of another in each way that there is. The kernel counts that for who did it.
pub fn remote() {
    let (mut wait, go) = std::io::pipe().unwrap();
    let (mut ready, elsewhere) = std::io::pipe().unwrap();
    let file = fixture::cold_file("remote", REMOTE);
    let memory: Vec<Memory> = (0..4).map(|_| map(REMOTE * PAGE, 0)).collect();
    let mapped = map_of(REMOTE * PAGE, libc::MAP_PRIVATE, file.as_raw_fd(), libc::PROT_READ);
    // SAFETY: this process has one thread, so the child may do what it likes.
    let target = unsafe { libc::fork() };
    if target == 0 {
        drop(go);
        // Another root: paths are what this process sees.
        std::os::unix::fs::chroot(scratch()).unwrap();
        drop(elsewhere);
        let _ = wait.read(&mut [0]);
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) };
    }
    drop(elsewhere);
    let _ = ready.read(&mut [0]);
    let (caller, (major, minor)) = in_child(|| {
        let mut own = vec![1u8; REMOTE * PAGE];
        for (remote, write) in [(&memory[0], false), (&memory[1], true), (&mapped, false)] {
            let local = libc::iovec { iov_base: own.as_mut_ptr().cast(), iov_len: own.len() };
            let remote = libc::iovec { iov_base: remote.0.cast(), iov_len: remote.1 };
            // SAFETY: the local buffer is ours; the other one is in the target, which only waits.
            let done = unsafe {
                if write {
                    libc::process_vm_writev(target, &raw const local, 1, &raw const remote, 1, 0)
                } else {
                    libc::process_vm_readv(target, &raw const local, 1, &raw const remote, 1, 0)
                }
            };
            assert_eq!(done, own.len() as isize, "{}", std::io::Error::last_os_error());
        }
        let file = File::options().read(true).write(true).open(format!("/proc/{target}/mem")).unwrap();
        assert_eq!(file.write_at(&own, memory[2].0 as u64).unwrap(), own.len());
        // SAFETY: the target is a process of our own, and stops at the next stop only.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_ATTACH, target, 0, 0), 0);
            assert_eq!(libc::waitpid(target, ptr::null_mut(), libc::__WALL), target);
            for page in 0..REMOTE {
                libc::ptrace(libc::PTRACE_POKEDATA, target, memory[3].0.add(page * PAGE), 1);
            }
            libc::ptrace(libc::PTRACE_DETACH, target, 0, 0);
        }
    });
    drop(go);
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: usage is to be filled; all-zero is a valid rusage.
    let usage = unsafe {
        assert_eq!(libc::wait4(target, ptr::null_mut(), 0, usage.as_mut_ptr()), target);
        usage.assume_init()
    };
    for (what, pid, major, minor) in
        [("caller", caller, major, minor), ("target", target, usage.ru_majflt, usage.ru_minflt)]
    {
        println!(r#"{{"type":"truth","what":"{what}","pid":{pid},"major":{major},"minor":{minor}}}"#);
    }
}

/// What a process does to the memory of another is its own, as getrusage has it.
pub fn the_memory_of_others(variant: &'static str) {
    let said = command(variant, &[], &fixture("remote"));
    for truth in &said.truth {
        let counted = sum(&said.totals, |t| t["pid"] == truth["pid"]);
        assert_eq!(counted, (u(&truth["major"]), u(&truth["minor"])), "{truth} in {:?}", said.totals);
    }
    let remote = 4 * REMOTE as u64;
    let [caller, target] = ["caller", "target"]
        .map(|what| said.truth.iter().find(|t| t["what"] == what).map(faults_of).unwrap());
    assert!(caller > remote && target < remote, "{caller} and {target}");
    if matches!(variant, "counters" | "rootless") {
        return;
    }
    // Where it was is told by the memory that was touched; without an exception `tracepoint` does not see it.
    let said = command(variant, &["--by", "file"], &fixture("remote"));
    let of = |name: &str| {
        let rows = said.totals.iter().filter(|t| t["file"].as_str().is_some_and(|file| file.ends_with(name)));
        rows.map(faults_of).sum::<u64>()
    };
    if variant == AT_EXCEPTION {
        assert!(of("(not attributed)") >= remote, "{:?}", said.totals);
    } else {
        assert!(of("[anon]") >= remote, "{:?}", said.totals);
        let file = said.totals.iter().find(|t| t["file"] == "/remote");
        assert!(file.map(faults_of) > Some(0), "{:?}", said.totals);
    }
}

/// What a child says of itself: triples of a moment, its faults at a moment between the two, and a moment.
const STEPS: usize = 40;
const ALIVE: usize = 4;
const FURTHER: usize = 20;

fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_nanos() as u64
}

/// Children come and go, each of which faults step by step, until standard input is closed and some more were born: what
/// each had done by when.
pub fn births() {
    nix::sys::prctl::set_name(c"births").unwrap();
    let (end, ended) = (AtomicBool::new(false), Ordering::Relaxed);
    let mut alive: Vec<(i32, Memory)> = Vec::new();
    let mut done: Vec<(i32, Vec<u64>)> = Vec::new();
    let mut reap = |alive: &mut Vec<(i32, Memory)>| {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: usage is to be filled; all-zero is a valid rusage.
        let (pid, usage) = unsafe {
            let pid = libc::wait4(-1, ptr::null_mut(), 0, usage.as_mut_ptr());
            (pid, usage.assume_init())
        };
        let at = alive.iter().position(|(child, _)| *child == pid).unwrap();
        let (_, said) = alive.swap_remove(at);
        // SAFETY: the child has written all of it, and has ended.
        let said = unsafe { std::slice::from_raw_parts(said.0.cast::<u64>(), STEPS * 3) };
        if done.is_empty() {
            println!("some have ended");
        }
        let last = (usage.ru_majflt + usage.ru_minflt) as u64;
        done.push((pid, [said, &[last]].concat()));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            end.store(true, ended);
        });
        // Some are born after the beginning, too.
        let mut further = FURTHER;
        while further > 0 {
            further -= usize::from(end.load(ended));
            if alive.len() == ALIVE {
                reap(&mut alive);
            }
            let told =
                map_of(PAGE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, libc::PROT_READ | libc::PROT_WRITE);
            touch(&told);
            let memory = map(STEPS * PAGE, 0);
            // SAFETY: the child makes system calls and writes to memory, nothing else.
            let child = unsafe { libc::fork() };
            if child == 0 {
                for step in 0..STEPS {
                    let before = now_ns();
                    let (major, minor) = rusage(libc::RUSAGE_SELF);
                    let after = now_ns();
                    // SAFETY: within mappings that nobody else writes to.
                    unsafe {
                        let place = told.0.cast::<u64>().add(step * 3);
                        place.copy_from([before, (major + minor) as u64, after].as_ptr(), 3);
                        memory.0.add(step * PAGE).write_volatile(1);
                    }
                    // So that trapline begins within its life.
                    std::thread::sleep(Duration::from_millis(1));
                }
                // SAFETY: ends this process.
                unsafe { libc::_exit(0) };
            }
            alive.push((child, told));
        }
    });
    while !alive.is_empty() {
        reap(&mut alive);
    }
    for (pid, said) in done {
        println!(r#"{{"pid":{pid},"said":{said:?}}}"#);
    }
}

/// The same by threads of one process.
pub fn births_of_threads() {
    static SAID: [[AtomicU64; STEPS * 3]; ALIVE] =
        [const { [const { AtomicU64::new(0) }; STEPS * 3] }; ALIVE];
    fn live(number: usize) {
        let memory = map(STEPS * PAGE, 0);
        for (step, place) in SAID[number].chunks_exact(3).enumerate() {
            let before = now_ns();
            let (major, minor) = fixture::thread_faults();
            let after = now_ns();
            for (place, said) in place.iter().zip([before, (major + minor) as u64, after]) {
                place.store(said, Ordering::Relaxed);
            }
            // SAFETY: within the mapping, which is writable.
            unsafe { memory.0.add(step * PAGE).write_volatile(1) };
            // So that trapline begins within its life.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let end = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&end);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        ending.store(true, Ordering::Relaxed);
    });
    let mut further = FURTHER / ALIVE;
    let mut done = Vec::new();
    while further > 0 {
        further -= usize::from(end.load(Ordering::Relaxed));
        let ended = fixture::in_threads(ALIVE, live);
        if done.is_empty() {
            println!("some have ended");
        }
        for (number, (tid, major, minor)) in ended.into_iter().enumerate() {
            let mut said: Vec<u64> = SAID[number].iter().map(|place| place.load(Ordering::Relaxed)).collect();
            said.push((major + minor) as u64);
            done.push((tid, said));
        }
    }
    for (tid, said) in done {
        println!(r#"{{"tid":{tid},"said":{said:?}}}"#);
    }
}

/// What a child of `births` did after a moment: at least and at most. The two differ by what it did at that moment.
fn done_after(life: &Value, moment: u64) -> (u64, u64) {
    let said: Vec<u64> = life["said"].as_array().unwrap().iter().map(u).collect();
    let (steps, all) = (said.chunks_exact(3), said[said.len() - 1]);
    let least_before = steps.clone().filter(|step| step[2] <= moment).map(|step| step[1]).max();
    let most_before = steps.filter(|step| step[0] >= moment).map(|step| step[1]).min();
    (all - most_before.unwrap_or(all), all - least_before.unwrap_or(0))
}

/// Runs trapline while children or threads are born all the time; gives what they say, too. `-p` is the storm.
fn beside_births(storm: &str, variant: &str, options: &[&str]) -> (Said, Vec<Value>) {
    let mut storm = spawn(&fixture(storm));
    let pid = storm.id().to_string();
    let options: Vec<&str> =
        options.iter().flat_map(|&o| [o].into_iter().chain((o == "-p").then_some(&*pid))).collect();
    let mut out = BufReader::new(storm.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    let trapline = Beside::start(faults(variant, &options));
    drop(storm.stdin.take());
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    assert!(storm.wait().unwrap().success());
    let said = trapline.interrupt();
    let lives: Vec<Value> = crate::run::lines(&text);
    (said, lives)
}

/// Nothing that was done before the moment that the header names is in a figure, and everything after it is: of those
/// that were there, of those that were born while trapline attached, and of those that were born later.
pub fn one_beginning(variant: &'static str) {
    // Now and then nobody is alive at that moment.
    let some_are_alive = |run: &dyn Fn() -> usize| assert!((0..20).any(|_| run() > 0), "nobody was alive");
    some_are_alive(&|| begins_for_all("births-of-threads", "tid", variant, &["-p"]));
    if variant == "rootless" {
        return;
    }
    some_are_alive(&|| begins_for_all("births", "pid", variant, &[]));
    if variant == "counters" {
        return;
    }
    // Where rows are of files, what nobody saw would be in none of them.
    let (said, lives) = beside_births("births", variant, &["--comm", "births", "--by", "file"]);
    let began = u(&said.header["start_ns"]);
    let least = lives.iter().map(|life| done_after(life, began).0).sum::<u64>();
    let named = said.totals.iter().filter(|t| t["file"] != "(not attributed)").map(faults_of).sum::<u64>();
    let nameless = said.totals.iter().map(faults_of).sum::<u64>() - named;
    // Kernels that preempt programs skip those that would interrupt themselves; they are counted, and bounded there.
    let missed = missed(&said.end);
    assert!(nameless <= ALIVE as u64 + 1 + missed, "{nameless} in {:?} {}", said.totals, said.end);
    assert!(named + nameless >= least, "{named} of {least}");
}

/// Gives how many were alive at the beginning.
fn begins_for_all(storm: &str, id: &str, variant: &str, options: &[&str]) -> usize {
    let (said, lives) = beside_births(storm, variant, options);
    let began = u(&said.header["start_ns"]);
    // A handler that was skipped met no thread: what that one did before the pass over all threads came to it lacks.
    let missed = missed(&said.end);
    let (mut before, mut across, mut after) = (0, 0, 0);
    for life in &lives {
        let (least, most) = done_after(life, began);
        let least = least.saturating_sub(missed);
        let (major, minor) = sum(&said.totals, |t| t[id] == life[id]);
        let counted = major + minor;
        assert!(
            (least..=most).contains(&counted),
            "{counted} of {life} since {began}: {least} to {most}; {}",
            said.end
        );
        if said.totals.iter().any(|t| t[id] == life[id] && u(&t["start_ns"]) >= began) {
            let all = life["said"].as_array().unwrap().last().map(u);
            assert_eq!(Some(counted), all, "{life} since {began}");
            after += 1;
        } else {
            *if most < STEPS as u64 / 8 { &mut before } else { &mut across } += 1;
        }
    }
    assert!(before > 0 && after > 0, "{before} before, {across} then, {after} after");
    across
}

/// What is counted while two watch the same threads is timed by both, until the end.
pub fn two_at_once(variant: &'static str) {
    let mut storm = fixture("storm");
    storm.extend(["2", "60000"].map(String::from));
    let storm = spawn(&storm);
    let pid = storm.id().to_string();
    let beside = || Beside::start(faults(variant, &["-p", &pid]));
    let (first, second) = (beside(), beside());
    let minor = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(7).unwrap().parse::<u64>().unwrap()
    };
    let before = minor();
    until("faults", || minor() >= before + 2000);
    let both = [first.interrupt(), second.interrupt()];
    for said in both {
        assert!(said.totals.iter().map(faults_of).sum::<u64>() > 1000, "{:?}", said.totals);
        // One fault of each thread may have been under way at either end.
        assert!(u(&said.end["unpaired_faults"]) <= 2, "{}", said.end);
        for total in &said.totals {
            assert!(u(&total["timed"]) + 2 >= faults_of(total), "{total}");
        }
    }
}
