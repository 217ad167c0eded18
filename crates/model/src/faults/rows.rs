//! From what the ledger holds to rows: what has the same key is put together, and figures become fields.

use std::collections::HashMap;
use std::rc::Rc;

use super::group::{By, Key};
use super::ledger::{Entry, Range, widen};
use super::{Extremes, Stats, Timing};
use crate::field::{Record, Value};
use crate::item::Block;

/// Rows in the making: threads of the same key together.
#[derive(Default)]
pub(super) struct Rows {
    groups: HashMap<Key, (Rc<str>, Stats, Extremes, Range)>,
}

impl Rows {
    pub(super) fn add(&mut self, entry: &Entry, stats: &Stats, extremes: Extremes) {
        if stats.known() > 0 {
            let group = self.groups.entry(entry.key.clone()).or_default();
            group.0 = Rc::clone(&entry.comm);
            group.1.add(stats);
            group.2.add(extremes);
            widen(&mut group.3, entry.range);
        }
    }

    pub(super) fn block(self, by: By, timing: Timing, time_ns: u64) -> Block {
        let mut sum = (Stats::default(), Extremes::default());
        let mut rows = Vec::with_capacity(self.groups.len());
        for (key, (comm, stats, extremes, range)) in self.groups {
            let keys = by.values(&key, &comm, range, &stats);
            rows.push(row(by, timing, keys, &stats, extremes));
            sum.0.add(&stats);
            sum.1.add(extremes);
        }
        let keys = by.values(&Key::None, "TOTAL", None, &sum.0);
        let sum = row(by, timing, keys, &sum.0, sum.1);
        Block { time_ns, rows, sum: Some(sum), hidden: 0 }
    }
}

fn row(by: By, timing: Timing, mut values: Vec<Value>, stats: &Stats, extremes: Extremes) -> Record {
    let times = Times::of(timing, stats, extremes);
    values.extend::<[Value; 10]>([
        stats.major.into(),
        stats.minor.into(),
        times.total.into(),
        times.major.into(),
        times.avg.into(),
        times.max.into(),
        times.min.into(),
        times.p50.into(),
        times.p99.into(),
        (stats.timed_major + stats.timed_minor).into(),
    ]);
    Record::new(by.schema(), values)
}

/// The times of a row; what the variant cannot know is missing.
#[derive(Default)]
struct Times {
    total: Option<u64>,
    major: Option<u64>,
    avg: Option<u64>,
    max: Option<u64>,
    min: Option<u64>,
    p50: Option<u64>,
    p99: Option<u64>,
}

impl Times {
    fn of(timing: Timing, stats: &Stats, extremes: Extremes) -> Self {
        let weight = match timing {
            Timing::None => return Self::default(),
            Timing::Major => return Self { major: Some(stats.major_ns), ..Self::default() },
            Timing::All(weight) => u64::from(weight),
        };
        // Sampled: a timed minor fault stands for as many as there are to each. The count is exact, the time is not.
        let (minor_ns, faults) = match stats.timed_minor {
            timed if weight == 1 => (Some(stats.minor_ns), stats.timed_major + timed),
            0 => (Some(0).filter(|_| stats.minor == 0), stats.faults()),
            timed => {
                let scaled = u128::from(stats.minor_ns) * u128::from(stats.minor) / u128::from(timed);
                (Some(scaled as u64), stats.faults())
            }
        };
        // Faults that were all taken inside the kernel on the thread's behalf may be counted and none of them timed.
        let total = minor_ns.map(|minor_ns| stats.major_ns + minor_ns).filter(|_| faults > 0);
        let known = (extremes.min_ns <= extremes.max_ns).then_some(extremes);
        let quantile = |q| known.and_then(|e| stats.hist.quantile(q, e.min_ns, e.max_ns));
        Self {
            total,
            major: Some(stats.major_ns).filter(|_| stats.timed_major > 0 || stats.major == 0),
            avg: total.map(|total| total / faults),
            max: known.map(|e| e.max_ns),
            min: known.map(|e| e.min_ns),
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
    }
}
