//! What single faults say about a program.

use std::collections::{HashMap, HashSet};

use super::rules::{self, Rule};
use super::words::{percent, thousands, time};
use super::{Confidence, Finding, Process};
use crate::faults::Cause;
use crate::field::{Record, Value};
use crate::table::Schema;

/// A read this far behind the last one, or nearer, is in order: readahead reads up to so much at once.
const NEAR: u64 = 1 << 20;
/// Reads are scattered if so many of a hundred are not in order.
const SCATTERED_PERCENT: u64 = 60;
/// Pages come back if so many of a hundred reads are of a page that was read before.
const AGAIN_PERCENT: u64 = 20;
/// Processes, and files and causes of each, that are told apart at most; and pages of files.
const MOST_GROUPS: usize = 1 << 16;
const MOST_PAGES: usize = 1 << 20;
const PAGE: u64 = 4096;

/// The parts of a fault's time that rules are about, and the rules.
const PARTS: [(&str, &Rule); 3] =
    [("lock_ns", &rules::LOCK_WAITS), ("reclaim_ns", &rules::RECLAIM), ("throttled_ns", &rules::THROTTLED)];

/// Where values are in the record of a fault.
#[derive(Debug, Clone, Copy)]
struct Places {
    schema: &'static Schema,
    pid: usize,
    tid: usize,
    comm: usize,
    kind: usize,
    latency_ns: usize,
    cause: usize,
    file: usize,
    offset: usize,
    parts: [Option<usize>; PARTS.len()],
}

impl Places {
    fn new(schema: &'static Schema) -> Option<Self> {
        let at = |name: &str| schema.position(name);
        Some(Self {
            schema,
            pid: at("pid")?,
            tid: at("tid")?,
            comm: at("comm")?,
            kind: at("kind")?,
            latency_ns: at("latency_ns")?,
            cause: at("cause")?,
            file: at("file")?,
            offset: at("offset")?,
            parts: PARTS.map(|(name, _)| at(name)),
        })
    }
}

/// A number of faults and their time.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    ns: u64,
}

impl Sum {
    fn add(&mut self, ns: u64) {
        self.count += 1;
        self.ns += ns;
    }
}

/// Reads of a file by a process.
#[derive(Debug, Default)]
struct Reads {
    /// Faults that read from disk.
    read: Sum,
    /// Faults that waited for a read that was under way.
    waited: Sum,
    /// Of the reads, those that are not in order, of a page that was read before, and those that have one before them.
    far: u64,
    again: u64,
    compared: u64,
    /// By thread, where it read last.
    last: HashMap<u64, u64>,
    pages: HashSet<u64>,
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Own {
    comm: String,
    is_named: bool,
    all: Sum,
    /// By cause, with the file that has most of the time.
    causes: HashMap<Box<str>, HashMap<Option<Box<str>>, Sum>>,
    parts: [Sum; PARTS.len()],
    /// By file.
    reads: HashMap<Box<str>, Reads>,
}

/// What the faults of a run say.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    places: Option<Places>,
    processes: HashMap<u64, Own>,
    groups: usize,
    pages: usize,
    pub(super) seen: u64,
    pub(super) all_ns: u64,
    /// Parts that some fault had.
    knows: [bool; PARTS.len()],
    knows_cause: bool,
}

