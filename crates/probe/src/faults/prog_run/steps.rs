//! Messages at steps.

use bytemuck::Zeroable;
use fastrand::Rng;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};

use super::load;
use crate::abi::maps::faults as maps;
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
