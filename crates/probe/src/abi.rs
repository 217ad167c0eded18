//! The structures that user space and the kernel half share: `bpf/trap.h` and each tool's header, mirrored.
//!
//! A test compares each with the types in the compiled object, so a mirror cannot drift from its original.

use bytemuck::{Pod, Zeroable};
use trapline_model::BUCKETS;
use trapline_model::kvm::PHASES;

pub(crate) const COMM_LEN: usize = 16;
/// A minimum of nothing; an address that is not known.
pub(crate) const NONE: u64 = u64::MAX;

pub(crate) const BY_PID: u32 = 1;
pub(crate) const BY_TID: u32 = 2;
pub(crate) const BY_COMM: u32 = 4;
pub(crate) const BY_CGROUP: u32 = 8;
pub(crate) const BY_TREE: u32 = 16;

pub(crate) const GROUP_NONE: u32 = 0;
pub(crate) const GROUP_FILE: u32 = 1;
pub(crate) const GROUP_CAUSE: u32 = 2;

/// In place of whether a fault was major: it ended in a signal.
pub(crate) const FAILED: u32 = 2;
pub(crate) const GROUP_STACK: u32 = 3;
/// Instead of a process: faults whose stack was not asked for.
pub(crate) const STACK_UNTAKEN: u64 = u64::MAX;
/// There is no chain of this sort.
pub(crate) const CHAIN_NONE: u64 = 0;
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

/// Nanoseconds of an extreme; the number of its interval is above them.
pub(crate) const TIME_BITS: u32 = 44;

pub(crate) const NAME_DELETED: u32 = 1;
pub(crate) const NAME_CUT: u32 = 2;
const NAME_TEXT: usize = 4096;

pub(crate) const STEP_ALL: u32 = 0;
pub(crate) const STEP_MAJOR: u32 = 1;
pub(crate) const STEP_STALL: u32 = 2;

macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident = $c_name:literal { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        #[cfg(test)]
        impl $name {
            /// Its C name, its size, and each field's name and offset in bytes.
            fn layout() -> (&'static str, usize, Vec<(&'static str, usize)>) {
                let fields = vec![$((stringify!($field), std::mem::offset_of!($name, $field)),)*];
                ($c_name, size_of::<$name>(), fields)
            }
        }
    };
}

mirror! {
    /// Which tasks are meant.
    TrapFilter = "trap_filter" {
        cgroup: u64,
        began_ns: u64,
        cgroup_level: u32,
        tid: u32,
        by: u32,
        pad: u32,
        comm: [u8; COMM_LEN],
    }
}

mirror! {
    /// How the faults programs work.
    FaultsConfig = "faults_config" {
        step: u64,
        minor_weight: u32,
        verbose: u32,
        step_of: u32,
        group: u32,
        cause: u32,
        stack_every: u32,
        files: u32,
        stack_deepest: u32,
    }
}

mirror! {
    /// Where calls return to, innermost first.
    FaultsChain = "faults_chain" {
        count: u64,
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
    }
}

mirror! {
    /// The longest and the shortest fault of one interval.
    FaultsExtremes = "faults_extremes" {
        max: u64,
        min: u64,
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
        max_ns: u64,
        recent: [FaultsExtremes; 2],
        min_ns: u64,
        hist: [u64; BUCKETS],
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
        low: u64,
        high: u64,
        failed: u64,
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
    }
}

/// SPANS_MAX in `bpf/faults_span.h`.
pub(crate) const SPANS_MAX: usize = 64;

