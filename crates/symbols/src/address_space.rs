//! What one process has mapped to execute.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use blazesym::Pid;
use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use trapline_model::faults::Process;

use super::files::{Files, Program};
use super::jit::{Origin, PerfMap};
use super::ranges::Ranges;
use super::unwind::{self, UnwoundBy};
use super::{Function, Name, Place, Why};
use crate::maps::{Kind, Mapping, Maps};
use crate::task::Task;

const VDSO: &str = "[vdso]";

/// What one process has mapped to execute, as far as it was seen.
#[derive(Debug)]
pub(super) struct AddressSpace {
    process: Process,
    regions: Ranges<Region>,
    origin: Option<Origin>,
    perf_map: Option<PerfMap>,
    /// It has code that is in no file.
    makes: bool,
    /// The map is to be read again before it is asked.
    stale: bool,
    /// What was asked before; of code made at run time, what it was when it was asked for last.
    names: HashMap<u64, Rc<Name>>,
    made: HashMap<u64, Function>,
    /// Why nothing more can be learnt from the process.
    blind: Option<Why>,
    /// When what it has mapped was read for nothing.
    looked: Option<Instant>,
}

/// How often what a process has mapped is read anew, at most, for addresses that are in nothing: what lies beyond a function
/// without a frame pointer is no address at all.
const LOOKED_EVERY: Duration = Duration::from_millis(250);

/// Names remembered of one process, of each kind.
const NAMES: usize = 1 << 16;

#[derive(Debug, Clone)]
struct Region {
    mapping: Rc<Mapping>,
    code: Code,
}

#[derive(Debug, Clone)]
enum Code {
    File(Result<Rc<Program>, Why>),
    Vdso,
    /// In no file.
    Made,
}

/// A file, and the addresses that are asked for in it, each with its offset.
type Wanted = (Rc<Program>, Vec<(u64, u64)>);

impl AddressSpace {
    /// What the process has mapped now.
    pub(super) fn read(process: Process, files: &mut Files) -> Self {
        let mut space = Self::empty(process);
        space.read_again(files);
        space
    }

    /// Nothing, yet.
    pub(super) fn empty(process: Process) -> Self {
        Self {
            process,
            regions: Ranges::default(),
            origin: None,
            perf_map: None,
            makes: false,
            stale: false,
            names: HashMap::new(),
            made: HashMap::new(),
            blind: None,
            looked: None,
        }
    }

    /// What a child of the process begins with.
    pub(super) fn inherited(&self, process: Process) -> Self {
        let origin = self.origin.as_ref().map(Origin::of_child);
        Self { regions: self.regions.clone(), makes: self.makes, origin, ..Self::empty(process) }
    }

    /// Nothing, but what a process keeps that becomes another program. It may have another root by now: it is asked for again.
    pub(super) fn succeeding(&self, process: Process) -> Self {
        Self { origin: self.origin.as_ref().map(Origin::of_successor), ..Self::empty(process) }
    }

    /// Nothing more can be learnt from the process: it ended, or is another program.
    pub(super) fn close(&mut self) {
        self.blind.get_or_insert(Why::Gone);
    }

    /// Adds what was mapped since if one of these addresses is in nothing that is known.
    pub(super) fn look_for(&mut self, addrs: &[u64], files: &mut Files) {
        let is_missing = |space: &Self| addrs.iter().any(|&addr| !space.holds(addr));
        if !is_missing(self) || self.looked.is_some_and(|looked| looked.elapsed() < LOOKED_EVERY) {
            return;
        }
        self.read_again(files);
        self.looked = is_missing(self).then(Instant::now);
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
        // One that replaced another is noticed by `watch_map`, when what was taken before has its names.
        if self.perf_map.is_none() {
            self.look_for_map(files);
        }
    }

    /// Adds one mapping that can be executed.
    pub(super) fn add(&mut self, mapping: &Mapping, files: &mut Files) {
        if self.origin.as_ref().is_none_or(|origin| !origin.is_seen()) {
            self.learn_origin(files);
        }
        let code = match mapping.kind {
            // Ours stands for that of any process: but for one of another word size.
            Kind::Vdso if mapping.start >> 32 != 0 => Code::Vdso,
            _ if mapping.inode != 0 => Code::File(files.open(self.process.pid, mapping)),
            _ => Code::Made,
        };
        let made = matches!(code, Code::Made);
        self.forget_replaced(mapping);
        let region = Region { mapping: Rc::new(mapping.clone()), code };
        self.regions.insert(mapping.start, mapping.end, region);
        self.makes |= made;
        if made && self.perf_map.is_none() {
            // It may be removed when the process ends.
            self.look_for_map(files);
        }
    }

