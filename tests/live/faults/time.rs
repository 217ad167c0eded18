//! A fault's time is what its thread waited, by the thread's own clocks.

#![allow(unsafe_code)]

pub mod slow_file;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::faults::cause::uffd;
use crate::faults::frame::cgroup_root;
use crate::fixture::{Memory, PAGE, cold_file, gettid, look, map, map_of};
use crate::run::{Place, Said, faults, fixture, in_full, place, u};
use crate::running::{Recording, Tracer, Worker, until};

/// How often a machine that is busy may be in the way: the thread loses its processor between the fault and its clock.
const TRIES: usize = 6;

/// From here on, only what is more urgent takes the processor from this thread.
pub fn be_urgent() {
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

/// What the kernel's scheduler says of this thread, nanoseconds: how long it waited for a processor, and for I/O, as far as
/// that is accounted for.
fn scheduler_account() -> (u64, Option<u64>) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number =
        |text: &str, at: usize| text.split_whitespace().nth(at).and_then(|word| word.parse::<u64>().ok());
    let run_delay = number(&read("/proc/thread-self/schedstat"), 1).unwrap();
    let is_accounted = read(DELAY_ACCOUNTING).trim() == "1";
    // Field 42 of all, the 40th behind the name.
    let stat = read("/proc/thread-self/stat");
    let ticks = number(stat.rsplit(')').next().unwrap(), 39).unwrap();
    // SAFETY: a number.
    let tick_ns = 1_000_000_000 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    (run_delay, is_accounted.then_some(ticks * tick_ns))
}

/// For threads that start from then on.
const DELAY_ACCOUNTING: &str = "/proc/sys/kernel/task_delayacct";

/// Reads one byte of each page, and prints in how many pages the thread slept, and for how long it was off its processor
/// there.
fn account_for(memory: &Memory, step: usize) {
    be_urgent();
    let (mut waits, mut off_ns) = (0, 0);
    let (run_delay, blkio) = scheduler_account();
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
    let (run_delay_after, blkio_after) = scheduler_account();
    let account = serde_json::json!({
        "what": "waits", "tid": tid, "from": from, "to": to, "waits": waits, "off_ns": off_ns,
        "run_delay_ns": run_delay_after - run_delay,
        "blkio_ns": blkio_after.map(|after| after - blkio.unwrap_or(0)),
    });
    println!("{account}");
}

/// Each page is waited for: somebody else brings it.
pub fn for_somebody() {
    account_for(&uffd::slow(20, Duration::from_millis(10)), PAGE);
}

