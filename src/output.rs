//! Files that output goes to: where a path leads, and when what was in a file is given up.
//!
//! A path is opened before anything is attached, so that one that cannot be written is refused at once. What was in the
//! file stays until the first line is written, or, where a file is written at the end, until the new one is whole.
//!
//! Root writes to directories in which other users make names. There, another user's link is not followed, and another
//! user's file, pipe or hard link not written to, whatever `fs.protected_*` say.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};

use crate::status::Usage;

/// As many links as the kernel follows in one path.
const MOST_LINKS: u32 = 40;

/// When a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// As things happen: readers follow it, and have what was written before a kill.
    Meanwhile,
    /// At the end, in one piece: it replaces what was there when it is whole.
    AtTheEnd,
}

/// A file to write to; its clones are the same file.
#[derive(Debug, Clone)]
pub(crate) struct Output(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    place: Place,
    file: Writing,
}

#[derive(Debug)]
enum Writing {
    /// In place. Nothing has been written yet if `old` says what is to be done first.
    InPlace { file: File, old: Old },
    /// Beside the file that it will replace; made at the first write.
    Beside { draft: Option<(File, OsString)> },
    /// It has its name.
    Done,
}

/// What becomes of the file when the first byte is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    /// Its contents are dropped.
    Replaced,
    /// There was none: it is removed if nothing is written.
    Created,
    /// Nothing: a pipe, a device, or a file that is written already.
    Kept,
}

impl Output {
    /// Opens the file. What is in it stays.
    ///
    /// # Errors
    /// When it cannot be written, or is reached by what another user put there.
    pub(crate) fn open(path: &Path, when: When) -> Result<Self> {
        let cannot = || format!("cannot write to {}", path.display());
        let place = Place::of(path).with_context(cannot)?;
        let file = place.open(when).with_context(cannot)?;
        Ok(Self(Rc::new(RefCell::new(State { place, file }))))
    }

    /// Everything is written: what is written at the end gets its name.
    ///
    /// # Errors
    /// When it cannot be named so.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if matches!(state.file, Writing::Beside { .. }) {
            state.file()?;
        }
        let State { place, file } = &mut *state;
        if let Writing::Beside { draft: Some((new, draft)) } = file {
            if let Some(old) = &place.found {
                // As it would be if it had been written to. Only root can give files away.
                let old = fstat(old)?;
                let _ = fchown(&*new, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)));
                fchmod(&*new, Mode::from_bits_truncate(old.st_mode & 0o777))?;
            }
            renameat(&place.dir, draft.as_os_str(), &place.dir, place.name.as_os_str())?;
            *file = Writing::Done;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    /// The file, ready for the next byte.
    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Writing::InPlace { file, old } => {
                if *old == Old::Replaced {
                    file.set_len(0)?;
                }
                *old = Old::Kept;
                Ok(file)
            }
            Writing::Beside { draft } => {
                if draft.is_none() {
                    *draft = Some(self.place.draft()?);
                }
                draft.as_mut().map(|(file, _)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            Writing::Done => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        match &self.file {
            Writing::InPlace { file, old: Old::Created } => {
                let named =
                    fstatat(&self.place.dir, self.place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
                if let (Ok(named), Ok(own)) = (named, fstat(file))
                    && (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)
                {
                    self.place.remove(&self.place.name);
                }
            }
            Writing::Beside { draft: Some((_, name)) } => self.place.remove(name),
            _ => {}
        }
    }
}

/// Opens a file of data to write and read, empty; who may read it, the umask says.
///
/// # Errors
/// As [`Output::open`].
pub(crate) fn open_data(path: &Path) -> Result<File> {
    let place = Place::of(path)?;
    let file = match &place.found {
        None if !place.is_magic => create(&place.dir, &place.name, 0o666)?,
        _ => place.reopen(OpenOptions::new().read(true).write(true))?,
    };
    file.set_len(0)?;
    Ok(file)
}

/// A folder that trapline made for what it writes; it is removed if nothing was written.
#[derive(Debug)]
pub(crate) struct Folder {
    place: Place,
    dir: OwnedFd,
}

impl Folder {
    /// Makes it. What is there already stays.
    ///
    /// # Errors
    /// When something has that name, or it cannot be made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot write to {}", path.display());
        let place = Place::of(&path.components().collect::<PathBuf>()).with_context(cannot)?;
        if place.found.is_some() || place.is_magic {
            return Err(Usage::error(format!(
                "{} exists, and recordings are not overwritten: use another name, or remove it",
                path.display()
            )));
        }
        let make = || -> io::Result<OwnedFd> {
            mkdirat(&place.dir, place.name.as_os_str(), Mode::S_IRWXU)?;
            let how = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let dir = openat(&place.dir, place.name.as_os_str(), how, Mode::empty())?;
            // Another user could have put something else there meanwhile.
            if fstat(&dir)?.st_uid == geteuid().as_raw() { Ok(dir) } else { Err(Errno::EEXIST.into()) }
        };
        let dir = make().with_context(cannot)?;
        Ok(Self { place, dir })
    }

    /// The folder, open.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn dir(&self) -> io::Result<OwnedFd> {
        self.dir.try_clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One with something in it stays.
        let _ = unlinkat(&self.place.dir, self.place.name.as_os_str(), UnlinkatFlags::RemoveDir);
    }
}