    /// Where something else was mapped before, what was asked about it means nothing any more.
    fn forget_replaced(&mut self, mapping: &Mapping) {
        // Not all that tell of mappings know the generation, or mean the same device.
        let place = |of: &Mapping| (of.inode, of.start.wrapping_sub(of.offset));
        let is_other = |old: &Mapping| {
            let generations = old.generation.zip(mapping.generation);
            // Memory without a file is split and joined, and is what it was.
            let has_file = old.inode != 0 || mapping.inode != 0;
            has_file && place(old) != place(mapping) || generations.is_some_and(|(old, new)| old != new)
        };
        let mut before = self.regions.overlapping(mapping.start, mapping.end);
        if before.any(|(_, region)| is_other(&region.mapping)) {
            let is_elsewhere = |addr: &u64| !(mapping.start..mapping.end).contains(addr);
            self.names.retain(|addr, _| is_elsewhere(addr));
            self.made.retain(|addr, _| is_elsewhere(addr));
        }
    }

    /// The names of everything that is mapped.
    #[cfg(test)]
    pub(super) fn modules(&self) -> Vec<Rc<str>> {
        self.regions.iter().map(|region| Rc::clone(&region.mapping.name)).collect()
    }

    /// Whether the file of that name was opened.
    #[cfg(test)]
    pub(super) fn code_of(&self, name: &str) -> Option<Result<(), Why>> {
        self.regions.iter().find_map(|region| match &region.code {
            Code::File(file) if region.mapping.name.ends_with(name) => Some(file.clone().map(drop)),
            _ => None,
        })
    }

    /// Whether an address is in something that is known.
    pub(super) fn holds(&self, addr: u64) -> bool {
        self.regions.find(addr).is_some()
    }

    /// The executable, and the place in it where its code begins, bytes: it is mapped below all libraries.
    pub(super) fn executable(&self) -> Option<(Rc<Program>, u64)> {
        self.regions.iter().find_map(|region| match &region.code {
            Code::File(Ok(program)) => Some((Rc::clone(program), region.mapping.offset)),
            _ => None,
        })
    }

    /// Whether the process says itself what is where.
    pub(super) fn has_perf_map(&self) -> bool {
        self.perf_map.is_some()
    }

    /// Where in which file an address is: nothing if it is in nothing, and `Some(None)` if it is in something else.
    pub(super) fn in_file(&self, addr: u64) -> Option<Option<Place>> {
        let region = self.regions.find(addr)?;
        let Code::File(Ok(program)) = &region.code else { return Some(None) };
        Some(Some((program.id, addr - region.mapping.start + region.mapping.offset)))
    }

    /// The file that an address is in, if it can be read.
    pub(super) fn program_at(&self, addr: u64) -> Option<Rc<Program>> {
        let Code::File(Ok(program)) = &self.regions.find(addr)?.code else { return None };
        Some(Rc::clone(program))
    }

    /// Where an address is to the unwind tables.
    pub(super) fn unwound_by(&self, addr: u64) -> UnwoundBy {
        let Some(region) = self.regions.find(addr) else { return UnwoundBy::Nothing };
        let within = addr - region.mapping.start;
        match region.code {
            Code::File(_) => {
                UnwoundBy::Table(unwind::file_key(&region.mapping), within + region.mapping.offset)
            }
            Code::Vdso => UnwoundBy::Table(unwind::VDSO, within),
            Code::Made => UnwoundBy::Frame,
        }
    }

