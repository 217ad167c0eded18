//! The kernel half of kvm, run by BPF_PROG_RUN: see [`crate::prog_run`].

use std::collections::BTreeMap;

use bytemuck::{Zeroable, pod_read_unaligned};
use fastrand::Rng;
use libbpf_rs::{MapCore, MapFlags};

use super::from_abi::counts;
use crate::abi::maps::kvm as maps;
use crate::abi::{self, KvmConfig, KvmExits, KvmKey};
use crate::prog_run::{self, set};
use crate::variant::Attached;

/// Exits of L1 and L2, by reason, MSR and whether it is written.
type Counts = BTreeMap<(u32, u64, u32), [u64; 2]>;

/// What a reader shows at this moment, or when nothing more can come.
fn shown(half: &Attached, settled: bool) -> Counts {
    let exits = half.handle(maps::EXITS).unwrap();
    let mut all = Counts::new();
    for bytes in exits.keys() {
        let key: KvmKey = pod_read_unaligned(&bytes);
        let exits: KvmExits = pod_read_unaligned(&exits.lookup(&bytes, MapFlags::ANY).unwrap().unwrap());
        let [l1, l2] = counts(&exits, settled);
        let sum = all.entry((key.reason, key.sub, key.write)).or_default();
        *sum = [sum[0] + l1, sum[1] + l2];
    }
    all.retain(|_, counts| *counts != [0, 0]);
    all
}

/// Each moment between two tracepoints is one at which somebody may read.
#[test]
#[ignore = "needs root: `make test` runs it"]
fn no_exit_is_shown_as_another_or_twice_and_in_the_end_each_is_shown() {
    for (timed, sub) in
        [(0, abi::KVM_SUB_NONE), (1, abi::KVM_SUB_NONE), (0, abi::KVM_SUB_MSR), (1, abi::KVM_SUB_MSR)]
    {
        let config = KvmConfig { timed, sub, vcpu: abi::KVM_ANY_VCPU, ..KvmConfig::zeroed() };
        let half = prog_run::load(compiled!("test_kvm"), |object| set(object, maps::CONFIG, &config));
        let mut random = Rng::with_seed(11);
        let mut truth = Counts::new();
        for run in 0..600 {
            let (reason, of_l2) = (random.u32(0..4), random.bool());
            let subject =
                (sub != abi::KVM_SUB_NONE && random.bool()).then(|| (random.u64(0..3), random.bool()));
            let mut steps: Vec<(&str, Vec<u64>)> =
                vec![("test_exit", vec![reason.into(), abi::KVM_ISA_VMX.into(), 0, 0x1000])];
            steps.extend(of_l2.then(|| ("test_nested", vec![])));
            if let Some((what, write)) = subject {
                // Only the first of several is what an exit is about.
                for other in 0..random.u64(1..3) {
                    steps.push(("test_subject", vec![what + other, write.into()]));
                }
            }
            // Where entries are looked at, an exit may go without one: KVM enters the guest again by itself.
            steps.extend((timed != 0 && random.u32(0..5) > 0).then(|| ("test_enter", vec![])));
            let key = match subject {
                Some((what, write)) => (reason, what, write.into()),
                None if sub == abi::KVM_SUB_NONE => (reason, 0, 0),
                None => (reason, 0, abi::KVM_NO_SUBJECT),
            };
            truth.entry(key).or_default()[usize::from(of_l2)] += 1;
            for (program, arguments) in steps {
                assert_eq!(half.run(program, &arguments), 1);
                for (key, [l1, l2]) in shown(&half, false) {
                    let [most_l1, most_l2] = truth.get(&key).copied().unwrap_or_default();
                    assert!(l1 <= most_l1 && l2 <= most_l2, "run {run}: {key:?} after {program}");
                }
            }
            assert_eq!(shown(&half, true), truth, "run {run}, timed: {timed}, by: {sub}");
        }
    }
}
