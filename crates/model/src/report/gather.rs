//! Puts recorded events, or rows, into the figures of a report.

use std::collections::HashMap;
use std::rc::Rc;

use crate::access;
use crate::faults::{Chunk, FaultColumns, IN_KERNEL, PART_NAMES, are_faults};
use crate::field::{Field, Kind, Record, Type, Unit, Value};
use crate::item::{Block, Event, Facts, Header, Item};
use crate::kept::covered_ns;
use crate::table::Schema;

use super::cube::{Cube, Measure, Words};
use super::heat::Heat;
use super::processes::{Processes, called, stand_in};
use super::{Report, Run, UNKNOWN, octave};

/// Cells and groups of a page.
const MOST_CELLS: usize = 50_000;
const MOST_GROUPS: usize = 4_000;
/// Intervals of rows that tell how long intervals are.
const EARLY: usize = 9;

/// Figures of faults, in this order; parts of the time come behind.
const OF_FAULTS: [Measure; 6] = [
    count("faults", "Page faults, as the kernel counts them."),
    count("major", "Page faults that read from disk."),
    Measure { is_time: true, ..count("total_ns", "Time spent in faults.") },
    Measure { is_time: true, ..count("wait_ns", "Time that threads slept in faults.") },
    count("timed", "Page faults that were timed."),
    count("failed", "Faults that ended in a signal; the kernel does not count them."),
];

/// Figures of accesses.
const OF_ACCESSES: [Measure; 3] = [
    count("accesses", "Accesses that were seen."),
    count("writes", "Accesses that wrote."),
    count("first", "Accesses that were the first to their page."),
];

const fn count(name: &'static str, help: &'static str) -> Measure {
    Measure { name, help, is_time: false, is_part: false }
}

/// Makes a report of what is recorded.
#[derive(Debug)]
pub struct Gather {
    report: Report,
    by: By,
    has_host: bool,
    first_start_ns: i64,
    /// Of the current run.
    ahead_ns: i64,
    /// When the first event was, or the first rows began, if there is one run: attaching took the time before.
    first_ns: Option<u64>,
    /// The end of the last rows.
    last_ns: u64,
    /// When the last of what came was.
    seen_ns: u64,
    groups: HashMap<[u64; 9], u32>,
    generation: u32,
    texts: Words,
    last: Option<([u64; 9], u32)>,
    /// Of processes whose accesses are traced.
    names: HashMap<u64, Rc<str>>,
    processes: Processes,
    has_rows: bool,
    /// The first rows of a run, until it is known how long its intervals are.
    early: Vec<Block>,
    totals: Vec<Block>,
}

/// What the figures are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Faults,
    Accesses,
    Rows(&'static Schema),
}