impl Evidence {
    /// Takes one fault.
    pub(super) fn fault(&mut self, fault: &Record) {
        let schema = fault.schema();
        if self.places.is_none_or(|places| *places.schema != *schema) {
            self.places = Places::new(schema);
        }
        let Some(places) = self.places else { return };
        let number = |at: usize| if let Value::U64(n) = fault.values[at] { Some(n) } else { None };
        let text =
            |at: usize| if let Value::Str(text) = &fault.values[at] { Some(text.as_ref()) } else { None };
        let (Some(pid), Some(tid)) = (number(places.pid), number(places.tid)) else { return };
        let Some(ns) = number(places.latency_ns) else { return };
        self.seen += 1;
        self.all_ns += ns;
        if !self.processes.contains_key(&pid) && self.processes.len() >= MOST_GROUPS {
            return;
        }
        let own = self.processes.entry(pid).or_default();
        if own.comm.is_empty() || tid == pid && !own.is_named {
            own.comm = text(places.comm).unwrap_or_default().to_owned();
            own.is_named = tid == pid;
        }
        own.all.add(ns);
        // Time that a rule about a part has is not another rule's, too.
        let mut own_ns = ns;
        for ((sum, at), knows) in own.parts.iter_mut().zip(places.parts).zip(&mut self.knows) {
            let Some(ns) = at.and_then(number) else { continue };
            *knows = true;
            if ns > 0 {
                sum.add(ns);
                own_ns = own_ns.saturating_sub(ns);
            }
        }
        let (cause, file) = (text(places.cause), text(places.file));
        if let Some(cause) = cause {
            self.knows_cause = true;
            let of = own.causes.entry(cause.into()).or_default();
            let file: Option<Box<str>> = file.map(Box::from);
            if of.contains_key(&file) || self.groups < MOST_GROUPS {
                self.groups += usize::from(!of.contains_key(&file));
                of.entry(file).or_default().add(own_ns);
            }
        }
        let is_read = text(places.kind) == Some("major");
        let is_wait = cause == Some(Cause::FileWait.name());
        let Some(file) = file.filter(|file| (is_read || is_wait) && file.starts_with('/')) else { return };
        if !own.reads.contains_key(file) {
            if self.groups >= MOST_GROUPS {
                return;
            }
            self.groups += 1;
        }
        let reads = own.reads.entry(file.into()).or_default();
        let Some(offset) = number(places.offset).filter(|_| is_read) else {
            if is_wait { &mut reads.waited } else { &mut reads.read }.add(own_ns);
            return;
        };
        reads.read.add(own_ns);
        if let Some(last) = reads.last.insert(tid, offset) {
            reads.compared += 1;
            reads.far += u64::from(!(last..=last + NEAR).contains(&offset));
        }
        let page = offset / PAGE;
        if reads.pages.contains(&page) {
            reads.again += 1;
        } else if self.pages < MOST_PAGES {
            self.pages += 1;
            reads.pages.insert(page);
        }
    }

    /// The rules that lack figures.
    pub(super) fn not_judged(&self) -> Vec<&'static Rule> {
        let parts = PARTS.iter().zip(self.knows).filter(|(_, knows)| !knows).map(|((_, rule), _)| *rule);
        let causes = CAUSES.iter().map(|(rule, ..)| *rule).filter(|_| !self.knows_cause);
        if self.seen == 0 { vec![] } else { parts.chain(causes).collect() }
    }

    /// What stands out in a run of this duration.
    pub(super) fn findings(&self, duration_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        for (pid, own) in &self.processes {
            let of = Of { pid: *pid, own, duration_ns };
            found.extend(own.reads.iter().filter_map(|(file, reads)| of.reads(file, reads)));
            found.extend(CAUSES.iter().filter_map(|(rule, causes, words)| of.cause(rule, causes, words)));
            let parts = PARTS.iter().zip(own.parts).zip(PART_WORDS);
            found.extend(parts.filter_map(|(((_, rule), sum), words)| of.part(rule, sum, words)));
        }
        found
    }
}

/// Rules about causes, and what the process did, before and after its name.
const CAUSES: &[(&Rule, &[Cause], &str)] = &[
    (&rules::SWAP_IN, &[Cause::SwapIn], "waits for memory that was swapped out"),
    (
        &rules::FIRST_TOUCH,
        &[Cause::ZeroFill, Cause::HugePage],
        "spends its time on the first use of fresh memory",
    ),
    (&rules::COPY_ON_WRITE, &[Cause::CopyOnWrite], "copies memory that it shares since a fork, page by page"),
    (
        &rules::NUMA_HINTS,
        &[Cause::NumaHint],
        "faults on pages that the scheduler hides to see which node uses them",
    ),
    (
        &rules::USERFAULTFD,
        &[Cause::Userfaultfd],
        "waits for the program that serves its faults through userfaultfd",
    ),
    (&rules::WRITE_NOTIFY, &[Cause::WriteNotify], "reports first writes to clean pages to the file system"),
];

const PART_WORDS: [&str; PARTS.len()] = [
    "waits for the lock of its address space",
    "frees memory in its faults before it gets a page",
    "is slowed down because its cgroup is above memory.high",
];

/// A process, and the run.
#[derive(Debug, Clone, Copy)]
struct Of<'a> {
    pid: u64,
    own: &'a Own,
    duration_ns: u64,
}

