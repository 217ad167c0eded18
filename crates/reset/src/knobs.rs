//! The kernel's settings of NUMA balancing: changed while we trace, and put back.
//!
//! They are the machine's, not a process's. What they were is in a file under /run before the first is changed, so that
//! the next tracer or the doctor can put them back if this one is killed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use trapline_symbols::machine;

use super::lock::RUN_DIR;

const STATE: &str = "/run/trapline/access.knobs";
const DEBUG_FS: &str = "/sys/kernel/debug";

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knob {
    /// 1: on.
    Balancing,
    /// What one piece of work goes over, MB. Never 0: the kernel divides by it in the timer's interrupt.
    ScanSize,
    /// From one piece of work to the next, ms.
    PeriodMin,
    /// The same, where the kernel finds no reason to hurry.
    PeriodMax,
    /// Before a new mapping or process is looked at, ms.
    Delay,
}

/// The switch last: nothing begins before the others are set.
const ALL: &[Knob] = &[Knob::Delay, Knob::ScanSize, Knob::PeriodMax, Knob::PeriodMin, Knob::Balancing];

impl Knob {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Balancing => "kernel.numa_balancing",
            Self::ScanSize => "scan_size_mb",
            Self::PeriodMin => "scan_period_min_ms",
            Self::PeriodMax => "scan_period_max_ms",
            Self::Delay => "scan_delay_ms",
        }
    }

    /// Where it is: in debugfs since 5.13, among the sysctls before.
    fn path(self) -> String {
        if self == Self::Balancing {
            return "/proc/sys/kernel/numa_balancing".into();
        }
        let old = format!("/proc/sys/kernel/numa_balancing_{}", self.name());
        if Path::new(&old).exists() {
            old
        } else {
            format!("{DEBUG_FS}/sched/numa_balancing/{}", self.name())
        }
    }

    fn read(self) -> io::Result<u64> {
        let text = fs::read_to_string(self.path())?;
        text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn write(self, value: u64) -> io::Result<()> {
        if self == Self::ScanSize && value == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        OpenOptions::new().write(true).open(self.path())?.write_all(value.to_string().as_bytes())
    }

    /// Whether we may change it.
    pub fn is_open(self) -> io::Result<()> {
        OpenOptions::new().read(true).write(true).open(self.path()).map(|_| ())
    }
}

/// Mounts the file system that holds them if it is nowhere. Tells whether it did.
pub fn mount_debugfs() -> bool {
    !Path::new(DEBUG_FS).join("sched").exists()
        && !machine::is_mounted("debugfs")
        && mount(Some("debugfs"), DEBUG_FS, Some("debugfs"), MsFlags::empty(), Some("mode=0700")).is_ok()
}

/// Settings that are changed; put back at the latest when it is dropped.
#[derive(Debug)]
pub struct Knobs {
    /// What they were.
    before: Vec<(Knob, u64)>,
    /// What they are.
    now: Vec<(Knob, u64)>,
    mounted: bool,
}

impl Knobs {
    /// Notes what they are, and sets them. `mounted`: the file system they are in had to be. To be called by the holder
    /// of the lock.
    ///
    /// # Errors
    /// When one cannot be read or changed; none is changed then.
    pub fn take(values: &[(Knob, u64)], mounted: bool) -> Result<Self> {
        let mut before = Vec::new();
        for knob in ALL.iter().filter(|knob| values.iter().any(|(k, _)| k == *knob)) {
            before.push((*knob, knob.read().with_context(|| format!("cannot read {}", knob.name()))?));
        }
        note(&before)?;
        let mut knobs = Self { now: before.clone(), before, mounted };
        for (knob, _) in knobs.before.clone() {
            if let Some(&(_, value)) = values.iter().find(|(k, _)| *k == knob) {
                // Its other bits are other sorts of balancing.
                let value = if knob == Knob::Balancing { value | knobs.value(knob) } else { value };
                knobs.set(knob, value)?;
            }
        }
        Ok(knobs)
    }

    fn value(&self, knob: Knob) -> u64 {
        self.now.iter().find(|(k, _)| *k == knob).map_or(0, |&(_, value)| value)
    }

    /// Changes one that was taken; another is left alone.
    ///
    /// # Errors
    /// When the kernel takes no such value.
    pub fn set(&mut self, knob: Knob, value: u64) -> Result<()> {
        let Some((_, now)) = self.now.iter_mut().find(|(k, _)| *k == knob) else { return Ok(()) };
        if *now != value {
            knob.write(value).with_context(|| format!("cannot set {} to {value}", knob.name()))?;
            *now = value;
        }
        Ok(())
    }

    /// What is changed, in words.
    pub fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        if self.mounted {
            words.push(format!("mounted debugfs at {DEBUG_FS}"));
        }
        let pairs = self.before.iter().zip(&self.now).filter(|(before, now)| before != now);
        words.extend(pairs.map(|((knob, from), (_, to))| format!("{} {from} to {to}", knob.name())));
        words.join(", ")
    }

    /// Puts them back.
    ///
    /// # Errors
    /// When one cannot be written, or the file not be removed.
    pub fn restore(mut self) -> Result<()> {
        self.before.clear();
        restore().map(|_| ())
    }
}

impl Drop for Knobs {
    fn drop(&mut self) {
        if !self.before.is_empty() {
            // Where it matters restore() is called and its error is heard; the file stays if this fails.
            let _ = restore();
        }
    }
}

/// Writes down what they are, whole or not at all.
fn note(values: &[(Knob, u64)]) -> Result<()> {
    let text: String = values.iter().map(|(knob, value)| format!("{} {value}\n", knob.name())).collect();
    let draft = format!("{RUN_DIR}/access.knobs.new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, STATE))
        .with_context(|| format!("cannot write {STATE}"))
}

fn parse(text: &str) -> Vec<(Knob, u64)> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((*ALL.iter().find(|knob| knob.name() == name)?, value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// What a tracer has changed and not put back yet: names, and what they were.
pub fn left() -> Vec<(&'static str, u64)> {
    let noted = fs::read_to_string(STATE).map(|text| parse(&text)).unwrap_or_default();
    noted.into_iter().map(|(knob, value)| (knob.name(), value)).collect()
}

/// Puts back what a tracer has changed, this one or one that was killed; gives what was not as it had been, and what
/// it is again. To be called by the holder of the lock.
///
/// # Errors
/// When one cannot be written: the others are put back all the same.
pub fn restore() -> Result<Vec<(&'static str, u64)>> {
    let Ok(text) = fs::read_to_string(STATE) else { return Ok(vec![]) };
    let mut changed = Vec::new();
    let mut failed = Ok(());
    // The switch first.
    for (knob, value) in parse(&text).into_iter().rev() {
        if knob.read().is_ok_and(|now| now == value) {
            continue;
        }
        match knob.write(value) {
            Ok(()) => changed.push((knob.name(), value)),
            Err(error) => {
                let context = format!("cannot set {} back to {value}", knob.name());
                failed = Err(anyhow::Error::from(error).context(context));
            }
        }
    }
    failed?;
    fs::remove_file(STATE).with_context(|| format!("cannot remove {STATE}"))?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_what_they_were() {
        assert_eq!(
            parse("scan_size_mb 256\nkernel.numa_balancing 0\nrubbish\n/etc/passwd 7\nscan_delay_ms x\n"),
            [(Knob::ScanSize, 256), (Knob::Balancing, 0)]
        );
    }

    #[test]
    fn a_size_of_nothing_is_never_written() {
        assert_eq!(Knob::ScanSize.write(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
