//! Unwind tables: how the frame of a function's caller is found from each of its instructions, without frame pointers. Made of
//! `.eh_frame` by the symbolizer (`child/unwind.rs`), checked here, and walked by the kernel half (`bpf/unwind.bpf.h`).

mod held;
mod making;
mod walk;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};

pub use self::held::Held;
#[cfg(test)]
pub(crate) use self::making::SHARE;
pub use self::making::{Making, Shares, walk_by};
use self::walk::walk;
pub use self::walk::{Copy, Ends, Found};
use crate::Why;
use crate::child::wire::{Reply, Request};
use crate::files::{Files, Identity, Program};
use crate::maps::{self, Mapping, Maps};
use crate::open::Pin;

/// From an offset in a file on, up to the next row's: what [`Rule`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The offset in the file, bytes.
    pub at: u32,
    /// The packed [`Rule`].
    pub rule: u32,
}

/// Where the canonical frame address is: the stack pointer before the call, below which the return address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Nothing is known of this code, or it is of a kind that is not supported.
    Unknown = 0,
    /// The stack pointer and an offset.
    Rsp = 1,
    /// The frame pointer and an offset.
    Rbp = 2,
    /// Eight above the stack pointer; sixteen from an offset in each entry of the procedure linkage table on.
    Plt = 3,
    /// What is on the stack at an offset from the stack pointer.
    AtRsp = 4,
    /// The same, and eight.
    AtRspAbove = 5,
    /// What is on the stack at an offset from the frame pointer.
    AtRbp = 6,
    /// A signal was taken here: all registers are on the stack.
    Signal = 7,
    /// Nobody called this function: a thread begins here.
    Start = 8,
}

/// The greatest value of [`Kind`].
pub const LAST_KIND: u32 = Kind::Start as u32;

/// The caller's frame pointer is where this one's points to.
pub const AT_FRAME: i16 = -2048;

/// How a caller's frame is found: packed into 4 bits for the kind, 12 for the frame pointer, 16 for the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Where the canonical frame address is.
    pub kind: Kind,
    /// The offset that goes with the kind: in words, but for [`Kind::Plt`].
    pub offset: i16,
    /// Where the caller's frame pointer is, from the canonical frame address, in words; 0: it is the same. Or [`AT_FRAME`].
    pub frame: i16,
}

impl Rule {
    /// Of a kind that needs nothing else.
    pub(crate) const fn of(kind: Kind) -> Self {
        Self { kind, offset: 0, frame: 0 }
    }

    pub(crate) fn packed(self) -> u32 {
        self.kind as u32 | (self.frame as u32 & 0xfff) << 4 | u32::from(self.offset as u16) << 16
    }
}

/// The table of one file.
#[derive(Debug)]
pub struct Table {
    /// What the kernel calls the file.
    pub file: FileKey,
    /// The number of what is in it: the same for what several devices and inodes lead to.
    pub program: u32,
    /// Who owns the file.
    pub owner: u32,
    /// Its rows.
    pub rows: Made,
}

/// What became of a table that was to be made.
#[derive(Debug)]
pub enum Made {
    /// In the order of their places; none if the file has none.
    Rows(Vec<Row>),
    /// Those of the same program were given before.
    Before,
    /// The file was closed before it was read, as there were too many: it may be met again.
    LetGo,
}

/// What tells files apart where they are mapped: device as the kernel numbers it, and inode. Both are 0 for the vDSO.
pub type FileKey = (u32, u64);

/// What the code is called that the kernel maps into every process.
pub(crate) const VDSO: FileKey = (0, 0);

/// By what the caller of an instruction is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnwoundBy {
    /// The table of a file, at an offset in it.
    Table(FileKey, u64),
    /// The frame pointer: it is in no file.
    Frame,
    /// It is no code.
    Nothing,
}

/// Rows, at most, of one file and of all together: a program of 200 MB has three million, a library or program of a megabyte about
/// ten thousand.
pub const ROWS: usize = 4 << 20;

