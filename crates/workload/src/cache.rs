//! Files and the page cache: opening what can be mapped, and making it cold.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{AT_FDCWD, AtFlags, PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{AccessFlags, faccessat, geteuid};

use crate::map::{Advice, Mapping};
use crate::report::shown;

/// Read-ahead that is still under way holds its pages for a moment: how often the drop is tried.
const DROP_TRIES: u32 = 5;
const DROP_PAUSE: Duration = Duration::from_millis(20);

/// Opens a regular file that has contents, and returns its size in bytes with it.
///
/// # Errors
/// When the file is missing, not readable, not a regular file, or empty.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let name = shown(path);
    let advice = || format!("cannot read {name}, which `trapline workload data -f` can create");
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).with_context(advice)?;
    ensure!(metadata.is_file(), "cannot map {name}: it is {}, not a regular file", kind(&metadata));
    let file = File::open(path).with_context(advice)?;
    let bytes = file.metadata().with_context(advice)?.len();
    ensure!(bytes > 0, "cannot map {name}: it is empty; `trapline workload data -f` fills it");
    Ok((file, bytes))
}

/// Drops a file from the page cache, and returns how many of its pages stay there nevertheless; `None` if
/// this user may not know.
///
/// What was written is brought to disk first, since only clean pages can be dropped. No privilege is needed.
/// Pages stay that some process has mapped, and all pages of a file system that lives in memory.
///
/// # Errors
/// When the file cannot be written back, or the kernel refuses the advice.
pub fn drop_cached(file: &File, path: &Path, bytes: u64) -> Result<Option<usize>> {
    file.sync_data().context("cannot sync the file")?;
    let mut resident = None;
    for attempt in 0..DROP_TRIES {
        if attempt > 0 {
            thread::sleep(DROP_PAUSE);
        }
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .context("cannot drop the file from the page cache")?;
        resident = resident_pages(file, path, bytes)?;
        if matches!(resident, None | Some(0)) {
            break;
        }
    }
    Ok(resident)
}

/// How many pages of a file are in the page cache; `None` if this user may not know.
///
/// # Errors
/// When the file cannot be mapped to ask.
pub fn resident_pages(file: &File, path: &Path, bytes: u64) -> Result<Option<usize>> {
    if !may_know(file, path) {
        return Ok(None);
    }
    Mapping::file(file, bytes, Advice::Normal)
        .and_then(|mapping| mapping.resident())
        .map(Some)
        .context("cannot find out which pages of the file are cached")
}

/// Whether the kernel tells this user what is cached of a file: the owner and those who may write to it. To
/// others it says that every page is.
fn may_know(file: &File, path: &Path) -> bool {
    let user = geteuid();
    user.is_root()
        || file.metadata().is_ok_and(|metadata| metadata.uid() == user.as_raw())
        || faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

/// The bytes that a file takes on disk; holes take none.
#[must_use]
pub fn allocated_bytes(metadata: &Metadata) -> u64 {
    metadata.blocks() * 512
}

/// Refuses to write over anything but a regular file.
pub(crate) fn check_target(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            bail!("cannot write {}: it is {}, not a regular file", shown(path), kind(&metadata))
        }
        _ => Ok(()),
    }
}

fn kind(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_block_device() => "a block device",
        () if kind.is_char_device() => "a character device",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "something else",
    }
}
