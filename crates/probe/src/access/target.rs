//! One process that is traced, as far as user space must know it to make sense of its faults.

use std::fs;
use std::time::{Duration, Instant};

use trapline_model::access::{Page, Step, Tally, Way, What};

use super::pages::Pages;
use super::probes::{Held, Sighting};
use crate::maps::{Mapping, Maps};
use crate::system;

/// Mappings are read anew at most so often, for an address that is in none.
const READ_EVERY: Duration = Duration::from_millis(2);
/// And after so long if pages were touched for the first time: they may be of something new at an old address.
const STALE: Duration = Duration::from_millis(100);

/// However long a reading takes, what is strange is not left so for longer.
const LONGEST: Duration = Duration::from_millis(200);

/// A process.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) maps: Maps,
    /// Those of the reading before: events come late, and may be of a mapping that is gone by now.
    maps_before: Maps,
    /// When the mappings were read, CLOCK_MONOTONIC nanoseconds.
    read_ns: u64,
    /// What was gone then: of events from then on the pages are new.
    gone: Vec<(u64, u64)>,
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
    pub(crate) fn new(pid: u32, maps: Maps) -> Self {
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self {
            pid,
            comm: String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned(),
            maps,
            maps_before: Maps::default(),
            read_ns: system::monotonic_ns(),
            gone: vec![],
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
        Self { maps: self.maps.clone(), pages: self.pages.clone(), ..Self::new(pid, Maps::default()) }
    }

    /// Sees to it that the mapping of an address that was accessed is known, now or at a later
    /// [`catch_up`](Self::catch_up). Tells whether there is a mapping that wants taking under control.
    pub(crate) fn notice(&mut self, addr: u64, way: Option<Way>) -> bool {
        if self.maps.find(addr).is_some_and(|m| m.writable || way != Some(Way::Write)) {
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
            // One that has grown or changed its protection still holds what it held.
            let gone =
                self.maps.iter().filter(|old| maps.find(old.start).is_none_or(|new| new.inode != old.inode));
            self.gone.extend(gone.map(|old| (old.start, old.end)));
            self.maps_before = std::mem::replace(&mut self.maps, maps);
            self.read_ns = system::monotonic_ns();
        }
        (self.strange, self.touched_new) = (false, false);
        self.read = Instant::now();
        self.read_took = self.read - began;
        true
    }

    /// Whether an access is the first to its page. Where the engine takes pages away from the processor a page that
    /// is not there may have been accessed before; else it has not.
    pub(crate) fn is_first(&mut self, sighting: &Sighting, addr: u64, absent_is_new: bool) -> bool {
        if sighting.time_ns > self.read_ns {
            self.gone.drain(..).for_each(|(start, end)| self.pages.forget(start, end));
        }
        let new = self.pages.insert(addr);
        if self.is_of_another(sighting, addr) {
            // What is mapped there now has not been touched.
            self.pages.remove(addr);
        }
        let first = match sighting.page {
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

    fn mapping(&self, sighting: &Sighting, addr: u64) -> Option<&Mapping> {
        let before = if self.is_late(sighting) { self.maps_before.find(addr) } else { None };
        before.or_else(|| self.maps.find(addr))
    }

    /// Whether an access was told after the mappings had been read, which came later.
    fn is_late(&self, sighting: &Sighting) -> bool {
        sighting.time_ns < self.read_ns
    }

    /// Whether another file was mapped there when a page was accessed.
    fn is_of_another(&self, sighting: &Sighting, addr: u64) -> bool {
        self.is_late(sighting)
            && sighting.inode().is_some_and(|inode| {
                self.mapping(sighting, addr).is_some_and(|mapping| mapping.inode != inode)
            })
    }

    /// What there is to say of an access's page, without the function.
    pub(crate) fn page(&self, sighting: &Sighting, addr: u64, first: bool) -> Page {
        let mapping = self.mapping(sighting, addr).filter(|_| !self.is_of_another(sighting, addr));
        Page {
            way: sighting.way,
            ip: sighting.ip,
            addr,
            file: mapping.map(|m| m.shown().to_owned()),
            offset: mapping.filter(|m| m.inode != 0).map(|m| addr - m.start + m.offset),
            symbol: None,
            first,
        }
    }

    pub(crate) fn access(sighting: &Sighting, page: Page) -> Step {
        Step {
            time_ns: sighting.time_ns,
            what: What::Access,
            pid: sighting.pid,
            tid: sighting.tid,
            comm: sighting.comm.clone(),
            cpu: Some(sighting.cpu),
            page: Some(page),
            note: None,
        }
    }
}
