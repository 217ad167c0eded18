//! Memory that a userfaultfd of the same process looks after: pages that are missing, anonymous and shared, and pages
//! that may not be written to.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::faults::cause::provoke::{Means, Provoked, each_page};
use crate::fixture::{Memory, PAGE, look, map, map_of, read_all, touch};

/// include/uapi/linux/userfaultfd.h
const fn request(nr: u64, words: usize) -> u64 {
    3 << 30 | ((words * 8) as u64) << 16 | 0xAA << 8 | nr
}
const API: u64 = request(0x3f, 3);
const REGISTER: u64 = request(0x00, 4);
const COPY: u64 = request(0x03, 5);
const WRITEPROTECT: u64 = request(0x06, 3);
const MODE_MISSING: u64 = 1;
const MODE_WP: u64 = 2;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_WP: u64 = 1;
const PROTECT: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WP: u64 = 2;

fn ioctl<const N: usize>(fd: &OwnedFd, request: u64, mut words: [u64; N]) {
    // SAFETY: all these requests take a structure of N words.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) };
    assert_eq!(done, 0, "{request:#x}: {}", std::io::Error::last_os_error());
}

/// Waits until the first thread, which takes the faults, sleeps: a fault of shared memory is known by that, and on a busy
/// machine the answer could come before it.
fn wait_for_sleep() {
    let place = format!("/proc/self/task/{}/wchan", std::process::id());
    while std::fs::read_to_string(&place).unwrap() == "0" {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Answers each fault until the descriptor has no memory left to look after, which is when the process ends.
fn serve(fd: &OwnedFd, after: Duration) {
    let page = [7u64; PAGE / 8];
    loop {
        let mut message = [0u64; 4];
        // SAFETY: a message is 32 bytes.
        let n = unsafe { libc::read(fd.as_raw_fd(), message.as_mut_ptr().cast(), 32) };
        assert_eq!(n, 32);
        let [event, flags, addr, _] = message;
        assert_eq!(event as u8, EVENT_PAGEFAULT);
        wait_for_sleep();
        std::thread::sleep(after);
        let addr = addr & !(PAGE as u64 - 1);
        if flags & FLAG_WP != 0 {
            ioctl(fd, WRITEPROTECT, [addr, PAGE as u64, 0]);
        } else {
            ioctl(fd, COPY, [addr, page.as_ptr() as u64, PAGE as u64, 0, 0]);
        }
    }
}

pub fn userfaultfd() -> Provoked {
    // SAFETY: the descriptor is new.
    let fd = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    };
    ioctl(&fd, API, [0xAA, FEATURE_MISSING_SHMEM | FEATURE_WP, 0]);
    let missing = map(20 * PAGE, 0);
    let shared =
        map_of(20 * PAGE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, libc::PROT_READ | libc::PROT_WRITE);
    let protected = map(20 * PAGE, 0);
    touch(&protected);
    let register = |memory: &Memory, mode| {
        ioctl(&fd, REGISTER, [memory.0 as u64, memory.1 as u64, mode, 0]);
    };
    register(&missing, MODE_MISSING);
    register(&shared, MODE_MISSING);
    register(&protected, MODE_WP);
    ioctl(&fd, WRITEPROTECT, [protected.0 as u64, protected.1 as u64, PROTECT]);
    std::thread::spawn(move || serve(&fd, Duration::ZERO));
    each_page(vec![(missing, read_all as Means), (shared, touch), (protected, touch)])
}

/// Memory whose pages come from a thread of this process, each so long after it was asked for.
pub fn slow(pages: usize, after: Duration) -> Memory {
    // SAFETY: the descriptor is new.
    let fd = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    };
    ioctl(&fd, API, [0xAA, 0, 0]);
    let memory = map(pages * PAGE, 0);
    ioctl(&fd, REGISTER, [memory.0 as u64, memory.1 as u64, MODE_MISSING, 0]);
    std::thread::spawn(move || serve(&fd, after));
    memory
}

/// A program that makes a userfaultfd when it is told to, or had made one `before`, and uses it at once: it prints what it
/// reads, and what failed.
pub fn own(before: bool) {
    let missing = map(8 * PAGE, 0);
    let protected = map(8 * PAGE, 0);
    touch(&protected);
    let make = || {
        // SAFETY: the descriptor is new.
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
            assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd as i32)
        };
        ioctl(&fd, API, [0xAA, FEATURE_WP, 0]);
        fd
    };
    let made = before.then(make);
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let fd = made.unwrap_or_else(make);
    ioctl(&fd, REGISTER, [missing.0 as u64, missing.1 as u64, MODE_MISSING, 0]);
    ioctl(&fd, REGISTER, [protected.0 as u64, protected.1 as u64, MODE_WP, 0]);
    ioctl(&fd, WRITEPROTECT, [protected.0 as u64, protected.1 as u64, PROTECT]);
    std::thread::spawn(move || serve(&fd, Duration::ZERO));
    touch(&protected);
    let sum: u64 = (0..missing.len()).step_by(PAGE).map(|at| u64::from(look(&missing, at))).sum();
    println!("sum {sum}");
    // Unmapping what is registered would wait for nobody, but the thread that serves must not see it go.
    std::mem::forget((missing, protected));
}
