//! A budget: the period is stretched while our faults take more of the target's time than they may.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// How often the period is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest period: beyond it there is no trace to speak of.
const LONGEST: Duration = Duration::from_secs(10);

/// The budget, and what was spent when it was last looked at.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    wish: Duration,
    every: Duration,
    looked: Instant,
    /// Per process: time of our faults, its processor time; nanoseconds.
    spent: HashMap<u32, (u64, u64)>,
}

impl Budget {
    /// At most `share` (0 to 1) of the processes' time, at best each `wish`.
    pub fn new(share: f64, wish: Duration) -> Self {
        Self { share, wish, every: wish, looked: Instant::now(), spent: HashMap::new() }
    }

    /// The period to use from now on, if it is time to change it. `cost`: processes, and the time that our faults
    /// have taken them so far, nanoseconds.
    pub fn period(&mut self, cost: impl Iterator<Item = (u32, u64)>) -> Option<Duration> {
        if self.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.looked = Instant::now();
        let now: HashMap<u32, (u64, u64)> =
            cost.filter_map(|(pid, faults)| Some((pid, (faults, cpu_ns(pid)?)))).collect();
        let (mut faults, mut cpu) = (0, 0);
        for (pid, now) in &now {
            if let Some(before) = self.spent.get(pid) {
                faults += now.0.saturating_sub(before.0);
                cpu += now.1.saturating_sub(before.1);
            }
        }
        self.spent = now;
        if cpu == 0 {
            return None;
        }
        let next = adjusted(self.every, self.wish, faults as f64 / cpu as f64 / self.share);
        let changed = next != self.every;
        self.every = next;
        changed.then_some(next)
    }
}

/// The next period when `used` times the budget was spent with this one: up at once, down in steps.
fn adjusted(every: Duration, wish: Duration, used: f64) -> Duration {
    let factor = if used > 1.0 { used.min(8.0) } else { (used / 0.9).clamp(0.8, 1.0) };
    every.mul_f64(factor).clamp(wish, LONGEST.max(wish))
}

/// The processor time of a process so far, nanoseconds.
fn cpu_ns(pid: u32) -> Option<u64> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32)).ok()?;
    clock_gettime(clock).ok().map(|time| time.num_nanoseconds() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_follows_the_cost() {
        let ms = Duration::from_millis;
        assert_eq!(adjusted(ms(1), ms(1), 4.0), ms(4));
        assert_eq!(adjusted(ms(1), ms(1), 100.0), ms(8));
        assert_eq!(adjusted(ms(4), ms(1), 0.95), ms(4));
        assert!(adjusted(ms(4), ms(1), 0.5) < ms(4));
        assert_eq!(adjusted(ms(1), ms(1), 0.0), ms(1));
        assert_eq!(adjusted(LONGEST, ms(1), 5.0), LONGEST);
    }

    #[test]
    fn ones_own_time_passes() {
        let before = cpu_ns(std::process::id()).unwrap();
        while cpu_ns(std::process::id()).unwrap() < before + 1_000_000 {}
        // One more than the kernel gives (PID_MAX_LIMIT, include/linux/threads.h).
        assert_eq!(cpu_ns((1 << 22) + 1), None);
    }
}
