//! Messages at each step of a process, of recorded faults.

use std::collections::HashMap;
use std::rc::Rc;

use super::super::fault_columns::FaultColumns;
use super::super::{Most, Process, Stalls, Step, StepOf};
use super::group::{Outcome, Places};
use crate::item::Event;

/// What each process has come to.
#[derive(Debug)]
pub(super) struct Messages {
    of: StepOf,
    most: bool,
    /// By its machine and number.
    processes: HashMap<(Option<Rc<str>>, u64), Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    /// When its first thread started: an id may be used again.
    start_ns: Option<u64>,
    comm: Option<Rc<str>>,
    reached: u64,
    /// The rule of a window.
    stalls: Option<Stalls>,
    /// What each file had since the last message.
    files: HashMap<Rc<str>, u64>,
}

impl Messages {
    pub(super) fn new(of: StepOf, most: bool) -> Self {
        Self { of, most, processes: HashMap::new() }
    }

    pub(super) fn fault(
        &mut self,
        batch: &FaultColumns,
        row: usize,
        kind: Option<Outcome>,
        places: &Places,
    ) -> Vec<Event> {
        let number = |at: usize| batch.column(at).number(row);
        let is_counted = matches!(kind, Some(Outcome::Major | Outcome::Minor));
        let Some(pid) = number(places.pid).filter(|_| is_counted) else { return vec![] };
        let wait_ns = places.wait(batch, row).unwrap_or(0);
        let (step, weight) = match self.of {
            StepOf::Faults(step) => (step, 1),
            StepOf::Major(step) => (step, u64::from(kind == Some(Outcome::Major))),
            StepOf::Waits(step) => (step, u64::from(wait_ns > 0)),
            StepOf::Stall(step) => (step, places.latency(batch, row).unwrap_or(0)),
            StepOf::Within(_) => (1, wait_ns),
        };
        let new = || Tally {
            stalls: if let StepOf::Within(rule) = self.of { Some(Stalls::new(rule)) } else { None },
            ..Tally::default()
        };
        let tally = self.processes.entry((batch.host.clone(), pid)).or_insert_with(new);
        let is_first = number(places.tid) == Some(pid);
        let start_ns =
            number(places.process_start_ns).or_else(|| number(places.start_ns).filter(|_| is_first));
        if let Some(start_ns) = start_ns {
            if tally.start_ns.is_some_and(|before| before != start_ns) {
                *tally = new();
            }
            tally.start_ns = Some(start_ns);
        }
        let comm = batch.column(places.process_comm).word(row);
        if let Some(comm) = comm.or_else(|| batch.column(places.comm).word(row))
            && (is_first || batch.column(places.process_comm).word(row).is_some() || tally.comm.is_none())
        {
            tally.comm = Some(Rc::clone(comm));
        }
        if weight == 0 {
            return vec![];
        }
        if let Some(file) = batch.column(places.file).word(row).filter(|_| self.most) {
            *tally.files.entry(Rc::clone(file)).or_default() += weight;
        }
        let time_ns = batch.times_ns()[row];
        let process = Process { pid: pid as u32, start_ns: tally.start_ns.unwrap_or(0) };
        let passed = if let Some(stalls) = &mut tally.stalls {
            stalls.add(process, time_ns, weight).map(|slept_ns| (slept_ns, slept_ns))
        } else {
            let before = tally.reached / step;
            tally.reached += weight;
            Some((before + 1, tally.reached / step)).filter(|(first, last)| first <= last)
        };
        let Some((first, last)) = passed else { return vec![] };
        let files = std::mem::take(&mut tally.files);
        // Of several, always the same one.
        let file = files.into_iter().max_by(|(a, x), (b, y)| x.cmp(y).then_with(|| b.cmp(a)));
        let comm = tally.comm.as_deref().unwrap_or_default().to_owned();
        let most = self.most.then(|| Most { file: file.map(|(file, _)| file), code: None });
        Step { time_ns, process, comm, first, last, most }.events(self.of).collect()
    }
}
