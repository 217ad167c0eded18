//! Whether the kernel's balancing goes over files in memory (shmem: shared memory, tmpfs): tried on a process of our own.
//!
//! Such a file has a memory policy of its own, and the kernel goes over a mapping only if its policy asks for that
//! (`vma_policy_mof`): on 6.1 one without a policy, which is nearly every one, is left out. No file or flag tells.

#![allow(unsafe_code)]

use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use trapline_symbols::task::number;

const PAGE: usize = 4096;
const PAGES: usize = 64;
/// After a fork the code of the child itself is not there yet: it goes over the pages so often before it counts.
const WARM_UP: u32 = 16;
/// Rounds with faults: more than one, which something else might have caused.
const FAULTS: u32 = 2;
/// After so many passes a mapping that has not been gone over will not be: in the first one its pages may not have been
/// there, and a page that was gone over twice has had its two faults.
const PASSES: u64 = 6;
/// A machine that does not let us run has not answered.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Tries, while balancing is on and quick. Nothing if there was no answer.
pub(crate) fn goes_over_shared() -> Option<bool> {
    let len = NonZeroUsize::new(PAGES * PAGE)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let pages = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_SHARED) }.ok()?;
    // A process that is born now begins with the period that is set; one that was there before waits
    // for the period that it was born with.
    // SAFETY: until it ends the child only makes system calls and reads those pages.
    let seen = match unsafe { fork() } {
        Ok(ForkResult::Child) => touch(pages),
        Ok(ForkResult::Parent { child }) => watch(child),
        Err(_) => None,
    };
    // SAFETY: this mapping was made above, and nobody else knows of it.
    let _ = unsafe { munmap(pages, PAGES * PAGE) };
    seen
}

/// The life of the child: reads the pages again and again, until they were taken away from it.
fn touch(pages: NonNull<libc::c_void>) -> ! {
    // SAFETY: numbers. The child ends with its parent, whose haste it does not need.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
    }
    let mut met = 0;
    for round in 0u32.. {
        let (before, seconds) = faults_and_seconds();
        for at in 0..PAGES {
            // SAFETY: the page is mapped, and only read.
            unsafe { pages.cast::<u8>().add(at * PAGE).read_volatile() };
        }
        let faulted = faults_and_seconds().0 > before;
        met += u32::from(faulted && round >= WARM_UP);
        if met >= FAULTS || seconds > PATIENCE.as_secs() as i64 {
            // SAFETY: ends the process; nothing of the parent's is to be cleaned up here.
            unsafe { libc::_exit(i32::from(met < FAULTS)) }
        }
    }
    unreachable!("resets do not end")
}

/// Of this thread, so far.
fn faults_and_seconds() -> (i64, i64) {
    getrusage(UsageWho::RUSAGE_THREAD).map_or((0, 0), |usage| {
        (usage.minor_page_faults(), usage.user_time().tv_sec() + usage.system_time().tv_sec())
    })
}

/// Waits until the child has seen them taken away, or must have.
fn watch(child: Pid) -> Option<bool> {
    let began = Instant::now();
    let sched = File::open(format!("/proc/{child}/sched"));
    let passes = || number(sched.as_ref().ok()?, "mm->numa_scan_seq").ok()?;
    let first = passes();
    let is_over = loop {
        std::thread::sleep(LOOK_EVERY);
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(WaitStatus::Exited(_, 0)) => return Some(true),
            _ => return None,
        }
        if let (Some(first), Some(now)) = (first, passes())
            && now >= first + PASSES
        {
            break true;
        }
        if began.elapsed() > PATIENCE {
            break false;
        }
    };
    let _ = kill(child, Signal::SIGKILL);
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, 0)) => Some(true),
        _ => is_over.then_some(false),
    }
}
