//! One process that is traced, as far as user space must know it to make sense of its faults.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use trapline_model::access::{Page, Step, Tally, Way, What};
use trapline_reset::{PAGE, Pages};
use trapline_symbols::maps::{Mapping, Maps};

use super::from_abi::{Held, PageAccess};
use crate::system;

/// Mappings are read anew at most so often, for an address that is in none.
const READ_EVERY: Duration = Duration::from_millis(2);
/// And after so long if pages were touched for the first time: they may be of something new at an old address.
const STALE: Duration = Duration::from_millis(100);

/// However long a reading takes, what is strange is not left so for longer.
const LONGEST: Duration = Duration::from_millis(200);

/// A process.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) maps: Maps,
    /// Those of the reading before: events come late, and may be of a mapping that is gone by now.
    maps_before: Maps,
    /// When their reading began and ended, CLOCK_MONOTONIC nanoseconds; 0 if they were not read.
    read_ns: (u64, u64),
    /// What was gone then: of events from then on the pages are new.
    gone: Vec<(u64, u64)>,
    /// Pages that were accessed where, as far as is known, nothing is mapped or something else, with the inode of what was
    /// accessed if that was told. It may be gone before the next reading.
    unexplained: HashMap<u64, Option<u64>>,
    /// Those that the reading explained: they are not of what is gone.
    explained: Vec<u64>,
    /// Pages that were touched, or were there when it began.
    pub(crate) pages: Pages,
    pub(crate) tally: Tally,
    read: Instant,
    read_took: Duration,
    /// An address was accessed that no mapping explains.
    strange: bool,
    touched_new: bool,
}

impl Target {
    /// One whose mappings were these in that time, or are not known.
    pub(crate) fn new(pid: u32, maps: Maps, read_ns: (u64, u64)) -> Self {
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self {
            pid,
            comm: String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned(),
            maps,
            maps_before: Maps::default(),
            read_ns,
            gone: vec![],
            unexplained: HashMap::new(),
            explained: vec![],
            pages: Pages::default(),
            tally: Tally::default(),
            read: Instant::now(),
            read_took: Duration::ZERO,
            strange: false,
            touched_new: false,
        }
    }

    pub(crate) fn named(self, comm: &str) -> Self {
        Self { comm: comm.to_owned(), ..self }
    }

    /// A process that this one forks: it has the same memory, to begin with.
    pub(crate) fn child(&self, pid: u32) -> Self {
        Self { pid, tally: Tally::default(), ..self.clone() }
    }

    /// Sees to it that the mapping of an address that was accessed is known, now or at a later
    /// [`catch_up`](Self::catch_up). Tells whether there is a mapping that wants taking under control.
    pub(crate) fn notice(&mut self, access: &PageAccess, addr: u64) -> bool {
        let allows = |m: &Mapping| m.writable || access.way != Some(Way::Write);
        if self.mapping(access, addr).is_some_and(allows) {
            return false;
        }
        let told = std::mem::replace(&mut self.strange, true);
        self.catch_up() || !told
    }

    /// Reads the mappings anew if something in them is not known, or may be something else by now. Tells whether it
    /// did.
    pub(crate) fn catch_up(&mut self) -> bool {
        let age = self.read.elapsed();
        let due = self.strange && age > READ_EVERY || self.touched_new && age > STALE;
        if !due || age < (self.read_took * 20).min(LONGEST) {
            return false;
        }
        let began = Instant::now();
        let (maps, read_ns) = Self::read(self.pid);
        if let Ok(maps) = maps
            && !maps.is_empty()
        {
            self.learn(maps, read_ns);
        }
        (self.strange, self.touched_new) = (false, false);
        self.read = Instant::now();
        self.read_took = self.read - began;
        true
    }

    /// Reads the mappings of a process. Tells in what time.
    pub(crate) fn read(pid: u32) -> (io::Result<Maps>, (u64, u64)) {
        let began = system::monotonic_ns();
        let maps = Maps::read(pid);
        (maps, (began, system::monotonic_ns()))
    }

