//! Faults by the chain of calls that perf has recorded with them, or that is found in the stack that it has copied.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use trapline_model::faults::{Key, Ledger, Losses, NamedStack, Process};
use trapline_symbols::perf::{Calls, Record, Recording};
use trapline_symbols::task::Counts;
use trapline_symbols::unwind::{Copy, Held};
use trapline_symbols::{Image, Scope};

use super::untimed::{group, id};
use crate::faults::Stacks;
use crate::stacks::{Chain, End, Incomplete, Named, Naming, SAID_EVERY};

/// So many are kept of processes that are not forgotten: as many as the kernel half of other variants has room for.
const ROOM: usize = 16_384;

/// The group of the faults whose stack was not taken.
const UNTAKEN: u64 = 1;

/// So much of a stack is copied with each fault, bytes: of gcc's chains nearly all are in it.
pub(super) const COPIED: u32 = 16 << 10;

/// Memory for copies that wait for a table, bytes. Of those that come when it is full the callers are found by frame pointers
/// where a table is missing.
const MOST: usize = 24 << 20;

/// The rings that hold copies until they are read, bytes: with less, a burst of faults overruns them.
pub(super) const RINGS: u32 = 64 << 20;

/// So many records with copies may wait to be put in order: what is in the rings, and some more.
pub(super) const COPIES: usize = (RINGS as usize + MOST) / COPIED as usize;

/// The memory for tables, copies and rings, MiB.
pub(super) const MEGABYTES: u64 = Held::MEGABYTES + ((2 * (MOST as u64 + RINGS as u64)) >> 20);

/// How long tables of processes that were asked for are waited for before they are traced.
const TABLES_WAIT: Duration = Duration::from_secs(2);

/// How long one table is waited for while faults are recorded: the rings are small.
const TABLE_WAIT: Duration = Duration::from_millis(1);

/// How rows of an interval wait for tables.
const ROWS_WAIT: Duration = Duration::from_millis(500);

/// A chain of calls, and why it has no more.
type Walked = (Calls, End);

/// What faults have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Way {
    Walked(Rc<Walked>),
    /// A stack that waited for a table, by the number of its group.
    Copied(u64),
}

/// The faults of a chain of calls.
#[derive(Debug)]
struct InStack {
    number: u64,
    calls: Rc<Walked>,
    /// It is walked when the tables are there: until then the innermost call is known.
    copied: Option<Copy>,
    process: Process,
    /// When the first of them was.
    at_ns: u64,
    named: Option<Named>,
    faults: Counts,
    /// When its name was recorded, and how many there were.
    said: Option<(u64, Instant)>,
}

/// Faults by their stacks.
#[derive(Debug)]
pub(super) struct StackTable {
    naming: Naming,
    /// If stacks are copied, and walked by them.
    tables: Option<Held>,
    groups: HashMap<(Image, Way), InStack>,
    /// How many bytes of stacks wait for tables.
    held: usize,
    /// The number of the newest group.
    newest: u64,
    /// All there were, if not all of them have a record.
    counted: Option<Counts>,
    /// Of processes that are forgotten.
    past: Counts,
    losses: Incomplete,
    /// There was no room for their stack.
    crowded: Counts,
    /// Those that have names since that was asked, if they are recorded.
    found: Option<Vec<NamedStack>>,
}

/// What is to be recorded of minor faults and of major ones.
pub(super) fn recorded(stacks: Stacks, unwinds: bool) -> (Recording, Recording) {
    let stack = if unwinds { COPIED } else { 0 };
    let with = |period| Recording { period, calls: true, stack };
    match stacks {
        Stacks::All => (with(1), with(1)),
        Stacks::Sampled(n) => (with(n.into()), with(n.into())),
        Stacks::Major => (Recording::NONE, with(1)),
    }
}

impl StackTable {
    /// With `unwinds`, stacks are walked by unwind tables: those of processes that were asked for, and of a command that is to be
    /// executed, are made first.
    pub(super) fn new(whose: Scope, stacks: Stacks, unwinds: bool, command: Option<&Path>) -> Self {
        let mut naming = Naming::told(whose, unwinds);
        let mut tables = unwinds.then(Held::default);
        if let Some(tables) = &mut tables {
            let until = Instant::now() + TABLES_WAIT;
            naming.wait_until(until);
            if let Some(command) = command {
                naming.symbols.own_file().into_iter().for_each(|own| tables.refuse(own));
                naming.symbols.want_tables_of(command);
            }
            tables.load(&mut naming.symbols, until);
        }
        Self {
            naming,
            tables,
            groups: HashMap::new(),
            held: 0,
            newest: UNTAKEN,
            counted: (stacks != Stacks::All).then(Counts::default),
            past: Counts::default(),
            losses: Incomplete::default(),
            crowded: Counts::default(),
            found: None,
        }
    }

