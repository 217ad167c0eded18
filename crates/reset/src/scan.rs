//! Which mappings the kernel's balancing goes over.

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use trapline_symbols::maps::{Kind, Mapping};

/// What the kernel does about a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// It goes over it.
    Done,
    /// It leaves it alone.
    Skipped,
    /// It could not be found out.
    Unknown,
}

/// Of a mapping of a process. `shared`: whether the kernel goes over files in memory, if that is known.
pub(crate) fn of(pid: u32, mapping: &Mapping, shared: Option<bool>) -> Scan {
    rule(mapping, shared, || is_in_memory(pid, mapping))
}

/// Not text and other files that are only read, nor pages of a file that are to be written back, which are those that a
/// program writes to a shared one.
fn rule(mapping: &Mapping, shared: Option<bool>, in_memory: impl Fn() -> bool) -> Scan {
    if mapping.is_the_kernels() || mapping.kind == Kind::Hugetlb {
        return Scan::Skipped;
    }
    if mapping.inode == 0 {
        return if mapping.readable || mapping.writable { Scan::Done } else { Scan::Skipped };
    }
    match shared {
        _ if !mapping.writable => Scan::Skipped,
        None if in_memory() => Scan::Unknown,
        Some(false) if in_memory() => Scan::Skipped,
        // The pages of a private mapping that were written to are the process's own.
        _ if !mapping.shared => Scan::Done,
        Some(true) if in_memory() => Scan::Done,
        _ => Scan::Skipped,
    }
}

/// Whether the file that is mapped is one in memory: by its file system, or where that cannot be asked by its name.
fn is_in_memory(pid: u32, mapping: &Mapping) -> bool {
    let file = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    match statfs(file.as_str()) {
        Ok(system) => system.filesystem_type() == TMPFS_MAGIC,
        Err(_) => mapping.kind == Kind::Shmem || mapping.name.starts_with("/dev/shm/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trapline_symbols::maps::Maps;

    fn scan(line: &str, shared: Option<bool>, in_memory: bool) -> Scan {
        rule(Maps::parse(line).iter().next().unwrap(), shared, || in_memory)
    }

    #[test]
    fn what_is_gone_over() {
        let of = |line| scan(line, Some(true), false);
        assert_eq!(of("10000-20000 rw-p 00000000 00:00 0 "), Scan::Done);
        assert_eq!(of("10000-20000 r--p 00000000 00:00 0 "), Scan::Done);
        assert_eq!(of("10000-20000 rw-p 00000000 00:00 0                          [stack]"), Scan::Done);
        assert_eq!(of("10000-20000 rw-p 00001000 fe:00 325843                     /usr/bin/a"), Scan::Done);
        assert_eq!(
            of("10000-20000 rw-s 00001000 fe:00 325843                     /var/tmp/a"),
            Scan::Skipped
        );
        assert_eq!(
            of("10000-20000 r--p 00001000 fe:00 325843                     /usr/bin/a"),
            Scan::Skipped
        );
        assert_eq!(of("10000-20000 ---p 00000000 00:00 0 "), Scan::Skipped);
        assert_eq!(of("10000-20000 r--p 00000000 00:00 0                          [vvar]"), Scan::Skipped);
    }

    #[test]
    fn files_in_memory_are_what_was_found_out() {
        for line in
            ["10000-20000 rw-s 00000000 00:01 1024 /dev/zero (deleted)", "10000-20000 rw-p 0 00:19 7 /tmp/a"]
        {
            assert_eq!(scan(line, Some(true), true), Scan::Done);
            assert_eq!(scan(line, Some(false), true), Scan::Skipped);
            assert_eq!(scan(line, None, true), Scan::Unknown);
        }
        assert_eq!(scan("10000-20000 r--s 0 00:19 7 /tmp/a", Some(true), true), Scan::Skipped);
    }

    #[test]
    fn where_a_file_system_cannot_be_asked_the_name_tells() {
        let maps =
            Maps::parse("10000-20000 rw-s 0 00:01 7 /memfd:x (deleted)\n20000-30000 rw-s 0 fe:00 7 /a");
        let found: Vec<_> = maps.iter().map(|m| is_in_memory(u32::MAX, m)).collect();
        assert_eq!(found, [true, false]);
    }
}
