//! What the kernel half calls a mapped file or a sort of memory, in words. See `bpf/faults_file.bpf.h`.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytemuck::{bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use trapline_model::faults::File;
use trapline_symbols::maps::Kind;

use crate::abi::maps::faults as maps;
use crate::abi::{self, FaultsGroupKey, FaultsName};
use crate::elements::Elements;
use crate::system;
use crate::variant::Attached;

/// How long it is waited for a name that is being written down.
const NAME_COMES: Duration = Duration::from_millis(500);

const RECORD: usize = size_of::<FaultsGroupKey>() + size_of::<FaultsName>();

/// The names of files, as they become known.
#[derive(Debug)]
pub(crate) struct Files {
    left: Elements,
    /// Of these the kernel half has left a name, or is about to.
    named: MapHandle,
    names: HashMap<[u64; 4], Rc<File>>,
    /// The memory without a file and a name that was asked for last.
    last: Option<([u64; 4], Rc<File>)>,
    /// They were taken out of `named` when it was last cleared; what still comes may be about them.
    taken: Vec<[u64; 4]>,
}

/// With more names than this the oldest are forgotten: the kernel half has a place for 65,536.
const NAMES_KEPT: usize = 40_000;

impl Files {
    /// Of an object that was configured to know what is mapped where a thread faults.
    ///
    /// # Errors
    /// When the names cannot be read.
    pub(crate) fn open(attached: &Attached) -> Result<Self> {
        Ok(Self {
            left: Elements::open(attached, maps::NAMES)?,
            named: attached.handle(maps::NAMED)?,
            names: HashMap::new(),
            last: None,
            taken: vec![],
        })
    }

    /// Takes out the names that the kernel half has left.
    pub(super) fn fetch_names(&mut self) -> Result<()> {
        let is_ready = |name: &[u8]| pod_read_unaligned::<FaultsName>(name).flags & abi::NAME_READY != 0;
        let names = self.left.take(is_ready).context("cannot read the names of files")?;
        for record in names.chunks_exact(RECORD) {
            let (key, name) = record.split_at(size_of::<FaultsGroupKey>());
            let key: FaultsGroupKey = pod_read_unaligned(key);
            let name: FaultsName = pod_read_unaligned(name);
            let file = file(&key, Some(text(area(&key), &name)));
            self.names.insert(key.word, Rc::new(file));
        }
        Ok(())
    }

    /// Whether there are so many names that some should be forgotten.
    pub(super) fn are_full(&self) -> bool {
        self.names.len() > NAMES_KEPT
    }

    /// Forgets names that were last looked up before a turn, but for those in use. The kernel half knows that it has to
    /// tell them again.
    pub(super) fn forget(&mut self, stale: u64, in_use: &HashSet<[u64; 4]>) -> Result<()> {
        for key in std::mem::take(&mut self.taken) {
            if self.named.lookup(bytes_of(&key), MapFlags::ANY).is_ok_and(|named| named.is_none()) {
                self.names.remove(&key);
            }
        }
        // All of them first: after a key that was deleted comes the first one again.
        let keys: Vec<_> = self.named.keys().collect();
        for key in keys {
            let word: [u64; 4] = pod_read_unaligned(&key);
            let turn = self.named.lookup(&key, MapFlags::ANY).context("cannot read the names of files")?;
            let is_stale = turn.is_some_and(|turn| pod_read_unaligned::<u64>(&turn) < stale);
            if is_stale && !in_use.contains(&word) {
                // If it is used at this moment, the name was told again.
                let _ = self.named.delete(&key);
                self.taken.push(word);
            }
        }
        self.names.shrink_to(self.names.len() * 2);
        Ok(())
    }

    /// What is mapped where a fault was; nothing if it was not seen.
    pub(crate) fn known(&mut self, key: &FaultsGroupKey) -> Result<Option<Rc<File>>> {
        if key.word[0] == 0 { Ok(None) } else { self.file(key).map(Some) }
    }

