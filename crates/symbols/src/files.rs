//! Program files: each is held on to once, however many processes have it mapped, and read by the symbolizer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::{major, minor};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, fstatfs};

use super::child::wire::{ADDRESSES, Frame, Id, Miss, Reply, Request};
use super::child::{Client, Lost};
use super::handle::by_handle;
use super::open::{Pin, own_root, root_of, trusted};
use super::{Function, Line, Why};
use crate::maps::Mapping;
use crate::unwind::Unmade;

/// Files held on to at a time, each by a descriptor. A process may have 65,530 mapped.
const PINNED: usize = 384;
/// Root directories of processes that are not ours, held on to in the same way.
const ROOTS: usize = 32;
/// Names remembered of one file.
const NAMES: usize = 1 << 16;
/// How often a file is passed to the symbolizer, at most, for one call chain.
const TRIES: usize = 8;
/// The files of one user that may end the symbolizer, before no more of them are read.
const STRIKES: u32 = 4;

/// Of a file: device, inode, and what tells a version of it from the next.
pub(super) type Identity = (u64, u64, u64, i64, i64);
/// Outermost first.
pub(super) type Found = Result<Vec<Function>, Why>;

/// All files that were met.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) client: Client,
    known: HashMap<Identity, Rc<Program>>,
    roots: Vec<((u64, u64), File)>,
    own_root: Option<(File, (u64, u64))>,
    /// Of the owner of files, how many of them have ended the symbolizer.
    strikes: HashMap<u32, u32>,
    next: Id,
    clock: u64,
    /// When we began to look at files.
    pub(super) since: SystemTime,
    /// If unwind tables are wanted, of which files.
    pub(super) unmade: Option<Unmade>,
}

/// A program file.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) id: Id,
    pub(super) identity: Identity,
    pin: RefCell<Option<Pin>>,
    /// Who runs the process that it was first seen in, and who owns the file.
    user: u32,
    pub(super) owner: u32,
    /// That process, and the path of the file as it sees it: debug information is looked for from there.
    pid: u32,
    path: PathBuf,
    used: Cell<u64>,
    /// In which of the symbolizers it is open.
    open_in: Cell<u64>,
    /// It has ended a symbolizer by its debug information, perhaps.
    without_lines: Cell<bool>,
    /// What it says of where its debug information is, and how many of the places were looked at, if not all were.
    elsewhere: RefCell<Option<Elsewhere>>,
    /// Its build id in hexadecimal, if it has no debug information of its own.
    build_id: RefCell<Option<Rc<str>>>,
    bad: RefCell<Option<Why>>,
    names: RefCell<HashMap<u64, Found>>,
}

/// Debug information in a file of its own.
#[derive(Debug, Clone)]
struct Elsewhere {
    build_id: Vec<u8>,
    link: Vec<u8>,
    looked_at: usize,
}

impl Default for Files {
    fn default() -> Self {
        let root = own_root().and_then(|root| root.metadata().map(|meta| (root, (meta.dev(), meta.ino()))));
        Self {
            client: Client::default(),
            known: HashMap::new(),
            roots: Vec::new(),
            own_root: root.ok(),
            strikes: HashMap::new(),
            next: 0,
            clock: 0,
            since: SystemTime::now(),
            unmade: None,
        }
    }
}

impl Program {
    pub(super) fn build_id(&self) -> Option<Rc<str>> {
        self.build_id.borrow().clone()
    }

    pub(super) fn size(&self) -> u64 {
        self.identity.2
    }

    /// Whether it was closed to make space, before it was read.
    pub(super) fn is_let_go(&self) -> bool {
        self.pin.borrow().is_none() && self.bad.borrow().is_none()
    }
}

impl Files {
    #[cfg(test)]
    pub(super) fn pinned(&self) -> usize {
        self.known.len()
    }

