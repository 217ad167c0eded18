//! What rows came to in the last intervals: a limited number of points of a limited number of rows.

use std::collections::{HashMap, VecDeque};

/// Points that are kept of a row.
pub(super) const POINTS: usize = 120;
/// Rows of which points are kept.
const ROWS: usize = 4096;

/// Events, and nanoseconds that they took.
pub(super) type Figures = [u64; 2];

/// The points of each row, by a hash of its keys.
#[derive(Debug, Default)]
pub(super) struct Histories {
    rows: HashMap<u64, History>,
    /// Intervals that have ended.
    ended: u64,
}

#[derive(Debug, Default)]
struct History {
    /// Per second.
    points: VecDeque<Figures>,
    /// The interval of the last one.
    last: u64,
    /// What it all came to, where rows are since the start.
    total: Figures,
}

impl Histories {
    /// An interval of this length ends, with these rows in it; `cumulative` ones have figures since the start.
    pub(super) fn interval(
        &mut self,
        rows: impl Iterator<Item = (u64, Figures)>,
        duration_ns: u64,
        cumulative: bool,
    ) {
        self.ended += 1;
        for (row, figures) in rows {
            let history = self.rows.entry(row).or_default();
            let mut grown = figures;
            for (grown, total) in grown.iter_mut().zip(&mut history.total) {
                if cumulative {
                    (*grown, *total) = (grown.saturating_sub(*total), (*grown).max(*total));
                } else {
                    *total += *grown;
                }
            }
            if history.last == self.ended {
                // Two rows with the same keys.
                continue;
            }
            let missed = (self.ended - history.last - 1).min(POINTS as u64);
            let missed = if history.points.is_empty() { 0 } else { missed };
            history.points.extend((0..missed).map(|_| [0, 0]));
            history.points.push_back(grown.map(|n| per_second(n, duration_ns)));
            history.points.drain(..history.points.len().saturating_sub(POINTS));
            history.last = self.ended;
        }
        self.forget();
    }

    /// Rows of which no point is left, and the oldest where there are too many.
    fn forget(&mut self) {
        let ended = self.ended;
        self.rows.retain(|_, history| ended - history.last < POINTS as u64);
        if self.rows.len() > ROWS {
            let mut ages: Vec<u64> = self.rows.values().map(|history| history.last).collect();
            let surplus = ages.len() - ROWS;
            let (_, &mut oldest, _) = ages.select_nth_unstable(surplus);
            let mut left = ROWS - self.rows.values().filter(|history| history.last > oldest).count();
            self.rows.retain(|_, history| {
                let is_one = history.last == oldest && left > 0;
                left -= usize::from(is_one);
                is_one || history.last > oldest
            });
        }
    }

    /// The last points of a row, up to the last interval.
    pub(super) fn of(&self, row: u64, figure: usize, most: usize) -> Vec<u64> {
        let Some(history) = self.rows.get(&row) else { return vec![] };
        let idle = (self.ended - history.last) as usize;
        let points = history.points.iter().map(|point| point[figure]);
        let points: Vec<u64> = points.chain(std::iter::repeat_n(0, idle)).collect();
        points[points.len().saturating_sub(most)..].to_vec()
    }

    /// How many points are kept, of how many rows.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.rows.values().map(|history| history.points.len()).sum(), self.rows.len())
    }
}

/// A figure of an interval, per second.
fn per_second(n: u64, duration_ns: u64) -> u64 {
    let n = u128::from(n) * 1_000_000_000 / u128::from(duration_ns.max(1));
    n.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Histories, POINTS, ROWS};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn intervals_without_a_row_are_zeros() {
        let mut histories = Histories::default();
        histories.interval([(1, [10, 0])].into_iter(), SECOND, false);
        histories.interval([].into_iter(), SECOND, false);
        histories.interval([(1, [10, 7])].into_iter(), SECOND / 2, false);
        histories.interval([].into_iter(), SECOND, false);
        assert_eq!(histories.of(1, 0, 9), [10, 0, 20, 0]);
        assert_eq!(histories.of(1, 1, 2), [14, 0]);
        assert!(histories.of(2, 0, 9).is_empty());
    }

    #[test]
    fn rows_since_the_start_have_the_same_points() {
        let mut histories = Histories::default();
        histories.interval([(1, [10, 0])].into_iter(), SECOND, false);
        histories.interval([(1, [15, 0])].into_iter(), SECOND, true);
        histories.interval([(1, [4, 0])].into_iter(), SECOND, false);
        histories.interval([(1, [20, 0])].into_iter(), SECOND, true);
        assert_eq!(histories.of(1, 0, 9), [10, 5, 4, 1]);
    }

    /// A day of intervals, in which 20 rows live for a while and make way for others; and a storm of names.
    #[test]
    fn a_day_takes_no_more_memory_than_its_first_minutes() {
        let mut histories = Histories::default();
        let mut most = 0;
        for second in 0..86_400_u64 {
            let rows = (0..20).map(|n| (n + second / 20 * 20, [second, n]));
            histories.interval(rows, SECOND, second % 1000 == 0);
            let (points, rows) = histories.kept();
            if second == 600 {
                most = points;
            }
            assert!(rows <= 20 * (POINTS / 20 + 2), "{rows} rows after {second} s");
            assert!(
                second < 600 || points <= most + 20 * 20,
                "{points} points after {second} s, {most} then"
            );
        }
        for second in 0..20 {
            histories.interval((0..2000).map(|n| (n + second * 2000, [1, 1])), SECOND, false);
            assert!(histories.kept().1 <= ROWS);
        }
        assert_eq!(histories.of(19 * 2000 + 7, 0, 5), [1], "the newest rows stay");
    }
}
