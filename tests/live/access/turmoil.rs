//! Programs whose output is known to the last byte, and which do to their memory whatever a program can.

#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::ptr;
use std::thread;

const PAGE: usize = 4096;
const PAGES: usize = 64;

/// Memory of this process, from mmap.
struct Memory(*mut u8);

impl Memory {
    fn new() -> Self {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(ptr::null_mut(), PAGES * PAGE, access, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at.cast())
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has this length, is readable and writable, and is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.0, PAGES * PAGE) }
    }

    fn sum(&mut self) -> u64 {
        self.bytes().iter().fold(0, |sum: u64, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
    }

    /// Says what may be done with the first of its pages.
    fn allow(&mut self, pages: usize, access: i32) {
        assert!(pages <= PAGES);
        // SAFETY: the range is this mapping, of which nobody has a reference meanwhile.
        assert_eq!(unsafe { libc::mprotect(self.0.cast(), pages * PAGE, access) }, 0);
    }

    /// Forbids writing, reads all, allows it again.
    fn protected_sum(&mut self) -> u64 {
        self.allow(PAGES, libc::PROT_READ);
        let sum = (0..PAGES).fold(0u64, |sum, page| {
            // SAFETY: within the mapping, which is readable.
            sum + u64::from(unsafe { ptr::read_volatile(self.0.add(page * PAGE)) })
        });
        self.allow(PAGES, libc::PROT_READ | libc::PROT_WRITE);
        sum
    }

    /// Has the kernel move it elsewhere.
    fn moved(self) -> Self {
        let flags = libc::MREMAP_MAYMOVE;
        // SAFETY: the mapping is this value's; the old address is not used any more.
        let at = unsafe { libc::mremap(self.0.cast(), PAGES * PAGE, PAGES * PAGE * 2, flags) };
        assert_ne!(at, libc::MAP_FAILED, "mremap: {}", std::io::Error::last_os_error());
        // SAFETY: the second half is new, and nothing is in it.
        unsafe { assert_eq!(libc::munmap(at.byte_add(PAGES * PAGE), PAGES * PAGE), 0) };
        std::mem::forget(self);
        Self(at.cast())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly this mapping, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.cast(), PAGES * PAGE) };
    }
}

/// System calls that write into memory, changes of protection, moves, in one thread.
fn stir(seed: u64) -> u64 {
    let mut sum = seed;
    for turn in 0..8u64 {
        let mut memory = Memory::new();
        for (at, byte) in memory.bytes().iter_mut().enumerate() {
            *byte = (at as u64 * 7 + seed + turn) as u8;
        }
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&memory.bytes()[..8 * PAGE]).unwrap();
        reader.read_exact(&mut memory.bytes()[16 * PAGE..24 * PAGE]).unwrap();
        std::fs::File::open("/dev/zero")
            .unwrap()
            .read_exact(&mut memory.bytes()[40 * PAGE..44 * PAGE])
            .unwrap();
        thread::sleep(std::time::Duration::from_millis(2));
        sum = sum.wrapping_mul(131).wrapping_add(memory.protected_sum());
        let mut memory = memory.moved();
        memory.bytes()[0] = turn as u8;
        sum = sum.wrapping_add(memory.sum());
    }
    sum
}

/// A child that changes its copy of our memory, and whose changes we must not see.
fn fork_and_write(memory: &mut Memory) -> i32 {
    // SAFETY: the child writes to its own copy of the memory and ends by the bare call.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        memory.bytes().fill(0xee);
        let status = (memory.sum() % 200) as i32;
        // SAFETY: ends this process.
        unsafe { libc::_exit(status) };
    }
    memory.bytes().iter_mut().step_by(PAGE).for_each(|byte| *byte = byte.wrapping_add(1));
    let mut status = 0;
    // SAFETY: status is to be filled.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WEXITSTATUS(status)
}

/// Threads that stir, children by fork and by exec, all at once; prints what came of it.
pub fn turmoil(turns: usize) {
    let mut memory = Memory::new();
    memory.bytes().fill(3);
    for turn in 0..turns {
        let threads: Vec<_> = (0..3).map(|seed| thread::spawn(move || stir(seed + turn as u64))).collect();
        let out = Command::new("sh")
            .args(["-c", "echo $((6 * 7)); exit 3"])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let sums: Vec<u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let status = fork_and_write(&mut memory);
        let said = String::from_utf8(out.stdout).unwrap();
        println!("{turn} {sums:?} {status} {} {:?} {}", memory.sum(), out.status.code(), said.trim());
    }
}

/// Allows only `access` to half of a mapping, says so, and when it gets a line allows all again and has the whole moved.
pub fn divided(access: i32) {
    let mut memory = Memory::new();
    memory.bytes().fill(5);
    memory.allow(PAGES / 2, access);
    println!("divided");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    memory.allow(PAGES / 2, libc::PROT_READ | libc::PROT_WRITE);
    let mut memory = memory.moved();
    println!("{}", memory.bytes().iter().map(|&byte| u64::from(byte)).sum::<u64>());
}

/// Goes over so many pages again and again and prints the same sum each time, until it is told to end.
pub fn steady(pages: usize) {
    let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGTERM, std::sync::Arc::clone(&end)).unwrap();
    let mut memory = vec![0u8; pages * PAGE];
    // Half a minute at most, if nobody tells it to end.
    for _ in 0..if crate::run::place() == crate::run::Place::Vm { 3_000 } else { 300 } {
        if end.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        for turn in 0..100u8 {
            memory
                .iter_mut()
                .step_by(PAGE)
                .enumerate()
                .for_each(|(at, byte)| *byte = turn.wrapping_add(at as u8));
            thread::sleep(std::time::Duration::from_millis(1));
        }
        let sum: u64 = memory.iter().map(|&byte| u64::from(byte)).sum();
        println!("{sum}");
    }
}
