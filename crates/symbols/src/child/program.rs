//! One executable or library: its symbols, and its debug information if there is any. The only reader of ELF and DWARF
//! that others wrote.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use addr2line::gimli::{self, DwLang, EndianSlice, RunTimeEndian, SectionId};
use memmap2::{Mmap, MmapOptions};
use object::{
    CompressionFormat, Object, ObjectSection, ObjectSegment, ObjectSymbol, ObjectSymbolTable, SectionFlags,
    SegmentFlags, SymbolIndex, SymbolKind, SymbolSection, elf,
};
use self_cell::self_cell;

use super::binary::Binary;
use super::wire::{Frame, Miss};
use super::{needs, unwind};
use crate::demangle::{demangle, shortened};
use crate::unwind::Row;

/// Symbols of one file, at most: the largest programs have two million.
const SYMBOLS: usize = 8 << 20;
/// Compressed debug information, when it is not compressed any more, bytes.
const INFLATED: u64 = 512 << 20;
/// Functions that are inlined into each other at one address, at most.
const DEEPEST: usize = 32;
/// Of a source file's name, bytes.
const PATH: usize = 4096;
/// How far a symbol that holds an address may be before the last one that begins at or before it.
const NESTED: usize = 16;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;
type Lines<'a> = Option<addr2line::Context<Slice<'a>>>;

struct Inflated {
    map: Rc<Mmap>,
    sections: Vec<(SectionId, Vec<u8>)>,
}

self_cell!(
    struct DebugInfo {
        owner: Inflated,
        #[not_covariant]
        dependent: Lines,
    }
);

self_cell!(
    struct Parsed {
        owner: Rc<Mmap>,
        #[covariant]
        dependent: Elf,
    }
);

type Elf<'a> = object::File<'a>;

/// A function's place.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u64,
    /// The same as the start if the file does not say.
    end: u64,
    index: u32,
    dynamic: bool,
    rank: u8,
}

/// One file, mapped.
struct Image {
    parsed: Parsed,
    symbols: OnceCell<Vec<Symbol>>,
    lines: OnceCell<Option<DebugInfo>>,
}

/// A file, and the one with its debug information.
pub(super) struct Program {
    main: Image,
    debug: Option<Image>,
    with_lines: bool,
    /// Its unwind table, as long as it is being sent.
    unwind: Vec<Row>,
    /// Of both files, bytes.
    pub(super) size: u64,
}

/// Maps a file, which may be truncated by others: then reading it ends this process, and that is what it is for.
#[allow(unsafe_code)]
pub(super) fn map(file: &OwnedFd, size: u64) -> Result<Mmap, String> {
    let len = usize::try_from(size).ok().filter(|len| *len > 0).ok_or("the file is empty")?;
    // SAFETY: the mapping is only read. Its bytes may change underneath: what is parsed is checked wherever it is used,
    // as the parsers do for any input, and this process has nothing that a wrong answer of theirs could give away.
    unsafe { MmapOptions::new().len(len).map(file) }.map_err(|error| format!("cannot map it: {error}"))
}

impl Image {
    fn open(map: Mmap) -> Result<Self, String> {
        let parsed =
            Parsed::try_new(Rc::new(map), |map| object::File::parse(map.get(..).unwrap_or_default()))
                .map_err(|_| "it is not an ELF file")?;
        Ok(Self { parsed, symbols: OnceCell::new(), lines: OnceCell::new() })
    }

