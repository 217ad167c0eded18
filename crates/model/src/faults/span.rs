//! Spans: calls of a function, or what lies between two marks; how much of each was page faults.

use std::rc::Rc;

use super::tables::SPAN;
use super::{Extremes, Timing};
use crate::field::Value;
use crate::hist::Hist;
use crate::item::Block;

/// Times of single calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallTimes {
    /// By bucket.
    pub hist: Hist,
    /// Over the whole run.
    pub extremes: Extremes,
    /// Over the interval that is about to be shown.
    pub recent: Extremes,
}

impl CallTimes {
    fn add(&mut self, other: &Self) {
        self.hist.add(&other.hist);
        self.extremes.add(other.extremes);
        self.recent.add(other.recent);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self { hist: self.hist.since(&earlier.hist), extremes: self.recent, recent: self.recent }
    }

    pub(super) fn quantile(&self, q: f64) -> Option<u64> {
        let Extremes { max_ns, min_ns } = self.extremes;
        self.hist.quantile(q, min_ns, max_ns).filter(|_| min_ns <= max_ns)
    }

    pub(super) fn known(&self) -> Option<Extremes> {
        Some(self.extremes).filter(|e| e.min_ns <= e.max_ns && self.hist.count() > 0)
    }
}

/// What one span did since tracing began. In the sums, a call within a call of the same span is in the outer one only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Finished calls, recursive ones included.
    pub calls: u64,
    /// Calls that were left without a return.
    pub unfinished: u64,
    /// Major faults.
    pub major: u64,
    /// Minor faults.
    pub minor: u64,
    /// Those of both that were timed.
    pub timed: u64,
    /// Time in timed faults, nanoseconds.
    pub stall_ns: u64,
    /// The part of it in major faults.
    pub major_ns: u64,
    /// Time of the calls, nanoseconds.
    pub span_ns: u64,
    /// Stalls of single calls.
    pub stall: CallTimes,
    /// Times of single calls.
    pub span: CallTimes,
}

impl Calls {
    /// Adds what another processor saw of the same span.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.unfinished += other.unfinished;
        self.major += other.major;
        self.minor += other.minor;
        self.timed += other.timed;
        self.stall_ns += other.stall_ns;
        self.major_ns += other.major_ns;
        self.span_ns += other.span_ns;
        self.stall.add(&other.stall);
        self.span.add(&other.span);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            unfinished: self.unfinished - earlier.unfinished,
            major: self.major - earlier.major,
            minor: self.minor - earlier.minor,
            timed: self.timed - earlier.timed,
            stall_ns: self.stall_ns - earlier.stall_ns,
            major_ns: self.major_ns - earlier.major_ns,
            span_ns: self.span_ns - earlier.span_ns,
            stall: self.stall.since(&earlier.stall),
            span: self.span.since(&earlier.span),
        }
    }
}

/// Turns what the spans did so far into rows.
#[derive(Debug)]
pub struct SpanLedger {
    timing: Timing,
    names: Vec<Rc<str>>,
    now: Vec<Calls>,
    shown: Vec<Calls>,
}

impl SpanLedger {
    /// For spans of these names, of whose faults so much is timed.
    #[must_use]
    pub fn new(names: Vec<Rc<str>>, timing: Timing) -> Self {
        let none = vec![Calls::default(); names.len()];
        Self { timing, names, now: none.clone(), shown: none }
    }

    /// Takes what each span did since tracing began, in the order of the names.
    pub fn take(&mut self, now: Vec<Calls>) {
        debug_assert_eq!(now.len(), self.names.len());
        self.now = now;
    }

    /// Rows of the interval that ends now; with `cumulative`, since the beginning.
    pub fn interval(&mut self, time_ns: u64, cumulative: bool) -> Block {
        let since: Vec<Calls> =
            self.now.iter().zip(&self.shown).map(|(now, shown)| now.since(shown)).collect();
        self.shown.clone_from(&self.now);
        if cumulative { self.totals(time_ns) } else { self.block(time_ns, &since) }
    }

    /// Rows of the whole run.
    #[must_use]
    pub fn totals(&self, time_ns: u64) -> Block {
        self.block(time_ns, &self.now)
    }

    /// How many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.now.iter().map(|calls| calls.calls).sum()
    }

    /// How many calls were left without a return.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.now.iter().map(|calls| calls.unfinished).sum()
    }

    /// Every span has its row, even if nobody called it. They have no sum: one may lie within another.
    fn block(&self, time_ns: u64, calls: &[Calls]) -> Block {
        let row = |(name, calls): (&Rc<str>, &Calls)| {
            SPAN.record(&SpanRow { timing: self.timing, name: Rc::clone(name), calls: calls.clone() })
        };
        let rows = self.names.iter().zip(calls).map(row).collect();
        Block::new(&SPAN, time_ns, rows)
    }
}

