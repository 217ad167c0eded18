//! `bpf/kvm.h`, mirrored.

use bytemuck::{Pod, Zeroable};
use trapline_model::BUCKETS;
use trapline_model::kvm::{PHASES, RETURN_ERROR};

use super::TrapExtremes;

constants! {
    nothing = "kvm_none", "": u32 {
        KVM_ANY_VCPU = u32::MAX,
        /// A field that the tracepoint does not have.
        KVM_NO_FIELD = u32::MAX,
    }
}

constants! {
    sizes = "kvm_size", "": usize {
        KVM_MAX_EXITS = 65536,
        KVM_MAX_THREADS = 8192,
        KVM_PHASES = PHASES,
        KVM_STACK_PAGES = 5,
        KVM_STACK = 5 * 4096,
        KVM_STACKS = 1024,
    }
}

constants! {
    isas = "kvm_isa", "": u32 {
        KVM_ISA_VMX = 1,
        KVM_ISA_SVM = 2,
    }
}

constants! {
    subs = "kvm_sub", "": u32 {
        KVM_SUB_NONE = 0,
        KVM_SUB_MSR = 1,
        KVM_SUB_PORT = 2,
        KVM_SUB_MMIO = 3,
        KVM_SUB_RIP = 4,
        /// Why KVM returned to its VMM.
        KVM_SUB_RETURN = 5,
    }
}

constants! {
    returns = "kvm_return", "": u32 {
        /// With the error's number below this bit.
        KVM_RETURN_ERROR = RETURN_ERROR,
    }
}

constants! {
    writes = "kvm_write", "": u32 {
        KVM_READS = 0,
        KVM_WRITES = 1,
        /// An exit without MSR, port or guest address.
        KVM_NO_SUBJECT = 2,
    }
}

constants! {
    undecided = "kvm_undecided", "": u64 {
        KVM_DECIDED = 0,
        /// Of L1 so far.
        KVM_UNDECIDED = 1,
        KVM_UNDECIDED_L2 = 2,
    }
}

constants! {
    choices = "kvm_choice", "": u32 {
        KVM_ALL_REASONS = 0,
        KVM_ONLY_THESE = 1,
        KVM_ALL_BUT_THESE = 2,
    }
}

constants! {
    phases = "kvm_phase", "": usize {
        KVM_PHASE_KVM = 0,
        KVM_PHASE_VMM = 1,
        KVM_PHASE_BLOCKED = 2,
        KVM_PHASE_PREEMPTED = 3,
        KVM_PHASE_FAULT = 4,
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
        fast: u32,
        injected: u32,
        injected_info: u32,
        returned: u32,
        returned_errno: u32,
        pad: u32,
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
        min_inverted: u64,
        guest_ns: u64,
        reflected: u64,
        to_vmm: u64,
        phase_ns: [u64; PHASES],
        faults_major: u64,
        faults_minor: u64,
        hist: [u64; BUCKETS],
        recent: TrapExtremes,
    }
}

mirror! {
    /// Exits of one key.
    KvmExits = "kvm_exits" {
        count: u64,
        undecided: u64,
        l2_count: u64,
        moved: u64,
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
        stack: u32,
        pad: u32,
    }
}

constants! {
    stack_moments = "kvm_stack_at", "": u32 {
        /// KVM handled the exit itself.
        KVM_STACK_NONE = 0,
        KVM_STACK_LOST = 1,
        /// The call of KVM_RUN after the exit.
        KVM_STACK_RUN = 2,
        KVM_STACK_ASLEEP = 3,
        KVM_STACK_PREEMPTED = 4,
    }
}

mirror! {
    /// One slow exit, with the stack that is behind it.
    KvmStacked = "kvm_stacked" {
        event: KvmEvent,
        away_ns: u64,
        ip: u64,
        sp: u64,
        bp: u64,
    }
}

mirror! {
    /// What was lost.
    KvmLosses = "kvm_losses" {
        events: u64,
        uncounted: u64,
        untracked: u64,
        unseen: u64,
        stacks: u64,
    }
}

#[cfg(test)]
pub(super) fn kvm_layouts() -> Vec<super::Layout> {
    vec![
        KvmOffsets::layout(),
        KvmConfig::layout(),
        KvmKey::layout(),
        KvmLevel::layout(),
        KvmExits::layout(),
        KvmThread::layout(),
        KvmEvent::layout(),
        KvmStacked::layout(),
        KvmLosses::layout(),
    ]
}

#[cfg(test)]
pub(super) fn kvm_constants() -> Vec<super::Values> {
    vec![
        nothing(),
        sizes(),
        isas(),
        subs(),
        returns(),
        writes(),
        undecided(),
        choices(),
        phases(),
        stack_moments(),
    ]
}
