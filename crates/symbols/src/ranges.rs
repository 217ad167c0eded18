//! Ranges of addresses, of which the newest hides what it covers of the older ones.

use std::collections::BTreeMap;

/// Ranges of addresses, each with something.
#[derive(Debug, Clone)]
pub struct Ranges<T>(BTreeMap<u64, (u64, T)>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone> Ranges<T> {
    /// From `start` up to, not including, `end`.
    pub fn insert(&mut self, start: u64, end: u64, what: T) {
        if start >= end {
            return;
        }
        let hidden: Vec<u64> = self.overlapping(start, end).map(|(from, _)| from).collect();
        for from in hidden {
            let Some((to, old)) = self.0.remove(&from) else { continue };
            if to > end {
                self.0.insert(end, (to, old.clone()));
            }
            if from < start {
                self.0.insert(from, (start, old));
            }
        }
        self.0.insert(start, (end, what));
    }

    /// Those that have something of this range, the last first, with their beginnings.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &T)> {
        let below = self.0.range(..end).rev().take_while(move |&(_, &(to, _))| to > start);
        below.map(|(&from, (_, what))| (from, what))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What they have, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|(_, what)| what)
    }

    /// What the range has that holds the address.
    pub fn find(&self, addr: u64) -> Option<&T> {
        let (_, (end, what)) = self.0.range(..=addr).next_back()?;
        (addr < *end).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    #[test]
    fn the_newest_hides_what_it_covers() {
        let mut ranges = Ranges::default();
        ranges.insert(10, 20, 'a');
        ranges.insert(30, 40, 'b');
        ranges.insert(15, 35, 'c');
        let seen = |ranges: &Ranges<char>| -> String {
            (8..44).step_by(3).map(|at| ranges.find(at).copied().unwrap_or('.')).collect()
        };
        //                8 11 14 17 20 23 26 29 32 35 38 41
        assert_eq!(seen(&ranges), ".aaccccccbb.");
        ranges.insert(20, 22, 'd');
        assert_eq!((ranges.find(19), ranges.find(21), ranges.find(22)), (Some(&'c'), Some(&'d'), Some(&'c')));
        ranges.insert(0, 100, 'e');
        ranges.insert(50, 50, 'f');
        assert_eq!(seen(&ranges), "e".repeat(12));
    }
}
