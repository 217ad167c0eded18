//! A fault's time is what its thread waited, by the thread's own clock.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fixture::{PAGE, gettid, map, touch};
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
    words.push(if place() == Place::Vm { "32" } else { "384" }.into());
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
