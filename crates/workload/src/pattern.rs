//! The orders in which a workload visits the pages of a file: endless iterators over page indexes.

use std::str::FromStr;

use crate::map::Advice;

/// Of 100 accesses of the mixed pattern, how many go to a random page; the others go on sequentially.
const MIXED_RANDOM_PERCENT: u8 = 70;

/// The order in which pages are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pattern {
    /// One page after the other, from the start again after the last.
    Seq,
    /// Any page each time, all equally likely, repeats included.
    #[default]
    Random,
    /// Every n-th page, going round modulo the file.
    Stride,
    /// 70 % random, 30 % sequential, drawn anew for each access.
    Mixed,
}

impl Pattern {
    /// Every pattern's name, as it is written on the command line.
    pub const NAMES: [&'static str; 4] = ["seq", "random", "stride", "mixed"];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::Random => "random",
            Self::Stride => "stride",
            Self::Mixed => "mixed",
        }
    }

    /// The advice that makes this pattern's faults what the pattern stands for: without read-ahead where most
    /// accesses are random (a large read-ahead would cache the file within a few faults), none otherwise.
    #[must_use]
    pub fn advice(self) -> Advice {
        match self {
            Self::Random | Self::Mixed => Advice::Random,
            Self::Seq | Self::Stride => Advice::Normal,
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "seq" | "sequential" => Ok(Self::Seq),
            "random" => Ok(Self::Random),
            "stride" => Ok(Self::Stride),
            "mixed" => Ok(Self::Mixed),
            _ => Err(format!("unknown pattern {text:?}: one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// An endless walk over page indexes `0..pages`; empty only if there are no pages.
#[derive(Debug, Clone)]
pub struct Walk {
    pattern: Pattern,
    pages: usize,
    step: usize,
    next: usize,
    random: fastrand::Rng,
}

impl Walk {
    /// A walk over `pages` pages. `stride` is in pages, and only the stride pattern uses it; `first` is the
    /// page where the patterns with an order begin; equal seeds give equal walks.
    #[must_use]
    pub fn new(pattern: Pattern, pages: usize, stride: usize, first: usize, seed: u64) -> Self {
        let wrap = |value: usize| value.checked_rem(pages).unwrap_or(0);
        let step = if pattern == Pattern::Stride { stride } else { 1 };
        Self { pattern, pages, step: wrap(step), next: wrap(first), random: fastrand::Rng::with_seed(seed) }
    }

    /// The walk of thread `index` of `threads`: the threads spread their beginnings evenly over the file,
    /// and each draws its own random numbers.
    #[must_use]
    pub fn of_thread(
        pattern: Pattern,
        pages: usize,
        stride: usize,
        index: usize,
        threads: usize,
        seed: u64,
    ) -> Self {
        let first = (pages as u128 * index as u128).checked_div(threads as u128).unwrap_or(0);
        // The generator's neighbouring seeds give related numbers; a large odd step keeps threads apart.
        let own_seed = seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self::new(pattern, pages, stride, usize::try_from(first).unwrap_or(0), own_seed)
    }

    fn step(&mut self) -> usize {
        let page = self.next;
        // Both are below `pages`, so that the sum overflows for no real file.
        self.next = (page + self.step) % self.pages;
        page
    }
}

impl Iterator for Walk {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.pages == 0 {
            return None;
        }
        Some(match self.pattern {
            Pattern::Seq | Pattern::Stride => self.step(),
            Pattern::Random => self.random.usize(..self.pages),
            Pattern::Mixed if self.random.u8(..100) < MIXED_RANDOM_PERCENT => self.random.usize(..self.pages),
            Pattern::Mixed => self.step(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(count: usize, walk: Walk) -> Vec<usize> {
        walk.take(count).collect()
    }

    #[test]
    fn sequential_goes_in_order_and_round() {
        assert_eq!(first(7, Walk::new(Pattern::Seq, 3, 64, 0, 0)), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(first(4, Walk::new(Pattern::Seq, 3, 64, 2, 0)), [2, 0, 1, 2]);
    }

    #[test]
    fn stride_wraps_around_the_file() {
        assert_eq!(first(6, Walk::new(Pattern::Stride, 10, 4, 0, 0)), [0, 4, 8, 2, 6, 0]);
        assert_eq!(first(4, Walk::new(Pattern::Stride, 10, 13, 0, 0)), [0, 3, 6, 9]);
        assert_eq!(first(3, Walk::new(Pattern::Stride, 1, 64, 0, 0)), [0, 0, 0]);
    }

    #[test]
    fn random_covers_the_file_evenly_and_repeats_with_its_seed() {
        let mut hits = [0u32; 16];
        for page in Walk::new(Pattern::Random, 16, 1, 0, 7).take(160_000) {
            hits[page] += 1;
        }
        assert!(hits.iter().all(|count| (9_500..10_500).contains(count)), "{hits:?}");
        let walk = |seed| first(50, Walk::new(Pattern::Random, 1_000_000, 1, 0, seed));
        assert_eq!(walk(3), walk(3));
        assert_ne!(walk(3), walk(4));
    }

    #[test]
    fn mixed_is_seventy_to_thirty() {
        // In a file this large a random draw practically never hits the next sequential page.
        let mut expected = 0;
        let mut sequential = 0;
        for page in Walk::new(Pattern::Mixed, 1 << 40, 1, 0, 11).take(100_000) {
            if page == expected {
                sequential += 1;
                expected += 1;
            }
        }
        assert!((29_300..30_700).contains(&sequential), "{sequential}");
    }

    #[test]
    fn threads_begin_apart_and_draw_apart() {
        let walk = |pattern, index| first(20, Walk::of_thread(pattern, 1000, 1, index, 4, 5));
        assert_eq!(walk(Pattern::Seq, 1)[0], 250);
        assert_eq!(walk(Pattern::Stride, 3)[0], 750);
        assert_ne!(walk(Pattern::Random, 0), walk(Pattern::Random, 1));
    }

    #[test]
    fn no_pages_no_walk() {
        assert_eq!(Walk::of_thread(Pattern::Mixed, 0, 0, 0, 0, 0).next(), None);
    }

    #[test]
    fn names_are_read_back() {
        for name in Pattern::NAMES {
            assert_eq!(name.parse::<Pattern>().unwrap().name(), name);
        }
        assert!("zigzag".parse::<Pattern>().unwrap_err().contains("seq, random, stride, mixed"));
    }
}
