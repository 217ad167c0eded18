//! Reads ranges of files into the page cache. Anybody may have written the list: nothing is opened that is no regular file, no
//! link is followed, and no more is read than memory has space for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, open, openat2, posix_fadvise};
use nix::sys::stat::Mode;
use trapline_model::prefetch::Range;

use super::{Report, identity};

/// What is asked of the kernel in one call, bytes.
const CHUNK: u64 = 256 << 10;
/// Chunks that are under way at most: 4 MiB keep a disk busy, and do not keep the command's own reads waiting for long.
const DEPTH: usize = 16;
/// Files that are open at a time.
const MOST_FILES: usize = 256;

/// Reading ahead, as far as it has come.
pub(super) struct Ahead {
    pub(super) report: Report,
    files: HashMap<String, Rc<File>>,
    read: BTreeSet<String>,
    /// Chunks that are under way: the file, and the last byte.
    under_way: VecDeque<(Rc<File>, u64)>,
    /// How much more may be read.
    space: u64,
}

impl Ahead {
    pub(super) fn new() -> Self {
        Self {
            report: Report::default(),
            files: HashMap::new(),
            read: BTreeSet::new(),
            under_way: VecDeque::new(),
            space: space().unwrap_or(u64::MAX),
        }
    }

    /// Reads a range, or notes why it is left out.
    pub(super) fn range(&mut self, range: &Range) {
        if self.report.left_out.contains_key(&range.file) {
            return;
        }
        if let Err(why) = self.try_range(range) {
            self.report.left_out.insert(range.file.clone(), why);
        }
    }

    fn try_range(&mut self, range: &Range) -> Result<(), String> {
        let file = self.file(range)?;
        let end = range.offset.saturating_add(range.length).min(range.of.size);
        if range.length == 0 || range.offset >= end {
            return Err(format!("the range at {:#x} is not in the file", range.offset));
        }
        let mut at = range.offset;
        while at < end {
            let length = CHUNK.min(end - at);
            if length > self.space {
                self.report.stopped = Some("half of the available memory is filled".into());
                return Ok(());
            }
            self.space -= length;
            let (offset, bytes) = (at.cast_signed(), length.cast_signed());
            posix_fadvise(&*file, offset, bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED)
                .map_err(|error| format!("cannot read it ahead: {error}"))?;
            self.under_way.push_back((Rc::clone(&file), at + length - 1));
            self.report.bytes += length;
            at += length;
            self.wait(DEPTH)?;
        }
        self.report.ranges += 1;
        self.read.insert(range.file.clone());
        Ok(())
    }

    /// Waits until at most this number of chunks are under way: a byte is there when its page is.
    fn wait(&mut self, most: usize) -> Result<(), String> {
        while self.under_way.len() > most {
            if let Some((file, last)) = self.under_way.pop_front() {
                file.read_at(&mut [0], last).map_err(|error| format!("cannot read it: {error}"))?;
            }
        }
        Ok(())
    }

    /// The rest has been read.
    pub(super) fn finish(&mut self) {
        while let Err(why) = self.wait(0) {
            self.report.stopped.get_or_insert(why);
        }
        self.report.files = self.read.len() as u64;
    }

    /// The file, if it is the one that the list is of.
    fn file(&mut self, range: &Range) -> Result<Rc<File>, String> {
        let path = &range.file;
        if let Some(file) = self.files.get(path) {
            return Ok(Rc::clone(file));
        }
        if !path.starts_with('/') {
            return Err("it is not an absolute path".into());
        }
        if path.chars().any(char::is_control) {
            return Err("its path has control characters".into());
        }
        let (file, meta) = opened(path).map_err(|error| format!("cannot open it: {error}"))?;
        if identity(&meta) != range.of {
            return Err("it has changed since the list was made".into());
        }
        if self.files.len() >= MOST_FILES {
            self.files.clear();
        }
        let file = Rc::new(file);
        self.files.insert(path.clone(), Rc::clone(&file));
        Ok(file)
    }
}

/// Opens a regular file to read it, after a look at what it is: opening a pipe or a device may do something.
fn opened(path: &str) -> io::Result<(File, fs::Metadata)> {
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    let pin = File::from(openat2(AT_FDCWD, path, how)?);
    let meta = pin.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", pin.as_fd().as_raw_fd());
    Ok((File::from(open(path.as_str(), flags, Mode::empty())?), meta))
}

/// Half of the memory that is available.
fn space() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024 / 2)
}
