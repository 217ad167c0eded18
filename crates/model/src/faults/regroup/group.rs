//! What the faults of a row have come to.

use super::super::fault_columns::{FaultColumns, Values};
use super::super::messages::Counted;
use super::super::{Extremes, PART_NAMES, PARTS, Stats};
use super::columns::{Columns, Place};
use crate::field::Value;
use crate::table::Schema;

pub(super) use super::super::Outcome;

/// The columns that every row's figures are made of, and those of figures that not every table has.
const FIGURES: [&str; 2] = ["kind", "latency_ns"];
const MORE_FIGURES: [&str; 2] = ["wait_ns", "offset"];

/// The same of a table that has columns of these names.
pub(super) fn figures(has: impl Fn(&str) -> bool) -> impl Iterator<Item = &'static str> {
    let more = MORE_FIGURES.into_iter().chain(PART_NAMES).filter(move |name| has(name));
    FIGURES.into_iter().chain(more)
}

/// The columns that say whose a fault is, and where it was.
pub(super) const WHOSE: &[&str] =
    &["pid", "tid", "start_ns", "comm", "process_comm", "process_start_ns", "cgroup", "file"];

/// Where values are among the columns of a table of faults.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) table: &'static Schema,
    /// Of each column that rows copy.
    pub(super) copied: Vec<Place>,
    pub(super) pid: usize,
    pub(super) tid: usize,
    pub(super) comm: usize,
    pub(super) process_comm: usize,
    pub(super) start_ns: usize,
    pub(super) process_start_ns: usize,
    pub(super) file: usize,
    kind: usize,
    latency_ns: usize,
    wait_ns: usize,
    offset: usize,
    parts: [usize; PARTS],
}

impl Places {
    pub(super) fn of(table: &'static Schema, columns: &Columns) -> Self {
        // One that is not there is behind all others: its values are not known.
        let at = |name: &str| table.position(name).unwrap_or(usize::MAX);
        Self {
            table,
            copied: columns.copied.iter().map(|copied| copied.from.place(table)).collect(),
            pid: at("pid"),
            tid: at("tid"),
            comm: at("comm"),
            process_comm: at("process_comm"),
            start_ns: at("start_ns"),
            process_start_ns: at("process_start_ns"),
            file: at("file"),
            kind: at("kind"),
            latency_ns: at("latency_ns"),
            wait_ns: at("wait_ns"),
            offset: at("offset"),
            parts: PART_NAMES.map(at),
        }
    }

    /// What the words of a batch mean.
    pub(super) fn kinds(&self, batch: &FaultColumns) -> Kinds {
        let Values::Words(_, words) = batch.column(self.kind) else { return Kinds(vec![]) };
        Kinds(words.iter().map(|word| Outcome::named(word)).collect())
    }

    pub(super) fn latency(&self, batch: &FaultColumns, row: usize) -> Option<u64> {
        batch.column(self.latency_ns).number(row)
    }

    pub(super) fn has_waits(&self, batch: &FaultColumns) -> bool {
        *batch.column(self.wait_ns) != Values::Unknown
    }

    /// Which parts of the time are known of some of the faults.
    pub(super) fn know_parts(&self, batch: &FaultColumns, parts: &mut [bool; PARTS]) {
        for (is_known, at) in parts.iter_mut().zip(self.parts) {
            *is_known |= *batch.column(at) != Values::Unknown;
        }
    }

    fn wait(&self, batch: &FaultColumns, row: usize) -> Option<u64> {
        batch.column(self.wait_ns).number(row)
    }

    /// What messages take into account of a fault, if the kernel counted it.
    pub(super) fn counted<'a>(
        &self,
        batch: &'a FaultColumns,
        row: usize,
        kind: Option<Outcome>,
    ) -> Option<Counted<'a>> {
        let number = |at: usize| batch.column(at).number(row);
        let word = |at: usize| batch.column(at).word(row);
        Some(Counted {
            host: batch.host.as_ref(),
            time_ns: batch.times_ns()[row],
            pid: number(self.pid)?,
            tid: number(self.tid),
            start_ns: number(self.start_ns),
            process_start_ns: number(self.process_start_ns),
            comm: word(self.comm),
            process_comm: word(self.process_comm),
            is_major: match kind? {
                Outcome::Major => true,
                Outcome::Minor => false,
                Outcome::Failed => return None,
            },
            latency_ns: self.latency(batch, row),
            wait_ns: self.wait(batch, row),
            file: word(self.file),
        })
    }
}

/// How faults ended, by the places of the words.
pub(super) struct Kinds(Vec<Option<Outcome>>);