    /// Learns what was mapped in that time.
    fn learn(&mut self, maps: Maps, read_ns: (u64, u64)) {
        // One that has grown or changed its protection still holds what it held.
        let gone =
            self.maps.iter().filter(|old| maps.find(old.start).is_none_or(|new| new.inode != old.inode));
        self.gone.extend(gone.map(|old| (old.start, old.end)));
        for (page, inode) in self.unexplained.drain() {
            match find(&maps, page, inode) {
                Some(_) => self.explained.push(page),
                None => self.gone.push((page, page + PAGE)),
            }
        }
        self.maps_before = std::mem::replace(&mut self.maps, maps);
        self.read_ns = read_ns;
    }

    /// Whether an access is the first to its page. Where the engine takes pages away from the processor a page that
    /// is not there may have been accessed before; else it has not.
    pub(crate) fn is_first(&mut self, access: &PageAccess, addr: u64, absent_is_new: bool) -> bool {
        let is_late = self.is_late(access);
        let was_there = self.mapping_before(access, addr).is_some();
        let is_there = find(&self.maps, addr, access.inode()).is_some();
        if !is_late || is_there && !was_there {
            self.gone.drain(..).for_each(|(start, end)| self.pages.forget(start, end));
            self.explained.drain(..).for_each(|page| {
                self.pages.insert(page);
            });
        }
        let page = addr / PAGE * PAGE;
        let mut new = self.pages.insert(addr);
        if !is_there && (was_there || access.time_ns < self.read_ns.0) {
            self.gone.push((page, page + PAGE));
        } else if !is_there {
            // It may have come since, and be gone before the next reading.
            new = self.unexplained.insert(page, access.inode()) != Some(access.inode());
        }
        let first = match access.page {
            Held::Page => false,
            Held::Nothing if absent_is_new => true,
            Held::Nothing | Held::Unknown => new,
        };
        self.touched_new |= first;
        first
    }

    pub(crate) fn step(&self, what: What, time_ns: u64) -> Step {
        Step {
            time_ns,
            what,
            pid: self.pid,
            tid: self.pid,
            comm: self.comm.clone(),
            cpu: None,
            page: None,
            note: None,
        }
    }

    /// The mapping that was accessed, if it is known.
    fn mapping(&self, access: &PageAccess, addr: u64) -> Option<&Mapping> {
        self.mapping_before(access, addr).or_else(|| find(&self.maps, addr, access.inode()))
    }

    /// The same of the reading before, if it can have been that.
    fn mapping_before(&self, access: &PageAccess, addr: u64) -> Option<&Mapping> {
        if self.is_late(access) { find(&self.maps_before, addr, access.inode()) } else { None }
    }

    /// Whether the mappings had not been read when an access came, and may have been those of the reading before.
    fn is_late(&self, access: &PageAccess) -> bool {
        access.time_ns < self.read_ns.1
    }

    /// What there is to say of an access's page, without the function.
    pub(crate) fn page(&self, access: &PageAccess, addr: u64, first: bool) -> Page {
        let mapping = self.mapping(access, addr);
        Page {
            way: access.way,
            ip: access.ip,
            addr,
            file: mapping.map(|m| m.name.to_string()),
            offset: mapping.and_then(|m| m.offset_of(addr)),
            symbol: None,
            first,
        }
    }

    pub(crate) fn access(access: &PageAccess, page: Page) -> Step {
        Step {
            time_ns: access.time_ns,
            what: What::Access,
            pid: access.pid,
            tid: access.tid,
            comm: access.comm.clone(),
            cpu: Some(access.cpu),
            page: Some(page),
            note: None,
        }
    }
}