/// How many of a unit's parts one number is of another, rounded; nothing if there is nothing to be a part of.
fn part(of: u64, whole: u64, parts: u32) -> Option<u64> {
    let (of, whole, parts) = (u128::from(of), u128::from(whole), u128::from(parts));
    (whole > 0).then(|| ((of * parts + whole / 2) / whole) as u64)
}

/// What a row says.
pub(super) struct SpanRow {
    timing: Timing,
    pub(super) name: Rc<str>,
    pub(super) calls: Calls,
}

impl SpanRow {
    pub(super) fn faults_per_1000_calls(&self) -> Option<u64> {
        part(self.calls.major + self.calls.minor, self.calls.calls, 1000)
    }

    pub(super) fn stall_ppm(&self) -> Option<u64> {
        part(self.calls.stall_ns, self.calls.span_ns, 1_000_000)
    }

    pub(super) fn per_call(&self, sum: u64) -> Option<u64> {
        sum.checked_div(self.calls.calls)
    }

    pub(super) fn major_ns(&self) -> Option<u64> {
        Some(self.calls.major_ns).filter(|_| self.timing != Timing::None)
    }

    /// What is known where all faults are timed.
    pub(super) fn timed(&self, value: impl Into<Value>) -> Value {
        if matches!(self.timing, Timing::All(_)) { value.into() } else { Value::Null }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hist::{BUCKETS, bucket};

    fn times(values: &[u64], recent: &[u64]) -> CallTimes {
        let mut counts = [0; BUCKETS];
        values.iter().for_each(|&value| counts[bucket(value)] += 1);
        let of = |values: &[u64]| match (values.iter().max(), values.iter().min()) {
            (Some(&max_ns), Some(&min_ns)) => Extremes { max_ns, min_ns },
            _ => Extremes::default(),
        };
        CallTimes { hist: Hist::new(&counts), extremes: of(values), recent: of(recent) }
    }

    fn calls(stalls: &[u64], recent: &[u64]) -> Calls {
        let spans: Vec<u64> = stalls.iter().map(|stall| stall + 1000).collect();
        Calls {
            calls: stalls.len() as u64,
            major: 3 * stalls.len() as u64,
            minor: 1,
            stall_ns: stalls.iter().sum(),
            span_ns: spans.iter().sum(),
            stall: times(stalls, recent),
            span: times(&spans, &[]),
            ..Calls::default()
        }
    }

    #[test]
    fn rows_are_differences_and_shares() {
        let mut ledger = SpanLedger::new(vec!["db:query".into(), "db:never".into()], Timing::All(1));
        ledger.take(vec![calls(&[0, 1000], &[0, 1000]), Calls::default()]);
        let first = ledger.interval(1, false);
        let get = |block: &Block, row: usize, name: &str| block.rows[row].get(name).unwrap().clone();
        assert_eq!(get(&first, 0, "calls"), Value::U64(2));
        assert_eq!(get(&first, 0, "faults_per_1000_calls"), Value::U64(3500));
        assert_eq!(get(&first, 0, "stall_ppm"), Value::U64(333_333));
        assert_eq!((get(&first, 0, "p50_ns"), get(&first, 0, "max_ns")), (Value::U64(0), Value::U64(1000)));
        assert_eq!((get(&first, 1, "calls"), get(&first, 1, "avg_ns")), (Value::U64(0), Value::Null));
        ledger.take(vec![calls(&[0, 1000, 500], &[500]), Calls::default()]);
        let second = ledger.interval(2, false);
        assert_eq!((get(&second, 0, "calls"), get(&second, 0, "max_ns")), (Value::U64(1), Value::U64(500)));
        assert_eq!(get(&second, 0, "total_ns"), Value::U64(500));
        assert_eq!(get(&ledger.totals(3), 0, "max_ns"), Value::U64(1000));
        assert_eq!(ledger.calls(), 3);
    }

    #[test]
    fn what_is_not_timed_is_not_known() {
        let mut ledger = SpanLedger::new(vec!["a:b".into()], Timing::None);
        ledger.take(vec![calls(&[0, 0], &[0])]);
        let total = ledger.totals(1);
        for name in ["total_ns", "stall_ppm", "major_ns", "avg_ns", "p50_ns", "p99_ns", "max_ns", "min_ns"] {
            assert_eq!(total.rows[0].get(name), Some(&Value::Null), "{name}");
        }
        assert_eq!(total.rows[0].get("span_avg_ns"), Some(&Value::U64(1000)));
    }
}
