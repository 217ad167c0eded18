//! Whose faults the groups of the kernel half are, in words: `whose` in `struct faults_row_key` of `bpf/faults.h`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::rc::Rc;

use trapline_model::faults::{Key, Process, Report, Thread, Whose};

use crate::abi::FaultsThread;
use crate::cgroup::Paths;

/// The names of threads and processes that have groups.
#[derive(Debug)]
pub(super) struct Owners {
    whose: Whose,
    /// By the words of the key, and the turn in which they were last reported.
    names: HashMap<[u64; 2], (Rc<str>, u64)>,
    cgroups: Paths,
}

impl Owners {
    pub(super) fn new(whose: Whose) -> Self {
        Self { whose, names: HashMap::new(), cgroups: Paths::default() }
    }

    /// A thread is reported.
    pub(super) fn learn(&mut self, row: &FaultsThread, report: &Report, turn: u64) {
        let (words, name) = match self.whose {
            Whose::Thread => {
                ([u64::from(row.tid) << 32 | u64::from(row.pid), row.start_ns], Rc::clone(&report.comm))
            }
            Whose::Process | Whose::Comm => {
                ([row.pid.into(), row.process_start_ns], Rc::clone(&report.process_comm))
            }
            Whose::Cgroup => return,
        };
        self.names.insert(words, (name, turn));
    }

    /// The part of a row's key, and the name to show.
    pub(super) fn key(&mut self, words: [u64; 2], pid: u32) -> (Key, Rc<str>) {
        let [id, start_ns] = words;
        let (of, tid) = (id as u32, (id >> 32) as u32);
        match self.whose {
            Whose::Thread => {
                let name = self.name(words, || format!("/proc/{of}/task/{tid}/comm"));
                (Key::Thread(Thread { pid: of, tid, start_ns }), name)
            }
            Whose::Process => {
                let name = self.name(words, || format!("/proc/{of}/comm"));
                (Key::Process(Process { pid: of, start_ns }), name)
            }
            Whose::Comm => (Key::Comm(self.name(words, || format!("/proc/{of}/comm"))), "".into()),
            Whose::Cgroup => (Key::Cgroup(self.cgroups.path(id, pid)), "".into()),
        }
    }

    /// One that was not reported yet has the name that it has now.
    fn name(&self, words: [u64; 2], file: impl Fn() -> String) -> Rc<str> {
        match self.names.get(&words) {
            Some((name, _)) => Rc::clone(name),
            None => {
                let name = fs::read(file()).unwrap_or_default();
                String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into()
            }
        }
    }

    /// Forgets those that have no groups and were not reported since a turn.
    pub(super) fn forget(&mut self, turn: u64, in_use: &HashSet<[u64; 2]>) {
        self.names.retain(|words, (_, reported)| *reported >= turn || in_use.contains(words));
        self.names.shrink_to(self.names.len() * 2);
    }
}
