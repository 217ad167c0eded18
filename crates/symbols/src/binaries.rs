//! Files that a user names, to probe functions and points in them: opened and read as those that are mapped.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use super::Why;
use super::child::wire::{Point, Reply, Request};
use super::files::{Files, Program};
use super::open::{Pin, root_of};
use crate::maps::Mapping;

/// A file that is held on to.
#[derive(Debug, Clone)]
pub struct Binary {
    program: Rc<Program>,
    /// Device and inode.
    pub identity: (u64, u64),
    /// A path that leads to it as long as this is there.
    pub path: PathBuf,
}

impl PartialEq for Binary {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Binary {}

/// Opens files and asks about them.
#[derive(Debug)]
pub struct Binaries(Files);

impl Default for Binaries {
    fn default() -> Self {
        let mut files = Files::default();
        // On overlayfs only the kernel's link is certain: no file there is old enough.
        files.since = UNIX_EPOCH;
        Self(files)
    }
}

impl Binaries {
    /// By a path of our own view.
    pub fn open(&mut self, path: &Path) -> io::Result<Binary> {
        Ok(self.take(Pin::path(path)?, path, std::process::id()))
    }

    /// By a path as a process sees it, wherever links in it want to lead.
    pub fn inside(&mut self, pid: u32, path: &Path) -> io::Result<Binary> {
        Ok(self.take(Pin::inside(&root_of(pid)?, path, false)?, path, pid))
    }

    /// What a process has mapped.
    pub fn mapped(&mut self, pid: u32, mapping: &Mapping) -> io::Result<Binary> {
        let pin = self.0.pin(pid, mapping)?;
        Ok(self.take(pin, mapping.path(), pid))
    }

    fn take(&mut self, pin: Pin, path: &Path, pid: u32) -> Binary {
        let identity = (pin.meta.dev(), pin.meta.ino());
        let link = format!("/proc/self/fd/{}", pin.file().as_raw_fd());
        Binary { program: self.0.named(pin, path, pid), identity, path: link.into() }
    }

    /// Where a function begins in a file, bytes, and whether it may be left by unwinding; or why it is not found.
    pub fn function(&mut self, binary: &Binary, wanted: &str, shown: &str) -> Result<(u64, bool), String> {
        let request = Request::Function { id: binary.program.id, wanted: wanted.into(), shown: shown.into() };
        match self.0.question(&binary.program, &request) {
            Ok(Reply::Function(found)) => found,
            Ok(_) => Err(cannot(shown, "unexpected reply of the symbolizer")),
            Err(why) => Err(cannot(shown, &reason(why))),
        }
    }

    /// The USDT points of a file.
    pub fn points(&mut self, binary: &Binary, shown: &str) -> Result<Vec<Point>, String> {
        let mut points = Vec::new();
        loop {
            let request = Request::Points { id: binary.program.id, from: points.len() as u32 };
            match self.0.question(&binary.program, &request) {
                Ok(Reply::Points(more)) if more.is_empty() => return Ok(points),
                Ok(Reply::Points(more)) if points.len() < MOST => points.extend(more),
                Ok(_) => return Err(cannot(shown, "unexpected reply of the symbolizer")),
                Err(why) => return Err(cannot(shown, &reason(why))),
            }
        }
    }
}

/// Points of one file, at most: the symbolizer says so, too.
const MOST: usize = 1 << 17;

fn cannot(shown: &str, why: &str) -> String {
    format!("cannot read {shown}: {why}")
}

fn reason(why: Why) -> String {
    match why {
        Why::Unreadable(error) | Why::Symbolizer(error) => error,
        other => other.to_string(),
    }
}
