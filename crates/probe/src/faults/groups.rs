//! Faults that the kernel half puts into groups as they happen: `--by file`. See `bpf/faults_group.bpf.h`.

use anyhow::{Context, Result};
use bytemuck::pod_read_unaligned;
use trapline_model::faults::{By, Cause, Group, Key, Ledger};

use super::causes::facts;
use super::chains::Chains;
use super::figures;
use super::files::Files;
use crate::abi::{FaultsGroup, FaultsGroupKey, FaultsStats};
use crate::elements::Elements;
use crate::symbols::Whose;
use crate::variant::Attached;

/// A group's key and its figures, as they are read.
const RECORD: usize = size_of::<FaultsGroupKey>() + size_of::<FaultsGroup>();

/// No group has this key.
const REST: [u64; 4] = [u64::MAX; 4];

/// The groups of a kind.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Elements,
    kind: Kind,
}

/// What turns a key into the words of the model.
#[derive(Debug)]
enum Kind {
    File,
    Cause,
    Stack(Box<Chains>),
}

impl Groups {
    /// The groups that rows of this sort are made of; nothing if they are made of threads.
    pub(super) fn open(attached: &Attached, by: By, whose: Whose) -> Result<Option<Self>> {
        let kind = match by {
            By::Thread | By::Process | By::Cgroup | By::Span => return Ok(None),
            By::File => Kind::File,
            By::Cause => Kind::Cause,
            By::Stack => Kind::Stack(Box::new(Chains::open(attached, whose)?)),
        };
        Ok(Some(Self { groups: Elements::open(attached, "groups_read", "groups")?, kind }))
    }

    /// Looks after what the kernel half tells of keys.
    pub(super) fn follow(&mut self) {
        match &mut self.kind {
            Kind::File | Kind::Cause => {}
            Kind::Stack(chains) => chains.follow(),
        }
    }

    /// Whether they should be read although no interval has ended: to make space, or before their names change.
    pub(super) fn want_reading(&self) -> bool {
        match &self.kind {
            Kind::Stack(chains) => chains.want_naming(),
            Kind::File | Kind::Cause => false,
        }
    }

    /// Reports every group to the ledger; `epoch` is the interval that is about to be shown.
    pub(super) fn read(
        &mut self,
        attached: &Attached,
        mut files: Option<&mut Files>,
        epoch: u64,
        ledger: &mut Ledger,
    ) -> Result<()> {
        if let Kind::Stack(chains) = &mut self.kind {
            chains.settle();
        }
        let bytes = self.groups.read().context("cannot read the groups")?;
        for record in bytes.chunks_exact(RECORD) {
            let (key, group) = record.split_at(size_of::<FaultsGroupKey>());
            let key: FaultsGroupKey = pod_read_unaligned(key);
            let group: FaultsGroup = pod_read_unaligned(group);
            let range = (group.not_low != 0).then_some((!group.not_low, group.high));
            let mut report =
                report(self.key(&key, &group, files.as_deref_mut())?, &group.stats, epoch, range);
            report.stats.failed = group.failed;
            ledger.group(key.word, report);
        }
        if let Kind::Stack(chains) = &mut self.kind {
            chains.forget(ledger);
        }
        let rest: FaultsStats = attached.read(".data.unattributed")?;
        ledger.group(REST, report(self.rest(), &rest, epoch, None));
        Ok(())
    }

    fn key(&mut self, key: &FaultsGroupKey, group: &FaultsGroup, files: Option<&mut Files>) -> Result<Key> {
        Ok(match &mut self.kind {
            Kind::File => match files {
                None => Key::Rest,
                Some(files) => Key::File(files.file(key)?),
            },
            Kind::Cause => Key::Cause(Cause::of(&facts(key.word[0] as u32))),
            Kind::Stack(chains) => {
                let faults = group.stats.major + group.stats.minor;
                chains.stack(key, faults)?.map_or(Key::Untaken, Key::Stack)
            }
        })
    }

    /// Of those that belong to no group.
    fn rest(&self) -> Key {
        match &self.kind {
            Kind::File | Kind::Stack(_) => Key::Rest,
            Kind::Cause => Key::Cause(Cause::Unknown),
        }
    }

    /// What is to be said at the end of what could not be told of keys.
    pub(super) fn losses(&self) -> Vec<(&'static str, u64)> {
        match &self.kind {
            Kind::File | Kind::Cause => vec![],
            Kind::Stack(chains) => chains.losses(),
        }
    }
}

fn report(key: Key, stats: &FaultsStats, epoch: u64, range: Option<(u64, u64)>) -> Group {
    let (stats, extremes, recent) = figures(stats, epoch);
    Group { key, stats, extremes, recent, range }
}