    /// The names of addresses, in their order.
    pub(super) fn resolve(&mut self, addrs: &[u64], files: &mut Files) -> Vec<Rc<Name>> {
        let missing = addrs.iter().filter(|addr| !self.names.contains_key(addr));
        let mut found: HashMap<u64, Name> = missing.map(|&addr| (addr, self.place(addr))).collect();
        self.look_into_files(&mut found, files);
        // Code that is made at run time may be in a file without a name, too.
        let made = |name: &&mut Name| name.module.is_some() && name.functions.is_err();
        let mut made: Vec<&mut Name> = found.values_mut().filter(made).collect();
        if !made.is_empty() {
            let addrs: Vec<u64> = made.iter().map(|name| name.addr).collect();
            match self.made(&addrs, files) {
                Some(functions) => {
                    for (name, function) in made.iter_mut().zip(functions) {
                        if let Some(function) = function {
                            name.functions = Ok(vec![function]);
                        }
                    }
                }
                None => made.iter_mut().for_each(|name| name.functions = Err(Why::Late)),
            }
        }
        let found: HashMap<u64, Rc<Name>> =
            found.into_iter().map(|(addr, name)| (addr, Rc::new(name))).collect();
        if self.names.len() > NAMES {
            // Those that are wanted now are kept.
            self.names.retain(|addr, _| addrs.contains(addr));
        }
        let names = addrs.iter().filter_map(|addr| found.get(addr).or_else(|| self.names.get(addr)).cloned());
        let names = names.collect();
        for (addr, name) in found {
            // What is made at run time may be named later, or made anew; what there was no time for is looked up later.
            let lasts = !matches!(self.regions.find(addr), None | Some(Region { code: Code::Made, .. }));
            if lasts && !name.functions.as_ref().is_err_and(Why::passes) {
                self.names.insert(addr, name);
            }
        }
        names
    }

    /// Where an address is; not yet what.
    fn place(&self, addr: u64) -> Name {
        let Some(region) = self.regions.find(addr) else {
            // What was mapped when it was looked at is known, also of a process that has ended.
            let why = self.blind.clone().filter(|_| self.regions.is_empty()).unwrap_or(Why::Unmapped);
            return Name { addr, functions: Err(why), module: None, offset: None, build_id: None };
        };
        let at = addr - region.mapping.start;
        let (functions, offset) = match &region.code {
            Code::File(Ok(_)) => (Err(Why::NoSymbol), Some(at + region.mapping.offset)),
            Code::File(Err(why)) => (Err(why.clone()), Some(at + region.mapping.offset)),
            Code::Vdso => (vdso(at), Some(at)),
            Code::Made => (Err(Why::NoPerfMap), None),
        };
        let module = match region.code {
            Code::Vdso => VDSO.into(),
            _ => Rc::clone(&region.mapping.name),
        };
        Name { addr, functions, module: Some(module), offset, build_id: None }
    }

    /// Asks the files that addresses are in, each once.
    fn look_into_files(&mut self, found: &mut HashMap<u64, Name>, files: &mut Files) {
        let mut wanted: HashMap<*const Program, Wanted> = HashMap::new();
        for name in found.values_mut() {
            let (Some(region), Some(offset)) = (self.regions.find(name.addr), name.offset) else { continue };
            let Code::File(Ok(program)) = &region.code else { continue };
            let mut program = Rc::clone(program);
            if program.is_let_go() && is_still(self.process) {
                // It was closed to make space, and can be opened again.
                if let Ok(again) = files.open(self.process.pid, &region.mapping) {
                    program = again;
                }
            }
            let (_, at) = wanted.entry(Rc::as_ptr(&program)).or_insert((program, vec![]));
            at.push((name.addr, offset));
        }
        for (program, at) in wanted.into_values() {
            let offsets: Vec<u64> = at.iter().map(|(_, offset)| *offset).collect();
            for ((addr, _), functions) in at.iter().zip(files.find(&program, &offsets)) {
                if let Some(name) = found.get_mut(addr) {
                    name.functions = functions;
                    name.build_id = program.build_id();
                }
            }
        }
    }

