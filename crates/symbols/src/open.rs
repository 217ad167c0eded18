//! Opens files that others made: never one that opening or reading could do something to.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::unistd::Uid;

/// The largest file that is read, bytes.
const LARGEST: u64 = 4 << 30;

/// A regular file that is held on to, not to be read: opening it this way does nothing to it.
#[derive(Debug)]
pub(super) struct Pin {
    file: File,
    pub(super) meta: Metadata,
}

impl Pin {
    pub(super) fn of(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self { file, meta })
    }

    /// By a path of our own view.
    pub(super) fn path(path: &Path) -> io::Result<Self> {
        Self::of(File::from(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// By a path below a directory that is taken for the root, wherever links in it want to lead.
    pub(super) fn inside(root: &File, path: &Path, no_links: bool) -> io::Result<Self> {
        Self::of(inside(root, path, no_links)?)
    }

    /// What it is now.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        self.meta = self.file.metadata()?;
        Ok(())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Opens it to be read, and tells its size. That waits for nobody.
    pub(super) fn read(&self) -> io::Result<(File, u64)> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = File::from(open(path.as_str(), flags, Mode::empty()).map_err(|error| match error {
            Errno::EWOULDBLOCK => io::Error::other("another process holds a lease on it"),
            error => error.into(),
        })?);
        let meta = file.metadata()?;
        let size = meta.len();
        if size > LARGEST {
            return Err(io::Error::other(format!("it is larger than {} GiB", LARGEST >> 30)));
        }
        Ok((file, size))
    }
}

fn inside(root: &File, path: &Path, no_links: bool) -> io::Result<File> {
    let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    if no_links {
        resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
    }
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    Ok(File::from(openat2(root.as_fd(), path, how)?))
}

/// The root directory of a process.
pub(super) fn root_of(pid: u32) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(File::from(open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty())?))
}

/// Our own.
pub(super) fn own_root() -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(File::from(open("/", flags, Mode::empty())?))
}

/// Whether nobody but root, or who runs trapline, can have put this there, or can change it.
pub(super) fn is_trusted(meta: &Metadata) -> bool {
    (meta.uid() == 0 || Uid::from_raw(meta.uid()) == Uid::effective()) && meta.mode() & 0o022 == 0
}

/// A file by its name in a directory that is to be trusted; nothing if either is not, or is not there.
pub(super) fn trusted(root: &File, directory: &Path, name: &Path) -> Option<Pin> {
    let directory = inside(root, directory, false).ok()?;
    let meta = directory.metadata().ok().filter(Metadata::is_dir)?;
    let pin = Pin::inside(&directory, name, false).ok()?;
    (is_trusted(&meta) && is_trusted(&pin.meta)).then_some(pin)
}