    /// Learns what processes do.
    pub(super) fn learn(&mut self, record: &Record) {
        self.naming.take(record);
    }

    /// Whether it has to be known how many faults there were.
    pub(super) fn want_count(&self) -> bool {
        self.counted.is_some()
    }

    /// So many faults there were up to now, recorded or not.
    pub(super) fn count(&mut self, counted: Counts) {
        self.counted = Some(counted);
    }

    /// Whether stacks should be named now.
    pub(super) fn want_naming(&mut self) -> bool {
        // Also where nothing is recorded for a while: a perf map may be written anew in it.
        self.naming.look();
        self.naming.wants_naming()
    }

    /// Before the last records of whoever has ended are taken.
    pub(super) fn settle(&mut self) {
        self.naming.settle();
    }

    /// Keeps the names of stacks for a recording, from now on.
    pub(super) fn record(&mut self) {
        self.found = Some(Vec::new());
    }

    /// The stacks that got their names since the last time, if they are kept.
    pub(super) fn take_found(&mut self) -> Vec<NamedStack> {
        self.found.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Makes tables of what was mapped since, for a moment.
    pub(super) fn load_tables(&mut self) {
        let Some(tables) = &mut self.tables else { return };
        tables.try_again();
        if tables.load(&mut self.naming.symbols, Instant::now() + TABLE_WAIT) && self.held > 0 {
            self.walk_copied(false);
        }
    }

    /// Whether there are tables to be made.
    pub(super) fn have_work(&self) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.may_go_on(&self.naming.symbols))
    }

    /// Walks the stacks that waited for tables. If it is the last time, for those of a process that is over and for all of them, by
    /// frame pointers where one is missing.
    fn walk_copied(&mut self, is_last: bool) {
        let Self { naming, groups, tables: Some(tables), held, .. } = self else { return };
        for ((image, _), known) in groups {
            let Some(stack) = &known.copied else { continue };
            let is_last = is_last || naming.is_over(known.process.pid, known.at_ns);
            let walked = tables.walk(stack, *image, naming.deepest, is_last, &mut naming.symbols);
            if let Some((user, ends)) = walked {
                *held -= stack.stack.len();
                let kernel = known.calls.0.kernel.clone();
                known.calls = Rc::new((Calls { kernel, user }, ends.into()));
                (known.copied, known.named) = (None, None);
            }
        }
    }

    /// Walks a stack. Gives it back if a table has to be made before.
    fn walk(&mut self, image: Image, calls: Calls, stack: Option<Copy>) -> (Walked, Option<Copy>) {
        let Self { naming, tables, held, .. } = self;
        let (Some(tables), Some(stack)) = (tables, stack) else {
            // Who follows frame pointers does not know whether a chain is whole.
            let end = if calls.depth() >= naming.deepest { End::Deepest } else { End::Outermost };
            return ((calls, end), None);
        };
        let is_full = *held + stack.stack.len() > MOST || self.groups.len() >= ROOM;
        let kernel = calls.kernel;
        match tables.walk(&stack, image, naming.deepest, is_full, &mut naming.symbols) {
            // Where a mapping is not known, no call of it is.
            Some((user, ends)) if user.is_empty() => {
                ((Calls { kernel, user: vec![stack.ip] }, ends.into()), None)
            }
            Some((user, ends)) => ((Calls { kernel, user }, ends.into()), None),
            None => ((Calls { kernel, user: vec![stack.ip] }, End::Late), Some(stack)),
        }
    }

    /// Puts one under its chain of calls, and gives the number of that, if there is space for it.
    pub(super) fn put(
        &mut self,
        process: Process,
        at_ns: u64,
        calls: Calls,
        stack: Option<Copy>,
        faults: Counts,
    ) -> Option<u64> {
        let image = self.naming.image(process.pid, at_ns).unwrap_or(Image::from(process));
        let (calls, copied) = self.walk(image, calls, stack);
        let (calls, full) = (Rc::new(calls), self.groups.len() >= ROOM);
        let way = copied.as_ref().map_or(Way::Walked(Rc::clone(&calls)), |_| Way::Copied(self.newest + 1));
        let key = (image, way);
        if let Some(known) = self.groups.get_mut(&key) {
            known.faults += faults;
            Some(known.number)
        } else if full {
            self.crowded += faults;
            None
        } else {
            self.newest += 1;
            self.held += copied.as_ref().map_or(0, |copied| copied.stack.len());
            self.groups.insert(
                key,
                InStack {
                    number: self.newest,
                    calls,
                    copied,
                    process,
                    at_ns,
                    named: None,
                    faults,
                    said: None,
                },
            );
            Some(self.newest)
        }
    }

    /// Names them and puts them into the ledger; gives how many of all faults have a row.
    pub(super) fn report(
        &mut self,
        all: Counts,
        ledger: &mut Ledger,
        until: Instant,
        last: bool,
        mut meanwhile: impl FnMut(),
    ) -> Counts {
        self.find_callers(until, last, &mut meanwhile);
        let mut sum = self.past;
        let naming = &mut self.naming;
        // Processes that have ended are forgotten with what has no name then.
        naming.wait_for(until.saturating_duration_since(Instant::now()));
        for known in self.groups.values_mut() {
            // What there was no time for is looked for again.
            if known.named.take_if(|named| named.late).is_some() {
                known.said = None;
            }
            let named = known.named.get_or_insert_with(|| {
                meanwhile();
                let (image, comm) = naming.who(known.process, known.at_ns);
                let [user, kernel] = chains(&known.calls);
                let mut named = naming.name(image, &comm, &user, &kernel);
                // Its callers may be known later.
                named.late |= known.copied.is_some();
                named
            });
            let stack = Rc::clone(&named.stack);
            let all = known.faults.all();
            let is_due = known.said.is_none_or(|(said, at)| said < all && at.elapsed() >= SAID_EVERY);
            if let Some(found) = self.found.as_mut().filter(|_| is_due) {
                known.said = Some((all, Instant::now()));
                found.push(NamedStack { id: known.number, stack: Rc::clone(&stack) });
            }
            ledger.group(id(known.number), group(Key::Stack(stack), known.faults, None));
            sum += known.faults;
        }
        if let Some(counted) = self.counted {
            // What was counted before the processes' own counters were read is not in those.
            let untaken = counted.beyond(sum + self.crowded).at_most(all.beyond(sum));
            ledger.group(id(UNTAKEN), group(Key::Untaken, untaken, None));
            sum += untaken;
        }
        self.forget(ledger);
        sum
    }

    /// Walks what waited for tables: these may take half of the time that there is.
    fn find_callers(&mut self, until: Instant, last: bool, mut meanwhile: impl FnMut()) {
        let now = Instant::now();
        let until = now + until.saturating_duration_since(now) / 2;
        let until = if last { until } else { until.min(now + ROWS_WAIT) };
        while self.held > 0 && Instant::now() < until {
            meanwhile();
            let Some(tables) = &mut self.tables else { return };
            tables.try_again();
            tables.load(&mut self.naming.symbols, (Instant::now() + 20 * TABLE_WAIT).min(until));
            let may_go_on = tables.may_go_on(&self.naming.symbols);
            self.walk_copied(false);
            if !may_go_on {
                break;
            }
        }
        if self.held > 0 {
            self.walk_copied(last);
        }
    }

    /// Forgets the processes that were over before their last records were taken.
    fn forget(&mut self, ledger: &mut Ledger) {
        let (naming, past, losses, held) = (&self.naming, &mut self.past, &mut self.losses, &mut self.held);
        self.groups.retain(|_, known| {
            let over = naming.is_over(known.process.pid, known.at_ns);
            if over {
                *past += known.faults;
                *held -= known.copied.as_ref().map_or(0, |copied| copied.stack.len());
                known.named.iter().for_each(|named| losses.add(named, known.faults.all()));
                ledger.close_group(&id(known.number));
            }
            !over
        });
        // Those that are named by a perf map as it is are named before it is read again.
        let is_unnamed = |known: &InStack| known.named.as_ref().is_none_or(|named| named.late);
        let unnamed: HashSet<Image> =
            self.groups.iter().filter(|(_, known)| is_unnamed(known)).map(|((image, _), _)| *image).collect();
        self.naming.forget(|image| unnamed.contains(&image));
    }

    /// Of how many faults the stack is not whole, or not there.
    pub(super) fn losses(&self, losses: &mut Losses) {
        let mut all = self.losses;
        for known in self.groups.values() {
            known.named.iter().for_each(|named| all.add(named, known.faults.all()));
        }
        losses.unattributed_faults = Some(self.crowded.all());
        losses.evicted_tables = self.tables.as_ref().map(Held::evicted);
        all.named(self.tables.is_some(), losses);
    }
}

