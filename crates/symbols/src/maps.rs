//! What a process has mapped, and the one rule by which it is named: from /proc/PID/maps and perf's records.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use crate::ranges::Ranges;

/// The end of the part of the address space that programs have.
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// What is mapped: `enum faults_area` of `bpf/faults.h` tells the same apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file of a mounted file system.
    File,
    /// Private memory without a file.
    Anon,
    /// What brk grows.
    Heap,
    /// That of the first thread.
    Stack,
    /// Shared memory: anonymous, memfd, System V.
    Shmem,
    /// Huge pages of no mounted file system.
    Hugetlb,
    /// Something else that has a descriptor.
    Object,
    /// Code of the kernel's.
    Vdso,
    /// Other pages of the kernel's.
    Special,
}

impl Kind {
    /// The name under which all tools show it: `own` is a file's path, and the name that memory was given, if any.
    #[must_use]
    pub fn name(self, own: &str) -> Rc<str> {
        let kind = match self {
            Self::File | Self::Object => return own.into(),
            Self::Anon => "[anon]",
            Self::Heap => "[heap]",
            Self::Stack => "[stack]",
            Self::Shmem => "[shmem]",
            Self::Hugetlb => "[hugetlb]",
            Self::Vdso | Self::Special => "[special]",
        };
        if own.is_empty() { kind.into() } else { format!("{kind} {own}").into() }
    }

    /// What the kernel calls so, in /proc/PID/maps and in perf's records, and its name. Names that prctl(PR_SET_VMA) gave stay
    /// as they are. Huge pages of a memfd are not told apart there.
    fn of(called: &str) -> (Self, Rc<str>) {
        let deleted = called.strip_suffix(DELETED);
        let (kind, own) = match (deleted.unwrap_or(called), deleted.is_some()) {
            ("" | "//anon", _) => (Self::Anon, ""),
            ("[heap]", _) => (Self::Heap, ""),
            ("[vdso]", false) => (Self::Vdso, ""),
            ("/dev/zero", true) => (Self::Shmem, ""),
            ("/anon_hugepage", true) => (Self::Hugetlb, ""),
            ("/[aio]", true) => (Self::Object, "aio:[aio]"),
            ("/secretmem", true) => (Self::Object, "secretmem:secretmem"),
            (own, true) if own.starts_with("/memfd:") || own.starts_with("/SYSV") => (Self::Shmem, &own[1..]),
            (own, _) if own.starts_with("[stack") => (Self::Stack, ""),
            (own, _) if own.starts_with("[anon:") => return (Self::Anon, own.into()),
            (own, _) if own.starts_with("[anon_shmem:") => return (Self::Shmem, own.into()),
            (own, _) if own.starts_with('[') => (Self::Special, ""),
            (own, _) if own.starts_with('/') => (Self::File, called),
            _ => (Self::Object, called),
        };
        (kind, kind.name(own))
    }
}

/// What the kernel puts behind the path of a file that has none any more. A name may end so, too.
const DELETED: &str = " (deleted)";

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// Whether the program may read it.
    pub readable: bool,
    /// Whether it may write to it.
    pub writable: bool,
    /// Whether it may execute it.
    pub executable: bool,
    /// Whether what is written is seen by others that map the same.
    pub shared: bool,
    /// Where in the file it begins, bytes.
    pub offset: u64,
    /// Of the file: major and minor number.
    pub device: (u32, u32),
    /// The file's inode, 0 if there is no file.
    pub inode: u64,
    /// Which of the files that had this inode it is, if that is known.
    pub generation: Option<u64>,
    /// What is mapped.
    pub kind: Kind,
    /// Its name, as [`Kind::name`] makes it.
    pub name: Rc<str>,
}

