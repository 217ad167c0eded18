//! A fault's time is what its thread waited, by the thread's own clocks.

#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::faults::cause::uffd;
use crate::fixture::{Memory, PAGE, cold_file, gettid, look, map, map_of, touch};
use crate::run::{Place, Said, faults, fixture, place, u};
use crate::running::until;

/// How often a machine that is busy may be in the way: the thread loses its processor between the fault and its clock.
const TRIES: usize = 6;

/// From here on, only what is more urgent takes the processor from this thread.
fn be_urgent() {
    let how = libc::sched_param { sched_priority: 10 };
    // SAFETY: numbers. It may be refused; then other tries make up for it.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const how) };
}

/// Touches one page of new memory after the other, until it is told to stop, and counts them. Gives the longest that took,
/// and where.
fn touch_each(touched: &AtomicUsize, stop: &AtomicBool) -> (u128, usize) {
    let memory = map(256 << 20, 0);
    let mut longest = (0, 0);
    for offset in (0..memory.len()).step_by(PAGE) {
        let began = Instant::now();
        // SAFETY: within the mapping, which is writable.
        unsafe { ptr::write_volatile(memory.0.add(offset), 1) };
        longest = longest.max((began.elapsed().as_nanos(), memory.0 as usize + offset));
        touched.fetch_add(1, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    longest
}

/// What the thread did so far: its switches of its own will, and the nanoseconds of its processor.
fn own_account() -> (i64, u64) {
    // SAFETY: both are filled; all-zero is a valid one of either.
    unsafe {
        let (mut usage, mut cpu) = (std::mem::zeroed::<libc::rusage>(), std::mem::zeroed::<libc::timespec>());
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut cpu);
        (usage.ru_nvcsw, cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64)
    }
}

/// Reads one byte of each page, and prints in how many pages the thread slept, and for how long it was off its processor
/// there.
fn account_for(memory: &Memory, step: usize) {
    be_urgent();
    let (mut waits, mut off_ns) = (0, 0);
    for offset in (0..memory.len()).step_by(step) {
        let (began, before) = (Instant::now(), own_account());
        look(memory, offset);
        let (after, all) = (own_account(), began.elapsed().as_nanos() as u64);
        if after.0 != before.0 {
            waits += 1;
            off_ns += all.saturating_sub(after.1 - before.1);
        }
    }
    let (tid, from) = (gettid(), memory.0 as usize);
    let to = from + memory.len();
    println!(r#"{{"what":"waits","tid":{tid},"from":{from},"to":{to},"waits":{waits},"off_ns":{off_ns}}}"#);
}

/// Each page is waited for: somebody else brings it.
pub fn for_somebody() {
    account_for(&uffd::slow(20, Duration::from_millis(10)), PAGE);
}

/// Pages of a file that is being read meanwhile: some are waited for, and the kernel calls them minor faults.
pub fn for_readahead() {
    const PAGES: usize = 16 << 10;
    let file = cold_file("read-meanwhile", PAGES);
    let memory = map_of(PAGES * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
    // SAFETY: the mapping is ours.
    unsafe { libc::madvise(memory.0.cast(), memory.1, libc::MADV_WILLNEED) };
    account_for(&memory, PAGE);
}

/// One thread touches new memory while another forks, which takes the lock of the address space.
pub fn beside_forks(mib: usize) {
    let large = map(mib << 20, 0);
    touch(&large);
    let (touched, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            be_urgent();
            (gettid(), touch_each(&touched, &stop))
        });
        for n in 1..=10 {
            until("pages are touched", || touched.load(Ordering::Relaxed) > 20 * n);
            // SAFETY: the child does nothing but end.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::_exit(0);
                }
                libc::waitpid(child, ptr::null_mut(), 0);
            }
        }
        stop.store(true, Ordering::Relaxed);
        let (tid, (ns, addr)) = thread.join().unwrap();
        println!("{{\"what\":\"touch\",\"tid\":{tid},\"longest_ns\":{ns},\"addr\":{addr}}}");
    });
}

