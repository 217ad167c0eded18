//! Perf maps: what a program that makes code at run time says about it, one line for each piece of code.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::wire::{Frame, Miss};
use crate::demangle::shortened;
use crate::ranges::Ranges;

/// Pieces of code in one map, at most: a hundred bytes each are a tenth of the symbolizer's memory.
const ENTRIES: usize = 1 << 20;
/// A name's length, bytes.
const NAME: usize = 4096;
/// How much is read at a time, bytes: no line that is used is longer.
const CHUNK: usize = 1 << 20;

/// A perf map, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    read: u64,
    /// What stood before that, and at the beginning: if something else does, the map was written anew.
    last: Vec<u8>,
    first: Vec<u8>,
    names: Ranges<Rc<str>>,
}

/// How much is compared, bytes.
const COMPARED: usize = 256;

impl PerfMap {
    /// Reads what was written since, or all of it if it was written anew; a line that is not finished yet is left for
    /// later.
    pub(super) fn read(&mut self, file: OwnedFd, size: u64) -> Result<(), String> {
        let file = File::from(file);
        let is_as_before = |at: u64, bytes: &[u8]| {
            let mut now = vec![0; bytes.len()];
            file.read_exact_at(&mut now, at).is_ok() && now == bytes
        };
        let last = self.read.saturating_sub(self.last.len() as u64);
        if size < self.read || !is_as_before(0, &self.first) || !is_as_before(last, &self.last) {
            *self = Self::default();
        }
        let mut buffer = vec![0; CHUNK];
        while self.read < size {
            let n =
                file.read_at(&mut buffer, self.read).map_err(|error| format!("cannot read it: {error}"))?;
            let text = buffer.get(..n).unwrap_or_default();
            let whole = match text.iter().rposition(|&b| b == b'\n') {
                Some(last) => last + 1,
                // A hole, or a line that nobody could read.
                None if n == CHUNK => n,
                None => break,
            };
            let text = text.get(..whole).unwrap_or_default();
            if self.read == 0 {
                self.first = text.get(..whole.min(COMPARED)).unwrap_or_default().to_vec();
            }
            self.last = text.get(whole.saturating_sub(COMPARED)..).unwrap_or_default().to_vec();
            self.read += whole as u64;
            self.take(text)?;
        }
        Ok(())
    }

    fn take(&mut self, text: &[u8]) -> Result<(), String> {
        for line in text.split(|&b| b == b'\n') {
            if let Some((start, end, name)) = parse(&String::from_utf8_lossy(line)) {
                if self.names.len() >= ENTRIES {
                    return Err(format!("it has more than {ENTRIES} entries"));
                }
                // Code is made anew where old code was: the later line is the one that holds.
                self.names.insert(start, end, name.into());
            }
        }
        Ok(())
    }

    /// The function at an address.
    pub(super) fn find(&self, addr: u64) -> Result<Vec<Frame>, Miss> {
        let name = self.names.find(addr).ok_or(Miss::NoSymbol)?;
        Ok(vec![Frame { name: name.to_string(), file: None, line: 0 }])
    }

    /// About how much memory it takes, bytes.
    pub(super) fn size(&self) -> u64 {
        self.names.len() as u64 * 128
    }
}

/// `START SIZE name`, the numbers hexadecimal, the name with whatever it has in it.
fn parse(line: &str) -> Option<(u64, u64, &str)> {
    let (start, rest) = line.split_once(' ')?;
    let (size, name) = rest.split_once(' ')?;
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    let start = hex(start)?;
    let name = shortened(name.trim_end(), NAME);
    (!name.is_empty()).then_some((start, start.checked_add(hex(size)?)?, name))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn name(map: &PerfMap, addr: u64) -> Option<String> {
        Some(map.find(addr).ok()?.remove(0).name)
    }

    #[test]
    fn later_lines_hold_unfinished_ones_wait_and_a_map_can_be_written_anew() {
        let mut file = tempfile::tempfile().unwrap();
        let mut map = PerfMap::default();
        let mut read = |file: &File| {
            let size = file.metadata().unwrap().len();
            map.read(file.try_clone().unwrap().into(), size).unwrap();
            [0x1000, 0x100f, 0x1010, 0x1020, 0x200f].map(|addr| name(&map, addr))
        };
        let names = |names: [&str; 5]| names.map(|name| (!name.is_empty()).then(|| name.to_owned()));
        assert_eq!(read(&file), names(["", "", "", "", ""]));
        file.write_all(b"1000 20 old name\nnonsense\n0x2000 0x10 x\nffffffffffffffff 2 beyond\n1010 10 ne")
            .unwrap();
        assert_eq!(read(&file), names(["old name", "old name", "old name", "", "x"]));
        file.write_all(b"w\n").unwrap();
        assert_eq!(read(&file), names(["old name", "old name", "new", "", "x"]));
        // Truncated, and longer than before by now.
        file.set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        writeln!(file, "1000 10 {}", "y".repeat(10_000)).unwrap();
        assert_eq!(read(&file), names([&"y".repeat(NAME), &"y".repeat(NAME), "", "", ""]));
    }

    #[test]
    fn a_map_of_short_lines_takes_bounded_memory() {
        let mut file = tempfile::tempfile().unwrap();
        let lines: String = (0..ENTRIES as u64 + 10).map(|i| format!("{:x} 1 a\n", i * 2)).collect();
        file.write_all(lines.as_bytes()).unwrap();
        let mut map = PerfMap::default();
        let error = map.read(file.into(), lines.len() as u64).unwrap_err();
        assert_eq!(error, "it has more than 1048576 entries");
        assert_eq!(name(&map, 4).as_deref(), Some("a"), "what was read is kept");
    }
}
