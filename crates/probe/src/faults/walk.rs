//! How page tables are walked on this machine: found out by walking to a page of our own.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};
use libbpf_rs::{Iter, Link, OpenObject};

use crate::abi::maps::walk as maps;
use crate::abi::{FaultsWalk, FaultsWalkAsk};
use crate::compiled::Compiled;
use crate::variant::{self, Recipe, Variant};

const FIND: &str = "walk_find";
const VARIANTS: &[Variant] = &[Variant { name: "walk", ways: &[&[FIND]] }];

const PAGE: usize = 4096;

/// The page may be moved between the two looks at it: how often that is put up with.
const ATTEMPTS: usize = 3;

/// How to walk.
///
/// # Errors
/// Why it could not be found out: a kernel that does not show where pages are, or keeps its tables elsewhere (Xen).
pub(super) fn find() -> Result<FaultsWalk> {
    let mask = address_mask().context("/proc/cpuinfo does not show the width of physical addresses")?;
    let memory = vec![1u8; 2 * PAGE];
    let addr = (memory.as_ptr() as usize).next_multiple_of(PAGE) as u64;
    for _ in 0..ATTEMPTS {
        let frame = frame(addr)?;
        // NUMA balancing may have hidden the page: whoever reads it has it back.
        let read = || black_box(black_box(&memory)[addr as usize - memory.as_ptr() as usize]);
        if let Some(walk) = walk_to(FaultsWalkAsk { addr, frame, mask, places: memory_gib() }, read)? {
            return Ok(walk);
        }
    }
    bail!("a page of trapline's own was not found in the page tables")
}

/// Tries all places where the kernel may map physical memory.
fn walk_to(ask: FaultsWalkAsk, read: impl FnOnce() -> u8) -> Result<Option<FaultsWalk>> {
    let (object, _) = variant::load(&Search(ask), &[FIND], &[], &[])?;
    let program = object.progs_mut().find(|program| program.name() == FIND);
    let link: Link = program.context("the BPF object has no such program")?.attach()?;
    let mut bytes = Vec::new();
    let mut walked = Iter::new(&link)?;
    read();
    walked.read_to_end(&mut bytes).context("cannot walk page tables")?;
    Ok(bytes.get(..size_of::<FaultsWalk>()).map(pod_read_unaligned))
}

/// The search, as a kernel half.
pub(crate) struct Search(FaultsWalkAsk);

impl Search {
    /// For a look at its program, which is not run.
    pub(crate) fn nowhere() -> Self {
        Self(FaultsWalkAsk::zeroed())
    }
}

impl Recipe for Search {
    fn object(&self) -> Compiled {
        compiled!("faults_walk")
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        for mut map in object.maps_mut().filter(|map| map.name() == maps::ASK.0) {
            map.set_initial_value(bytes_of(&self.0))?;
        }
        Ok(())
    }
}

/// The number of the page of physical memory that is mapped at an address of ours.
fn frame(addr: u64) -> Result<u64> {
    let mut entry = [0; 8];
    let pagemap = File::open("/proc/self/pagemap").context("cannot open /proc/self/pagemap")?;
    pagemap.read_exact_at(&mut entry, addr / PAGE as u64 * 8).context("cannot read /proc/self/pagemap")?;
    let frame = u64::from_ne_bytes(entry) & ((1 << 55) - 1);
    ensure!(frame != 0, "/proc/self/pagemap hides page frames: that needs CAP_SYS_ADMIN");
    Ok(frame)
}

/// The bits of an entry that are a physical address. Those above have other meanings, encrypted memory for example.
fn address_mask() -> Option<u64> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = cpuinfo.lines().find(|line| line.starts_with("address sizes"))?;
    let bits: u32 = line.split_once(':')?.1.split_whitespace().next()?.parse().ok()?;
    (32..=52).contains(&bits).then(|| ((1u64 << bits) - 1) & !(PAGE as u64 - 1))
}

/// Where physical memory ends, in GiB, rounded up.
fn memory_gib() -> u64 {
    let iomem = fs::read_to_string("/proc/iomem").unwrap_or_default();
    let ends = iomem
        .lines()
        .filter(|line| line.ends_with(": System RAM"))
        .filter_map(|line| u64::from_str_radix(line.split_once('-')?.1.split_once(' ')?.0, 16).ok());
    // In a container it may be hidden: then as far as most machines go.
    match ends.max().unwrap_or(0) {
        0 => 4096,
        end => (end >> 30) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The walk is right if it ends at the page that the kernel itself names; that is what `find` goes by.
    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn the_way_to_a_page_of_our_own_is_found() {
        let walk = find().unwrap();
        assert!(walk.levels == 4 || walk.levels == 5);
        assert_eq!(walk.base & ((1 << 30) - 1), 0);
    }
}