/// What is written is for who wrote it: names of processes and files, addresses.
const PRIVATE: u32 = 0o600;

/// Makes a file that was not there.
fn create(dir: &OwnedFd, name: &OsString, mode: u32) -> io::Result<File> {
    let how = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    Ok(File::from(openat(dir, name.as_os_str(), how, Mode::from_bits_truncate(mode))?))
}

/// Where a path leads: a directory and a name in it that is no link.
#[derive(Debug)]
struct Place {
    dir: OwnedFd,
    name: OsString,
    /// What has that name, if anything.
    found: Option<OwnedFd>,
    /// It is a link in /proc, which is not a path but leads to an open file: `/dev/stdout`, `/dev/fd/63`.
    is_magic: bool,
}

impl Place {
    /// Follows the path, a component after the other, and each link by its own path.
    fn of(path: &Path) -> Result<Self> {
        let plain = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let start = |path: &Path| -> io::Result<OwnedFd> {
            let at = if path.has_root() { "/" } else { "." };
            Ok(openat(AT_FDCWD, at, directory, Mode::empty())?)
        };
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(io::Error::from(Errno::EISDIR).into());
        }
        let mut dir = start(path)?;
        let mut rest = names(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let found = match openat(&dir, name.as_os_str(), plain, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::ENOENT) if rest.is_empty() => {
                    return Ok(Self { dir, name, found: None, is_magic: false });
                }
                Err(error) => return Err(io::Error::from(error).into()),
            };
            let status = fstat(&found).map_err(io::Error::from)?;
            if kind(&status) != SFlag::S_IFLNK {
                if rest.is_empty() {
                    may_write(&fstat(&dir).map_err(io::Error::from)?, &status)?;
                    return Ok(Self { dir, name, found: Some(found), is_magic: false });
                }
                dir = found;
            } else if fstatfs(&dir).map_err(io::Error::from)?.filesystem_type() == PROC_SUPER_MAGIC {
                if rest.is_empty() {
                    return Ok(Self { dir, name, found: None, is_magic: true });
                }
                dir = openat(&dir, name.as_os_str(), directory, Mode::empty()).map_err(io::Error::from)?;
            } else {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from(Errno::ELOOP).into());
                }
                let around = fstat(&dir).map_err(io::Error::from)?;
                if is_others(&around) && !is_trusted(status.st_uid) {
                    bail!(
                        "{} is a symbolic link of uid {} in a directory where other users can create names; use the path of its target",
                        name.display(),
                        status.st_uid
                    );
                }
                let target = PathBuf::from(readlinkat(&found, "").map_err(io::Error::from)?);
                if target.has_root() {
                    dir = start(&target)?;
                }
                rest.append(&mut names(&target));
            }
        }
        // It ended in `..` or consists of `/`.
        Err(io::Error::from(Errno::EISDIR).into())
    }

    fn open(&self, when: When) -> io::Result<Writing> {
        let Some(found) = &self.found else {
            if self.is_magic {
                // Another has it open, too: what is in it stays.
                let file = self.reopen(OpenOptions::new().append(true))?;
                return Ok(Writing::InPlace { file, old: Old::Kept });
            }
            if when == When::AtTheEnd {
                self.may_replace()?;
                return Ok(Writing::Beside { draft: None });
            }
            return Ok(Writing::InPlace { file: create(&self.dir, &self.name, PRIVATE)?, old: Old::Created });
        };
        let status = fstat(found)?;
        let file = self.reopen(OpenOptions::new().write(true))?;
        if kind(&status) != SFlag::S_IFREG {
            return Ok(Writing::InPlace { file, old: Old::Kept });
        }
        let keeps_others = fstat(&self.dir)?.st_mode & Mode::S_ISVTX.bits() != 0
            && status.st_uid != geteuid().as_raw()
            && !geteuid().is_root();
        if when == When::AtTheEnd && !keeps_others && self.may_replace().is_ok() {
            return Ok(Writing::Beside { draft: None });
        }
        Ok(Writing::InPlace { file, old: Old::Replaced })
    }

    /// Whether files can be made in the directory: one that is made at the end would be refused too late.
    fn may_replace(&self) -> io::Result<()> {
        self.draft().map(|(_, name)| self.remove(&name))
    }

    /// A file of its own beside the one that is meant, and its name.
    fn draft(&self) -> io::Result<(File, OsString)> {
        let name = OsString::from(format!(".trapline-{}", std::process::id()));
        // One that a killed process of this number has left.
        self.remove(&name);
        Ok((create(&self.dir, &name, PRIVATE)?, name))
    }

    /// Removes a file from the directory; what cannot be removed stays.
    fn remove(&self, name: &OsString) {
        let _ = unlinkat(&self.dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }

    /// What was found there and checked, and not what has the name by now; or what a link in /proc leads to.
    fn reopen(&self, how: &mut OpenOptions) -> io::Result<File> {
        let path = match &self.found {
            Some(found) => format!("/proc/self/fd/{}", found.as_raw_fd()).into(),
            None => PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd())).join(&self.name),
        };
        how.custom_flags(OFlag::O_NOCTTY.bits()).open(path)
    }
}

