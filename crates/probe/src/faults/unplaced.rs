//! Stacks that have no place yet among those that wait for their symbols. The kernel half keeps their chains, and they are tried
//! again each time that rows are read, also when their process has ended by then.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use trapline_symbols::Image;

/// One of them.
#[derive(Debug)]
struct Stack {
    image: Image,
    comm: Rc<str>,
    faults: u64,
}

/// All of them, by the keys of the kernel half.
#[derive(Debug, Default)]
pub(super) struct Unplaced {
    stacks: HashMap<[u64; 4], Stack>,
    /// Faults of those that never got a place.
    past: u64,
}

impl Unplaced {
    pub(super) fn add(&mut self, key: [u64; 4], image: Image, comm: &Rc<str>, faults: u64) {
        self.stacks.insert(key, Stack { image, comm: Rc::clone(comm), faults });
    }

    /// Whose it was when it was first met.
    pub(super) fn who(&self, key: &[u64; 4]) -> Option<(Image, Rc<str>)> {
        self.stacks.get(key).map(|stack| (stack.image, Rc::clone(&stack.comm)))
    }

    /// It has a place.
    pub(super) fn take(&mut self, key: &[u64; 4]) {
        self.stacks.remove(key);
    }

    /// The kernel half has it no more.
    pub(super) fn close(&mut self, key: &[u64; 4]) {
        self.past += self.stacks.remove(key).map_or(0, |stack| stack.faults);
    }

    /// How many faults are, or were, in stacks without a place.
    pub(super) fn faults(&self) -> u64 {
        self.past + self.stacks.values().map(|stack| stack.faults).sum::<u64>()
    }

    /// The chains that they are made of.
    pub(super) fn chains(&self) -> HashSet<u64> {
        self.stacks.keys().flat_map(|&[_, _, user, kernel]| [user, kernel]).collect()
    }

    /// The address spaces that they are in.
    pub(super) fn images(&self) -> HashSet<Image> {
        self.stacks.values().map(|stack| stack.image).collect()
    }
}

#[cfg(test)]
mod tests {
    use trapline_model::faults::Process;

    use super::*;

    #[test]
    fn each_is_somebodys_until_it_has_a_place_and_counted_if_it_gets_none() {
        let mut unplaced = Unplaced::default();
        let image = |pid| Image::from(Process { pid, start_ns: 1 });
        let comm: Rc<str> = "a".into();
        unplaced.add([7, 1, 100, 200], image(7), &comm, 3);
        unplaced.add([7, 1, 100, 200], image(7), &comm, 4);
        unplaced.add([8, 1, 101, 0], image(8), &comm, 10);
        assert_eq!(unplaced.who(&[8, 1, 101, 0]), Some((image(8), comm)));
        assert_eq!(unplaced.chains(), [0, 100, 101, 200].into());
        assert_eq!(unplaced.images(), [image(7), image(8)].into());
        assert_eq!(unplaced.faults(), 14);
        unplaced.take(&[7, 1, 100, 200]);
        assert_eq!(unplaced.faults(), 10);
        unplaced.close(&[8, 1, 101, 0]);
        assert_eq!((unplaced.faults(), unplaced.chains().len()), (10, 0));
    }
}