    /// The functions in the process's perf map, which it may have begun to write, or written anew, since we looked. Nothing
    /// if there was no time to read it.
    fn made(&mut self, addrs: &[u64], files: &mut Files) -> Option<Vec<Option<Function>>> {
        if self.perf_map.is_none() || std::mem::take(&mut self.stale) {
            self.look_for_map(files);
        }
        let mut found = match &mut self.perf_map {
            Some(map) => map.find(addrs, false, files)?,
            None => vec![],
        };
        found.resize(addrs.len(), None);
        let is_made = |addr: &u64| matches!(self.regions.find(*addr), Some(Region { code: Code::Made, .. }));
        if addrs.iter().zip(&found).any(|(addr, found)| found.is_none() && is_made(addr)) {
            // It may have been written since. A file's address without a name is no reason to think so.
            self.look_for_map(files);
            let again = match &mut self.perf_map {
                Some(map) => map.find(addrs, true, files)?,
                None => vec![],
            };
            for (found, again) in found.iter_mut().zip(again) {
                *found = found.take().or(again);
            }
        }
        let mut functions = Vec::new();
        for (addr, found) in addrs.iter().zip(found) {
            if self.made.len() > NAMES {
                self.made.clear();
            }
            match found {
                Some(function) => {
                    self.made.insert(*addr, function.clone());
                    functions.push(Some(function));
                }
                // What it was when the map had it.
                None => functions.push(self.made.get(addr).cloned()),
            }
        }
        Some(functions)
    }

    /// Remembers, while the process lives, where its perf map would be.
    fn learn_origin(&mut self, files: &mut Files) {
        if self.blind.is_none() && is_still(self.process) {
            self.origin = Origin::of(self.process.pid, files).or(self.origin.take());
        }
    }

    /// Reads the perf map if it is new. Tells whether it was written since it was read.
    pub(super) fn watch_map(&mut self, files: &mut Files) -> bool {
        if !self.makes || self.blind.is_some() {
            return false;
        }
        self.learn_origin(files);
        match (&self.perf_map, &self.origin) {
            (Some(map), Some(origin)) if map.is_read() => map.is_written(self.process, origin),
            // Now, before it is written anew: it may be long until it is asked.
            _ => {
                self.stale = false;
                self.look_for_map(files);
                if let Some(map) = &mut self.perf_map {
                    map.find(&[], true, files);
                }
                false
            }
        }
    }

    /// What was named by the perf map as it was is named: it is read again when it is asked next.
    pub(super) fn renew_map(&mut self) {
        self.stale = self.makes;
        if let Some(map) = &mut self.perf_map {
            map.renew();
        }
    }

    fn look_for_map(&mut self, files: &mut Files) {
        // Each time: it may have entered another mount namespace, or become another user, without another program.
        self.learn_origin(files);
        if let Some(origin) = self.origin.clone().or_else(Origin::unseen) {
            self.perf_map = PerfMap::of(self.perf_map.take(), self.process, &origin, files);
        }
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
        maps.iter().find(|mapping| mapping.kind == Kind::Vdso).map(|mapping| mapping.start)
    });
    let addr = own.ok_or(Why::NoSymbol)? + at;
    let source = Source::Process(source::Process::new(Pid::Slf));
    match Symbolizer::new().symbolize_single(&source, Input::AbsAddr(addr)) {
        Ok(Symbolized::Sym(sym)) => Ok(vec![Function { name: sym.name.into_owned(), line: None }]),
        Ok(Symbolized::Unknown(_)) => Err(Why::NoSymbol),
        Err(error) => Err(Why::Unreadable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library in the place of another: what was asked of the first is not an answer for the second.
    #[test]
    fn names_end_with_what_they_are_of() {
        let mut files = Files::default();
        let mut space = AddressSpace::empty(Process { pid: std::process::id(), start_ns: 0 });
        let library = |inode, start: u64| Mapping {
            start,
            end: start + 0x2000,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            offset: 0,
            device: (7, 7),
            inode,
            generation: None,
            kind: Kind::File,
            name: format!("/no/such/library-{inode}.so").into(),
        };
        space.add(&library(1, 0x7000_0000), &mut files);
        space.add(&library(2, 0x7000_8000), &mut files);
        let asked = [0x7000_0100, 0x7000_8100];
        for addr in asked {
            let name = space.place(addr);
            space.names.insert(addr, Rc::new(name));
        }
        // Seen again, as when the map is read again.
        space.add(&library(1, 0x7000_0000), &mut files);
        assert!(asked.iter().all(|addr| space.names.contains_key(addr)));
        space.add(&library(3, 0x7000_0000), &mut files);
        let modules = space.resolve(&asked, &mut files);
        let modules: Vec<_> = modules.iter().map(|name| name.module.as_deref()).collect();
        assert_eq!(modules, [Some("/no/such/library-3.so"), Some("/no/such/library-2.so")]);
    }
}
