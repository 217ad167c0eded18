//! One process that is traced, as far as user space must know it to make sense of its faults.

use std::fs;
use std::time::{Duration, Instant};

use trapline_model::access::{Page, Step, Tally, Way, What};
use trapline_reset::Pages;
use trapline_symbols::maps::{Mapping, Maps};

use super::from_abi::{Held, PageAccess};

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
    /// One whose mappings are these, or are not known.
    pub(crate) fn new(pid: u32, maps: Maps) -> Self {
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self {
            pid,
            comm: String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned(),
            maps,
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
        if let Ok(maps) = Maps::read(self.pid)
            && !maps.is_empty()
        {
            self.maps = maps;
        }
        (self.strange, self.touched_new) = (false, false);
        self.read = Instant::now();
        self.read_took = self.read - began;
        true
    }

    /// Whether an access is the first to its page. Where the engine takes pages away from the processor a page that
    /// is not there may have been accessed before; else it has not.
    pub(crate) fn is_first(&mut self, access: &PageAccess, addr: u64, absent_is_new: bool) -> bool {
        let new = self.pages.insert(addr, access.inode());
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

    /// The mapping that was accessed, if it is known: its inode decides, if the kernel half told it.
    fn mapping(&self, access: &PageAccess, addr: u64) -> Option<&Mapping> {
        let is_it = |mapping: &&Mapping| access.inode().is_none_or(|inode| inode == mapping.inode);
        self.maps.find(addr).filter(is_it)
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

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: u64 = 0x7000;
    const CACHE: &str = "7000-9000 r--p 00000000 fe:00 5 /etc/ld.so.cache\n";
    const FILE: &str = "7000-9000 rw-s 00000000 fe:00 6 /tmp/x\n";

    #[test]
    fn a_page_is_first_touched_once_in_each_file_that_is_mapped_there() {
        let mut target = Target::new(std::process::id(), Maps::parse(CACHE));
        let mut is_first = |inode| {
            let access = PageAccess::of_inode(10, Way::Read, inode);
            target.is_first(&access, ADDR, false)
        };
        assert!(is_first(5) && !is_first(5));
        assert!(is_first(6) && !is_first(6));
    }

    #[test]
    fn an_access_is_shown_in_what_the_kernel_saw_mapped() {
        let mut target = Target::new(std::process::id(), Maps::parse(CACHE));
        let file = |target: &Target, inode| {
            target.page(&PageAccess::of_inode(10, Way::Read, inode), ADDR, true).file
        };
        assert_eq!(file(&target, 5).as_deref(), Some("/etc/ld.so.cache"));
        assert_eq!(file(&target, 6), None);
        target.maps = Maps::parse(FILE);
        assert_eq!(file(&target, 6).as_deref(), Some("/tmp/x"));
        // The kernel half has its name.
        assert_eq!(file(&target, 5), None);
    }
}
