//! Call chains symbolized: of faults, whether the kernel half took them (`faults/stack_map.rs`) or perf (`faults/rootless/stack_table.rs`), and of
//! slow exits (`kvm/stacks.rs`).

use std::collections::HashMap;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use trapline_model::faults::{IN_KERNEL, Losses, Process, Stack};
use trapline_symbols::perf::Record;
use trapline_symbols::unwind::Ends;
use trapline_symbols::{Image, KERNEL, Lives, Name, Place, Scope, Symbols, Why};

use crate::faults::copies::Copied;

/// The kernel's own way from a fault to where it is handled: what lies within says nothing about who caused it.
const ENTRIES: &[&str] = &["asm_exc_page_fault", "handle_mm_fault"];
/// What a probe puts on top of the stack that it looks at.
const PROBES: &[&str] =
    &["bpf_", "arch_rethook", "kretprobe", "rethook", "ftrace_", "trace_call_bpf", "kprobe_"];

/// How often perf maps are looked at: as often as what the kernel half sets aside is fetched, or less.
const WATCHED_EVERY: Duration = Duration::from_millis(400);

/// How long a look at perf maps waits for the symbolizer to read those that are new.
const READ_WITHIN: Duration = Duration::from_millis(20);

/// So many stacks are remembered that other processes may have, too.
const KNOWN: usize = 32_768;

/// The process whose name is empty: `prctl(PR_SET_NAME, "")`.
const NO_NAME: &str = "[no name]";

/// A recording that keeps its last parts alone gets the names of the stacks that are in use again and again.
pub(crate) const SAID_EVERY: Duration = Duration::from_secs(60);

/// The frames that the kernel walks, unless kernel.perf_event_max_stack was changed.
const DEEPEST: usize = 127;

/// Where calls were, in one of the two modes.
#[derive(Debug)]
pub(crate) enum Chain {
    /// In this mode there was none.
    None,
    /// There was no room for it.
    Lost,
    /// One of those for which there was no space.
    Other(Others),
    Taken {
        /// Innermost first.
        ips: Vec<u64>,
        end: End,
    },
    /// The stack itself: it is walked when all tables are there.
    Copied(Box<Copied>),
}

/// Why a chain has no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The thread began there, or frame pointers led no further.
    Outermost,
    /// There were more than are walked.
    Deepest,
    /// The stack goes on where perf has not copied it.
    Cut,
    /// The function has no unwind information.
    Undescribed,
    /// A table was not there yet, and frame pointers led nowhere.
    Late,
    /// A table was not there yet, and frame pointers led no further.
    LateFrames,
    /// The stack cannot be read, or is none.
    Corrupt,
}

impl From<Ends> for End {
    fn from(ends: Ends) -> Self {
        match ends {
            Ends::Start => Self::Outermost,
            Ends::Deepest => Self::Deepest,
            Ends::Undescribed => Self::Undescribed,
            Ends::Late => Self::Late,
            Ends::LateFrames => Self::LateFrames,
            Ends::Cut => Self::Cut,
            Ends::Corrupt => Self::Corrupt,
        }
    }
}

impl End {
    /// What is shown in place of the calls that are missing, and why they are.
    fn words(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Outermost | Self::LateFrames => None,
            Self::Deepest => Some(["[deeper]", "[the kernel walks no more frames]"]),
            Self::Cut => Some(["[deeper]", "[the stack goes on beyond what was copied]"]),
            Self::Undescribed => {
                Some(["[no unwind information]", "[the function has none, and no frame pointer]"])
            }
            Self::Late => Some([
                "[no unwind table yet]",
                "[the table of a file was not there, or the stack could not be copied as a whole]",
            ]),
            Self::Corrupt => {
                Some(["[corrupt]", "[the stack cannot be read, or has no return address where it should]"])
            }
        }
    }
}

/// Why stacks are in the row of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Their process has used up its share of the table.
    Share,
    /// Their user's processes have.
    User,
    /// The table is full.
    Full,
    /// Too many of their user's wait for their names.
    Unnamed,
}

impl Others {
    fn why(self) -> &'static str {
        match self {
            Self::Share => "[the process has more stacks than its share of the table]",
            Self::User => "[its user's processes have more stacks than their share of the table]",
            Self::Full => "[the table was full of other users' stacks]",
            Self::Unnamed => "[too many stacks of its user's processes were waiting for symbols]",
        }
    }
}

