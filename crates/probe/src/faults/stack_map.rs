//! What the kernel half calls a chain of calls. See `bpf/faults_stack.bpf.h`.
//!
//! Chains are copied when they are read, so that the kernel half's table is emptied at its own pace, and named when there is
//! time: never is anything else kept waiting by that.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytemuck::Zeroable;
use trapline_model::faults::{GroupId, Key, Ledger, Losses, NamedStack, Process, Stack};
use trapline_symbols::Scope;

use super::chains::{Chains, is_chain, others};
use super::unplaced::Unplaced;
use super::unwind::Tables;
use super::waiting::{Unnamed, Waiting};
use crate::abi::maps::faults as maps;
use crate::abi::{self, FaultsChain, FaultsGroupKey, FaultsRowKey};
use crate::stacks::{Chain, End, Incomplete, Named, Naming, Others, SAID_EVERY, without_names};
use crate::variant::Attached;

/// So many that have to wait for the symbolizer are tried before it is waited for.
const TRIED: usize = 64;

/// How long an answer of the symbolizer's is waited for before others are tried.
const ANSWERED_WITHIN: Duration = Duration::from_millis(2);

/// How long tables of processes that were asked for are waited for before they are traced.
const TABLES_WAIT: Duration = Duration::from_secs(2);

/// Names are looked for this long at least, although tables are missing: there may always be one that is.
const NAMED_LEAST: Duration = Duration::from_millis(5);

/// Chains of calls, by the keys of the kernel half.
#[derive(Debug)]
pub(super) struct StackMap {
    chains: Chains,
    naming: Naming,
    /// If they are walked by them.
    tables: Option<Tables>,
    known: HashMap<[u64; 4], Known>,
    waiting: Waiting,
    unplaced: Unplaced,
    /// The user for whom the symbolizer was asked last.
    asker: u32,
    /// Nothing can be named before more time has passed.
    is_stuck: bool,
    /// How long names may be looked for although tables are missing.
    owed: Duration,
    /// A stack cannot be walked before a table is made.
    want_table: bool,
    /// What is not there by now will not be.
    no_more_tables: bool,
    /// Of processes that are forgotten.
    past: Incomplete,
    /// Those that have names since that was asked, if they are recorded.
    found: Option<Vec<NamedStack>>,
}

/// What a key turned out to be.
#[derive(Debug)]
struct Known {
    is: Is,
    /// How many faults there are of it.
    faults: u64,
    /// When its name was recorded.
    said: Instant,
}

#[derive(Debug)]
enum Is {
    Named(Named),
    /// By its number; and what is shown meanwhile.
    Waiting(u64, Rc<Stack>),
}

impl Known {
    fn new(is: Is, faults: u64) -> Self {
        Self { is, faults, said: Instant::now() }
    }

    fn stack(&self) -> Rc<Stack> {
        match &self.is {
            Is::Named(named) => Rc::clone(&named.stack),
            Is::Waiting(_, stack) => Rc::clone(stack),
        }
    }
}

impl StackMap {
    /// `unwinds`: they are walked by unwind tables. Those of processes that were asked for, and of a command that is to be
    /// executed, are made first.
    pub(super) fn open(
        attached: &Attached,
        whose: Scope,
        unwinds: bool,
        command: Option<&Path>,
    ) -> Result<Self> {
        let wait = if matches!(whose, Scope::All) { Duration::ZERO } else { TABLES_WAIT };
        let mut naming = Naming::watch(whose, unwinds)?;
        let mut tables = unwinds.then(|| Tables::open(attached)).transpose()?;
        if let Some(tables) = &mut tables {
            let until = Instant::now() + wait;
            naming.wait_until(until);
            if let Some(command) = command {
                naming.symbols.own_file().into_iter().for_each(|own| tables.refuse(own));
                naming.symbols.want_tables_of(command);
            }
            tables.load(&mut naming.symbols, until);
        }
        Ok(Self {
            chains: Chains(attached.handle(maps::CHAINS)?),
            naming,
            tables,
            known: HashMap::new(),
            waiting: Waiting::default(),
            unplaced: Unplaced::default(),
            asker: 0,
            is_stuck: false,
            owed: Duration::ZERO,
            want_table: false,
            no_more_tables: false,
            past: Incomplete::default(),
            found: None,
        })
    }

    /// Keeps the names of stacks for a recording, from now on.
    pub(super) fn record(&mut self) {
        self.found = Some(Vec::new());
    }

