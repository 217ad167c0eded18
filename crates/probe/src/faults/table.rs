//! The table of groups, which all processes share: how full it is, and what is taken out of it. See
//! `struct faults_control` in `bpf/faults.h`, and `bpf/faults_quota.bpf.h`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use bytemuck::bytes_of;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::abi::maps::faults as maps;
use crate::abi::{FaultsControl, FaultsGroup, FaultsMade, FaultsProcess, FaultsRowKey};
use crate::variant::Attached;

/// Who has made a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    process: FaultsProcess,
    user: u32,
}

impl Owner {
    pub(super) fn of(group: &FaultsGroup) -> Self {
        Self { process: group.owner, user: group.uid }
    }

    /// As the kernel half knows the user: no process has the number 0.
    fn of_user(self) -> FaultsProcess {
        FaultsProcess { start_ns: self.user.into(), pid: 0, pad: 0 }
    }
}

/// The table of groups.
#[derive(Debug)]
pub(super) struct Table {
    groups: MapHandle,
    released: MapHandle,
    /// Of how many groups there can be; there can be as many chains.
    pub(super) capacity: u64,
    /// How many groups of each process were taken out, while it lives, and of each user's processes.
    credits: HashMap<(u32, u64), u64>,
}

impl Table {
    pub(super) fn open(attached: &Attached) -> Result<Self> {
        let groups = attached.handle(maps::GROUPS)?;
        let capacity = u64::from(groups.max_entries());
        Ok(Self { groups, released: attached.handle(maps::RELEASED)?, capacity, credits: HashMap::new() })
    }

    /// Whether more than a quarter of the groups or chains that there can be are there: less than what one process may
    /// have made in a quarter of a second if it was named by who asked.
    pub(super) fn is_filling(&self, made: &FaultsMade, control: &FaultsControl) -> bool {
        let there = |made: u64, taken: u64| made.saturating_sub(taken) > self.capacity / 4;
        there(made.groups, control.taken_groups) || there(made.chains, control.taken_chains)
    }

    /// Takes out a group of which nothing more can come: its process may make another one.
    pub(super) fn take_out(
        &mut self,
        key: &FaultsRowKey,
        owner: Owner,
        control: &mut FaultsControl,
    ) -> Result<()> {
        let in_use = FaultsRowKey::in_use(self.groups.key_size() as usize);
        self.groups.delete(&bytes_of(key)[in_use]).context("cannot delete a group")?;
        control.taken_groups += 1;
        for who in [owner.process, owner.of_user()] {
            let credit = self.credits.entry((who.pid, who.start_ns)).or_default();
            *credit += 1;
            // Without a place for it, the share is what it was.
            let _ = self.released.update(bytes_of(&who), &credit.to_ne_bytes(), MapFlags::ANY);
        }
        Ok(())
    }

    /// Forgets what was taken out of processes that have ended.
    pub(super) fn forget_ended(&mut self) -> Result<()> {
        let released = &self.released;
        self.credits.retain(|&(pid, start_ns), _| {
            let lives = pid == 0 || Path::new("/proc").join(pid.to_string()).exists();
            if !lives {
                let _ = released.delete(bytes_of(&FaultsProcess { start_ns, pid, pad: 0 }));
            }
            lives
        });
        Ok(())
    }
}
