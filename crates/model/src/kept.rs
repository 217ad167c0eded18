//! What a recording still has of a run, where older parts were discarded.

use std::ops::RangeInclusive;

use crate::field::{Kind, Unit};
use crate::item::{Block, Facts, Header};
use crate::table::{Table, label, number};

/// The times that a recording still has, in order: the last ones, and those around messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// From when to when, CLOCK_MONOTONIC nanoseconds; the last may have no end.
    ranges: Vec<(u64, u64)>,
}

/// The same, as records.
#[rustfmt::skip]
pub static KEPT: Table<Kept> = Table::settings("trapline.kept", "trapline", &[&[
    number("kept_since_ns", (Unit::Nanoseconds, Kind::Gauge), "The beginning of what a recording with `--keep` still has, CLOCK_MONOTONIC; null if nothing was discarded.", |k| k.since_ns().into()),
    number("kept_ns", (Unit::Nanoseconds, Kind::Gauge), "The time that the kept parts of the recording are of; null if one of several recordings has no end yet.", |k| k.time_ns().into()),
    label("kept_ranges", "The times of these parts, CLOCK_MONOTONIC nanoseconds: from-to, with commas between.", |k| k.words().as_str().into()),
]]);

/// The end of a range that has none.
const OPEN: u64 = u64::MAX;

impl Kept {
    /// These times.
    #[must_use]
    pub fn new(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        let mut apart: Vec<(u64, u64)> = Vec::new();
        for (from, to) in ranges {
            match apart.last_mut() {
                Some((_, until)) if *until >= from => *until = to.max(*until),
                _ => apart.push((from, to)),
            }
        }
        Self { ranges: apart }
    }

    /// Since then, to the end.
    #[must_use]
    pub fn since(since_ns: u64) -> Self {
        Self { ranges: vec![(since_ns, OPEN)] }
    }

    /// Those of several recordings.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new([self.ranges, other.ranges].concat())
    }

    /// The same by a clock that is so far ahead, nanoseconds.
    #[must_use]
    pub fn shifted(self, ahead_ns: i64) -> Self {
        let shift = |time: u64| if time == OPEN { OPEN } else { time.saturating_add_signed(ahead_ns) };
        Self { ranges: self.ranges.into_iter().map(|(from, to)| (shift(from), shift(to))).collect() }
    }

    /// The beginning of the first.
    #[must_use]
    pub fn since_ns(&self) -> Option<u64> {
        self.ranges.first().map(|(from, _)| *from)
    }

    /// All together, if they have an end.
    #[must_use]
    pub fn time_ns(&self) -> Option<u64> {
        let has_end = self.ranges.last().is_none_or(|(_, to)| *to != OPEN);
        has_end.then(|| self.within(&(0..=OPEN)))
    }

    /// How much of them is within these times.
    #[must_use]
    pub fn within(&self, times_ns: &RangeInclusive<u64>) -> u64 {
        let of =
            |(from, to): &(u64, u64)| (*to.min(times_ns.end())).saturating_sub(*from.max(times_ns.start()));
        self.ranges.iter().map(of).sum()
    }

    /// When the range began that has this moment, or that was the last before it.
    #[must_use]
    pub fn began_ns(&self, time_ns: u64) -> Option<u64> {
        self.ranges.iter().map(|(from, _)| *from).take_while(|from| *from < time_ns).last()
    }

    fn words(&self) -> String {
        let range = |(from, to): &(u64, u64)| match *to {
            OPEN => format!("{from}-"),
            to => format!("{from}-{to}"),
        };
        self.ranges.iter().map(range).collect::<Vec<_>>().join(",")
    }

    /// Of its words; nothing if they are none.
    pub(crate) fn read(words: &str) -> Option<Self> {
        let range = |word: &str| {
            let (from, to) = word.split_once('-')?;
            Some((from.parse().ok()?, if to.is_empty() { OPEN } else { to.parse().ok()? }))
        };
        words.split(',').map(range).collect::<Option<Vec<_>>>().map(Self::new)
    }
}

/// How much time figures are of, nanoseconds: those of the totals, or of the single events of a recording.
pub(crate) fn covered_ns(header: &Header, end: &Facts, totals: Option<&Block>, of_events: bool) -> u64 {
    if end.is("whole_run")
        && let Some((block, since_ns)) = totals.and_then(|block| Some((block, block.since_ns?)))
    {
        return block.time_ns.saturating_sub(since_ns);
    }
    let kept = header.kept().filter(|_| of_events);
    kept.and_then(|kept| kept.time_ns()).unwrap_or(end.duration_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_known_by_its_words() {
        let kept = Kept::new(vec![(50, 80), (10, 20), (18, 30)]);
        assert_eq!((kept.since_ns(), kept.time_ns()), (Some(10), Some(50)));
        assert_eq!(kept.words(), "10-30,50-80");
        assert_eq!(Kept::read("10-30,50-80"), Some(kept.clone()));
        assert_eq!([25..=60, 0..=5, 30..=50, 0..=OPEN].map(|times| kept.within(&times)), [15, 0, 0, 50]);
        assert_eq!([10, 11, 45, 60].map(|time| kept.began_ns(time)), [None, Some(10), Some(10), Some(50)]);
        let open = kept.shifted(5).and(Kept::since(70));
        assert_eq!((open.words().as_str(), open.time_ns()), ("15-35,55-", None));
        assert_eq!(open.within(&(0..=100)), 20 + 45);
        assert_eq!(Kept::read("15-35,55-"), Some(open));
        assert!(["", "1", "a-b", "-5"].iter().all(|words| Kept::read(words).is_none()));
    }
}
