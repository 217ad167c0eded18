//! The memory of one process under an engine: which of its mappings are watched, and how they are reset.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result};
use trapline_model::access::Coverage;
use trapline_symbols::ending;
use trapline_symbols::maps::{Mapping, Maps, USER_END};

use super::engine::Engine;
use super::injector::Injector;
use super::mapped::mapped;
use super::numa::{Balance, Scanned};
use super::own::{GiveWay, Hold};
use super::pages::PAGE;
use super::scan::Scan;
use super::stretch::{self, Taken};
use super::uffd::{self, Mode, Uffd};

/// One process under an engine.
#[derive(Debug)]
pub struct TargetMemory {
    /// The process.
    pub pid: u32,
    engine: Engine,
    hold: Option<Hold>,
    /// How the kernel's balancing goes over it, if that is what resets.
    pub scanned: Option<Scanned>,
    pagemap: File,
    clear_refs: Option<File>,
    /// The mappings that are watched.
    watched: Vec<Taken>,
    /// How long a thread of the process stood still for it, nanoseconds.
    pub stopped_ns: u64,
}

/// What became of a reset.
#[derive(Debug, PartialEq, Eq)]
pub enum Reset {
    /// All is reset.
    Done,
    /// The kernel has reset all, so many times in that time since it was last asked.
    Passed(u64, Duration),
    /// It has not.
    Waiting,
    /// Mappings have changed: look again.
    Stale,
    /// The process has a userfaultfd of its own: from now on nothing is reset.
    GaveWay,
    /// The process has ended, or is another program.
    Gone,
}