impl Chain {
    /// Whether there are addresses in it.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::Copied(_))
    }

    /// Of where the processor was, and where the calls return to: what comes after a call may be another function's.
    pub(crate) fn taken(ips: &[u64], end: End) -> Self {
        let calls = ips.iter().enumerate();
        Self::Taken { ips: calls.map(|(i, &ip)| ip.saturating_sub(u64::from(i > 0))).collect(), end }
    }
}

/// A chain that has its names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    pub(crate) stack: Rc<Stack>,
    /// Why its outermost frames are missing.
    end: Option<End>,
    /// A frame has no name.
    unnamed: bool,
    /// There was no room for a chain.
    lost: bool,
    /// There was no time to look for a name: it may be known later.
    pub(crate) late: bool,
    /// It is that of every chain through the same places.
    is_the_same_elsewhere: bool,
}

/// What tells stacks apart, wherever files are mapped.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    comm: Rc<str>,
    places: Vec<Place>,
    /// All frames are in files.
    is_whole: bool,
    end: End,
    kernel: Vec<u64>,
}

/// How many faults have a stack that is not whole.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Incomplete {
    pub(crate) deep: u64,
    pub(crate) unnamed: u64,
    lost: u64,
    pub(crate) partial: u64,
    pub(crate) late: u64,
}

impl Incomplete {
    /// So many faults have this one.
    pub(crate) fn add(&mut self, named: &Named, faults: u64) {
        for (sum, is) in [
            (&mut self.deep, matches!(named.end, Some(End::Deepest | End::Cut))),
            (&mut self.partial, matches!(named.end, Some(End::Undescribed | End::Corrupt))),
            (&mut self.late, matches!(named.end, Some(End::Late | End::LateFrames))),
            (&mut self.unnamed, named.unnamed),
            (&mut self.lost, named.lost),
        ] {
            *sum += if is { faults } else { 0 };
        }
    }

    /// By the names under which they are told.
    pub(crate) fn named(self, unwound: bool, losses: &mut Losses) {
        (losses.truncated_stacks, losses.unsymbolized_stacks) = (Some(self.deep), Some(self.unnamed));
        losses.lost_stacks = Some(self.lost);
        // Who follows frame pointers does not know.
        losses.partial_stacks = unwound.then_some(self.partial);
        losses.late_stacks = unwound.then_some(self.late);
    }
}

/// Names what is in chains, also of processes that have ended.
#[derive(Debug)]
pub(crate) struct Naming {
    lives: Lives,
    pub(crate) symbols: Symbols,
    /// Perf maps were written since they were read, and when that was looked at.
    rewritten: bool,
    looked: Instant,
    /// Stacks of programs that come and go: those whose functions are the same, wherever they are mapped, are the same.
    known: HashMap<Key, Named>,
    /// More frames than so many the kernel does not walk.
    pub(crate) deepest: usize,
}

