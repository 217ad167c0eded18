//! What single faults say about a program: what is added up of them.

mod findings;
mod missing;

use std::collections::{HashMap, HashSet};

use self::missing::Missing;
use super::rules::{self, Rule};
use super::seen::{Places, Seen};
use super::words::{thousands, time};
use crate::faults::{Cause, have_parts, sum_known};
use crate::field::{Record, Value};
use crate::item::{Block, Header};

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
pub(super) const PARTS: [(&str, &Rule); 3] =
    [("lock_ns", &rules::LOCK_WAITS), ("reclaim_ns", &rules::RECLAIM), ("throttled_ns", &rules::THROTTLED)];

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
    /// Faults that read.
    read: u64,
    /// Those of them that waited for it, and their waits; where those are not seen, their time.
    slept: Sum,
    /// Waits for a read that was under way.
    waited: Sum,
    /// Faults whose waits are not seen.
    unseen: u64,
    /// Of the reads, those that are not in order, and those that have one before them.
    far: u64,
    compared: u64,
    /// Reads of a page that was read before, and their time.
    again: Sum,
    /// By thread, where it read last.
    last: HashMap<u64, u64>,
    pages: HashSet<u64>,
}

impl Reads {
    /// Takes a fault that took some time, and its wait.
    fn add(&mut self, is_read: bool, ns: u64, waited_ns: Option<u64>) {
        self.read += u64::from(is_read);
        self.unseen += u64::from(waited_ns.is_none());
        let waits = if is_read { &mut self.slept } else { &mut self.waited };
        match waited_ns {
            Some(0) => {}
            waited_ns => waits.add(waited_ns.unwrap_or(ns)),
        }
    }

    /// All waits.
    fn all(&self) -> Sum {
        let mut all = self.slept;
        all.more(self.waited);
        all
    }

    /// How many did not read themselves, as a part of evidence.
    fn others(&self) -> String {
        format!("; {} more waited for a read that was under way", thousands(self.waited.count))
    }

    /// What those that read waited, as a part of evidence.
    fn each(&self) -> Option<String> {
        let mean = time(self.slept.ns.checked_div(self.slept.count)?);
        if self.slept.count == self.read {
            return Some(format!("{mean} each"));
        }
        Some(format!("{} of them waited, {mean} each", thousands(self.slept.count)))
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
            reads.read += other.read;
            reads.slept.more(other.slept);
            reads.waited.more(other.waited);
            reads.unseen += other.unseen;
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
        let waited_ns = fault.waited_ns().map(|ns| ns.min(own_ns));
        let Some(file) = file.filter(|file| is_file(file)) else {
            // Memory that is no file's has a name, too.
            if file.is_none_or(|file| file.starts_with('(')) {
                self.missing.file.add(waited_ns.unwrap_or(own_ns));
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
        reads.add(is_read, own_ns, waited_ns);
        let Some(offset) = fault.offset.filter(|_| is_read) else {
            if is_read {
                self.missing.offset.add(waited_ns.unwrap_or(own_ns));
            }
            return;
        };
        if let Some(last) = reads.last.insert(tid, offset) {
            reads.compared += 1;
            reads.far += u64::from(!(last..=last + NEAR).contains(&offset));
        }
        let page = offset / PAGE;
        if reads.pages.contains(&page) {
            reads.again.add(own_ns);
        } else if self.pages < MOST_PAGES {
            self.pages += 1;
            reads.pages.insert(page);
        } else {
            self.missing.pages += 1;
        }
    }

    /// Takes the totals of threads, which say who forked whom.
    pub(super) fn totals(&mut self, block: &Block) {
        for row in &block.rows {
            let Some(own) = row.number("pid").and_then(|pid| self.processes.get_mut(&pid)) else { continue };
            own.forks = sum_known(own.forks, row.number("forks"));
            own.forked_by = own.forked_by.or(row.number("forked_by"));
        }
    }
}

/// Whether that is a file's name: its path, the end of one that is too long, or its number where there was no space for its name.
fn is_file(name: &str) -> bool {
    name.starts_with('/') || name.starts_with('…') || name.starts_with("[inode ")
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
