//! Resets by the kernel's own NUMA balancing: it takes pages away from the processor, to see who wants them.
//!
//! Where we may change its settings it goes over a process each few ticks of that process's processor time; where they
//! are locked, each second or more. A process that sleeps is not gone over.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use trapline_model::doctor::Refusal;
use trapline_symbols::machine;
use trapline_symbols::maps::{Mapping, Maps};
use trapline_symbols::task::number;

use super::hold::Hold;
use super::injector::Injector;
use super::knobs::{self, Knob, Knobs};
use super::scan::{self, Scan};

const MB: u64 = 1 << 20;
/// A mapping up to this size is gone over whole if anything in it is; of a larger one what is there.
const SMALL: u64 = 16 * MB;
/// The kernel goes over so many times the size in addresses.
const VIRTUAL: u64 = 8;
/// From here on the kernel takes its time whatever the size (MAX_SCAN_WINDOW, kernel/sched/fair.c), MB.
const LARGEST: u64 = 2560;

/// Before a new mapping is gone over, ms: while there are new ones, and else. The kernel (6.7 and later) goes over
/// mappings one at a time that have not been touched for four to eight times this.
const YOUNG_DELAY_MS: u64 = 1;
const DELAY_MS: u64 = 1000;
/// So often is gone over what is new until the kernel knows it.
const YOUNG_PASSES: u64 = 2;
/// How often sizes are looked at.
const SIZE_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether the kernel has gone over a process: a tick at most kernels' 250 Hz.
pub const LOOK_EVERY: Duration = Duration::from_millis(4);

/// Whether balancing can be used here, and its settings changed.
///
/// # Errors
/// Why not.
pub fn examine() -> Result<bool, Refusal> {
    let refusal = |error: io::Error, what: &str, remedy: &str| Refusal {
        errno: error.raw_os_error().map(|e| format!("{:?}", nix::errno::Errno::from_raw(e))),
        error: format!("{what}: {error}"),
        remedy: remedy.to_owned(),
    };
    let switch = Knob::Balancing.name();
    Knob::Balancing.is_open().map_err(|error| {
        refusal(error, switch, "use a kernel with CONFIG_NUMA_BALANCING, as root, outside of containers")
    })?;
    if let Some(why) = confined("self") {
        return Err(Refusal {
            errno: None,
            error: why,
            remedy: "the kernel has this rule since Linux 6.17".into(),
        });
    }
    // Where debugfs is not mounted yet, a tracer will do that.
    let hidden = !machine::is_mounted("debugfs") && machine::lockdown().is_none_or(|mode| mode == "none");
    Ok(hidden || are_open())
}

/// Whether the settings can be changed: a kernel that is locked down lets nobody.
fn are_open() -> bool {
    [Knob::ScanSize, Knob::PeriodMin, Knob::PeriodMax, Knob::Delay].iter().all(|knob| knob.is_open().is_ok())
}

/// Why the kernel leaves a process alone, if it does: since 6.17 those that may use one node only, on machines that
/// are divided into sets of processors (cpusets), as container managers do.
pub fn confined(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let nodes = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"))?.trim();
    let one_node = !nodes.contains(['-', ',']);
    (one_node && has_cpusets() && has_rule()).then(|| {
        format!("on machines with cpusets the kernel does not balance processes with a single node: {nodes}")
    })
}

/// Whether the kernel has that rule: it has an event for it.
fn has_rule() -> bool {
    const EVENT: &str = "sched_skip_cpuset_numa";
    let events = ["/sys/kernel/tracing/events/sched", "/sys/kernel/debug/tracing/events/sched"];
    match events.into_iter().map(Path::new).find(|dir| dir.exists()) {
        Some(dir) => dir.join(EVENT).exists(),
        None => fs::read(machine::KERNEL_BTF)
            .is_ok_and(|types| types.windows(EVENT.len()).any(|name| name == EVENT.as_bytes())),
    }
}