impl TargetMemory {
    /// Takes a process under control. It is not reset yet.
    ///
    /// # Errors
    /// Why that cannot be, in words.
    pub fn open(pid: u32, engine: Engine, injector: &Injector, give_way: Option<&GiveWay>) -> Result<Self> {
        let maps = mapped(pid)?;
        let mut hold = None;
        let mut stopped_ns = 0;
        if let Engine::Rwp(features) | Engine::Writes(features) = engine {
            let injected = injector.userfaultfd_of(pid)?;
            stopped_ns = injected.stopped_ns;
            let uffd = Uffd::new(injected.uffd, features).context("cannot set up its userfaultfd")?;
            let give_way = give_way.context("cannot give way to a userfaultfd of the process")?;
            hold = Some(give_way.hold(pid, uffd)?);
        }
        let scanned = if engine == Engine::Numa { Some(Scanned::open(pid, &maps)?) } else { None };
        let clear_refs = if engine == Engine::SoftDirty {
            let path = format!("/proc/{pid}/clear_refs");
            let file = OpenOptions::new().write(true).open(&path);
            Some(file.with_context(|| format!("cannot open {path}"))?)
        } else {
            None
        };
        // These files stay with the memory that the process has when they are opened.
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))
            .with_context(|| format!("cannot read the page map of process {pid}"))?;
        Ok(Self { pid, engine, hold, scanned, pagemap, clear_refs, watched: vec![], stopped_ns })
    }

    /// Learns what was found out of the kernel's balancing, if that is what resets.
    pub fn learn(&mut self, balance: Option<&Balance>) {
        if let (Some(scanned), Some(balance)) = (&mut self.scanned, balance) {
            scanned.learn(balance);
        }
    }

    /// Takes the mappings under control that can be, and says which cannot.
    pub fn cover(&mut self, maps: &Maps) -> Coverage {
        let mut coverage = Coverage::default();
        let mut scanned = Vec::new();
        self.watched = self.watch(maps);
        if let Some(hold) = &self.hold
            && hold.ours.gave_way()
        {
            hold.settle();
            self.watched.clear();
        }
        let mut watched = self.watched.iter().peekable();
        for mapping in maps.of_the_program() {
            let mode = watched.next_if(|of| of.start == mapping.start).map(|of| of.mode);
            let sight = self.scanned.as_ref().map(|scanned| scanned.sees(mapping));
            if matches!(sight, Some(Scan::Done | Scan::Unknown)) {
                scanned.push(mapping.bytes());
            }
            match (self.engine, mode) {
                // Whoever asks for writes is shown all of them.
                (_, Some(Mode::Wp)) => coverage.writes_only += mapping.bytes(),
                (_, Some(Mode::Rwp)) => coverage.seen += mapping.bytes(),
                (Engine::Numa, None) if sight == Some(Scan::Done) => coverage.seen += mapping.bytes(),
                (Engine::Numa, None) if sight == Some(Scan::Unknown) => coverage.unsure += mapping.bytes(),
                (Engine::SoftDirty, None) if mapping.writable => coverage.writes_only += mapping.bytes(),
                // Nobody can access what allows nothing.
                (_, None) if !mapping.readable && !mapping.writable && !mapping.executable => {}
                (_, None) => coverage.miss(&mapping.name, mapping.bytes()),
            }
        }
        if let Some(of) = &mut self.scanned {
            of.cover(&scanned);
        }
        coverage
    }

    /// Takes what can be watched under control: which mappings that is, in order.
    fn watch(&self, maps: &Maps) -> Vec<Taken> {
        let Some(hold) = &self.hold else { return vec![] };
        let taken = stretch::take(&hold.ours, self.pid, self.engine, maps);
        let how = |m: &Mapping| {
            let range = taken.get(taken.partition_point(|range| range.end <= m.start))?;
            let is_watched = range.start <= m.start && self.engine.modes(m).contains(&range.mode);
            is_watched.then_some(Taken { start: m.start, end: m.end, mode: range.mode })
        };
        maps.of_the_program().filter_map(how).collect()
    }

    /// Whether the process has a userfaultfd of its own, and ours has given way to it.
    pub fn gave_way(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.ours.gave_way())
    }

    /// Makes the next access to each page fault.
    pub fn reset(&mut self) -> Reset {
        if self.gave_way() {
            self.hold = None;
            self.watched.clear();
            self.engine = Engine::None;
            return Reset::GaveWay;
        }
        if let Some(scanned) = &mut self.scanned {
            return match scanned.passed() {
                Ok(Some((times, time))) => Reset::Passed(times, time),
                Ok(None) => Reset::Waiting,
                Err(_) => Reset::Gone,
            };
        }
        let done = match self.engine {
            Engine::Rwp(_) => self.reset_accesses(),
            Engine::Writes(_) => uffd::protect_writes(&self.pagemap, 0, USER_END),
            Engine::SoftDirty => self.clear_refs.as_mut().map_or(Ok(()), |file| file.write_all(b"4")),
            Engine::Numa | Engine::None => Ok(()),
        };
        match done.map_err(|error| error.raw_os_error()) {
            Ok(()) => Reset::Done,
            Err(Some(libc::ESRCH)) => Reset::Gone,
            Err(_) => Reset::Stale,
        }
    }

    fn reset_accesses(&self) -> io::Result<()> {
        let Some(hold) = &self.hold else { return Ok(()) };
        let mut result = Ok(());
        for range in self.watched.iter().filter(|of| of.mode == Mode::Rwp) {
            // One that has changed must not keep the others from being reset.
            match hold.ours.protect_accesses(range.start, range.end) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(error),
                Err(error) => result = Err(error),
                Ok(()) => {}
            }
        }
        if self.watched.iter().any(|of| of.mode == Mode::Wp) {
            uffd::protect_writes(&self.pagemap, 0, USER_END)?;
        }
        result
    }

    /// Calls `present` with the address of each page that the process has in memory or in swap.
    pub fn pages(&self, maps: &Maps, mut present: impl FnMut(u64)) {
        const PRESENT_OR_SWAPPED: u64 = 3 << 62;
        let mut entries = vec![0u8; 64 << 10];
        for mapping in maps.of_the_program() {
            if uffd::populated(&self.pagemap, mapping.start, mapping.end, &mut present).is_ok() {
                continue;
            }
            // An entry for each page that there could be: a large reservation takes long.
            let mut addr = mapping.start;
            while addr < mapping.end && !ending::is_asked_to_end() {
                let most = (((mapping.end - addr) / PAGE * 8) as usize).min(entries.len());
                let Ok(read @ 8..) = self.pagemap.read_at(&mut entries[..most], addr / PAGE * 8) else {
                    break;
                };
                for entry in entries[..read].as_chunks::<8>().0 {
                    if u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0 {
                        present(addr);
                    }
                    addr += PAGE;
                }
            }
        }
    }
}
