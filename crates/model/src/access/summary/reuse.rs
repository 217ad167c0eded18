//! Reuse distances: how many other pages were accessed between two accesses to a page.
//!
//! Mattson's stack, exactly: each page stands at the position of its last access, a Fenwick tree counts the occupied
//! positions, and the distance is the number of those behind the page's own. O(log n) an access; positions are given
//! out anew when they run out, so that memory follows the number of pages and not that of accesses.

const NOWHERE: u32 = u32::MAX;
/// Positions to begin with.
const LEAST: usize = 1024;

/// Pages in the order of their last access. Pages are small numbers.
#[derive(Debug, Clone)]
pub struct Recency {
    /// Fenwick tree over positions, 1-based: how many are occupied.
    tree: Vec<u32>,
    /// The page at each position.
    page: Vec<u32>,
    /// The position of each page.
    position: Vec<u32>,
    /// The next position to be given out.
    next: usize,
    pages: u64,
}

impl Default for Recency {
    fn default() -> Self {
        Self { tree: vec![0; LEAST + 1], page: vec![NOWHERE; LEAST], position: vec![], next: 0, pages: 0 }
    }
}

impl Recency {
    /// A page is accessed. Gives the number of different other pages since its last access; nothing at its first.
    pub fn access(&mut self, page: u32) -> Option<u64> {
        let index = page as usize;
        if index >= self.position.len() {
            self.position.resize(index + 1, NOWHERE);
        }
        if self.next == self.page.len() {
            self.renumber();
        }
        let distance = match self.position[index] {
            NOWHERE => {
                self.pages += 1;
                None
            }
            last => {
                let last = last as usize;
                let newer = self.pages - self.occupied_up_to(last);
                self.page[last] = NOWHERE;
                self.add(last, u32::MAX);
                Some(newer)
            }
        };
        self.page[self.next] = page;
        self.position[index] = self.next as u32;
        self.add(self.next, 1);
        self.next += 1;
        distance
    }

    /// Adds to a position; `u32::MAX` is -1.
    fn add(&mut self, position: usize, n: u32) {
        let mut at = position + 1;
        while at < self.tree.len() {
            self.tree[at] = self.tree[at].wrapping_add(n);
            at += at & at.wrapping_neg();
        }
    }

    /// How many positions are occupied, from the first to this one, which included.
    fn occupied_up_to(&self, position: usize) -> u64 {
        let mut at = position + 1;
        let mut sum = 0;
        while at > 0 {
            sum += u64::from(self.tree[at]);
            at &= at - 1;
        }
        sum
    }

    /// Moves the pages together, and makes room for as many again.
    fn renumber(&mut self) {
        self.page.retain(|&page| page != NOWHERE);
        for (at, &page) in self.page.iter().enumerate() {
            self.position[page as usize] = at as u32;
        }
        self.next = self.page.len();
        let room = (self.next * 2).max(LEAST);
        self.page.resize(room, NOWHERE);
        self.tree.clear();
        self.tree.resize(room + 1, 0);
        for at in 1..=room {
            self.tree[at] += u32::from(self.page[at - 1] != NOWHERE);
            let parent = at + (at & at.wrapping_neg());
            if parent <= room {
                self.tree[parent] += self.tree[at];
            }
        }
    }
}

/// How often each distance occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distances {
    /// Accesses to a page that had not been accessed before.
    cold: u64,
    /// Accesses by their distance: as long as there are pages.
    by_distance: Vec<u64>,
}

impl Distances {
    /// Counts an access at such a distance.
    pub fn count(&mut self, distance: Option<u64>) {
        let Some(distance) = distance else {
            self.cold += 1;
            return;
        };
        let at = distance as usize;
        if at >= self.by_distance.len() {
            self.by_distance.resize(at + 1, 0);
        }
        self.by_distance[at] += 1;
    }

    /// Accesses to a page that had not been accessed before.
    #[must_use]
    pub fn cold(&self) -> u64 {
        self.cold
    }

