//! What the kernel half calls a chain of calls, in words. See `bpf/faults_stack.bpf.h`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytemuck::{bytes_of, pod_read_unaligned};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use trapline_model::faults::{Ledger, Stack};

use crate::abi::{self, FaultsChain, FaultsGroupKey};
use crate::symbols::{Image, KERNEL, Lives, Name, Symbols, Whose, Why};
use crate::variant::Attached;

/// The kernel's own way from a fault to where it is handled: what lies within says nothing about who caused it.
const ENTRIES: &[&str] = &["asm_exc_page_fault", "handle_mm_fault"];
/// What a probe puts on top of the stack that it looks at.
const PROBES: &[&str] =
    &["bpf_", "arch_rethook", "kretprobe", "rethook", "ftrace_", "trace_call_bpf", "kprobe_"];

/// Chains of calls, and the names of what is in them.
#[derive(Debug)]
pub(super) struct Chains {
    map: MapHandle,
    lives: Lives,
    symbols: Symbols,
    /// More frames than so many the kernel does not walk.
    deepest: usize,
    known: HashMap<[u64; 4], Known>,
    groups: MapHandle,
    /// Of processes that are forgotten.
    past: Losses,
}

/// How many faults have a stack that is not whole.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    deep: u64,
    unnamed: u64,
    lost: u64,
}

impl Losses {
    fn add(&mut self, known: &Known) {
        for (sum, is) in
            [(&mut self.deep, known.deep), (&mut self.unnamed, known.unnamed), (&mut self.lost, known.lost)]
        {
            *sum += if is { known.faults } else { 0 };
        }
    }
}

/// What a key turned out to be.
#[derive(Debug)]
struct Known {
    stack: Rc<Stack>,
    /// Its outermost frames are missing.
    deep: bool,
    /// A frame has no name.
    unnamed: bool,
    /// There was no room for a chain.
    lost: bool,
    /// How many faults there are of it.
    faults: u64,
}

impl Chains {
    pub(super) fn open(attached: &Attached, whose: Whose) -> Result<Self> {
        let mut symbols = Symbols::new();
        let mut lives = Lives::watch(whose)?;
        lives.adopt(&mut symbols);
        Ok(Self {
            map: attached.handle("chains")?,
            groups: attached.handle("groups")?,
            lives,
            symbols,
            deepest: deepest(),
            known: HashMap::new(),
            past: Losses::default(),
        })
    }

    /// Learns what processes have done.
    pub(super) fn follow(&mut self) {
        self.lives.drain(&mut self.symbols);
    }

    /// Whether so many processes have ended that the room which theirs take is needed.
    pub(super) fn is_full_of_ended(&self) -> bool {
        self.lives.ended() >= 32
    }

    /// Before the groups are read: whose faults are all in them by now.
    pub(super) fn settle(&mut self) {
        self.follow();
        self.lives.settle();
    }

