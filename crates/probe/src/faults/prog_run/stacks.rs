//! Stacks that are read while as many wait for their symbols as there is space for.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags};
use trapline_model::faults::{By, Ledger, Losses, Timing};
use trapline_symbols::Scope;

use super::super::stack_map::StackMap;
use super::load;
use crate::abi::maps::faults as maps;
use crate::abi::{self, FaultsChain, FaultsConfig, FaultsGroupKey};
use crate::prog_run::resize;

/// No process has this number.
const PID: u32 = 1 << 30;

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_stack_without_a_place_is_kept_until_it_has_one() {
    let config = FaultsConfig { group: abi::GROUP_STACK, ..FaultsConfig::zeroed() };
    let half = load(config, |object| resize(object, maps::CHAINS, 64));
    let chains = half.handle(maps::CHAINS).unwrap();
    let [usual, late, stale] = [1000, 1001, 1002_u64];
    for key in [usual, late, stale] {
        let mut chain = FaultsChain { count: 1, turn: 1, ..FaultsChain::zeroed() };
        chain.ip[0] = key;
        chains.update(&key.to_ne_bytes(), bytes_of(&chain), MapFlags::ANY).unwrap();
    }
    let mut stacks = StackMap::open(&half, Scope::These(HashSet::from([PID])), false, None).unwrap();
    let mut ledger = Ledger::new(By::Stack, Timing::None);
    // Stacks of one user, each of another moment.
    let is_other = |stacks: &mut StackMap, moment: u64, chain: u64, faults: u64| {
        let key = FaultsGroupKey { word: [PID.into(), moment, chain, abi::CHAIN_NONE] };
        let stack = stacks.stack(&key, faults, 0).unwrap().unwrap();
        stack.frames.contains("(other stacks)")
    };
    let lost = |stacks: &StackMap| {
        let mut losses = Losses { over_quota_faults: Some(0), ..Losses::default() };
        stacks.losses(&mut losses);
        (losses.lost_stacks, losses.over_quota_faults)
    };
    let placed = (1..1 << 16).find(|&moment| is_other(&mut stacks, moment, usual, 1)).unwrap() - 1;
    assert!(is_other(&mut stacks, 1 << 20, late, 5));
    assert_eq!(lost(&stacks), (Some(0), Some(1 + 5)), "after {placed}");
    // All three are stale. Two are of stacks that nobody has read yet.
    assert_eq!(stacks.take_out(9, 8).unwrap(), 1);
    let turn = |key: u64| {
        let chain = chains.lookup(&key.to_ne_bytes(), MapFlags::ANY).unwrap();
        chain.map(|chain| pod_read_unaligned::<FaultsChain>(&chain).turn)
    };
    assert_eq!([usual, late, stale].map(turn), [Some(9), Some(9), None]);
    let until = Instant::now() + Duration::from_secs(60);
    while stacks.have_work() {
        stacks.work(until, &mut ledger);
        assert!(Instant::now() < until);
    }
    assert!(!is_other(&mut stacks, 1 << 20, late, 6));
    assert_eq!(lost(&stacks), (Some(0), Some(1)));
    // The other one gets none.
    stacks.close(&[PID.into(), placed + 1, usual, abi::CHAIN_NONE], &mut ledger);
    assert_eq!(lost(&stacks), (Some(0), Some(1)));
    // Both chains are nobody's now.
    assert_eq!(stacks.take_out(19, 18).unwrap(), 2);
}
