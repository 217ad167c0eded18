//! Faults by the chain of calls that perf has recorded with them.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Instant;

use trapline_model::faults::{Key, Ledger, Losses, NamedStack, Process};
use trapline_symbols::perf::{Calls, Record, Recording};
use trapline_symbols::task::Counts;
use trapline_symbols::{Image, Scope};

use super::untimed::{group, id};
use crate::faults::Stacks;
use crate::faults::stacks::{Chain, End, Incomplete, Named, Naming, SAID_EVERY};

/// So many are kept of processes that are not forgotten: as many as the kernel half of other variants has room for.
const ROOM: usize = 16_384;

/// The group of the faults whose stack was not taken.
const UNTAKEN: u64 = 1;

/// The faults of a chain of calls.
#[derive(Debug)]
struct InStack {
    number: u64,
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
    groups: HashMap<(Image, Calls), InStack>,
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
pub(super) fn recorded(stacks: Stacks) -> (Recording, Recording) {
    let with = |period| Recording { period, calls: true };
    match stacks {
        Stacks::All => (with(1), with(1)),
        Stacks::Sampled(n) => (with(n.into()), with(n.into())),
        Stacks::Major => (Recording::NONE, with(1)),
    }
}

impl StackTable {
    pub(super) fn new(whose: Scope, stacks: Stacks) -> Self {
        Self {
            naming: Naming::told(whose),
            groups: HashMap::new(),
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

    /// Puts one under its chain of calls, and gives the number of that, if there is space for it.
    pub(super) fn put(&mut self, process: Process, at_ns: u64, calls: Calls, faults: Counts) -> Option<u64> {
        let image = self.naming.image(process.pid, at_ns).unwrap_or(Image::from(process));
        let full = self.groups.len() >= ROOM;
        let key = (image, calls);
        if let Some(known) = self.groups.get_mut(&key) {
            known.faults += faults;
            Some(known.number)
        } else if full {
            self.crowded += faults;
            None
        } else {
            self.newest += 1;
            self.groups.insert(
                key,
                InStack { number: self.newest, process, at_ns, named: None, faults, said: None },
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
        mut meanwhile: impl FnMut(),
    ) -> Counts {
        let mut sum = self.past;
        let naming = &mut self.naming;
        // Processes that have ended are forgotten with what has no name then.
        naming.wait_for(until.saturating_duration_since(Instant::now()));
        for ((_, calls), known) in &mut self.groups {
            // What there was no time for is looked for again.
            if known.named.take_if(|named| named.late).is_some() {
                known.said = None;
            }
            let named = known.named.get_or_insert_with(|| {
                meanwhile();
                let [user, kernel] = chains(calls, naming.deepest);
                let (image, comm) = naming.who(known.process, known.at_ns);
                naming.name(image, &comm, &user, &kernel)
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

    /// Forgets the processes that were over before their last records were taken.
    fn forget(&mut self, ledger: &mut Ledger) {
        let (naming, past, losses) = (&self.naming, &mut self.past, &mut self.losses);
        self.groups.retain(|_, known| {
            let over = naming.is_over(known.process.pid, known.at_ns);
            if over {
                *past += known.faults;
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
        all.named(false, losses);
    }
}

/// The two halves of a chain. The kernel walks its own first, and then as much of the other as is left.
fn chains(calls: &Calls, deepest: usize) -> [Chain; 2] {
    if calls.depth() == 0 {
        return [Chain::Lost, Chain::None];
    }
    let kernel =
        if calls.kernel.is_empty() { Chain::None } else { Chain::taken(&calls.kernel, End::Outermost) };
    let end = if calls.depth() >= deepest { End::Deepest } else { End::Outermost };
    [Chain::taken(&calls.user, end), kernel]
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use trapline_model::faults::{By, Timing};
    use trapline_model::{Item, Source, Value, stage};

    use super::*;

    fn counts(major: u64, minor: u64) -> Counts {
        Counts { major, minor }
    }

    /// Rows by their stacks: how many of each kind.
    fn rows(stacks: &mut StackTable, all: Counts) -> (Vec<(String, u64, u64)>, Counts) {
        let mut ledger = Ledger::new(By::Stack, Timing::None);
        let placed = stacks.report(all, &mut ledger, Instant::now() + Duration::from_secs(1), || {});
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
        let mut stacks = StackTable::new(Scope::These([].into()), Stacks::Major);
        stacks.put(NOBODY, 10, calls(&[1]), counts(1, 0));
        stacks.put(NOBODY, 11, calls(&[1]), counts(1, 0));
        stacks.put(NOBODY, 12, calls(&[]), counts(1, 0));
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
        let mut stacks = StackTable::new(Scope::These([].into()), Stacks::All);
        for n in 0..ROOM as u64 + 3 {
            stacks.put(NOBODY, 10, calls(&[n]), counts(0, 1));
        }
        stacks.put(NOBODY, 10, calls(&[0]), counts(0, 1));
        assert_eq!(rows(&mut stacks, counts(0, 20_000)).1, counts(0, ROOM as u64 + 1));
        let mut losses = Losses::default();
        stacks.losses(&mut losses);
        assert_eq!(losses.unattributed_faults, Some(3));
    }

    #[test]
    fn the_kernels_calls_take_a_part_of_the_room() {
        let both = Calls { kernel: vec![9, 8], user: vec![3, 2] };
        let [user, kernel] = chains(&both, 4);
        assert!(matches!(user, Chain::Taken { ips, end: End::Deepest } if ips == [3, 1]));
        assert!(matches!(kernel, Chain::Taken { ips, end: End::Outermost } if ips == [9, 7]));
        assert!(matches!(chains(&both, 5)[0], Chain::Taken { end: End::Outermost, .. }));
        assert!(matches!(chains(&calls(&[3]), 4), [Chain::Taken { .. }, Chain::None]));
    }
}
