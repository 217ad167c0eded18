//! How the faults programs are configured and attached: shared by the tool, by `access` and by `doctor`.

use anyhow::{Context, Result, ensure};
use bytemuck::{Zeroable, bytes_of};
use libbpf_rs::{Link, OpenObject, ProgramMut};
use trapline_model::faults::{By, Parts, StepOf, Whose};
use trapline_symbols::perf::{self, Software};

use super::span::{self, Kinds};
use super::{Events, MinorLatency, Stacks};
use crate::abi::maps::{MapName, faults as maps, shared, spans, unwind};
use crate::abi::{
    self, BY_CGROUP, BY_COMM, BY_PID, BY_TID, BY_TREE, BY_USER, FaultsAlive, FaultsConfig, FaultsWalk,
    TrapFilter,
};
use crate::compiled::Compiled;
use crate::variant::{self, Attached, Recipe, Variant};
use crate::{stacks, system};

const COUNT: Compiled = compiled!("faults_count");
const NAMED: Compiled = compiled!("faults_named");
const STEP: Compiled = compiled!("faults_step");
const BLAME: Compiled = compiled!("faults_blame");
const LINE: Compiled = compiled!("faults_line");
const ACCESS: Compiled = compiled!("faults_access");
const FILE: Compiled = compiled!("faults_file");
const CAUSE: Compiled = compiled!("faults_cause");
const STACK: Compiled = compiled!("faults_stack");
const SEVERAL: Compiled = compiled!("faults_several");
/// It does what no other does.
const ALL: Compiled = compiled!("faults_all");

#[cfg(test)]
pub(crate) const OBJECTS: &[Compiled] =
    &[COUNT, NAMED, STEP, BLAME, LINE, ACCESS, FILE, CAUSE, STACK, SEVERAL, ALL, compiled!("faults_walk")];

/// What goes to the ring: of each fault what it was for, too; of steps what caused most.
const RING_LINES: u32 = abi::RING_FAULTS | abi::RING_CAUSES;
const RING_BLAME: u32 = abi::RING_FAULTS | abi::RING_STEPS;

/// The pass over all threads that lets counting begin, and those that read them.
pub(super) const ADOPT: &str = "threads_adopt";
pub(super) const READ: &str = "threads_read";
/// The programs that see a thread end: at its end, once more, and later where the kernel has what that attaches to.
pub(super) const ENDS: [&str; 3] = ["thread_ends", "thread_ends_too", "thread_ended"];

/// What sees the exception, where a fault's handling is seen: on x86 (elsewhere there is no such tracepoint).
const EXCEPTIONS: [&str; 2] = ["exception_user", "exception_kernel"];

/// What sees threads leave their processors, which they may do in a fault.
const SWITCHES: &str = "processor_switches";

/// What sees memory reclaimed in a fault.
const RECLAIM: [&str; 6] = [
    "reclaim_direct_begin",
    "reclaim_direct_end",
    "reclaim_cgroup_begin",
    "reclaim_cgroup_end",
    "reclaim_compaction_begin",
    "reclaim_compaction_end",
];

/// What sees the lock of an address space waited for, where a fault's handling is not seen.
const LOCK: [&str; 2] = ["lock_begin", "lock_end"];

/// `counters` as it begins, or where the kernel cannot say so, with nothing.
const COUNTERS: Variant = Variant { name: "counters", ways: &[&["counters_user", "counters_kernel"], &[]] };

/// Best first: see [`crate::variant::in_order`].
const VARIANTS: &[Variant] = &[
    Variant { name: "fentry", ways: &[&["fentry_begin", "fentry_end"]] },
    Variant { name: "kprobe", ways: &[&["kprobe_session"], &["kprobe_begin", "kprobe_end"]] },
    Variant {
        name: "tracepoint",
        ways: &[&["tracepoint_user", "tracepoint_kernel", "tracepoint_major", "tracepoint_minor"]],
    },
    COUNTERS,
];

/// The same, where of a fault only its completion is seen.
const COUNTING: &[Variant] = &[
    Variant { name: "fentry", ways: &[&["fentry_counts"]] },
    Variant { name: "kprobe", ways: &[&["kprobe_counts"]] },
    Variant { name: "tracepoint", ways: &[&["tracepoint_counts_major", "tracepoint_counts_minor"]] },
    COUNTERS,
];

