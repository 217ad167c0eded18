//! Names of addresses: function, file and line, in processes, in what they have mapped, and in the kernel.
//!
//! Processes end before anybody asks what their addresses meant. So what a process has mapped is remembered when it is
//! first met, and the files are held on to: by themselves, not by their names, which may be gone or mean another file
//! in the process's own view. What cannot be named is said to be so, never guessed. Files are read by a process of their
//! own, without privileges: see `child.rs`.

mod address_space;
mod binaries;
mod child;
pub mod clock;
mod demangle;
pub mod ending;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handle;
mod jit;
mod kernel;
mod lives;
pub mod machine;
pub mod maps;
mod open;
pub mod order;
pub mod packet;
pub mod perf;
pub mod privilege;
mod ranges;
pub mod task;
pub mod unwind;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use trapline_model::faults::Process;

use self::address_space::AddressSpace;
pub use self::binaries::{Binaries, Binary};
pub use self::child::function::listed;
pub use self::child::symbolize_if_asked;
pub use self::child::wire::Point;
pub use self::child::worked_ns;
use self::files::{Files, Program};
use self::kernel::Kernel;
pub use self::lives::{Lives, Scope};
use self::maps::Mapping;
use self::unwind::{FileKey, Table, Unmade, UnwoundBy};

/// Where the kernel's half of the addresses begins, on every 64-bit architecture.
pub const KERNEL: u64 = 1 << 63;

/// An address space: a process's, from one exec to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Image {
    /// Whose it is.
    pub process: Process,
    /// How often the process has called exec since it was first met.
    pub execs: u32,
}

impl From<Process> for Image {
    fn from(process: Process) -> Self {
        Self { process, execs: 0 }
    }
}

/// A file that was met, by its number, and where in it something is, bytes.
pub type Place = (u32, u64);

/// A place in source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// As the compiler was told: absolute, or relative to who knows what.
    pub file: String,
    /// From 1.
    pub line: u32,
}

/// A function that an instruction belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Demangled.
    pub name: String,
    /// Where the instruction is in it, if there is debug information.
    pub line: Option<Line>,
}

/// Why an address has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The process ended, or became another program, before it was looked at.
    Gone,
    /// We may not see what the process has mapped.
    Unseen(String),
    /// Nothing that can be executed is mapped there.
    Unmapped,
    /// The file cannot be read, or is no program.
    Unreadable(String),
    /// What became of the process that reads files.
    Symbolizer(String),
    /// There was no time left to look.
    Late,
    /// The file has no symbols.
    Stripped,
    /// The file has symbols, and none for this.
    NoSymbol,
    /// Made at run time, and no perf map says what it is.
    NoPerfMap,
    /// The kernel hides its symbols.
    Hidden,
}

impl Why {
    /// Whether the same may be asked again.
    fn passes(&self) -> bool {
        matches!(self, Self::Late)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the process ended before its mappings were read",
            Self::Unseen(error) => return write!(f, "cannot read the mappings: {error}"),
            Self::Unmapped => "no executable mapping",
            Self::Unreadable(error) => return write!(f, "cannot read the file: {error}"),
            Self::Symbolizer(error) => return write!(f, "{error}"),
            Self::Late => "not symbolized in time",
            Self::Stripped => "the file has no symbols",
            Self::NoSymbol => "the file has no symbol for it",
            Self::NoPerfMap => "made at run time, and not in a perf map",
            Self::Hidden => "kernel.kptr_restrict hides the kernel's symbols",
        })
    }
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The address.
    pub addr: u64,
    /// The function, and those that were inlined into it there: outermost first. Or why there is none.
    pub functions: Result<Vec<Function>, Why>,
    /// The path that the process has mapped it from, `[vdso]`, `[jit]`, `[kernel]`.
    pub module: Option<Rc<str>>,
    /// Where in that file, bytes.
    pub offset: Option<u64>,
    /// The build id of that file, if it has one and no debug information.
    pub build_id: Option<Rc<str>>,
}

impl Name {
    /// The file that the instruction is in, by its path and its build id in hexadecimal, with `@` between: so that it can be
    /// symbolized elsewhere. Nothing if it is in no file.
    pub fn binary(&self) -> Option<String> {
        let path =
            self.module.as_deref().filter(|module| module.starts_with('/') && self.offset.is_some())?;
        Some(format!("{path}@{}", self.build_id.as_deref().unwrap_or_default()))
    }