    /// What a key means. A program that is writing its name down may have been preempted: that is waited for.
    ///
    /// # Errors
    /// When the names cannot be read.
    pub(super) fn file(&mut self, key: &FaultsGroupKey) -> Result<Rc<File>> {
        // Most are known: a clock costs as much as all else here.
        if let Some(file) = self.names.get(&key.word) {
            return Ok(Rc::clone(file));
        }
        if !has_inode(key) {
            if let Some((_, file)) = self.last.as_ref().filter(|(word, _)| *word == key.word) {
                return Ok(Rc::clone(file));
            }
            let file = Rc::new(file(key, None));
            self.last = Some((key.word, Rc::clone(&file)));
            return Ok(file);
        }
        let began = Instant::now();
        while !self.names.contains_key(&key.word) && began.elapsed() < NAME_COMES {
            let is_named = self.named.lookup(bytes_of(key), MapFlags::ANY);
            if is_named.context("cannot read the names of files")?.is_none() {
                break;
            }
            self.fetch_names()?;
            if !self.names.contains_key(&key.word) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(self.names.get(&key.word).map_or_else(|| Rc::new(file(key, None)), Rc::clone))
    }
}

/// The sort of memory.
fn area(key: &FaultsGroupKey) -> u32 {
    (key.word[0] >> 32) as u32
}

/// Told by the inode's address: its number may be 0, as that of the first System V segment is.
fn has_inode(key: &FaultsGroupKey) -> bool {
    key.word[3] != 0
}

/// The number of what is mapped there as /proc/PID/maps has it: 0 for memory without a file. Nothing if it was not seen, is
/// shared memory that was given no name, whose inode the kernel half does not tell, or may be a file of an overlay: that
/// list had the file beneath it up to 6.7 (3efdc78fdc21), and another number.
pub(crate) fn inode_number(key: &FaultsGroupKey) -> Option<u64> {
    static SHOWS_FILES_BENEATH: LazyLock<bool> = LazyLock::new(|| system::kernel_version() < (6, 8));
    match area(key) {
        abi::AREA_ANON | abi::AREA_HEAP | abi::AREA_STACK | abi::AREA_SPECIAL => Some(0),
        abi::AREA_FILE if device(key).0 == 0 && *SHOWS_FILES_BENEATH => None,
        _ => has_inode(key).then_some(key.word[1]),
    }
}

/// The number of the device of a file, in the kernel's own encoding; what is not on a disk has no major one.
fn device(key: &FaultsGroupKey) -> (u32, u32) {
    let device = key.word[0] as u32;
    (device >> 20, device & 0xf_ffff)
}

/// The same in the words of all mappings.
fn kind(area: u32) -> Kind {
    match area {
        abi::AREA_FILE => Kind::File,
        abi::AREA_ANON => Kind::Anon,
        abi::AREA_HEAP => Kind::Heap,
        abi::AREA_STACK => Kind::Stack,
        abi::AREA_SHMEM => Kind::Shmem,
        abi::AREA_HUGETLB => Kind::Hugetlb,
        abi::AREA_OBJECT => Kind::Object,
        _ => Kind::Special,
    }
}

fn file(key: &FaultsGroupKey, name: Option<String>) -> File {
    let (major, minor) = device(key);
    let area = area(key);
    let is_inode = has_inode(key);
    let unnamed = kind(area).name("");
    let path = match (area, name) {
        (abi::AREA_OTHER, Some(comm)) => format!("(other files of {comm} [{}])", key.word[1]).into(),
        (abi::AREA_OTHERS, _) => format!("(other files of user {})", key.word[1]).into(),
        (abi::AREA_OTHER, None) => format!("(other files of [{}])", key.word[1]).into(),
        (_, Some(name)) => name.into(),
        (_, None) if !is_inode && !unnamed.is_empty() => unnamed,
        // There was no room for its name.
        (_, None) => format!("[inode {major}:{minor} {}]", key.word[1]).into(),
    };
    File {
        path,
        device: is_inode.then(|| format!("{major}:{minor}").into()),
        inode: is_inode.then_some(key.word[1]),
        // Of a process, what tells it from others with its id.
        generation: if area == abi::AREA_OTHER { (key.word[2] >> 10) as u32 } else { key.word[2] as u32 },
    }
}

/// A name as it is shown: that of a file is its path, that of memory follows its sort.
pub(super) fn text(area: u32, name: &FaultsName) -> String {
    let text = &name.text[..(name.length as usize).min(name.text.len())];
    if area == abi::AREA_OTHER {
        let comm = text.split(|&b| b == 0).next().unwrap_or_default();
        return String::from_utf8_lossy(comm).into_owned();
    }
    let mut parts: Vec<_> = text.split(|&b| b == 0).map(String::from_utf8_lossy).collect();
    // Each ends in a NUL, so what follows the last one is nothing.
    parts.pop();
    if area != abi::AREA_FILE {
        let (own, system) = (parts.first().cloned(), parts.get(1).cloned());
        let (own, system) = (own.unwrap_or_default(), system.unwrap_or_default());
        return match kind(area) {
            // As /proc/PID/maps has it.
            Kind::Object if system == "anon_inodefs" => format!("anon_inode:{own}"),
            Kind::Object => format!("{system}:{own}"),
            kind => kind.name(&own).to_string(),
        };
    }
    let mut path = String::from(if name.flags & abi::NAME_CUT != 0 { "…" } else { "" });
    for part in parts.iter().rev() {
        path.push('/');
        path.push_str(part);
    }
    if parts.is_empty() {
        path.push('/');
    }
    if name.flags & abi::NAME_DELETED != 0 {
        path.push_str(" (deleted)");
    }
    path
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn name(parts: &[&[u8]], flags: u32) -> FaultsName {
        let text: Vec<u8> = parts.iter().flat_map(|part| [part, &b"\0"[..]].concat()).collect();
        let mut name = FaultsName { flags, length: text.len() as u32, ..FaultsName::zeroed() };
        name.text[..text.len()].copy_from_slice(&text);
        name
    }

    #[test]
    fn names_become_paths() {
        let file = |parts: &[&[u8]], flags| text(abi::AREA_FILE, &name(parts, flags));
        assert_eq!(file(&[b"libc.so.6", b"lib", b"usr"], 0), "/usr/lib/libc.so.6");
        assert_eq!(file(&[b"a\n\xff", b"tmp"], abi::NAME_DELETED), "/tmp/a\n\u{fffd} (deleted)");
        assert_eq!(file(&[b"c", b"b"], abi::NAME_CUT), "…/b/c");
        assert_eq!(file(&[], 0), "/");
        let memory = |area, parts: &[&[u8]]| text(area, &name(parts, 0));
        assert_eq!(memory(abi::AREA_SHMEM, &[b"memfd:x y", b"tmpfs"]), "[shmem] memfd:x y");
        assert_eq!(memory(abi::AREA_OBJECT, &[b"[perf_event]", b"anon_inodefs"]), "anon_inode:[perf_event]");
        assert_eq!(memory(abi::AREA_OBJECT, &[b"secretmem", b"secretmem"]), "secretmem:secretmem");
    }

    #[test]
    fn keys_without_names_are_told_apart() {
        let key = |area: u32, device: u64, inode, address| FaultsGroupKey {
            word: [u64::from(area) << 32 | device, inode, 7, address],
        };
        assert_eq!(&*file(&key(abi::AREA_HEAP, 0, 0, 0), None).path, "[heap]");
        assert_eq!(file(&key(abi::AREA_SHMEM, 0, 0, 0), None).inode, None);
        let lost = file(&key(abi::AREA_FILE, 8 << 20 | 3, 42, 0xffff_8880), None);
        assert_eq!(
            (&*lost.path, lost.device.as_deref(), lost.inode),
            ("[inode 8:3 42]", Some("8:3"), Some(42))
        );
        // The first System V segment's number is 0.
        assert_eq!(inode_number(&key(abi::AREA_SHMEM, 0, 0, 0)), None);
        assert_eq!(inode_number(&key(abi::AREA_HEAP, 0, 0, 0)), Some(0));
        assert_eq!(inode_number(&FaultsGroupKey::zeroed()), None);
        assert_eq!(inode_number(&key(abi::AREA_FILE, 8 << 20, 42, 0xffff_8880)), Some(42));
        let first = file(&key(abi::AREA_SHMEM, 1, 0, 0xffff_8880), Some("[shmem] SYSV00000000".into()));
        assert_eq!(
            (&*first.path, first.device.as_deref(), first.inode),
            ("[shmem] SYSV00000000", Some("0:1"), Some(0))
        );
    }
}