    fn elf(&self) -> &Elf<'_> {
        self.parsed.borrow_dependent()
    }

    fn symbols(&self) -> Result<&[Symbol], String> {
        if self.symbols.get().is_none() {
            let _ = self.symbols.set(symbols(self.elf())?);
        }
        Ok(self.symbols.get().map_or(&[], Vec::as_slice))
    }

    /// The function at an address, and its language if debug information says so.
    fn symbol(&self, addr: u64) -> Result<Option<String>, String> {
        let symbols = self.symbols()?;
        let after = symbols.partition_point(|symbol| symbol.start <= addr);
        let before = symbols.get(after.saturating_sub(NESTED)..after).unwrap_or_default();
        let holds = |(at, symbol): &(usize, &Symbol)| {
            if symbol.end > symbol.start {
                return addr < symbol.end;
            }
            // Of unknown size: up to the next one.
            before.get(at + 1..).is_none_or(|later| later.iter().all(|l| l.start == symbol.start))
        };
        // The innermost; of several names for one place the one that is no alias.
        let found =
            before.iter().enumerate().filter(holds).max_by_key(|(at, s)| (s.start, s.rank, usize::MAX - at));
        let name = found.and_then(|(_, symbol)| {
            let index = SymbolIndex(symbol.index as usize);
            let elf = self.elf();
            let table = if symbol.dynamic { elf.dynamic_symbol_table() } else { elf.symbol_table() };
            let symbol = table?.symbol_by_index(index).ok()?;
            Some(String::from_utf8_lossy(symbol.name_bytes().ok()?).into_owned())
        });
        Ok(name.filter(|name| !name.is_empty()))
    }

    fn has_debug_info(&self) -> bool {
        self.elf().section_by_name(".debug_info").is_some()
    }

    /// The functions at an address by debug information, outermost first; the name is empty where only a line is known.
    fn frames(&self, addr: u64) -> Option<Vec<Frame>> {
        let info = self.lines.get_or_init(|| debug_info(self.elf(), self.parsed.borrow_owner())).as_ref()?;
        info.with_dependent(|_, lines| {
            let mut frames = lines.as_ref()?.find_frames(addr).skip_all_loads().ok()?;
            let mut found = Vec::new();
            while let Some(frame) = frames.next().ok()? {
                let language = frame.function.as_ref().and_then(|function| function.language);
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|function| Some(demangle(&function.raw_name().ok()?, is_cpp(language))));
                let location = frame.location.as_ref();
                let file = location
                    .and_then(|location| location.line.and(location.file))
                    .map(|path| shortened(path, PATH).to_owned());
                let line = location.and_then(|location| location.line).unwrap_or(0);
                found.push(Frame { name: name.unwrap_or_default(), file, line });
                if found.len() > DEEPEST {
                    // The innermost are what the instruction was written in.
                    break;
                }
            }
            found.reverse();
            (!found.is_empty()).then_some(found)
        })
    }
}

fn is_cpp(language: Option<DwLang>) -> bool {
    matches!(
        language,
        Some(
            gimli::DW_LANG_C_plus_plus
                | gimli::DW_LANG_C_plus_plus_03
                | gimli::DW_LANG_C_plus_plus_11
                | gimli::DW_LANG_C_plus_plus_14
                | gimli::DW_LANG_C_plus_plus_17
                | gimli::DW_LANG_C_plus_plus_20
        )
    )
}

fn symbols(elf: &Elf<'_>) -> Result<Vec<Symbol>, String> {
    let mut all = Vec::new();
    for (dynamic, table) in [(false, elf.symbol_table()), (true, elf.dynamic_symbol_table())] {
        let Some(table) = table else { continue };
        for symbol in table.symbols() {
            let is_function = symbol.kind() == SymbolKind::Text;
            // Labels of assembly have no type.
            let is_label = symbol.kind() == SymbolKind::Unknown && in_code(elf, symbol.section());
            if symbol.is_undefined() || symbol.address() == 0 || !(is_function || is_label) {
                continue;
            }
            if all.len() >= SYMBOLS {
                return Err(format!("it has more than {SYMBOLS} symbols"));
            }
            let start = symbol.address();
            all.push(Symbol {
                start,
                end: start.saturating_add(symbol.size()),
                index: symbol.index().0 as u32,
                dynamic,
                rank: 4 * u8::from(is_function)
                    + 2 * u8::from(symbol.size() > 0)
                    + u8::from(symbol.is_global() && !symbol.is_weak()),
            });
        }
    }
    all.sort_by_key(|symbol| symbol.start);
    Ok(all)
}

fn in_code(file: &Elf<'_>, section: SymbolSection) -> bool {
    let SymbolSection::Section(index) = section else { return false };
    // By its flag: in a file that has debug information only, it is there without its contents.
    file.section_by_index(index).is_ok_and(|section| match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.0 & elf::SHF_EXECINSTR.0 != 0,
        _ => false,
    })
}

/// Reads what is said of lines and inlined functions; nothing if it cannot be read.
fn debug_info(elf: &Elf<'_>, map: &Rc<Mmap>) -> Option<DebugInfo> {
    let mut inflated = Vec::new();
    let mut total = 0_u64;
    let load = |id: SectionId| -> Option<()> {
        let Some(section) = elf.section_by_name(id.name()) else { return Some(()) };
        let compressed = section.compressed_data().ok()?;
        if compressed.format != CompressionFormat::None {
            // What it says about its size is its word only.
            total = total.saturating_add(compressed.uncompressed_size);
            if total > INFLATED {
                return None;
            }
            inflated.push((id, compressed.decompress().ok()?.into_owned()));
        }
        Some(())
    };
    SECTIONS.iter().copied().try_for_each(load)?;
    let owner = Inflated { map: Rc::clone(map), sections: inflated };
    Some(DebugInfo::new(owner, |owner| {
        let elf = object::File::parse(owner.map.get(..).unwrap_or_default()).ok()?;
        let endian = if elf.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let section = |id: SectionId| -> Result<Slice<'_>, gimli::Error> {
            let inflated = owner.sections.iter().find(|(of, _)| *of == id).map(|(_, bytes)| bytes.as_slice());
            let plain = || elf.section_by_name(id.name()).and_then(|section| section.data().ok());
            Ok(EndianSlice::new(inflated.or_else(plain).unwrap_or_default(), endian))
        };
        addr2line::Context::from_dwarf(gimli::Dwarf::load(section).ok()?).ok()
    }))
}

