//! The faults of one's own threads, each as a record: what the kernel shows to whoever owns them, without any privilege.

#![allow(unsafe_code)]

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::{
    Attr, Buffer, EXCLUDE_CALLCHAIN_KERNEL, EXCLUDE_KERNEL, INHERIT, INHERIT_THREAD, LIVES, MMAP_DATA,
    REGISTERS, Record, SAMPLE_CALLCHAIN, SAMPLE_OF_FAULT, SAMPLE_REGS_USER, SAMPLE_STACK_USER, Software,
    WATERMARK, online, open,
};

/// include/uapi/linux/perf_event.h
const IOC_DISABLE: libc::c_ulong = 0x2401;
const IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
const IOC_ID: libc::c_ulong = 0x8008_2407;

/// The least that a ring can be, bytes.
const LEAST: usize = 32 << 10;

/// What is recorded of the faults of a kind. All of them are counted.
#[derive(Debug, Clone, Copy)]
pub struct Recording {
    /// One in so many, of each thread on each processor; none: 0.
    pub period: u64,
    /// With the chain of calls.
    pub calls: bool,
    /// And so much of the stack, bytes, with the registers that a walk begins with: a multiple of 8 below 64 KiB, or 0.
    pub stack: u32,
}

impl Recording {
    /// All of them.
    pub const EACH: Self = Self { period: 1, calls: false, stack: 0 };
    /// None.
    pub const NONE: Self = Self { period: 0, calls: false, stack: 0 };
}

/// A ring for each processor, and the events that write to it.
#[derive(Debug)]
pub struct Sampler {
    rings: Vec<(i32, Buffer)>,
    wake: OwnedFd,
    minor: Recording,
    major: Recording,
    events: Vec<(Software, File)>,
    majors: HashSet<u64>,
    /// Faults taken in kernel mode are seen, too.
    kernel: bool,
}

