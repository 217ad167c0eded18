//! Messages each time a process's count passes a multiple of a step.

use std::collections::HashMap;
use std::rc::Rc;

use super::StallRule;
use super::tables::{STALL, STALL_MOST, STALLED, STALLED_MOST, STEP, STEP_MOST};
use crate::item::Event;
use crate::table::{Schema, Table};

/// Which process: ids are reused, so its birth is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// The process id.
    pub pid: u32,
    /// Birth, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
}

/// What a step counts, and how much of it a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOf {
    /// Faults.
    Faults(u64),
    /// Major faults.
    Major(u64),
    /// Faults in which the thread slept.
    Waits(u64),
    /// Nanoseconds in faults.
    Stall(u64),
    /// Nanoseconds asleep in faults, within a window.
    Within(StallRule),
}

impl StepOf {
    /// The fields of a message, which may tell what caused most.
    #[must_use]
    pub fn schema(self, most: bool) -> &'static Schema {
        self.table(most)
    }

    fn table(self, most: bool) -> &'static Table<Message> {
        match (self, most) {
            (Self::Stall(_), false) => &STALL,
            (Self::Stall(_), true) => &STALL_MOST,
            (Self::Within(_), false) => &STALLED,
            (Self::Within(_), true) => &STALLED_MOST,
            (_, false) => &STEP,
            (_, true) => &STEP_MOST,
        }
    }
}

/// What caused most of what a message is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Most {
    /// The file or sort of memory that it was in, if that is known of any.
    pub file: Option<Rc<str>>,
    /// The function that did it, if that is known of any.
    pub code: Option<Rc<str>>,
}

/// A process passed multiples of the step; or it was stalled ([`StepOf::Within`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Which process.
    pub process: Process,
    /// Its name.
    pub comm: String,
    /// The least multiple that it passed, in steps; or how long it slept in the window, nanoseconds.
    pub first: u64,
    /// The greatest; or the same.
    pub last: u64,
    /// What caused most since the last message, if that was asked for.
    pub most: Option<Most>,
}

impl Step {
    /// One event for each multiple.
    pub fn events(&self, of: StepOf) -> impl Iterator<Item = Event> {
        // What the message counts in, and the setting that it has beside that.
        let (unit, step) = match of {
            StepOf::Faults(step) | StepOf::Major(step) | StepOf::Waits(step) | StepOf::Stall(step) => {
                (step, step)
            }
            StepOf::Within(rule) => (1, rule.window_ns),
        };
        let table = of.table(self.most.is_some());
        (self.first..=self.last).map(move |n| {
            let message = Message {
                process: self.process,
                comm: self.comm.clone(),
                reached: n * unit,
                step,
                most: self.most.clone().unwrap_or_default(),
            };
            table.event(self.time_ns, &message)
        })
    }
}

/// What an event says.
pub(super) struct Message {
    pub(super) process: Process,
    pub(super) comm: String,
    pub(super) reached: u64,
    pub(super) step: u64,
    pub(super) most: Most,
}

/// How many processes are remembered; those beyond may see their messages out of order.
const REMEMBERED: usize = 100_000;

/// Puts each process's messages in order. Threads on several processors send them within microseconds of each other,
/// and the later one may come first: it is held until the gap is filled, or until the batch after.
#[derive(Debug, Default)]
pub struct InOrder {
    next: HashMap<Process, u64>,
    held: Vec<Step>,
}

impl InOrder {
    /// Takes a batch, and gives what can be shown now.
    pub fn take(&mut self, batch: Vec<Step>) -> Vec<Step> {
        let mut waiting: Vec<(Step, bool)> = self.held.drain(..).map(|step| (step, true)).collect();
        let mut shown = Vec::new();
        for step in batch {
            waiting.push((step, false));
            while let Some(at) =
                waiting.iter().position(|(s, _)| self.next.get(&s.process).unwrap_or(&1) == &s.first)
            {
                self.show(waiting.remove(at).0, &mut shown);
            }
        }
        waiting.sort_by_key(|(step, _)| step.first);
        for (step, waited) in waiting {
            if waited { self.show(step, &mut shown) } else { self.held.push(step) }
        }
        shown
    }

    /// Gives what is still held.
    pub fn rest(&mut self) -> Vec<Step> {
        self.held.sort_by_key(|step| step.first);
        std::mem::take(&mut self.held)
    }

    fn show(&mut self, step: Step, shown: &mut Vec<Step>) {
        if self.next.len() >= REMEMBERED {
            self.next.clear();
        }
        self.next.insert(step.process, step.last + 1);
        shown.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn step(pid: u32, first: u64, last: u64) -> Step {
        Step {
            time_ns: 0,
            process: Process { pid, start_ns: 0 },
            comm: String::new(),
            first,
            last,
            most: None,
        }
    }

    fn shown(steps: &[Step]) -> Vec<(u32, u64)> {
        steps.iter().map(|s| (s.process.pid, s.first)).collect()
    }

    #[test]
    fn later_ones_wait_for_earlier_ones() {
        let mut order = InOrder::default();
        assert_eq!(
            shown(&order.take(vec![step(1, 2, 2), step(2, 1, 4), step(1, 1, 1)])),
            [(2, 1), (1, 1), (1, 2)]
        );
        assert_eq!(shown(&order.take(vec![step(1, 5, 5), step(2, 5, 5)])), [(2, 5)]);
        assert_eq!(shown(&order.take(vec![step(1, 3, 4)])), [(1, 3), (1, 5)]);
    }

    #[test]
    fn a_gap_that_stays_holds_nobody_up() {
        let mut order = InOrder::default();
        assert_eq!(shown(&order.take(vec![step(1, 3, 3)])), []);
        assert_eq!(shown(&order.take(vec![])), [(1, 3)]);
        assert_eq!(shown(&order.take(vec![step(1, 9, 9), step(1, 8, 8)])), []);
        assert_eq!(shown(&order.rest()), [(1, 8), (1, 9)]);
    }

    #[test]
    fn a_message_may_tell_what_caused_most() {
        let most = Most { file: Some("/a".into()), code: None };
        let told = Step { most: Some(most), ..step(7, 1, 1) };
        for of in [StepOf::Major(5), StepOf::Stall(5)] {
            let event = told.events(of).next().unwrap();
            assert_eq!(event.record.get("file"), Some(&Value::from("/a")));
            assert_eq!(event.record.get("code"), Some(&Value::Null));
        }
    }

    #[test]
    fn a_stall_is_one_message() {
        let rule = StallRule::new(5, 1_000_000).unwrap();
        let events: Vec<_> = step(7, 40, 40).events(StepOf::Within(rule)).collect();
        let [event] = &events[..] else { panic!("{events:?}") };
        let number = |name| event.record.number(name);
        assert_eq!((number("wait_ns"), number("window_ns")), (Some(40), Some(1_000_000)));
    }

    #[test]
    fn one_message_a_multiple() {
        let counts: Vec<_> =
            step(7, 2, 4).events(StepOf::Faults(50)).map(|e| e.record.get("count").cloned()).collect();
        assert_eq!(counts, [100u64, 150, 200].map(|n| Some(Value::U64(n))));
    }
}