impl Mapping {
    /// The same, of what the kernel calls so.
    pub(crate) fn called(self, called: &str) -> Self {
        let (kind, name) = Kind::of(called);
        Self { kind, name, ..self }
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it is memory without a file that nobody else has, and none of the kernel's own pages in there.
    pub fn is_private_memory(&self) -> bool {
        self.inode == 0 && !self.shared && matches!(self.kind, Kind::Anon | Kind::Heap | Kind::Stack)
    }

    /// Whether it is pages of the kernel's.
    pub fn is_the_kernels(&self) -> bool {
        matches!(self.kind, Kind::Vdso | Kind::Special)
    }

    /// The path of a file without the mark of one that is deleted.
    pub fn path(&self) -> &Path {
        Path::new(self.name.strip_suffix(DELETED).unwrap_or(&self.name))
    }

    /// Where an address of it is in the file, or in memory that has a name, bytes.
    pub fn offset_of(&self, addr: u64) -> Option<u64> {
        let has_offsets = match self.kind {
            Kind::File | Kind::Object => true,
            Kind::Shmem | Kind::Hugetlb => self.name.contains("] "),
            _ => false,
        };
        has_offsets.then(|| self.offset.wrapping_add(addr - self.start))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
            rest = after;
            word
        };
        let (range, perms, offset, device, inode) = (word(), word().as_bytes(), word(), word(), word());
        let (start, end) = range.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (major, minor) = device.split_once(':')?;
        let allows = |at: usize, letter| perms.get(at) == Some(&letter);
        // The only character that the kernel writes otherwise there.
        let (kind, name) = Kind::of(&rest.trim_start().replace("\\012", "\n"));
        Some(Self {
            start: hex(start)?,
            end: hex(end)?,
            readable: allows(0, b'r'),
            writable: allows(1, b'w'),
            executable: allows(2, b'x'),
            shared: allows(3, b's'),
            offset: hex(offset)?,
            device: (hex(major)? as u32, hex(minor)? as u32),
            inode: inode.parse().ok()?,
            generation: None,
            kind,
            name,
        })
    }
}

/// All mappings of a process, in order.
#[derive(Debug, Clone, Default)]
pub struct Maps(Ranges<Mapping>);

