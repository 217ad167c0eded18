//! Rows of page faults: what is in the ledger, and the figures that are made of it.

use super::group::{Key, container, pod};
use super::ledger::Figures;
use super::{Extremes, PART_NAMES, PARTS, Timing};
use crate::field::{Record, Value};
use crate::hist::Hist;

/// The name of what belongs to no other row.
const REST: &str = "(not attributed)";

/// What a row is made of.
pub(super) struct Row {
    pub(super) timing: Timing,
    /// Which parts of the time the variant sees.
    pub(super) parts: [bool; PARTS],
    /// It is seen that threads sleep in faults.
    pub(super) sees_waits: bool,
    /// Histograms are wanted.
    pub(super) hist: bool,
    pub(super) key: Key,
    pub(super) figures: Figures,
    pub(super) extremes: Extremes,
}

/// The key.
impl Row {
    /// Its parts.
    fn keys(&self) -> &[Key] {
        if let Key::Several(keys) = &self.key { keys } else { std::slice::from_ref(&self.key) }
    }

    fn part<'a, T>(&'a self, of: impl Fn(&'a Key) -> Option<T>) -> Option<T> {
        self.keys().iter().find_map(of)
    }

    /// A text of the key; a row without one has its name there.
    fn text<'a>(&'a self, of: impl Fn(&'a Key) -> Option<&'a str>) -> Option<&'a str> {
        self.part(of).or(match &self.key {
            Key::None => Some(&self.figures.name),
            Key::Rest => Some(REST),
            _ => None,
        })
    }

    pub(super) fn comm(&self) -> Option<&str> {
        self.text(|key| match key {
            Key::Thread(_) | Key::Process(_) => Some(&*self.figures.name),
            Key::Comm(name) => Some(name),
            _ => None,
        })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.part(|key| match key {
            Key::Thread(thread) => Some(thread.pid),
            Key::Process(process) => Some(process.pid),
            _ => None,
        })
    }

    pub(super) fn tid(&self) -> Option<u32> {
        self.part(|key| if let Key::Thread(thread) = key { Some(thread.tid) } else { None })
    }

    pub(super) fn start_ns(&self) -> Option<u64> {
        self.part(|key| match key {
            Key::Thread(thread) => Some(thread.start_ns),
            Key::Process(process) => Some(process.start_ns),
            _ => None,
        })
    }

    pub(super) fn cgroup(&self) -> Option<&str> {
        self.text(|key| if let Key::Cgroup(path) = key { Some(path) } else { None })
    }

    pub(super) fn container(&self) -> Option<&str> {
        self.cgroup().and_then(container)
    }

    pub(super) fn pod(&self) -> Option<String> {
        self.cgroup().and_then(pod)
    }

    pub(super) fn file(&self) -> Option<&str> {
        self.text(|key| match key {
            Key::File(file) => Some(&*file.path),
            Key::Rest => Some(REST),
            _ => None,
        })
    }

    pub(super) fn device(&self) -> Option<&str> {
        self.part(|key| if let Key::File(file) = key { file.device.as_deref() } else { None })
    }

    pub(super) fn inode(&self) -> Option<u64> {
        self.part(|key| if let Key::File(file) = key { file.inode } else { None })
    }

    pub(super) fn generation(&self) -> Option<u32> {
        self.part(|key| if let Key::File(file) = key { Some(file.generation) } else { None })
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.text(|key| if let Key::Cause(cause) = key { Some(cause.name()) } else { None })
    }

    /// What is no stack has its name there.
    pub(super) fn frames(&self) -> Option<&str> {
        self.text(|key| if let Key::Stack(stack) = key { Some(&*stack.frames) } else { None })
    }

    pub(super) fn lines(&self) -> Option<&str> {
        self.part(|key| if let Key::Stack(stack) = key { Some(&*stack.lines) } else { None })
    }

    /// Of frames without a name the file, if there are any.
    pub(super) fn binaries(&self) -> Option<&str> {
        self.part(|key| if let Key::Stack(stack) = key { Some(&*stack.binaries) } else { None })
            .filter(|binaries| !binaries.is_empty())
    }

    pub(super) fn function(&self) -> Option<&str> {
        self.text(|key| if let Key::Stack(stack) = key { Some(stack.function()) } else { None })
    }

    /// One in how many minor faults is timed, 0 for none; nothing if no fault is timed at all.
    pub(super) fn sampling(&self) -> Option<u32> {
        match self.timing {
            Timing::None => None,
            Timing::Major => Some(0),
            Timing::All(weight) => Some(weight),
        }
    }

    /// A figure of faults in which the thread slept.
    pub(super) fn of_waits(&self, figure: u64) -> Option<u64> {
        (self.timing != Timing::None && self.sees_waits).then_some(figure)
    }

    /// What the time was spent on.
    pub(super) fn part_ns(&self, n: usize) -> Option<u64> {
        let ns = self.figures.stats.part_ns.get(n).copied();
        ns.filter(|_| self.timing != Timing::None && self.parts.get(n) == Some(&true))
    }

    pub(super) fn extremes(&self) -> Option<Extremes> {
        self.extremes.known()
    }
}

