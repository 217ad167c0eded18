//! What accesses say about a program.

use std::collections::{HashMap, HashSet};

use super::rules::{self, Rule};
use super::unjudged::Unjudged;
use super::words::{counted, percent, size, thousands};
use super::{Confidence, Finding, Process};
use crate::access::is_counted;
use crate::access::summary::PAGE;
use crate::field::Value;
use crate::item::{Event, Facts, Header};

/// The rules about accesses.
const RULES: [&Rule; 2] = [&rules::WORKING_SET, &rules::FALSE_SHARING];

/// Within this time, nanoseconds, the pages are counted that a program accesses.
const WINDOW_NS: u64 = 1_000_000_000;
/// Bytes of a cache line, of which a page has as many as a word has bits.
const LINE: u64 = 64;
/// Pages that are held at most, and writers of one.
const MOST_PAGES: usize = 1 << 20;
const MOST_WRITERS: usize = 16;

/// Who writes to a page.
#[derive(Debug, Default)]
struct Page {
    /// By thread: the lines of the page that it wrote to, and how often it did.
    writers: Vec<(u64, u64, u64)>,
    /// What is mapped there.
    file: Option<Box<str>>,
}

impl Page {
    fn write(&mut self, tid: u64, line: u64) {
        let bit = 1 << line;
        if let Some((_, lines, writes)) = self.writers.iter_mut().find(|(of, ..)| *of == tid) {
            *lines |= bit;
            *writes += 1;
        } else if self.writers.len() < MOST_WRITERS {
            self.writers.push((tid, bit, 1));
        }
    }

    fn writes(&self) -> u64 {
        self.writers.iter().map(|(.., writes)| writes).sum()
    }

    /// Whether several threads write to it, again and again, and never two to the same line.
    fn is_shared_falsely(&self) -> bool {
        let lines = || self.writers.iter().map(|(_, lines, _)| lines);
        let apart: u32 = lines().map(|lines| lines.count_ones()).sum();
        let again = self.writers.iter().filter(|(.., writes)| *writes > 1).count();
        again > 1 && apart == lines().fold(0, |all, lines| all | lines).count_ones()
    }
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Own {
    comm: String,
    writes: u64,
    pages: HashMap<u64, Page>,
    /// The pages of the second that is under way, and when it began.
    began_ns: u64,
    window: HashSet<u64>,
    /// The most pages in one of them.
    most: u64,
}

/// What the accesses of a run say.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The memory that the machine has, or the cgroup may use.
    memory_bytes: Option<u64>,
    processes: HashMap<u64, Own>,
    pages: usize,
    seen: u64,
    /// The run is one of accesses.
    is_known: bool,
    /// Accesses without an address, those of which it is not known whether they wrote, and writes for which there were too many pages.
    unlocated: u64,
    unknown: u64,
    crowded: u64,
    /// Whether any access was one that tracing alone showed: without, only first touches are known.
    is_reset: bool,
}

impl Evidence {
    /// Takes what the header says of the run.
    pub(super) fn header(&mut self, header: &Header) {
        self.is_known = header.tool == "access";
        if let Some(Value::U64(bytes)) = header.setting("memory_bytes") {
            self.memory_bytes = Some(*bytes);
        }
    }

    /// Takes one event.
    pub(super) fn event(&mut self, event: &Event) {
        let record = &event.record;
        self.is_known = true;
        let (Some(pid), Some(tid)) = (record.number("pid"), record.number("tid")) else {
            self.unlocated += u64::from(is_counted(record));
            return;
        };
        let own = self.processes.entry(pid).or_default();
        let is_name = |comm: &&str| *comm != own.comm && (tid == pid || own.comm.is_empty());
        if let Some(comm) = record.text("comm").filter(is_name) {
            own.comm = comm.to_owned();
        }
        if !is_counted(record) {
            return;
        }
        let Some(addr) = record.number("addr") else {
            self.unlocated += 1;
            return;
        };
        self.seen += 1;
        self.is_reset |= record.get("first") == Some(&Value::Bool(false));
        if event.time_ns.saturating_sub(own.began_ns) >= WINDOW_NS {
            own.began_ns = event.time_ns;
            own.window.clear();
        }
        own.window.insert(addr / PAGE);
        own.most = own.most.max(own.window.len() as u64);
        let rw = record.text("rw");
        self.unknown += u64::from(rw.is_none());
        if rw != Some("W") {
            return;
        }
        own.writes += 1;
        let is_known = own.pages.contains_key(&(addr / PAGE));
        if !is_known && self.pages >= MOST_PAGES {
            self.crowded += 1;
            return;
        }
        self.pages += usize::from(!is_known);
        let page = own.pages.entry(addr / PAGE).or_default();
        page.write(tid, addr % PAGE / LINE);
        if page.file.is_none() {
            page.file = record.text("file").map(Box::from);
        }
    }