    /// The stacks that got their names since the last time, if they are kept.
    pub(super) fn take_found(&mut self) -> Vec<NamedStack> {
        self.found.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn finds(&mut self, id: u64, stack: &Rc<Stack>) {
        if let Some(found) = &mut self.found {
            found.push(NamedStack { id, stack: Rc::clone(stack) });
        }
    }

    /// Learns what processes have done.
    pub(super) fn follow(&mut self) {
        self.naming.follow();
    }

    /// Makes unwind tables of what they have mapped, up to a moment.
    pub(super) fn load_tables(&mut self, until: Instant) -> Result<()> {
        let Some(tables) = &mut self.tables else { return Ok(()) };
        let began = Instant::now();
        tables.follow(&mut self.naming.symbols)?;
        if tables.load(&mut self.naming.symbols, until) {
            // What waited for one can go on.
            self.is_stuck = false;
        }
        self.owed = began.elapsed().max(NAMED_LEAST);
        Ok(())
    }

    /// A turn of the kernel half's has begun: tables may move.
    pub(super) fn turn_tables(&mut self, turn: u64) -> Result<()> {
        let Some(tables) = &mut self.tables else { return Ok(()) };
        tables.turn(turn, &mut self.naming.symbols)
    }

    /// Whether tables need more space than there is.
    pub(super) fn want_space(&self) -> bool {
        self.tables.as_ref().is_some_and(Tables::want_space)
    }

    /// Becomes readable when a table is missed.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.tables.as_ref().map(Tables::fd)
    }

    /// Whether they should be read now.
    pub(super) fn want_naming(&self) -> bool {
        self.naming.wants_naming()
    }

    /// Whether something waits for a name.
    pub(super) fn have_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether it can be named now: it may have to wait until others have had their time. Or something can be read ahead.
    pub(super) fn may_go_on(&self) -> bool {
        let tables = self.tables.as_ref().is_some_and(|tables| tables.may_go_on(&self.naming.symbols));
        tables || if self.have_work() { !self.is_stuck } else { self.naming.reads_ahead() }
    }

    /// Reads executables, up to a moment, before anything in them is asked for.
    pub(super) fn read_ahead(&mut self, until: Instant) {
        self.naming.read_ahead(until);
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
        let unplaced = self.unplaced.images();
        self.naming.forget(|image| self.waiting.asks_about(image) || unplaced.contains(&image));
        over
    }

    /// The kernel half has a group no more. What has no name yet is closed when it has.
    pub(super) fn close(&mut self, key: &[u64; 4], ledger: &mut Ledger) {
        match self.known.remove(key) {
            Some(Known { is: Is::Waiting(number, _), faults, .. }) => {
                // No key of the kernel half's is like this one.
                let id = id([u64::MAX, number, 0, 0]);
                if let Some(unnamed) = self.waiting.get_mut(number) {
                    (unnamed.id, unnamed.is_open, unnamed.faults) = (id, false, faults);
                }
                ledger.move_group(&self::id(*key), id);
                return;
            }
            Some(Known { is: Is::Named(named), faults, .. }) => self.past.add(&named, faults),
            None => self.unplaced.close(key),
        }
        ledger.close_group(&id(*key));
    }

    /// Takes out the chains that were last used before the turn `stale`, and that nothing here asks for. Gives how many there were.
    pub(super) fn take_out(&self, turn: u64, stale: u64) -> Result<u64> {
        self.chains.take_out(turn, stale, &self.unplaced.chains())
    }

    /// What is to be shown of a key, of which there are so many faults, in a process of that user's; nothing if their stack
    /// was not asked for.
    pub(super) fn stack(&mut self, key: &FaultsGroupKey, faults: u64, uid: u32) -> Result<Option<Rc<Stack>>> {
        let [pid, start_ns, user, kernel] = key.word;
        let pid = pid & !abi::SECOND;
        if pid == abi::STACK_UNTAKEN {
            return Ok(None);
        }
        let stack_id = stack_id(key);
        if let Some(known) = self.known.get_mut(&key.word) {
            let is_due = known.faults < faults && known.said.elapsed() >= SAID_EVERY;
            known.faults = faults;
            let stack = known.stack();
            if is_due && matches!(known.is, Is::Named(_)) {
                known.said = Instant::now();
                self.finds(stack_id, &stack);
            }
            return Ok(Some(stack));
        }
        if pid == 0 {
            let named = Named::other(&format!("[user {start_ns}]"), others(user).unwrap_or(Others::User));
            let stack = Rc::clone(&named.stack);
            self.known.insert(key.word, Known::new(Is::Named(named), faults));
            self.finds(stack_id, &stack);
            return Ok(Some(stack));
        }
        let who = || self.naming.who(Process { pid: pid as u32, start_ns }, start_ns);
        let (image, comm) = self.unplaced.who(&key.word).unwrap_or_else(who);
        if [user, kernel].into_iter().any(is_chain) && !self.waiting.has_space_for(uid) {
            // As long as the kernel half has it, it may still find a place.
            self.unplaced.add(key.word, image, &comm, faults);
            let stack = Named::other(&comm, Others::Unnamed).stack;
            self.finds(stack_id, &stack);
            return Ok(Some(stack));
        }
        self.unplaced.take(&key.word);
        let (user, kernel) = (self.chain(user)?, self.chain(kernel)?);
        let is = if !user.is_taken() && !kernel.is_taken() {
            Is::Named(self.naming.name(image, &comm, &user, &kernel))
        } else {
            let meanwhile = without_names(&comm, "[not symbolized yet]", "[symbols are being resolved]");
            let (id, is_open) = (id(key.word), true);
            let unnamed = Unnamed { id, stack_id, is_open, image, comm, user, kernel, uid, faults };
            let number = self.waiting.add(unnamed);
            self.is_stuck = false;
            Is::Waiting(number, Rc::new(meanwhile))
        };
        let known = Known::new(is, faults);
        let stack = known.stack();
        if matches!(known.is, Is::Named(_)) {
            self.finds(stack_id, &stack);
        }
        self.known.insert(key.word, known);
        Ok(Some(stack))
    }

