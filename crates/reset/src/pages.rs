//! A set of pages: a bit each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The size of a page, bytes.
pub const PAGE: u64 = 4096;
/// Pages that share an entry: 2 MiB of memory.
const TOGETHER: u64 = 512;

/// Pages of one address space.
#[derive(Debug, Clone, Default)]
pub struct Pages(HashMap<u64, [u64; 8]>);

impl Pages {
    /// Adds the page of an address. Tells whether it is new.
    pub fn insert(&mut self, addr: u64) -> bool {
        let page = addr / PAGE;
        let (word, bit) = ((page % TOGETHER / 64) as usize, 1 << (page % 64));
        let words = self.0.entry(page / TOGETHER).or_default();
        let new = words[word] & bit == 0;
        words[word] |= bit;
        new
    }

    /// Forgets the pages from `start` to `end`.
    pub fn forget(&mut self, start: u64, end: u64) {
        let (first, last) = (start / PAGE, end / PAGE);
        let forget = |at: u64, words: &mut [u64; 8]| {
            for page in (at * TOGETHER).max(first)..((at + 1) * TOGETHER).min(last) {
                words[(page % TOGETHER / 64) as usize] &= !(1 << (page % 64));
            }
            words.iter().all(|&word| word == 0)
        };
        let entries = first / TOGETHER..last.div_ceil(TOGETHER);
        if entries.end - entries.start > self.0.len() as u64 {
            self.0.retain(|&at, words| !forget(at, words));
            return;
        }
        for at in entries {
            if let Entry::Occupied(mut entry) = self.0.entry(at)
                && forget(at, entry.get_mut())
            {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_new_once_and_again_when_forgotten() {
        let mut pages = Pages::default();
        assert!(pages.insert(0x7fff_1234_5678));
        assert!(!pages.insert(0x7fff_1234_5fff));
        pages.forget(0x7fff_1234_5000, 0x7fff_1234_6000);
        assert!(pages.0.is_empty());
        assert!(pages.insert(0x7fff_1234_5678));
        assert!(pages.insert(0x7fff_1234_6000));
        pages.forget(0x7fff_1234_6000, 0x7fff_1234_7000);
        assert!(!pages.insert(0x7fff_1234_5000));
        assert!(pages.insert(0x7fff_1234_6000));
        pages.forget(0, u64::MAX);
        assert!(pages.0.is_empty());
    }
}
