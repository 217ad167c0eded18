//! What the kernel half calls a chain of calls. See `bpf/faults_stack.bpf.h`.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use anyhow::{Context, Result};
use bytemuck::{bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use trapline_model::faults::{Ledger, Process, Stack};

use super::stacks::{Chain, Losses, Named, Naming};
use crate::abi::{self, FaultsChain, FaultsGroupKey};
use crate::symbols::Whose;
use crate::variant::Attached;

/// Chains of calls, by the keys of the kernel half.
#[derive(Debug)]
pub(super) struct Chains {
    map: MapHandle,
    naming: Naming,
    known: HashMap<[u64; 4], Known>,
    groups: MapHandle,
    /// Of processes that are forgotten.
    past: Losses,
}

/// What a key turned out to be.
#[derive(Debug)]
struct Known {
    named: Named,
    /// How many faults there are of it.
    faults: u64,
}

impl Chains {
    pub(super) fn open(attached: &Attached, whose: Whose) -> Result<Self> {
        Ok(Self {
            map: attached.handle("chains")?,
            groups: attached.handle("groups")?,
            naming: Naming::watch(whose)?,
            known: HashMap::new(),
            past: Losses::default(),
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

    /// Makes room: forgets processes that were settled to be over, and has the kernel half forget them.
    pub(super) fn forget(&mut self, ledger: &mut Ledger) {
        let over =
            |key: &[u64; 4]| key[0] != abi::STACK_UNTAKEN && self.naming.is_over(key[0] as u32, key[1]);
        let (over, known): (HashMap<_, _>, HashMap<_, _>) =
            self.known.drain().partition(|(key, _)| over(key));
        self.known = known;
        self.naming.forget();
        if over.is_empty() {
            return;
        }
        let used: HashSet<u64> = self.known.keys().flat_map(|&[.., user, kernel]| [user, kernel]).collect();
        for (key, known) in over {
            self.past.add(&known.named, known.faults);
            ledger.close_group(&key);
            // What stays, only takes room.
            let _ = self.groups.delete(bytes_of(&key));
            for chain in key.iter().skip(2).filter(|chain| !used.contains(chain)) {
                let _ = self.map.delete(&chain.to_ne_bytes());
            }
        }
    }

    /// What a key means, of which there are so many faults; nothing if their stack was not asked for.
    pub(super) fn stack(&mut self, key: &FaultsGroupKey, faults: u64) -> Result<Option<Rc<Stack>>> {
        let [pid, start_ns, user, kernel] = key.word;
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
    pub(super) fn losses(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.past;
        self.known.values().for_each(|known| all.add(&known.named, known.faults));
        let mut losses = all.named();
        losses.push(("unmapped", self.naming.unmapped()));
        losses
    }

    fn chain(&self, key: u64) -> Result<Chain> {
        if key == abi::CHAIN_NONE {
            return Ok(Chain::None);
        }
        let bytes = self.map.lookup(&key.to_ne_bytes(), MapFlags::ANY).context("cannot read the stacks")?;
        // The key that means a lost one is no chain's.
        let Some(bytes) = bytes else { return Ok(Chain::Lost) };
        let chain: FaultsChain = pod_read_unaligned(&bytes);
        let ips = chain.ip.get(..chain.count as usize).unwrap_or(&chain.ip);
        Ok(Chain::taken(ips, ips.len() >= self.naming.deepest.min(abi::CHAIN_LEN)))
    }
}
