//! A trace of accesses as DAMON tells of them: snapshots of regions, each with the number of rounds in which it was
//! accessed.

use std::collections::BTreeMap;

use super::summary::trace::{Access, Order, PAGE, Twice, Words};
use crate::item::Event;

/// Windows in a row in which nothing happens; more of them are one snapshot.
const MOST_IDLE: u64 = 10_000;

/// Pages next to each other that were accessed equally often, for equally long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Address of the first byte.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// Rounds in which each of its pages was accessed.
    pub accesses: u64,
    /// For how many snapshots before this one that was so.
    pub age: u64,
}

/// What a process did in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub end_ns: u64,
    /// All pages that its program has accessed so far, in order.
    pub regions: Vec<Region>,
}

/// Takes a trace, and makes snapshots for each process.
#[derive(Debug)]
pub struct Damon {
    words: Words,
    order: Order,
    twice: Twice,
    window_ns: u64,
    opened_ns: u64,
    fresh: bool,
    targets: BTreeMap<u32, Target>,
}

/// A process.
#[derive(Debug, Default)]
struct Target {
    space: u32,
    pages: BTreeMap<u64, Page>,
    snapshots: Vec<Snapshot>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Page {
    accesses: u64,
    /// In the window before, if there was one with this page.
    before: Option<u64>,
    age: u64,
}

impl Damon {
    /// With a snapshot for each such time, of a trace that begins now with such a period.
    #[must_use]
    pub fn new(window_ns: u64, start_ns: u64, period_ns: u64) -> Self {
        Self {
            words: Words::default(),
            order: Order::default(),
            twice: Twice::new(period_ns),
            window_ns: window_ns.max(1),
            opened_ns: start_ns,
            fresh: true,
            targets: BTreeMap::new(),
        }
    }

    /// Takes events.
    pub fn take(&mut self, events: &[Event]) {
        for event in events {
            if let Ok(Some(access)) = self.words.read(event) {
                self.order.push(access);
            }
            while let Some(access) = self.order.settled() {
                self.account(&access);
            }
        }
    }

    /// The trace has ended. Gives each process with its snapshots.
    #[must_use]
    pub fn finish(mut self, time_ns: u64) -> Vec<(u32, Vec<Snapshot>)> {
        while let Some(access) = self.order.pop() {
            self.account(&access);
        }
        self.advance(time_ns);
        if time_ns > self.opened_ns {
            self.close(time_ns);
        }
        self.targets.into_iter().map(|(pid, target)| (pid, target.snapshots)).collect()
    }

    fn account(&mut self, access: &Access) {
        if self.twice.is(access) {
            return;
        }
        if self.fresh {
            self.opened_ns = self.opened_ns.min(access.time_ns);
            self.fresh = false;
        }
        self.advance(access.time_ns);
        let target = self.targets.entry(self.words.of(access.space).pid).or_default();
        if target.space != access.space {
            // Another program: none of its pages is one of those before.
            target.pages.clear();
            target.space = access.space;
        }
        target.pages.entry(access.page()).or_default().accesses += 1;
    }

    fn advance(&mut self, time_ns: u64) {
        let ended = time_ns.saturating_sub(self.opened_ns) / self.window_ns;
        if ended == 0 {
            return;
        }
        self.close(self.opened_ns + self.window_ns);
        let idle = ended - 1;
        if idle > MOST_IDLE {
            self.close(self.opened_ns + idle * self.window_ns);
        } else {
            (0..idle).for_each(|_| self.close(self.opened_ns + self.window_ns));
        }
    }

