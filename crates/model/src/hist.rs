//! Histograms of times, four buckets an octave: a quantile read from one is off by at most 12.5 %.
//!
//! `hist_bucket` in `bpf/trap.bpf.h` is the other half of [`bucket`].

use crate::field::Bucket;

/// How many buckets there are; the last one is open-ended.
pub const BUCKETS: usize = 128;

/// The bucket of a value.
#[must_use]
pub fn bucket(value: u64) -> usize {
    if value < 4 {
        return value as usize;
    }
    let e = value.ilog2() as usize;
    let sub = (value >> (e - 2)) as usize & 3;
    ((e - 1) * 4 + sub).min(BUCKETS - 1)
}

/// The lowest and the highest value of a bucket, both inclusive.
#[must_use]
pub fn bounds(bucket: usize) -> (u64, u64) {
    let low = |i: usize| if i < 4 { i as u64 } else { (4 + (i as u64 & 3)) << (i / 4 - 1) };
    if bucket >= BUCKETS - 1 { (low(BUCKETS - 1), u64::MAX) } else { (low(bucket), low(bucket + 1) - 1) }
}

/// The longest and the shortest of some times, nanoseconds; of none if `min_ns > max_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extremes {
    /// The longest.
    pub max_ns: u64,
    /// The shortest.
    pub min_ns: u64,
}

impl Default for Extremes {
    fn default() -> Self {
        Self { max_ns: 0, min_ns: u64::MAX }
    }
}

impl Extremes {
    /// Of both together.
    pub fn add(&mut self, other: Self) {
        self.max_ns = self.max_ns.max(other.max_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
    }

    /// These, if there are any.
    #[must_use]
    pub fn known(self) -> Option<Self> {
        Some(self).filter(|of| of.min_ns <= of.max_ns)
    }
}

/// Counts by bucket, only those that are not 0, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hist(Vec<(u8, u64)>);

impl Hist {
    /// From one count per bucket.
    #[must_use]
    pub fn new(counts: &[u64]) -> Self {
        Self((0u8..).zip(counts).filter(|&(_, &n)| n > 0).map(|(i, &n)| (i, n)).collect())
    }

    /// From one count per octave, and that of the last bucket, which is open-ended.
    #[must_use]
    pub fn of_octaves(counts: &[u64], over: u64) -> Self {
        let octaves = (0u8..).step_by(4).zip(counts.iter().copied());
        let all = octaves.chain([(BUCKETS as u8 - 1, over)]);
        Self(all.filter(|&(_, n)| n > 0).collect())
    }

