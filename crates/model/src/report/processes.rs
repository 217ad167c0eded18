//! The processes of a report, each with the name that it had last.

use std::collections::HashMap;

use super::gather::whom;

/// Processes, each with a place of its own.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// By run, number and start.
    known: HashMap<(usize, u64, u64), usize>,
    /// Of each its number and its last name.
    called: Vec<(u64, String)>,
}

impl Processes {
    /// The place of a process; `name` is its own if `is_own`, else that of one of its threads.
    pub(super) fn place(
        &mut self,
        run: usize,
        pid: u64,
        start_ns: Option<u64>,
        name: Option<&str>,
        is_own: bool,
    ) -> usize {
        let at = *self.known.entry((run, pid, start_ns.unwrap_or(u64::MAX))).or_insert_with(|| {
            self.called.push((pid, String::new()));
            self.called.len() - 1
        });
        let called = &mut self.called[at].1;
        if let Some(name) = name.filter(|name| (is_own || called.is_empty()) && called != name) {
            name.clone_into(called);
        }
        at
    }

    /// What is to be shown in the place of each [`stand_in`].
    pub(super) fn names(&self) -> HashMap<String, String> {
        let called = self.called.iter().enumerate();
        called.map(|(at, (pid, name))| (stand_in(at), whom(Some(name), Some(*pid)))).collect()
    }
}

/// What a process is called until it is known how it was called last.
pub(super) fn stand_in(process: usize) -> String {
    format!("\0{process}")
}

/// The same; of a process whose number is not known (`u64::MAX`), its name.
pub(super) fn called(pid: u64, name: Option<&str>, process: usize) -> String {
    if pid == u64::MAX { whom(name, None) } else { stand_in(process) }
}
