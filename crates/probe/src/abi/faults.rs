//! `bpf/faults.h` and `bpf/faults_span.h`, mirrored.

use std::mem::offset_of;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use trapline_model::BUCKETS;
use trapline_model::faults::{Also, GroupId};

use super::{COMM_LEN, TrapExtremes};

constants! {
    marks = "faults_mark", "FAULTS_": u64 {
        /// A minimum of nothing; an address that is not known.
        NONE = u64::MAX,
        /// In the first word of a key: it stands for the group whose key it is otherwise.
        SECOND = 1 << 63,
        /// Instead of a process: faults whose stack was not asked for.
        STACK_UNTAKEN = u64::MAX >> 1,
        /// An odd number of which a stack's number is made.
        STACK_FACTOR = 0x9e37_79b9_7f4a_7c15,
    }
}

constants! {
    sizes = "faults_size", "FAULTS_": usize {
        NAME_LEN = 4096,
        /// Frames of a chain at most.
        CHAIN_LEN = 128,
        TICKS = 16,
    }
}

constants! {
    rings = "faults_ring", "FAULTS_": u32 {
        RING_NONE = 0,
        /// Each fault.
        RING_FAULTS = 1,
        /// With what it was for.
        RING_CAUSES = 2,
        /// Messages at steps.
        RING_STEPS = 4,
    }
}

constants! {
    groups = "faults_group_by", "FAULTS_": u32 {
        GROUP_NONE = 0,
        GROUP_FILE = 1,
        GROUP_CAUSE = 2,
        GROUP_STACK = 4,
        GROUP_THREAD = 8,
        GROUP_PROCESS = 16,
        GROUP_CGROUP = 32,
    }
}

constants! {
    steps = "faults_step_of", "FAULTS_": u32 {
        STEP_ALL = 0,
        STEP_MAJOR = 1,
        STEP_STALL = 2,
        /// Faults in which the thread slept.
        STEP_WAITS = 3,
        /// Nanoseconds asleep within a window.
        STEP_WITHIN = 4,
    }
}

constants! {
    areas = "faults_area", "FAULTS_": u32 {
        AREA_UNKNOWN = 0,
        AREA_FILE = 1,
        AREA_ANON = 2,
        AREA_HEAP = 3,
        AREA_STACK = 4,
        AREA_SHMEM = 5,
        AREA_HUGETLB = 6,
        AREA_OBJECT = 7,
        AREA_SPECIAL = 8,
        /// Files of a process that has used up its share.
        AREA_OTHER = 9,
        /// The same of a user's processes.
        AREA_OTHERS = 10,
    }
}

constants! {
    name_flags = "faults_name_flag", "FAULTS_": u32 {
        NAME_DELETED = 1,
        NAME_CUT = 2,
        NAME_READY = 4,
    }
}

constants! {
    chains = "faults_chain_key", "FAULTS_": u64 {
        /// There is no chain of this sort.
        CHAIN_NONE = 0,
        /// There was no room for it.
        CHAIN_LOST = 1,
        /// The process has used up its share.
        CHAIN_OTHER = 2,
        /// The processes of its user have used up theirs.
        CHAIN_OTHER_OF_USER = 3,
        /// The table is full.
        CHAIN_OTHER_FULL = 4,
    }
}

/// `FAULTS_CHAIN_COPIED`: the stack was copied, under that key.
pub(crate) const CHAIN_COPIED: u64 = 1 << 63;

constants! {
    accesses = "faults_rw", "FAULTS_": u32 {
        READ = 0,
        WRITE = 1,
        EXEC = 2,
        RW_UNKNOWN = 3,
    }
}

constants! {
    pages = "faults_page", "FAULTS_": u32 {
        /// Nothing the processor could use.
        PAGE_ABSENT = 0,
        /// A page that did not allow the access.
        PAGE_PRESENT = 1,
        PAGE_UNKNOWN = 2,
    }
}

constants! {
    outcomes = "faults_outcome", "FAULTS_": u32 {
        MINOR = 0,
        MAJOR = 1,
        /// It ended in a signal.
        FAILED = 2,
    }
}

constants! {
    parts = "faults_part", "FAULTS_": usize {
        PART_LOCK = 0,
        PART_IO = 1,
        PART_RECLAIM = 2,
        PART_THROTTLED = 3,
        PART_PREEMPTED = 4,
        PART_SLEEP = 5,
        PARTS = trapline_model::faults::PARTS,
    }
}

