//! What a page table says of an address, and what its entry means.

use bytemuck::Zeroable;
use fastrand::Rng;

use super::load;
use crate::abi::maps::MapName;
use crate::abi::{self, FaultsConfig};

const TABLES: MapName<'static> = MapName(".bss.tables");
const OUT: MapName<'static> = MapName(".bss.test_out");

/// Bits of an entry, as the processor's manual has them (volume 3, chapter 4).
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const ACCESSED_DIRTY: u64 = 3 << 5;
const PAGE_SIZE: u64 = 1 << 7;
/// And as arch/x86/include/asm/pgtable_types.h does.
const PROTNONE: u64 = 1 << 8;
const UFFD_WP: u64 = 1 << 10;

/// Reads at most 52 bits of a physical address.
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;

type Table = [u64; 512];

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_walk_ends_at_the_entry_that_the_processor_would_use() {
    let half = load(FaultsConfig::zeroed(), |_| ());
    let mut random = Rng::with_seed(3);
    for run in 0..3000 {
        let levels = random.u64(4..=5);
        let addr = random.u64(..) >> 8;
        let ends_at = random.u64(1..=levels);
        // Where there is no way on, there is anything.
        let mut tables = vec![[0; 512]; 16];
        tables.iter_mut().flatten().for_each(|entry| *entry = random.u64(..));
        let mut order: Vec<u64> = (0..16).collect();
        random.shuffle(&mut order);
        // Memory encryption has bits of its own above the address.
        let mask = ADDRESS & ((1 << random.u32(40..=52)) - 1);
        let mut last = 0;
        for level in (ends_at..=levels).rev() {
            let junk = random.u64(..) & !mask;
            last = match level {
                1 if level == ends_at => random.u64(..),
                // Huge pages are of 2 MiB and 1 GiB.
                2 | 3 if level == ends_at && random.bool() => random.u64(..) | PRESENT | PAGE_SIZE,
                _ if level == ends_at => random.u64(..) & !PRESENT,
                2 | 3 => order[level as usize - 1] << 12 | (junk | PRESENT) & !PAGE_SIZE,
                _ => order[level as usize - 1] << 12 | junk | PRESENT,
            };
            let index = addr >> (12 + 9 * (level - 1)) & 511;
            tables[order[level as usize] as usize][index as usize] = last;
        }
        let tables: [Table; 16] = tables.try_into().unwrap();
        half.write(TABLES, &tables).unwrap();
        let level = half.run("test_walk", &[order[levels as usize], addr, mask, levels]);
        let out: [u64; 8] = half.read(OUT).unwrap();
        assert_eq!((u64::from(level), out[1]), (ends_at, last), "run {run}: {addr:#x}, {levels} levels");
    }
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn an_entry_means_what_the_kernel_wrote_it_for() {
    let half = load(FaultsConfig::zeroed(), |_| ());
    let mut random = Rng::with_seed(4);
    let is = |entry: u64, write: bool, before: u32, also: u32| {
        let facts = half.run("test_before", &[entry, write.into()]);
        assert_eq!(facts, before << 8 | also << 16, "{entry:#x}, write: {write}");
    };
    // As __swp_entry() of arch/x86/include/asm/pgtable_64.h; bits 1 to 3 are flags of its page.
    let swapped =
        |random: &mut Rng, kind: u64, offset: u64| kind << 59 | !offset << 14 >> 5 | random.u64(0..8) << 1;
    for write in [false, true] {
        is(0, write, abi::BEFORE_ABSENT, 0);
        is(ACCESSED_DIRTY, write, abi::BEFORE_ABSENT, 0);
        for _ in 0..500 {
            let any = random.u64(..) & !(PRESENT | PROTNONE | UFFD_WP | PAGE_SIZE);
            let guarded = [0, UFFD_WP][random.usize(0..2)];
            let also = if guarded == 0 { 0 } else { abi::ALSO_GUARDED };
            let page = any | guarded | PRESENT;
            is(page | WRITABLE, write, abi::BEFORE_THERE, also);
            let kept_from = if write { abi::BEFORE_READ_ONLY } else { abi::BEFORE_THERE };
            is(page & !WRITABLE, write, kept_from, also);
            is(any | guarded | PROTNONE, write, abi::BEFORE_HIDDEN, also);
            // A huge page that is being split is for a moment neither present nor hidden.
            is(any | PAGE_SIZE, write, abi::BEFORE_MOVING, 0);
            let page = random.u64(8..1 << 40);
            let device = random.u64(0..22);
            is(swapped(&mut random, device, page), write, abi::BEFORE_SWAPPED, 0);
            let special = random.u64(22..32);
            is(swapped(&mut random, special, page), write, abi::BEFORE_MOVING, 0);
            let marker = random.u64(0..8);
            is(swapped(&mut random, special, marker), write, abi::BEFORE_ABSENT, 0);
        }
    }
}