impl Sampler {
    /// Rings of so many bytes in all, or as many as a user may lock. A thread takes two descriptors for each
    /// processor: raise the limit before.
    ///
    /// # Errors
    /// When the kernel allows no event at all, or memory for none.
    pub fn new(bytes: usize, minor: Recording, major: Recording) -> Result<Self> {
        let processors = online()?;
        let mut each = (bytes / processors.len().max(1)).next_power_of_two().max(LEAST);
        let rings = loop {
            match rings(&processors, each) {
                Ok(rings) => break rings,
                // That much memory a user may not lock.
                Err(Errno::EPERM | Errno::ENOMEM | Errno::EAGAIN) if each > LEAST => each /= 2,
                Err(error) => return Err(io::Error::from(error)).context("cannot record page faults"),
            }
        };
        // SAFETY: a number, and a descriptor that nobody else has.
        let wake = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            Errno::result(fd).map_err(io::Error::from)?;
            OwnedFd::from_raw_fd(fd)
        };
        for (_, ring) in &rings {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            let (epoll, fd) = (wake.as_raw_fd(), ring.event().as_raw_fd());
            // SAFETY: two open descriptors and an event that outlives the call.
            let added = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
            Errno::result(added).map_err(io::Error::from)?;
        }
        Ok(Self { rings, wake, minor, major, events: vec![], majors: HashSet::new(), kernel: true })
    }

    /// Records the faults of a thread from now on, those of the threads that it will make, and with `tree` of the
    /// processes.
    ///
    /// # Errors
    /// The kernel's, when the thread is not ours or there are too many events.
    pub fn follow(&mut self, tid: i32, tree: bool) -> io::Result<()> {
        for event in [Software::MinorFaults, Software::MajorFaults] {
            for index in 0..self.rings.len() {
                let opened = match self.open(event, tid, tree, index) {
                    // What happens in the kernel is not for everybody (kernel.perf_event_paranoid).
                    Err(error) if self.kernel && self.events.is_empty() && is_refusal(&error) => {
                        self.kernel = false;
                        self.open(event, tid, tree, index)?
                    }
                    opened => opened?,
                };
                self.events.push((event, opened));
            }
        }
        Ok(())
    }

    fn open(&mut self, event: Software, tid: i32, tree: bool, ring: usize) -> io::Result<File> {
        let (cpu, ring) = &self.rings[ring];
        let recording = if let Software::MajorFaults = event { self.major } else { self.minor };
        let mut attr = Attr { sample_period: recording.period, ..Attr::recording(event) };
        attr.sample_type = SAMPLE_OF_FAULT | if recording.calls { SAMPLE_CALLCHAIN } else { 0 };
        if recording.stack > 0 {
            attr.sample_type |= SAMPLE_REGS_USER | SAMPLE_STACK_USER;
            (attr.sample_regs_user, attr.sample_stack_user) = (REGISTERS, recording.stack);
        }
        attr.flags |= INHERIT;
        attr.flags |= if tree { 0 } else { INHERIT_THREAD };
        attr.flags |= if self.kernel { 0 } else { EXCLUDE_KERNEL | EXCLUDE_CALLCHAIN_KERNEL };
        if let Software::MinorFaults = event {
            attr.flags |= LIVES | MMAP_DATA;
        }
        let event_fd = open(&attr, tid, *cpu)?;
        let (fd, to) = (event_fd.as_raw_fd(), ring.event().as_raw_fd());
        let mut id = 0u64;
        // SAFETY: open descriptors, and a number to be filled.
        unsafe {
            Errno::result(libc::ioctl(fd, IOC_SET_OUTPUT, to))?;
            Errno::result(libc::ioctl(fd, IOC_ID, &raw mut id))?;
        }
        if let Software::MajorFaults = event {
            self.majors.insert(id);
        }
        Ok(File::from(event_fd))
    }

    /// Whether an event is of major faults.
    pub fn is_major(&self, event: u64) -> bool {
        self.majors.contains(&event)
    }

    /// Whether each fault is to be recorded, not only counted.
    pub fn records_each(&self) -> bool {
        self.minor.period == 1 && self.major.period == 1
    }

    /// Whether faults are seen that a thread takes in kernel mode.
    pub fn sees_kernel(&self) -> bool {
        self.kernel
    }

    /// Becomes readable when a ring is filled to a quarter.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Takes all records that are there.
    pub fn drain(&self, records: &mut Vec<Record>) {
        self.rings.iter().for_each(|(_, ring)| ring.drain(records));
    }

    /// Records nothing more.
    pub fn stop(&self) {
        for (_, event) in &self.events {
            // SAFETY: an open descriptor. What cannot be stopped ends with it.
            unsafe { libc::ioctl(event.as_raw_fd(), IOC_DISABLE, 0) };
        }
    }

    /// How many faults there were, recorded or not: minor, and major ones.
    ///
    /// # Errors
    /// When an event cannot be read.
    pub fn count(&self) -> io::Result<(u64, u64)> {
        let (mut minor, mut major) = (0, 0);
        for (of, event) in &self.events {
            let (mut event, mut bytes): (&File, _) = (event, [0; 8]);
            event.read_exact(&mut bytes)?;
            let sum = if let Software::MajorFaults = of { &mut major } else { &mut minor };
            *sum += u64::from_ne_bytes(bytes);
        }
        Ok((minor, major))
    }
}

/// Whether it is permission that lacks.
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// The rings belong to events of our own on which nothing happens: they outlive whatever thread is followed.
fn rings(processors: &[i32], bytes: usize) -> Result<Vec<(i32, Buffer)>, Errno> {
    let mut attr = Attr::recording(Software::Nothing);
    attr.flags |= EXCLUDE_KERNEL | WATERMARK;
    attr.wakeup_events = (bytes / 4) as u32;
    let ring = |&cpu: &i32| {
        let buffer = open(&attr, 0, cpu).and_then(|event| Buffer::new(event, bytes));
        Ok((cpu, buffer.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?))
    };
    processors.iter().map(ring).collect()
}
