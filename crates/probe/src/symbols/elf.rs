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

use blazesym::helper::ElfResolver;
use blazesym::symbolize::{CodeInfo, FindSymOpts, Reason, Symbolize, TranslateFileOffset};
use nix::fcntl::OFlag;

use super::demangle::demangle;
use super::jit::open_inside;
use super::{Function, Line, Why};
use crate::maps::Mapping;

/// So many files are kept open until somebody asks for their symbols; further ones are mapped at once.
const PINNED: usize = 256;

/// Of a file: device, inode, and what tells a version of it from the next.
type Identity = (u64, u64, u64, i64, i64);

/// All files that were met.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: HashMap<Identity, Rc<Elf>>,
    pinned: usize,
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
        let (file, meta) = pin(pid, mapping).map_err(|error| Why::Unreadable(error.to_string()))?;
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
fn pin(pid: u32, mapping: &Mapping) -> io::Result<(File, fs::Metadata)> {
    // The kernel's own link to it: also to a deleted file, or one in another mount namespace. Root's only.
    let link = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    let by_link =
        nix::fcntl::open(link.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty());
    let file = match by_link {
        Ok(file) => File::from(file),
        Err(_) => open_inside(pid, mapping.name.as_ref(), OFlag::O_PATH)?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if meta.ino() != mapping.inode {
        return Err(io::Error::other("another file has its name now"));
    }
    Ok((file, meta))
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
