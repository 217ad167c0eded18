//! Perf maps: what a program that makes code at run time says about it, in /tmp/perf-PID.map of its own view.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::rc::Rc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::ranges::Ranges;

/// What is read of one at most, bytes: the file is anybody's.
const LARGEST: u64 = 128 << 20;

/// A process's perf map, held on to.
#[derive(Debug)]
pub(super) struct PerfMap {
    file: File,
    /// How much of it has been read, bytes.
    read: u64,
    names: Ranges<Rc<str>>,
}

impl PerfMap {
    /// Opens the map of a process, if it has one that is its own or root's.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let inside =
            status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?;
        let file = open_inside(pid, Path::new(&format!("/tmp/perf-{inside}.map")), OFlag::O_RDONLY).ok()?;
        let owner = file.metadata().ok().filter(fs::Metadata::is_file)?.uid();
        let own = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        // Everybody may write to /tmp: a file of somebody else's is not the process's word.
        (owner == own || owner == 0).then(|| Self { file, read: 0, names: Ranges::default() })
    }

    /// The name of what is at an address now.
    pub(super) fn find(&mut self, addr: u64) -> Option<Rc<str>> {
        self.read_on();
        self.names.find(addr).cloned()
    }

    /// Reads what was written since; a line that is not finished yet is left for later.
    fn read_on(&mut self) {
        let mut text = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = self.file.read_at(&mut buffer, self.read + text.len() as u64) {
            text.extend(buffer.get(..n).unwrap_or_default());
            if self.read + text.len() as u64 > LARGEST {
                return;
            }
        }
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
        self.read += whole as u64;
        for line in text.get(..whole).unwrap_or_default().split(|&b| b == b'\n') {
            if let Some((start, end, name)) = parse(&String::from_utf8_lossy(line)) {
                // Code is made anew where old code was: the later line is the one that holds.
                self.names.insert(start, end, name.into());
            }
        }
    }
}

/// `START SIZE name`, the numbers hexadecimal, the name with whatever it has in it.
fn parse(line: &str) -> Option<(u64, u64, &str)> {
    let (start, rest) = line.split_once(' ')?;
    let (size, name) = rest.split_once(' ')?;
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    let start = hex(start)?;
    Some((start, start.checked_add(hex(size)?)?, name.trim_end()))
}

/// Opens a path as a process sees it, wherever links in it want to lead.
pub(super) fn open_inside(pid: u32, path: &Path, flags: OFlag) -> std::io::Result<File> {
    let root = File::open(format!("/proc/{pid}/root"))?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(File::from(openat2(root.as_fd(), path, how)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn later_lines_hold_and_unfinished_ones_wait() {
        let mut file = tempfile::tempfile().unwrap();
        let mut map = PerfMap { file: file.try_clone().unwrap(), read: 0, names: Ranges::default() };
        assert_eq!(map.find(0x1000), None);
        file.write_all(b"1000 20 old name\nnonsense\n0x2000 0x10 x\nffffffffffffffff 2 beyond\n1010 10 ne")
            .unwrap();
        assert_eq!(map.find(0x1010).as_deref(), Some("old name"));
        assert_eq!(map.find(0x200f).as_deref(), Some("x"));
        file.write_all(b"w\n").unwrap();
        assert_eq!(map.find(0x1010).as_deref(), Some("new"));
        assert_eq!(map.find(0x100f).as_deref(), Some("old name"));
        assert_eq!(map.find(0x1020), None);
    }
}
