//! One tracer at a time: two would take each other's resets for accesses, and restore each other's settings.
//!
//! The lock is a record lock: the kernel reports the process that holds it, and releases it with that process.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, geteuid, mkdir, unlinkat};

/// The directory of what we keep while the machine is up. Nobody else can open anything in it.
pub const RUN_DIR: &str = "/run/trapline";
const FILE: &str = "access.lock";

/// Why the lock cannot be had.
#[derive(Debug)]
pub enum Denied {
    /// We may not: it takes a privilege that we lack here.
    Privilege(anyhow::Error),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Denied {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Held until it is dropped or this process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another process holds it, with its id; when /run cannot be written, or what is there belongs to another
    /// user.
    pub fn take() -> Result<Self, Denied> {
        match mkdir(RUN_DIR, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(refused(&format!("cannot create {RUN_DIR}"), errno.into())),
        }
        let dir = run_dir()?;
        let file = lock_file(&dir)?;
        let mut wanted = whole_file();
        match fcntl(&file, FcntlArg::F_SETLK(&wanted)) {
            Ok(_) => Ok(Self(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => {
                let by = match fcntl(&file, FcntlArg::F_GETLK(&mut wanted)) {
                    Ok(_) if wanted.l_type == libc::F_UNLCK as i16 => "one that has just ended".into(),
                    Ok(_) if wanted.l_pid > 0 => format!("process {}", wanted.l_pid),
                    // The kernel reports 0 for a process that has no number here.
                    _ => "a process of another PID namespace".into(),
                };
                Err(anyhow!("page accesses are being traced already, by {by}: one at a time").into())
            }
            Err(errno) => Err(refused(&format!("cannot lock {RUN_DIR}/{FILE}"), errno.into())),
        }
    }

    /// Whether we may take it when no other process holds it. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn is_possible() -> Result<(), Denied> {
        let may_write = |dir: &str| {
            faccessat(AT_FDCWD, dir, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)
                .map_err(|errno| refused(&format!("cannot write to {dir}"), errno.into()))
        };
        if Path::new(RUN_DIR).symlink_metadata().is_err() {
            return may_write("/run");
        }
        may_write(RUN_DIR)?;
        run_dir().map(drop)
    }
}

/// Opens the directory. One of another user, or a link, is refused.
fn run_dir() -> Result<OwnedFd, Denied> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir = openat(AT_FDCWD, RUN_DIR, flags, Mode::empty())
        .map_err(|errno| refused(&format!("cannot open {RUN_DIR}"), errno.into()))?;
    let dir = File::from(dir);
    own(&dir, RUN_DIR, 0o700)?;
    Ok(dir.into())
}

fn lock_file(dir: &OwnedFd) -> Result<File, Denied> {
    let path = format!("{RUN_DIR}/{FILE}");
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let open = || {
        let file = openat(dir, FILE, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        file.map(File::from).map_err(|errno| refused(&format!("cannot open {path}"), errno.into()))
    };
    let mut file = open()?;
    let metadata = file.metadata().with_context(|| format!("cannot examine {path}"))?;
    if !metadata.is_file() {
        return Err(anyhow!("{path} is not a file: remove it").into());
    }
    if metadata.mode() & 0o077 != 0 {
        // Others could open it until now, and a lock that they hold would keep us off.
        unlinkat(dir.as_fd(), FILE, UnlinkatFlags::NoRemoveDir)
            .with_context(|| format!("cannot replace {path}"))?;
        file = open()?;
    }
    own(&file, &path, 0o600)?;
    Ok(file)
}

/// Makes sure that it is ours or root's, and that its permissions are these.
fn own(file: &File, path: &str, mode: u32) -> Result<(), Denied> {
    let metadata = file.metadata().with_context(|| format!("cannot examine {path}"))?;
    if ![0, geteuid().as_raw()].contains(&metadata.uid()) {
        return Err(anyhow!("{path} belongs to user {}: remove it", metadata.uid()).into());
    }
    if metadata.mode() & 0o777 != mode {
        let set = file.set_permissions(Permissions::from_mode(mode));
        set.map_err(|error| refused(&format!("cannot change the permissions of {path}"), error))?;
    }
    Ok(())
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Without the privilege this cannot be had here.
fn refused(what: &str, error: io::Error) -> Denied {
    let kind = error.kind();
    let name = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    if matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
        return Denied::Privilege(anyhow!("{what}: {name:?}; run as root"));
    }
    Denied::Other(anyhow::Error::new(error).context(what.to_owned()))
}
