//! Everything here that reads what others wrote, as the tests and `make fuzz` call it with changed inputs: nothing may
//! end it, and what comes out keeps its bounds.

pub use crate::child::eh_frame;
pub use crate::child::fuzz::{dwarf, elf, perf_map, reply};
use crate::demangle::{LONGEST, demangle, without_parameters};
use crate::maps::Maps;
use crate::perf;

/// A record as the kernel leaves it in a ring, with names that processes chose.
pub fn perf_record(bytes: &[u8]) {
    let _ = perf::parse(bytes);
}

/// A /proc/PID/maps, with names that processes chose.
pub fn maps(bytes: &[u8]) {
    let maps = Maps::parse(&String::from_utf8_lossy(bytes));
    for mapping in maps.iter() {
        let _ = (mapping.is_private_memory(), mapping.path(), mapping.offset_of(mapping.start));
        let _ = (maps.find(mapping.start), maps.find(mapping.end));
    }
    let _ = maps.of_the_program().count();
}

/// A symbol's name.
pub fn name(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    for shown in [demangle(&name, true), demangle(&name, false)] {
        assert!(shown.len() <= LONGEST, "{} bytes", shown.len());
    }
    let _ = without_parameters(&name);
}

#[cfg(test)]
mod tests {
    use trapline_fuzz::bounded;

    #[test]
    fn elf_files() {
        bounded("elf", 4000, super::elf);
    }

    #[test]
    fn unwind_information() {
        bounded("eh_frame", 20_000, super::eh_frame);
    }

    #[test]
    fn debug_information() {
        bounded("dwarf", 4000, super::dwarf);
    }

    #[test]
    fn perf_maps() {
        bounded("perf_map", 4000, super::perf_map);
    }

    #[test]
    fn perf_records() {
        bounded("perf_record", 100_000, super::perf_record);
    }

    #[test]
    fn mappings() {
        bounded("maps", 10_000, super::maps);
    }

    #[test]
    fn names() {
        bounded("name", 20_000, super::name);
    }

    #[test]
    fn replies() {
        bounded("reply", 50_000, super::reply);
    }
}
