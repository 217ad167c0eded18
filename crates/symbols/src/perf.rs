//! The perf software events: stable ABI, the same on every architecture.

#![allow(unsafe_code)]

mod buffer;
mod record;
mod sampler;

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::Context;

pub use self::buffer::Buffer;
#[cfg(any(test, fuzzing))]
pub(crate) use self::record::parse;
pub use self::record::{Calls, Record, What};
use self::record::{
    REGISTERS, SAMPLE_CALLCHAIN, SAMPLE_OF_FAULT, SAMPLE_REGS_USER, SAMPLE_STACK_USER, SAMPLE_TYPE,
};
pub use self::sampler::{Recording, Sampler, is_refusal};

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_FLAG_FD_CLOEXEC: u64 = 8;
/// `perf_event_attr` up to sample_max_stack (PERF_ATTR_SIZE_VER5, include/uapi/linux/perf_event.h, 4.8).
const ATTR_SIZE: u32 = 112;

/// perf_event_attr's bits.
const INHERIT: u64 = 1 << 1;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const MMAP: u64 = 1 << 8;
const COMM: u64 = 1 << 9;
const TASK: u64 = 1 << 13;
const WATERMARK: u64 = 1 << 14;
const MMAP_DATA: u64 = 1 << 17;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const EXCLUDE_CALLCHAIN_KERNEL: u64 = 1 << 21;
const MMAP2: u64 = 1 << 23;
const COMM_EXEC: u64 = 1 << 24;
const USE_CLOCKID: u64 = 1 << 25;
/// Linux 5.13+.
const INHERIT_THREAD: u64 = 1 << 35;
/// Births, names, ends, and what is mapped to be executed, each with its time on a clock of our choice.
const LIVES: u64 = MMAP | COMM | TASK | SAMPLE_ID_ALL | MMAP2 | COMM_EXEC | USE_CLOCKID;

/// A software event.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub enum Software {
    /// PERF_COUNT_SW_PAGE_FAULTS_MIN
    MinorFaults = 5,
    /// PERF_COUNT_SW_PAGE_FAULTS_MAJ
    MajorFaults = 6,
    /// PERF_COUNT_SW_DUMMY
    Nothing = 9,
    /// PERF_COUNT_SW_BPF_OUTPUT
    Output = 10,
}

#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    pad: u16,
}

/// The processors that are online.
fn online() -> anyhow::Result<Vec<i32>> {
    if let Ok(online) = fs::read_to_string("/sys/devices/system/cpu/online") {
        return Ok(parse_list(&online));
    }
    // Without /sys; this file has those that are online, too.
    let stat = fs::read_to_string("/proc/stat").context("cannot read the list of processors")?;
    Ok(of_stat(&stat))
}

/// Opens the event on every processor that is online, for all tasks: it fires at each `period`-th occurrence there.
pub fn open_everywhere(event: Software, period: u64) -> anyhow::Result<Vec<OwnedFd>> {
    let open_on = |cpu| {
        let attr = Attr { sample_period: period, ..Attr::of(event) };
        open(&attr, -1, cpu).with_context(|| format!("perf_event_open({event:?}) on CPU {cpu}"))
    };
    online()?.into_iter().map(open_on).collect()
}

/// Opens a buffer for each processor, in which all processes' births, names, ends and mappings are recorded.
pub fn watch_lives(bytes_each: usize) -> anyhow::Result<Vec<Buffer>> {
    let attr = Attr { flags: LIVES, ..Attr::recording(Software::Nothing) };
    let open_on = |cpu| {
        open(&attr, -1, cpu)
            .and_then(|event| Buffer::new(event, bytes_each))
            .with_context(|| format!("cannot watch what processes map on CPU {cpu}"))
    };
    online()?.into_iter().map(open_on).collect()
}

/// Opens a buffer for each processor, into which programs there write, and which becomes readable at every record.
pub fn outputs() -> anyhow::Result<Vec<(i32, Buffer)>> {
    /// A page: what is written is read at once.
    const BYTES: usize = 4096;
    /// PERF_SAMPLE_RAW
    const RAW: u64 = 1 << 10;
    let attr = Attr { sample_period: 1, sample_type: RAW, wakeup_events: 1, ..Attr::of(Software::Output) };
    let open_on = |cpu| {
        let opened = open(&attr, -1, cpu).and_then(|event| Buffer::new(event, BYTES));
        Ok((cpu, opened.with_context(|| format!("cannot make a buffer of events on CPU {cpu}"))?))
    };
    online()?.into_iter().map(open_on).collect()
}

impl Attr {
    fn of(event: Software) -> Self {
        const { assert!(size_of::<Self>() == ATTR_SIZE as usize) };
        Self { kind: PERF_TYPE_SOFTWARE, size: ATTR_SIZE, config: event as u64, ..Self::default() }
    }

    /// Times are of the same clock as everywhere in trapline.
    fn recording(event: Software) -> Self {
        let clockid = libc::CLOCK_MONOTONIC;
        Self { sample_type: SAMPLE_TYPE, flags: SAMPLE_ID_ALL | USE_CLOCKID, clockid, ..Self::of(event) }
    }
}

/// For one process and one processor, or all of either: -1.
fn open(attr: &Attr, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    // SAFETY: attr is a perf_event_attr of the size it states and outlives the call; the other arguments are numbers.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, std::ptr::from_ref(attr), pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The processors that have a line in /proc/stat.
fn of_stat(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.strip_prefix("cpu")?.split(' ').next()?.parse().ok()).collect()
}

/// The numbers of a list such as `0-3,6`.
fn parse_list(text: &str) -> Vec<i32> {
    text.trim()
        .split(',')
        .filter_map(|part| match part.split_once('-') {
            Some((from, to)) => Some(from.parse().ok()?..=to.parse().ok()?),
            None => part.parse().ok().map(|cpu| cpu..=cpu),
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_processors() {
        assert_eq!(super::parse_list("0-3,6\n"), [0, 1, 2, 3, 6]);
        assert_eq!(super::parse_list("0"), [0]);
        assert_eq!(super::parse_list(""), []);
        assert_eq!(super::of_stat("cpu  9 9\ncpu0 4 4\ncpu12 5 5\nintr 1 cpu3\n"), [0, 12]);
    }
}
