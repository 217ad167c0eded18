//! userfaultfd from outside: a descriptor that was made in another process protects that process's memory.
//!
//! In the asynchronous modes the kernel itself resolves the faults, so that nobody waits for us; what we get to see is
//! the fault. If we end, in whatever way, the kernel closes the descriptor and takes every protection back.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::pages::PAGE;

/// `UFFD_USER_MODE_ONLY`: needs no privilege. Kernel-mode faults are resolved asynchronously all the same.
const USER_MODE_ONLY: libc::c_int = 1;
/// What `userfaultfd()` is called with, here and in the target.
pub(crate) const FLAGS: libc::c_int = libc::O_CLOEXEC | USER_MODE_ONLY;

const API: u64 = 0xAA;
const WP_ASYNC: u64 = 1 << 15; // 6.7
const RWP: u64 = 1 << 17; // 7.3, with the next
const RWP_ASYNC: u64 = 1 << 18;

/// ioctl numbers, `_IOWR(0xAA, nr, size)` and `_IOR`; include/uapi/linux/userfaultfd.h.
const fn iowr(kind: u64, nr: u64, size: usize) -> u64 {
    3 << 30 | (size as u64) << 16 | kind << 8 | nr
}
const UFFDIO_API: u64 = iowr(API, 0x3f, size_of::<ApiArgument>());
const UFFDIO_REGISTER: u64 = iowr(API, 0x00, size_of::<Register>());
const UFFDIO_UNREGISTER: u64 = 2 << 30 | (size_of::<Range>() as u64) << 16 | API << 8 | 0x01;
const UFFDIO_RWPROTECT: u64 = iowr(API, 0x09, size_of::<Protect>());
const PAGEMAP_SCAN: u64 = iowr(b'f' as u64, 16, size_of::<Scan>());

#[repr(C)]
struct ApiArgument {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Protect {
    start: u64,
    len: u64,
    mode: u64,
}

/// `struct pm_scan_arg`, include/uapi/linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`, of the same header.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const PM_SCAN_WP_MATCHING: u64 = 1;
const PAGE_IS_WPALLOWED: u64 = 1;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// How accesses to a mapping are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Writes.
    Wp = 1 << 1,
    /// Reads and writes.
    Rwp = 1 << 3,
}

/// What this kernel can do asynchronously.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    pub(crate) wp: bool,
    pub(crate) rwp: bool,
}

impl Features {
    /// Asks the kernel, with a descriptor of our own that is thrown away.
    ///
    /// # Errors
    /// When there is no userfaultfd here at all.
    pub(crate) fn probe() -> io::Result<Self> {
        // SAFETY: the argument is a number.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) })?;
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut argument = ApiArgument { api: API, features: 0, ioctls: 0 };
        ioctl(&fd, UFFDIO_API, &mut argument)?;
        let has = |bits| argument.features & bits == bits;
        Ok(Self { wp: has(WP_ASYNC), rwp: has(RWP | RWP_ASYNC) })
    }
}

/// A userfaultfd made in the target, taken over.
#[derive(Debug)]
pub(crate) struct Uffd {
    fd: OwnedFd,
    /// Whether a mapping can be in one of two modes.
    has_modes: bool,
}

impl Uffd {
    /// Sets it up for asynchronous protection.
    ///
    /// # Errors
    /// When the kernel refuses the features, though it offers them.
    pub(crate) fn new(fd: OwnedFd, features: Features) -> io::Result<Self> {
        let wanted = if features.wp { WP_ASYNC } else { 0 } | if features.rwp { RWP | RWP_ASYNC } else { 0 };
        ioctl(&fd, UFFDIO_API, &mut ApiArgument { api: API, features: wanted, ioctls: 0 })?;
        Ok(Self { fd, has_modes: features.wp && features.rwp })
    }

    /// Takes mappings under control, all in the range or none; there may be holes between them.
    ///
    /// # Errors
    /// When the kernel does not protect such a mapping (EINVAL), it may never be written (EPERM), or the target has
    /// it under a userfaultfd of its own (EBUSY).
    pub(crate) fn register(&self, start: u64, end: u64, mode: Mode) -> io::Result<()> {
        let register = || {
            let mut argument = Register { start, len: end - start, mode: mode as u64, ioctls: 0 };
            ioctl(&self.fd, UFFDIO_REGISTER, &mut argument)
        };
        let done = register();
        // It may be under this one already, in the other mode. That is let go, and nothing else: since Linux 7.3, where
        // there are two, a descriptor lets go only what was registered through it.
        let is_taken = done.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
        if self.has_modes && is_taken && self.unregister(start, end).is_ok() {
            return register();
        }
        done
    }

