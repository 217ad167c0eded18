//! What the kernel half counts, as the model has it.

use trapline_model::kvm::Stats;
use trapline_model::{Extremes, Hist};

use crate::abi::{self, KvmExits, KvmLevel};

/// Exits of L1 and of L2. What may still turn out to be of L2, or to have a subject, is shown when that is known, or when
/// nothing more can come.
pub(super) fn counts(exits: &KvmExits, settled: bool) -> [u64; 2] {
    let open = u64::from(exits.undecided != abi::KVM_DECIDED);
    let of_l2 = u64::from(exits.undecided == abi::KVM_UNDECIDED_L2);
    let l2_count = exits.l2_count + if settled { of_l2 } else { 0 };
    let not_l1 = exits.moved + exits.l2_count + if settled { of_l2 } else { open };
    [exits.count.saturating_sub(not_l1), l2_count]
}

/// A level's figures in the words of the model.
pub(super) fn stats(of: &KvmLevel, count: u64) -> Stats {
    Stats {
        count,
        timed: of.timed,
        ns: of.ns,
        extremes: Extremes { max_ns: of.max_ns, min_ns: !of.min_inverted },
        guest_ns: of.guest_ns,
        hist: Hist::new(&of.hist),
        reflected: of.reflected,
        to_vmm: of.to_vmm,
        phase_ns: [
            abi::KVM_PHASE_KVM,
            abi::KVM_PHASE_VMM,
            abi::KVM_PHASE_BLOCKED,
            abi::KVM_PHASE_PREEMPTED,
            abi::KVM_PHASE_FAULT,
        ]
        .map(|phase| of.phase_ns[phase]),
        faults: [of.faults_major, of.faults_minor],
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn an_exit_is_counted_once_it_is_known_what_it_was() {
        let of = |count, undecided, l2_count, moved| {
            let exits = KvmExits { count, undecided, l2_count, moved, ..KvmExits::zeroed() };
            [false, true].map(|settled| counts(&exits, settled))
        };
        assert_eq!(of(6, 0, 2, 1), [[3, 2], [3, 2]]);
        // The last one is open: of L1 if nothing more comes.
        assert_eq!(of(6, 1, 2, 1), [[2, 2], [3, 2]]);
        // It is of L2, and may still turn out to have a subject.
        assert_eq!(of(6, abi::KVM_UNDECIDED_L2, 2, 1), [[2, 2], [2, 3]]);
        // A reader came between the two writes of an exit that turned out to have one: one fewer, for a moment.
        assert_eq!(of(1, 1, 0, 1)[0], [0, 0]);
    }
}