/// Whether any control group but the root has a cpuset: what the kernel asks.
fn has_cpusets() -> bool {
    let groups = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let cpuset = groups.lines().find_map(|line| line.strip_prefix("cpuset"));
    let mut numbers = cpuset.unwrap_or_default().split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        // A hierarchy of its own.
        (Some(1..), Some(count)) => count > 1,
        // Or of the unified one, whose groups have one if their parent gives them one.
        _ => {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            let root = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
            let roots = root.filter_map(|line| line.split(' ').nth(1)).map(Path::new);
            roots.into_iter().any(|root| {
                let given = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
                given.split_whitespace().any(|controller| controller == "cpuset")
                    && fs::read_dir(root).is_ok_and(|entries| entries.flatten().any(|e| e.path().is_dir()))
            })
        }
    }
}

/// A process that is gone over.
#[derive(Debug)]
pub struct Scanned {
    pid: u32,
    _hold: Hold,
    /// Whether files in memory are gone over, if that is known.
    shared: Option<bool>,
    sched: File,
    status: File,
    /// How often the kernel had gone over it, and when that was seen.
    passes: Option<(u64, Instant)>,
    /// Of what it can see, bytes: small mappings, and all.
    small: u64,
    all: u64,
    /// So often it is still gone over as one with new mappings.
    young: u64,
}

impl Scanned {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// Why that cannot be.
    pub fn open(pid: u32, maps: &Maps) -> Result<Self> {
        if let Some(why) = confined(&pid.to_string()) {
            anyhow::bail!("{why}");
        }
        let open = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            File::open(&path).with_context(|| format!("cannot open {path}"))
        };
        let hold = Hold::of(pid, maps).with_context(|| format!("cannot hold the memory of process {pid}"))?;
        Ok(Self {
            pid,
            _hold: hold,
            shared: None,
            sched: open("sched")?,
            status: open("status")?,
            passes: None,
            small: 0,
            all: 0,
            young: 0,
        })
    }

    /// Learns what was found out of the kernel.
    pub fn learn(&mut self, balance: &Balance) {
        self.shared = balance.shared;
    }

    /// Whether a mapping is gone over.
    pub(crate) fn sees(&self, mapping: &Mapping) -> Scan {
        scan::of(self.pid, mapping, self.shared)
    }

    /// Takes note of the sizes of the mappings that are, or may be.
    pub fn cover(&mut self, sizes: &[u64]) {
        let before = std::mem::replace(&mut self.all, sizes.iter().sum());
        if self.all != before {
            self.young = YOUNG_PASSES;
        }
        self.small = sizes.iter().filter(|&&len| len <= SMALL).sum();
    }

    /// How often the kernel has gone over it since the last call, and in what time.
    ///
    /// # Errors
    /// When it has ended.
    pub fn passed(&mut self) -> io::Result<Option<(u64, Duration)>> {
        let now = Instant::now();
        let Some(count) = number(&self.sched, "mm->numa_scan_seq")? else { return Ok(None) };
        let Some((before, when)) = self.passes else {
            self.passes = Some((count, now));
            return Ok(None);
        };
        if count == before {
            return Ok(None);
        }
        self.passes = Some((count, now));
        // A program that has just been executed has memory of its own, which was never gone over.
        let Some(passes) = count.checked_sub(before) else { return Ok(None) };
        self.young = self.young.saturating_sub(passes);
        Ok(Some((passes, now - when)))
    }

    /// What is in memory, bytes. What is there of files is mostly text, which is not gone over.
    fn there(&self) -> u64 {
        let kinds = ["RssAnon:", "RssShmem:"].iter();
        kinds.filter_map(|name| number(&self.status, name).ok().flatten()).sum::<u64>() * 1024
    }
}

/// What must be gone over at once for all to be. For small mappings and all, and what is there of them, bytes: MB.
fn size_mb(small: u64, all: u64, there: u64) -> u64 {
    let needed = all.min(small + there).max(all / VIRTUAL);
    (needed.div_ceil(MB) + 1).min(LARGEST)
}

/// The settings, as the processes want them.
#[derive(Debug)]
pub struct Balance {
    knobs: Knobs,
    fast: bool,
    /// Whether files in memory are gone over, if that could be tried.
    shared: Option<bool>,
    sized: Option<Instant>,
    /// What of the processes is in memory, bytes.
    there: u64,
}