    /// The function that the instruction was written in.
    pub fn function(&self) -> Option<&Function> {
        self.functions.as_ref().ok()?.last()
    }
}

/// The function; or the module's file name and the offset; or the address.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(function) = self.function() {
            return f.write_str(&function.name);
        }
        match (&self.module, self.offset) {
            (Some(module), Some(offset)) => {
                write!(f, "{}+{offset:#x}", module.rsplit('/').next().unwrap_or(module))
            }
            // Where it hides their names, it hides where they are.
            _ if self.functions == Err(Why::Hidden) => f.write_str("[kernel]"),
            _ => write!(f, "{:#x}", self.addr),
        }
    }
}

/// Names addresses.
#[derive(Debug, Default)]
pub struct Symbols {
    spaces: HashMap<Image, AddressSpace>,
    files: Files,
    kernel: Kernel,
    /// Executables that are to be read before anything in them is asked for, and all that ever were among them.
    ahead: VecDeque<(Rc<Program>, u64)>,
    were_ahead: HashSet<u32>,
}

/// Executables that are read before anything in them is asked for, at most.
const AHEAD: usize = 16;

impl Symbols {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has unwind tables made of every file that is met from here on.
    pub fn want_tables(&mut self) {
        self.files.unmade = Some(Unmade::new());
        self.files.want_vdso();
    }

    /// What the kernel calls our own executable, which a command is before it is executed: of that no table is made unless it is asked for.
    pub fn own_file(&self) -> Option<FileKey> {
        self.files.unmade.as_ref().and_then(Unmade::own)
    }

    /// Has tables made of what a command will map when it is executed.
    pub fn want_tables_of(&mut self, command: &Path) {
        self.files.want_command(command);
    }

    /// Whether there are tables to be made.
    pub fn has_tables_to_make(&self) -> bool {
        self.files.unmade.as_ref().is_some_and(|unmade| !unmade.is_empty())
    }

    /// The next table that is made: nothing if there is none to make, or no time for it.
    pub fn next_table(&mut self) -> Option<Table> {
        self.files.next_table()
    }

    /// The table of a file is there no more: it is made again where it is wanted again.
    pub fn forget_table(&mut self, file: FileKey, program: u32) {
        self.files.unmade.iter_mut().for_each(|unmade| unmade.forget(file, program));
    }

    /// Has the table made of the file that a process has mapped at an address. Tells whether the file can be opened.
    pub fn want_table(&mut self, file: FileKey, pid: u32, addr: u64) -> bool {
        self.files.want_mapped(file, pid, addr)
    }

    /// Has the table of a file made before all others, which a process has mapped at an address. Tells whether it is to be made.
    pub fn want_first(&mut self, file: FileKey, image: Image, addr: u64) -> bool {
        let program = self.spaces.get(&image).and_then(|space| space.program_at(addr));
        self.files.unmade.as_mut().is_some_and(|unmade| {
            program.iter().for_each(|program| unmade.want(file, program));
            unmade.first(file)
        })
    }

    /// By what the caller of an instruction in a process is found.
    pub fn unwound_by(&mut self, image: Image, addr: u64) -> UnwoundBy {
        self.know(image);
        let Some(space) = self.spaces.get_mut(&image) else { return UnwoundBy::Nothing };
        space.look_for(&[addr], &mut self.files);
        space.unwound_by(addr)
    }

    /// Remembers what a process has mapped, if that is not known yet: it may end before it is asked for.
    pub fn know(&mut self, image: Image) {
        self.spaces.entry(image).or_insert_with(|| AddressSpace::read(image.process, &mut self.files));
    }

    /// Has the executable of a process read before anything in it is asked for: that of a large program takes longer than there is at
    /// an early end. [`Symbols::read_ahead`] does it.
    fn expect(&mut self, image: Image) {
        let executable = self.spaces.get(&image).and_then(AddressSpace::executable);
        if let Some((program, offset)) = executable
            && self.were_ahead.len() < AHEAD
            && self.were_ahead.insert(program.id)
        {
            self.ahead.push_back((program, offset));
        }
    }

    /// Whether there are executables to be read.
    pub fn reads_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Reads executables that are expected to be asked for, as far as there is time.
    pub fn read_ahead(&mut self) {
        while let Some((program, offset)) = self.ahead.front() {
            let is_late = self.files.find(program, &[*offset]).contains(&Err(Why::Late));
            match self.files.client.wait().filter(|_| is_late) {
                Some(false) => return,
                Some(true) => {}
                // It was read, or is not even asked for: its user's files have had their time.
                None => drop(self.ahead.pop_front()),
            }
        }
    }

