//! Perf maps: what a program that makes code at run time says about it, in /tmp/perf-PID.map of its own view.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::Uid;
use trapline_model::faults::Process;

use super::Function;
use super::child::Lost;
use super::child::wire::{ADDRESSES, Frame, Id, Miss, Reply, Request};
use super::files::{Files, user_of};
use super::open::{Pin, own_root};
use crate::clock;

/// The largest perf map that is read, bytes: the file is anybody's.
const LARGEST: u64 = 128 << 20;
/// By how much the times of files and processes may differ: they are of two clocks.
const SLACK: Duration = Duration::from_secs(1);

/// Where a process's perf map is: known while it lives, and used after its end, too.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    root: Rc<File>,
    /// Its number in its own namespace; unknown if that was never asked for.
    number: Option<u32>,
    user: u32,
    /// Whether its namespace of processes is ours.
    is_ours: bool,
    /// Whether it is what the process itself had, as the program that it is.
    is_seen: bool,
}

impl Origin {
    /// Of a process that lives.
    pub(super) fn of(pid: u32, files: &mut Files) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mut numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace();
        let is_ours = numbers.clone().count() == 1;
        let number = numbers.next_back()?.parse().ok()?;
        Some(Self {
            root: Rc::new(files.learn_root(pid)?),
            number: Some(number),
            user: user_of(pid)?,
            is_ours,
            is_seen: true,
        })
    }

    /// Of a child of the process, as long as it was not seen itself.
    pub(super) fn of_child(&self) -> Self {
        Self { number: None, is_seen: false, ..self.clone() }
    }

    /// Of the program that the process became, as long as it was not seen as that.
    pub(super) fn of_successor(&self) -> Self {
        Self { is_seen: false, ..self.clone() }
    }

    /// Of a process that was never seen alive: as if it were one of ours.
    pub(super) fn unseen() -> Option<Self> {
        let root = Rc::new(own_root().ok()?);
        Some(Self { root, number: None, user: Uid::effective().as_raw(), is_ours: true, is_seen: false })
    }

    pub(super) fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// Holds on to the map, if there is one that is the process's own or root's.
    fn open(&self, process: Process) -> Option<Pin> {
        let number = self.number.or_else(|| self.is_ours.then_some(process.pid))?;
        let pin = Pin::inside(&self.root, &PathBuf::from(format!("/tmp/perf-{number}.map")), true).ok()?;
        let (owner, links) = (pin.meta.uid(), pin.meta.nlink());
        // Everybody may write to /tmp: what others put there, or a link to something else, is not its word. Nor is what
        // a process wrote that had its number before.
        let own = (owner == self.user || owner == 0) && links <= 1;
        (own && !is_older(&pin, process)).then_some(pin)
    }
}

fn name(found: Result<Vec<Frame>, Miss>) -> Option<Function> {
    Some(Function { name: found.ok()?.into_iter().next()?.name, line: None })
}

/// What tells it from what it was before.
fn version(pin: &Pin) -> Version {
    (pin.meta.len(), pin.meta.mtime(), pin.meta.mtime_nsec())
}

fn is_older(pin: &Pin, process: Process) -> bool {
    if process.start_ns == 0 {
        return false;
    }
    let age = Duration::from_nanos(clock::monotonic_ns().saturating_sub(process.start_ns));
    let changed = UNIX_EPOCH + Duration::new(pin.meta.mtime().max(0) as u64, pin.meta.mtime_nsec() as u32);
    SystemTime::now().checked_sub(age + SLACK).is_some_and(|began| changed < began)
}

/// A process's perf map, held on to.
#[derive(Debug)]
pub(super) struct PerfMap {
    pin: Pin,
    id: Id,
    /// In which of the symbolizers it is, and what it was when that read it.
    open_in: u64,
    read: Version,
    /// What it was when the symbolizer was asked to read it, and has not answered.
    asked: Option<Version>,
    /// What it has answered of addresses, if there was no time for the others.
    partial: HashMap<u64, Option<Function>>,
    bad: bool,
}

