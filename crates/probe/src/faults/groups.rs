//! Faults that the kernel half puts into groups as they happen: `--by file`, `--by process,cause`. See
//! `bpf/faults_group.bpf.h`.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytemuck::{Zeroable, bytes_of_mut, pod_read_unaligned};
use trapline_model::faults::{
    By, Cause, Group, GroupId, Key, Ledger, Losses, NamedStack, Parts, Process, Report,
};
use trapline_symbols::Scope;

use super::figures;
use super::files::Files;
use super::from_abi::facts;
use super::stack_map::StackMap;
use super::table::{Owner, Table};
use super::whose::Owners;
use crate::abi::maps::faults as maps;
use crate::abi::{
    self, FaultsControl, FaultsGroup, FaultsGroupKey, FaultsLosses, FaultsMade, FaultsRowKey, FaultsStats,
    FaultsThread,
};
use crate::elements::Elements;
use crate::system;
use crate::variant::Attached;

/// New stacks are read, and named, at least this often, so that little is left to name when the end is asked for.
const NAMED_EVERY: Duration = Duration::from_millis(500);

/// How long names are looked for at a time: first before all ordinary threads, so that there is some progress however busy
/// the machine is, then among them.
const NAMED_FIRST: Duration = Duration::from_millis(20);
const NAMED_FOR: Duration = Duration::from_millis(50);
/// How long the rows of an interval wait for their names.
const ROWS_WAIT: Duration = Duration::from_millis(100);

/// No group has this key.
const REST: GroupId = [u64::MAX; 7];

/// The groups of a kind.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Elements,
    table: Table,
    kind: Kind,
    /// Where each group is somebody's: whose.
    owners: Option<Owners>,
    /// What had been made when the tables were last read.
    made: FaultsMade,
    /// When that was, and how long it took.
    looked: Instant,
    took: Duration,
    /// What was read then: a new piece of memory of that size each time would be thousands of faults.
    bytes: Vec<u8>,
    /// How many faults had been put among others for want of a share.
    over_quota: u64,
}

/// What turns a key into the words of the model.
#[derive(Debug)]
enum Kind {
    /// One grouping.
    File,
    Cause,
    Stack(Box<StackMap>),
    /// Several.
    Parts(Parts),
}

impl Groups {
    /// The groups that rows of this kind are made of; nothing if they are made of threads.
    pub(super) fn open(
        attached: &Attached,
        by: By,
        whose: Scope,
        unwinds: bool,
        command: Option<&Path>,
    ) -> Result<Option<Self>> {
        let kind = match by {
            By::Thread | By::Process | By::Comm | By::Cgroup | By::Span => return Ok(None),
            By::File => Kind::File,
            By::Cause => Kind::Cause,
            By::Stack | By::Function => {
                Kind::Stack(Box::new(StackMap::open(attached, whose, unwinds, command)?))
            }
            By::Several(parts) => Kind::Parts(parts),
        };
        let groups = Elements::open(attached, maps::GROUPS)?;
        Ok(Some(Self {
            groups,
            table: Table::open(attached)?,
            kind,
            owners: by.parts().whose.map(Owners::new),
            made: FaultsMade::zeroed(),
            looked: Instant::now(),
            took: Duration::ZERO,
            bytes: vec![],
            over_quota: 0,
        }))
    }

    /// A thread was read: it has the names that go with its groups, and the faults that are in none.
    pub(super) fn learn(&mut self, row: &FaultsThread, report: &Report, turn: u64) {
        if let Some(owners) = &mut self.owners {
            owners.learn(row, report, turn);
        }
    }

    /// Keeps what is found out of stacks for a recording.
    pub(super) fn record(&mut self) {
        if let Kind::Stack(chains) = &mut self.kind {
            chains.record();
        }
    }

    /// The stacks that got their names since the last time, for a recording.
    pub(super) fn take_found(&mut self) -> Vec<NamedStack> {
        if let Kind::Stack(chains) = &mut self.kind { chains.take_found() } else { vec![] }
    }

    /// Looks after what the kernel half tells of keys.
    pub(super) fn follow(&mut self) {
        if let Kind::Stack(chains) = &mut self.kind {
            chains.follow();
        }
    }

    /// Whether they should be read although no interval has ended: to make space, or before their names change.
    pub(super) fn want_reading(&self, attached: &Attached, control: &FaultsControl) -> Result<bool> {
        if let Kind::Stack(chains) = &self.kind {
            if self.looked.elapsed() < self.took {
                // Names have as much of the time.
                return Ok(false);
            }
            if chains.want_naming() {
                return Ok(true);
            }
        }
        let made: FaultsMade = attached.read(maps::MADE)?;
        let is_new = made.groups != self.made.groups;
        if let Kind::Stack(chains) = &self.kind
            && (is_new || chains.want_space())
            && self.looked.elapsed() >= NAMED_EVERY
        {
            return Ok(true);
        }
        // Not again and again where everything is in use.
        let grown = (made.groups - self.made.groups).max(made.chains - self.made.chains);
        let is_filling = self.table.is_filling(&made, control) && grown >= self.table.capacity / 32;
        Ok(is_filling || self.refused(attached)? > self.over_quota)
    }

