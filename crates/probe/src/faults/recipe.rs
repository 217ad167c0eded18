//! How the faults programs are configured and attached: shared by the tool, by `access` and by `doctor`.

use anyhow::{Context, Result, ensure};
use bytemuck::{Zeroable, bytes_of};
use libbpf_rs::{Link, OpenObject, ProgramMut};
use trapline_model::faults::{By, StepOf};
use trapline_symbols::perf::{self, Software};

use super::span::{self, Kinds};
use super::{Events, MinorLatency, Stacks, stacks};
use crate::abi::{
    self, BY_CGROUP, BY_COMM, BY_PID, BY_TID, BY_TREE, FaultsAlive, FaultsConfig, FaultsWalk, TrapFilter,
};
use crate::compiled::Compiled;
use crate::system;
use crate::variant::{self, Attached, Recipe, Variant};

const COUNT: Compiled = compiled!("faults_count");
const NAMED: Compiled = compiled!("faults_named");
const STEP: Compiled = compiled!("faults_step");
const BLAME: Compiled = compiled!("faults_blame");
const LINE: Compiled = compiled!("faults_line");
const ACCESS: Compiled = compiled!("faults_access");
const FILE: Compiled = compiled!("faults_file");
const CAUSE: Compiled = compiled!("faults_cause");
const STACK: Compiled = compiled!("faults_stack");
/// It does what no other does.
const ALL: Compiled = compiled!("faults_all");

#[cfg(test)]
pub(crate) const OBJECTS: &[Compiled] =
    &[COUNT, NAMED, STEP, BLAME, LINE, ACCESS, FILE, CAUSE, STACK, ALL, compiled!("faults_walk")];

/// What goes to the ring: of each fault what it was for, too; of steps what caused most.
const RING_LINES: u32 = abi::RING_FAULTS | abi::RING_CAUSES;
const RING_BLAME: u32 = abi::RING_FAULTS | abi::RING_STEPS;

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
pub(crate) const SEEING: &[Variant] = VARIANTS.split_at(3).0;

/// For how many groups there is room at the most; memory is taken only for those that there are, 1.2 KB each.
const GROUPS: u32 = 32_768;

/// For how many stacks and chains of calls there is room, 1.2 and 1 KB each. Their memory is there beforehand: a program
/// that begins meets new ones faster than the kernel gives memory out in a fault.
const STACKS: u32 = 16_384;

/// Of this many processes it is known how many of their groups were taken out again.
const RELEASED: u32 = 65_536;

/// Of what is left in a table for groups, a process may make this part, if all processes are watched: with this many
/// beside it, one that makes as many as it can gets a quarter of what is not kept for rows of others.
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
    match by {
        By::Thread | By::Process | By::Cgroup | By::Span => abi::GROUP_NONE,
        By::File => abi::GROUP_FILE,
        By::Cause => abi::GROUP_CAUSE,
        By::Stack => abi::GROUP_STACK,
    }
}

/// The recipe that `open` and `doctor` share.
pub(crate) struct FaultsRecipe {
    pub(crate) filter: TrapFilter,
    pub(crate) by: By,
    pub(crate) spans: Kinds,
    pub(crate) stacks: Stacks,
    pub(crate) minor_latency: MinorLatency,
    pub(crate) events: Events,
    /// Of a fault nothing is to be known but that it was.
    pub(crate) counts_only: bool,
    /// Only variants that see each fault are of use.
    pub(crate) seeing: bool,
    pub(crate) ring_bytes: u32,
    /// What each fault was for is to be known; this is how page tables are walked.
    pub(crate) causes: Option<FaultsWalk>,
}

impl FaultsRecipe {
    /// What goes to the ring.
    fn ring(&self) -> u32 {
        match self.events {
            Events::None => abi::RING_NONE,
            Events::Faults if self.causes.is_none() => abi::RING_FAULTS,
            Events::Faults => RING_LINES,
            Events::Steps { most: false, .. } => abi::RING_STEPS,
            Events::Steps { most: true, .. } => RING_BLAME,
        }
    }