impl Naming {
    /// Follows processes by itself. Unwind tables are made of what they map if that is wanted.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn watch(whose: Scope, unwinds: bool) -> Result<Self> {
        let mut symbols = Symbols::new();
        if unwinds {
            symbols.want_tables();
        }
        Ok(Self::new(Lives::watch(whose)?, symbols))
    }

    /// Is told what processes do. Unwind tables are made of what they map if that is wanted.
    pub(crate) fn told(whose: Scope, unwinds: bool) -> Self {
        let mut symbols = Symbols::new();
        if unwinds {
            symbols.want_tables();
        }
        Self::new(Lives::told(whose), symbols)
    }

    fn new(mut lives: Lives, mut symbols: Symbols) -> Self {
        lives.adopt(&mut symbols);
        Self {
            lives,
            symbols,
            rewritten: false,
            looked: Instant::now(),
            known: HashMap::new(),
            deepest: deepest(),
        }
    }

    /// Learns what processes have done.
    pub(crate) fn follow(&mut self) {
        self.lives.drain(&mut self.symbols);
        self.look();
    }

    /// Names are waited for until then.
    pub(crate) fn wait_until(&mut self, until: Instant) {
        self.symbols.wait_until(Some(until));
    }

    /// Names are waited for this long, longer in files of root and of the user who runs us.
    pub(crate) fn wait_for(&mut self, time: Duration) {
        self.symbols.wait_for(time);
    }

    /// How many times the symbolizer was asked something.
    pub(crate) fn asked(&self) -> u64 {
        self.symbols.asked()
    }

    /// Waits for the answer to what was asked last. Tells whether it has come; nothing if all was answered.
    pub(crate) fn wait(&mut self) -> Option<bool> {
        self.symbols.wait()
    }

    /// Whether executables are to be read before anything in them is asked for.
    pub(crate) fn reads_ahead(&self) -> bool {
        self.symbols.reads_ahead()
    }

    /// Does so, up to a moment.
    pub(crate) fn read_ahead(&mut self, until: Instant) {
        self.wait_until(until);
        self.symbols.read_ahead();
    }

    /// Notices code that is made anew where other code was.
    pub(crate) fn look(&mut self) {
        if self.looked.elapsed() >= WATCHED_EVERY {
            self.look_at_maps();
        }
    }

    fn look_at_maps(&mut self) {
        self.looked = Instant::now();
        self.symbols.wait_until(Some(self.looked + READ_WITHIN));
        self.rewritten |= self.symbols.watch_maps();
    }

    /// Learns one thing that a process has done: not older than the one before.
    pub(crate) fn take(&mut self, record: &Record) {
        self.lives.take(record, &mut self.symbols);
        self.look();
    }

    /// The address space that a process had at a moment, if its birth was seen.
    pub(crate) fn image(&self, pid: u32, time_ns: u64) -> Option<Image> {
        self.lives.at(pid, time_ns).map(|(image, _)| image)
    }

    /// Whether what was taken should be named now: so many processes have ended that the space they take is needed, or
    /// code is made anew where other code was.
    pub(crate) fn wants_naming(&self) -> bool {
        self.rewritten || self.lives.is_full_of_ended()
    }

    /// Before what was counted is read: the faults of whoever is over are all in it by then.
    pub(crate) fn settle(&mut self) {
        // Naming may take long, and a perf map be written anew meanwhile.
        self.look_at_maps();
        self.lives.settle();
    }

    /// Whether what a process was at a moment was over when that was settled.
    pub(crate) fn is_over(&self, pid: u32, time_ns: u64) -> bool {
        self.lives.is_over(pid, time_ns)
    }

    /// Forgets who is over: everything was named but what is in some address spaces.
    pub(crate) fn forget(&mut self, is_asked: impl Fn(Image) -> bool) {
        if self.rewritten {
            self.rewritten = self.symbols.renew_maps(&is_asked);
        }
        self.lives.forget(&mut self.symbols, is_asked);
    }

    /// How many records of what processes did had no room.
    pub(crate) fn unmapped(&self) -> u64 {
        self.lives.lost()
    }

    /// What a process was at a moment: its memory, and its name.
    pub(crate) fn who(&self, process: Process, at_ns: u64) -> (Image, Rc<str>) {
        match self.lives.at(process.pid, at_ns) {
            // One that has none would leave its place to a function.
            Some((image, "")) => (image, NO_NAME.into()),
            Some((image, comm)) => (image, comm.into()),
            // Its birth was not seen: it may still be there to be asked.
            None => (Image::from(process), format!("[{}]", process.pid).into()),
        }
    }

    /// The chains of a process of that name, in that memory.
    pub(crate) fn name(&mut self, image: Image, comm: &Rc<str>, user: &Chain, kernel: &Chain) -> Named {
        let key = self.key(image, comm, user, kernel);
        if let Some(named) = key.as_ref().and_then(|key| self.known.get(key)) {
            return named.clone();
        }
        let named = self.name_anew(image, comm, user, kernel);
        // Asked again: a perf map may have been found meanwhile.
        if named.is_the_same_elsewhere
            && let Some(key) = key
            && self.key(image, comm, user, kernel).as_ref() == Some(&key)
        {
            if self.known.len() >= KNOWN {
                self.known.clear();
            }
            self.known.insert(key, named.clone());
        }
        named
    }

    /// What two stacks have in common that have the same names; nothing if that is not certain.
    fn key(&mut self, image: Image, comm: &Rc<str>, user: &Chain, kernel: &Chain) -> Option<Key> {
        let Chain::Taken { ips, end } = user else { return None };
        let kernel = match kernel {
            Chain::None => vec![],
            Chain::Taken { ips, end: End::Outermost } => ips.clone(),
            _ => return None,
        };
        let places = self.symbols.places(image, ips)?;
        let is_whole = places.len() == ips.len();
        Some(Key { comm: Rc::clone(comm), places, is_whole, end: *end, kernel })
    }

    fn name_anew(&mut self, image: Image, comm: &str, user: &Chain, kernel: &Chain) -> Named {
        let mut named = Named { is_the_same_elsewhere: true, ..Named::default() };
        let mut stack = Stack::default();
        stack.push(comm, "");
        for (chain, in_kernel) in [(user, false), (kernel, true)] {
            let (ips, ends) = match chain {
                Chain::None => continue,
                Chain::Lost => {
                    let name = if in_kernel { "[lost]_[k]" } else { "[lost]" };
                    stack.push(name, "[the BPF map of stacks was full]");
                    named.lost = true;
                    continue;
                }
                Chain::Other(others) => {
                    stack.push("(other stacks)", others.why());
                    continue;
                }
                Chain::Copied(copied) => (&vec![copied.copy().ip], End::Late),
                Chain::Taken { ips, end } => (ips, *end),
            };
            if let Some([instead, why]) = ends.words() {
                stack.push(instead, why);
            }
            if ends != End::Outermost {
                named.end = Some(ends);
            }
            let mut names = self.symbols.resolve(image, ips);
            if in_kernel {
                trim(&mut names);
                names.iter().rev().for_each(|name| named.push(&mut stack, name, true));
                continue;
            }
            // What is called from nowhere was not called from there: a function without a frame pointer used the
            // register for something else, and all that lies beyond means nothing.
            let nowhere = |name: &Rc<Name>| name.addr >= KERNEL || name.functions == Err(Why::Unmapped);
            let end = names.iter().position(nowhere);
            if end.is_some() {
                stack.push("[unknown]", "[no executable mapping]");
                named.unnamed = true;
            }
            for name in names.iter().take(end.unwrap_or(names.len())).rev() {
                named.push(&mut stack, name, false);
            }
        }
        named.stack = Rc::new(stack);
        named
    }
}