/// Those that see each fault.
pub(crate) const SEES_EACH_FAULT: &[Variant] = VARIANTS.split_at(3).0;

/// For how many groups there is room at the most; memory is taken only for those that there are, 1.2 KB each.
const GROUPS: u32 = 32_768;

/// For how many stacks and chains of calls there is room, 1.2 and 1 KB each. Their memory is there beforehand: a program
/// that begins meets new ones faster than the kernel gives memory out in a fault.
const STACKS: u32 = 16_384;

/// Rows of unwind tables, 8 bytes each.
pub(super) const ROWS: u32 = trapline_symbols::unwind::ROWS as u32;

/// For stacks that are copied because a table is not there yet, bytes.
pub(super) const UNWIND_RING: u32 = 8 << 20;

/// Files that have such a table.
pub(super) const TABLES: u32 = 8192;

/// Of this many processes it is known how many of their groups were taken out again.
const RELEASED: u32 = 65_536;

/// Of this many users it is known how many groups their processes have made.
const USERS: u32 = 4096;

/// Of this many processes it is known how long they slept of late.
const STALLED: u32 = 65_536;

/// Of what is left in a table for groups, and in the ring, a process may have this part, if all processes are watched: with
/// this many beside it, one that takes as much as it can gets a quarter of what is not kept for rows of others.
const SHARE_OF_ALL: u32 = 3;

/// The same if the processes were named by who asked, and are what the table is for.
const SHARE_OF_TREE: u32 = 1;

/// Whether a program that follows the lives of threads may be skipped: a thread that was preempted in it keeps it from
/// running for others. Tracepoints can be preempted since 7.0, on kernels that preempt themselves.
fn lives_may_be_missed() -> bool {
    system::preempts_itself() != Some(false)
}

/// Whether a program is among those that are to be loaded.
fn loads(object: &OpenObject, name: &str) -> bool {
    object.progs().any(|program| program.name() == name && program.autoload())
}

/// What the kernel half calls it.
fn group(by: By) -> u32 {
    if by.has_stacks() {
        return abi::GROUP_STACK;
    }
    let Parts { whose, file, cause } = by.parts();
    let whose = match whose {
        None => abi::GROUP_NONE,
        Some(Whose::Thread) => abi::GROUP_THREAD,
        // Names are put together when they are read.
        Some(Whose::Process | Whose::Comm) => abi::GROUP_PROCESS,
        Some(Whose::Cgroup) => abi::GROUP_CGROUP,
    };
    whose | if file { abi::GROUP_FILE } else { 0 } | if cause { abi::GROUP_CAUSE } else { 0 }
}

/// The recipe that `open` and `doctor` share.
pub(crate) struct FaultsRecipe {
    pub(crate) filter: TrapFilter,
    pub(crate) by: By,
    pub(crate) spans: Kinds,
    pub(crate) stacks: Stacks,
    /// They are walked by unwind tables.
    pub(crate) unwinds: bool,
    /// And stacks are copied where a table is missing.
    pub(crate) copies: bool,
    pub(crate) minor_latency: MinorLatency,
    pub(crate) events: Events,
    /// Of a fault nothing is to be known but that it was.
    pub(crate) counts_only: bool,
    /// Only variants that see each fault are of use.
    pub(crate) seeing: bool,
    /// What a fault's time is spent on is to be known.
    pub(crate) split: bool,
    pub(crate) ring_bytes: u32,
    /// What each fault was for is to be known; this is how page tables are walked.
    pub(crate) causes: Option<FaultsWalk>,
}

impl FaultsRecipe {
    /// What goes to the ring.
    fn ring(&self) -> u32 {
        match self.events {
            Events::None => abi::RING_NONE,
            Events::Faults | Events::Slower(_) | Events::Recorded { .. } => {
                if self.causes.is_none() {
                    abi::RING_FAULTS
                } else {
                    RING_LINES
                }
            }
            Events::Steps { most: false, .. } => abi::RING_STEPS,
            Events::Steps { most: true, .. } => RING_BLAME,
        }
    }