    /// How many faults were put among others for want of a share.
    fn refused(&self, attached: &Attached) -> Result<u64> {
        let losses: FaultsLosses = attached.read(maps::LOSSES)?;
        Ok(losses.over_quota)
    }

    /// Reports every group to the ledger; `epoch` is the interval that is about to be shown. Makes room where there is
    /// little: what was not used of late is closed.
    pub(super) fn read(
        &mut self,
        attached: &Attached,
        mut files: Option<&mut Files>,
        control: &mut FaultsControl,
        epoch: u64,
        ledger: &mut Ledger,
    ) -> Result<()> {
        let began = Instant::now();
        if let Kind::Stack(chains) = &mut self.kind {
            chains.settle();
        }
        control.turn += 1;
        attached.write(maps::CONTROL, control)?;
        if let Kind::Stack(chains) = &mut self.kind {
            chains.turn_tables(control.turn)?;
        }
        let records = self.report(files.as_deref_mut(), epoch, ledger, |_| true)?;
        let turns = records.iter().map(|record| record.turn).collect();
        if let Kind::Stack(chains) = &mut self.kind {
            let over = chains.over();
            let owners: HashMap<_, _> =
                records.iter().map(|record| (record.key.of.word, record.owner)).collect();
            for word in over {
                // One that has none was not reported yet.
                let Some(&owner) = owners.get(&word) else { continue };
                let key = FaultsRowKey { of: FaultsGroupKey { word }, ..FaultsRowKey::zeroed() };
                self.table.take_out(&key, owner, control)?;
                chains.close(&word, ledger);
            }
        }
        self.made = attached.read(maps::MADE)?;
        let refused = self.refused(attached)?;
        let is_short = std::mem::replace(&mut self.over_quota, refused) < refused;
        if is_short || self.table.is_filling(&self.made, control) {
            self.make_room(attached, files, control, epoch, ledger, turns)?;
        }
        let rest: FaultsStats = attached.read(maps::UNATTRIBUTED)?;
        ledger.group(REST, report(self.rest(), &rest, epoch, None));
        (self.looked, self.took) = (Instant::now(), began.elapsed());
        Ok(())
    }

    /// Closes the groups that were not used for longest, until an eighth of the table is taken; those used since it was
    /// last read stay in any case.
    fn make_room(
        &mut self,
        attached: &Attached,
        mut files: Option<&mut Files>,
        control: &mut FaultsControl,
        epoch: u64,
        ledger: &mut Ledger,
        mut turns: Vec<u64>,
    ) -> Result<()> {
        turns.sort_unstable();
        let kept = self.table.capacity as usize / 8;
        let newest = turns.len().checked_sub(kept).and_then(|at| turns.get(at)).copied();
        control.stale = control.stale.max(newest.unwrap_or(0).min(control.turn - 1));
        control.stale_chains = control.turn - 1;
        attached.write(maps::CONTROL, control)?;
        system::wait_for_programs();
        let stale = control.stale;
        let closed = self.report(files.as_deref_mut(), epoch, ledger, |turn| turn != 0 && turn < stale)?;
        for Read { key, owner, .. } in closed {
            self.table.take_out(&key, owner, control)?;
            match &mut self.kind {
                Kind::Stack(chains) => chains.close(&key.of.word, ledger),
                Kind::File | Kind::Cause | Kind::Parts(_) => ledger.close_group(&key.id()),
            }
        }
        if let Kind::Stack(chains) = &self.kind {
            control.taken_chains += chains.take_out(control.turn, control.stale_chains)?;
        }
        if files.is_some() || self.owners.is_some() {
            let mut left = vec![];
            self.each(|_, key, _| {
                left.push(key);
                Ok(())
            })?;
            if let Some(files) = files {
                files.forget(stale, &left.iter().map(|key| plain(key.of.word)).collect())?;
            }
            if let Some(owners) = &mut self.owners {
                owners.forget(control.turn - 1, &left.iter().map(|key| key.whose).collect());
            }
        }
        self.table.forget_ended()?;
        attached.write(maps::CONTROL, control)
    }