    /// A number for something that the symbolizer is to read.
    pub(super) fn id(&mut self) -> Id {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// The file that a process has mapped.
    pub(super) fn open(&mut self, pid: u32, mapping: &Mapping) -> Result<Rc<Program>, Why> {
        let pin = self.pin(pid, mapping).map_err(|error| Why::Unreadable(error.to_string()))?;
        let meta = &pin.meta;
        let identity = (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        self.clock += 1;
        if let Some(program) = self.known.get(&identity) {
            program.used.set(self.clock);
            if let Some(unmade) = &mut self.unmade {
                unmade.meet(mapping, program);
            }
            return Ok(Rc::clone(program));
        }
        if self.known.len() >= PINNED {
            self.let_one_go();
        }
        let program = Rc::new(Program {
            id: self.id(),
            identity,
            user: user_of(pid).unwrap_or(meta.uid()),
            owner: meta.uid(),
            pin: RefCell::new(Some(pin)),
            pid,
            path: mapping.path().into(),
            used: Cell::new(self.clock),
            open_in: Cell::new(0),
            without_lines: Cell::new(false),
            elsewhere: RefCell::new(None),
            build_id: RefCell::new(None),
            bad: RefCell::new(None),
            names: RefCell::new(HashMap::new()),
        });
        self.known.insert(identity, Rc::clone(&program));
        if let Some(unmade) = &mut self.unmade {
            unmade.meet(mapping, &program);
        }
        Ok(program)
    }

    /// A file that is not looked at because somebody has mapped it.
    pub(super) fn named(&mut self, pin: Pin, path: &Path, pid: u32) -> Rc<Program> {
        let meta = &pin.meta;
        Rc::new(Program {
            id: self.id(),
            identity: (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()),
            user: meta.uid(),
            owner: meta.uid(),
            pid,
            path: path.into(),
            used: Cell::new(0),
            open_in: Cell::new(0),
            // Symbols are all that is asked for.
            without_lines: Cell::new(true),
            elsewhere: RefCell::new(None),
            build_id: RefCell::new(None),
            bad: RefCell::new(None),
            names: RefCell::new(HashMap::new()),
            pin: RefCell::new(Some(pin)),
        })
    }

    /// Asks one thing about a file.
    pub(super) fn question(&mut self, program: &Program, request: &Request) -> Result<Reply, Why> {
        self.client.owned_by(program.owner);
        // Once more if it was closed meanwhile.
        for _ in 0..2 {
            if let Some(why) = program.bad.borrow().clone() {
                return Err(why);
            }
            self.check_owner(program)?;
            let answer = self.open_there(program).and_then(|is_open| {
                if is_open { self.client.call(request, None) } else { Ok(Reply::NotOpen) }
            });
            self.strike(program, answer.as_ref().err());
            match answer {
                Ok(Reply::NotOpen) => program.open_in.set(0),
                Ok(Reply::Bad(error)) => return Err(Why::Unreadable(error)),
                Ok(reply) => return Ok(reply),
                Err(Lost::Late) => return Err(Why::Late),
                Err(Lost::Fault(error) | Lost::Unavailable(error)) => return Err(Why::Symbolizer(error)),
            }
        }
        Err(program.bad.borrow().clone().unwrap_or(Why::Late))
    }

    /// Closes a file of the user of whom most are open: nobody can take the others' places.
    fn let_one_go(&mut self) {
        let mut of_user: HashMap<u32, usize> = HashMap::new();
        for program in self.known.values() {
            *of_user.entry(program.user).or_default() += 1;
        }
        let last = self.known.values().max_by_key(|program| {
            let most = of_user.get(&program.user).copied().unwrap_or(0);
            (most, u64::MAX - program.used.get())
        });
        if let Some(program) = last.cloned() {
            self.known.remove(&program.identity);
            *program.pin.borrow_mut() = None;
        }
    }

    /// Remembers the root directory of a process that lives: others that have it may end before they are looked at.
    pub(super) fn learn_root(&mut self, pid: u32) -> Option<File> {
        let root = root_of(pid).ok()?;
        let meta = root.metadata().ok()?;
        let identity = (meta.dev(), meta.ino());
        let known = |(of, _): &((u64, u64), File)| *of == identity;
        if self.own_root.as_ref().is_some_and(|(_, own)| *own == identity) {
            return Some(root);
        }
        if let Some(at) = self.roots.iter().position(known) {
            // The last one is the one that was used last.
            let last = self.roots.remove(at);
            self.roots.push(last);
        } else {
            if self.roots.len() >= ROOTS {
                self.roots.remove(0);
            }
            self.roots.extend(root.try_clone().ok().map(|root| (identity, root)));
        }
        Some(root)
    }

    /// Holds on to what is mapped, without reading it: it may be a device.
    pub(super) fn pin(&mut self, pid: u32, mapping: &Mapping) -> io::Result<Pin> {
        // The kernel's own link to it: also to a deleted file, or one in another mount namespace. Root's only.
        let link = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
        if let Ok(pin) = Pin::path(Path::new(&link)) {
            return Ok(pin);
        }
        let path = Path::new(&*mapping.name);
        let since = self.since;
        if let Some(root) = self.learn_root(pid) {
            let pin = Pin::inside(&root, path, false)?;
            return if is_the_one(&pin, mapping, since) {
                Ok(pin)
            } else {
                Err(io::Error::other("the file was replaced"))
            };
        }
        // The process has ended. What it called so is often what we, or others that have another root, call so.
        let own = self.own_root.iter().map(|(root, _)| root);
        let roots = own.chain(self.roots.iter().rev().map(|(_, root)| root));
        let mut pins = roots.filter_map(|root| Pin::inside(root, path, false).ok());
        let pin = pins.find(|pin| is_the_one(pin, mapping, since));
        let pin = pin.or_else(|| by_handle(mapping).ok().flatten());
        pin.ok_or_else(|| io::Error::other("the process ended before it was opened"))
    }

    /// The functions at offsets in a file.
    pub(super) fn find(&mut self, program: &Program, offsets: &[u64]) -> Vec<Found> {
        self.clock += 1;
        program.used.set(self.clock);
        let known = |names: &HashMap<u64, Found>, offset: &u64| names.get(offset).cloned();
        let mut missing: Vec<u64> = {
            let names = program.names.borrow();
            offsets.iter().filter(|offset| !names.contains_key(offset)).copied().collect()
        };
        missing.sort_unstable();
        missing.dedup();
        let mut why = None;
        for part in missing.chunks(ADDRESSES) {
            let (found, error) = self.ask(program, part);
            let mut names = program.names.borrow_mut();
            if names.len() > NAMES {
                names.clear();
            }
            // What there was no time for is asked again, and is less then.
            names.extend(part.iter().copied().zip(found));
            why = error.or(why);
        }
        let names = program.names.borrow();
        let why = why.unwrap_or(Why::NoSymbol);
        offsets.iter().map(|offset| known(&names, offset).unwrap_or_else(|| Err(why.clone()))).collect()
    }

    /// Asks the symbolizer: those of the first offsets, and why the others cannot be had.
    fn ask(&mut self, program: &Program, offsets: &[u64]) -> (Vec<Found>, Option<Why>) {
        self.client.owned_by(program.owner);
        let mut found = Vec::new();
        let why = self.ask_into(program, offsets, &mut found).err();
        found.truncate(offsets.len());
        (found, why)
    }

    fn ask_into(&mut self, program: &Program, offsets: &[u64], found: &mut Vec<Found>) -> Result<(), Why> {
        // A symbolizer that had to be started anew, or that has closed the file meanwhile, is asked again. What it answers is
        // not trusted: not for ever.
        let mut tries = TRIES + offsets.len();
        while found.len() < offsets.len() {
            tries = tries
                .checked_sub(1)
                .ok_or_else(|| Why::Symbolizer("the symbolizer cannot open it".into()))?;
            if let Some(why) = program.bad.borrow().clone() {
                return Err(why);
            }
            self.check_owner(program)?;
            let at = offsets.get(found.len()..).unwrap_or_default().to_vec();
            let answer = self.open_there(program).and_then(|is_open| {
                if is_open {
                    self.client.call(&Request::Find { id: program.id, at }, None)
                } else {
                    Ok(Reply::NotOpen)
                }
            });
            self.strike(program, answer.as_ref().err());
            match answer {
                Ok(Reply::Found(some)) if !some.is_empty() => found.extend(some.into_iter().map(function)),
                Ok(Reply::NotOpen) => program.open_in.set(0),
                Ok(Reply::Bad(error)) => self.failed(program, error),
                Ok(_) => self.failed(program, "unexpected reply of the symbolizer".into()),
                Err(Lost::Fault(error)) => self.failed(program, error),
                Err(Lost::Late) => return Err(Why::Late),
                Err(Lost::Unavailable(error)) => return Err(Why::Symbolizer(error)),
            }
        }
        Ok(())
    }

    /// A file that ended the symbolizer counts against its owner.
    fn strike(&mut self, program: &Program, lost: Option<&Lost>) {
        if program.owner != 0 && matches!(lost, Some(Lost::Fault(_))) {
            *self.strikes.entry(program.owner).or_default() += 1;
        }
    }

    fn check_owner(&self, program: &Program) -> Result<(), Why> {
        if self.strikes.get(&program.owner).is_some_and(|&strikes| strikes >= STRIKES) {
            return Err(Why::Symbolizer("other files of its owner crashed the symbolizer".into()));
        }
        Ok(())
    }

    /// What a file cannot be read by: without its debug information, at the second time not at all.
    fn failed(&mut self, program: &Program, error: String) {
        program.open_in.set(0);
        if program.without_lines.replace(true) {
            *program.bad.borrow_mut() = Some(Why::Symbolizer(error));
        }
    }

    /// Passes a file to the symbolizer that runs, and the one with its debug information, if it does not have it.
    fn open_there(&mut self, program: &Program) -> Result<bool, Lost> {
        let generation = self.client.generation()?;
        if program.open_in.get() == generation {
            self.open_debug(program)?;
            return Ok(true);
        }
        let opened = match program.pin.borrow().as_ref().map(Pin::read) {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => {
                // Whoever holds a lease on it may give it back.
                return Err(Lost::Unavailable(format!("cannot read the file: {error}")));
            }
            None => return Err(Lost::Unavailable("too many files are mapped to keep this one open".into())),
        };
        let (file, size) = opened;
        let lines = !program.without_lines.get();
        let request = Request::Open { id: program.id, size, lines };
        match self.client.call(&request, Some(file.as_fd()))? {
            Reply::Opened { build_id, debug_link } => {
                let known = !build_id.is_empty() || !debug_link.is_empty();
                *program.build_id.borrow_mut() = (!build_id.is_empty()).then(|| hex(&build_id).into());
                let elsewhere = Elsewhere { build_id, link: debug_link, looked_at: 0 };
                *program.elsewhere.borrow_mut() = known.then_some(elsewhere);
                program.open_in.set(self.client.generation()?);
                self.open_debug(program)?;
                // One that had to be started for it has nothing else open.
                Ok(true)
            }
            Reply::Bad(error) => {
                *program.bad.borrow_mut() = Some(Why::Unreadable(error));
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Looks for debug information where only root puts it: by build id, and by the name that the file gives.
    fn open_debug(&mut self, program: &Program) -> Result<(), Lost> {
        let Some(elsewhere) = program.elsewhere.borrow().clone() else { return Ok(()) };
        let Elsewhere { build_id, link, .. } = &elsewhere;
        let mut places = Vec::new();
        if build_id.len() > 1 {
            let hex = hex(build_id);
            let (first, rest) = hex.split_at(2);
            places.push((
                Path::new("/usr/lib/debug/.build-id").join(first),
                PathBuf::from(format!("{rest}.debug")),
            ));
        }
        let name = Path::new(std::ffi::OsStr::from_bytes(link));
        if let (Some(name), Some(directory)) =
            (name.file_name().filter(|n| *n == name), program.path.parent())
        {
            let below = directory.strip_prefix("/").unwrap_or(directory);
            for place in [directory.into(), directory.join(".debug"), Path::new("/usr/lib/debug").join(below)]
            {
                places.push((place, name.into()));
            }
        }
        let own = self.own_root.iter().filter_map(|(root, _)| root.try_clone().ok());
        let roots: Vec<File> = root_of(program.pid).into_iter().chain(own).collect();
        let all = roots.iter().flat_map(|root| places.iter().map(move |place| (root, place)));
        for (number, (root, (directory, name))) in all.enumerate().skip(elsewhere.looked_at) {
            let Some(pin) = trusted(root, directory, name) else { continue };
            // Only its first bytes are looked at here: nothing but ELF is passed on.
            let Ok((file, size)) = pin.read() else { continue };
            if !is_elf(&file) {
                continue;
            }
            // From here on if there is no time for its answer.
            *program.elsewhere.borrow_mut() = Some(Elsewhere { looked_at: number, ..elsewhere.clone() });
            let request = Request::Debug { id: program.id, size };
            if matches!(self.client.call(&request, Some(file.as_fd()))?, Reply::Done) {
                break;
            }
        }
        *program.elsewhere.borrow_mut() = None;
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_elf(file: &File) -> bool {
    let mut magic = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut magic, 0).is_ok() && magic == *b"\x7fELF"
}

fn function(found: Result<Vec<Frame>, Miss>) -> Found {
    let functions = found.map_err(|miss| match miss {
        Miss::Stripped => Why::Stripped,
        Miss::NoSymbol => Why::NoSymbol,
    })?;
    let line = |frame: &Frame| Some(Line { file: frame.file.clone()?, line: frame.line });
    Ok(functions.into_iter().map(|frame| Function { line: line(&frame), name: frame.name }).collect())
}

/// Who runs a process.
pub(super) fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// Whether a file found by its name is the one that was mapped.
fn is_the_one(pin: &Pin, mapping: &Mapping, since: SystemTime) -> bool {
    let (meta, kind) = (&pin.meta, fstatfs(pin.file()).map(|fs| fs.filesystem_type()));
    if meta.ino() == mapping.inode && mapping.device == (major(meta.dev()) as u32, minor(meta.dev()) as u32) {
        return true;
    }
    match kind {
        // Each of its subvolumes has a device that mappings do not show.
        Ok(BTRFS_SUPER_MAGIC) => meta.ino() == mapping.inode,
        // What overlayfs maps is the file beneath, which has another number. What takes a name is changed by that.
        Ok(OVERLAYFS_SUPER_MAGIC) => {
            let changed = UNIX_EPOCH + Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32);
            changed < since
        }
        _ => false,
    }
}