    /// The names of addresses in a process, or in the kernel, in their order. Call it while the process lives where
    /// that can be helped, and [`Symbols::know`] early where it cannot.
    pub fn resolve(&mut self, image: Image, addrs: &[u64]) -> Vec<Rc<Name>> {
        self.know(image);
        let Some(space) = self.spaces.get_mut(&image) else { return vec![] };
        let user: Vec<u64> = addrs.iter().copied().filter(|&addr| addr < KERNEL).collect();
        // Once in a call: what was mapped since it was read.
        space.look_for(&user, &mut self.files);
        let mut names = space.resolve(&user, &mut self.files).into_iter();
        let mut name = |addr| if addr < KERNEL { names.next() } else { Some(self.kernel.name(addr)) };
        addrs.iter().filter_map(|&addr| name(addr)).collect()
    }

    /// Where addresses of a process are, in files that many processes may have mapped: the same place has the same name. Ends
    /// before the first that is in nothing. Nothing if one of them is somewhere else, or names are the process's own.
    pub fn places(&mut self, image: Image, addrs: &[u64]) -> Option<Vec<Place>> {
        self.know(image);
        let space = self.spaces.get_mut(&image).filter(|space| !space.has_perf_map())?;
        space.look_for(addrs, &mut self.files);
        let mut places = Vec::with_capacity(addrs.len());
        for &addr in addrs {
            match space.in_file(addr) {
                Some(place) => places.push(place?),
                None => break,
            }
        }
        Some(places).filter(|places| !places.is_empty())
    }

    /// Names are waited for until then; those that are not known then are [`Why::Late`], and may be asked for again.
    pub fn wait_until(&mut self, until: Option<Instant>) {
        self.files.client.wait_until(until);
    }

    /// Names are waited for this long, and five times as long in files of root and of the user who runs us.
    pub fn wait_for(&mut self, time: Duration) {
        self.files.client.wait_for(time);
    }

    /// How many times the symbolizer was asked something.
    pub fn asked(&self) -> u64 {
        self.files.client.sent()
    }

    /// Waits for the answer to what was asked last. Tells whether it has come; nothing if all was answered.
    pub fn wait(&mut self) -> Option<bool> {
        self.files.client.wait()
    }

    /// Looks at the perf maps of processes that live: reads one that is new. Tells whether one was written since it was
    /// read: then what was taken before is to be named by what it said before.
    pub fn watch_maps(&mut self) -> bool {
        let watch = |space: &mut AddressSpace| space.watch_map(&mut self.files);
        // All of them: the new ones are read now.
        self.spaces.values_mut().map(watch).fold(false, |changed, now| changed | now)
    }

    /// Has perf maps that were written since read again when they are asked for next, but for those of address spaces of
    /// which something has no name yet. Tells whether there were such.
    pub fn renew_maps(&mut self, is_asked: impl Fn(Image) -> bool) -> bool {
        let mut left = false;
        for (&image, space) in &mut self.spaces {
            if is_asked(image) {
                left = true;
            } else {
                space.renew_map();
            }
        }
        left
    }

    /// A process became another program, of which nothing is known yet but that it will be told.
    fn begin(&mut self, image: Image) {
        let before = Image { execs: image.execs.saturating_sub(1), ..image };
        let space = self.spaces.get(&before).map(|before| before.succeeding(image.process));
        self.spaces.insert(image, space.unwrap_or_else(|| AddressSpace::empty(image.process)));
    }

    /// A process was born with what its parent has mapped.
    fn inherit(&mut self, image: Image, parent: Image) {
        self.know(parent);
        if let Some(space) = self.spaces.get(&parent).map(|space| space.inherited(image.process)) {
            self.spaces.insert(image, space);
        }
    }

    /// A process mapped something to execute.
    fn add(&mut self, image: Image, mapping: &Mapping) {
        if let Some(space) = self.spaces.get_mut(&image) {
            space.add(mapping, &mut self.files);
        }
    }

    /// A process ended, or became another program: nothing more can be learnt from it.
    fn close(&mut self, image: Image) {
        if let Some(space) = self.spaces.get_mut(&image) {
            space.close();
        }
    }

    /// Forgets an address space that will not be asked for any more. Its files stay known.
    pub fn forget(&mut self, image: Image) {
        self.spaces.remove(&image);
    }
}

#[cfg(test)]
mod tests;