/// The times, of a record's figures; what the variant cannot know is missing.
struct Times<'a> {
    record: &'a Record,
    weight: Option<u64>,
}

impl<'a> Times<'a> {
    fn of(record: &'a Record) -> Self {
        Self { record, weight: record.number("sampling") }
    }

    fn number(&self, name: &str) -> u64 {
        self.record.number(name).unwrap_or(0)
    }

    /// The time of minor faults, and how many faults are timed. Sampled: a timed minor fault stands for as many as there are
    /// to each, but for those in which the thread slept, which are all timed. The count is exact, the time is not.
    fn minor_ns_and_faults(&self) -> Option<(Option<u64>, u64)> {
        let weight = self.weight.filter(|&weight| weight > 0)?;
        let (minor, minor_ns) = (self.number("minor"), self.number("timed_minor_ns"));
        let (slept, slept_ns) = (self.number("slept_minor"), self.number("slept_minor_ns"));
        let (others, faults) = (minor.saturating_sub(slept), || self.number("major") + minor);
        Some(match self.number("timed_minor") {
            timed if weight == 1 => (Some(minor_ns), self.number("timed_major") + timed),
            0 => (Some(slept_ns).filter(|_| others == 0), faults()),
            timed => {
                let scaled = u128::from(minor_ns) * u128::from(others) / u128::from(timed);
                (Some(scaled as u64 + slept_ns), faults())
            }
        })
    }

    /// The time of all, and their number. Faults that were all taken inside the kernel on the thread's behalf may be counted
    /// and none of them timed.
    fn all(&self) -> Option<(u64, u64)> {
        let (minor_ns, faults) = self.minor_ns_and_faults()?;
        minor_ns.map(|minor_ns| (self.number("timed_major_ns") + minor_ns, faults)).filter(|_| faults > 0)
    }

    fn extremes(&self) -> Option<(u64, u64)> {
        let is_timed = self.weight.is_some_and(|weight| weight > 0);
        let extremes = (self.record.number("shortest_ns")?, self.record.number("longest_ns")?);
        Some(extremes).filter(|_| is_timed)
    }
}

pub(super) fn total_ns(record: &Record) -> Value {
    Times::of(record).all().map(|(total, _)| total).into()
}

/// What the other parts leave of the time.
pub(super) fn kernel_ns(record: &Record) -> Value {
    // Where it is not seen that threads sleep, nobody knows what is left.
    let others =
        record.number("io_ns").map(|_| PART_NAMES.iter().filter_map(|name| record.number(name)).sum::<u64>());
    Times::of(record).all().zip(others).map(|((total, _), others)| total.saturating_sub(others)).into()
}

pub(super) fn avg_ns(record: &Record) -> Value {
    Times::of(record).all().map(|(total, faults)| total / faults).into()
}

pub(super) fn major_ns(record: &Record) -> Value {
    let times = Times::of(record);
    let major_ns = times.number("timed_major_ns");
    match times.weight {
        None => Value::Null,
        Some(0) => major_ns.into(),
        Some(_) if times.number("timed_major") > 0 || times.number("major") == 0 => major_ns.into(),
        Some(_) => Value::Null,
    }
}

pub(super) fn max_ns(record: &Record) -> Value {
    Times::of(record).extremes().map(|(_, max)| max).into()
}

pub(super) fn min_ns(record: &Record) -> Value {
    Times::of(record).extremes().map(|(min, _)| min).into()
}

pub(super) fn quantile(record: &Record, q: f64) -> Value {
    let within = Times::of(record).extremes().zip(record.hist("times"));
    within.and_then(|((min, max), hist): (_, &Hist)| hist.quantile(q, min, max)).into()
}

pub(super) fn timed(record: &Record) -> Value {
    let times = Times::of(record);
    (times.number("timed_major") + times.number("timed_minor") + times.number("slept_minor")).into()
}

/// The histogram of that name by octave, where it is wanted and faults are timed; all faults only where minor ones are.
fn octaves(record: &Record, name: &str, least: u64) -> Value {
    let is_wanted = record.get("with_hist") == Some(&Value::Bool(true));
    let is_known = is_wanted && Times::of(record).weight.is_some_and(|weight| weight >= least);
    record.hist(name).filter(|_| is_known).map(Hist::octaves).into()
}

pub(super) fn buckets(record: &Record) -> Value {
    octaves(record, "times", 1)
}

pub(super) fn major_buckets(record: &Record) -> Value {
    octaves(record, "major_times", 0)
}
