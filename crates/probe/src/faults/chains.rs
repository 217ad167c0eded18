//! The kernel half's table of call chains, by their hashes: see `bpf/faults_stack.bpf.h`.

use std::collections::HashSet;

use anyhow::{Context, Result};
use bytemuck::{bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::abi::{self, FaultsChain};
use crate::stacks::Others;

/// The table.
#[derive(Debug)]
pub(super) struct Chains(pub(super) MapHandle);

impl Chains {
    /// The chain of that key, if it is there.
    pub(super) fn get(&self, key: u64) -> Result<Option<FaultsChain>> {
        self.read(&key.to_ne_bytes())
    }

    fn read(&self, key: &[u8]) -> Result<Option<FaultsChain>> {
        let bytes = self.0.lookup(key, MapFlags::ANY).context("cannot read the stacks")?;
        Ok(bytes.map(|bytes| pod_read_unaligned(&bytes)))
    }

    /// Takes out those that were last used before the turn `stale`, but for the `wanted`, which are as if used now: nobody
    /// has read them yet. Gives how many there were.
    pub(super) fn take_out(&self, turn: u64, stale: u64, wanted: &HashSet<u64>) -> Result<u64> {
        let mut taken = 0;
        // All of them first: after a key that was deleted comes the first one again.
        let keys: Vec<_> = self.0.keys().collect();
        for key in keys {
            let Some(mut chain) = self.read(&key)?.filter(|chain| chain.turn < stale) else { continue };
            let number = key.first_chunk().copied().map(u64::from_ne_bytes);
            if number.is_some_and(|key| wanted.contains(&key)) {
                chain.turn = turn;
                self.0.update(&key, bytes_of(&chain), MapFlags::EXIST).context("cannot keep a stack")?;
            } else {
                self.0.delete(&key).context("cannot delete a stack")?;
                taken += 1;
            }
        }
        Ok(taken)
    }
}

/// Whether it is a chain's, and no number that means something else.
pub(super) fn is_chain(key: u64) -> bool {
    key > abi::CHAIN_OTHER_FULL
}

/// Why its stacks are in the row of others, if they are.
pub(super) fn others(key: u64) -> Option<Others> {
    match key {
        abi::CHAIN_OTHER => Some(Others::Share),
        abi::CHAIN_OTHER_OF_USER => Some(Others::User),
        abi::CHAIN_OTHER_FULL => Some(Others::Full),
        _ => None,
    }
}