impl Balance {
    /// Switches balancing on; the holder of the lock does.
    ///
    /// # Errors
    /// When the settings cannot be changed.
    pub fn begin(every: Duration, injector: &Injector) -> Result<Self> {
        let mounted = knobs::mount_debugfs();
        let fast = are_open();
        let period = period_ms(every);
        let values = [
            (Knob::Delay, YOUNG_DELAY_MS),
            (Knob::ScanSize, 8),
            (Knob::PeriodMax, period),
            (Knob::PeriodMin, period),
            (Knob::Balancing, 1),
        ];
        let knobs = Knobs::take(if fast { &values } else { &values[4..] }, mounted)?;
        // Where the settings are locked it would take seconds.
        let shared = fast.then(|| injector.goes_over_shared()).flatten();
        Ok(Self { knobs, fast, shared, sized: None, there: 0 })
    }

    /// Settings for these processes and this period, as often as that is of use.
    ///
    /// # Errors
    /// When the kernel does not let us any more.
    pub fn follow<'a>(
        &mut self,
        processes: impl Iterator<Item = &'a Scanned> + Clone,
        every: Duration,
    ) -> Result<()> {
        if processes.clone().next().is_none() {
            return Ok(());
        }
        let young = processes.clone().any(|process| process.young > 0);
        if self.fast {
            self.knobs.set(Knob::Delay, if young { YOUNG_DELAY_MS } else { DELAY_MS })?;
        }
        if self.sized.is_some_and(|at| at.elapsed() < SIZE_EVERY) {
            return Ok(());
        }
        self.sized = Some(Instant::now());
        let sizes = processes.map(|of| (of.there(), size_mb(of.small, of.all, of.there())));
        let (there, size) = sizes.fold((0, 1), |(sum, most), (there, size)| (sum + there, most.max(size)));
        if std::mem::replace(&mut self.there, there) != there {
            settle_new_pages();
        }
        if self.fast {
            let period = period_ms(every);
            self.knobs.set(Knob::PeriodMax, period)?;
            self.knobs.set(Knob::PeriodMin, period)?;
            self.knobs.set(Knob::ScanSize, size)?;
        }
        Ok(())
    }

    /// What is changed, in words.
    pub fn words(&self) -> String {
        let words = self.knobs.words();
        if self.fast {
            format!("{words}, more as the targets grow")
        } else {
            format!("{words}; its other settings are locked: resets come every second or more")
        }
    }

    /// Puts the settings back.
    ///
    /// # Errors
    /// When that fails.
    pub fn end(self) -> Result<()> {
        self.knobs.restore()
    }
}

/// Has pages that are new put in order: until then a processor keeps a reference to the last few that it made, and kernels
/// up to 6.2 go over no page with a second reference. It is what `migrate_pages` begins with; there is nothing to migrate.
#[allow(unsafe_code)]
fn settle_new_pages() {
    let node = 1u64;
    // SAFETY: numbers, and two masks of 64 bits that outlive the call. Where it is refused, some pages are not seen.
    unsafe { libc::syscall(libc::SYS_migrate_pages, 0, 64, &raw const node, &raw const node) };
}

/// The kernel adds two ticks, and more for large processes.
fn period_ms(every: Duration) -> u64 {
    (every.as_millis() as u64).clamp(1, 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_holds_all_that_is_there() {
        // One small mapping of 4 MB.
        assert_eq!(size_mb(4 * MB, 4 * MB, 3 * MB), 5);
        // 64 GB of addresses, 1 GB of memory: an eighth of the addresses at least, up to where it matters.
        assert_eq!(size_mb(0, 64 << 30, 1 << 30), LARGEST);
        assert_eq!(size_mb(2 * MB, 1 << 30, 40 * MB), 129);
        assert_eq!(size_mb(0, 0, 0), 1);
    }

    #[test]
    fn the_shortest_period_is_a_millisecond() {
        assert_eq!(period_ms(Duration::from_micros(100)), 1);
        assert_eq!(period_ms(Duration::from_millis(20)), 20);
    }
}
