//! Messages at steps.

use std::cell::Cell;
use std::rc::Rc;

use bytemuck::Zeroable;
use fastrand::Rng;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};
use trapline_model::faults::{Process, StallRule, Stalls};

use super::load;
use crate::abi::maps::{MapName, faults as maps};
use crate::abi::{self, FaultsConfig, FaultsStep};
use crate::prog_run::{of_any_magnitude, resize};
use crate::ring::Ring;
use crate::variant::Attached;

/// The kernel half with that step, and its ring: of each message the process, and the multiples.
fn half(step: u64) -> (Attached, Ring<(u32, u64, u64)>) {
    let config =
        FaultsConfig { ring: abi::RING_STEPS, step, step_of: abi::STEP_ALL, ..FaultsConfig::zeroed() };
    let half = load(config, |object| resize(object, maps::EVENTS, 1 << 16));
    let ring = Ring::new(&half.handle(maps::EVENTS).unwrap(), |e: &FaultsStep| [(e.pid, e.first, e.last)]);
    (half, ring.unwrap())
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn each_multiple_of_a_step_is_in_one_message_of_its_process() {
    let mut random = Rng::with_seed(8);
    for step in [1, 7, 50, 1 << 20, 10_000_000] {
        let (half, ring) = half(step);
        let (mut did, mut passed) = ([0u64; 8], [0u64; 8]);
        let mut messages = vec![];
        for _ in 0..2000 {
            let (process, more) = (random.usize(0..8), of_any_magnitude(&mut random, 28));
            half.run("test_process_did", &[process as u64, more]);
            did[process] += more;
            ring.drain(&mut messages).unwrap();
            for (pid, first, last) in messages.drain(..) {
                let of = pid as usize - 1;
                assert_eq!((of, first), (process, passed[of] + 1), "step {step}");
                passed[of] = last;
            }
            assert_eq!(passed[process], did[process] / step, "step {step}, {} done", did[process]);
        }
    }
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn what_comes_while_the_ring_is_read_does_not_keep_its_reader() {
    let (half, _) = half(1);
    let (half, sent) = (Rc::new(half), Rc::new(Cell::new(0)));
    let bytes = 1 << 16;
    let send = {
        let (half, sent) = (Rc::clone(&half), Rc::clone(&sent));
        move || {
            sent.set(sent.get() + 1);
            if sent.get() < bytes {
                half.run("test_process_did", &[0, 1]);
            }
        }
    };
    send();
    // For each message that is read there comes another.
    let ring = Ring::new(&half.handle(maps::EVENTS).unwrap(), move |e: &FaultsStep| {
        send();
        [e.first]
    });
    let (ring, mut messages) = (ring.unwrap(), vec![]);
    ring.drain(&mut messages).unwrap();
    let most = bytes / (8 + size_of::<FaultsStep>());
    assert!((1..=most).contains(&messages.len()), "{} of {most}", messages.len());
    assert!(messages.is_sorted(), "{messages:?}");
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn stalls_are_those_of_the_model() {
    let mut random = Rng::with_seed(23);
    for window_ns in [1_000_000, 77_777_777, 3_600_000_000_000] {
        let rule = StallRule::new(random.u64(1..window_ns), window_ns).unwrap();
        let config = FaultsConfig {
            ring: abi::RING_STEPS,
            step: rule.least_ns,
            step_of: abi::STEP_WITHIN,
            tick_ns: rule.tick_ns(),
            ..FaultsConfig::zeroed()
        };
        let half = load(config, |object| resize(object, maps::STALLS, 16));
        let (mut stalls, mut now, mut reported) = (Stalls::new(rule), 40 * window_ns, 0);
        for n in 0..3000 {
            // Mostly less than a window passes, and threads come a little late.
            now += random.u64(0..window_ns / 8) * if n % 100 == 0 { 40 } else { 1 };
            let at = now - random.u64(0..window_ns / 64);
            let (pid, ns) = (random.u32(1..4), random.u64(1..window_ns / 4) * random.u64(1..12));
            half.run("test_slept", &[pid.into(), at, ns]);
            let out: [u64; 8] = half.read(MapName(".bss.test_out")).unwrap();
            let expected = stalls.add(Process { pid, start_ns: 0 }, at, ns);
            assert_eq!(out[0], expected.unwrap_or(0), "{rule:?}: {n}");
            reported += u32::from(expected.is_some());
        }
        assert!(reported > 20, "{rule:?}: {reported}");
    }
}

/// Goes on from 0 to `most` faults, by any amounts: after each, the last multiple is known.
fn count(half: &Attached, ring: &Ring<(u32, u64, u64)>, random: &mut Rng, step: u64, most: u64) {
    let (mut faults, mut passed) = (0, 0);
    let mut messages = vec![];
    while faults < most {
        let steps = random.u64(0..3);
        faults += random.u64(1..=1 + step * steps);
        assert_eq!(half.run("test_count_steps", &[faults]), 0);
        ring.drain(&mut messages).unwrap();
        for (_, first, last) in messages.drain(..) {
            assert_eq!(first, passed + 1, "step {step}");
            passed = last;
        }
        assert_eq!(passed, faults / step, "step {step}, {faults} faults");
    }
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_thread_among_others_reports_each_multiple_at_once() {
    let mut random = Rng::with_seed(9);
    for step in [1, 3, 50] {
        let (half, ring) = half(step);
        count(&half, &ring, &mut random, step, 1000 * step);
    }
}

/// Such a thread keeps to itself what it did until the next multiple.
#[test]
#[ignore = "needs root: `make test` runs it"]
#[allow(unsafe_code)]
fn the_only_thread_of_a_process_reports_each_multiple_at_once() {
    let mut random = Rng::with_seed(10);
    for step in [1, 3, 50] {
        let (half, ring) = half(step);
        // SAFETY: the child goes through the ring and makes system calls; should it wait for a lock that another thread
        // had, the alarm ends it.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                alarm::set(20);
                let counts =
                    std::panic::AssertUnwindSafe(|| count(&half, &ring, &mut random, step, 1000 * step));
                let failed = std::panic::catch_unwind(counts).is_err();
                // SAFETY: nothing of this process is to be cleaned up by its copy.
                unsafe { libc::_exit(failed.into()) };
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0), "step {step}");
            }
        }
    }
}
