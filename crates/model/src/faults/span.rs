//! Spans: calls of a function, or what lies between two marks; how much of each was page faults.

use std::rc::Rc;

use super::{Extremes, Timing, tables};
use crate::field::{Record, Value};
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
}

/// Turns what the spans did so far into rows.
#[derive(Debug)]
pub struct SpanLedger {
    timing: Timing,
    spans: Vec<(Rc<str>, Calls)>,
}

impl SpanLedger {
    /// For spans of these names, of whose faults so much is timed.
    pub fn new(names: impl Iterator<Item = Rc<str>>, timing: Timing) -> Self {
        Self { timing, spans: names.map(|name| (name, Calls::default())).collect() }
    }

    /// Takes what each span did since tracing began, in the order of the names.
    pub fn take(&mut self, now: impl Iterator<Item = Calls>) {
        self.spans.iter_mut().zip(now).for_each(|((_, calls), now)| *calls = now);
    }

    /// How many calls were left without a return.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.spans.iter().map(|(_, calls)| calls.unfinished).sum()
    }

    /// Rows with what the spans did since the beginning; `all`: also as to extremes. Every span has its row, even if nobody
    /// called it. They have no sum: one may lie within another.
    #[must_use]
    pub fn block(&self, time_ns: u64, all: bool) -> Block {
        let row = |(number, (name, calls)): (u64, &(Rc<str>, Calls))| {
            let row = SpanRow { timing: self.timing, name: Rc::clone(name), calls: calls.clone(), all };
            tables::SPAN.record(&row).of_row(number)
        };
        let rows = (1..).zip(&self.spans).map(row).collect();
        Block::new(&tables::SPAN, time_ns, rows)
    }
}

/// What a row is made of.
pub(super) struct SpanRow {
    timing: Timing,
    pub(super) name: Rc<str>,
    pub(super) calls: Calls,
    all: bool,
}

impl SpanRow {
    pub(super) fn major_ns(&self) -> Option<u64> {
        Some(self.calls.major_ns).filter(|_| self.timing != Timing::None)
    }

    /// What is known where all faults are timed.
    pub(super) fn timed(&self, value: impl Into<Value>) -> Value {
        if matches!(self.timing, Timing::All(_)) { value.into() } else { Value::Null }
    }

    /// The longest and the shortest of the run, or of the interval.
    pub(super) fn extremes(&self, times: &CallTimes) -> Option<Extremes> {
        let extremes = if self.all { times.extremes } else { times.recent };
        extremes.known()
    }
}

/// How many of a unit's parts one number is of another, rounded; nothing if there is nothing to be a part of.
fn part(of: u64, whole: u64, parts: u32) -> Option<u64> {
    let (of, whole, parts) = (u128::from(of), u128::from(whole), u128::from(parts));
    (whole > 0).then(|| ((of * parts + whole / 2) / whole) as u64)
}

pub(super) fn faults_per_1000_calls(record: &Record) -> Value {
    let [calls, major, minor] = ["calls", "major", "minor"].map(|name| record.number(name).unwrap_or(0));
    part(major + minor, calls, 1000).into()
}

pub(super) fn stall_ppm(record: &Record) -> Value {
    let times = record.number("total_ns").zip(record.number("span_ns"));
    times.and_then(|(stall, span)| part(stall, span, 1_000_000)).into()
}

/// The mean of a sum.
pub(super) fn per_call(record: &Record, sum: &str) -> Value {
    let calls = record.number(sum).zip(record.number("calls"));
    calls.and_then(|(sum, calls)| sum.checked_div(calls)).into()
}

/// The columns that times of single calls are made of: the histogram, the longest, the shortest.
pub(super) struct Times(&'static str, &'static str, &'static str);

pub(super) const STALL: Times = Times("stalls", "stall_longest_ns", "stall_shortest_ns");
pub(super) const SPAN: Times = Times("spans", "span_longest_ns", "span_shortest_ns");

impl Times {
    pub(super) fn quantile(&self, record: &Record, q: f64) -> Value {
        let Self(hist, longest, shortest) = self;
        let within = record.number(shortest).zip(record.number(longest)).zip(record.hist(hist));
        within.and_then(|((min, max), hist)| hist.quantile(q, min, max)).into()
    }

    fn known(&self, record: &Record, name: &str) -> Value {
        record.number(name).filter(|_| record.hist(self.0).is_some_and(|hist| hist.count() > 0)).into()
    }

    pub(super) fn longest(&self, record: &Record) -> Value {
        self.known(record, self.1)
    }

    pub(super) fn shortest(&self, record: &Record) -> Value {
        self.known(record, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hist::{BUCKETS, bucket};
    use crate::stage::Stages;

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
        let mut ledger =
            SpanLedger::new(["db:query", "db:never"].map(Into::into).into_iter(), Timing::All(1));
        let mut stages = Stages::new();
        ledger.take([calls(&[0, 1000], &[0, 1000]), Calls::default()].into_iter());
        let first = stages.interval(ledger.block(1, false));
        let get = |block: &Block, row: usize, name: &str| block.rows[row].get(name).unwrap().clone();
        assert_eq!(get(&first, 0, "calls"), Value::U64(2));
        assert_eq!(get(&first, 0, "faults_per_1000_calls"), Value::U64(3500));
        assert_eq!(get(&first, 0, "stall_ppm"), Value::U64(333_333));
        assert_eq!((get(&first, 0, "p50_ns"), get(&first, 0, "max_ns")), (Value::U64(0), Value::U64(1000)));
        assert_eq!((get(&first, 1, "calls"), get(&first, 1, "avg_ns")), (Value::U64(0), Value::Null));
        ledger.take([calls(&[0, 1000, 500], &[500]), Calls::default()].into_iter());
        let second = stages.interval(ledger.block(2, false));
        assert_eq!((get(&second, 0, "calls"), get(&second, 0, "max_ns")), (Value::U64(1), Value::U64(500)));
        assert_eq!(get(&second, 0, "total_ns"), Value::U64(500));
        let totals = stages.totals(ledger.block(3, true));
        assert_eq!((get(&totals, 0, "max_ns"), get(&totals, 0, "calls")), (Value::U64(1000), Value::U64(3)));
        assert_eq!(totals.sum, None);
    }

    #[test]
    fn what_is_not_timed_is_not_known() {
        let mut ledger = SpanLedger::new(["a:b".into()].into_iter(), Timing::None);
        ledger.take([calls(&[0, 0], &[0])].into_iter());
        let total = Stages::new().totals(ledger.block(1, true));
        for name in ["total_ns", "stall_ppm", "major_ns", "avg_ns", "p50_ns", "p99_ns", "max_ns", "min_ns"] {
            assert_eq!(total.rows[0].get(name), Some(&Value::Null), "{name}");
        }
        assert_eq!(total.rows[0].get("span_avg_ns"), Some(&Value::U64(1000)));
    }
}
