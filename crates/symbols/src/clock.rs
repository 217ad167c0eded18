//! The clock of every time in trapline: the kernel's own CLOCK_MONOTONIC, also in a time namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

/// The initial time namespace's inode number, which never moved (include/linux/proc_ns.h).
pub const INITIAL_TIME_NAMESPACE: u64 = 0xeffffffa;

/// The kernel's own CLOCK_MONOTONIC in nanoseconds, as tasks' start times and BPF programs have it: that of the initial
/// time namespace. The clock of every `time_ns` and `start_ns` until items leave trapline.
#[must_use]
pub fn monotonic_ns() -> u64 {
    kernels(ClockId::CLOCK_MONOTONIC, ahead().monotonic_ns)
}

/// How long the machine was asleep, which CLOCK_MONOTONIC leaves out, nanoseconds.
#[must_use]
pub fn asleep_ns() -> u64 {
    // The other clock is read a little later, so that without any sleep it is ahead.
    kernels(ClockId::CLOCK_BOOTTIME, ahead().boot_ns).saturating_sub(monotonic_ns())
}

/// What our clocks are ahead of the kernel's own. Where that is not to be seen, no tool starts.
#[must_use]
pub fn ahead() -> Clocks {
    clocks().unwrap_or_default()
}

fn kernels(clock: ClockId, ahead_ns: i64) -> u64 {
    clock_gettime(clock).map_or(0, |t| (t.num_nanoseconds() - ahead_ns).max(0) as u64)
}

/// What our clocks are ahead of the kernel's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clocks {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub monotonic_ns: i64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: i64,
}

/// Nothing if that is not to be seen. A namespace's offsets do not change while anybody is in it.
#[must_use]
pub fn clocks() -> Option<Clocks> {
    static CLOCKS: OnceLock<Option<Clocks>> = OnceLock::new();
    *CLOCKS.get_or_init(|| {
        let namespace = |name| fs::metadata(format!("/proc/self/ns/{name}")).ok().map(|meta| meta.ino());
        // There is none where the kernel has no such namespaces.
        if namespace("time").is_none_or(|inode| inode == INITIAL_TIME_NAMESPACE) {
            return Some(Clocks::default());
        }
        // The file tells of the namespace that our children will be in.
        if namespace("time") != namespace("time_for_children") {
            return None;
        }
        Some(offsets(&fs::read_to_string("/proc/self/timens_offsets").ok()?))
    })
}

/// Of /proc/PID/timens_offsets: the clock's name or number, seconds, nanoseconds.
fn offsets(text: &str) -> Clocks {
    let of = |clock: [&str; 2]| {
        text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|name| clock.contains(name))?;
            let (seconds, rest): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            seconds.checked_mul(1_000_000_000)?.checked_add(rest)
        })
    };
    Clocks { monotonic_ns: of(["monotonic", "1"]).unwrap_or(0), boot_ns: of(["boottime", "7"]).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_seconds_and_nanoseconds_of_each_clock() {
        let text = "monotonic         -11         999999999\nboottime           7         0\n";
        assert_eq!(offsets(text), Clocks { monotonic_ns: -10_000_000_001, boot_ns: 7_000_000_000 });
        assert_eq!(offsets(""), Clocks::default());
    }
}
