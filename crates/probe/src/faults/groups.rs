//! Faults that the kernel half puts into groups as they happen: `--by file`. See `bpf/faults_group.bpf.h`.

use std::io::Read;

use anyhow::{Context, Result};
use bytemuck::pod_read_unaligned;
use libbpf_rs::{Iter, Link};
use trapline_model::faults::{By, Cause, Group, Key, Ledger};

use super::causes::facts;
use super::figures;
use super::files::Files;
use crate::abi::{self, FaultsGroup, FaultsGroupKey, FaultsStats};
use crate::variant::Attached;

/// A group's key and its figures, as the iterator writes them.
const RECORD: usize = size_of::<FaultsGroupKey>() + size_of::<FaultsGroup>();

/// No group has this key.
const REST: [u64; 4] = [u64::MAX; 4];

/// The groups of a kind.
#[derive(Debug)]
pub(super) struct Groups {
    read: Link,
    kind: Kind,
}

/// What turns a key into the words of the model.
#[derive(Debug)]
enum Kind {
    File(Files),
    Cause,
}

impl Groups {
    /// The groups that rows of this sort are made of; nothing if they are made of threads.
    pub(super) fn open(attached: &Attached, by: By) -> Result<Option<Self>> {
        let kind = match by {
            By::Thread | By::Process | By::Cgroup | By::Span => return Ok(None),
            By::File => Kind::File(Files::open(attached)?),
            By::Cause => Kind::Cause,
        };
        Ok(Some(Self { read: attached.map_iterator("groups_read", "groups")?, kind }))
    }

    /// Takes out what the kernel half has to tell of keys, and has little room for.
    pub(super) fn fetch_names(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::File(files) => files.fetch_names(),
            Kind::Cause => Ok(()),
        }
    }

    /// Reports every group to the ledger; `epoch` is the interval that is about to be shown.
    pub(super) fn read(&mut self, attached: &Attached, epoch: u64, ledger: &mut Ledger) -> Result<()> {
        let mut bytes = Vec::new();
        Iter::new(&self.read)?.read_to_end(&mut bytes).context("cannot read the groups")?;
        // After the groups: a group's key has been told before there is a fault in it.
        self.fetch_names()?;
        for record in bytes.chunks_exact(RECORD) {
            let (key, group) = record.split_at(size_of::<FaultsGroupKey>());
            let key: FaultsGroupKey = pod_read_unaligned(key);
            let group: FaultsGroup = pod_read_unaligned(group);
            let range = (group.low != abi::NONE).then_some((group.low, group.high));
            let mut report = report(self.key(&key), &group.stats, epoch, range);
            report.stats.failed = group.failed;
            ledger.group(key.word, report);
        }
        let rest: FaultsStats = attached.read(".data.unattributed")?;
        ledger.group(REST, report(self.rest(), &rest, epoch, None));
        Ok(())
    }

    fn key(&self, key: &FaultsGroupKey) -> Key {
        match &self.kind {
            Kind::File(files) => Key::File(files.file(key)),
            Kind::Cause => Key::Cause(Cause::of(&facts(key.word[0] as u32))),
        }
    }

    /// Of those that belong to no group.
    fn rest(&self) -> Key {
        match &self.kind {
            Kind::File(_) => Key::Rest,
            Kind::Cause => Key::Cause(Cause::Unknown),
        }
    }
}

fn report(key: Key, stats: &FaultsStats, epoch: u64, range: Option<(u64, u64)>) -> Group {
    let (stats, extremes, recent) = figures(stats, epoch);
    Group { key, stats, extremes, recent, range }
}