    /// Reports the groups that are wanted by the turn in which they were last used, and gives them.
    fn report(
        &mut self,
        mut files: Option<&mut Files>,
        epoch: u64,
        ledger: &mut Ledger,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Vec<Read>> {
        let mut read = vec![];
        self.each(|groups, key, group| {
            if !wanted(group.turn) {
                return Ok(());
            }
            let range = (group.not_low != 0).then_some((!group.not_low, group.high));
            let (key_of_row, name) = groups.key(&key, group, files.as_deref_mut())?;
            let mut report = report(key_of_row, &group.stats, epoch, range);
            report.name = name;
            report.stats.failed = group.failed;
            let owner = Process { pid: group.owner.pid, start_ns: group.owner.start_ns };
            report.owner = Some(owner).filter(|owner| owner.pid != 0);
            ledger.group(key.id(), report);
            read.push(Read { key, owner: Owner::of(group), turn: group.turn });
            Ok(())
        })?;
        Ok(read)
    }

    /// Reads the table, and does something with each group in it.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut Self, FaultsRowKey, &FaultsGroup) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.groups.read_into(&mut bytes).context("cannot read the BPF map of rows")?;
        // Whatever a process had mapped before a fault that was read is known from here on.
        self.follow();
        let key_size = self.groups.key_size();
        for record in bytes.chunks_exact(key_size + size_of::<FaultsGroup>()) {
            let (in_use, group) = record.split_at(key_size);
            let mut key = FaultsRowKey::zeroed();
            bytes_of_mut(&mut key)[FaultsRowKey::in_use(key_size)].copy_from_slice(in_use);
            act(self, key, &pod_read_unaligned(group))?;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// The row that a group belongs to, and the name to show.
    fn key(
        &mut self,
        key: &FaultsRowKey,
        group: &FaultsGroup,
        files: Option<&mut Files>,
    ) -> Result<(Key, Rc<str>)> {
        let file = || -> Result<Key> {
            let word = plain(key.of.word);
            Ok(match files {
                // A fault that failed has no place among files.
                Some(files) if word[0] != 0 => Key::File(files.file(&FaultsGroupKey { word })?),
                _ => Key::Rest,
            })
        };
        let cause = Cause::of(&facts(key.facts as u32));
        let of = match &mut self.kind {
            Kind::File => file()?,
            Kind::Cause => Key::Cause(cause),
            Kind::Stack(chains) => {
                let faults = group.stats.major + group.stats.minor;
                chains.stack(&key.of, faults, group.uid)?.map_or(Key::Untaken, Key::Stack)
            }
            Kind::Parts(parts) => {
                let owner = self.owners.as_mut().map(|owners| owners.key(key.whose, group.owner.pid));
                let (whose, name) = owner.unwrap_or((Key::None, "".into()));
                return Ok((parts.key(whose, file()?, cause), name));
            }
        };
        Ok((of, "".into()))
    }

    /// Becomes readable when something is to be done for stacks.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        if let Kind::Stack(chains) = &self.kind { chains.fd() } else { None }
    }

    /// Makes unwind tables, for a while.
    pub(super) fn load_tables(&mut self) -> Result<()> {
        if let Kind::Stack(chains) = &mut self.kind {
            chains.load_tables(Instant::now() + NAMED_FOR)?;
        }
        Ok(())
    }

    /// Names what has none yet, for a while.
    pub(super) fn work(&mut self, ledger: &mut Ledger) {
        match &mut self.kind {
            Kind::Stack(chains) if !chains.have_work() => chains.read_ahead(Instant::now() + NAMED_FOR),
            _ => self.work_for(NAMED_FOR, ledger),
        }
    }

    /// The same for the rows of an interval: they come in time, with the names that there are.
    pub(super) fn name_rows(&mut self, ledger: &mut Ledger) {
        self.work_for(ROWS_WAIT, ledger);
    }

    fn work_for(&mut self, time: Duration, ledger: &mut Ledger) {
        if let Kind::Stack(chains) = &mut self.kind
            && chains.have_work()
        {
            let began = Instant::now();
            system::undisturbed(|| chains.work(began + NAMED_FIRST, ledger));
            chains.work(began + time, ledger);
        }
    }

    /// Whether there is something to name.
    pub(super) fn have_work(&self) -> bool {
        matches!(&self.kind, Kind::Stack(chains) if chains.may_go_on())
    }

    /// Gives everything a name, or a reason, by then.
    pub(super) fn finish(&mut self, until: Instant, ledger: &mut Ledger) {
        if let Kind::Stack(chains) = &mut self.kind {
            chains.finish(until, ledger);
        }
    }

    /// Of those that belong to no group.
    fn rest(&self) -> Key {
        match &self.kind {
            Kind::File | Kind::Stack(_) => Key::Rest,
            Kind::Cause => Key::Cause(Cause::Unknown),
            Kind::Parts(parts) => parts.key(Key::Rest, Key::Rest, Cause::Unknown),
        }
    }

    /// What is to be said at the end of what could not be told of keys.
    pub(super) fn losses(&self, losses: &mut Losses) {
        if let Kind::Stack(chains) = &self.kind {
            chains.losses(losses);
        }
    }
}

/// A group that was read.
struct Read {
    key: FaultsRowKey,
    owner: Owner,
    /// In which it was last used.
    turn: u64,
}

/// The key that a second one stands for.
fn plain([first, rest @ ..]: [u64; 4]) -> [u64; 4] {
    let [second, third, fourth] = rest;
    [first & !abi::SECOND, second, third, fourth]
}

fn report(key: Key, stats: &FaultsStats, epoch: u64, range: Option<(u64, u64)>) -> Group {
    let (stats, extremes, recent) = figures(stats, epoch);
    Group { key, stats, extremes, recent, range, owner: None, name: "".into() }
}
