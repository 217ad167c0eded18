//! What a process has mapped, from /proc/PID/maps.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// The end of the part of the address space that programs have.
pub const USER_END: u64 = 0x7fff_ffff_f000;

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
    /// A path, `[heap]`, or nothing.
    pub name: String,
}

impl Mapping {
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it is memory without a file that nobody else has, and none of the kernel's own pages in there.
    pub fn is_private_memory(&self) -> bool {
        let is_named = |kind| self.name.starts_with(kind);
        let is_ordinary = self.name.is_empty() || ["[heap]", "[stack", "[anon:"].into_iter().any(is_named);
        self.inode == 0 && !self.shared && is_ordinary
    }

    /// The name for people: `[anon]` where the kernel has none.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { "[anon]" } else { &self.name }
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
            name: rest.trim_start().to_owned(),
        })
    }
}

/// All mappings of a process, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maps(Vec<Mapping>);

impl Maps {
    /// Reads them. A kernel thread, and a process that is about to end, has none.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn read(pid: u32) -> io::Result<Self> {
        let mut file = File::open(format!("/proc/{pid}/maps"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // Of one that ended meanwhile only the first ones were told.
        if file.read_at(&mut [0], 0)? == 0 {
            return Ok(Self::default());
        }
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Of the text of such a file.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Mapping::parse).collect())
    }

    /// The mapping that holds an address.
    pub fn find(&self, addr: u64) -> Option<&Mapping> {
        let after = self.0.partition_point(|m| m.start <= addr);
        self.0.get(after.checked_sub(1)?).filter(|m| addr < m.end)
    }

    /// Those below [`USER_END`].
    pub fn of_the_program(&self) -> &[Mapping] {
        &self.0[..self.0.partition_point(|m| m.start < USER_END)]
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

/// The name under which faults are put, and whether it has offsets: a file's path, and of other memory its kind, as the kernel
/// half tells it (`bpf/faults_file.bpf.h`).
#[must_use]
pub fn kind_and_name(name: &str) -> (Rc<str>, bool) {
    let whole = name.strip_suffix(" (deleted)").unwrap_or(name);
    match whole {
        "" | "//anon" => ("[anon]".into(), false),
        "/dev/zero" if whole != name => ("[shmem]".into(), false),
        "/anon_hugepage" if whole != name => ("[hugetlb]".into(), false),
        "[vdso]" | "[vvar]" | "[vsyscall]" | "[vvar_vclock]" => ("[special]".into(), false),
        _ => match whole.strip_prefix("/memfd:") {
            Some(memory) => (format!("[shmem] memfd:{memory}").into(), true),
            None => (name.into(), name.starts_with('/')),
        },
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
        assert_eq!(
            (file.offset, file.device, file.inode, file.name.as_str()),
            (0x1000, (0xfe, 0), 325_843, "/usr/bin/a file (deleted)")
        );
        assert!(file.readable && !file.writable && !file.executable && !file.shared);
        assert!(maps.find(0x7f11_d1df_6000).unwrap().shared);
        assert_eq!(maps.find(0x7ffd_cb41_0000).unwrap().shown(), "[anon]");
        assert!(maps.find(0xffff_ffff_ff60_0000).unwrap().executable);
        assert!(maps.find(0x55d0_c8a0_2000).is_none() && maps.find(0).is_none());
    }

    #[test]
    fn memory_without_a_file_is_of_a_kind() {
        let of = |name| {
            let (name, has_offsets) = kind_and_name(name);
            (name.to_string(), has_offsets)
        };
        assert_eq!(of(""), ("[anon]".into(), false));
        assert_eq!(of("/dev/zero (deleted)"), ("[shmem]".into(), false));
        assert_eq!(of("/anon_hugepage (deleted)"), ("[hugetlb]".into(), false));
        assert_eq!(of("[vvar]"), ("[special]".into(), false));
        assert_eq!(of("[heap]"), ("[heap]".into(), false));
        assert_eq!(of("/memfd:x (deleted)"), ("[shmem] memfd:x".into(), true));
        assert_eq!(of("/tmp/a (deleted)"), ("/tmp/a (deleted)".into(), true));
    }

    #[test]
    fn ones_own() {
        let maps = Maps::read(std::process::id()).unwrap();
        let local = 0;
        assert!(maps.find((&raw const local) as u64).is_some_and(|m| m.writable && m.bytes() > 0));
        assert!(Maps::read(u32::MAX >> 1).is_err());
    }
}