constants! {
    memories = "faults_memory", "FAULTS_": u32 {
        MEMORY_UNKNOWN = 0,
        MEMORY_ANON = 1,
        MEMORY_FILE = 2,
        MEMORY_SHMEM = 3,
        MEMORY_HUGETLB = 4,
        MEMORY_DEVICE = 5,
    }
}

constants! {
    befores = "faults_before", "FAULTS_": u32 {
        BEFORE_UNKNOWN = 0,
        BEFORE_ABSENT = 1,
        BEFORE_SWAPPED = 2,
        BEFORE_MOVING = 3,
        BEFORE_HIDDEN = 4,
        BEFORE_READ_ONLY = 5,
        BEFORE_THERE = 6,
    }
}

constants! {
    also = "faults_also", "FAULTS_": u32 {
        ALSO_WRITE = Also::WRITE.0,
        ALSO_SHARED = Also::SHARED.0,
        ALSO_MISSING = Also::MISSING.0,
        ALSO_WATCHED = Also::WATCHED.0,
        ALSO_GUARDED = Also::GUARDED.0,
        ALSO_SLEPT = Also::SLEPT.0,
        ALSO_HUGE = Also::HUGE.0,
        ALSO_MAJOR = Also::MAJOR.0,
        ALSO_SIGNAL = Also::SIGNAL.0,
        ALSO_IO = Also::IO.0,
    }
}

constants! {
    span_sizes = "faults_span_size", "": usize {
        SPANS_MAX = 64,
        SPANS_DEPTH = 64,
    }
}

mirror! {
    /// How the faults programs work.
    FaultsConfig = "faults_config" {
        seed: u64,
        slower: u64,
        step: u64,
        tick_ns: u64,
        ring: u32,
        group: u32,
        minor_weight: u32,
        step_of: u32,
        stack_every: u32,
        stack_deepest: u32,
        may_miss: u32,
        groups: u32,
        chains: u32,
        ring_share: u32,
        minor_unseen: u32,
        share: u32,
        unwinds: u32,
        stack_copied: u32,
    }
}

mirror! {
    /// Where calls return to, innermost first.
    FaultsChain = "faults_chain" {
        count: u32,
        end: u32,
        check: u64,
        turn: u64,
        ip: [u64; CHAIN_LEN],
    }
}

mirror! {
    /// A process went past multiples of the step.
    FaultsStep = "faults_step" {
        time_ns: u64,
        start_ns: u64,
        first: u64,
        last: u64,
        pid: u32,
        pad: u32,
        comm: [u8; COMM_LEN],
    }
}

mirror! {
    /// What changes while they run.
    FaultsControl = "faults_control" {
        epoch: u64,
        last: u64,
        began_ns: u64,
        adopted: u64,
        turn: u64,
        stale: u64,
        stale_chains: u64,
        taken_groups: u64,
        taken_chains: u64,
    }
}

mirror! {
    /// Entries that were made.
    FaultsMade = "faults_made" {
        groups: u64,
        chains: u64,
        names: u64,
        retired: u64,
    }
}

mirror! {
    /// A process.
    FaultsProcess = "faults_process" {
        start_ns: u64,
        pid: u32,
        pad: u32,
    }
}

mirror! {
    /// Faults and their times.
    FaultsStats = "faults_stats" {
        major: u64,
        minor: u64,
        timed_major: u64,
        timed_minor: u64,
        major_ns: u64,
        minor_ns: u64,
        waits: u64,
        wait_ns: u64,
        slept_minor: u64,
        slept_minor_ns: u64,
        part_ns: [u64; PARTS],
        hist: [u64; BUCKETS],
        major_hist: [u64; BUCKETS / 4],
        major_over: u64,
        all: TrapExtremes,
        recent: TrapExtremes,
    }
}

mirror! {
    /// One thread.
    FaultsThread = "faults_thread" {
        start_ns: u64,
        pid: u32,
        tid: u32,
        cgroup: u64,
        comm: [u8; COMM_LEN],
        process_start_ns: u64,
        process_comm: [u8; COMM_LEN],
        forks: u32,
        forked_by: u32,
        stats: FaultsStats,
    }
}

mirror! {
    /// A file, a kind of memory or a stack.
    FaultsGroupKey = "faults_group_key" {
        word: [u64; 4],
    }
}

mirror! {
    /// What faults are grouped by.
    FaultsRowKey = "faults_row_key" {
        of: FaultsGroupKey,
        whose: [u64; 2],
        facts: u64,
    }
}

impl FaultsRowKey {
    /// The same as the ledger knows it.
    pub(crate) fn id(&self) -> GroupId {
        bytemuck::cast(*self)
    }

