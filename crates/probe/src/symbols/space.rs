//! What one process has mapped to execute.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::OnceLock;

use blazesym::Pid;
use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use trapline_model::faults::Process;

use super::elf::{Elf, Files};
use super::jit::PerfMap;
use super::ranges::Ranges;
use super::{Function, Name, Why};
use crate::maps::{Mapping, Maps};
use crate::task::Task;

const VDSO: &str = "[vdso]";

/// What one process has mapped to execute, as far as it was seen.
#[derive(Debug)]
pub(super) struct Space {
    process: Process,
    regions: Ranges<Region>,
    perf_map: Option<PerfMap>,
    /// What was asked before.
    names: HashMap<u64, Rc<Name>>,
    /// Why nothing more can be learnt from the process.
    blind: Option<Why>,
}

#[derive(Debug, Clone)]
struct Region {
    start: u64,
    offset: u64,
    module: Rc<str>,
    code: Code,
}

#[derive(Debug, Clone)]
enum Code {
    File(Result<Rc<Elf>, Why>),
    Vdso,
    /// In no file.
    Made,
}

impl Space {
    /// What the process has mapped now.
    pub(super) fn read(process: Process, files: &mut Files) -> Self {
        let mut space = Self::empty(process);
        space.read_again(files);
        space
    }

    /// Nothing, yet.
    pub(super) fn empty(process: Process) -> Self {
        Self { process, regions: Ranges::default(), perf_map: None, names: HashMap::new(), blind: None }
    }

    /// What a child of the process begins with.
    pub(super) fn inherited(&self, process: Process) -> Self {
        Self { regions: self.regions.clone(), ..Self::empty(process) }
    }

    /// Nothing more can be learnt from the process: it ended, or is another program.
    pub(super) fn close(&mut self) {
        self.blind.get_or_insert(Why::Gone);
    }

    /// Adds what was mapped since; what was unmapped stays known as long as nothing else is there.
    pub(super) fn read_again(&mut self, files: &mut Files) {
        if self.blind.is_some() {
            return;
        }
        let pid = self.process.pid;
        let maps = match Maps::read(pid) {
            // Asked after the reading: it was the right process if it still is.
            Ok(maps) if !maps.is_empty() && is_still(self.process) => maps,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.blind = Some(Why::Unseen(error.to_string()));
                return;
            }
            _ => {
                self.blind = Some(Why::Gone);
                return;
            }
        };
        for mapping in maps.iter().filter(|mapping| mapping.executable) {
            self.add(mapping, files);
        }
        if self.perf_map.is_none() {
            self.perf_map = PerfMap::of(pid);
        }
    }

    /// Adds one mapping that can be executed.
    pub(super) fn add(&mut self, mapping: &Mapping, files: &mut Files) {
        let code = match mapping.name.as_str() {
            // Ours stands for that of any process: but for one of another word size.
            VDSO if mapping.start >> 32 != 0 => Code::Vdso,
            _ if mapping.inode != 0 => Code::File(files.open(self.process.pid, mapping)),
            _ => Code::Made,
        };
        let region =
            Region { start: mapping.start, offset: mapping.offset, module: mapping.shown().into(), code };
        self.regions.insert(mapping.start, mapping.end, region);
    }

    /// The names of everything that is mapped.
    #[cfg(test)]
    pub(super) fn modules(&self) -> Vec<Rc<str>> {
        self.regions.iter().map(|region| Rc::clone(&region.module)).collect()
    }

    /// Whether an address is in something that is known.
    pub(super) fn holds(&self, addr: u64) -> bool {
        self.regions.find(addr).is_some()
    }

    /// The name of an address.
    pub(super) fn name(&mut self, addr: u64) -> Rc<Name> {
        if let Some(name) = self.names.get(&addr) {
            return Rc::clone(name);
        }
        let name = Rc::new(self.find(addr));
        // What is made at run time may be named later, or made anew.
        if !matches!(self.regions.find(addr), None | Some(Region { code: Code::Made, .. })) {
            self.names.insert(addr, Rc::clone(&name));
        }
        name
    }

    fn find(&mut self, addr: u64) -> Name {
        let Some(region) = self.regions.find(addr) else {
            // What was mapped when it was looked at is known, also of a process that has ended.
            let why = self.blind.clone().filter(|_| self.regions.is_empty()).unwrap_or(Why::Unmapped);
            return Name { addr, functions: Err(why), module: None, offset: None };
        };
        let (at, module) = (addr - region.start, Rc::clone(&region.module));
        let (functions, offset) = match &region.code {
            Code::File(file) => {
                let offset = at + region.offset;
                (file.as_ref().map_err(Clone::clone).and_then(|elf| elf.find(offset)), Some(offset))
            }
            Code::Vdso => (vdso(at), Some(at)),
            Code::Made => (Err(Why::NoPerfMap), None),
        };
        // Code that is made at run time may be in a file without a name, too.
        let functions = functions.or_else(|why| self.made(addr).map(|f| vec![f]).ok_or(why));
        Name { addr, functions, module: Some(module), offset }
    }

    /// The function in the process's perf map, which it may have begun to write since we looked.
    fn made(&mut self, addr: u64) -> Option<Function> {
        if self.perf_map.is_none() && self.blind.is_none() && is_still(self.process) {
            self.perf_map = PerfMap::of(self.process.pid);
        }
        let name = self.perf_map.as_mut()?.find(addr)?;
        Some(Function { name: name.to_string(), line: None })
    }
}

/// Whether the process of that number is still the one that is meant; its birth may be unknown, 0.
fn is_still(process: Process) -> bool {
    Task::process(process.pid).is_some_and(|task| process.start_ns == 0 || task.is_of(process))
}

/// What is at an offset in the code that the kernel maps into every process.
fn vdso(at: u64) -> Result<Vec<Function>, Why> {
    static OWN: OnceLock<Option<u64>> = OnceLock::new();
    let own = OWN.get_or_init(|| {
        let maps = Maps::read(std::process::id()).ok()?;
        maps.iter().find(|mapping| mapping.name == VDSO).map(|mapping| mapping.start)
    });
    let addr = own.ok_or(Why::NoSymbol)? + at;
    let source = Source::Process(source::Process::new(Pid::Slf));
    match Symbolizer::new().symbolize_single(&source, Input::AbsAddr(addr)) {
        Ok(Symbolized::Sym(sym)) => Ok(vec![Function { name: sym.name.into_owned(), line: None }]),
        Ok(Symbolized::Unknown(_)) => Err(Why::NoSymbol),
        Err(error) => Err(Why::Unreadable(error.to_string())),
    }
}