/// Whether rows that a symbolizer sent are what it should send.
pub(crate) fn are_sound(rows: &[Row]) -> bool {
    rows.len() <= ROWS
        && rows.is_sorted_by(|a, b| a.at < b.at)
        && rows.iter().all(|row| row.rule & 15 <= LAST_KIND)
}

/// A file whose table is to be made, and what there is of it.
#[derive(Debug)]
struct Wanted {
    file: FileKey,
    program: Rc<Program>,
    /// Its build id is known, if it has one.
    is_known: bool,
    rows: Vec<Row>,
    /// A fault's stack goes through it.
    is_missed: bool,
}

impl Wanted {
    fn new(file: FileKey, program: &Rc<Program>) -> Self {
        Self { file, program: Rc::clone(program), is_known: false, rows: vec![], is_missed: false }
    }
}

/// What copies of a file have in common, in the layers of containers and elsewhere: owner, size and build id. A file can claim any
/// build id: what others own is not taken for it.
type Twins = (u32, u64, Rc<str>);

/// Hexadecimal digits of a build id that tells files apart, at least.
const BUILD_ID: usize = 32;

/// Files whose tables are to be made, each once.
#[derive(Debug, Default)]
pub(crate) struct Unmade {
    queue: VecDeque<Wanted>,
    met: HashMap<FileKey, Identity>,
    made: HashSet<u32>,
    /// Of those, one of each build id.
    of_ids: HashMap<Twins, u32>,
    /// How long those of each owner's files have taken.
    spent: HashMap<u32, Duration>,
    own: Option<FileKey>,
}

/// Files that are remembered: beyond it, tables are made again.
const MET: usize = 1 << 16;
/// Owners of files of whom it is known how long their tables have taken.
const OWNERS: usize = 1024;

impl Unmade {
    /// But not that of trapline itself, which is in every command before it is executed.
    pub(crate) fn new() -> Self {
        let own = std::fs::metadata("/proc/self/exe").ok();
        let own = own.map(|meta| (device(major(meta.dev()) as u32, minor(meta.dev()) as u32), meta.ino()));
        Self { own, ..Self::default() }
    }

    /// Trapline itself.
    pub(crate) fn own(&self) -> Option<FileKey> {
        self.own
    }

    /// A process has a file mapped.
    pub(crate) fn meet(&mut self, mapping: &Mapping, program: &Rc<Program>) {
        let file = file_key(mapping);
        if Some(file) != self.own {
            self.want(file, program);
        }
    }

    /// Its table is to be made, if it was not: of a file that has the place of an earlier one, again.
    pub(crate) fn want(&mut self, file: FileKey, program: &Rc<Program>) {
        if self.met.get(&file) != Some(&program.identity) {
            self.want_anyway(file, program);
        }
    }

    /// The kernel half has no table of it.
    fn want_anyway(&mut self, file: FileKey, program: &Rc<Program>) {
        if self.met.len() >= MET {
            self.met.clear();
        }
        let old = self.met.insert(file, program.identity);
        if let Some(waits) = self.queue.iter_mut().find(|wanted| wanted.file == file) {
            if old != Some(program.identity) {
                *waits = Wanted { is_missed: waits.is_missed, ..Wanted::new(file, program) };
            }
            return;
        }
        self.queue.push_back(Wanted::new(file, program));
    }

    /// A table is there no more: who meets the file again may want it again.
    pub(crate) fn forget(&mut self, file: FileKey, program: u32) {
        self.met.remove(&file);
        self.made.remove(&program);
        self.of_ids.retain(|_, of| *of != program);
    }

    /// Whose turn it is: the owner of files whose tables have taken least time, of those that are not left out. Within one owner's
    /// those that are missed come first, and then the small ones.
    fn next(&mut self, without: &[u32]) -> Option<Wanted> {
        let spent = |wanted: &Wanted| {
            let spent = self.spent.get(&wanted.program.owner).copied().unwrap_or_default();
            let (.., bytes, _, _) = wanted.program.identity;
            (spent, if wanted.is_missed { 0 } else { bytes.max(1) })
        };
        let all = self.queue.iter().enumerate();
        let some = all.filter(|(_, wanted)| !without.contains(&wanted.program.owner));
        let (at, _) = some.min_by_key(|(_, wanted)| spent(wanted))?;
        self.queue.remove(at)
    }