    fn close(&mut self, end_ns: u64) {
        for target in self.targets.values_mut() {
            // One that has ended has no more snapshots.
            if self.words.is_over(target.space, self.opened_ns)
                && target.pages.values().all(|page| page.accesses == 0)
            {
                continue;
            }
            let regions = target.regions();
            target.snapshots.push(Snapshot { start_ns: self.opened_ns, end_ns, regions });
        }
        self.opened_ns = end_ns;
    }
}

impl Target {
    /// The regions of the window that ends, and makes ready for the next.
    fn regions(&mut self) -> Vec<Region> {
        let mut regions: Vec<Region> = Vec::new();
        for (&number, page) in &mut self.pages {
            page.age = if page.before == Some(page.accesses) { page.age + 1 } else { 0 };
            page.before = Some(page.accesses);
            let accesses = std::mem::take(&mut page.accesses);
            let (start, end) = (number * PAGE, (number + 1).saturating_mul(PAGE));
            match regions.last_mut() {
                Some(last) if (last.end, last.accesses, last.age) == (start, accesses, page.age) => {
                    last.end = end
                }
                _ => regions.push(Region { start, end, accesses, age: page.age }),
            }
        }
        regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Page as Accessed, Step, Way, What};

    const MS: u64 = 1_000_000;

    fn step(ms: u64, what: What, page: Option<u64>) -> Event {
        let page = page.map(|page| Accessed {
            way: Some(Way::Write),
            ip: None,
            addr: page * PAGE + 5,
            file: None,
            offset: None,
            symbol: None,
            first: false,
        });
        let step =
            Step { time_ns: ms * MS, what, pid: 7, tid: 7, comm: "x".into(), cpu: None, page, note: None };
        step.event()
    }

    fn snapshots(events: &[Event], until_ms: u64) -> Vec<(u64, u64, Vec<[u64; 4]>)> {
        let mut damon = Damon::new(100 * MS, 0, MS);
        damon.take(events);
        let mut targets = damon.finish(until_ms * MS);
        assert_eq!(targets.iter().map(|&(pid, _)| pid).collect::<Vec<_>>(), [7]);
        let told = |s: Snapshot| {
            let regions =
                s.regions.iter().map(|r| [r.start / PAGE, r.end / PAGE, r.accesses, r.age]).collect();
            (s.start_ns / MS, s.end_ns / MS, regions)
        };
        targets.remove(0).1.into_iter().map(told).collect()
    }

    #[test]
    fn by_hand() {
        let touch = |ms, page| step(ms, What::Access, Some(page));
        let events = [
            touch(10, 1),
            touch(20, 2),
            touch(30, 3),
            touch(40, 3),
            touch(110, 1),
            touch(120, 9),
            // Nothing from 200 to 400.
            touch(450, 1),
            step(460, What::Start, None),
            touch(470, 2),
        ];
        assert_eq!(
            snapshots(&events, 520),
            [
                (0, 100, vec![[1, 3, 1, 0], [3, 4, 2, 0]]),
                (100, 200, vec![[1, 2, 1, 1], [2, 4, 0, 0], [9, 10, 1, 0]]),
                (200, 300, vec![[1, 2, 0, 0], [2, 4, 0, 1], [9, 10, 0, 0]]),
                (300, 400, vec![[1, 2, 0, 1], [2, 4, 0, 2], [9, 10, 0, 1]]),
                // The new program's.
                (400, 500, vec![[2, 3, 1, 0]]),
                (500, 520, vec![[2, 3, 0, 0]]),
            ]
        );
    }

    #[test]
    fn none_after_the_end_and_few_of_a_long_silence() {
        let events =
            [step(10, What::Access, Some(1)), step(250, What::End, None), step(990, What::Access, Some(1))];
        let told = snapshots(&events, 1000);
        assert_eq!(
            told.iter().map(|s| (s.0, s.1)).collect::<Vec<_>>(),
            [(0, 100), (100, 200), (200, 300), (900, 1000)]
        );
        let events = [step(10, What::Access, Some(1)), step(u64::MAX / MS - 5, What::Access, Some(1))];
        let mut damon = Damon::new(100 * MS, 0, MS);
        damon.take(&events);
        assert_eq!(damon.finish(u64::MAX)[0].1.len(), 3);
    }
}