mirror! {
    /// Times of single calls.
    FaultsCallTimes = "faults_call_times" {
        all: FaultsExtremes,
        recent: [FaultsExtremes; 2],
        hist: [u64; BUCKETS],
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

mirror! {
    /// Which processes the access programs follow.
    AccessConfig = "access_config" {
        follow: u32,
        named: u32,
    }
}

mirror! {
    /// A process gets memory of its own, or ends.
    AccessLife = "access_life" {
        time_ns: u64,
        what: u32,
        pid: u32,
        tid: u32,
        cpu: u32,
        borrows: u32,
        parent: u32,
        comm: [u8; COMM_LEN],
    }
}

mirror! {
    /// Where the kvm tracepoints have their fields.
    KvmOffsets = "kvm_offsets" {
        reason: u32,
        isa: u32,
        vcpu: u32,
        rip: u32,
        sub: u32,
        write: u32,
    }
}

mirror! {
    /// How the kvm programs work.
    KvmConfig = "kvm_config" {
        slow_ns: u64,
        timed: u32,
        split: u32,
        vcpu: u32,
        sub: u32,
        choice: u32,
        pad: u32,
        at: KvmOffsets,
    }
}

mirror! {
    /// What exits are counted under.
    KvmKey = "kvm_key" {
        sub: u64,
        thread: u32,
        vcpu: u32,
        reason: u32,
        write: u32,
    }
}

mirror! {
    /// Exits of one level.
    KvmLevel = "kvm_level" {
        timed: u64,
        ns: u64,
        max_ns: u64,
        recent: [u64; 2],
        epoch: [u64; 2],
        reflected: u64,
        to_vmm: u64,
        phase_ns: [u64; PHASES],
        faults_major: u64,
        faults_minor: u64,
        hist: [u64; BUCKETS],
    }
}

mirror! {
    /// Exits of one key.
    KvmExits = "kvm_exits" {
        count: u64,
        undecided: u64,
        l2_count: u64,
        level: [KvmLevel; 2],
    }
}

mirror! {
    /// A thread that runs a vCPU.
    KvmThread = "kvm_thread" {
        start_ns: u64,
        process_start_ns: u64,
        pid: u32,
        tid: u32,
        isa: u32,
        ended: u32,
    }
}

mirror! {
    /// One slow exit.
    KvmEvent = "kvm_event" {
        time_ns: u64,
        latency_ns: u64,
        rip: u64,
        pid: u32,
        tid: u32,
        vcpu: u32,
        isa: u32,
        reason: u32,
        level: u32,
    }
}

mirror! {
    /// What was lost.
    KvmLosses = "kvm_losses" {
        events: u64,
        uncounted: u64,
        untracked: u64,
    }
}

/// An offset that is not known.
pub(crate) const SGX_NOWHERE: u32 = u32::MAX;

mirror! {
    /// Where an SGX driver's types have their fields, bytes.
    SgxLayout = "sgx_layout" {
        encl_base: u32,
        encl_size: u32,
        encl_refcount: u32,
        encl_secs: u32,
        page_encl: u32,
        page_desc: u32,
        epc_owner: u32,
        pad: u32,
    }
}

mirror! {
    /// How the sgx programs work.
    SgxConfig = "sgx_config" {
        release_is_seen: u32,
        pad: u32,
    }
}

mirror! {
    /// What changes while they run.
    SgxControl = "sgx_control" {
        epoch: u64,
    }
}

mirror! {
    /// Which pages of which enclave, in which interval.
    SgxChunkKey = "sgx_chunk_key" {
        index: u64,
        serial: u32,
        epoch: u32,
    }
}

mirror! {
    /// One enclave.
    SgxEnclave = "sgx_enclave" {
        serial: u64,
        start_ns: u64,
        cgroup: u64,
        base: u64,
        size: u64,
        pid: u32,
        guest: u32,
        pages: u64,
        unaccounted: u64,
        faults: u64,
        loads: u64,
        added: u64,
        mapped: u64,
        busy: u64,
        failed: u64,
        evictions: u64,
        by_daemon: u64,
        caused: u64,
        refaults: u64,
        secs_loads: u64,
        secs_evictions: u64,
        load_ns: u64,
        longest: [u64; 2],
        hist: [u64; BUCKETS],
        comm: [u8; COMM_LEN],
    }
}

mirror! {
    /// What the sgx programs lost.
    SgxLosses = "sgx_losses" {
        untracked: u64,
        unpaired: u64,
        crowded: u64,
        unmarked: u64,
        unended: u64,
    }
}

/// A task's name: up to the first NUL, bytes that are not UTF-8 replaced.
pub(crate) fn comm(bytes: &[u8; COMM_LEN]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Write;

    use libbpf_rs::btf::{Btf, HasSize, types};

    use super::*;

    type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

    #[test]
    fn mirrors_equal_the_kernel_half() {
        compare(
            crate::faults::OBJECT,
            &[
                TrapFilter::layout(),
                FaultsConfig::layout(),
                FaultsControl::layout(),
                FaultsExtremes::layout(),
                FaultsStats::layout(),
                FaultsGroupKey::layout(),
                FaultsGroup::layout(),
                FaultsName::layout(),
                FaultsChain::layout(),
                FaultsThread::layout(),
                FaultsEvent::layout(),
                FaultsStep::layout(),
                FaultsWalk::layout(),
                FaultsWalkAsk::layout(),
                FaultsAlive::layout(),
                FaultsLosses::layout(),
                FaultsCallTimes::layout(),
                FaultsSpan::layout(),
                FaultsSpanLosses::layout(),
            ],
        );
        compare(
            crate::kvm::OBJECT,
            &[
                TrapFilter::layout(),
                KvmOffsets::layout(),
                KvmConfig::layout(),
                KvmKey::layout(),
                KvmLevel::layout(),
                KvmExits::layout(),
                KvmThread::layout(),
                KvmEvent::layout(),
                KvmLosses::layout(),
            ],
        );
        compare(
            crate::sgx::OBJECT,
            &[
                TrapFilter::layout(),
                SgxLayout::layout(),
                SgxConfig::layout(),
                SgxControl::layout(),
                SgxChunkKey::layout(),
                SgxEnclave::layout(),
                SgxLosses::layout(),
            ],
        );
        compare(crate::access::OBJECT, &[AccessConfig::layout(), AccessLife::layout()]);
    }

    fn compare(object: &[u8], mirrors: &[Layout]) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(object).unwrap();
        let btf = Btf::from_path(file.path()).unwrap();
        for (name, size, fields) in mirrors {
            let original: types::Struct<'_> = btf.type_by_name(name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(original.size(), *size, "size of {name}");
            let members: Vec<_> = original
                .iter()
                .map(|member| match member.attr {
                    types::MemberAttr::Normal { offset } => (member.name, offset as usize / 8),
                    types::MemberAttr::BitField { .. } => panic!("{name} has a bit field"),
                })
                .collect();
            let mirrored: Vec<_> = fields.iter().map(|&(f, at)| (Some(OsStr::new(f)), at)).collect();
            assert_eq!(members, mirrored, "fields of {name}");
        }
    }

    #[test]
    fn a_name_ends_at_its_first_nul_and_is_text() {
        assert_eq!(comm(b"bash\0garbage\0\0\0\0"), "bash");
        assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
        assert_eq!(comm(b"\xff\x1b[2J\0\0\0\0\0\0\0\0\0\0\0"), "\u{fffd}\x1b[2J");
    }
}