    fn spend(&mut self, owner: u32, time: Duration) {
        if self.spent.len() >= OWNERS {
            self.spent.clear();
        }
        // Who comes now has no claim to what the others have had.
        let waiting = |owner: &u32| self.queue.iter().any(|wanted| wanted.program.owner == *owner);
        let least = self.spent.iter().filter(|(owner, _)| waiting(owner)).map(|(_, spent)| *spent).min();
        *self.spent.entry(owner).or_insert(least.unwrap_or_default()) += time;
    }

    /// It is needed now. Tells whether it is to be made.
    pub(crate) fn first(&mut self, file: FileKey) -> bool {
        let at = self.queue.iter().position(|wanted| wanted.file == file);
        if let Some(mut wanted) = at.and_then(|at| self.queue.remove(at)) {
            wanted.is_missed = true;
            self.queue.push_front(wanted);
        }
        at.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Files of a command that are looked at before it is executed.
const COMMAND_FILES: usize = 128;

/// Where Debian, Fedora and Arch have libraries. Others are met when they are mapped.
const LIBRARIES: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

fn library(name: &Path) -> Option<PathBuf> {
    // A dynamic linker has its whole path.
    let paths = LIBRARIES.iter().map(|directory| Path::new(directory).join(name));
    paths.into_iter().find(|path| path.exists())
}

/// The file that a command's name leads to.
fn in_path(command: &Path) -> Option<PathBuf> {
    if command.components().count() > 1 || command.is_absolute() {
        return Some(command.into());
    }
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories).map(|path| path.join(command)).find(|path| path.is_file())
}

/// What executes a script: what its first line says, or what `env` there is given.
fn interpreter(pin: &Pin) -> Option<PathBuf> {
    let mut line = [0; 256];
    let read = pin.read().ok()?.0.read_at(&mut line, 0).ok()?;
    let line = line.get(..read)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let first = Path::new(words.next()?);
    if first.file_name() == Some(OsStr::new("env")) {
        return in_path(Path::new(words.find(|word| !word.starts_with('-'))?));
    }
    Some(first.into())
}

/// What the kernel calls the file of a mapping.
pub(crate) fn file_key(mapping: &Mapping) -> FileKey {
    (device(mapping.device.0, mapping.device.1), mapping.inode)
}

/// A device's number in the kernel.
fn device(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

impl Program {
    fn twins(&self) -> Option<Twins> {
        let id = self.build_id().filter(|id| id.len() >= BUILD_ID)?;
        Some((self.owner, self.size(), id))
    }
}

impl Files {
    /// The next table that is made; nothing if there is none to make, or no time for it.
    pub(crate) fn next_table(&mut self) -> Option<Table> {
        let mut late = vec![];
        loop {
            let mut wanted = self.unmade.as_mut()?.next(&late)?;
            let owner = wanted.program.owner;
            let began = Instant::now();
            let made = self.make(&mut wanted);
            let unmade = self.unmade.as_mut()?;
            unmade.spend(owner, began.elapsed());
            if let Some((program, rows)) = made {
                return Some(Table { file: wanted.file, owner, program, rows });
            }
            unmade.queue.push_front(wanted);
            if self.client.is_busy() {
                return None;
            }
            // This owner's files have had their time; others' may go on.
            late.push(owner);
        }
    }

    /// What has its rows, and those; nothing if there is no time for it.
    fn make(&mut self, wanted: &mut Wanted) -> Option<(u32, Made)> {
        let number = wanted.program.id;
        let unmade = self.unmade.as_mut()?;
        if unmade.made.contains(&number) {
            return Some((number, Made::Before));
        }
        if wanted.program.is_let_go() {
            unmade.met.remove(&wanted.file);
            return Some((number, Made::LetGo));
        }
        if !wanted.is_known {
            // Any question opens it, and this one is answered soon.
            let opened = self.question(&wanted.program, &Request::Needs { id: number });
            if matches!(opened, Err(Why::Late)) {
                return None;
            }
            wanted.is_known = true;
            let unmade = self.unmade.as_mut()?;
            let twin = wanted.program.twins().and_then(|twins| unmade.of_ids.get(&twins));
            if let Some(&program) = twin {
                return Some((program, Made::Before));
            }
        }
        let rows = loop {
            let request = Request::Unwind { id: number, from: wanted.rows.len() as u32 };
            match self.question(&wanted.program, &request) {
                Ok(Reply::Rows(more, all)) => {
                    let is_all = more.is_empty() || wanted.rows.len() + more.len() >= all as usize;
                    wanted.rows.extend(more);
                    if is_all || wanted.rows.len() > ROWS {
                        break std::mem::take(&mut wanted.rows);
                    }
                }
                Err(Why::Late) => return None,
                _ => break vec![],
            }
        };
        let unmade = self.unmade.as_mut()?;
        unmade.made.insert(number);
        if unmade.of_ids.len() >= MET {
            unmade.of_ids.clear();
        }
        unmade.of_ids.extend(wanted.program.twins().map(|twins| (twins, number)));
        Some((number, Made::Rows(Some(rows).filter(|rows| are_sound(rows)).unwrap_or_default())))
    }

    /// Wants the table of the code that the kernel maps into every process: ours is everybody's.
    pub(crate) fn want_vdso(&mut self) {
        let copy = || -> Option<File> {
            let maps = Maps::read(std::process::id()).ok()?;
            let vdso = maps.iter().find(|mapping| mapping.kind == maps::Kind::Vdso)?;
            let mut bytes = vec![0; vdso.bytes() as usize];
            File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, vdso.start).ok()?;
            let file = File::from(memfd_create(c"vdso", MFdFlags::MFD_CLOEXEC).ok()?);
            file.write_all_at(&bytes, 0).ok()?;
            Some(file)
        };
        if let Some(pin) = copy().and_then(|file| Pin::of(file).ok()) {
            let program = self.named(pin, Path::new("[vdso]"), std::process::id());
            if let Some(unmade) = &mut self.unmade {
                unmade.want(VDSO, &program);
            }
        }
    }

    /// A command will be executed: tables are to be made of what that maps, as far as it can be told from its file.
    pub(crate) fn want_command(&mut self, command: &Path) {
        let mut waiting = VecDeque::from_iter(in_path(command));
        let mut seen = HashSet::new();
        while let Some(path) = waiting.pop_front() {
            let Ok(pin) = Pin::path(&path) else { continue };
            let meta = &pin.meta;
            let file = (device(major(meta.dev()) as u32, minor(meta.dev()) as u32), meta.ino());
            if seen.len() >= COMMAND_FILES || !seen.insert(file) {
                continue;
            }
            if let Some(interpreter) = interpreter(&pin) {
                waiting.push_back(interpreter);
                continue;
            }
            let program = self.named(pin, &path, std::process::id());
            if let Some(unmade) = &mut self.unmade {
                unmade.want(file, &program);
            }
            if let Ok(Reply::Names(names)) = self.question(&program, &Request::Needs { id: program.id }) {
                waiting.extend(names.iter().filter_map(|name| library(Path::new(OsStr::from_bytes(name)))));
            }
        }
    }

    /// A process has the file mapped there: its table is to be made. Tells whether the file can be opened.
    pub(crate) fn want_mapped(&mut self, file: FileKey, pid: u32, addr: u64) -> bool {
        if self.unmade.as_mut().is_some_and(|unmade| unmade.first(file)) {
            return true;
        }
        let Ok(maps) = Maps::read(pid) else { return false };
        let Some(mapping) = maps.find(addr) else { return false };
        let Ok(program) = self.open(pid, mapping) else { return false };
        if let Some(unmade) = &mut self.unmade {
            unmade.want_anyway(file, &program);
            unmade.first(file);
        }
        true
    }
}
