//! The processes that can be watched without privilege: one's own.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{geteuid, getpid};

/// Those that were there when a tool began, and what has come since.
pub(super) struct OwnProcesses {
    watched: HashSet<u32>,
    /// Those of the last look that are not watched: what ends at once is not worth another beginning.
    newest: HashSet<u32>,
}

impl OwnProcesses {
    pub(super) fn now() -> Self {
        Self { watched: processes(), newest: HashSet::new() }
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.watched.iter().copied().collect()
    }

    /// Whether one has come that was there at the last look, too.
    pub(super) fn has_new(&mut self) -> bool {
        let new: HashSet<u32> = processes().difference(&self.watched).copied().collect();
        let has_stayed = !new.is_disjoint(&self.newest);
        self.newest = new;
        has_stayed
    }
}

/// Whether none of these processes is there any more.
pub(super) fn have_ended(pids: &[u32]) -> bool {
    !pids.is_empty() && pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// The processes of this user that may be looked into, without trapline itself.
fn processes() -> HashSet<u32> {
    let own = geteuid().as_raw();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let owned = entries.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == own));
    let pids = owned.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // To open it takes the right that perf events take (PTRACE_MODE_READ, ptrace(2)); a zombie has none to read.
    let is_open = |pid: &u32| {
        File::open(format!("/proc/{pid}/maps")).is_ok() && fs::read_link(format!("/proc/{pid}/exe")).is_ok()
    };
    pids.filter(|pid| *pid != getpid().as_raw() as u32).filter(is_open).collect()
}