/// On every variant the wait for the lock of the address space is in the time of the fault.
pub fn waits_for_the_lock(variant: &'static str) {
    let mut words = fixture("beside-forks");
    words.push(if place() == Place::Vm { "128" } else { "384" }.into());
    let mut met = Vec::new();
    for _ in 0..TRIES {
        let said = Said::by(faults(variant, &["-v"]).arg("--").args(&words));
        let truth = &said.truth[0];
        let mut own_faults = said.events.iter().filter(|event| event["tid"] == truth["tid"]);
        let fault = own_faults.find(|event| event["addr"] == truth["addr"]).unwrap();
        let (own, ours) = (u(&truth["longest_ns"]), u(&fault["latency_ns"]));
        assert!(ours <= own, "{fault} {truth}");
        // Less than that is no wait for a fork.
        if own > 500_000 && ours >= own / 10 * 9 {
            return;
        }
        met.push((ours, own));
    }
    panic!("the longest fault, by us and by itself: {met:?}");
}

/// The faults in which a thread slept are those in which it gave its processor away, and for as long.
pub fn waits_are_its_own_switches(variant: &'static str) {
    for (name, causes) in
        [("for-somebody", &["userfaultfd"][..]), ("for-readahead", &["file-wait", "file-read"])]
    {
        let said = Said::by(faults(variant, &["-v"]).arg("--").args(fixture(name)));
        let truth = &said.truth[0];
        let within = |event: &&Value| {
            (u(&truth["from"])..u(&truth["to"])).contains(&event["addr"].as_u64().unwrap_or(0))
        };
        let slept = |event: &&Value| event["wait_ns"].as_u64().is_some_and(|ns| ns > 0);
        let waits: Vec<_> = said.events.iter().filter(within).filter(slept).collect();
        assert!(u(&truth["waits"]) > 0, "{name}: nothing was waited for");
        assert_eq!(waits.len() as u64, u(&truth["waits"]), "{name}: {truth}");
        let ns: u64 = waits.iter().map(|event| u(&event["wait_ns"])).sum();
        // Beside it, other threads may have taken the processor.
        let own = u(&truth["off_ns"]);
        assert!(ns <= own / 20 * 21 && ns >= own / 10 * 8, "{name}: {ns} of {own} ns");
        for event in waits {
            assert!(u(&event["wait_ns"]) <= u(&event["latency_ns"]), "{event}");
            assert!(causes.contains(&event["cause"].as_str().unwrap()), "{event}");
        }
        let row = said.totals.iter().find(|total| total["tid"] == truth["tid"]).unwrap();
        let own = || said.events.iter().filter(|event| event["tid"] == truth["tid"]).filter(slept);
        assert_eq!(u(&row["waits"]), own().count() as u64, "{row}");
        assert_eq!(u(&row["wait_ns"]), own().map(|event| u(&event["wait_ns"])).sum::<u64>(), "{row}");
    }
}

/// What was waited for is timed, whatever is sampled, and stands for no other fault.
pub fn waits_are_not_sampled(variant: &'static str) {
    for which in ["1:64", "off"] {
        let said =
            Said::by(faults(variant, &["--minor-latency", which]).arg("--").args(fixture("for-somebody")));
        let truth = &said.truth[0];
        let row = said.totals.iter().find(|total| total["tid"] == truth["tid"]).unwrap();
        let (own, ours) = (u(&truth["off_ns"]), u(&row["wait_ns"]));
        assert!(u(&row["waits"]) >= 20 && u(&row["waits"]) < 30, "{row}");
        assert!(ours >= own / 10 * 8 && ours <= own + own / 5, "{row} {truth}");
        if which != "off" {
            let total = u(&row["total_ns"]);
            assert!(total >= ours && total <= ours + ours / 2, "{row}");
        }
    }
}
