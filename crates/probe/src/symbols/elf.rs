//! Program files: each is opened once, however many processes have it mapped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blazesym::helper::ElfResolver;
use blazesym::symbolize::{CodeInfo, FindSymOpts, Reason, Symbolize, TranslateFileOffset};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};

use super::demangle::demangle;
use super::jit::open_inside;
use super::{Function, Line, Why};
use crate::maps::Mapping;

/// So many files are kept open until somebody asks for their symbols; further ones are mapped at once.
const PINNED: usize = 256;

/// Of a file: device, inode, and what tells a version of it from the next.
type Identity = (u64, u64, u64, i64, i64);

/// All files that were met.
#[derive(Debug)]
pub(super) struct Files {
    known: HashMap<Identity, Rc<Elf>>,
    pinned: usize,
    /// When we began to look at files.
    since: SystemTime,
}

impl Default for Files {
    fn default() -> Self {
        Self { known: HashMap::new(), pinned: 0, since: SystemTime::now() }
    }
}

/// A file.
pub(super) struct Elf(RefCell<State>);

enum State {
    /// Opened by itself, not to be read: its path may be gone, or lead elsewhere for us.
    Pinned(File),
    Open(Box<ElfResolver>),
    Bad(Why),
}

impl Files {
    /// The file that a process has mapped.
    pub(super) fn open(&mut self, pid: u32, mapping: &Mapping) -> Result<Rc<Elf>, Why> {
        let (file, meta) =
            pin(pid, mapping, self.since).map_err(|error| Why::Unreadable(error.to_string()))?;
        let identity = (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        let (known, pinned) = (&mut self.known, &mut self.pinned);
        let elf = known.entry(identity).or_insert_with(|| {
            let elf = Elf(RefCell::new(State::Pinned(file)));
            *pinned += 1;
            if *pinned > PINNED {
                elf.0.borrow_mut().open();
            }
            Rc::new(elf)
        });
        Ok(Rc::clone(elf))
    }
}

/// Opens what is mapped, without reading it: it may be a device.
fn pin(pid: u32, mapping: &Mapping, since: SystemTime) -> io::Result<(File, fs::Metadata)> {
    let by_path = |path: &str| -> io::Result<(File, fs::Metadata)> {
        let file = File::from(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?);
        let meta = file.metadata()?;
        Ok((file, meta))
    };
    // The kernel's own link to it: also to a deleted file, or one in another mount namespace. Root's only.
    let link = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    let found = by_path(&link).or_else(|_| {
        let inside = open_inside(pid, mapping.name.as_ref(), OFlag::O_PATH);
        let (file, meta) = match inside.and_then(|file| file.metadata().map(|meta| (file, meta))) {
            Ok(found) => found,
            // The process may have ended: what it called so is often what we call so.
            Err(_) => by_path(&mapping.name)?,
        };
        if is_the_one(&file, &meta, mapping, since) {
            Ok((file, meta))
        } else {
            Err(io::Error::other("another file has its name now"))
        }
    })?;
    if found.1.is_file() { Ok(found) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Whether a file found by its name is the one that was mapped.
fn is_the_one(file: &File, meta: &fs::Metadata, mapping: &Mapping, since: SystemTime) -> bool {
    if meta.ino() == mapping.inode {
        return true;
    }
    // What overlayfs maps is the file beneath, which has another number. Whatever takes a name is changed by that.
    let changed = UNIX_EPOCH + Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32);
    fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC) && changed < since
}

impl State {
    /// Maps the file and what it says about debug information elsewhere.
    fn open(&mut self) -> &Self {
        if let Self::Pinned(file) = self {
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let none: [PathBuf; 0] = [];
            // Debug information that does not fit must not cost us the symbols.
            let opened = ElfResolver::open(&path).or_else(|_| ElfResolver::open_with_debug_dirs(&path, none));
            *self = match opened {
                Ok(resolver) => Self::Open(Box::new(resolver)),
                Err(error) => Self::Bad(Why::Unreadable(error.to_string())),
            };
        }
        self
    }
}

impl Elf {
    /// The functions at an offset in the file, outermost first.
    pub(super) fn find(&self, offset: u64) -> Result<Vec<Function>, Why> {
        let mut state = self.0.borrow_mut();
        let resolver = match state.open() {
            State::Open(resolver) => resolver,
            State::Bad(why) => return Err(why.clone()),
            State::Pinned(_) => return Err(Why::NoSymbol),
        };
        let unreadable = |error: blazesym::Error| Why::Unreadable(error.to_string());
        let addr = resolver.file_offset_to_virt_offset(offset).map_err(unreadable)?.ok_or(Why::NoSymbol)?;
        let found = resolver.find_sym(addr, &FindSymOpts::CodeInfoAndInlined).map_err(unreadable)?;
        let symbol = found.map_err(|reason| match reason {
            Reason::MissingSyms => Why::Stripped,
            _ => Why::NoSymbol,
        })?;
        let mut functions = vec![Function {
            name: demangle(symbol.name, symbol.lang),
            line: symbol.code_info.as_deref().and_then(line),
        }];
        functions.extend(symbol.inlined.iter().map(|inlined| Function {
            name: demangle(&inlined.name, symbol.lang),
            line: inlined.code_info.as_ref().and_then(line),
        }));
        functions.retain(|function| !function.name.is_empty());
        if functions.is_empty() { Err(Why::NoSymbol) } else { Ok(functions) }
    }
}

fn line(info: &CodeInfo<'_>) -> Option<Line> {
    Some(Line { file: info.to_path().to_string_lossy().into_owned(), line: info.line? })
}

impl fmt::Debug for Elf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0.borrow() {
            State::Pinned(_) => "Pinned",
            State::Open(_) => "Open",
            State::Bad(_) => "Bad",
        })
    }
}
