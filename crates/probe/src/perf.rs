//! The perf software events: stable ABI, the same on every architecture.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_FLAG_FD_CLOEXEC: u64 = 8;
/// `perf_event_attr` up to its first published size (PERF_ATTR_SIZE_VER0, include/uapi/linux/perf_event.h).
const ATTR_SIZE: u32 = 64;

/// A software event.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(crate) enum Software {
    /// PERF_COUNT_SW_PAGE_FAULTS_MIN
    MinorFaults = 5,
    /// PERF_COUNT_SW_PAGE_FAULTS_MAJ
    MajorFaults = 6,
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
}

/// Opens the event on every processor that is online, for all tasks: it fires at each `period`-th occurrence there.
pub(crate) fn open_everywhere(event: Software, period: u64) -> anyhow::Result<Vec<OwnedFd>> {
    let online =
        fs::read_to_string("/sys/devices/system/cpu/online").context("cannot read the list of processors")?;
    parse_list(&online)
        .into_iter()
        .map(|cpu| {
            open(event, period, cpu).with_context(|| format!("perf_event_open({event:?}) on CPU {cpu}"))
        })
        .collect()
}

fn open(event: Software, period: u64, cpu: i32) -> io::Result<OwnedFd> {
    const { assert!(size_of::<Attr>() == ATTR_SIZE as usize) };
    let attr = Attr {
        kind: PERF_TYPE_SOFTWARE,
        size: ATTR_SIZE,
        config: event as u64,
        sample_period: period,
        ..Attr::default()
    };
    // SAFETY: attr is a perf_event_attr of the size it states and outlives the call; the other arguments are numbers.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a program to events; the links keep the descriptors.
pub(crate) fn attach(
    program: &libbpf_rs::ProgramMut<'_>,
    events: Vec<OwnedFd>,
) -> anyhow::Result<Vec<libbpf_rs::Link>> {
    events
        .into_iter()
        .map(|event| {
            let link = program.attach_perf_event(event.as_raw_fd())?;
            // The link owns the descriptor from here on, and closes it.
            let _ = std::os::fd::IntoRawFd::into_raw_fd(event);
            Ok(link)
        })
        .collect()
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
    }
}