    /// Which parts of a fault's time are seen, by what was attached.
    pub(super) fn parts(attached: &Attached) -> [bool; abi::PARTS] {
        // All but reclaim are the time from one switch of the processor to the next.
        let mut seen = [Self::sees_waits(attached); abi::PARTS];
        seen[abi::PART_LOCK] &= attached.variant != "tracepoint" || attached.has(LOCK[0]);
        seen[abi::PART_RECLAIM] = attached.has(RECLAIM[0]);
        // It is known by what the kernel notes for that.
        seen[abi::PART_THROTTLED] &= std::path::Path::new("/proc/pressure/memory").exists();
        seen
    }

    /// Whether it is seen that a thread sleeps in a fault.
    pub(super) fn sees_waits(attached: &Attached) -> bool {
        attached.has(SWITCHES)
    }

    /// Whether what is mapped where a thread faults is to be known.
    pub(super) fn knows_files(&self) -> bool {
        self.ring() & abi::RING_FAULTS != 0 || self.by.parts().file
    }
}

impl Recipe for FaultsRecipe {
    fn object(&self) -> Compiled {
        let names = self.by == By::Cgroup || self.filter.by & (BY_COMM | BY_CGROUP | BY_USER) != 0;
        match (self.ring(), group(self.by), names) {
            (abi::RING_NONE, abi::GROUP_NONE, false) => COUNT,
            (abi::RING_NONE, abi::GROUP_NONE, true) => NAMED,
            (abi::RING_STEPS, abi::GROUP_NONE, _) => STEP,
            (RING_BLAME, abi::GROUP_NONE, false) => BLAME,
            (RING_LINES, abi::GROUP_NONE, _) => LINE,
            (abi::RING_FAULTS, abi::GROUP_NONE, false) => ACCESS,
            (abi::RING_NONE, abi::GROUP_FILE, false) => FILE,
            (abi::RING_NONE, abi::GROUP_CAUSE, false) => CAUSE,
            (abi::RING_NONE, abi::GROUP_STACK, false) => STACK,
            (abi::RING_NONE, ..) if matches!(self.by, By::Several(_)) => SEVERAL,
            _ => ALL,
        }
    }