/// The sections that lines and functions are found by.
const SECTIONS: &[SectionId] = &[
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
];

impl Program {
    pub(super) fn open(map: Mmap, with_lines: bool) -> Result<Self, String> {
        let size = map.len() as u64;
        Ok(Self { main: Image::open(map)?, debug: None, with_lines, unwind: vec![], size })
    }

    /// The build id and the debuglink of a file whose debug information is elsewhere.
    pub(super) fn elsewhere(&self) -> (Vec<u8>, Vec<u8>) {
        let elf = self.main.elf();
        if self.main.has_debug_info() {
            return Default::default();
        }
        let id = elf.build_id().ok().flatten().unwrap_or_default();
        let link = elf.gnu_debuglink().ok().flatten().map_or(&[][..], |(name, _)| name);
        (id.to_vec(), link.to_vec())
    }

    /// Adds the file with the debug information, if it is this file's.
    pub(super) fn add(&mut self, map: Mmap) -> Result<(), String> {
        let (size, debug) = (map.len() as u64, Image::open(map)?);
        let elf = self.main.elf();
        let fits = match (elf.build_id().ok().flatten(), debug.elf().build_id().ok().flatten()) {
            (Some(own), Some(other)) => own == other,
            (Some(_), None) => false,
            (None, _) => elf
                .gnu_debuglink()
                .ok()
                .flatten()
                .is_some_and(|(_, crc)| crc == crc32fast::hash(debug.parsed.borrow_owner())),
        };
        if !fits {
            return Err("it belongs to another file".into());
        }
        self.size += size;
        self.debug = Some(debug);
        Ok(())
    }

    /// The names of what it needs to run, as far as they can be read.
    pub(super) fn needs(&self) -> Vec<Vec<u8>> {
        let map: &Mmap = self.main.parsed.borrow_owner();
        needs::needs(map).unwrap_or_default()
    }

    /// Rows of its unwind table, from one on, so many at most, and how many there are in all.
    pub(super) fn unwind(&mut self, from: usize, most: usize) -> Result<(Vec<Row>, usize), String> {
        if self.unwind.is_empty() {
            self.unwind = unwind::rows(self.main.elf())?;
        }
        let all = self.unwind.len();
        let rows: Vec<Row> = self.unwind.iter().skip(from).take(most).copied().collect();
        if from + rows.len() >= all {
            self.unwind = vec![];
        }
        Ok((rows, all))
    }

    /// What can be probed in it.
    pub(super) fn binary(&self) -> Result<Binary, String> {
        let bytes = |image: &Image| -> Rc<Mmap> { Rc::clone(image.parsed.borrow_owner()) };
        Binary::read(&bytes(&self.main), self.debug.as_ref().map(bytes).as_deref().map(|map| &map[..]))
    }

    /// The functions at an offset in the file, outermost first.
    pub(super) fn find(&self, offset: u64) -> Result<Result<Vec<Frame>, Miss>, String> {
        let Some(addr) = self.address(offset) else { return Ok(Err(Miss::NoSymbol)) };
        let images = || self.debug.iter().chain([&self.main]);
        let mut frames = if self.with_lines { images().find_map(|image| image.frames(addr)) } else { None }
            .unwrap_or_default();
        if frames.first().is_none_or(|outermost| outermost.name.is_empty()) {
            let mut name = None;
            for image in images() {
                name = name.or(image.symbol(addr)?);
            }
            match (name, frames.first_mut()) {
                (Some(name), Some(outermost)) => outermost.name = demangle(&name, false),
                (Some(name), None) => {
                    frames.push(Frame { name: demangle(&name, false), file: None, line: 0 });
                }
                (None, _) => {}
            }
        }
        frames.retain(|frame| !frame.name.is_empty());
        if !frames.is_empty() {
            return Ok(Ok(frames));
        }
        for image in images() {
            if image.has_debug_info() || !image.symbols()?.is_empty() {
                return Ok(Err(Miss::NoSymbol));
            }
        }
        Ok(Err(Miss::Stripped))
    }

    /// The address for which the file was linked, of what is at an offset in it.
    fn address(&self, offset: u64) -> Option<u64> {
        let mut found = None;
        for segment in self.main.elf().segments() {
            let (at, len) = segment.file_range();
            let Some(within) = offset.checked_sub(at).filter(|within| *within < len) else { continue };
            let address = segment.address().checked_add(within);
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else { continue };
            if p_flags.0 & elf::PF_X.0 != 0 {
                return address;
            }
            found = found.or(address);
        }
        found
    }
}
