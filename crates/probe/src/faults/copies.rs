//! Stacks that the kernel half has copied because a table was not there yet. They are walked when it is.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem::size_of;
use std::rc::Rc;

use bytemuck::pod_read_unaligned;
use trapline_symbols::unwind::Copy;

use crate::abi::{UnwindCopy, UnwindMiss};

/// Memory for them, bytes. Of those that come when it is full only where the fault was is kept, of a
/// quarter as many.
pub(super) const MOST: usize = 24 << 20;
/// Beside its stack each takes this, at most.
const HEAD: usize = 256;

/// What the kernel half tells of tables.
#[derive(Debug)]
pub(super) enum Told {
    /// A file has none.
    Miss(UnwindMiss),
    /// Its stack was copied, under that key.
    Copied(u64, Copy),
}

impl Told {
    /// From a record of the ring: their lengths tell them apart.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() <= size_of::<UnwindMiss>() {
            let miss = bytes.first_chunk::<{ size_of::<UnwindMiss>() }>()?;
            return Some(Self::Miss(pod_read_unaligned(miss)));
        }
        let (head, stack) = bytes.split_at_checked(size_of::<UnwindCopy>())?;
        let UnwindCopy { key, ip, sp, bp } = pod_read_unaligned(head);
        Some(Self::Copied(key, Copy { ip, sp, bp, stack: stack.to_vec() }))
    }
}

/// One of them, and what all of them take.
#[derive(Debug)]
pub(crate) struct Copied {
    copy: Copy,
    held: Rc<Cell<usize>>,
}

impl Copied {
    fn bytes(copy: &Copy) -> usize {
        HEAD + copy.stack.len()
    }

    pub(crate) fn copy(&self) -> &Copy {
        &self.copy
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.held.set(self.held.get().saturating_sub(Self::bytes(&self.copy)));
    }
}

/// Those that no row was met with yet.
#[derive(Debug, Default)]
pub(super) struct Copies {
    copies: HashMap<u64, Copied>,
    held: Rc<Cell<usize>>,
}

impl Copies {
    pub(super) fn add(&mut self, key: u64, mut copy: Copy) {
        if self.held.get() + Copied::bytes(&copy) > MOST {
            copy.stack = vec![];
        }
        if self.held.get() > MOST + MOST / 4 {
            return;
        }
        self.held.set(self.held.get() + Copied::bytes(&copy));
        self.copies.insert(key, Copied { copy, held: Rc::clone(&self.held) });
    }

    pub(super) fn has(&self, key: u64) -> bool {
        self.copies.contains_key(&key)
    }

    pub(super) fn take(&mut self, key: u64) -> Option<Copied> {
        self.copies.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_take_no_more_memory_than_there_is_for_them() {
        let mut copies = Copies::default();
        let copy = || Copy { ip: 1, sp: 2, bp: 3, stack: vec![7; MOST / 4] };
        (0..5).for_each(|key| copies.add(key, copy()));
        let lengths: Vec<_> = (0..5).map(|key| copies.copies[&key].copy.stack.len()).collect();
        assert_eq!(lengths, [MOST / 4, MOST / 4, MOST / 4, 0, 0]);
        drop(copies.take(0));
        copies.add(5, copy());
        assert_eq!(copies.take(5).unwrap().copy(), &copy());
        (1..5).for_each(|key| drop(copies.take(key)));
        assert_eq!(copies.held.get(), 0);
    }

    #[test]
    fn what_the_kernel_half_tells_is_known_by_its_length() {
        let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
        let miss = Told::parse(&words(&[5, 6, 0x1000, 7]));
        assert!(matches!(miss, Some(Told::Miss(UnwindMiss { addr: 0x1000, pid: 7, .. }))), "{miss:?}");
        let copied = Told::parse(&words(&[9, 1, 2, 3, 4, 5]));
        let Some(Told::Copied(9, copy)) = copied else { panic!("{copied:?}") };
        assert_eq!((copy.ip, copy.sp, copy.bp, copy.stack), (1, 2, 3, words(&[4, 5])));
    }
}
