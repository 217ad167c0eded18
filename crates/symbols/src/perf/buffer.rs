//! The memory in which the kernel leaves an event's records.

#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::record::{HEADER, Record, parse};

const PAGE: usize = 4096;
/// Where `struct perf_event_mmap_page` has what the kernel wrote up to, and what we read up to: stable ABI.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// A page of state, and behind it a ring of records.
#[derive(Debug)]
pub struct Buffer {
    /// Records come as long as it is open.
    event: OwnedFd,
    at: NonNull<u8>,
    /// Of the ring, bytes: a power of two.
    size: usize,
}

impl Buffer {
    /// Over an event that was opened to record; `size` is a power of two of pages, bytes.
    pub fn new(event: OwnedFd, size: usize) -> io::Result<Self> {
        let len = NonZeroUsize::MIN.saturating_add(PAGE + size - 1);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            mmap(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &event, 0)?
        };
        Ok(Self { event, at: at.cast(), size })
    }

    /// The event that it is over.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn position(&self, at: usize) -> &AtomicU64 {
        // SAFETY: within the first page of the mapping, which lives as long as self; aligned; shared with the kernel,
        // which accesses it as a whole.
        unsafe { self.at.add(at).cast::<AtomicU64>().as_ref() }
    }

    /// Takes all records that are there.
    pub fn drain(&self, records: &mut Vec<Record>) {
        self.each(|bytes| records.extend(parse(bytes)));
    }

    /// Takes all records that are there, as they are.
    pub fn each(&self, mut take: impl FnMut(&[u8])) {
        let head = self.position(DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.position(DATA_TAIL).load(Ordering::Relaxed);
        let mut bytes = Vec::new();
        while head.wrapping_sub(tail) >= HEADER as u64 {
            self.copy(tail, HEADER, &mut bytes);
            let size = match bytes.get(6..8).and_then(|size| size.try_into().ok()) {
                Some(size) => usize::from(u16::from_ne_bytes(size)),
                None => break,
            };
            if size < HEADER {
                break;
            }
            self.copy(tail, size, &mut bytes);
            take(&bytes);
            tail = tail.wrapping_add(size as u64);
        }
        self.position(DATA_TAIL).store(head, Ordering::Release);
    }

    /// Copies bytes out of the ring: they may go over its end.
    fn copy(&self, from: u64, len: usize, into: &mut Vec<u8>) {
        let from = from as usize & (self.size - 1);
        let first = len.min(self.size - from);
        into.clear();
        // SAFETY: both parts are within the ring, and the kernel does not write to what has not been given back to it.
        unsafe {
            let ring = self.at.add(PAGE);
            into.extend_from_slice(std::slice::from_raw_parts(ring.add(from).as_ptr(), first));
            into.extend_from_slice(std::slice::from_raw_parts(ring.as_ptr(), len - first));
        }
    }
}

// SAFETY: the mapping is this value's alone, and goes with it from thread to thread.
unsafe impl Send for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by new() with this length, and nothing refers to it any more.
        let _ = unsafe { munmap(self.at.cast(), PAGE + self.size) };
    }
}