/// The components of a path, the last first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    names.map(|c| c.as_os_str().to_owned()).rev().collect()
}

fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

/// Whether users that we need not trust make names in a directory.
fn is_others(dir: &FileStat) -> bool {
    dir.st_mode & Mode::S_IWOTH.bits() != 0 || !is_trusted(dir.st_uid)
}

/// Oneself, root, and who called `sudo`.
fn is_trusted(uid: u32) -> bool {
    let own = geteuid();
    let caller = || std::env::var("SUDO_UID").is_ok_and(|caller| caller.parse() == Ok(uid));
    uid == 0 || uid == own.as_raw() || own.is_root() && caller()
}

/// Whether what is there may be written to: another user may have put it there to have it written to.
fn may_write(dir: &FileStat, file: &FileStat) -> Result<()> {
    let is_open_to_all = dir.st_mode & Mode::S_IWOTH.bits() != 0;
    // In a directory of theirs, their files are where they belong.
    let is_theirs = !is_open_to_all && file.st_uid == dir.st_uid;
    if is_others(dir) && !is_trusted(file.st_uid) && !is_theirs {
        bail!(
            "it belongs to uid {}, in a directory where other users can create names; use another name",
            file.st_uid
        );
    }
    if is_others(dir) && kind(file) == SFlag::S_IFREG && file.st_nlink > 1 {
        bail!(
            "it has {} hard links, one of them in a directory where other users can create names; use another name",
            file.st_nlink
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