/// Waits for a page, and neither faults nor sleeps from there on: it ends, or its processor is never free again.
pub fn last_wait(ends: bool) {
    let memory = uffd::slow(1, Duration::from_millis(10));
    println!(r#"{{"what":"last","tid":{}}}"#, gettid());
    if !ends {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        be_urgent();
    }
    look(&memory, 0);
    if ends {
        // SAFETY: a number.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
    loop {
        std::hint::spin_loop();
    }
}

/// Pages of a file on a slow device.
pub fn for_a_device() {
    account_for(&slow_file::map_slow_file(DEVICE_PAGES, DEVICE_TIME), PAGE);
}

const DEVICE_PAGES: usize = 10;
const DEVICE_TIME: Duration = Duration::from_millis(20);

/// Pages of a file that is being read meanwhile: some are waited for, and the kernel calls them minor faults.
pub fn for_readahead() {
    const PAGES: usize = 16 << 10;
    let file = cold_file("read-meanwhile", PAGES);
    let memory = map_of(PAGES * PAGE, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ);
    // SAFETY: the mapping is ours.
    unsafe { libc::madvise(memory.0.cast(), memory.1, libc::MADV_WILLNEED) };
    account_for(&memory, PAGE);
}

/// Touches each huge page once, which takes long to clear, on a processor that a more urgent thread wants again and again.
pub fn preempted() {
    // SAFETY: numbers, and a set that is filled before it is used.
    let pin = || unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    };
    let (wanted, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let memory = map(256 << 20, 0);
    // SAFETY: the mapping is ours.
    unsafe { libc::madvise(memory.0.cast(), memory.1, libc::MADV_HUGEPAGE) };
    pin();
    let run_delay = std::thread::scope(|scope| {
        scope.spawn(|| {
            pin();
            be_urgent();
            wanted.store(true, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                while began.elapsed() < Duration::from_micros(100) {}
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        // Before that, nothing takes the processor while this thread faults.
        until("the processor is wanted", || wanted.load(Ordering::Relaxed));
        let (before, _) = scheduler_account();
        // Further pages of each would be no faults, and an emulated processor takes as long for them.
        for offset in (0..memory.1).step_by(2 << 20) {
            // SAFETY: within the mapping, which is writable.
            unsafe { ptr::write_volatile(memory.0.add(offset), 1) };
        }
        let (after, _) = scheduler_account();
        stop.store(true, Ordering::Relaxed);
        after - before
    });
    println!(r#"{{"what":"preempted","tid":{},"run_delay_ns":{run_delay}}}"#, gettid());
}

/// One thread touches new memory while another forks, which takes the lock of the address space.
pub fn beside_forks(mib: usize) {
    let large = map(mib << 20, 0);
    // Its pages are there without a fault each, which would fill the ring.
    // SAFETY: the whole of a mapping of our own.
    let populated = unsafe { libc::madvise(large.0.cast(), large.1, libc::MADV_POPULATE_WRITE) };
    assert_eq!(populated, 0, "{}", std::io::Error::last_os_error());
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
        assert_eq!(said.end["lost_events"], 0);
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
        let mut met = Vec::new();
        while let Some((count, ours, own)) = waits_of(variant, name, causes) {
            // Beside it, other threads may have taken the processor: on an emulated machine for as long as it waits for a page.
            let least = own / 10 * if in_full() { 8 } else { 5 };
            // The thread's own clock stops before our programs see the switch and goes on before they see the one back: what
            // they take in between is up to 0.11 ms a wait where the processor is emulated (7.3, five runs: 86 to 107 us).
            let seen_late = if in_full() { 0 } else { 120_000 * count };
            if (least..=own / 20 * 21 + seen_late).contains(&ours) {
                break;
            }
            met.push((ours, own));
            assert!(met.len() < TRIES, "{name}: the time asleep, by us and by itself: {met:?}");
        }
    }
}

/// In how many faults a fixture slept, which have these causes, and how long: by us, and by itself.
fn waits_of(variant: &str, name: &str, causes: &[&str]) -> Option<(u64, u64, u64)> {
    let said = Said::by(faults(variant, &["-v"]).arg("--").args(fixture(name)));
    let truth = &said.truth[0];
    let within =
        |event: &&Value| (u(&truth["from"])..u(&truth["to"])).contains(&event["addr"].as_u64().unwrap_or(0));
    let slept = |event: &&Value| event["wait_ns"].as_u64().is_some_and(|ns| ns > 0);
    let waits: Vec<_> = said.events.iter().filter(within).filter(slept).collect();
    if u(&truth["waits"]) == 0 && name == "for-readahead" && !in_full() {
        // An emulated processor reads pages more slowly than the host's cache gives them.
        return None;
    }
    assert!(u(&truth["waits"]) > 0, "{name}: nothing was waited for");
    assert_eq!(waits.len() as u64, u(&truth["waits"]), "{name}: {truth}");
    for event in &waits {
        assert!(u(&event["wait_ns"]) <= u(&event["latency_ns"]), "{event}");
        assert!(causes.contains(&event["cause"].as_str().unwrap()), "{event}");
    }
    let row = said.totals.iter().find(|total| total["tid"] == truth["tid"]).unwrap();
    let own = || said.events.iter().filter(|event| event["tid"] == truth["tid"]).filter(slept);
    assert_eq!(u(&row["waits"]), own().count() as u64, "{row}");
    assert_eq!(u(&row["wait_ns"]), own().map(|event| u(&event["wait_ns"])).sum::<u64>(), "{row}");
    let ns = waits.iter().map(|event| u(&event["wait_ns"])).sum();
    Some((waits.len() as u64, ns, u(&truth["off_ns"])))
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
            // Another fault that the emulator held up counts 64 times.
            assert!(total >= ours && (total <= ours + ours / 2 || !in_full()), "{row}");
        }
    }
}

/// Nothing comes behind a fault that would tell of its end, but its thread's or the trace's.
pub fn the_last_wait_is_seen(variant: &'static str) {
    let row_of = |totals: &[Value], tid: &Value| {
        totals.iter().find(|total| total["type"] == "total" && total["tid"] == *tid).unwrap().clone()
    };
    let off = |arguments: &[&str]| faults(variant, &[&["--minor-latency", "off"], arguments].concat());
    let is_there = |row: &Value| assert!(u(&row["waits"]) >= 1 && u(&row["wait_ns"]) >= 9_000_000, "{row}");

    let said = Said::by(off(&["--"]).args(fixture("last-wait")).arg("ends"));
    is_there(&row_of(&said.totals, &said.truth[0]["tid"]));

    let mut spins = Worker::start(&[fixture("last-wait"), vec!["spins".to_owned()]].concat());
    let tid: Value = serde_json::from_str::<Value>(&spins.line()).unwrap()["tid"].clone();
    let file = Recording::new("last-wait");
    let mut command = off(&["-p", &tid.to_string()]);
    command.stdout(File::create(&file.0).unwrap());
    let tracer = Tracer::start(command, file).begun();
    spins.tell("");
    until("it is back from its fault", || used_ticks(spins.id()) > 5);
    is_there(&row_of(&tracer.interrupt(), &tid));
}

/// How much of its processor a process has used, in ticks of the clock.
fn used_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(11).unwrap().parse().unwrap()
}

const PARTS: [&str; 7] =
    ["lock_ns", "io_ns", "reclaim_ns", "throttled_ns", "preempted_ns", "sleep_ns", "kernel_ns"];

fn parts(of: &Value) -> u64 {
    PARTS.iter().map(|part| of[part].as_u64().unwrap_or(0)).sum()
}

/// The parts of each fault and of each row are its time, and what was waited for is in the part of that.
pub fn parts_are_all_of_it(variant: &'static str) {
    let mib = if place() == Place::Vm { "128" } else { "384" };
    let cases = [
        ("for-somebody", "1", "sleep_ns"),
        ("for-readahead", "1", "io_ns"),
        ("beside-forks", mib, "lock_ns"),
        ("preempted", "1", "preempted_ns"),
        ("kinds", "3", "kernel_ns"),
    ];
    let huge = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    for (name, number, part) in cases {
        if name == "preempted" && (huge.is_empty() || huge.contains("[never]")) {
            continue;
        }
        let mut words = fixture(name);
        words.push(number.into());
        let said = Said::by(faults(variant, &["-v", "--split"]).arg("--").args(words));
        for event in said.events.iter().filter(|event| !event["latency_ns"].is_null()) {
            assert_eq!(parts(event), u(&event["latency_ns"]), "{name}: {event}");
        }
        for row in said.totals.iter().filter(|row| !row["total_ns"].is_null()) {
            assert_eq!(parts(row), u(&row["total_ns"]), "{name}: {row}");
        }
        let row = said.totals.iter().find(|row| row["tid"] == said.truth[0]["tid"]).unwrap();
        match part {
            "kernel_ns" => assert!(u(&row[part]) > 0, "{row}"),
            // By the scheduler's own account; nearly all that the thread does is to fault.
            "preempted_ns" => {
                let (ours, own) = (u(&row[part]), u(&said.truth[0]["run_delay_ns"]));
                assert!(u(&row["waits"]) < 10 && ours >= own / 2 && ours <= own / 20 * 21, "{row} {own}");
            }
            // It may have waited for something else, too.
            _ => assert!(u(&row[part]) >= u(&row["wait_ns"]) / 10 * 8, "{name}: {row}"),
        }
    }
}

/// What a device takes is in the time of the faults that wait for it, as I/O, by the kernel's own account of that.
pub fn a_slow_device(variant: &'static str) {
    if place() == Place::Vm {
        std::fs::write(DELAY_ACCOUNTING, "1").unwrap();
    }
    let said = Said::by(faults(variant, &["-v", "--split"]).arg("--").args(fixture("for-a-device")));
    let truth = &said.truth[0];
    let within =
        |event: &&Value| (u(&truth["from"])..u(&truth["to"])).contains(&event["addr"].as_u64().unwrap_or(0));
    let (mut waits, mut io) = (0, 0);
    for event in said.events.iter().filter(within) {
        let latency = u(&event["latency_ns"]);
        assert!(event["kind"] == "major" && event["cause"] == "file-read", "{event}");
        assert!(latency >= DEVICE_TIME.as_nanos() as u64, "{event}");
        // The rest is the kernel's own work for the server, which an emulated processor needs as long for.
        let answered = DEVICE_TIME.as_nanos() as u64 / 10 * 9;
        assert!(u(&event["io_ns"]) >= answered && parts(event) == latency, "{event}");
        (waits, io) = (waits + 1, io + u(&event["io_ns"]));
    }
    assert_eq!((waits, u(&truth["waits"])), (DEVICE_PAGES as u64, DEVICE_PAGES as u64), "{truth}");
    // The kernel's account of I/O begins before the thread leaves its processor and ends when it may run again, ours is
    // of the switches; and the kernel's is the difference of two numbers of whole ticks, 10 ms each.
    if let Some(own) = truth["blkio_ns"].as_u64() {
        let apart = 10_000_000 + io / 20;
        let most = own + apart + u(&truth["run_delay_ns"]);
        assert!(io + apart >= own && io <= most, "{io} ns: {truth}");
    } else {
        assert!(place() != Place::Vm, "{truth}");
    }
}

/// A cgroup for one command, which runs on one processor: what the kernel says that a cgroup was stalled is a mean over the
/// processors, weighted by what the cgroup did on each, so of a thread that moves there may be any part of it in there
/// (Documentation/accounting/psi.rst, kernel/sched/psi.c).
fn in_a_cgroup(
    variant: &str,
    options: &[&str],
    limit: (&str, &str),
    words: &[String],
) -> (Said, impl Fn(&str) -> String + use<>) {
    let root = cgroup_root();
    std::fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
    // A cgroup of its own each time: what it accounts for begins with it.
    let dir = tempfile::Builder::new().prefix("trapline-time-").tempdir_in(root).unwrap().keep();
    std::fs::write(dir.join(limit.0), limit.1).unwrap();
    let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", dir.display());
    let shell = ["taskset", "-c", "0", "sh", "-c", &join, "sh"];
    let said = Said::by(faults(variant, options).arg("--").args(shell).args(words));
    (said, move |file| std::fs::read_to_string(dir.join(file)).unwrap())
}

/// The number behind a name, in a file of a cgroup.
fn figure(text: &str, name: &str) -> u64 {
    let at = text.find(name).unwrap_or_else(|| panic!("no {name} in {text}")) + name.len();
    let digits: String = text[at..].trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// At most what a cgroup was stalled for memory, nanoseconds: its clock is not ours.
fn most_stalled(pressure: &str) -> u64 {
    figure(pressure, "total=") * 1200
}

/// What memory.high makes a thread wait is in the time of its faults, as the cgroup's own account has it.
pub fn memory_high(variant: &'static str) {
    let mut words = fixture("touch");
    words.push("4100".into());
    for (options, least) in [(["--slower", "5ms"], 5_000_000), (["-v", "--split"], 0)] {
        let limited = in_a_cgroup(variant, &options, ("memory.high", "16M"), &words);
        throttled_is_in_rows_and_lines(&limited.0, limited.1, least);
    }
}

fn throttled_is_in_rows_and_lines(said: &Said, read: impl Fn(&str) -> String, least: u64) {
    let stalled = figure(&read("memory.pressure"), "total=") * 1000;
    let throttled: u64 = said.totals.iter().map(|row| u(&row["throttled_ns"])).sum();
    assert!(stalled > 10_000_000, "nothing was throttled: {}", read("memory.pressure"));
    let most = most_stalled(&read("memory.pressure"));
    assert!(throttled <= most && throttled >= stalled / 2, "{throttled} of {stalled} ns");
    for row in said.totals.iter().filter(|row| !row["total_ns"].is_null()) {
        assert_eq!(parts(row), u(&row["total_ns"]), "{row}");
    }
    // No such wait is shorter than a tick of the kernel's, and the fault before it has a line for it.
    for event in &said.events {
        let Some(ns) = event["latency_ns"].as_u64() else { continue };
        assert!(ns >= least && parts(event) == ns, "{event}");
    }
    let longest = said.events.iter().filter_map(|event| event["latency_ns"].as_u64()).max();
    assert_eq!(said.totals.iter().filter_map(|row| row["max_ns"].as_u64()).max(), longest);
    let in_lines: u64 = said.events.iter().filter_map(|event| event["throttled_ns"].as_u64()).sum();
    assert!(in_lines <= throttled && in_lines >= throttled / 10 * 9, "{in_lines} of {throttled} ns");
}

/// Memory is reclaimed in faults where a cgroup has too little.
pub fn memory_max(variant: &'static str) {
    let (said, read) = in_a_cgroup(variant, &["--split"], ("memory.max", "24M"), &fixture("for-readahead"));
    let row = said.totals.iter().find(|row| row["tid"] == said.truth[0]["tid"]).unwrap();
    assert!(figure(&read("memory.events"), "max ") > 0, "{}", read("memory.events"));
    assert!(u(&row["reclaim_ns"]) > 0 && parts(row) == u(&row["total_ns"]), "{row}");
    let most = most_stalled(&read("memory.pressure")) + 1_000_000;
    assert!(u(&row["reclaim_ns"]) <= most, "{row}: {most} ns");
}

/// Faults that took that long have a line, and no others.
pub fn slower(variant: &'static str) {
    let said = Said::by(faults(variant, &["--slower", "5ms"]).arg("--").args(fixture("for-somebody")));
    let own = said.events.iter().filter(|event| event["tid"] == said.truth[0]["tid"]);
    assert!(own.filter(|event| event["cause"] == "userfaultfd").count() == 20, "{:?}", said.events);
    for event in &said.events {
        // Of `look` the innermost function: what reads may be inlined there.
        let is_of_look = |name: &str| ["look", "read_volatile"].iter().any(|own| name.contains(own));
        let is_own = event["cause"] == "userfaultfd" && event["tid"] == said.truth[0]["tid"];
        assert!(!is_own || event["function"].as_str().is_some_and(is_of_look), "{event}");
        assert!(u(&event["latency_ns"]) >= 5_000_000 && parts(event) == u(&event["latency_ns"]), "{event}");
    }
    let said =
        Said::by(faults(variant, &["--log-step", "5", "--waits"]).arg("--").args(fixture("for-somebody")));
    assert!(said.events.len() >= 4 && said.events.len() < 6, "{:?}", said.events);
}
