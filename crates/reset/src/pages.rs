//! A set of pages, by what they are of: a bit each.

use std::collections::HashMap;

/// The size of a page, bytes.
pub const PAGE: u64 = 4096;
/// Pages that share an entry: 2 MiB of memory.
const TOGETHER: u64 = 512;

/// An inode, and the pages of those together that are its.
type OfFile = (Option<u64>, [u64; 8]);

/// Pages of one address space, each with the inode of what was mapped there when it was added, if that is known.
#[derive(Debug, Clone, Default)]
pub struct Pages(HashMap<u64, Vec<OfFile>>);

impl Pages {
    /// Adds the page of an address. Tells whether it is new, or was another file's.
    pub fn insert(&mut self, addr: u64, inode: Option<u64>) -> bool {
        let page = addr / PAGE;
        let (word, bit) = ((page % TOGETHER / 64) as usize, 1 << (page % 64));
        let sets = self.0.entry(page / TOGETHER).or_default();
        if let Some(at) = sets.iter().position(|(_, words)| words[word] & bit != 0) {
            let (before, words) = &mut sets[at];
            if *before == inode || before.is_none() || inode.is_none() {
                return false;
            }
            words[word] &= !bit;
            if words.iter().all(|&word| word == 0) {
                sets.swap_remove(at);
            }
        }
        match sets.iter_mut().find(|(of, _)| *of == inode) {
            Some((_, words)) => words[word] |= bit,
            None => {
                let mut words = [0; 8];
                words[word] = bit;
                sets.push((inode, words));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_new_once_and_again_when_it_is_another_files() {
        let mut pages = Pages::default();
        assert!(pages.insert(0x7fff_1234_5678, Some(0)));
        assert!(!pages.insert(0x7fff_1234_5fff, Some(0)));
        assert!(pages.insert(0x7fff_1234_6000, Some(0)));
        assert!(pages.insert(0x7fff_1234_5678, Some(7)) && !pages.insert(0x7fff_1234_5678, Some(7)));
        assert!(!pages.insert(0x7fff_1234_6000, Some(0)));
        assert!(pages.insert(0x7fff_1234_5678, Some(0)), "the file has gone again");
        // What is not known may be the same.
        assert!(!pages.insert(0x7fff_1234_5678, None));
        assert!(pages.insert(0x8000, None) && !pages.insert(0x8000, Some(7)));
    }

    #[test]
    fn files_that_come_and_go_leave_nothing() {
        let mut pages = Pages::default();
        assert!((0..1000).all(|inode| pages.insert(0x7000, Some(inode))));
        assert_eq!(pages.0.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    }
}