    /// How many events there are; their time is not known.
    pub(super) fn seen(&self) -> Option<(u64, Option<u64>)> {
        (!self.processes.is_empty()).then_some((self.seen, None))
    }

    /// How many rules there are for such a run, if it is one.
    pub(super) fn rules(&self) -> Option<usize> {
        self.is_known.then_some(RULES.len())
    }

    /// The rules that lack figures.
    pub(super) fn not_judged(&self, end: &Facts, unjudged: &mut Unjudged) {
        if !self.is_known {
            return;
        }
        if self.memory_bytes.is_none() {
            unjudged.add([&rules::WORKING_SET], || "the size of the memory is not known".into());
        }
        if !self.is_reset && self.seen > 0 {
            unjudged
                .add(RULES, || "no access after the first to a page was seen: record with --reset".into());
        }
        let lost = [
            (self.unlocated, "accesses without an address or a thread"),
            (end.lost_events, "events lost"),
            (end.get("missed_programs").unwrap_or(0), "accesses that were not seen"),
            (end.get("unlocated_faults").unwrap_or(0), "accesses without an address or a thread"),
        ];
        for (count, what) in lost {
            let could_be = |rule: &&Rule| count > 0 && (self.seen == 0 || count >= rule.least_count);
            unjudged.add(RULES.into_iter().filter(could_be), || format!("{} {what}", thousands(count)));
        }
        if self.unknown >= rules::FALSE_SHARING.least_count {
            unjudged.add([&rules::FALSE_SHARING], || {
                format!("whether {} accesses wrote is not known", thousands(self.unknown))
            });
        }
        for name in ["refused_processes", "unreset_processes"] {
            if let Some(count @ 1..) = end.get(name) {
                unjudged.add(RULES, || format!("processes that were not reset: {}", thousands(count)));
            }
        }
        if self.crowded >= rules::FALSE_SHARING.least_count {
            unjudged.add([&rules::FALSE_SHARING], || {
                format!("{} to pages beyond {MOST_PAGES}", counted(self.crowded, "write"))
            });
        }
    }

    /// What stands out.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let all = self.processes.iter().filter(|_| self.is_reset);
        all.flat_map(|(pid, own)| [self.working_set(*pid, own), sharing(*pid, own)]).flatten().collect()
    }

    fn working_set(&self, pid: u64, own: &Own) -> Option<Finding> {
        let memory = self.memory_bytes?;
        let rule = &rules::WORKING_SET;
        rule.is_met(own.most, own.most, memory / PAGE).then(|| Finding {
            process: Some(Process { pid: Some(pid), comm: own.comm.clone() }),
            text: format!(
                "{} ({pid}) accesses {} within a second: most of the memory that it can have",
                own.comm,
                size(own.most * PAGE)
            ),
            evidence: format!(
                "{} in the second with most, of {} of memory: {}",
                counted(own.most, "page"),
                size(memory),
                percent(own.most * PAGE, memory)
            ),
            ..Finding::new(rule, own.most, own.most, memory / PAGE)
        })
    }
}

/// Pages that several threads write to, each to other lines.
fn sharing(pid: u64, own: &Own) -> Option<Finding> {
    let rule = &rules::FALSE_SHARING;
    let pages: Vec<&Page> = own.pages.values().filter(|page| page.is_shared_falsely()).collect();
    let writes = pages.iter().map(|page| page.writes()).sum();
    if !rule.is_met(writes, writes, own.writes) {
        return None;
    }
    let most = pages.iter().max_by_key(|page| (page.writes(), &page.file))?;
    let pages = pages.len() as u64;
    Some(Finding {
        process: Some(Process { pid: Some(pid), comm: own.comm.clone() }),
        subject: most.file.as_deref().map(str::to_owned),
        confidence: Confidence::Likely,
        text: format!(
            "threads of {} ({pid}) write to the same pages, each to other cache lines: {}",
            own.comm,
            counted(pages, "page")
        ),
        evidence: format!(
            "{} of {} writes are to such pages; the most written one has {} threads; an access counts once for each round of resets",
            thousands(writes),
            thousands(own.writes),
            most.writers.len()
        ),
        ..Finding::new(rule, writes, writes, own.writes)
    })
}
