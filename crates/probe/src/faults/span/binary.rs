//! The symbols and the USDT points of one ELF file, with the places in the file where they can be probed.

use std::fs;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader};
use object::{Object, ObjectSymbol, SymbolKind, elf};

use super::SpanError;

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

/// A USDT point; a name may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) provider: String,
    pub(super) name: String,
    /// Of its instruction in the file, bytes.
    pub(super) offset: u64,
    /// Of the counter that makes it do its work, in the file; 0 if it has none.
    pub(super) semaphore: u64,
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

/// Where distributions put the symbols that they have taken out of a file.
const DEBUG_FILES: &str = "/usr/lib/debug/.build-id";

impl Binary {
    #[cfg(test)]
    pub(super) fn of(functions: Vec<Function>) -> Self {
        Self { functions, has_symbols: true, ..Self::default() }
    }

    /// Reads a file; `shown` is the name for people.
    pub(super) fn read(path: &Path, shown: &str) -> Result<Self, SpanError> {
        let cannot = |why: String| SpanError::new(format!("cannot look into {shown}: {why}"));
        let bytes = fs::read(path).map_err(|error| cannot(error.to_string()))?;
        let file = Parsed::parse(bytes.as_slice())
            .map_err(|_| cannot("it is no program of 64 bits (ELF)".into()))?;
        let mut binary = Self { segments: segments(&file), ..Self::default() };
        binary.has_symbols = file.symbols().next().is_some();
        binary.functions = functions(&file);
        binary.points = binary.points(&file).map_err(|error| cannot(format!("its USDT notes: {error}")))?;
        if let Some(debug) = debug_file(&file).filter(|_| !binary.has_symbols)
            && let Ok(bytes) = fs::read(debug)
            && let Ok(file) = Parsed::parse(bytes.as_slice())
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
        let holds =
            |s: &&Segment| s.executable == executable && (s.address..s.address + s.len).contains(&address);
        self.segments.iter().find(holds).map(|s| address - s.address + s.offset)
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
            Some(String::from_utf8_lossy(text).into_owned())
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

/// The file with the symbols that belong to this one, by its build id.
fn debug_file(file: &Parsed<'_>) -> Option<PathBuf> {
    let id: String = file.build_id().ok()??.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = id.split_at_checked(2)?;
    Some(Path::new(DEBUG_FILES).join(first).join(format!("{rest}.debug")))
}
