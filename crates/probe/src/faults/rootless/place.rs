//! What is mapped where a fault was, as far as the kernel's records and /proc/PID/maps tell.

use std::rc::Rc;

use trapline_symbols::Ranges;
use trapline_symbols::maps::{Mapping, Maps, kind_and_name};

/// A mapping.
#[derive(Debug, Clone)]
struct Place {
    start: u64,
    /// Where in the file it begins, bytes; nothing if there is no file.
    offset: Option<u64>,
    name: Rc<str>,
}

/// The mappings of a process.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    ranges: Ranges<Place>,
    /// They were read whole since records were last taken.
    fresh: bool,
}

impl Places {
    /// Adds one that was made.
    pub(super) fn add(&mut self, start: u64, len: u64, offset: u64, name: &str) {
        let (name, is_file) = kind_and_name(name);
        let offset = Some(offset).filter(|_| is_file);
        self.ranges.insert(start, start.saturating_add(len), Place { start, offset, name });
    }

    /// Reads what a living process has.
    pub(super) fn read(&mut self, pid: u32) {
        let maps = Maps::read(pid).unwrap_or_default();
        let add = |m: &Mapping| self.add(m.start, m.bytes(), m.offset, &m.name);
        maps.iter().for_each(add);
    }

    /// It may be read anew.
    pub(super) fn age(&mut self) {
        self.fresh = false;
    }

    /// The name for an address, and where in the file it is. What the kernel does not record (a stack that grew, memory
    /// that was moved) is looked up in the living process.
    pub(super) fn find(&mut self, pid: u32, addr: u64) -> Option<(Rc<str>, Option<u64>)> {
        if self.ranges.find(addr).is_none() && !std::mem::replace(&mut self.fresh, true) {
            self.read(pid);
        }
        let place = self.ranges.find(addr)?;
        Some((Rc::clone(&place.name), place.offset.map(|offset| offset + (addr - place.start))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_mapping_is_meant() {
        let mut places = Places { fresh: true, ..Places::default() };
        places.add(0x1000, 0x4000, 0x8000, "/lib/a");
        places.add(0x2000, 0x1000, 0, "//anon");
        places.add(0x9000, 0x1000, 0x2000, "/memfd:x (deleted)");
        let mut at = |addr| places.find(1, addr).map(|(name, offset)| (name.to_string(), offset));
        assert_eq!(at(0x1fff), Some(("/lib/a".into(), Some(0x8fff))));
        assert_eq!(at(0x2fff), Some(("[anon]".into(), None)));
        assert_eq!(at(0x3000), Some(("/lib/a".into(), Some(0xa000))));
        assert_eq!(at(0x9001), Some(("[shmem] memfd:x".into(), Some(0x2001))));
        assert_eq!(at(0x8000), None);
    }
}
