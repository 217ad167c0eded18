//! What an executable needs to run: its dynamic linker and its libraries, by the names that are in it.

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};

/// Libraries of one file, at most, and bytes of a name.
const LIBRARIES: usize = 256;
const NAME: usize = 256;

/// The names; none where there are none.
pub(super) fn needs(data: &[u8]) -> object::read::Result<Vec<Vec<u8>>> {
    let file = ElfFile64::<Endianness>::parse(data)?;
    let endian = file.endian();
    let mut names = Vec::new();
    for segment in file.elf_program_headers() {
        names.extend(segment.interpreter(endian, data)?.map(<[u8]>::to_vec));
    }
    let sections = file.elf_header().sections(endian, data)?;
    if let Some((entries, strings)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        let needed = entries.iter().filter(|entry| entry.tag(endian) == elf::DT_NEEDED);
        names.extend(needed.filter_map(|entry| Some(entry.string(endian, strings).ok()?.to_vec())));
    }
    names.truncate(LIBRARIES);
    names.iter_mut().for_each(|name| name.truncate(NAME));
    Ok(names)
}
