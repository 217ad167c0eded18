//! Stalls: a process slept for a given time in faults within a given window.

use std::collections::HashMap;

use super::Process;

/// A window has this many ticks: it begins with one, so it is up to a 16th shorter than asked for.
pub const TICKS: usize = 16;

/// When a process is stalled: its threads slept in faults for at least a time, within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StallRule {
    /// The time, nanoseconds.
    pub least_ns: u64,
    /// The window, nanoseconds.
    pub window_ns: u64,
}

impl StallRule {
    /// A rule that can be met.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn new(least_ns: u64, window_ns: u64) -> Result<Self, &'static str> {
        match (least_ns, window_ns) {
            (0, _) => Err("the time must be more than 0"),
            (_, ..1_000_000) => Err("the window must be at least 1ms"),
            (_, 86_400_000_000_001..) => Err("the window must be at most 1day"),
            _ if least_ns > window_ns => Err("the time must not be longer than its window"),
            _ => Ok(Self { least_ns, window_ns }),
        }
    }

    /// The length of a tick, nanoseconds.
    #[must_use]
    pub fn tick_ns(self) -> u64 {
        self.window_ns / TICKS as u64
    }
}

/// The rule over the faults of processes, in the order of their completion. `bpf/faults_stall.bpf.h` has the same.
#[derive(Debug)]
pub struct Stalls {
    rule: StallRule,
    windows: HashMap<Process, Window>,
}

/// What a process slept.
#[derive(Debug, Default)]
struct Window {
    /// Since it was first seen.
    total_ns: u64,
    /// The same at the beginning of each of the last ticks.
    before_ns: [u64; TICKS],
    /// The last of them.
    tick: u64,
    /// Until then it has been reported.
    quiet_until_ns: u64,
}

impl Stalls {
    /// None so far.
    #[must_use]
    pub fn new(rule: StallRule) -> Self {
        Self { rule, windows: HashMap::new() }
    }

    /// A fault of the process is complete in which the thread slept. Gives what the process slept within the window that ends
    /// here, if it is stalled: once in each window.
    pub fn add(&mut self, process: Process, time_ns: u64, wait_ns: u64) -> Option<u64> {
        let of = self.windows.entry(process).or_default();
        let tick_ns = self.rule.tick_ns();
        let tick = (time_ns / tick_ns).max(of.tick);
        for passed in tick.saturating_sub(TICKS as u64).max(of.tick)..tick {
            of.before_ns[(passed + 1) as usize % TICKS] = of.total_ns;
        }
        of.tick = tick;
        of.total_ns += wait_ns;
        for tick in (0..=tick).rev().take(TICKS) {
            let before = wait_ns.saturating_sub(time_ns.saturating_sub(tick * tick_ns));
            if before == 0 {
                break;
            }
            of.before_ns[tick as usize % TICKS] += before;
        }
        let stalled = of.total_ns - of.before_ns[(tick + 1) as usize % TICKS];
        let is_due = stalled >= self.rule.least_ns && time_ns >= of.quiet_until_ns;
        is_due.then(|| {
            of.quiet_until_ns = time_ns + tick_ns * TICKS as u64;
            stalled
        })
    }

    /// The process has ended.
    pub fn forget(&mut self, process: Process) {
        self.windows.remove(&process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const WHO: Process = Process { pid: 7, start_ns: 1 };

    fn stalls(least_ms: u64, window_ms: u64) -> Stalls {
        Stalls::new(StallRule::new(least_ms * MS, window_ms * MS).unwrap())
    }

    /// In milliseconds: the moment at which each wait ends, its length, and what is reported.
    fn assert_reports(rule: (u64, u64), waits: &[(u64, u64, Option<u64>)]) {
        let mut stalls = stalls(rule.0, rule.1);
        for &(at, wait, expected) in waits {
            assert_eq!(stalls.add(WHO, at * MS, wait * MS), expected.map(|ms| ms * MS), "{at}");
        }
    }

    #[test]
    fn waits_within_a_window_are_reported_once_and_again_after_it() {
        assert_reports(
            (100, 1600),
            &[
                (5000, 60, None),
                (5200, 30, None),
                (5300, 10, Some(100)),
                (5400, 500, None),
                (6850, 90, None),
                (6899, 10, None),
                (6900, 10, Some(110)),
                (9000, 99, None),
                (9001, 1, Some(100)),
            ],
        );
    }

    #[test]
    fn waits_that_are_further_apart_than_the_window_are_not_added_up() {
        assert_reports(
            (100, 1600),
            &[(5000, 60, None), (6700, 60, None), (8400, 60, None), (8500, 60, Some(120))],
        );
    }

    #[test]
    fn of_a_wait_that_began_before_the_window_the_rest_counts() {
        assert_reports((1500, 1600), &[(100_000, 50_000, Some(1500))]);
        // From the beginning of the tick at 98,400 ms: 1,580 of it.
        assert_reports((1, 1600), &[(99_980, 50_000, Some(1580))]);
        let waits =
            [(1000, 60, None), (1140, 60, None), (1145, 9, None), (1150, 6, None), (1151, 5, Some(80))];
        assert_reports((80, 160), &waits);
    }

    #[test]
    fn processes_are_apart() {
        let mut stalls = stalls(100, 1000);
        let other = Process { start_ns: 2, ..WHO };
        assert_eq!(stalls.add(WHO, 900 * MS, 60 * MS), None);
        assert_eq!(stalls.add(other, 900 * MS, 60 * MS), None);
        assert_eq!(stalls.add(other, 910 * MS, 60 * MS), Some(120 * MS));
        stalls.forget(WHO);
        assert_eq!(stalls.add(WHO, 920 * MS, 60 * MS), None);
    }

    #[test]
    fn threads_sleep_at_the_same_time_and_may_be_reported_in_another_order() {
        let mut stalls = stalls(100, 160);
        assert_eq!(stalls.add(WHO, 1000 * MS, 60 * MS), None);
        assert_eq!(stalls.add(WHO, 999 * MS, 60 * MS), Some(120 * MS));
    }

    #[test]
    fn rules_that_cannot_be_met_are_refused() {
        for (least, window) in [(0, MS), (2 * MS, MS), (1, MS - 1), (1, 100_000_000 * MS)] {
            assert!(StallRule::new(least, window).is_err(), "{least}/{window}");
        }
    }
}