    /// Whether tables are missing that are to be made before names are looked for: each fault that comes before its table has no
    /// callers, and names can wait, but not for as long as somebody runs new programs.
    fn are_tables_first(&mut self, began: Instant) -> bool {
        began.elapsed() >= self.owed && self.tables.as_mut().is_some_and(Tables::are_missed)
    }

    /// Names what waits, up to a moment.
    pub(super) fn work(&mut self, until: Instant, ledger: &mut Ledger) {
        let began = Instant::now();
        self.work_since(began, until, ledger);
        self.owed = self.owed.saturating_sub(began.elapsed());
    }

    fn work_since(&mut self, began: Instant, until: Instant, ledger: &mut Ledger) {
        while Instant::now() < until && !self.waiting.is_empty() {
            if self.are_tables_first(began) {
                self.is_stuck = false;
                return;
            }
            // First what can be had without waiting.
            self.naming.wait_until(Instant::now());
            if self.name_some(began, until, ledger) {
                continue;
            }
            if self.want_table {
                // It is made first; then names go on.
                return;
            }
            let asked = Instant::now();
            self.naming.wait_until(until);
            let answered = self.naming.wait();
            self.waiting.spend(self.asker, asked.elapsed());
            self.is_stuck = answered.is_none();
            if answered != Some(true) {
                return;
            }
        }
    }

    /// Tells whether any was named.
    fn name_some(&mut self, began: Instant, until: Instant, ledger: &mut Ledger) -> bool {
        let (mut late, mut any) = (Vec::new(), false);
        self.want_table = false;
        while Instant::now() < until && late.len() < TRIED {
            if self.are_tables_first(began) {
                break;
            }
            let Some((number, of)) = self.waiting.next() else { break };
            let (looked, uid) = (Instant::now(), of.uid);
            let Ok(walked) = walked(self.tables.as_ref(), &mut self.naming, of, self.no_more_tables) else {
                self.want_table = true;
                late.push(number);
                continue;
            };
            let user = walked.as_ref().unwrap_or(&of.user);
            let named = loop {
                let asked = self.naming.asked();
                let named = self.naming.name(of.image, &of.comm, user, &of.kernel);
                if self.naming.asked() == asked {
                    break named;
                }
                self.asker = uid;
                // Most answers come at once. To look through other stacks until they do would take longer than all answers.
                self.naming.wait_until(until.min(Instant::now() + ANSWERED_WITHIN));
                let has_come = self.naming.wait() == Some(true);
                self.naming.wait_until(Instant::now());
                if !named.late || !has_come {
                    break named;
                }
            };
            self.waiting.spend(uid, looked.elapsed());
            if named.late {
                late.push(number);
            } else {
                any = true;
                self.has_names(number, named, ledger);
            }
        }
        late.into_iter().for_each(|number| self.waiting.put_back(number));
        any
    }