/// What rows are told apart by, beside their process and thread.
fn others(table: &'static Schema) -> impl Iterator<Item = &'static Field> {
    const SHOWN: [&str; 13] = [
        "pid",
        "tid",
        "comm",
        "start_ns",
        "dev",
        "inode",
        "isa",
        "reason",
        "generation",
        "stack",
        "lines",
        "binaries",
        "vm",
    ];
    table.iter().filter(|field| field.kind == Kind::Key && !SHOWN.contains(&field.name))
}

/// The figures of rows that can be added up: all faults first.
fn counters(table: &'static Schema) -> Vec<Measure> {
    let is_fault = table.has("major") && table.has("minor");
    let counters = table.iter().filter(|field| {
        field.kind == Kind::Counter && field.ty == Type::U64 && !field.name.ends_with("_timed")
    });
    const PARTS: [&str; 5] = ["kernel_ns", "kvm_ns", "vmm_ns", "blocked_ns", "preempted_ns"];
    let each = counters.map(|field| Measure {
        name: field.name,
        help: field.help,
        is_time: field.unit == Unit::Nanoseconds,
        is_part: PARTS.contains(&field.name) || PART_NAMES.contains(&field.name),
    });
    let faults = is_fault.then_some(OF_FAULTS[0]);
    let mut all: Vec<Measure> = faults.into_iter().chain(each).collect();
    if !is_fault {
        // What the tool counts comes first.
        all.sort_by_key(|measure| !["count", "faults", "calls"].contains(&measure.name));
    }
    all
}

impl Gather {
    /// Of runs with headers like these.
    #[must_use]
    pub fn new(headers: &[&Header]) -> Self {
        let first = headers.first();
        let has_host = headers.len() > 1;
        let events = first.and_then(|header| header.events);
        let table = first.and_then(|header| header.tables.first().copied()).unwrap_or(access::TOTAL);
        let by = match events {
            Some(events) if are_faults(events) => By::Faults,
            Some(events) if *events == *access::EVENT => By::Accesses,
            _ => By::Rows(table),
        };
        let mut dims = if has_host { vec!["recording"] } else { vec![] };
        let mut measures = match by {
            By::Faults => OF_FAULTS.to_vec(),
            By::Accesses => OF_ACCESSES.to_vec(),
            By::Rows(table) => counters(table),
        };
        match by {
            By::Faults => {
                dims.extend(["process", "thread", "file", "cause", "access", "function", "cgroup"]);
                let parts = PART_NAMES.iter().chain(&["kernel_ns"]);
                measures.extend(parts.map(|name| Measure {
                    is_time: true,
                    is_part: true,
                    ..count(name, "A part of the time of faults.")
                }));
            }
            By::Accesses => dims.extend(["process", "thread", "file", "access", "function"]),
            By::Rows(table) => {
                if table.has("pid") || table.has("comm") || table.has("stack") {
                    dims.push("process");
                }
                if table.has("vm") {
                    dims.push("vm");
                }
                if table.has("tid") {
                    dims.push("thread");
                }
                dims.extend(others(table).map(|field| field.name));
                if table.has("stack") {
                    dims.push("function");
                }
                if dims.is_empty() {
                    dims.push("all");
                }
            }
        }
        Self {
            report: Report {
                runs: vec![],
                cube: Cube::new(dims, measures),
                has_time: false,
                heat: (by == By::Accesses).then(Heat::default),
                stacks: vec![],
                summary: vec![],
            },
            by,
            has_host,
            first_start_ns: headers.iter().map(|header| header.start_unix_ns).min().unwrap_or(0),
            ahead_ns: 0,
            first_ns: None,
            last_ns: 0,
            seen_ns: 0,
            groups: HashMap::new(),
            generation: 0,
            texts: Words::default(),
            last: None,
            names: HashMap::new(),
            processes: Processes::default(),
            has_rows: false,
            early: vec![],
            totals: vec![],
        }
    }

    /// Begins with another run.
    pub fn begin(&mut self, name: &str, header: &Header) {
        self.early_rows();
        let later_ns = header.start_unix_ns.saturating_sub(self.first_start_ns);
        self.ahead_ns = later_ns.saturating_sub_unsigned(header.start_ns);
        self.groups.clear();
        self.seen_ns = header.start_ns;
        (self.last, self.has_rows, self.last_ns) = (None, false, header.start_ns);
        self.names.clear();
        self.report.runs.push(Run {
            name: name.to_owned(),
            header: header.clone(),
            end: Facts::default(),
            covered_ns: 0,
            has_facts: false,
            broken: None,
            events: 0,
            counted: None,
            findings: vec![],
            verdict: None,
            unjudged: None,
        });
    }

    /// Takes a step of the current run.
    pub fn take(&mut self, chunk: &Chunk) {
        let last_ns = match chunk {
            Chunk::Faults(faults) => faults.times_ns().last().copied(),
            Chunk::Item(Item::Events(events)) => events.last().map(|event| event.time_ns),
            Chunk::Item(Item::Rows(block)) => Some(block.time_ns),
            Chunk::Item(_) => None,
        };
        self.seen_ns = self.seen_ns.max(last_ns.unwrap_or(0));
        match chunk {
            Chunk::Faults(faults) if self.by == By::Faults => self.faults(faults),
            Chunk::Item(Item::Events(events)) if self.by == By::Accesses => {
                events.iter().for_each(|event| self.access(event));
            }
            Chunk::Item(Item::Rows(block)) if matches!(self.by, By::Rows(_)) => {
                let is_cumulative = self.run().is_some_and(|run| run.header.is("cumulative"));
                if !is_cumulative && !block.rows.is_empty() {
                    self.has_rows = true;
                    self.interval(block);
                }
            }
            Chunk::Item(Item::Totals(block)) => self.totals.push(block.clone()),
            Chunk::Item(Item::End(end)) => self.end(end),
            Chunk::Faults(_) | Chunk::Item(_) => {}
        }
    }

    fn run(&mut self) -> Option<&mut Run> {
        self.report.runs.last_mut()
    }

    /// The current run cannot be read on. Without an end, what it lost is not known.
    pub fn broken(&mut self, why: String) {
        let Some(run) = self.run() else { return };
        run.broken = Some(why);
        let start_ns = run.header.start_ns;
        if !run.has_facts {
            let duration_ns = self.seen_ns.saturating_sub(start_ns);
            self.end(&Facts { duration_ns, ..Facts::default() });
            self.run().into_iter().for_each(|run| run.has_facts = false);
        }
    }

    fn end(&mut self, end: &Facts) {
        let totals = std::mem::take(&mut self.totals);
        for block in &totals {
            if matches!(self.by, By::Rows(_)) && !self.has_rows {
                self.rows(block, false);
            }
            if block.table.has("stack") {
                self.report.stacks.extend(block.rows.iter().cloned());
            }
            let sum = |row: &Record| Some(row.number("major")? + row.number("minor")?);
            let of_rows = || block.rows.iter().map(sum).sum::<Option<u64>>();
            let counted =
                block.sum.as_ref().and_then(sum).or_else(of_rows).filter(|_| !block.rows.is_empty());
            if let (By::Faults, Some(run)) = (self.by, self.report.runs.last_mut()) {
                run.counted = run.counted.or(counted);
            }
        }
        let is_of_all = matches!(self.by, By::Rows(_)) && !self.has_rows;
        if let Some(run) = self.run() {
            run.end = end.clone();
            run.has_facts = true;
            run.covered_ns = covered_ns(&run.header, end, totals.last(), !is_of_all);
        }
    }

    /// Since the start of the first run, or of what was seen of the only one.
    fn at(&self, time_ns: u64) -> u64 {
        match self.first_ns {
            Some(first_ns) => time_ns.saturating_sub(first_ns),
            None => time_ns.checked_add_signed(self.ahead_ns).unwrap_or(0),
        }
    }

    fn begins_at(&mut self, time_ns: u64) {
        if !self.has_host {
            self.first_ns.get_or_insert(time_ns);
        }
    }

    /// The group of a key, whose texts are made when it is new.
    fn group(&mut self, key: [u64; 9], texts: impl FnOnce() -> Vec<String>) -> u32 {
        if self.generation != self.report.cube.generation {
            self.generation = self.report.cube.generation;
            self.groups.clear();
            self.last = None;
        }
        if let Some((last, group)) = self.last
            && last == key
        {
            return group;
        }
        let group = match self.groups.get(&key) {
            Some(group) => *group,
            None => {
                let mut texts = texts();
                if self.has_host {
                    let name = self.report.runs.last().map_or(String::new(), |run| {
                        let host = &run.header.host;
                        if host.is_empty() { run.name.clone() } else { format!("{host}: {}", run.name) }
                    });
                    texts.insert(0, name);
                }
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let group = self.report.cube.group(&texts);
                if self.generation == self.report.cube.generation {
                    self.groups.insert(key, group);
                }
                group
            }
        };
        self.last = Some((key, group));
        group
    }

    /// The number of a text.
    fn text(&mut self, text: Option<&str>) -> u64 {
        text.map_or(u64::MAX, |text| self.texts.place(text).into())
    }

    fn faults(&mut self, faults: &FaultColumns) {
        if let Some(first_ns) = faults.times_ns().iter().min() {
            self.begins_at(*first_ns);
        }
        let table = faults.table();
        let at = |name: &str| table.position(name).unwrap_or(usize::MAX);
        let [pid, tid, start, comm, kind, rw, latency, wait] =
            ["pid", "tid", "start_ns", "comm", "kind", "rw", "latency_ns", "wait_ns"].map(at);
        let [cause, file, process_comm, process_start, cgroup, function] =
            ["cause", "file", "process_comm", "process_start_ns", "cgroup", "function"].map(at);
        let parts = PART_NAMES.map(at);
        for (row, &time_ns) in faults.times_ns().iter().enumerate() {
            let number = |at: usize| faults.column(at).number(row);
            let word = |at: usize| faults.column(at).word(row).map(|word| &**word);
            let whose = [number(pid), number(tid), number(start)].map(|n| n.unwrap_or(u64::MAX));
            let texts = [word(comm), word(file), word(cause), word(function), word(cgroup)];
            let [comm, file_code, cause_code, function_code, cgroup_code] = texts.map(|text| self.text(text));
            let way = word(rw).and_then(|rw| rw.bytes().next()).map_or(0, u64::from);
            let place = cgroup_code.rotate_left(32) ^ function_code;
            let name = word(process_comm);
            let is_own = name.is_some() || whose[0] == whose[1];
            let process = self.processes.place(
                self.report.runs.len(),
                whose[0],
                number(process_start),
                name.or(texts[0]),
                is_own,
            );
            let key = [whose[0], whose[1], whose[2], comm, file_code, cause_code, place, way, process as u64];
            let group = self.group(key, || {
                let known = |text: Option<&str>| text.unwrap_or(UNKNOWN).to_owned();
                vec![
                    called(whose[0], name.or(texts[0]), process),
                    whom(texts[0], Some(whose[1])),
                    known(texts[1]),
                    known(texts[2]),
                    known(word(rw).map(way_name)),
                    known(texts[3]),
                    known(texts[4]),
                ]
            });
            let (at_ns, took) = (self.at(time_ns), number(latency));
            if word(kind) == Some("failed") {
                self.report.cube.add(group, at_ns, None, &[(5, 1)]);
                continue;
            }
            let ns = took.unwrap_or(0);
            let mut figures = [(0, 0); OF_FAULTS.len() + PART_NAMES.len() + 1];
            figures[0] = (0, 1);
            figures[1] = (1, u64::from(word(kind) == Some("major")));
            figures[2] = (2, ns);
            figures[3] = (3, number(wait).unwrap_or(0));
            figures[4] = (4, u64::from(took.is_some()));
            let mut rest = ns;
            for (n, part) in parts.iter().enumerate() {
                let part = number(*part).unwrap_or(0);
                rest = rest.saturating_sub(part);
                figures[OF_FAULTS.len() + n] = (OF_FAULTS.len() + n, part);
            }
            if parts[0] != usize::MAX {
                let last = figures.len() - 1;
                figures[last] = (last, rest);
            }
            self.report.cube.add(group, at_ns, took.map(octave), &figures);
            self.report.has_time = true;
            if let Some(run) = self.run() {
                run.events += 1;
            }
        }
    }

    fn access(&mut self, event: &Event) {
        let record = &event.record;
        let texts = ["comm", "file", "symbol", "rw"].map(|name| record.text(name));
        let ids = ["pid", "tid"].map(|name| record.number(name).unwrap_or(u64::MAX));
        if (ids[0] == ids[1] || !self.names.contains_key(&ids[0]))
            && let Some(comm) =
                texts[0].filter(|comm| self.names.get(&ids[0]).is_none_or(|name| **name != **comm))
        {
            self.names.insert(ids[0], comm.into());
        }
        if !access::is_counted(record) {
            return;
        }
        let name = self.names.get(&ids[0]).cloned();
        let name = name.as_deref();
        let codes = texts.map(|text| self.text(text));
        let process = self.processes.place(self.report.runs.len(), ids[0], None, name, true);
        let key = [ids[0], ids[1], codes[0], codes[1], codes[2], codes[3], process as u64, 0, 0];
        let group = self.group(key, || {
            let known = |text: Option<&str>| text.unwrap_or(UNKNOWN).to_owned();
            vec![
                called(ids[0], name, process),
                whom(texts[0], Some(ids[1])),
                known(texts[1]),
                known(texts[3].map(way_name)),
                known(texts[2]),
            ]
        });
        self.begins_at(event.time_ns);
        let at_ns = self.at(event.time_ns);
        let is_write = texts[3] == Some("W");
        let is_first = record.get("first") == Some(&Value::Bool(true));
        self.report.cube.add(group, at_ns, None, &[(0, 1), (1, is_write.into()), (2, is_first.into())]);
        self.report.has_time = true;
        if let (Some(heat), Some(addr)) = (&mut self.report.heat, record.number("addr")) {
            heat.access(ids[0], addr, at_ns, is_write, name, texts[1]);
        }
        if let Some(run) = self.run() {
            run.events += 1;
        }
    }

    /// Rows of an interval. The first one may be shorter or longer than those that follow, so the page's intervals are as long as
    /// the median of several.
    fn interval(&mut self, block: &Block) {
        let since_ns = block.since_ns.unwrap_or(self.last_ns).min(block.time_ns);
        self.last_ns = block.time_ns;
        let block = Block { since_ns: Some(since_ns), ..block.clone() };
        if !self.report.cube.cells.is_empty() {
            return self.rows(&block, true);
        }
        self.early.push(block);
        if self.early.len() == EARLY {
            self.early_rows();
        }
    }

    /// Takes the rows that waited for others.
    fn early_rows(&mut self) {
        let early = std::mem::take(&mut self.early);
        let length = |block: &Block| block.time_ns - block.since_ns.unwrap_or(block.time_ns);
        let mut lengths: Vec<u64> = early.iter().map(length).collect();
        lengths.sort_unstable();
        if let Some(median) = lengths.get(lengths.len() / 2) {
            self.report.cube.lengthen(*median);
        }
        early.iter().for_each(|block| self.rows(block, true));
    }

    /// Rows of an interval, or totals.
    fn rows(&mut self, block: &Block, has_time: bool) {
        let By::Rows(table) = self.by else { return };
        if *block.table != *table {
            return;
        }
        self.report.has_time |= has_time;
        let mut at_ns = 0;
        if has_time {
            let since_ns = block.since_ns.unwrap_or(block.time_ns);
            self.begins_at(since_ns);
            // Its middle, so that rows a little early or late are in intervals of their own.
            at_ns = self.at(since_ns + (block.time_ns - since_ns) / 2);
        }
        for row in &block.rows {
            let mut texts = Vec::new();
            let stack: Vec<&str> =
                row.text("stack").map(|stack| stack.split(';').collect()).unwrap_or_default();
            if table.has("pid") || table.has("comm") {
                let name = row.text("comm").or(row.text("vm")).or(row.number("pid").and(Some("process")));
                texts.push(match row.number("pid") {
                    // A thread's row has its own start.
                    Some(pid) => {
                        let start_ns = row.number("start_ns").filter(|_| !table.has("tid"));
                        let is_own = !table.has("tid") || row.number("tid") == Some(pid);
                        stand_in(self.processes.place(self.report.runs.len(), pid, start_ns, name, is_own))
                    }
                    None => whom(name, None),
                });
            } else if table.has("stack") {
                texts.push(stack.first().copied().unwrap_or(UNKNOWN).to_owned());
            }
            if table.has("vm") {
                let name = row.text("vm").or(row.number("pid").and(Some("VM of process")));
                texts.push(whom(name, row.number("pid")));
            }
            if table.has("tid") {
                texts.push(whom(row.text("comm"), row.number("tid")));
            }
            texts.extend(others(table).map(|field| match row.get(field.name) {
                Some(Value::Str(text)) => text.to_string(),
                Some(Value::U64(n)) if field.unit == Unit::Address => format!("{n:#x}"),
                Some(Value::U64(n)) => n.to_string(),
                _ => UNKNOWN.to_owned(),
            }));
            if table.has("stack") {
                let function = stack.iter().rev().find(|frame| !frame.ends_with(IN_KERNEL)).or(stack.last());
                texts.push(function.copied().unwrap_or(UNKNOWN).to_owned());
            }
            if texts.is_empty() {
                texts.push("all".to_owned());
            }
            let texts_hash: Vec<u64> = texts.iter().map(|text| self.text(Some(text))).collect();
            let mut key = [0; 9];
            key.iter_mut().zip(texts_hash).for_each(|(key, text)| *key = text + 1);
            let group = self.group(key, || texts);
            let figure = |measure: &Measure| match measure.name {
                "faults" if table.has("major") => {
                    row.number("major").zip(row.number("minor")).map(|(a, b)| a + b)
                }
                name => row.number(name),
            };
            let figures = self.report.cube.measures.iter().enumerate();
            let mut figures: Vec<(usize, u64)> =
                figures.map(|(at, m)| (at, figure(m).unwrap_or(0))).collect();
            if let Some(Value::Buckets(buckets)) = row.get("buckets") {
                // The first figure is by the time of each as far as that is known.
                for (low, _, n) in buckets.iter().filter(|(.., n)| *n > 0) {
                    let Some((_, all)) = figures.first_mut() else { break };
                    let n = (*n).min(*all);
                    *all -= n;
                    self.report.cube.add(group, at_ns, Some(octave(*low)), &[(0, n)]);
                }
            }
            self.report.cube.add(group, at_ns, None, &figures);
        }
    }

    /// All of it.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.early_rows();
        self.report.cube.rename("process", &self.processes.names());
        self.report.cube.fold(MOST_CELLS, MOST_GROUPS);
        if let Some(heat) = &mut self.report.heat {
            heat.finish();
        }
        self.report
    }
}

fn way_name(rw: &str) -> &'static str {
    match rw {
        "R" => "read",
        "W" => "write",
        "X" => "execute",
        _ => UNKNOWN,
    }
}

/// A process or thread by its name and number.
pub(super) fn whom(name: Option<&str>, id: Option<u64>) -> String {
    match (name.filter(|name| !name.is_empty()), id) {
        (Some(name), Some(id)) if id != u64::MAX => format!("{name} ({id})"),
        (Some(name), _) => name.to_owned(),
        (None, Some(id)) if id != u64::MAX => format!("({id})"),
        (None, _) => UNKNOWN.to_owned(),
    }
}