    /// Accesses to a page that had been accessed before.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.by_distance.iter().sum()
    }

    /// The mean distance, rounded down; nothing if no page was accessed twice.
    #[must_use]
    pub fn mean(&self) -> Option<u64> {
        let sum: u128 =
            self.by_distance.iter().zip(0u128..).map(|(&n, distance)| u128::from(n) * distance).sum();
        sum.checked_div(self.reused().into()).map(|mean| mean as u64)
    }

    /// The smallest distance that so many per cent of the accesses do not exceed.
    #[must_use]
    pub fn quantile(&self, percent: u64) -> Option<u64> {
        let wanted = (u128::from(self.reused()) * u128::from(percent)).div_ceil(100).max(1);
        let mut sum = 0;
        let at = self.by_distance.iter().position(|&n| {
            sum += u128::from(n);
            sum >= wanted
        });
        at.map(|at| at as u64)
    }

    /// The largest distance.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.by_distance.iter().rposition(|&n| n > 0).map(|at| at as u64)
    }

    /// As a histogram with a bucket per power of two: 0, 1, 2 to 3, 4 to 7, …
    #[must_use]
    pub fn buckets(&self) -> Vec<(u64, Option<u64>, u64)> {
        let mut buckets = Vec::new();
        let mut low = 0;
        while low < self.by_distance.len() {
            let after = (low * 2).max(low + 1);
            let n = self.by_distance[low..after.min(self.by_distance.len())].iter().sum();
            buckets.push((low as u64, Some(after as u64 - 1), n));
            low = after;
        }
        buckets
    }

    /// For memory of so many pages, from which the page accessed longest ago goes first, how many accesses miss: at 1
    /// to 8 pages, then at four sizes between one power of two and the next, up to the size from which on only first
    /// accesses miss.
    #[must_use]
    pub fn misses(&self) -> Vec<(u64, u64)> {
        let Some(max) = self.max() else { return vec![] };
        let enough = max + 1;
        let mut misses = Vec::new();
        let mut beyond = self.reused();
        let mut counted = 0;
        let mut size = 0;
        while size < enough {
            size = if size < 8 { size + 1 } else { size + (1 << (size.ilog2() - 2)) }.min(enough);
            // An access hits if fewer other pages than there is room for came between.
            beyond -= self.by_distance[counted..size as usize].iter().sum::<u64>();
            counted = size as usize;
            misses.push((size, self.cold + beyond));
        }
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the definition says, word for word.
    fn naive(trace: &[u32]) -> Vec<Option<u64>> {
        let distance = |at: usize| {
            let last = trace[..at].iter().rposition(|&page| page == trace[at])?;
            let mut between = trace[last + 1..at].to_vec();
            between.sort_unstable();
            between.dedup();
            Some(between.len() as u64)
        };
        (0..trace.len()).map(distance).collect()
    }

    fn ours(trace: &[u32]) -> Vec<Option<u64>> {
        let mut recency = Recency::default();
        trace.iter().map(|&page| recency.access(page)).collect()
    }

    /// An LRU list of so many pages, played through.
    fn lru_misses(trace: &[u32], size: usize) -> u64 {
        let mut list: Vec<u32> = Vec::new();
        let mut misses = 0;
        for &page in trace {
            match list.iter().position(|&p| p == page) {
                Some(at) => _ = list.remove(at),
                None => misses += 1,
            }
            list.insert(0, page);
            list.truncate(size);
        }
        misses
    }

    fn counted(trace: &[u32]) -> Distances {
        let mut distances = Distances::default();
        ours(trace).into_iter().for_each(|distance| distances.count(distance));
        distances
    }

    #[test]
    fn by_hand() {
        let (a, b, c) = (0, 1, 2);
        let trace = [a, a, b, c, b, a, c];
        assert_eq!(ours(&trace), [None, Some(0), None, None, Some(1), Some(2), Some(2)]);
        let distances = counted(&trace);
        assert_eq!((distances.cold(), distances.reused(), distances.max()), (3, 4, Some(2)));
        assert_eq!(distances.buckets(), [(0, Some(0), 1), (1, Some(1), 1), (2, Some(3), 2)]);
        // One page: a is hit once. Two: b too. Three: all but the first of each.
        assert_eq!(distances.misses(), [(1, 6), (2, 5), (3, 3)]);
        assert_eq!(
            (distances.mean(), distances.quantile(50), distances.quantile(99)),
            (Some(1), Some(1), Some(2))
        );
    }

    #[test]
    fn nothing_is_reused() {
        let distances = counted(&[4, 3, 2]);
        assert_eq!((distances.cold(), distances.reused(), distances.max()), (3, 0, None));
        assert_eq!((distances.mean(), distances.quantile(50)), (None, None));
        assert!(distances.misses().is_empty() && distances.buckets().is_empty());
    }

    #[test]
    fn a_cycle_misses_until_all_of_it_fits() {
        let trace: Vec<u32> = (0..100).cycle().take(5000).collect();
        let misses = counted(&trace).misses();
        assert_eq!(misses.last(), Some(&(100, 100)));
        assert!(misses.iter().rev().skip(1).all(|&(_, misses)| misses == 5000));
    }

    #[test]
    fn as_the_definition_says_on_random_traces() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let pages = random.u32(1..200);
            // Some pages hotter than others, or all alike.
            let hot = random.u32(1..=pages);
            let length = random.usize(1..600);
            let trace: Vec<u32> = std::iter::repeat_with(|| {
                let below = if random.bool() { hot } else { pages };
                random.u32(..below)
            })
            .take(length)
            .collect();
            assert_eq!(ours(&trace), naive(&trace), "seed {seed}");
            let distances = counted(&trace);
            assert_eq!(distances.cold() + distances.reused(), trace.len() as u64);
            assert_eq!(
                distances.buckets().iter().map(|&(.., n)| n).sum::<u64>(),
                distances.reused(),
                "seed {seed}"
            );
            for (size, misses) in distances.misses() {
                assert_eq!(misses, lru_misses(&trace, size as usize), "seed {seed} size {size}");
            }
        }
    }

    #[test]
    fn positions_are_given_out_anew() {
        // Many times more accesses than positions, with few pages and with many.
        for pages in [3, 700, 5000] {
            let mut recency = Recency::default();
            let mut random = fastrand::Rng::with_seed(u64::from(pages));
            let mut list: Vec<u32> = Vec::new();
            for _ in 0..20_000 {
                let page = random.u32(..pages);
                let expected = list.iter().rposition(|&p| p == page).map(|at| {
                    list.remove(at);
                    (list.len() - at) as u64
                });
                list.push(page);
                assert_eq!(recency.access(page), expected);
            }
            assert!(recency.page.len() <= (pages as usize * 2).max(LEAST));
        }
    }
}