    /// Names what waits up to a moment; what has no name by then has a reason. Tables that are still missing may take half of the time.
    pub(super) fn finish(&mut self, until: Instant, ledger: &mut Ledger) {
        let began = Instant::now();
        let tables_until = began + until.saturating_duration_since(began) / 2;
        while !self.waiting.is_empty() && Instant::now() < until {
            if let Some(tables) = &mut self.tables {
                let _ = tables.follow(&mut self.naming.symbols);
            }
            self.work(until, ledger);
            if !self.want_table {
                if self.is_stuck {
                    break;
                }
            } else if let Some(tables) = &mut self.tables {
                // One after the other: those that nobody needs any more are not made.
                let is_made = tables.load_one(&mut self.naming.symbols, tables_until);
                self.no_more_tables |= !is_made;
            }
        }
        self.naming.wait_until(Instant::now());
        let mut in_no_time: HashMap<Rc<str>, Named> = HashMap::new();
        while let Some((number, of)) = self.waiting.next() {
            // Where it is can be told at once, but not of as many as may be waiting.
            let named = if Instant::now() < until {
                let walked = walked(self.tables.as_ref(), &mut self.naming, of, true).unwrap_or_default();
                let user = walked.as_ref().unwrap_or(&of.user);
                self.naming.name(of.image, &of.comm, user, &of.kernel)
            } else {
                let without = in_no_time.entry(Rc::clone(&of.comm));
                without.or_insert_with(|| Named::in_no_time(&of.comm)).clone()
            };
            self.has_names(number, named, ledger);
        }
    }

    fn has_names(&mut self, number: u64, named: Named, ledger: &mut Ledger) {
        let Some(unnamed) = self.waiting.take(number) else { return };
        self.finds(unnamed.stack_id, &named.stack);
        ledger.name_group(&unnamed.id, Key::Stack(Rc::clone(&named.stack)));
        if !unnamed.is_open {
            self.past.add(&named, unnamed.faults);
            ledger.close_group(&unnamed.id);
        } else if let Some(known) = unnamed.id.first_chunk().and_then(|key| self.known.get_mut(key)) {
            (known.is, known.said) = (Is::Named(named), Instant::now());
        }
    }

    /// Of how many faults the stack is not whole.
    pub(super) fn losses(&self, losses: &mut Losses) {
        let mut all = self.past;
        for known in self.known.values() {
            if let Is::Named(named) = &known.is {
                all.add(named, known.faults);
            }
        }
        all.named(self.tables.is_some(), losses);
        losses.over_quota_faults = losses.over_quota_faults.map(|faults| faults + self.unplaced.faults());
        losses.evicted_tables = self.tables.as_ref().map(Tables::evicted);
        losses.dropped_mapping_records = Some(self.naming.unmapped());
    }

    fn end(&self, chain: &FaultsChain) -> End {
        match chain.end {
            abi::END_DEEPEST => End::Deepest,
            abi::END_UNDESCRIBED => End::Undescribed,
            abi::END_LATE => End::Late,
            abi::END_CORRUPT => End::Corrupt,
            abi::END_LATE_FRAMES => End::LateFrames,
            abi::END_FRAMES if chain.count as usize >= self.naming.deepest.min(abi::CHAIN_LEN) => {
                End::Deepest
            }
            _ => End::Outermost,
        }
    }

    fn chain(&mut self, key: u64) -> Result<Chain> {
        if key == abi::CHAIN_NONE {
            return Ok(Chain::None);
        }
        if let Some(tables) = &mut self.tables
            && tables.has_copy(key)
            && let Some(copied) = tables.take_copy(key)
        {
            return Ok(Chain::Copied(Box::new(copied)));
        }
        if key & abi::CHAIN_COPIED != 0 {
            // There was no memory for it.
            return Ok(Chain::taken(&[], End::Late));
        }
        if let Some(others) = others(key) {
            return Ok(Chain::Other(others));
        }
        // The key that means a lost one is no chain's.
        let Some(chain) = self.chains.get(key)? else { return Ok(Chain::Lost) };
        let ips = chain.ip.get(..chain.count as usize).unwrap_or(&chain.ip);
        Ok(Chain::taken(ips, self.end(&chain)))
    }
}

/// The way through a stack that was copied; nothing of another.
///
/// # Errors
/// When a table is to be made first.
fn walked(
    tables: Option<&Tables>,
    naming: &mut Naming,
    of: &Unnamed,
    is_last: bool,
) -> Result<Option<Chain>, Late> {
    let (Chain::Copied(copied), Some(tables)) = (&of.user, tables) else { return Ok(None) };
    let deepest = naming.deepest.min(abi::CHAIN_LEN);
    tables.walk(copied, of.image, deepest, is_last, &mut naming.symbols).map(Some).ok_or(Late)
}

/// A table is not there yet.
struct Late;

/// By which the ledger knows a stack.
fn id(key: [u64; 4]) -> GroupId {
    FaultsRowKey { of: FaultsGroupKey { word: key }, ..FaultsRowKey::zeroed() }.id()
}

/// Its number in a recording: `stack_id()` of the kernel half.
fn stack_id(key: &FaultsGroupKey) -> u64 {
    let [first, rest @ ..] = key.word;
    let id = rest
        .iter()
        .fold(first & !abi::SECOND, |id, word| id.wrapping_mul(abi::STACK_FACTOR).wrapping_add(*word));
    id.max(1)
}
