//! `bpf/trap.h`, mirrored.

use bytemuck::{Pod, Zeroable};

constants! {
    sizes = "trap_size", "TRAP_": usize {
        COMM_LEN = 16,
        BUCKETS = trapline_model::BUCKETS,
        MAX_PIDS = 4096,
        MAX_NAMES = 64,
        MAX_USERS = 64,
        /// Nanoseconds of an interval's longest time; the interval's number is above them.
        TIME_BITS = 44,
    }
}

constants! {
    conditions = "trap_by", "TRAP_": u32 {
        BY_PID = 1,
        BY_TID = 2,
        BY_COMM = 4,
        BY_CGROUP = 8,
        BY_TREE = 16,
        BY_USER = 32,
    }
}

mirror! {
    /// What user space changes while programs run.
    TrapControl = "trap_control" {
        epoch: u64,
    }
}

mirror! {
    /// Where the numbers of a task are, by PID namespace.
    TrapNumbers = "trap_numbers" {
        thread_pid: u32,
        signal: u32,
        tgid: u32,
        level: u32,
        numbers: u32,
        inum: u32,
    }
}

mirror! {
    /// Which tasks are meant.
    TrapFilter = "trap_filter" {
        cgroup: u64,
        cgroup_level: u32,
        cgroup_subsys: u32,
        tid: u32,
        by: u32,
        pid_level: u32,
        pid_inum: u32,
        numbers: TrapNumbers,
    }
}

mirror! {
    /// The longest and the shortest time of an interval.
    TrapExtremes = "trap_extremes" {
        max: [u64; 2],
        min: [u64; 2],
    }
}

#[cfg(test)]
pub(super) fn trap_layouts() -> Vec<super::Layout> {
    vec![TrapFilter::layout(), TrapNumbers::layout()]
}

#[cfg(test)]
pub(super) fn trap_constants() -> Vec<super::Values> {
    vec![sizes(), conditions()]
}
