//! What the kernel half calls a chain of calls. See `bpf/faults_stack.bpf.h`.

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytemuck::pod_read_unaligned;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use trapline_model::faults::{Losses, Process, Stack};
use trapline_symbols::Scope;

use super::stacks::{Chain, Incomplete, Named, Naming};
use crate::abi::maps::faults as maps;
use crate::abi::{self, FaultsChain, FaultsGroupKey};
use crate::variant::Attached;

/// StackMap of calls, by the keys of the kernel half.
#[derive(Debug)]
pub(super) struct StackMap {
    map: MapHandle,
    naming: Naming,
    known: HashMap<[u64; 4], Known>,
    /// Of processes that are forgotten.
    past: Incomplete,
}

/// What a key turned out to be.
#[derive(Debug)]
struct Known {
    named: Named,
    /// How many faults there are of it.
    faults: u64,
}

impl StackMap {
    pub(super) fn open(attached: &Attached, whose: Scope) -> Result<Self> {
        Ok(Self {
            map: attached.handle(maps::CHAINS)?,
            naming: Naming::watch(whose)?,
            known: HashMap::new(),
            past: Incomplete::default(),
        })
    }

    /// Learns what processes have done.
    pub(super) fn follow(&mut self) {
        self.naming.follow();
    }

    /// Whether they should be named now.
    pub(super) fn want_naming(&self) -> bool {
        self.naming.wants_naming()
    }

    /// Before the groups are read: whose faults are all in them by now.
    pub(super) fn settle(&mut self) {
        self.follow();
        self.naming.settle();
    }

    /// Makes room: forgets processes that were settled to be over. Gives their groups, of which nothing more can come.
    pub(super) fn over(&mut self) -> Vec<[u64; 4]> {
        let is_over = |[pid, start_ns, ..]: [u64; 4]| {
            let pid = pid & !abi::SECOND;
            pid != abi::STACK_UNTAKEN && self.naming.is_over(pid as u32, start_ns)
        };
        let over = self.known.keys().copied().filter(|&key| is_over(key)).collect();
        self.naming.forget();
        over
    }

    /// Forgets a group.
    pub(super) fn close(&mut self, key: &[u64; 4]) {
        if let Some(known) = self.known.remove(key) {
            self.past.add(&known.named, known.faults);
        }
    }

    /// Takes out the chains that were last used before a turn. Gives how many there were.
    pub(super) fn take_out(&self, stale: u64) -> Result<u64> {
        let mut taken = 0;
        // All of them first: after a key that was deleted comes the first one again.
        let keys: Vec<_> = self.map.keys().collect();
        for key in keys {
            let chain = self.map.lookup(&key, MapFlags::ANY).context("cannot read the stacks")?;
            if chain.is_some_and(|chain| pod_read_unaligned::<FaultsChain>(&chain).turn < stale) {
                self.map.delete(&key).context("cannot delete a stack")?;
                taken += 1;
            }
        }
        Ok(taken)
    }

    /// What a key means, of which there are so many faults; nothing if their stack was not asked for.
    pub(super) fn stack(&mut self, key: &FaultsGroupKey, faults: u64) -> Result<Option<Rc<Stack>>> {
        let [pid, start_ns, user, kernel] = key.word;
        let pid = pid & !abi::SECOND;
        if pid == abi::STACK_UNTAKEN {
            return Ok(None);
        }
        if !self.known.contains_key(&key.word) {
            let (user, kernel) = (self.chain(user)?, self.chain(kernel)?);
            let named = self.naming.name(Process { pid: pid as u32, start_ns }, start_ns, &user, &kernel);
            self.known.insert(key.word, Known { named, faults: 0 });
        }
        Ok(self.known.get_mut(&key.word).map(|known| {
            known.faults = faults;
            Rc::clone(&known.named.stack)
        }))
    }

    /// Of how many faults the stack is not whole.
    pub(super) fn losses(&self, losses: &mut Losses) {
        let mut all = self.past;
        self.known.values().for_each(|known| all.add(&known.named, known.faults));
        all.named(losses);
        losses.unmapped = Some(self.naming.unmapped());
    }

    fn chain(&self, key: u64) -> Result<Chain> {
        match key {
            abi::CHAIN_NONE => return Ok(Chain::None),
            abi::CHAIN_OTHER => return Ok(Chain::Other),
            _ => {}
        }
        let bytes = self.map.lookup(&key.to_ne_bytes(), MapFlags::ANY).context("cannot read the stacks")?;
        // The key that means a lost one is no chain's.
        let Some(bytes) = bytes else { return Ok(Chain::Lost) };
        let chain: FaultsChain = pod_read_unaligned(&bytes);
        let ips = chain.ip.get(..chain.count as usize).unwrap_or(&chain.ip);
        Ok(Chain::taken(ips, ips.len() >= self.naming.deepest.min(abi::CHAIN_LEN)))
    }
}
