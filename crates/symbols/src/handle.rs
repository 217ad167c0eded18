//! Files by what the kernel knows them by, where no path leads to them any more: those of a process that had another root
//! directory and has ended.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::open::Pin;
use crate::maps::Mapping;

/// Inode and generation, 32 bits each: what ext4, XFS and others take (include/linux/exportfs.h).
const FILEID_INO32_GEN: i32 = 1;

/// `struct file_handle` with a handle of that type.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    inode: u32,
    generation: u32,
}

/// The file, if its file system is mounted where we see it, and takes such handles. Root's only (CAP_DAC_READ_SEARCH).
pub(super) fn by_handle(mapping: &Mapping) -> io::Result<Option<Pin>> {
    let (Some(generation), Ok(inode)) = (mapping.generation, u32::try_from(mapping.inode)) else {
        return Ok(None);
    };
    let Ok(generation) = u32::try_from(generation) else { return Ok(None) };
    let Some(mount) = mount_of(mapping.device)? else { return Ok(None) };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mount = open(mount.as_str(), flags, Mode::empty())?;
    let handle = Handle { bytes: 8, kind: FILEID_INO32_GEN, inode, generation };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: a file_handle with as many bytes behind its head as it says, which outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const handle, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let pin = Pin::of(unsafe { File::from_raw_fd(fd as i32) })?;
    let is_it = std::os::unix::fs::MetadataExt::ino(&pin.meta) == mapping.inode;
    Ok(is_it.then_some(pin))
}

/// Where a device is mounted.
fn mount_of((major, minor): (u32, u32)) -> io::Result<Option<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let device = format!("{major}:{minor}");
    // Number, parent, device, root, mount point. One with a space in its name is written otherwise, and passed over.
    let places = mounts.lines().map(|line| line.split(' '));
    let of_it =
        places.filter_map(|mut words| (words.nth(2) == Some(&device)).then(|| words.nth(1)).flatten());
    Ok(of_it.map(str::to_owned).find(|place| !place.contains('\\')))
}
