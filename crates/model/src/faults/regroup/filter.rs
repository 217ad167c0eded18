//! Which of the recorded faults are meant.

use std::ops::RangeInclusive;

use super::super::fault_columns::{FaultColumns, Values};

/// Which faults are meant.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Those that ended at these times, CLOCK_MONOTONIC nanoseconds.
    pub times_ns: RangeInclusive<u64>,
    /// Those of these processes, if any are named.
    pub pids: Vec<u32>,
    /// Those of this thread.
    pub tid: Option<u32>,
    /// Those of threads of these names, if any are given.
    pub comms: Vec<String>,
    /// Those in this cgroup or below it: its path below the root.
    pub cgroup: Option<String>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { times_ns: 0..=u64::MAX, pids: vec![], tid: None, comms: vec![], cgroup: None }
    }
}

impl Filter {
    /// Whether all faults are meant.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.times_ns == (0..=u64::MAX) && self.is_of_all_tasks()
    }

    /// Whether those of all tasks are meant.
    pub(super) fn is_of_all_tasks(&self) -> bool {
        self.pids.is_empty() && self.tid.is_none() && self.comms.is_empty() && self.cgroup.is_none()
    }
}

/// The same for the faults of a batch.
pub(super) struct Chosen<'a> {
    filter: &'a Filter,
    pid: usize,
    tid: usize,
    /// Where texts are, and which of the batch's are meant; nothing if all are.
    comm: Option<(usize, Vec<bool>)>,
    cgroup: Option<(usize, Vec<bool>)>,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(filter: &'a Filter, batch: &FaultColumns) -> Self {
        let at = |name: &str| batch.table().position(name).unwrap_or(usize::MAX);
        let texts = |name: &str, is_meant: &dyn Fn(&str) -> bool| {
            let at = at(name);
            let words: &[_] = if let Values::Words(_, words) = batch.column(at) { words } else { &[] };
            (at, words.iter().map(|word| is_meant(word)).collect())
        };
        let is_below = |path: &str| {
            let of = filter.cgroup.as_deref().unwrap_or_default().trim_end_matches('/');
            path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_named = |name: &str| filter.comms.iter().any(|comm| comm == name);
        Self {
            filter,
            pid: at("pid"),
            tid: at("tid"),
            comm: (!filter.comms.is_empty()).then(|| texts("comm", &is_named)),
            cgroup: filter.cgroup.as_ref().map(|_| texts("cgroup", &is_below)),
        }
    }

    /// Whether the fault in a row is meant.
    pub(super) fn has(&self, batch: &FaultColumns, row: usize) -> bool {
        let Filter { times_ns, pids, tid, .. } = self.filter;
        let is = |at: usize, id: u32| batch.column(at).number(row) == Some(id.into());
        let is_text = |of: &Option<(usize, Vec<bool>)>| {
            of.as_ref().is_none_or(|(at, meant)| {
                let Values::Words(codes, _) = batch.column(*at) else { return false };
                let code = codes.get(row).copied().flatten();
                code.and_then(|code| meant.get(code as usize)) == Some(&true)
            })
        };
        times_ns.contains(&batch.times_ns()[row])
            && (pids.is_empty() || pids.iter().any(|pid| is(self.pid, *pid)))
            && tid.is_none_or(|tid| is(self.tid, tid))
            && is_text(&self.comm)
            && is_text(&self.cgroup)
    }
}