impl Of<'_> {
    fn name(&self) -> String {
        format!("{} ({})", self.own.comm, self.pid)
    }

    fn finding(&self, rule: &'static Rule, (count, cost_ns): (u64, u64)) -> Option<Finding> {
        rule.is_met(count, cost_ns, self.duration_ns).then(|| Finding {
            process: Some(Process { pid: self.pid, comm: self.own.comm.clone() }),
            ..Finding::new(rule, count, cost_ns, self.duration_ns)
        })
    }

    /// How it reads a file.
    fn reads(&self, file: &str, reads: &Reads) -> Option<Finding> {
        let Reads { read, waited, .. } = reads;
        let cost_ns = read.ns + waited.ns;
        let (name, took) = (self.name(), time(cost_ns));
        let mean = time(read.ns.checked_div(read.count)?);
        let about = |finding: Finding, confidence, text: String, evidence: String| Finding {
            subject: Some(file.to_owned()),
            confidence,
            text,
            evidence,
            ..finding
        };
        if reads.again * 100 >= read.count * AGAIN_PERCENT {
            return self.finding(&rules::THRASH, (reads.again, cost_ns)).map(|finding| {
                let text = format!("{name} reads pages of {file} from disk again and again: {took}");
                let evidence = format!(
                    "{} of {} reads are of a page that this process had read before ({} different pages); {mean} each",
                    thousands(reads.again),
                    thousands(read.count),
                    thousands(reads.pages.len() as u64),
                );
                about(finding, Confidence::Certain, text, evidence)
            });
        }
        let far = (reads.far * 100).checked_div(reads.compared).unwrap_or(0);
        if far >= SCATTERED_PERCENT {
            return self.finding(&rules::RANDOM_READS, (read.count, cost_ns)).map(|finding| {
                let text = format!("{name} reads {file} at scattered offsets and waits for the disk: {took}");
                let evidence = format!(
                    "{} major faults, {far} % of them not within 1 MiB after the one before; {mean} each",
                    thousands(read.count)
                );
                let confidence = if far >= 80 { Confidence::Certain } else { Confidence::Likely };
                about(finding, confidence, text, evidence)
            });
        }
        self.finding(&rules::SEQUENTIAL_READS, (read.count + waited.count, cost_ns)).map(|finding| {
            let text = format!("{name} reads {file} in order and waits for the disk: {took}");
            let evidence = format!(
                "{} major faults, {} % of them within 1 MiB after the one before; {} more waited for a read that was under way",
                thousands(read.count),
                100 - far,
                thousands(waited.count)
            );
            about(finding, Confidence::Likely, text, evidence)
        })
    }

    /// What its faults were for.
    fn cause(&self, rule: &'static Rule, causes: &[Cause], words: &str) -> Option<Finding> {
        let of = || causes.iter().filter_map(|cause| self.own.causes.get(cause.name())).flatten();
        let (count, ns) = of().fold((0, 0), |(count, ns), (_, sum)| (count + sum.count, ns + sum.ns));
        let finding = self.finding(rule, (count, ns))?;
        let (most, sum) = of().max_by_key(|(file, sum)| (sum.ns, *file))?;
        let subject = most.as_deref().map(str::to_owned);
        let place = subject
            .as_ref()
            .map_or(String::new(), |file| format!("; {} of that in {file}", percent(sum.ns, ns)));
        Some(Finding {
            confidence: Confidence::Certain,
            text: format!("{} {words}: {}", self.name(), time(ns)),
            evidence: format!(
                "{} faults, {} each, {} of the time of its faults{place}",
                thousands(count),
                time(ns.checked_div(count)?),
                percent(ns, self.own.all.ns)
            ),
            subject,
            ..finding
        })
    }

    /// What their time was spent on.
    fn part(&self, rule: &'static Rule, sum: Sum, words: &str) -> Option<Finding> {
        let finding = self.finding(rule, (sum.count, sum.ns))?;
        Some(Finding {
            confidence: Confidence::Certain,
            text: format!("{} {words}: {}", self.name(), time(sum.ns)),
            evidence: format!(
                "{} of its {} faults, {} each, {} of the time of its faults",
                thousands(sum.count),
                thousands(self.own.all.count),
                time(sum.ns.checked_div(sum.count)?),
                percent(sum.ns, self.own.all.ns)
            ),
            ..finding
        })
    }
}
