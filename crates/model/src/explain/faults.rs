//! What single faults say about a program.

use std::collections::{HashMap, HashSet};

use super::rules::{self, Rule};
use super::unjudged::Unjudged;
use super::words::{counted, percent, thousands, time};
use super::{Confidence, Finding, Process};
use crate::faults::{Cause, SLOW_EVENT, have_parts, sum_known};
use crate::field::{Record, Value};
use crate::item::{Block, Facts, Header};
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

/// What the rules look at in a fault; nothing of what is not known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen<'a> {
    pub(super) pid: Option<u64>,
    pub(super) tid: Option<u64>,
    pub(super) comm: Option<&'a str>,
    pub(super) process_comm: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) latency_ns: Option<u64>,
    pub(super) cause: Option<&'a str>,
    pub(super) file: Option<&'a str>,
    pub(super) offset: Option<u64>,
    pub(super) addr: Option<u64>,
    pub(super) preempted_ns: Option<u64>,
    pub(super) parts: [Option<u64>; PARTS.len()],
}

impl<'a> Seen<'a> {
    /// The columns of numbers, those of texts, and where their values go.
    #[allow(clippy::type_complexity, reason = "two lists of names")]
    pub(super) fn places<'s>(
        &'s mut self,
    ) -> ([(&'static str, &'s mut Option<u64>); 9], [(&'static str, &'s mut Option<&'a str>); 5]) {
        let [lock, reclaim, throttled] = &mut self.parts;
        let numbers = [
            ("pid", &mut self.pid),
            ("tid", &mut self.tid),
            ("latency_ns", &mut self.latency_ns),
            ("offset", &mut self.offset),
            ("addr", &mut self.addr),
            ("preempted_ns", &mut self.preempted_ns),
            (PARTS[0].0, lock),
            (PARTS[1].0, reclaim),
            (PARTS[2].0, throttled),
        ];
        let texts = [
            ("comm", &mut self.comm),
            ("process_comm", &mut self.process_comm),
            ("kind", &mut self.kind),
            ("cause", &mut self.cause),
            ("file", &mut self.file),
        ];
        (numbers, texts)
    }

    fn of(fault: &'a Record, at: &Places) -> Self {
        let mut seen = Self::default();
        let (numbers, texts) = seen.places();
        for ((_, number), at) in numbers.into_iter().zip(at.numbers) {
            *number = at.and_then(|at| if let Value::U64(n) = fault.values[at] { Some(n) } else { None });
        }
        for ((_, text), at) in texts.into_iter().zip(at.texts) {
            *text = at.and_then(|at| {
                if let Value::Str(text) = &fault.values[at] { Some(text.as_ref()) } else { None }
            });
        }
        seen
    }
}

/// Where values are in the record of a fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    schema: &'static Schema,
    pub(super) numbers: [Option<usize>; 9],
    pub(super) texts: [Option<usize>; 5],
}