    fn variants(&self) -> &'static [Variant] {
        if self.seeing || self.split || self.by.each_fault() || self.events.need_each_fault() {
            SEES_EACH_FAULT
        } else if self.counts_only {
            COUNTING
        } else {
            VARIANTS
        }
    }

    fn always(&self) -> Vec<&'static str> {
        let mut names = vec!["thread_born", "thread_execed", ENDS[0], "thread_freed", ADOPT, READ];
        if lives_may_be_missed() {
            names.push(ENDS[1]);
        }
        if self.filter.by & BY_COMM != 0 {
            names.push("thread_renamed");
        }
        if self.filter.by & BY_CGROUP != 0 {
            names.push("thread_moved");
        }
        names.extend(self.spans.programs());
        if self.causes.is_some() {
            names.push("fault_failed");
        }
        names
    }

    fn readers(&self) -> Vec<MapName<'static>> {
        let mut read = vec![maps::RETIRED];
        read.extend(self.by.each_fault().then_some(maps::GROUPS));
        read.extend(self.knows_files().then_some(maps::NAMES));
        read
    }

    fn optional(&self, way: &[&str]) -> Vec<&'static str> {
        let mut names = vec![ENDS[2]];
        let has = |names: &[&str]| way.iter().any(|name| names.contains(name));
        // The tool `access` wants no times.
        if !self.seeing && has(&["fentry_begin", "kprobe_begin", "kprobe_session"]) {
            names.extend(EXCEPTIONS);
            names.push(SWITCHES);
        } else if !self.seeing && has(&["tracepoint_user"]) {
            names.push(SWITCHES);
            names.extend(LOCK.iter().filter(|_| self.split));
        }
        if names.contains(&SWITCHES) && self.split {
            names.extend(RECLAIM);
        }
        names
    }

    /// 535a3692ba72 (6.10) brought sessions of kprobes. A kernel that has them and calls itself older does without.
    fn is_worth_trying(&self, way: &[&str]) -> bool {
        !way.contains(&"kprobe_session") || system::kernel_version() >= (6, 10)
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        let minor_weight = match self.minor_latency {
            MinorLatency::Sampled(n) if loads(object, "tracepoint_minor") => n,
            _ => 1,
        };
        let minor_unseen = self.minor_latency != MinorLatency::Exact && loads(object, "tracepoint_minor");
        let (step_of, step, tick_ns) = match self.events {
            Events::None | Events::Faults | Events::Slower(_) | Events::Recorded { .. } => {
                (abi::STEP_ALL, 0, 0)
            }
            Events::Steps { of: StepOf::Waits(step), .. } => (abi::STEP_WAITS, step, 0),
            Events::Steps { of: StepOf::Faults(step), .. } => (abi::STEP_ALL, step, 0),
            Events::Steps { of: StepOf::Major(step), .. } => (abi::STEP_MAJOR, step, 0),
            Events::Steps { of: StepOf::Stall(step), .. } => (abi::STEP_STALL, step, 0),
            Events::Steps { of: StepOf::Within(rule), .. } => {
                (abi::STEP_WITHIN, rule.least_ns, rule.tick_ns())
            }
        };
        let stack_every = match self.stacks {
            Stacks::All => 1,
            Stacks::Sampled(n) => n,
            Stacks::Major => 0,
        };
        let capacity = if self.by.has_stacks() { STACKS } else { GROUPS };
        let share = match self.filter.by {
            by if by & BY_TREE != 0 => SHARE_OF_TREE,
            by if by & (BY_PID | BY_TID) != 0 => 0,
            _ => SHARE_OF_ALL,
        };
        // Processes that were named by who asked are what the ring is for.
        let ring_share = if self.filter.by & (BY_TREE | BY_PID | BY_TID) == 0 { SHARE_OF_ALL } else { 0 };
        let config = FaultsConfig {
            seed: system::random(),
            slower: if let Events::Slower(ns) = self.events { ns } else { 0 },
            step,
            tick_ns,
            ring: self.ring(),
            group: group(self.by),
            minor_weight,
            step_of,
            stack_every,
            stack_deepest: stacks::deepest() as u32,
            may_miss: lives_may_be_missed().into(),
            groups: capacity,
            chains: capacity,
            ring_share,
            minor_unseen: minor_unseen.into(),
            share,
            unwinds: self.unwinds.into(),
            stack_copied: if self.copies { abi::UNWIND_COPY } else { 0 },
        };
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            match MapName(&name) {
                shared::FILTER => map.set_initial_value(bytes_of(&self.filter))?,
                maps::CONFIG => map.set_initial_value(bytes_of(&config))?,
                maps::WALK => {
                    map.set_initial_value(bytes_of(&self.causes.unwrap_or_else(FaultsWalk::zeroed)))?;
                }
                maps::EVENTS if self.events != Events::None => map.set_max_entries(self.ring_bytes)?,
                spans::CELLS if self.spans.many > 0 => map.set_max_entries(self.spans.many)?,
                maps::GROUPS | maps::CHAINS if self.by.has_stacks() => {
                    map.set_max_entries(STACKS)?;
                    map.set_map_flags(0)?;
                }
                unwind::ROWS if self.unwinds => map.set_max_entries(ROWS)?,
                unwind::TABLES if self.unwinds => map.set_max_entries(TABLES)?,
                unwind::MISSES if self.unwinds => map.set_max_entries(UNWIND_RING)?,
                maps::GROUPS if self.by.each_fault() => map.set_max_entries(GROUPS)?,
                maps::STALLS if step_of == abi::STEP_WITHIN => map.set_max_entries(STALLED)?,
                maps::RING_USERS if self.events != Events::None => map.set_max_entries(USERS)?,
                maps::USERS if self.by.each_fault() => map.set_max_entries(USERS)?,
                maps::RELEASED if self.by.each_fault() => map.set_max_entries(RELEASED)?,
                maps::CHAIN_KEYS => {
                    let keys: [u64; abi::CHAIN_LEN] = std::array::from_fn(|_| system::random());
                    map.set_initial_value(bytes_of(&keys))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn attach(&self, program: &ProgramMut<'_>) -> Result<Vec<Link>> {
        let (event, period) = match (program.name().to_str(), self.minor_latency) {
            (Some(ADOPT | READ | span::REMAINS), _) => return Ok(vec![]),
            (Some(name), _) if span::is_placed(name) => return Ok(vec![]),
            (Some("tracepoint_minor"), MinorLatency::Off) => return Ok(vec![]),
            (Some("tracepoint_minor"), MinorLatency::Exact) => (Software::MinorFaults, 1),
            (Some("tracepoint_minor"), MinorLatency::Sampled(n)) => (Software::MinorFaults, n.into()),
            (Some("tracepoint_major" | "tracepoint_counts_major"), _) => (Software::MajorFaults, 1),
            (Some("tracepoint_counts_minor"), _) => (Software::MinorFaults, 1),
            _ => return Ok(vec![program.attach()?]),
        };
        variant::attach_to_events(program, perf::open_everywhere(event, period)?)
    }

    fn prove(&self, attached: &Attached) -> Result<()> {
        if attached.variant == "counters" {
            return Ok(());
        }
        system::fault_once().context("cannot cause a page fault")?;
        let alive: FaultsAlive = attached.read(maps::ALIVE)?;
        let begins = alive.begins != 0 || self.counts_only;
        let may_be_left_out = self.minor_latency != MinorLatency::Exact && attached.has("tracepoint_minor");
        let ends = alive.ends != 0 || may_be_left_out;
        ensure!(begins && ends, "it attached, but was not called for a page fault of trapline's own");
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A recipe for each thing that can be asked for.
    pub(crate) fn all() -> Vec<FaultsRecipe> {
        let steps = |most| Events::Steps { of: StepOf::Faults(1), most };
        let words =
            ["thread", "process", "cgroup", "span", "file", "cause", "stack", "file,cause", "comm,file"];
        let groupings = words.iter().filter_map(|words| words.parse::<By>().ok());
        let mut all = Vec::new();
        for by in groupings {
            for events in [Events::None, Events::Faults, steps(false), steps(true)] {
                for filter in [0, BY_COMM, BY_CGROUP, BY_USER, BY_TREE] {
                    for [access, counts_only] in [[false, false], [true, false], [false, true]] {
                        let counts_only = counts_only && events == steps(false) && !by.each_fault();
                        let causes = by.parts().cause || (events == Events::Faults && !access);
                        all.push(FaultsRecipe {
                            filter: TrapFilter { by: filter, ..TrapFilter::zeroed() },
                            by,
                            spans: if by == By::Span { Kinds::all() } else { Kinds::default() },
                            stacks: Stacks::All,
                            unwinds: by.has_stacks(),
                            copies: by.has_stacks(),
                            minor_latency: MinorLatency::Exact,
                            events,
                            counts_only,
                            seeing: access,
                            split: !access && !counts_only && by != By::Thread,
                            ring_bytes: 4096,
                            causes: causes.then(FaultsWalk::zeroed),
                        });
                    }
                }
            }
        }
        // Spans are of rows of threads.
        all.retain(|recipe| recipe.by != By::Span || recipe.events == Events::None);
        // Rows that say whose the faults are need no events beside them.
        all.retain(|recipe| recipe.by.parts().whose.is_none() || recipe.events == Events::None);
        all
    }

    #[test]
    fn what_is_asked_for_has_an_object_of_its_own_where_it_is_asked_for_often() {
        let object = |by, events, filter| {
            let is = |recipe: &&FaultsRecipe| {
                (recipe.by, recipe.events, recipe.filter.by, recipe.seeing) == (by, events, filter, false)
            };
            all().iter().find(is).map(|recipe| recipe.object().name)
        };
        let of_rows = |by| object(by, Events::None, 0);
        assert_eq!(of_rows(By::Process), Some("faults_count"));
        assert_eq!(of_rows(By::Span), Some("faults_count"));
        assert_eq!(of_rows(By::Cgroup), Some("faults_named"));
        assert_eq!(of_rows(By::File), Some("faults_file"));
        assert_eq!(object(By::Thread, Events::Faults, BY_COMM), Some("faults_line"));
        assert_eq!(object(By::File, Events::Faults, 0), Some("faults_all"));
        assert_eq!(object(By::Stack, Events::None, BY_CGROUP), Some("faults_all"));
        for words in ["file,cause", "comm,file"] {
            assert_eq!(words.parse().ok().and_then(of_rows), Some("faults_several"));
        }
    }
}