    /// How much memory it takes beside its own structure.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u8, u64)>()
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(_, n)| n).sum()
    }

    /// The buckets that hold something, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().map(|&(i, n)| (i.into(), n))
    }

    /// By octave, as `log2` histograms have them: 0 to 1, 2 to 3, 4 to 7, … The last bucket may be open-ended: see [`Value`].
    ///
    /// [`Value`]: crate::Value::Buckets
    #[must_use]
    pub fn octaves(&self) -> Vec<Bucket> {
        let mut octaves: Vec<Bucket> = Vec::new();
        for (i, n) in self.iter() {
            let (low, high) = bounds(i);
            let (low, high) = match low {
                _ if high == u64::MAX => (low, None),
                0..4 => (low & !1, Some(low | 1)),
                _ => {
                    let first = 1 << low.ilog2();
                    (first, Some((first * 2 - 1).min(bounds(BUCKETS - 1).0 - 1)))
                }
            };
            match octaves.last_mut() {
                Some(last) if last.0 == low => last.2 += n,
                _ => octaves.push((low, high, n)),
            }
        }
        octaves
    }

    /// Adds one value.
    pub(crate) fn count_one(&mut self, value: u64) {
        let i = bucket(value) as u8;
        match self.0.binary_search_by_key(&i, |&(i, _)| i) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (i, 1)),
        }
    }

    /// Adds another histogram's counts.
    pub fn add(&mut self, other: &Self) {
        for &(i, n) in &other.0 {
            match self.0.binary_search_by_key(&i, |&(i, _)| i) {
                Ok(at) => self.0[at].1 += n,
                Err(at) => self.0.insert(at, (i, n)),
            }
        }
    }

    /// What this histogram has beyond an earlier state of itself.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |i: u8| earlier.0.iter().find(|&&(j, _)| j == i).map_or(0, |&(_, n)| n);
        Self(self.0.iter().map(|&(i, n)| (i, n.saturating_sub(before(i)))).filter(|&(_, n)| n > 0).collect())
    }

    /// The value below which a share `q` (0 to 1) of all lies: the middle of its bucket, kept within `min` and `max`.
    #[must_use]
    pub fn quantile(&self, q: f64, min: u64, max: u64) -> Option<u64> {
        let rank = (self.count() as f64 * q).ceil().max(1.0) as u64;
        let mut below = 0;
        for (i, n) in self.iter() {
            below += n;
            if below >= rank {
                let (low, high) = bounds(i);
                let middle = if high == u64::MAX { low } else { low + (high - low) / 2 };
                return Some(middle.min(max).max(min));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octaves_alone_are_those_of_all_buckets() {
        let (mut fine, mut coarse, mut over) = ([0; BUCKETS], [0; BUCKETS / 4], 0);
        for value in [4, 7, 8, 1000, 1023, 1024, 5_000_000, 4_400_000_000, 7_000_000_000, u64::MAX] {
            fine[bucket(value)] += 1;
            match bucket(value) {
                at if at == BUCKETS - 1 => over += 1,
                at => coarse[at / 4] += 1,
            }
        }
        assert_eq!(Hist::of_octaves(&coarse, over).octaves(), Hist::new(&fine).octaves());
    }

    #[test]
    fn buckets_and_bounds_agree() {
        for b in 0..BUCKETS {
            let (low, high) = bounds(b);
            assert_eq!(bucket(low), b);
            assert_eq!(bucket(high), b);
        }
        for b in 1..BUCKETS {
            assert_eq!(bounds(b).0, bounds(b - 1).1 + 1);
        }
        assert_eq!(bounds(BUCKETS - 1).0, 7 << 30);
    }

    #[test]
    fn a_quantile_is_within_an_eighth() {
        let values: Vec<u64> = (1..=10_000).map(|i| i * 37).collect();
        let mut counts = [0; BUCKETS];
        values.iter().for_each(|&v| counts[bucket(v)] += 1);
        let hist = Hist::new(&counts);
        for q in [0.01, 0.5, 0.9, 0.99] {
            let exact = values[(values.len() as f64 * q) as usize - 1] as f64;
            let read = hist.quantile(q, 37, 370_000).unwrap() as f64;
            assert!((read / exact - 1.0).abs() <= 0.125, "{q}: {read} for {exact}");
        }
        assert_eq!(Hist::default().quantile(0.5, 0, 0), None);
    }

    #[test]
    fn octaves_hold_all_and_do_not_overlap() {
        let octaves = Hist::new(&[1; BUCKETS]).octaves();
        assert_eq!(octaves.iter().map(|&(.., n)| n).sum::<u64>(), BUCKETS as u64);
        assert_eq!(&octaves[..4], [(0, Some(1), 2), (2, Some(3), 2), (4, Some(7), 4), (8, Some(15), 4)]);
        assert!(octaves.windows(2).all(|pair| pair[0].1.is_some_and(|high| high + 1 == pair[1].0)));
        assert_eq!(octaves.last(), Some(&(7 << 30, None, 1)));
    }

    #[test]
    fn what_is_added_comes_back() {
        let mut old = [0; BUCKETS];
        old[5] = 2;
        let mut new = old;
        new[5] = 5;
        new[127] = 1;
        let (old, new) = (Hist::new(&old), Hist::new(&new));
        let diff = new.since(&old);
        assert_eq!(diff.iter().collect::<Vec<_>>(), [(5, 3), (127, 1)]);
        let mut sum = old.clone();
        sum.add(&diff);
        assert_eq!(sum, new);
    }
}