    /// Whether what is mapped where a thread faults is to be known.
    pub(super) fn knows_files(&self) -> bool {
        self.ring() & abi::RING_FAULTS != 0 || self.by == By::File
    }
}

impl Recipe for FaultsRecipe {
    fn object(&self) -> Compiled {
        let names = self.by == By::Cgroup || self.filter.by & (BY_COMM | BY_CGROUP) != 0;
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
            _ => ALL,
        }
    }

    fn variants(&self) -> &'static [Variant] {
        if self.seeing || self.by.each_fault() || matches!(self.events, Events::Steps { most: true, .. }) {
            SEEING
        } else if self.counts_only {
            COUNTING
        } else {
            VARIANTS
        }
    }

    fn always(&self) -> Vec<&'static str> {
        let mut names = vec![
            "thread_born",
            "thread_execed",
            "thread_ends",
            "thread_freed",
            "threads_adopt",
            "threads_read",
        ];
        if lives_may_be_missed() {
            names.push("thread_ends_too");
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

    fn readers(&self) -> Vec<&'static str> {
        let mut names = vec!["retired_read"];
        names.extend(self.by.each_fault().then_some("groups_read"));
        names.extend(self.knows_files().then_some("names_read"));
        names
    }

    fn optional(&self) -> Vec<&'static str> {
        vec!["thread_ended"]
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
        let (step_of, step) = match self.events {
            Events::None | Events::Faults => (abi::STEP_ALL, 0),
            Events::Steps { of: StepOf::Faults(step), .. } => (abi::STEP_ALL, step),
            Events::Steps { of: StepOf::Major(step), .. } => (abi::STEP_MAJOR, step),
            Events::Steps { of: StepOf::Stall(step), .. } => (abi::STEP_STALL, step),
        };
        let stack_every = match self.stacks {
            Stacks::All => 1,
            Stacks::Sampled(n) => n,
            Stacks::Major => 0,
        };
        let capacity = if self.by == By::Stack { STACKS } else { GROUPS };
        let share = match self.filter.by {
            by if by & BY_TREE != 0 => SHARE_OF_TREE,
            by if by & (BY_PID | BY_TID) != 0 => 0,
            _ => SHARE_OF_ALL,
        };
        let config = FaultsConfig {
            seed: system::random(),
            step,
            ring: self.ring(),
            group: group(self.by),
            minor_weight,
            step_of,
            stack_every,
            stack_deepest: stacks::deepest() as u32,
            may_miss: lives_may_be_missed().into(),
            groups: capacity,
            chains: capacity,
            share,
        };
        for mut map in object.maps_mut() {
            match map.name().to_str() {
                Some(".rodata.filter") => map.set_initial_value(bytes_of(&self.filter))?,
                Some(".rodata.config") => map.set_initial_value(bytes_of(&config))?,
                Some(".rodata.walk") => {
                    map.set_initial_value(bytes_of(&self.causes.unwrap_or_else(FaultsWalk::zeroed)))?;
                }
                Some("events") if self.events != Events::None => map.set_max_entries(self.ring_bytes)?,
                Some("span_cells") if self.spans.many > 0 => map.set_max_entries(self.spans.many)?,
                Some("groups" | "chains") if self.by == By::Stack => {
                    map.set_max_entries(STACKS)?;
                    map.set_map_flags(0)?;
                }
                Some("groups") if self.by.each_fault() => map.set_max_entries(GROUPS)?,
                Some("released") if self.by.each_fault() => map.set_max_entries(RELEASED)?,
                Some(".rodata.chain_keys") => {
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
            (Some("threads_adopt" | "threads_read" | "span_remains"), _) => return Ok(vec![]),
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
        system::fault_once().context("cannot take a page fault")?;
        let alive: FaultsAlive = attached.read(".bss.alive")?;
        let begins = alive.begins != 0 || self.counts_only;
        let may_be_left_out = self.minor_latency != MinorLatency::Exact && attached.has("tracepoint_minor");
        let ends = alive.ends != 0 || may_be_left_out;
        ensure!(begins && ends, "it was attached, and a page fault of our own did not reach it");
        Ok(())
    }
}