/// How many frames the kernel walks.
pub(crate) fn deepest() -> usize {
    let limit = fs::read_to_string("/proc/sys/kernel/perf_event_max_stack").unwrap_or_default();
    limit.trim().parse().unwrap_or(DEEPEST)
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

/// A program can call its functions what it likes: these would be taken for the kernel's, or for words of ours.
fn is_as_ours(name: &str) -> bool {
    name.starts_with('[') || name.ends_with(IN_KERNEL)
}

/// Of a chain whose names are not looked for.
pub(crate) fn without_names(comm: &str, instead: &str, why: &str) -> Stack {
    let mut stack = Stack::default();
    stack.push(comm, "");
    stack.push(instead, why);
    stack
}

impl Named {
    /// One that is among others.
    pub(crate) fn other(comm: &str, others: Others) -> Self {
        Self { stack: Rc::new(without_names(comm, "(other stacks)", others.why())), ..Self::default() }
    }

    /// One for which there was no time at all.
    pub(crate) fn in_no_time(comm: &str) -> Self {
        let stack = without_names(comm, "[not symbolized]", "[there was no time left at the end]");
        Self { stack: Rc::new(stack), unnamed: true, ..Self::default() }
    }

    /// Adds a place and the functions that were inlined there.
    fn push(&mut self, stack: &mut Stack, name: &Name, in_kernel: bool) {
        let suffix = if in_kernel { IN_KERNEL } else { "" };
        match &name.functions {
            Ok(functions) => {
                for function in functions {
                    let line = function.line.as_ref().map(|line| format!("{}:{}", line.file, line.line));
                    let name = &function.name;
                    let frame = if !in_kernel && is_as_ours(name) {
                        format!("'{name}'")
                    } else {
                        format!("{name}{suffix}")
                    };
                    stack.push(&frame, &line.unwrap_or_default());
                }
            }
            Err(why) => {
                let binary = name.binary().unwrap_or_default();
                stack.push_in(&format!("{name}{suffix}"), &format!("[{why}]"), &binary);
                self.unnamed = true;
                self.late |= *why == Why::Late;
                self.is_the_same_elsewhere = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_as_ours;

    #[test]
    fn names_that_a_program_could_pass_off_as_ours() {
        assert!(["read_[k]", "[no unwind information]", "[deeper]"].into_iter().all(is_as_ours));
        assert!(!["main", "operator[]", "<[u8]>::sort", "k_[k]_"].into_iter().any(is_as_ours));
    }
}