impl Places {
    pub(super) fn new(schema: &'static Schema) -> Self {
        let mut seen = Seen::default();
        let (numbers, texts) = seen.places();
        Self {
            schema,
            numbers: numbers.map(|(name, _)| schema.position(name)),
            texts: texts.map(|(name, _)| schema.position(name)),
        }
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

    fn more(&mut self, other: Self) {
        self.count += other.count;
        self.ns += other.ns;
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

impl Reads {
    /// All faults that took their time for the disk.
    fn all(&self) -> Sum {
        let mut all = self.read;
        all.more(self.waited);
        all
    }

    /// How many did not read themselves, as a part of evidence.
    fn waited(&self) -> String {
        format!("; {} more waited for a read that was under way", thousands(self.waited.count))
    }
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Own {
    /// Its name at its last fault: that of the program which it had become.
    comm: String,
    /// How often it forked, and which process forked it, where that is known.
    forks: Option<u64>,
    forked_by: Option<u64>,
    all: Sum,
    /// By cause and file; that of those without one is empty.
    causes: HashMap<Box<str>, HashMap<Box<str>, Sum>>,
    parts: [Sum; PARTS.len()],
    /// By file.
    reads: HashMap<Box<str>, Reads>,
}

impl Own {
    /// Adds what faults of another process were for, and what their time was spent on.
    fn add(&mut self, other: &Self) {
        self.all.more(other.all);
        for (sum, other) in self.parts.iter_mut().zip(other.parts) {
            sum.more(other);
        }
        for (cause, files) in &other.causes {
            let of = self.causes.entry(cause.clone()).or_default();
            files.iter().for_each(|(file, sum)| of.entry(file.clone()).or_default().more(*sum));
        }
        for (file, other) in &other.reads {
            let reads = self.reads.entry(file.clone()).or_default();
            reads.read.more(other.read);
            reads.waited.more(other.waited);
        }
        self.forks = sum_known(self.forks, other.forks);
    }

    /// What the faults of a cause on a file took, and whether there were none yet; nothing if those can be no more.
    fn of_cause(&mut self, cause: &str, file: &str, has_space: bool) -> Option<(&mut Sum, bool)> {
        let is_known = self.causes.get(cause).is_some_and(|of| of.contains_key(file));
        if !is_known {
            if !has_space {
                return None;
            }
            self.causes.entry(cause.into()).or_default().insert(file.into(), Sum::default());
        }
        Some((self.causes.get_mut(cause)?.get_mut(file)?, !is_known))
    }

    /// The faults on a file that found their page in memory.
    fn found_in_memory(&self, file: &str) -> u64 {
        let of = self.causes.get(Cause::FileMap.name());
        of.and_then(|files| files.get(file)).map_or(0, |sum| sum.count)
    }
}

/// A file system that a program or another machine serves.
#[derive(Debug)]
struct Served {
    kind: String,
    /// Where it is mounted.
    at: String,
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
    /// Nothing if the run does not say.
    served: Option<Vec<Served>>,
    /// The run does not have the parts of the time.
    is_whole: bool,
    missing: Missing,
}

/// What rules needed and did not get.
#[derive(Debug, Default)]
struct Missing {
    /// Why the run has no causes, if it says so.
    causes: Option<String>,
    /// Faults whose cause is not known.
    cause: Sum,
    /// Faults of which it is not known whether they are reads.
    kind: Sum,
    /// Reads of which it is not known of what, and those of which it is not known where in the file.
    file: Sum,
    offset: Sum,
    /// Faults without a time or a thread, and the longest of the others.
    untimed: u64,
    /// Faults without an address, which were only counted.
    counted: u64,
    longest_ns: u64,
    /// Faults for which there were too many processes or files, and reads for which there were too many pages.
    crowded: u64,
    pages: u64,
}

impl Evidence {
    /// Takes what the header says of the run.
    pub(super) fn header(&mut self, header: &Header) {
        let are_faults = header.tool == "faults";
        self.places = header.events.filter(|_| are_faults).map(Places::new);
        self.is_whole = !have_parts(header);
        if let Some(Value::Str(mounts)) = header.setting("served_mounts") {
            self.mounts(mounts);
        }
        if let Some(Value::Str(why)) = header.setting("causes_unknown") {
            self.missing.causes = Some(why.to_string());
        }
    }

    /// Takes the mounts that a program or another machine serves, as the header has them.
    fn mounts(&mut self, served: &str) {
        let lines = served.lines().filter_map(|line| line.split_once(' '));
        let mounts = lines.map(|(kind, at)| Served { kind: kind.to_owned(), at: at.to_owned() });
        self.served = Some(mounts.collect());
    }

    /// Takes one fault.
    pub(super) fn fault(&mut self, fault: &Record) {
        let schema = fault.schema();
        let places = match self.places {
            Some(places) if *places.schema == *schema => places,
            _ => *self.places.insert(Places::new(schema)),
        };
        self.add(&Seen::of(fault, &places));
    }

    /// Takes what is known of one fault.
    pub(super) fn add(&mut self, fault: &Seen<'_>) {
        let (Some(pid), Some(tid), Some(ns)) = (fault.pid, fault.tid, fault.latency_ns) else {
            let missing = &mut self.missing;
            *(if fault.addr.is_none() { &mut missing.counted } else { &mut missing.untimed }) += 1;
            return;
        };
        self.seen += 1;
        self.all_ns += ns;
        self.missing.longest_ns = self.missing.longest_ns.max(ns);
        if self.processes.len() >= MOST_GROUPS && !self.processes.contains_key(&pid) {
            self.missing.crowded += 1;
            return;
        }
        let own = self.processes.entry(pid).or_default();
        // Older recordings do not have the name of a process: it is that of its first thread.
        let comm = fault.process_comm;
        let comm = comm.or_else(|| fault.comm.filter(|_| tid == pid || own.comm.is_empty()));
        if let Some(comm) = comm.filter(|comm| *comm != own.comm) {
            own.comm = comm.to_owned();
        }
        // Time in which something else ran is no fault's; and what a rule about a part has is not another rule's, too.
        let mut own_ns = ns.saturating_sub(fault.preempted_ns.unwrap_or(0));
        own.all.add(own_ns);
        for ((sum, part), knows) in own.parts.iter_mut().zip(fault.parts).zip(&mut self.knows) {
            let Some(ns) = part else { continue };
            *knows = true;
            if ns > 0 {
                sum.add(ns);
                own_ns = own_ns.saturating_sub(ns);
            }
        }
        let (cause, file) = (fault.cause.filter(|cause| *cause != Cause::Unknown.name()), fault.file);
        match cause {
            None => self.missing.cause.add(own_ns),
            Some(cause) => {
                self.knows_cause = true;
                match own.of_cause(cause, file.unwrap_or_default(), self.groups < MOST_GROUPS) {
                    Some((sum, is_new)) => {
                        self.groups += usize::from(is_new);
                        sum.add(own_ns);
                    }
                    None => self.missing.crowded += 1,
                }
            }
        }
        if fault.kind.is_none() {
            self.missing.kind.add(own_ns);
        }
        let is_read = fault.kind == Some("major");
        let is_wait = cause == Some(Cause::FileWait.name());
        if !is_read && !is_wait {
            return;
        }
        let Some(file) = file.filter(|file| is_file(file)) else {
            // Memory that is no file's has a name, too.
            if file.is_none_or(|file| file.starts_with('(')) {
                self.missing.file.add(own_ns);
            }
            return;
        };
        if !own.reads.contains_key(file) {
            if self.groups >= MOST_GROUPS {
                self.missing.crowded += 1;
                return;
            }
            self.groups += 1;
            own.reads.insert(file.into(), Reads::default());
        }
        let Some(reads) = own.reads.get_mut(file) else { return };
        let Some(offset) = fault.offset.filter(|_| is_read) else {
            if is_read {
                self.missing.offset.add(own_ns);
            }
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
        } else {
            self.missing.pages += 1;
        }
    }

    /// Processes with the same name, if there are several: their number, and what they did together.
    fn programs(&self) -> HashMap<&str, (usize, Own)> {
        let mut programs: HashMap<&str, (usize, Own)> = HashMap::new();
        for own in self.processes.values() {
            let (processes, all) = programs.entry(&own.comm).or_default();
            all.comm.clone_from(&own.comm);
            *processes += 1;
            all.add(own);
        }
        programs.retain(|_, (processes, _)| *processes > 1);
        programs
    }

    /// Takes the totals of threads, which say who forked whom.
    pub(super) fn totals(&mut self, block: &Block) {
        for row in &block.rows {
            let Some(own) = row.number("pid").and_then(|pid| self.processes.get_mut(&pid)) else { continue };
            own.forks = sum_known(own.forks, row.number("forks"));
            own.forked_by = own.forked_by.or(row.number("forked_by"));
        }
    }

    /// How many rules there are for the faults of a run, if it is one of faults.
    pub(super) fn rules(&self) -> Option<usize> {
        self.places.map(|_| rules_of_faults().count())
    }

    /// The rules that lack figures.
    pub(super) fn not_judged(&self, end: &Facts, unjudged: &mut Unjudged) {
        let Some(places) = self.places else { return };
        let (missing, causes) = (&self.missing, || CAUSES.iter().map(|(rule, ..)| *rule));
        if *places.schema == *SLOW_EVENT {
            unjudged
                .add(rules_of_faults(), || "only faults that took longer than a limit were recorded".into());
        }
        for ((name, rule), knows) in PARTS.iter().zip(self.knows) {
            if places.schema.position(name).is_none() || self.is_whole {
                unjudged.add([*rule], || "recorded without --split".into());
            } else if self.seen > 0 && !knows {
                unjudged.add([*rule], || "the variant does not see that part of the time".into());
            }
        }
        if let Some(why) = &missing.causes {
            unjudged.add(causes(), || format!("the causes of faults could not be found: {why}"));
        }
        if self.seen > 0 && !self.knows_cause {
            unjudged.add(causes(), || "the cause of no fault is known".into());
        }
        if self.served.is_none() {
            unjudged.add([&rules::SLOW_FILE_SYSTEM], || "which file systems are served is not known".into());
        }
        let could = |sum: Sum| {
            let is_met = move |rule: &&Rule| rule.is_met(sum.count, sum.ns, end.duration_ns);
            (is_met, format!("{} of {}, {}", thousands(sum.count), counted(self.seen, "fault"), time(sum.ns)))
        };
        let (is_met, of) = could(missing.cause);
        unjudged.add(causes().filter(is_met), || format!("the cause of {of} is not known"));
        let (is_met, of) = could(missing.kind);
        unjudged.add(READS.iter().copied().filter(is_met), || {
            format!("whether {of} read from disk is not known")
        });
        let (is_met, of) = could(missing.file);
        unjudged.add(READS.iter().copied().filter(is_met), || format!("the file of {of} is not known"));
        let (is_met, of) = could(missing.offset);
        unjudged.add(ORDERS.iter().copied().filter(is_met), || {
            format!("the place in the file of {of} is not known")
        });
        if missing.pages >= rules::THRASH.least_count {
            unjudged.add([&rules::THRASH], || {
                format!("{} of pages beyond {MOST_PAGES} are not compared", counted(missing.pages, "read"))
            });
        }
        // Those that the kernel has in place of the program, while it loads it or maps pages ahead, are only counted: nobody waits in them.
        let untimed = if self.seen == 0 { missing.counted } else { 0 } + missing.untimed;
        let lost = [
            (missing.crowded, "of too many processes and files to keep apart: "),
            (untimed, "without a time or a thread: "),
            (end.lost_events, "lost: "),
            (end.get("missed_programs").unwrap_or(0), "not seen: "),
        ];
        for (count, why) in lost {
            // As if each had been as long as the longest that was seen.
            let ns = count.saturating_mul(missing.longest_ns);
            let could_be =
                |rule: &&Rule| count > 0 && (self.seen == 0 || rule.is_met(count, ns, end.duration_ns));
            unjudged.add(rules_of_faults().filter(could_be), || format!("{why}{}", counted(count, "fault")));
        }
        if let Some(threads @ 1..) = end.get("untracked_threads") {
            unjudged.add(rules_of_faults(), || format!("{} not traced", counted(threads, "thread")));
        }
    }

    /// What stands out in a run of this duration.
    pub(super) fn findings(&self, duration_ns: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        for (pid, own) in &self.processes {
            let of = Of { whose: Whose::Process(*pid), own, all: self, duration_ns };
            let reads: Vec<Finding> =
                own.reads.iter().filter_map(|(file, reads)| of.reads(file, reads)).collect();
            found.extend(of.cold_files(&reads));
            found.extend(reads);
            found.extend(of.causes_and_parts());
        }
        for (comm, (processes, own)) in self.programs() {
            let of = Of { whose: Whose::Program(processes), own: &own, all: self, duration_ns };
            // What one of them has alone is its own finding.
            let of_them = |said: &&Finding| said.process.as_ref().is_some_and(|of| of.comm == comm);
            let said: Vec<Finding> = found.iter().filter(of_them).cloned().collect();
            let is_said = |finding: &Finding| said.iter().any(|said| said.rule == finding.rule);
            let more: Vec<Finding> = of
                .causes_and_parts()
                .chain(of.cold_files(&said))
                .filter(|finding| !is_said(finding))
                .collect();
            found.extend(more);
        }
        found
    }
}

/// Whether that is a file's name: its path, the end of one that is too long, or its number where there was no space for its name.
fn is_file(name: &str) -> bool {
    name.starts_with('/') || name.starts_with('…') || name.starts_with("[inode ")
}

/// Rules about reads of files, and those of them that need the order of reads.
const READS: &[&Rule] = &[
    &rules::RANDOM_READS,
    &rules::SEQUENTIAL_READS,
    &rules::THRASH,
    &rules::COLD_FILES,
    &rules::SLOW_FILE_SYSTEM,
];
const ORDERS: &[&Rule] = &[&rules::RANDOM_READS, &rules::SEQUENTIAL_READS, &rules::THRASH];

fn rules_of_faults() -> impl Iterator<Item = &'static Rule> {
    let causes = CAUSES.iter().map(|(rule, ..)| *rule);
    READS.iter().copied().chain(causes).chain(PARTS.iter().map(|(_, rule)| *rule))
}

/// Rules about causes, and what the process did, before and after its name.
const CAUSES: &[(&Rule, Cause, &str)] = &[
    (&rules::SWAP_IN, Cause::SwapIn, "waits for memory that was swapped out"),
    (&rules::FIRST_TOUCH, Cause::ZeroFill, "spends its time on the first use of fresh memory"),
    (&rules::HUGE_PAGES, Cause::HugePage, "spends its time on clearing fresh huge pages"),
    (&rules::SHARED_MEMORY, Cause::Shmem, "spends its time on the first use of shared memory"),
    (&rules::COPY_ON_WRITE, Cause::CopyOnWrite, "copies memory that it shares since a fork, page by page"),
    (
        &rules::NUMA_HINTS,
        Cause::NumaHint,
        "faults on pages that the scheduler hides to see which node uses them",
    ),
    (
        &rules::USERFAULTFD,
        Cause::Userfaultfd,
        "waits for the program that serves its faults through userfaultfd",
    ),
    (&rules::WRITE_NOTIFY, Cause::WriteNotify, "reports first writes to clean pages to the file system"),
];

const PART_WORDS: [&str; PARTS.len()] = [
    "waits for the lock of its address space",
    "frees memory in its faults before it gets a page",
    "is slowed down because its cgroup is above memory.high",
];

#[derive(Debug, Clone, Copy)]
enum Whose {
    Process(u64),
    /// So many processes of one name.
    Program(usize),
}

/// Whose faults, and the run.
#[derive(Debug, Clone, Copy)]
struct Of<'a> {
    whose: Whose,
    own: &'a Own,
    all: &'a Evidence,
    duration_ns: u64,
}

impl Of<'_> {
    fn name(&self) -> String {
        match self.whose {
            Whose::Process(pid) => format!("{} ({pid})", self.own.comm),
            Whose::Program(processes) => format!("{} ({processes} processes)", self.own.comm),
        }
    }

    fn causes_and_parts(&self) -> impl Iterator<Item = Finding> {
        let causes = CAUSES.iter().filter_map(|(rule, cause, words)| self.cause(rule, *cause, words));
        let parts = PARTS.iter().zip(self.own.parts).zip(PART_WORDS);
        causes.chain(parts.filter_map(|(((_, rule), sum), words)| self.part(rule, sum, words)))
    }

    fn finding(&self, rule: &'static Rule, (count, cost_ns): (u64, u64)) -> Option<Finding> {
        rule.is_met(count, cost_ns, self.duration_ns).then(|| Finding {
            process: Some(Process {
                pid: if let Whose::Process(pid) = self.whose { Some(pid) } else { None },
                comm: self.own.comm.clone(),
            }),
            ..Finding::new(rule, count, cost_ns, self.duration_ns)
        })
    }

    /// Who forked, and how often, as the last part of evidence.
    fn forks(&self) -> String {
        let by = self.own.forked_by.map(|by| {
            let name = self.all.processes.get(&by).map_or(String::new(), |own| format!("{} ", own.comm));
            format!("; it was forked by {name}({by})")
        });
        match (self.own.forks, by) {
            (Some(forks @ 1..), by) => {
                format!("; it forked {}{}", counted(forks, "time"), by.unwrap_or_default())
            }
            (_, Some(by)) => by,
            (Some(0), None) => "; it did not fork in this time: what it shares is from before".into(),
            (None, None) => String::new(),
        }
    }

    /// How it reads several files, those without the ones that have a finding of their own.
    fn cold_files(&self, said: &[Finding]) -> Option<Finding> {
        let is_said = |file: &str| said.iter().any(|said| said.subject.as_deref() == Some(file));
        let files = || self.own.reads.iter().filter(|(file, _)| !is_said(file));
        let mut all = Sum::default();
        files().for_each(|(_, reads)| all.more(reads.all()));
        let (most, reads) = files().max_by_key(|(file, reads)| (reads.all().ns, *file))?;
        let finding =
            self.finding(&rules::COLD_FILES, (all.count, all.ns)).filter(|_| files().count() > 1)?;
        Some(Finding {
            subject: Some(most.to_string()),
            text: format!(
                "{} waits for the disk at pages of {} files: {}",
                self.name(),
                thousands(files().count() as u64),
                time(all.ns)
            ),
            evidence: format!(
                "{} read pages or waited for them, {} each; {} of the time in {most}",
                counted(all.count, "fault"),
                time(all.ns.checked_div(all.count)?),
                percent(reads.all().ns, all.ns)
            ),
            ..finding
        })
    }

    /// The served file system that a file is on, if it is on one.
    fn served(&self, file: &str) -> Option<&Served> {
        let is_below = |served: &&Served| {
            let below = file.strip_prefix(served.at.trim_end_matches('/'));
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        self.all.served.iter().flatten().filter(is_below).max_by_key(|served| served.at.len())
    }

    /// How it reads a file.
    fn reads(&self, file: &str, reads: &Reads) -> Option<Finding> {
        let (read, all) = (reads.read, reads.all());
        let cost_ns = all.ns;
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
        if let Some(Served { kind, at }) = self.served(file) {
            return self.finding(&rules::SLOW_FILE_SYSTEM, (all.count, all.ns)).map(|finding| {
                let text =
                    format!("{name} waits for {file}, which is on a file system that is served: {took}");
                let evidence = format!(
                    "{}, {mean} each{}; {kind} is mounted at {at}",
                    counted(read.count, "major fault"),
                    reads.waited()
                );
                about(finding, Confidence::Certain, text, evidence)
            });
        }
        let far = (reads.far * 100).checked_div(reads.compared).unwrap_or(0);
        if far >= SCATTERED_PERCENT {
            return self.finding(&rules::RANDOM_READS, (read.count, cost_ns)).map(|finding| {
                let text = format!("{name} reads {file} at scattered offsets and waits for the disk: {took}");
                let waited = if reads.waited.count == 0 { String::new() } else { reads.waited() };
                // Uses within the pages that are mapped around a fault, 64 KiB, are no faults.
                let evidence = format!(
                    "{}, {far} % of them not within 1 MiB after the one before; {mean} each{waited}; readahead saved at most {} others",
                    counted(read.count, "major fault"),
                    thousands(self.own.found_in_memory(file))
                );
                let confidence = if far >= 80 { Confidence::Certain } else { Confidence::Likely };
                about(finding, confidence, text, evidence)
            });
        }
        self.finding(&rules::SEQUENTIAL_READS, (all.count, all.ns)).map(|finding| {
            let text = format!("{name} reads {file} in order and waits for the disk: {took}");
            let evidence = format!(
                "{}, {} % of them within 1 MiB after the one before{}",
                counted(read.count, "major fault"),
                100 - far,
                reads.waited()
            );
            about(finding, Confidence::Likely, text, evidence)
        })
    }

    /// What its faults were for.
    fn cause(&self, rule: &'static Rule, cause: Cause, words: &str) -> Option<Finding> {
        let of = || self.own.causes.get(cause.name()).into_iter().flatten();
        let (count, ns) = of().fold((0, 0), |(count, ns), (_, sum)| (count + sum.count, ns + sum.ns));
        let finding = self.finding(rule, (count, ns))?;
        let (most, sum) = of().max_by_key(|(file, sum)| (sum.ns, *file))?;
        let subject = Some(most.to_string()).filter(|file| !file.is_empty());
        let place = subject
            .as_ref()
            .map_or(String::new(), |file| format!("; {} of that in {file}", percent(sum.ns, ns)));
        Some(Finding {
            confidence: Confidence::Certain,
            text: format!("{} {words}: {}", self.name(), time(ns)),
            evidence: format!(
                "{}, {} each, {} of the time of its faults{place}{}",
                counted(count, "fault"),
                time(ns.checked_div(count)?),
                percent(ns, self.own.all.ns),
                if *rule == rules::COPY_ON_WRITE { self.forks() } else { String::new() }
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
                "{} of its {}, {} each, {} of the time of its faults{}",
                thousands(sum.count),
                counted(self.own.all.count, "fault"),
                time(sum.ns.checked_div(sum.count)?),
                percent(sum.ns, self.own.all.ns),
                if *rule == rules::LOCK_WAITS && self.own.forks > Some(0) {
                    self.forks()
                } else {
                    String::new()
                }
            ),
            ..finding
        })
    }
}
