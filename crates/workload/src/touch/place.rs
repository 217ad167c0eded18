//! Memory to touch: of every sort that a program has.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};

use super::On;
use crate::map::page_size;

/// Pages that can be touched, unmapped when dropped if they were mapped for it.
#[derive(Debug)]
pub(super) struct Place {
    start: NonNull<u8>,
    pages: usize,
    mapped: bool,
}

// SAFETY: the memory belongs to this value, and is touched by single instructions only; no reference into it exists.
unsafe impl Send for Place {}
// SAFETY: as above; what several threads write to one byte is anybody's guess, and nobody relies on it.
unsafe impl Sync for Place {}

impl Place {
    /// Maps pages, readable and writable, without huge pages.
    pub(super) fn map(on: On, pages: usize) -> io::Result<Self> {
        let length = pages.checked_mul(page_size()).and_then(NonZeroUsize::new);
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = match on {
            On::Anon | On::Stack | On::Private => MapFlags::MAP_PRIVATE,
            On::Shared | On::File => MapFlags::MAP_SHARED,
        };
        let start = match on {
            On::Anon | On::Shared | On::Stack => {
                // SAFETY: no address is asked for, so that no existing mapping is replaced.
                unsafe { mman::mmap_anonymous(None, length, access, flags) }?
            }
            On::File | On::Private => {
                let path = scratch_path();
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
                std::fs::remove_file(&path)?;
                file.set_len(length.get() as u64)?;
                // SAFETY: as above; the file has no name any more, so that nobody can cut it short.
                unsafe { mman::mmap(None, length, access, flags, &file, 0) }?
            }
        };
        // SAFETY: the range was mapped just now. A kernel without huge pages does not know this advice, nor need it.
        let _ = unsafe { mman::madvise(start, length.get(), MmapAdvise::MADV_NOHUGEPAGE) };
        Ok(Self { start: start.cast(), pages, mapped: true })
    }

    /// The part of the calling thread's stack that lies `below` bytes under the caller, which must be that large.
    pub(super) fn stack(pages: usize, below: usize) -> Option<Self> {
        let here = 0u8;
        let top = (&raw const here as usize).checked_sub(below)? & !(page_size() - 1);
        let start = top.checked_sub(pages * page_size())?;
        Some(Self {
            start: NonNull::new(std::ptr::with_exposed_provenance_mut(start))?,
            pages,
            mapped: false,
        })
    }

    /// The address of a page.
    pub(super) fn page(&self, page: usize) -> *mut u8 {
        debug_assert!(page < self.pages);
        self.start.as_ptr().wrapping_add(page % self.pages * page_size())
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Allows what is allowed already: the kernel takes the lock of the address space for writing, and changes nothing.
    pub(super) fn lock_once(&self) -> Result<()> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: all of the memory is readable and writable, and stays so.
        unsafe { mman::mprotect(self.start.cast(), page_size(), access) }.context("mprotect failed")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: the range was mapped by this value, and nothing touches it any more.
            let _ = unsafe { mman::munmap(self.start.cast(), self.pages * page_size()) };
        }
    }
}

fn scratch_path() -> PathBuf {
    let dir = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    dir.join(format!("trapline-touch-{}-{}", std::process::id(), fastrand::u32(..)))
}