/// The mapping that an access was in, if it is among those: its inode decides, if the kernel half told it.
fn find(maps: &Maps, addr: u64, inode: Option<u64>) -> Option<&Mapping> {
    maps.find(addr).filter(|mapping| inode.is_none_or(|inode| inode == mapping.inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: u64 = 0x7000;
    const CACHE: &str = "7000-9000 r--p 00000000 fe:00 5 /etc/ld.so.cache\n";
    const OTHER: &str = "5000-6000 r--p 00000000 fe:00 4 /usr/bin/x\n";
    const FILE: &str = "7000-9000 rw-s 00000000 fe:00 6 /tmp/x\n";

    fn target(maps: &str) -> Target {
        Target::new(std::process::id(), Maps::parse(maps), (1, 2))
    }

    fn is_first(target: &mut Target, time_ns: u64, inode: u64) -> bool {
        let access = PageAccess::of_inode(time_ns, Way::Read, inode);
        target.is_first(&access, ADDR, false)
    }

    #[test]
    fn a_page_is_first_touched_once() {
        let mut target = target(CACHE);
        assert!(is_first(&mut target, 10, 5) && !is_first(&mut target, 11, 5));
        target.learn(Maps::parse(CACHE), (20, 25));
        assert!(!is_first(&mut target, 19, 5) && !is_first(&mut target, 21, 5));
    }

    #[test]
    fn and_once_more_in_what_is_mapped_there_next() {
        // The mapping that has gone was read; never; or was when its access was told.
        for (read, told_at) in [(CACHE, 10), (OTHER, 10), (CACHE, 30), (OTHER, 30)] {
            let mut target = target(read);
            if told_at == 10 {
                assert!(is_first(&mut target, 10, 5));
            }
            target.learn(Maps::parse(OTHER), (20, 25));
            if told_at == 30 {
                assert!(is_first(&mut target, 10, 5));
            }
            assert!(is_first(&mut target, 40, 6), "{read} {told_at}");
            target.learn(Maps::parse(FILE), (50, 55));
            assert!(!is_first(&mut target, 60, 6), "{read} {told_at}");
        }
    }

    #[test]
    fn also_if_neither_was_read() {
        for read in [CACHE, OTHER] {
            let mut target = target(read);
            assert!(is_first(&mut target, 10, 5));
            assert!(is_first(&mut target, 11, 6) && !is_first(&mut target, 12, 6), "{read}");
            target.learn(Maps::parse(FILE), (20, 25));
            assert!(!is_first(&mut target, 30, 6), "{read}");
        }
    }

    #[test]
    fn also_if_its_access_makes_us_read() {
        for read in [CACHE, OTHER] {
            let mut target = target(read);
            assert!(is_first(&mut target, 10, 5));
            target.learn(Maps::parse(FILE), (30, 35));
            assert!(is_first(&mut target, 20, 6), "{read}");
            assert!(!is_first(&mut target, 40, 6), "{read}");
        }
    }

    #[test]
    fn while_the_mappings_are_read_it_may_be_of_either() {
        let mut target = target(CACHE);
        assert!(is_first(&mut target, 10, 5));
        target.learn(Maps::parse(FILE), (20, 30));
        assert!(!is_first(&mut target, 25, 5));
        assert!(is_first(&mut target, 26, 6) && !is_first(&mut target, 40, 6));
        // One that has come just behind what was read already.
        target.learn(Maps::parse(OTHER), (50, 60));
        assert!(is_first(&mut target, 55, 7) && !is_first(&mut target, 65, 7));
        target.learn(Maps::parse(&FILE.replace(" 6 ", " 7 ")), (70, 80));
        assert!(!is_first(&mut target, 90, 7));
    }

    #[test]
    fn an_access_is_shown_in_what_the_kernel_saw_mapped() {
        let mut target = target(CACHE);
        let file = |target: &Target, time_ns, inode| {
            target.page(&PageAccess::of_inode(time_ns, Way::Read, inode), ADDR, true).file
        };
        assert_eq!(file(&target, 10, 5).as_deref(), Some("/etc/ld.so.cache"));
        assert_eq!(file(&target, 10, 6), None);
        target.learn(Maps::parse(FILE), (20, 25));
        assert_eq!(file(&target, 10, 5).as_deref(), Some("/etc/ld.so.cache"));
        assert_eq!(file(&target, 10, 6).as_deref(), Some("/tmp/x"));
        assert_eq!(file(&target, 30, 5), None);
    }
}
