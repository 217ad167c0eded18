//! What memory is at an address, beside `/proc/self/maps`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};
use fastrand::Rng;
use libbpf_rs::{MapCore, MapFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags as Map, ProtFlags, mmap, mmap_anonymous};
use tempfile::NamedTempFile;

use super::load;
use crate::abi::maps::{MapName, faults as maps};
use crate::abi::{self, FaultsConfig, FaultsGroupKey, FaultsName};
use crate::faults::files;
use crate::prog_run::resize;
use crate::variant::Attached;

const OUT: MapName<'static> = MapName(".bss.test_out");
const PAGE: usize = 4096;

/// A line of `/proc/self/maps`.
#[derive(Debug, Clone, PartialEq)]
struct Area {
    start: u64,
    end: u64,
    offset: u64,
    device: u64,
    inode: u64,
    name: String,
}

fn areas() -> Vec<Area> {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let line = |line: &str| {
        let mut words = line.splitn(6, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (start, end) = next().split_once('-').unwrap();
        let (_, offset, (major, minor), inode) = (next(), next(), next().split_once(':').unwrap(), next());
        Area {
            start: hex(start),
            end: hex(end),
            offset: hex(offset),
            device: hex(major) << 20 | hex(minor),
            inode: inode.parse().unwrap(),
            name: next().trim_start().to_owned(),
        }
    };
    fs::read_to_string("/proc/self/maps").unwrap().lines().map(line).collect()
}

/// What the kernel half finds at an address: the group's key, the place in the file, and the area.
fn seen(half: &Attached, addr: u64) -> Option<(FaultsGroupKey, u64, [u64; 2], u32)> {
    let found = half.run("test_group_key", &[addr]) != 0;
    let out: [u64; 8] = half.read(OUT).unwrap();
    found.then(|| {
        (FaultsGroupKey { word: [out[0], out[1], out[2], out[3]] }, out[4], [out[5], out[6]], out[7] as u32)
    })
}

/// Whether what is found at an address is what the list has there, if it has anything.
fn check(half: &Attached, addr: u64, area: Option<&Area>) -> Result<(), String> {
    let Some(area) = area else {
        return seen(half, addr).map_or(Ok(()), |found| Err(format!("{found:x?} where nothing is")));
    };
    let Some((key, at, bounds, memory)) = seen(half, addr) else { return Err("nothing".into()) };
    let kind = (key.word[0] >> 32) as u32;
    let (kinds, memories): (&[u32], &[u32]) = match &*area.name {
        "" => (&[abi::AREA_ANON], &[abi::MEMORY_ANON]),
        "[heap]" => (&[abi::AREA_HEAP], &[abi::MEMORY_ANON]),
        "[stack]" => (&[abi::AREA_STACK], &[abi::MEMORY_ANON]),
        "/dev/zero (deleted)" => (&[abi::AREA_SHMEM], &[abi::MEMORY_SHMEM]),
        name if name.starts_with("/memfd:") => (&[abi::AREA_SHMEM], &[abi::MEMORY_SHMEM]),
        // The kernel's types, which libbpf maps.
        name if name.starts_with("/sys/") => (&[abi::AREA_FILE], &[abi::MEMORY_FILE, abi::MEMORY_DEVICE]),
        // Where files are on tmpfs, their memory is.
        name if name.starts_with('/') => (&[abi::AREA_FILE], &[abi::MEMORY_FILE, abi::MEMORY_SHMEM]),
        name if name.starts_with("anon_inode:") => (&[abi::AREA_OBJECT], &[abi::MEMORY_DEVICE]),
        _ => (&[abi::AREA_SPECIAL], &[abi::MEMORY_DEVICE]),
    };
    let has_name = area.inode != 0 && !area.name.starts_with("/dev/zero");
    let inode = if has_name { (area.device, area.inode) } else { (0, 0) };
    let expected = (true, true, [area.start, area.end], inode);
    let found =
        (kinds.contains(&kind), memories.contains(&memory), bounds, (key.word[0] & 0xffff_ffff, key.word[1]));
    if found != expected {
        return Err(format!("{found:x?}, of kind {kind}, memory {memory}"));
    }
    if !has_name {
        return Ok(());
    }
    if at != addr - area.start + area.offset {
        return Err(format!("the place {at:#x} in the file"));
    }
    let names = half.handle(maps::NAMES).unwrap();
    let name = names.lookup(bytes_of(&key), MapFlags::ANY).unwrap().ok_or("no name")?;
    let name = files::text(kind, &pod_read_unaligned::<FaultsName>(&name));
    let shown = if kind == abi::AREA_SHMEM { name.replace("[shmem] ", "/") + " (deleted)" } else { name };
    if shown == area.name { Ok(()) } else { Err(format!("the name {shown}")) }
}

/// The same by a new list. Other tests of this process map and unmap memory: what differs counts if the list has not
/// changed meanwhile.
fn check_now(half: &Attached, addr: u64) -> Result<(), String> {
    let listed = || areas().into_iter().find(|area| (area.start..area.end).contains(&addr));
    loop {
        let before = listed();
        let checked = check(half, addr, before.as_ref());
        if checked.is_ok() || before == listed() {
            return checked.map_err(|found| format!("at {addr:#x}, {before:x?}: {found}"));
        }
    }
}

/// Memory of every kind, in so many areas that the kernel's tree of them is several nodes deep. It stays; one of the
/// files is there as long as what this gives.
#[allow(unsafe_code)]
fn map_all_kinds() -> NamedTempFile {
    let length = NonZeroUsize::new(4 * PAGE).unwrap();
    let read = ProtFlags::PROT_READ;
    for n in 0..600 {
        // Neighbours differ, or the kernel would make one area of them.
        let allowed = if n % 2 == 0 { read } else { read | ProtFlags::PROT_WRITE };
        // SAFETY: new memory, which nothing else uses.
        unsafe { mmap_anonymous(None, length, allowed, Map::MAP_PRIVATE) }.unwrap();
    }
    // SAFETY: as before.
    unsafe { mmap_anonymous(None, length, read, Map::MAP_SHARED) }.unwrap();
    let memory = File::from(memfd_create(c"of the test", MFdFlags::empty()).unwrap());
    let kept = NamedTempFile::with_prefix("a name ").unwrap();
    let deleted = tempfile::tempfile().unwrap();
    for mut file in [memory, kept.as_file().try_clone().unwrap(), deleted] {
        file.write_all(&[1; 8 * PAGE]).unwrap();
        // SAFETY: as before; the file is not truncated.
        unsafe { mmap(None, length, read, Map::MAP_SHARED, file.as_fd(), 2 * PAGE as i64) }.unwrap();
    }
    kept
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn what_is_mapped_at_an_address_is_what_the_kernel_lists_there() {
    let _kept = map_all_kinds();
    let config = FaultsConfig { group: abi::GROUP_FILE, groups: 1 << 20, ..FaultsConfig::zeroed() };
    let half = load(config, |object| resize(object, maps::GROUPS, 16));
    let mut random = Rng::with_seed(5);
    let mut kinds = BTreeSet::new();
    let before = areas();
    for (n, area) in before.iter().enumerate().filter(|(_, area)| area.name != "[vsyscall]") {
        for addr in [area.start, area.end - 1, random.u64(area.start..area.end)] {
            assert_eq!(check(&half, addr, Some(area)).or_else(|_| check_now(&half, addr)), Ok(()));
        }
        kinds.insert(seen(&half, area.start).map(|(key, ..)| (key.word[0] >> 32) as u32));
        let hole = area.end..before.get(n + 1).map_or(area.end, |next| next.start);
        if !hole.is_empty() {
            let addr = random.u64(hole);
            assert_eq!(check(&half, addr, None).or_else(|_| check_now(&half, addr)), Ok(()));
        }
    }
    let of_all =
        [abi::AREA_FILE, abi::AREA_ANON, abi::AREA_HEAP, abi::AREA_STACK, abi::AREA_SHMEM, abi::AREA_SPECIAL];
    for kind in of_all {
        assert!(kinds.contains(&Some(kind)), "no area of kind {kind} was looked at: {kinds:?}");
    }
}

/// What is known of an area holds as long as the area is there.
#[test]
#[ignore = "needs root: `make test` runs it"]
#[allow(unsafe_code)]
fn an_area_in_the_place_of_another_is_seen() {
    let config = FaultsConfig { group: abi::GROUP_FILE, groups: 1 << 20, ..FaultsConfig::zeroed() };
    let half = load(config, |object| resize(object, maps::GROUPS, 16));
    let (length, read) = (NonZeroUsize::new(4 * PAGE).unwrap(), ProtFlags::PROT_READ);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[1; 8 * PAGE]).unwrap();
    // SAFETY: new memory, which nothing else uses.
    let place = unsafe { mmap_anonymous(None, length, read, Map::MAP_PRIVATE) }.unwrap();
    let (place, addr) = (place.addr(), place.addr().get() as u64 + 5);
    let fixed = |flags| flags | Map::MAP_FIXED;
    for _ in 0..3 {
        // SAFETY: in the place of memory that is this test's own.
        unsafe { mmap_anonymous(Some(place), length, read, fixed(Map::MAP_PRIVATE)) }.unwrap();
        let (key, at, ..) = seen(&half, addr).unwrap();
        assert_eq!(((key.word[0] >> 32) as u32, at), (abi::AREA_ANON, abi::NONE));
        // SAFETY: as before; the file is not truncated.
        unsafe { mmap(Some(place), length, read, fixed(Map::MAP_SHARED), file.as_fd(), 2 * PAGE as i64) }
            .unwrap();
        for _ in 0..2 {
            let (key, at, ..) = seen(&half, addr).unwrap();
            assert_eq!(((key.word[0] >> 32) as u32, at), (abi::AREA_FILE, 2 * PAGE as u64 + 5));
        }
    }
}