    /// The part that an object's map has for its key, by its size (`GROUP_KEY`).
    pub(crate) fn in_use(size: usize) -> Range<usize> {
        let from = if size == size_of::<u64>() { offset_of!(Self, facts) } else { 0 };
        from..from + size
    }
}

mirror! {
    /// The faults of one key.
    FaultsGroup = "faults_group" {
        stats: FaultsStats,
        not_low: u64,
        high: u64,
        failed: u64,
        turn: u64,
        owner: FaultsProcess,
        uid: u32,
        pad: u32,
    }
}

mirror! {
    /// What a mapped file was called.
    FaultsName = "faults_name" {
        flags: u32,
        length: u32,
        text: [u8; NAME_LEN],
    }
}

mirror! {
    /// One fault.
    FaultsEvent = "faults_event" {
        time_ns: u64,
        start_ns: u64,
        addr: u64,
        ip: u64,
        user_ip: u64,
        latency_ns: u64,
        process_start_ns: u64,
        count: u64,
        file: FaultsGroupKey,
        offset: u64,
        wait_ns: u64,
        part_ns: [u64; PARTS],
        pid: u32,
        tid: u32,
        outcome: u32,
        rw: u32,
        cpu: u32,
        page: u32,
        facts: u32,
        pad: u32,
        comm: [u8; COMM_LEN],
        process_comm: [u8; COMM_LEN],
        cgroup: u64,
        stack: u64,
    }
}

mirror! {
    /// How to walk through page tables.
    FaultsWalk = "faults_walk" {
        base: u64,
        mask: u64,
        levels: u64,
    }
}

impl FaultsWalk {
    /// The longest way that there is, for a look at programs that do not run.
    pub(crate) fn deepest() -> Self {
        Self { base: 0, mask: 0, levels: 5 }
    }
}

mirror! {
    /// What is to be found out about that.
    FaultsWalkAsk = "faults_walk_ask" {
        addr: u64,
        frame: u64,
        mask: u64,
        places: u64,
    }
}

mirror! {
    /// Whether programs have run.
    FaultsAlive = "faults_alive" {
        begins: u32,
        ends: u32,
    }
}

mirror! {
    /// What was lost.
    FaultsLosses = "faults_losses" {
        events: u64,
        unattributed_major: u64,
        unattributed_minor: u64,
        untracked: u64,
        uncounted: u64,
        unpaired: u64,
        unattributed: u64,
        unexplained: u64,
        over_quota: u64,
    }
}

mirror! {
    /// Times of single calls.
    FaultsCallTimes = "faults_call_times" {
        hist: [u64; BUCKETS],
        all: TrapExtremes,
        recent: TrapExtremes,
    }
}

mirror! {
    /// One span.
    FaultsSpan = "faults_span" {
        calls: u64,
        unfinished: u64,
        major: u64,
        minor: u64,
        timed: u64,
        stall_ns: u64,
        major_ns: u64,
        span_ns: u64,
        stall: FaultsCallTimes,
        span: FaultsCallTimes,
    }
}

mirror! {
    /// What could not be told of any span.
    FaultsSpanLosses = "faults_span_losses" {
        unmatched: u64,
        too_deep: u64,
        untracked: u64,
        open: u64,
    }
}

#[cfg(test)]
pub(super) fn faults_layouts() -> Vec<super::Layout> {
    vec![
        FaultsConfig::layout(),
        FaultsChain::layout(),
        FaultsStep::layout(),
        FaultsControl::layout(),
        FaultsMade::layout(),
        FaultsProcess::layout(),
        FaultsStats::layout(),
        FaultsThread::layout(),
        FaultsGroupKey::layout(),
        FaultsRowKey::layout(),
        FaultsGroup::layout(),
        FaultsName::layout(),
        FaultsEvent::layout(),
        FaultsWalk::layout(),
        FaultsWalkAsk::layout(),
        FaultsAlive::layout(),
        FaultsLosses::layout(),
        FaultsCallTimes::layout(),
        FaultsSpan::layout(),
        FaultsSpanLosses::layout(),
    ]
}

#[cfg(test)]
pub(super) fn faults_constants() -> Vec<super::Values> {
    vec![
        marks(),
        sizes(),
        rings(),
        groups(),
        steps(),
        areas(),
        name_flags(),
        chains(),
        accesses(),
        pages(),
        outcomes(),
        parts(),
        memories(),
        befores(),
        also(),
        span_sizes(),
    ]
}