/// The two halves of a chain. The kernel walks its own first, and then as much of the other as is left.
fn chains((calls, end): &Walked) -> [Chain; 2] {
    if calls.depth() == 0 {
        return [Chain::Lost, Chain::None];
    }
    let kernel =
        if calls.kernel.is_empty() { Chain::None } else { Chain::taken(&calls.kernel, End::Outermost) };
    [Chain::taken(&calls.user, *end), kernel]
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use trapline_model::faults::{By, Timing};
    use trapline_model::{Item, Source, Value, stage};

    use super::*;

    fn counts(major: u64, minor: u64) -> Counts {
        Counts { major, minor }
    }

    /// Rows by their stacks: how many of each kind.
    fn rows(stacks: &mut StackTable, all: Counts) -> (Vec<(String, u64, u64)>, Counts) {
        let mut ledger = Ledger::new(By::Stack, Timing::None);
        let placed = stacks.report(all, &mut ledger, Instant::now() + Duration::from_secs(1), false, || {});
        let number = |row: &trapline_model::Record, name| match row.get(name) {
            Some(&Value::U64(n)) => n,
            _ => panic!("no {name}"),
        };
        let totals = VecDeque::from([Item::Totals(ledger.block(1, true))]);
        let Ok(Some(Item::Totals(totals))) = stage::rows(totals, false).next() else { panic!("no totals") };
        let mut rows: Vec<_> = totals
            .rows
            .iter()
            .map(|row| {
                let stack = match row.get("stack") {
                    Some(Value::Str(stack)) => stack.to_string(),
                    _ => "none".into(),
                };
                (stack, number(row, "major"), number(row, "minor"))
            })
            .collect();
        rows.sort();
        (rows, placed)
    }

    /// A process that there never is: its addresses have no names, and are told apart all the same.
    const NOBODY: Process = Process { pid: u32::MAX >> 2, start_ns: 5 };

    fn calls(user: &[u64]) -> Calls {
        Calls { kernel: vec![], user: user.to_vec() }
    }

    #[test]
    fn what_has_no_record_was_not_taken() {
        let mut stacks = StackTable::new(Scope::These([].into()), Stacks::Major, false, None);
        stacks.put(NOBODY, 10, calls(&[1]), None, counts(1, 0));
        stacks.put(NOBODY, 11, calls(&[1]), None, counts(1, 0));
        stacks.put(NOBODY, 12, calls(&[]), None, counts(1, 0));
        stacks.count(counts(3, 100));
        let stack = |frame: &str| format!("[{}];{frame}", NOBODY.pid);
        let (told, placed) = rows(&mut stacks, counts(3, 120));
        assert_eq!(told, [(stack("0x1"), 2, 0), (stack("[lost]"), 1, 0), ("none".into(), 0, 100)]);
        // The others were seen by the kernel's counters only.
        assert_eq!(placed, counts(3, 100));
        // Never more than there were: the events have counted from a little earlier on.
        assert_eq!(rows(&mut stacks, counts(3, 90)).1, counts(3, 90));
        let mut losses = Losses::default();
        stacks.losses(&mut losses);
        assert_eq!(
            [
                losses.unattributed_faults,
                losses.truncated_stacks,
                losses.unsymbolized_stacks,
                losses.lost_stacks
            ]
            .map(Option::unwrap),
            [0, 0, 2, 1]
        );
    }

    #[test]
    fn room_for_so_many() {
        let mut stacks = StackTable::new(Scope::These([].into()), Stacks::All, false, None);
        for n in 0..ROOM as u64 + 3 {
            stacks.put(NOBODY, 10, calls(&[n]), None, counts(0, 1));
        }
        stacks.put(NOBODY, 10, calls(&[0]), None, counts(0, 1));
        assert_eq!(rows(&mut stacks, counts(0, 20_000)).1, counts(0, ROOM as u64 + 1));
        let mut losses = Losses::default();
        stacks.losses(&mut losses);
        assert_eq!(losses.unattributed_faults, Some(3));
    }

    #[test]
    fn the_kernels_calls_take_a_part_of_the_room() {
        let both = Calls { kernel: vec![9, 8], user: vec![3, 2] };
        let mut stacks = StackTable::new(Scope::These([].into()), Stacks::All, false, None);
        let mut of = |calls: &Calls, deepest| {
            stacks.naming.deepest = deepest;
            chains(&stacks.walk(Image::from(NOBODY), calls.clone(), None).0)
        };
        let [user, kernel] = of(&both, 4);
        assert!(matches!(user, Chain::Taken { ips, end: End::Deepest } if ips == [3, 1]));
        assert!(matches!(kernel, Chain::Taken { ips, end: End::Outermost } if ips == [9, 7]));
        assert!(matches!(of(&both, 5)[0], Chain::Taken { end: End::Outermost, .. }));
        assert!(matches!(of(&calls(&[3]), 4), [Chain::Taken { .. }, Chain::None]));
    }
}
