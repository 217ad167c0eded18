//! `bpf/faults.h`, mirrored.

use bytemuck::{Pod, Zeroable};
use trapline_model::BUCKETS;

use super::COMM_LEN;

pub(crate) const RING_NONE: u32 = 0;
/// Each fault.
pub(crate) const RING_FAULTS: u32 = 1;
/// With what it was for.
pub(crate) const RING_CAUSES: u32 = 2;
/// Messages at steps.
pub(crate) const RING_STEPS: u32 = 4;

pub(crate) const GROUP_NONE: u32 = 0;
pub(crate) const GROUP_FILE: u32 = 1;
pub(crate) const GROUP_CAUSE: u32 = 2;
pub(crate) const GROUP_STACK: u32 = 3;

/// In place of whether a fault was major: it ended in a signal.
pub(crate) const FAILED: u32 = 2;

/// Instead of a process: faults whose stack was not asked for.
pub(crate) const STACK_UNTAKEN: u64 = u64::MAX >> 1;
/// In the first word of a key: it stands for the group whose key it is otherwise.
pub(crate) const SECOND: u64 = 1 << 63;
/// There is no chain of this sort.
pub(crate) const CHAIN_NONE: u64 = 0;
/// The process has used up its share.
pub(crate) const CHAIN_OTHER: u64 = 2;
/// Frames of a chain at most.
pub(crate) const CHAIN_LEN: usize = 128;

pub(crate) const AREA_FILE: u32 = 1;
pub(crate) const AREA_ANON: u32 = 2;
pub(crate) const AREA_HEAP: u32 = 3;
pub(crate) const AREA_STACK: u32 = 4;
pub(crate) const AREA_SHMEM: u32 = 5;
pub(crate) const AREA_HUGETLB: u32 = 6;
#[cfg(test)]
pub(crate) const AREA_OBJECT: u32 = 7;
pub(crate) const AREA_SPECIAL: u32 = 8;
/// Files of a process that has used up its share.
pub(crate) const AREA_OTHER: u32 = 9;

pub(crate) const NAME_DELETED: u32 = 1;
pub(crate) const NAME_CUT: u32 = 2;
pub(crate) const NAME_READY: u32 = 4;
const NAME_TEXT: usize = 4096;

pub(crate) const STEP_ALL: u32 = 0;
pub(crate) const STEP_MAJOR: u32 = 1;
pub(crate) const STEP_STALL: u32 = 2;

mirror! {
    /// How the faults programs work.
    FaultsConfig = "faults_config" {
        seed: u64,
        step: u64,
        ring: u32,
        group: u32,
        minor_weight: u32,
        step_of: u32,
        stack_every: u32,
        stack_deepest: u32,
        may_miss: u32,
        groups: u32,
        chains: u32,
        share: u32,
    }
}

mirror! {
    /// Where calls return to, innermost first.
    FaultsChain = "faults_chain" {
        count: u64,
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
    /// The longest and the shortest fault of an interval.
    FaultsExtremes = "faults_extremes" {
        max: [u64; 2],
        min: [u64; 2],
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
        hist: [u64; BUCKETS],
        all: FaultsExtremes,
        recent: FaultsExtremes,
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
        stats: FaultsStats,
    }
}

mirror! {
    /// What faults are grouped by.
    FaultsGroupKey = "faults_group_key" {
        word: [u64; 4],
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
    }
}

mirror! {
    /// What a mapped file was called.
    FaultsName = "faults_name" {
        flags: u32,
        length: u32,
        text: [u8; NAME_TEXT],
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
        pid: u32,
        tid: u32,
        major: u32,
        rw: u32,
        cpu: u32,
        page: u32,
        facts: u32,
        pad: u32,
        comm: [u8; COMM_LEN],
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
        crowded: u64,
        untold: u64,
        over_quota: u64,
    }
}

/// SPANS_MAX in `bpf/faults_span.h`.
pub(crate) const SPANS_MAX: usize = 64;

mirror! {
    /// Times of single calls.
    FaultsCallTimes = "faults_call_times" {
        hist: [u64; BUCKETS],
        all: FaultsExtremes,
        recent: FaultsExtremes,
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
        unentered: u64,
        too_deep: u64,
        unkept: u64,
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
        FaultsExtremes::layout(),
        FaultsStats::layout(),
        FaultsThread::layout(),
        FaultsGroupKey::layout(),
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
