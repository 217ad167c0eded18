//! Memory mappings behind a safe type: the only unsafe code of this crate.
//!
//! A [`Mapping`] is either fresh anonymous memory or a file mapped privately and read-only. Pages are read
//! and written by index, volatile, so that the compiler neither drops nor merges an access that should fault.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};

/// Pages whose residency is asked for in one call: a quarter of a GiB of 4 KiB pages.
const RESIDENCY_BATCH: usize = 65_536;

/// What the kernel is told about the order in which a file mapping will be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Advice {
    /// Nothing: the kernel reads ahead as it does for any program.
    #[default]
    Normal,
    /// No read-ahead: each page that is not cached is read, and waited for, by itself.
    Random,
    /// Aggressive read-ahead.
    Sequential,
}

impl Advice {
    /// Every advice's name, as it is written on the command line.
    pub const NAMES: [&'static str; 3] = ["normal", "random", "sequential"];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Random => "random",
            Self::Sequential => "sequential",
        }
    }
}

impl std::str::FromStr for Advice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "normal" => Ok(Self::Normal),
            "random" => Ok(Self::Random),
            "sequential" | "seq" => Ok(Self::Sequential),
            _ => Err(format!("unknown advice {text:?}: one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// The size of a page in bytes.
#[must_use]
pub fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: sysconf reads a constant and touches no memory of ours.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
    })
}

/// A range of mapped pages, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    pages: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to this value alone and mmap'd memory is tied to no thread.
unsafe impl Send for Mapping {}
// SAFETY: through `&self` memory is only read, by volatile loads of single bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `pages` fresh anonymous pages without huge pages: each first touch is one page fault.
    ///
    /// # Errors
    /// When `pages` is 0 or overflows, or the kernel refuses the mapping.
    pub fn anonymous(pages: usize) -> io::Result<Self> {
        let length = byte_length(pages)?;
        // SAFETY: no address is asked for, so that no existing mapping is replaced.
        let start = unsafe {
            mman::mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            )
        }?;
        let mapping = Self { start: start.cast(), pages, writable: true };
        match mapping.advise(MmapAdvise::MADV_NOHUGEPAGE) {
            // A kernel built without transparent huge pages does not know this advice, nor need it.
            Ok(()) | Err(Errno::EINVAL) => Ok(mapping),
            Err(error) => Err(error.into()),
        }
    }

    /// Maps the first `bytes` of `file` read-only and privately; a last, partial page counts as a page.
    ///
    /// Reading a page that the file no longer has, because somebody truncated it, ends the process by SIGBUS.
    ///
    /// # Errors
    /// When `bytes` is 0 or too large, or the kernel refuses the mapping.
    pub fn file(file: &File, bytes: u64, advice: Advice) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let pages = bytes.div_ceil(page_size());
        let length = byte_length(pages)?;
        // SAFETY: no address is asked for, so that no existing mapping is replaced.
        let start =
            unsafe { mman::mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0) }?;
        let mapping = Self { start: start.cast(), pages, writable: false };
        match advice {
            Advice::Normal => {}
            Advice::Random => mapping.advise(MmapAdvise::MADV_RANDOM)?,
            Advice::Sequential => mapping.advise(MmapAdvise::MADV_SEQUENTIAL)?,
        }
        Ok(mapping)
    }

    /// How many pages are mapped.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Reads the first byte of a page; `None` if there is no such page.
    #[inline]
    #[must_use]
    pub fn read(&self, page: usize) -> Option<u8> {
        if page >= self.pages {
            return None;
        }
        // SAFETY: the page is inside the mapping, as just checked, and every mapping is readable.
        Some(unsafe { self.start.add(page * page_size()).read_volatile() })
    }

    /// Writes the first byte of a page; does nothing outside the mapping or in a read-only one.
    #[inline]
    pub fn touch(&mut self, page: usize) {
        if self.writable && page < self.pages {
            // SAFETY: the page is inside a writable mapping, as just checked, which `&mut self` alone uses.
            unsafe { self.start.add(page * page_size()).write_volatile(1) };
        }
    }

    /// Gives the memory back, so that the next touch of each anonymous page faults again.
    ///
    /// # Errors
    /// When the kernel refuses, as it does for locked memory.
    pub fn discard(&mut self) -> io::Result<()> {
        Ok(self.advise(MmapAdvise::MADV_DONTNEED)?)
    }

    /// How many of the mapping's pages are in memory (for a file: in the page cache).
    ///
    /// The kernel tells only those who own the file or may write to it; to others every page seems resident.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn resident(&self) -> io::Result<usize> {
        let mut states = vec![0u8; self.pages.min(RESIDENCY_BATCH)];
        let mut resident = 0;
        let mut first = 0;
        while first < self.pages {
            let count = states.len().min(self.pages - first);
            // SAFETY: the range lies inside the mapping, and `states` has a byte for each of its pages.
            Errno::result(unsafe {
                let start = self.start.add(first * page_size()).cast::<c_void>();
                libc::mincore(start.as_ptr(), count * page_size(), states.as_mut_ptr())
            })?;
            resident += states.iter().take(count).filter(|state| **state & 1 == 1).count();
            first += count;
        }
        Ok(resident)
    }

    fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: the range is this mapping; of the advices used only DONTNEED changes contents, and no
        // reference into the memory is ever handed out.
        unsafe { mman::madvise(self.start.cast(), self.pages * page_size(), advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this value, and nothing can refer to it any more. Unmapping a
        // whole mapping fails only for a bad range, so that there is nothing to report.
        let _ = unsafe { mman::munmap(self.start.cast(), self.pages * page_size()) };
    }
}

/// The bytes that `pages` take: an error if that is 0 or more than the address space.
fn byte_length(pages: usize) -> io::Result<NonZeroUsize> {
    pages
        .checked_mul(page_size())
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("cannot map {pages} pages")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_pages_become_resident_by_touch_and_leave_by_discard() {
        let mut mapping = Mapping::anonymous(8).unwrap();
        assert_eq!(mapping.resident().unwrap(), 0);
        mapping.touch(0);
        mapping.touch(5);
        mapping.touch(8);
        assert_eq!(mapping.resident().unwrap(), 2);
        assert_eq!(mapping.read(5), Some(1));
        assert_eq!(mapping.read(8), None);
        mapping.discard().unwrap();
        assert_eq!(mapping.resident().unwrap(), 0);
        assert_eq!(mapping.read(5), Some(0));
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert!(Mapping::anonymous(0).is_err());
        assert!(Mapping::anonymous(usize::MAX).is_err());
    }

    #[test]
    fn a_file_mapping_is_read_only_and_rounds_up_to_pages() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(page_size() as u64 + 1).unwrap();
        let mut mapping = Mapping::file(&file, page_size() as u64 + 1, Advice::Random).unwrap();
        assert_eq!(mapping.pages(), 2);
        mapping.touch(1);
        assert_eq!(mapping.read(1), Some(0));
        assert!(Mapping::file(&file, 0, Advice::Normal).is_err());
    }
}