    /// Lets mappings go.
    ///
    /// # Errors
    /// ESRCH when the process has ended.
    pub(crate) fn unregister(&self, start: u64, end: u64) -> io::Result<()> {
        ioctl(&self.fd, UFFDIO_UNREGISTER, &mut Range { start, len: end - start })
    }

    /// Makes the next access, of any kind, to each page that is there fault.
    ///
    /// # Errors
    /// ENOENT when the range is not wholly registered any more, ESRCH when the process has ended.
    pub(crate) fn protect_accesses(&self, start: u64, end: u64) -> io::Result<()> {
        let mut argument = Protect { start, len: end - start, mode: 1 };
        retried(|| ioctl(&self.fd, UFFDIO_RWPROTECT, &mut argument))
    }
}

/// Makes the next write to each page that is there fault, in whatever is registered for [`Mode::Wp`] in the range.
/// `pagemap` is that of the process. Holes stay holes: no page tables are made for them.
///
/// # Errors
/// When the kernel has no such call (before 6.7).
pub(crate) fn protect_writes(pagemap: &File, start: u64, end: u64) -> io::Result<()> {
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        flags: PM_SCAN_WP_MATCHING,
        start,
        end,
        category_mask: PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN | PAGE_IS_PRESENT,
        ..Scan::default()
    };
    retried(|| ioctl(pagemap, PAGEMAP_SCAN, &mut scan))
}

/// Calls `present` with the address of each page in the range that is in memory or in swap. What was never touched takes
/// no time, however large it is.
///
/// # Errors
/// When the kernel has no such call (before 6.7).
pub(crate) fn populated(
    pagemap: &File,
    start: u64,
    end: u64,
    present: &mut impl FnMut(u64),
) -> io::Result<()> {
    let mut regions = [Region::default(); 256];
    let mut at = start;
    while at < end {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            start: at,
            end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..Scan::default()
        };
        let found = count(pagemap, PAGEMAP_SCAN, &mut scan)?;
        for region in regions.iter().take(found) {
            (region.start..region.end).step_by(PAGE as usize).for_each(&mut *present);
        }
        if scan.walk_end <= at {
            break;
        }
        at = scan.walk_end;
    }
    Ok(())
}

/// The kernel gives way to a change of the address space with EAGAIN.
fn retried(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut left = 16;
    loop {
        match call() {
            Err(error) if left > 0 && matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                left -= 1;
            }
            done => return done,
        }
    }
}

fn ioctl<T>(fd: &impl AsRawFd, request: u64, argument: &mut T) -> io::Result<()> {
    count(fd, request, argument).map(drop)
}

/// The same, of a request that answers with a number.
fn count<T>(fd: &impl AsRawFd, request: u64, argument: &mut T) -> io::Result<usize> {
    // SAFETY: each request is called with the structure whose size it encodes, alive and writable during the call, as is
    // the array that a scan names, with its length.
    let count = Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut *argument) })?;
    Ok(count as usize)
}

/// A userfaultfd of this process that keeps whoever touches a range waiting, the kernel included, until it is closed.
///
/// # Errors
/// When we may not have one for the kernel's accesses (CAP_SYS_PTRACE).
pub(crate) fn for_missing(start: u64, end: u64) -> io::Result<OwnedFd> {
    const MISSING: u64 = 1;
    // SAFETY: the argument is a number.
    let fd =
        Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    ioctl(&fd, UFFDIO_API, &mut ApiArgument { api: API, features: 0, ioctls: 0 })?;
    ioctl(&fd, UFFDIO_REGISTER, &mut Register { start, len: end - start, mode: MISSING, ioctls: 0 })?;
    Ok(fd)
}

/// Takes descriptor number `fd` of a process over: a copy of it in this process.
///
/// # Errors
/// When the process may not be traced by us, or has no such descriptor.
pub(crate) fn take_over(process: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: the arguments are numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether a descriptor is a userfaultfd.
pub(crate) fn is_userfaultfd(fd: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|to| to.as_os_str() == "anon_inode:[userfaultfd]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernels() {
        // As `strace -e raw=ioctl` shows them for programs built with the kernel's own header.
        assert_eq!(UFFDIO_API, 0xc018_aa3f);
        assert_eq!(UFFDIO_REGISTER, 0xc020_aa00);
        assert_eq!(UFFDIO_UNREGISTER, 0x8010_aa01);
        assert_eq!(UFFDIO_RWPROTECT, 0xc018_aa09);
        assert_eq!(PAGEMAP_SCAN, 0xc060_6610);
    }
}