impl Maps {
    /// Reads them. A kernel thread, and a process that is about to end, has none.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn read(pid: u32) -> io::Result<Self> {
        let mut file = File::open(format!("/proc/{pid}/maps"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // If the process ended during the reading, the list is truncated.
        if file.read_at(&mut [0], 0)? == 0 {
            return Ok(Self::default());
        }
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Of the text of such a file.
    pub fn parse(text: &str) -> Self {
        let mut maps = Self::default();
        text.split('\n').filter_map(Mapping::parse).for_each(|mapping| maps.insert(mapping));
        maps
    }

    /// Adds one that was made: it takes the place of what it covers.
    pub fn insert(&mut self, mapping: Mapping) {
        self.0.insert(mapping.start, mapping.end, mapping);
    }

    /// The mapping that holds an address.
    pub fn find(&self, addr: u64) -> Option<&Mapping> {
        self.0.find(addr)
    }

    /// Those below [`USER_END`].
    pub fn of_the_program(&self) -> impl Iterator<Item = &Mapping> {
        self.iter().take_while(|mapping| mapping.start < USER_END)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55d0c8a00000-55d0c8a02000 r--p 00001000 fe:00 325843                     /usr/bin/a file (deleted)
55d0ca000000-55d0ca021000 rw-p 00000000 00:00 0                          [heap]
7f11d1df6000-7f11d1e00000 rw-s 00000000 00:01 1024                       /memfd:x (deleted)
7ffdcb410000-7ffdcb431000 rw-p 00000000 00:00 0 
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn lines_are_understood() {
        let maps = Maps::parse(TEXT);
        assert_eq!(maps.iter().count(), 5);
        let file = maps.find(0x55d0_c8a0_1fff).unwrap();
        assert_eq!((file.offset, file.device, file.inode), (0x1000, (0xfe, 0), 325_843));
        assert_eq!((&*file.name, file.path()), ("/usr/bin/a file (deleted)", Path::new("/usr/bin/a file")));
        assert!(file.readable && !file.writable && !file.executable && !file.shared);
        assert!(maps.find(0x7f11_d1df_6000).unwrap().shared);
        assert_eq!(&*maps.find(0x7ffd_cb41_0000).unwrap().name, "[anon]");
        assert!(maps.find(0xffff_ffff_ff60_0000).unwrap().executable);
        assert!(maps.find(0x55d0_c8a0_2000).is_none() && maps.find(0).is_none());
    }

    /// What the kernel calls it in /proc/PID/maps, and what it is: of what has offsets, that of the second page.
    #[test]
    fn every_kind_of_memory_has_one_name_however_hostile() {
        const PAGE: Option<u64> = Some(0x3000);
        for (called, kind, name, offset) in [
            ("", Kind::Anon, "[anon]", None),
            ("//anon", Kind::Anon, "[anon]", None),
            ("[anon:my arena]", Kind::Anon, "[anon:my arena]", None),
            ("[anon:x (deleted)]", Kind::Anon, "[anon:x (deleted)]", None),
            ("[anon_shmem:x y]", Kind::Shmem, "[anon_shmem:x y]", None),
            ("[heap]", Kind::Heap, "[heap]", None),
            ("[stack]", Kind::Stack, "[stack]", None),
            ("[vdso]", Kind::Vdso, "[special]", None),
            ("[vvar_vclock]", Kind::Special, "[special]", None),
            ("[uprobes]", Kind::Special, "[special]", None),
            ("/dev/zero (deleted)", Kind::Shmem, "[shmem]", None),
            ("/dev/zero", Kind::File, "/dev/zero", PAGE),
            ("/anon_hugepage (deleted)", Kind::Hugetlb, "[hugetlb]", None),
            ("/anon_hugepage", Kind::File, "/anon_hugepage", PAGE),
            ("/memfd:x (deleted)", Kind::Shmem, "[shmem] memfd:x", PAGE),
            ("/memfd: (deleted)", Kind::Shmem, "[shmem] memfd:", PAGE),
            ("/memfd:x (deleted) (deleted)", Kind::Shmem, "[shmem] memfd:x (deleted)", PAGE),
            ("/memfd:[heap] \\012[stack] (deleted)", Kind::Shmem, "[shmem] memfd:[heap] \n[stack]", PAGE),
            ("/memfd:x", Kind::File, "/memfd:x", PAGE),
            ("/SYSV00000000 (deleted)", Kind::Shmem, "[shmem] SYSV00000000", PAGE),
            ("/secretmem (deleted)", Kind::Object, "secretmem:secretmem", PAGE),
            ("/[aio] (deleted)", Kind::Object, "aio:[aio]", PAGE),
            ("anon_inode:[perf_event]", Kind::Object, "anon_inode:[perf_event]", PAGE),
            ("socket:[4711]", Kind::Object, "socket:[4711]", PAGE),
            ("/tmp/a b", Kind::File, "/tmp/a b", PAGE),
            ("/tmp/a (deleted)", Kind::File, "/tmp/a (deleted)", PAGE),
            ("/tmp/a (deleted) (deleted)", Kind::File, "/tmp/a (deleted) (deleted)", PAGE),
            ("/tmp/ (deleted)/a", Kind::File, "/tmp/ (deleted)/a", PAGE),
            (
                "/tmp/a\\0127000-8000 rwxp 0 00:00 0 /b",
                Kind::File,
                "/tmp/a\n7000-8000 rwxp 0 00:00 0 /b",
                PAGE,
            ),
            ("/tmp/a\r", Kind::File, "/tmp/a\r", PAGE),
            ("/tmp/\x1b[2J\u{fffd}", Kind::File, "/tmp/\x1b[2J\u{fffd}", PAGE),
            ("/[heap]", Kind::File, "/[heap]", PAGE),
            ("/tmp/trailing ", Kind::File, "/tmp/trailing ", PAGE),
        ] {
            let maps = Maps::parse(&format!("1000-4000 rw-p 00002000 00:01 7        {called}\n"));
            assert_eq!(maps.iter().count(), 1, "{called:?}");
            let found = maps.find(0x2000).unwrap();
            assert_eq!(
                (found.kind, &*found.name, found.offset_of(0x2000)),
                (kind, name, offset),
                "{called:?}"
            );
        }
    }

    #[test]
    fn the_newest_mapping_is_meant() {
        let mut maps = Maps::parse("1000-5000 r--p 00008000 fe:00 7 /lib/a\n");
        maps.insert(Maps::parse("2000-3000 rw-p 00000000 00:00 0\n").find(0x2000).unwrap().clone());
        let at = |addr| maps.find(addr).map(|found| (&*found.name, found.offset_of(addr)));
        assert_eq!(at(0x1fff), Some(("/lib/a", Some(0x8fff))));
        assert_eq!(at(0x2fff), Some(("[anon]", None)));
        assert_eq!(at(0x3000), Some(("/lib/a", Some(0xa000))));
        assert_eq!(at(0x5000), None);
    }

    #[test]
    fn ones_own() {
        let maps = Maps::read(std::process::id()).unwrap();
        let local = 0;
        assert!(maps.find((&raw const local) as u64).is_some_and(|m| m.writable && m.bytes() > 0));
        assert!(Maps::read(u32::MAX >> 1).is_err());
    }
}
