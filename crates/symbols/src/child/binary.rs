//! The symbols and the USDT points of one ELF file, with the places in the file where they can be probed.

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader};
use object::{Object, ObjectSymbol, SymbolKind, elf};

use super::wire::Point;
use crate::demangle::shortened;

type Parsed<'a> = ElfFile64<'a, object::Endianness>;

/// A function, or a pointer to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    /// As the linker knows it.
    pub(super) symbol: String,
    /// As `nm` and `objdump` show it.
    pub(super) address: u64,
    /// Its code is chosen at run time (IFUNC): at the address is what chooses.
    pub(super) chosen: bool,
}

/// The type of a note that marks a point.
const STAPSDT: u32 = 3;

/// What one file holds.
#[derive(Debug, Default)]
pub(super) struct Binary {
    pub(super) functions: Vec<Function>,
    pub(super) points: Vec<Point>,
    /// Whether it has its whole table of symbols, its own or in a file beside it.
    pub(super) has_symbols: bool,
    segments: Vec<Segment>,
}

/// A part of the file that is mapped to be run or read.
#[derive(Debug)]
struct Segment {
    address: u64,
    len: u64,
    offset: u64,
    executable: bool,
}

/// Of a point's name, bytes.
const NAME: usize = 256;
/// Points of one file, at most.
const POINTS: usize = 1 << 16;

impl Binary {
    #[cfg(test)]
    pub(super) fn of(functions: Vec<Function>) -> Self {
        Self { functions, has_symbols: true, ..Self::default() }
    }

    /// Reads a file, and that with its symbols, if they are elsewhere.
    pub(super) fn read(main: &[u8], debug: Option<&[u8]>) -> Result<Self, String> {
        let file = Parsed::parse(main).map_err(|_| "it is not a 64-bit ELF file")?;
        let mut binary = Self { segments: segments(&file), ..Self::default() };
        binary.has_symbols = file.symbols().next().is_some();
        binary.functions = functions(&file);
        binary.points = binary.points(&file).map_err(|error| format!("its USDT notes: {error}"))?;
        if let Some(debug) = debug.filter(|_| !binary.has_symbols)
            && let Ok(file) = Parsed::parse(debug)
        {
            binary.functions.extend(functions(&file));
            binary.has_symbols = true;
        }
        Ok(binary)
    }

    /// Where in the file the code of an address is.
    pub(super) fn code_at(&self, address: u64) -> Option<u64> {
        self.offset(address, true)
    }

    fn offset(&self, address: u64, executable: bool) -> Option<u64> {
        let holds = |s: &&Segment| {
            s.executable == executable && address.checked_sub(s.address).is_some_and(|within| within < s.len)
        };
        self.segments.iter().find(holds).and_then(|s| (address - s.address).checked_add(s.offset))
    }

    /// The notes that mark USDT points: owner `stapsdt`, type 3; the address of the point, that of `.stapsdt.base` when
    /// the file was linked, that of the semaphore, then provider, name and arguments, each ending in NUL.
    fn points(&self, file: &Parsed<'_>) -> object::read::Result<Vec<Point>> {
        let endian = file.endian();
        let sections = file.elf_header().sections(endian, file.data())?;
        let base = sections.section_by_name(endian, b".stapsdt.base");
        let base = base.map(|(_, section)| section.sh_addr(endian));
        let mut points = Vec::new();
        for section in sections.iter() {
            let Some(mut notes) = section.notes(endian, file.data())? else { continue };
            while let Some(note) = notes.next()? {
                if note.name() != b"stapsdt" || note.n_type(endian).0 != STAPSDT {
                    continue;
                }
                points.extend(self.point(note.desc(), base));
                if points.len() >= POINTS {
                    return Ok(points);
                }
            }
        }
        Ok(points)
    }

    fn point(&self, note: &[u8], base: Option<u64>) -> Option<Point> {
        let (addresses, mut texts) = note.split_at_checked(24)?;
        let mut addresses =
            addresses.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
        let (at, linked_base, semaphore) = (addresses.next()?, addresses.next()?, addresses.next()?);
        let moved = base.filter(|_| linked_base != 0).map_or(0, |base| base.wrapping_sub(linked_base));
        let mut text = || {
            let (text, rest) = texts.split_at_checked(texts.iter().position(|&b| b == 0)?)?;
            texts = &rest[1..];
            Some(shortened(&String::from_utf8_lossy(text), NAME).to_owned())
        };
        Some(Point {
            provider: text()?,
            name: text()?,
            offset: self.offset(at.wrapping_add(moved), true)?,
            semaphore: match semaphore {
                0 => 0,
                at => self.offset(at.wrapping_add(moved), false)?,
            },
        })
    }
}

fn segments(file: &Parsed<'_>) -> Vec<Segment> {
    let endian = file.endian();
    let loaded = file.elf_program_headers().iter().filter(|s| s.p_type(endian) == elf::PT_LOAD);
    loaded
        .map(|s| Segment {
            address: s.p_vaddr(endian),
            len: s.p_filesz(endian),
            offset: s.p_offset(endian),
            executable: s.p_flags(endian).0 & elf::PF_X.0 != 0,
        })
        .collect()
}

fn functions(file: &Parsed<'_>) -> Vec<Function> {
    let symbols = file.symbols().chain(file.dynamic_symbols());
    let functions = symbols.filter(|s| s.kind() == SymbolKind::Text && !s.is_undefined() && s.address() != 0);
    functions
        .filter_map(|s| {
            let symbol = String::from_utf8_lossy(s.name_bytes().ok()?).into_owned();
            let chosen = s.elf_symbol().st_info.st_type() == elf::STT_GNU_IFUNC;
            Some(Function { symbol, address: s.address(), chosen })
        })
        .collect()
}