    /// Makes room: forgets processes that were settled to be over, and has the kernel half forget them.
    pub(super) fn forget(&mut self, ledger: &mut Ledger) {
        let over = |key: &[u64; 4]| key[0] != abi::STACK_UNTAKEN && self.lives.is_over(key[0] as u32, key[1]);
        let (over, known): (HashMap<_, _>, HashMap<_, _>) =
            self.known.drain().partition(|(key, _)| over(key));
        self.known = known;
        self.lives.forget(&mut self.symbols);
        if over.is_empty() {
            return;
        }
        let used: HashSet<u64> = self.known.keys().flat_map(|&[.., user, kernel]| [user, kernel]).collect();
        for (key, known) in over {
            self.past.add(&known);
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
        if key.word[0] == abi::STACK_UNTAKEN {
            return Ok(None);
        }
        if !self.known.contains_key(&key.word) {
            let known = self.name(key)?;
            self.known.insert(key.word, known);
        }
        Ok(self.known.get_mut(&key.word).map(|known| {
            known.faults = faults;
            Rc::clone(&known.stack)
        }))
    }

    /// Of how many faults the stack is not whole.
    pub(super) fn losses(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.past;
        self.known.values().for_each(|known| all.add(known));
        vec![
            ("deep", all.deep),
            ("unnamed", all.unnamed),
            ("chainless", all.lost),
            ("unmapped", self.lives.lost()),
        ]
    }

    fn name(&mut self, key: &FaultsGroupKey) -> Result<Known> {
        let [pid, image_ns, user, kernel] = key.word;
        let pid = pid as u32;
        let (image, comm) = match self.lives.at(pid, image_ns) {
            Some((image, comm)) => (image, comm.to_owned()),
            // Its birth was not seen: it may still be there to be asked.
            None => {
                let process = trapline_model::faults::Process { pid, start_ns: image_ns };
                (Image::from(process), format!("[{pid}]"))
            }
        };
        let mut known = Known { stack: Rc::default(), deep: false, unnamed: false, lost: false, faults: 0 };
        let mut stack = Stack::default();
        stack.push(&comm, "");
        for (chain, in_kernel) in [(user, false), (kernel, true)] {
            if chain == abi::CHAIN_NONE {
                continue;
            }
            // The key that means a lost one is no chain's.
            let Some(ips) = self.chain(chain)? else {
                stack.push(
                    if in_kernel { "[lost]_[k]" } else { "[lost]" },
                    "[there was no room for the chain]",
                );
                known.lost = true;
                continue;
            };
            if ips.len() >= self.deepest {
                stack.push("[deeper]", "[the kernel walks no more frames]");
                known.deep = true;
            }
            if in_kernel {
                let mut names = self.symbols.resolve(image, &ips);
                trim(&mut names);
                names.iter().rev().for_each(|name| known.unnamed |= push(&mut stack, name, true));
                continue;
            }
            // What is called from nowhere was not called from there: a function without a frame pointer used the
            // register for something else, and all that lies beyond means nothing.
            let names = self.symbols.resolve(image, &ips);
            let nowhere = |name: &Rc<Name>| name.addr >= KERNEL || name.functions == Err(Why::Unmapped);
            let end = names.iter().position(nowhere);
            if end.is_some() {
                stack.push("[unknown]", "[nothing that can be executed is mapped there]");
                known.unnamed = true;
            }
            for name in names.iter().take(end.unwrap_or(names.len())).rev() {
                known.unnamed |= push(&mut stack, name, false);
            }
        }
        known.stack = Rc::new(stack);
        Ok(known)
    }

    /// Where the calls of a chain are, innermost first. A call returns to what comes after it, which may be another's.
    fn chain(&self, key: u64) -> Result<Option<Vec<u64>>> {
        let bytes = self.map.lookup(&key.to_ne_bytes(), MapFlags::ANY).context("cannot read the stacks")?;
        let Some(bytes) = bytes else { return Ok(None) };
        let chain: FaultsChain = pod_read_unaligned(&bytes);
        let ips = chain.ip.iter().take(chain.count as usize).enumerate();
        Ok(Some(ips.map(|(i, &ip)| ip.saturating_sub(u64::from(i > 0))).collect()))
    }
}

/// How many frames a chain has at the most.
pub(super) fn deepest() -> usize {
    let limit = fs::read_to_string("/proc/sys/kernel/perf_event_max_stack").unwrap_or_default();
    limit.trim().parse().unwrap_or(abi::CHAIN_LEN).min(abi::CHAIN_LEN)
}

/// Leaves out what the kernel does once a fault has happened.
fn trim(names: &mut Vec<Rc<Name>>) {
    let is = |name: &Rc<Name>, what: &[&str], matches: fn(&str, &str) -> bool| {
        name.function().is_some_and(|function| what.iter().any(|what| matches(&function.name, what)))
    };
    let entry = ENTRIES.iter().find_map(|entry| names.iter().position(|n| is(n, &[*entry], |a, b| a == b)));
    let probe = names.iter().take_while(|name| is(name, PROBES, |a, b| a.starts_with(b))).count();
    names.drain(..entry.map_or(probe, |at| at + 1));
}

/// Adds a place and the functions that were inlined there. Tells whether it has no name.
fn push(stack: &mut Stack, name: &Name, in_kernel: bool) -> bool {
    let suffix = if in_kernel { "_[k]" } else { "" };
    match &name.functions {
        Ok(functions) => {
            for function in functions {
                let line = function.line.as_ref().map(|line| format!("{}:{}", line.file, line.line));
                stack.push(&format!("{}{suffix}", function.name), &line.unwrap_or_default());
            }
            false
        }
        Err(why) => {
            stack.push(&format!("{name}{suffix}"), &format!("[{why}]"));
            true
        }
    }
}