impl Kinds {
    pub(super) fn of(&self, batch: &FaultColumns, row: usize, places: &Places) -> Option<Outcome> {
        let Values::Words(codes, _) = batch.column(places.kind) else { return None };
        self.0.get(codes.get(row).copied().flatten()? as usize).copied().flatten()
    }
}

/// What is known of the faults of a recording.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) is_timed: bool,
    pub(super) has_waits: bool,
    /// What the time was spent on, as far as the variant saw it.
    pub(super) parts: [bool; PARTS],
    /// Stacks were taken of some.
    pub(super) is_part: bool,
    /// Histograms are wanted.
    pub(super) with_hist: bool,
}

/// What a row has come to.
#[derive(Debug)]
pub(super) struct Group {
    /// The numbers of the values of the columns that are copied, in their order.
    pub(super) values: Vec<u64>,
    pub(super) stats: Stats,
    pub(super) extremes: Extremes,
    pub(super) recent: Extremes,
    range: Option<(u64, u64)>,
    pub(super) is_news: bool,
}

impl Group {
    pub(super) fn new(values: Vec<u64>) -> Self {
        Self {
            values,
            stats: Stats::default(),
            extremes: Extremes::default(),
            recent: Extremes::default(),
            range: None,
            is_news: false,
        }
    }

    pub(super) fn fault(&mut self, batch: &FaultColumns, row: usize, kind: Option<Outcome>, places: &Places) {
        self.is_news = true;
        let stats = &mut self.stats;
        let is_major = match kind {
            Some(Outcome::Major) => true,
            Some(Outcome::Minor) => false,
            Some(Outcome::Failed) | None => {
                stats.failed += 1;
                return;
            }
        };
        *if is_major { &mut stats.major } else { &mut stats.minor } += 1;
        if let Some(offset) = batch.column(places.offset).number(row) {
            let (low, high) = self.range.unwrap_or((offset, offset));
            self.range = Some((low.min(offset), high.max(offset)));
        }
        if let Some(ns) = places.wait(batch, row) {
            (stats.waits, stats.wait_ns) = (stats.waits + u64::from(ns > 0), stats.wait_ns + ns);
        }
        for (sum, at) in stats.part_ns.iter_mut().zip(places.parts) {
            *sum += batch.column(at).number(row).unwrap_or(0);
        }
        let Some(ns) = places.latency(batch, row) else { return };
        if is_major {
            (stats.timed_major, stats.major_ns) = (stats.timed_major + 1, stats.major_ns + ns);
            stats.major_hist.count_one(ns);
        } else {
            (stats.timed_minor, stats.minor_ns) = (stats.timed_minor + 1, stats.minor_ns + ns);
        }
        stats.hist.count_one(ns);
        let one = Extremes { max_ns: ns, min_ns: ns };
        self.extremes.add(one);
        self.recent.add(one);
    }

    /// A figure that has this name in every table of faults.
    pub(super) fn figure(&self, name: &str, known: &Known, extremes: Extremes) -> Value {
        let stats = &self.stats;
        let Known { is_timed, has_waits, parts, with_hist, .. } = *known;
        let known = Some(extremes).filter(|extremes| extremes.min_ns <= extremes.max_ns);
        if let Some(part) = PART_NAMES.iter().position(|part| *part == name) {
            return Some(stats.part_ns[part]).filter(|_| parts[part]).into();
        }
        match name {
            "major" => stats.major.into(),
            "minor" => stats.minor.into(),
            "failed" => stats.failed.into(),
            "waits" => Some(stats.waits).filter(|_| has_waits).into(),
            "wait_ns" => Some(stats.wait_ns).filter(|_| has_waits).into(),
            "sampling" => is_timed.then_some(1_u64).into(),
            "timed_major" => stats.timed_major.into(),
            "timed_minor" => stats.timed_minor.into(),
            "timed_major_ns" => stats.major_ns.into(),
            "timed_minor_ns" => stats.minor_ns.into(),
            // None: all minor faults are timed.
            "slept_minor" | "slept_minor_ns" => 0_u64.into(),
            "times" => (&stats.hist).into(),
            "major_times" => (&stats.major_hist).into(),
            "with_hist" => with_hist.into(),
            "longest_ns" => known.map(|extremes| extremes.max_ns).into(),
            "shortest_ns" => known.map(|extremes| extremes.min_ns).into(),
            "offset" => self.range.map(|(low, _)| low).into(),
            "offset_end" => self.range.map(|(_, high)| high).into(),
            _ => Value::Null,
        }
    }
}