/// Size and time of the last change.
type Version = (u64, i64, i64);

impl PerfMap {
    /// The map that the process has now: the one before, if it is still that.
    pub(super) fn of(
        before: Option<Self>,
        process: Process,
        origin: &Origin,
        files: &mut Files,
    ) -> Option<Self> {
        let Some(pin) = origin.open(process) else { return before };
        let same = |map: &Self| (map.pin.meta.dev(), map.pin.meta.ino()) == (pin.meta.dev(), pin.meta.ino());
        match before {
            Some(map) if same(&map) => Some(map),
            _ => Some(Self {
                pin,
                id: files.id(),
                open_in: 0,
                read: (0, 0, 0),
                asked: None,
                partial: HashMap::new(),
                bad: false,
            }),
        }
    }

    /// Whether it was read since it was found, or was to be read again.
    pub(super) fn is_read(&self) -> bool {
        self.open_in != 0
    }

    /// Whether it was written, or replaced, since it was read.
    pub(super) fn is_written(&self, process: Process, origin: &Origin) -> bool {
        origin.open(process).is_some_and(|pin| {
            let same = (pin.meta.dev(), pin.meta.ino()) == (self.pin.meta.dev(), self.pin.meta.ino());
            !same || self.read != version(&pin)
        })
    }

    /// It is to be read again before it is asked next.
    pub(super) fn renew(&mut self) {
        self.open_in = 0;
    }

    /// The names of what is at addresses: by what was read of it, or by what it is now. Nothing if there was no time for it.
    pub(super) fn find(
        &mut self,
        addrs: &[u64],
        now: bool,
        files: &mut Files,
    ) -> Option<Vec<Option<Function>>> {
        files.client.owned_by(self.pin.meta.uid());
        let mut found: Vec<_> = addrs.iter().map_while(|addr| self.partial.get(addr).cloned()).collect();
        // Once more if it was closed meanwhile.
        for _ in 0..2 {
            match self.read_on(now, files) {
                Ok(()) if !self.bad => {}
                Err(Lost::Late) if !self.bad => return None,
                Ok(()) | Err(_) => break,
            }
            while let Some(at) = addrs.get(found.len()..).filter(|at| !at.is_empty()) {
                let at = at.iter().take(ADDRESSES).copied().collect();
                match files.client.call(&Request::Find { id: self.id, at }, None) {
                    Ok(Reply::Found(some)) if !some.is_empty() => found.extend(some.into_iter().map(name)),
                    Ok(Reply::NotOpen) => {
                        self.open_in = 0;
                        break;
                    }
                    Err(Lost::Late) => {
                        self.partial = addrs.iter().copied().zip(found).collect();
                        return None;
                    }
                    _ => return Some(vec![None; addrs.len()]),
                }
            }
        }
        self.partial.clear();
        found.resize(addrs.len(), None);
        Some(found)
    }

    /// Has the symbolizer read what was written since.
    fn read_on(&mut self, now: bool, files: &mut Files) -> Result<(), Lost> {
        let generation = files.client.generation()?;
        if self.open_in == generation && !now {
            return Ok(());
        }
        let _ = self.pin.refresh();
        let version = version(&self.pin);
        if self.open_in == generation && self.read == version {
            return Ok(());
        }
        let opened = self.pin.read();
        let (file, size) = opened.map_err(|error| Lost::Unavailable(format!("cannot read it: {error}")))?;
        let request = Request::Map { id: self.id, size: size.min(LARGEST) };
        let asked = *self.asked.get_or_insert(version);
        match files.client.call(&request, Some(file.as_fd())) {
            // What could be read of it is there.
            Ok(_) => (self.open_in, self.read) = (files.client.generation()?, asked),
            Err(Lost::Late) => return Err(Lost::Late),
            Err(lost) => {
                self.asked = None;
                self.bad |= matches!(lost, Lost::Fault(_));
                return Err(lost);
            }
        }
        self.asked = None;
        self.partial.clear();
        Ok(())
    }
}
