//! A reference to the memory of another process, held from outside: the kernel does not take the memory of a process
//! with one user for worth balancing.
//!
//! A thread of ours reads a byte of that memory into a page of our own that is under a userfaultfd and is not there. It
//! waits in the kernel, with that memory in its hands and no lock, until the userfaultfd is closed: at the latest when
//! this process ends.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use trapline_symbols::maps::Maps;
use trapline_symbols::privilege::{self, Keep};

use super::uffd;

const PAGE: usize = 4096;
/// The thread does nothing but wait in one system call, bytes.
const STACK: usize = 64 << 10;
/// How long it may take to get there, and how often it is looked whether it has given up, ms.
const PATIENCE_MS: u16 = 700;
/// How long it may take to end when it is let go. One that the target keeps from reading ends with this process.
const ENDS_WITHIN: Duration = Duration::from_millis(100);
const LOOK_EVERY_MS: u16 = 5;

/// Holds as long as it lives.
#[derive(Debug)]
pub(crate) struct Hold {
    uffd: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    page: NonNull<libc::c_void>,
}

// SAFETY: the page belongs to this value alone; nothing is done with its address but to unmap it.
unsafe impl Send for Hold {}

impl Hold {
    /// Takes hold of the memory that the process has now.
    ///
    /// # Errors
    /// When the memory cannot be read, or userfaultfd not be used for the kernel's own accesses.
    pub(crate) fn of(pid: u32, maps: &Maps) -> io::Result<Self> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let from = maps.iter().find(|m| m.readable && !m.is_the_kernels()).map(|m| m.start);
        let from = from.ok_or(io::ErrorKind::NotFound)?;
        let len = NonZeroUsize::new(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe {
            mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
        }?;
        let mut hold = Self { uffd: None, thread: None, page };
        let start = page.as_ptr() as u64;
        let uffd = hold.uffd.insert(uffd::for_missing(start, start + PAGE as u64)?);
        let thread = Builder::new().name("hold".into()).stack_size(STACK);
        let thread = privilege::spawn(
            thread,
            Keep::NOTHING,
            || (),
            move || {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(start as usize);
                // SAFETY: the page is mapped until this thread has ended, and nobody else uses it.
                let byte = unsafe { std::slice::from_raw_parts_mut(to, 1) };
                // What it reads, and whether, is of no interest.
                let _ = memory.read_at(byte, from);
            },
        );
        let thread = hold.thread.insert(thread?);
        for _ in 0..PATIENCE_MS / LOOK_EVERY_MS {
            // It has come to the page when the descriptor has something to tell.
            let waited =
                poll(&mut [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(LOOK_EVERY_MS));
            if waited.map_err(io::Error::from)? > 0 {
                return Ok(hold);
            }
            if thread.is_finished() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "it has no readable memory"));
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "its memory cannot be read"))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.uffd.take());
        if let Some(thread) = self.thread.take() {
            let until = Instant::now() + ENDS_WITHIN;
            while !thread.is_finished() {
                if Instant::now() > until {
                    // It still knows of the page.
                    return;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
            let _ = thread.join();
        }
        // SAFETY: of() mapped this page, and the thread that knew of it has ended.
        let _ = unsafe { munmap(self.page, PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn the_memory_of_a_child_is_held_and_let_go() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let began = Instant::now();
        let maps = loop {
            let maps = Maps::read(child.id()).unwrap();
            let is_sleep = maps.iter().any(|m| m.name.ends_with("sleep"));
            if is_sleep || began.elapsed().as_secs() > 5 {
                break maps;
            }
        };
        let hold = Hold::of(child.id(), &maps).unwrap();
        assert!(!hold.thread.as_ref().unwrap().is_finished());
        drop(hold);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
