//! Programs that make a userfaultfd of their own: ours gives way before they can use it. See `bpf/access_own.bpf.h`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, pipe};
use trapline_symbols::perf;

use super::boosted::Boosted;
use super::probes::OBJECT;
use super::uffd::{Mode, Uffd};
use crate::system;
use crate::variant::{self, Attached, OpenError, Recipe, Variant};

const VARIANTS: &[Variant] = &[Variant {
    name: "own",
    ways: &[&["own_made", "own_made_by_device", "own_registers"], &["own_called"]],
}];

/// A thread waits, and closes a descriptor, bytes.
const STACK: usize = 64 << 10;

/// A userfaultfd of ours over a process's memory. It is gone once the process has shown that it has one of its own.
#[derive(Debug)]
pub(crate) struct Ours {
    uffd: Boosted<Option<Uffd>>,
    gave_way: AtomicBool,
}

impl Ours {
    /// Whether the process has one of its own, for which this one was closed.
    pub(crate) fn gave_way(&self) -> bool {
        self.gave_way.load(Ordering::Acquire)
    }

    fn give_way(&self) {
        // First: nobody takes the closed one for one that failed.
        self.gave_way.store(true, Ordering::Release);
        // The kernel lets go of the memory before the call that closes it returns.
        drop(self.uffd.lock().take());
    }

    fn with<T>(&self, call: impl FnOnce(&Uffd) -> io::Result<T>) -> io::Result<T> {
        self.uffd.lock().as_ref().map_or_else(|| Err(Errno::EBADF.into()), call)
    }

    /// See [`Uffd::register`]. Where another one has the memory, this one gives way to it.
    pub(crate) fn register(&self, start: u64, end: u64, mode: Mode) -> io::Result<()> {
        let done = self.with(|uffd| uffd.register(start, end, mode));
        if done.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            self.give_way();
        }
        done
    }

    /// See [`Uffd::unregister`].
    pub(crate) fn unregister(&self, start: u64, end: u64) -> io::Result<()> {
        self.with(|uffd| uffd.unregister(start, end))
    }

    /// See [`Uffd::protect_accesses`].
    pub(crate) fn protect_accesses(&self, start: u64, end: u64) -> io::Result<()> {
        self.with(|uffd| uffd.protect_accesses(start, end))
    }
}

/// Which processes are held, here and in the kernel half.
#[derive(Debug)]
struct Register {
    ours: Boosted<HashMap<u32, Arc<Ours>>>,
    held: MapHandle,
    /// Those that were given way to since that was last asked.
    gave_way: Boosted<Vec<u32>>,
}

impl Register {
    fn give_way(&self, pid: u32) {
        let ours = self.ours.lock().remove(&pid);
        if let Some(ours) = ours {
            self.gave_way.lock().push(pid);
            ours.give_way();
        }
        // What waits for it in the kernel half goes on.
        let _ = self.held.delete(&pid.to_ne_bytes());
    }
}

/// A process that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    pid: u32,
    pub(crate) ours: Arc<Ours>,
    register: Arc<Register>,
}

impl Hold {
    /// Where memory could not be registered because the process has it under its own.
    pub(crate) fn settle(&self) {
        if self.ours.gave_way() {
            self.register.give_way(self.pid);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.register.ours.lock();
        if all.get(&self.pid).is_some_and(|of| Arc::ptr_eq(of, &self.ours)) {
            all.remove(&self.pid);
            drop(all);
            drop(self.ours.uffd.lock().take());
            let _ = self.register.held.delete(&self.pid.to_ne_bytes());
        }
    }
}

/// The kernel half that sees programs make a userfaultfd, and the threads that give way.
#[derive(Debug)]
pub(crate) struct GiveWay {
    attached: Attached,
    register: Arc<Register>,
    threads: Vec<JoinHandle<()>>,
    /// Closed to end the threads.
    stop: Option<OwnedFd>,
}

impl GiveWay {
    /// Attaches, and starts a thread on each processor.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn begin() -> Result<Self, OpenError> {
        let attached = variant::open(&Own, None)?;
        let held = attached.handle("held")?;
        let asks = attached.handle("asks")?;
        let ours = Boosted::new(HashMap::new());
        let register = Arc::new(Register { ours, held, gave_way: Boosted::new(vec![]) });
        let (ended, stop) = pipe().map_err(io::Error::from).context("cannot make a pipe")?;
        let ended = Arc::new(ended);
        let mut threads = Vec::new();
        for (cpu, buffer) in perf::outputs()? {
            let key = (cpu as u32).to_ne_bytes();
            let fd = buffer.event().as_raw_fd().to_ne_bytes();
            asks.update(&key, &fd, MapFlags::ANY).context("cannot set a buffer of events")?;
            let (register, ended) = (Arc::clone(&register), Arc::clone(&ended));
            let thread = std::thread::Builder::new().name("give-way".into()).stack_size(STACK);
            let thread = thread.spawn(move || attend(cpu, &buffer, &register, &ended));
            threads.push(thread.context("cannot start a thread")?);
        }
        Ok(Self { attached, register, threads, stop: Some(stop) })
    }

    /// Holds a process's memory from now on. If it has a userfaultfd of its own it is given way to at once.
    pub(crate) fn hold(&self, pid: u32, uffd: Uffd) -> Result<Hold> {
        let ours = Arc::new(Ours { uffd: Boosted::new(Some(uffd)), gave_way: AtomicBool::new(false) });
        let register = Arc::clone(&self.register);
        register.ours.lock().insert(pid, Arc::clone(&ours));
        let hold = Hold { pid, ours, register };
        hold.register
            .held
            .update(&pid.to_ne_bytes(), &[1], MapFlags::ANY)
            .context("too many processes are under a userfaultfd")?;
        // One that was made before the kernel half knew of the process.
        if has_userfaultfd(pid) {
            self.register.give_way(pid);
        }
        Ok(hold)
    }

    /// How many registrations of a program's came before ours was gone.
    pub(crate) fn late(&self) -> u64 {
        self.attached.read(".bss.late").unwrap_or(0)
    }

    /// Who was given way to, for another thread to ask.
    pub(crate) fn given(&self) -> Given {
        Given(Arc::clone(&self.register))
    }
}

/// Whom ours has given way to.
#[derive(Debug)]
pub(crate) struct Given(Arc<Register>);

impl Given {
    /// Those since the last call.
    pub(crate) fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *self.0.gave_way.lock())
    }
}

impl Drop for GiveWay {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The life of a thread: it runs before whatever runs on its processor, and gives way to it.
fn attend(cpu: i32, buffer: &perf::Buffer, register: &Register, ended: &OwnedFd) {
    let mut only = CpuSet::new();
    // Where we may not choose, the program waits in the kernel half until another processor has done it.
    let _ = only.set(cpu as usize).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    system::before_all_others();
    loop {
        let mut fds =
            [PollFd::new(buffer.event(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        // Told to end, or the processor is taken away: with this priority nothing may be tried again and again.
        let [asked, ended] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
        if !ended.is_empty() || !PollFlags::POLLIN.contains(asked) {
            return;
        }
        buffer.each(|record| {
            // Behind the head its length, then what the kernel half wrote: a process.
            let pid = record.get(12..16).and_then(|bytes| bytes.try_into().ok());
            if let Some(pid) = pid {
                register.give_way(u32::from_ne_bytes(pid));
            }
        });
    }
}

/// Whether the process has a userfaultfd open.
fn has_userfaultfd(pid: u32) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[userfaultfd]"))
}

/// The programs that see a userfaultfd made.
struct Own;

impl Recipe for Own {
    fn object(&self) -> &'static [u8] {
        OBJECT
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn always(&self) -> Vec<&'static str> {
        vec![]
    }

    fn optional(&self) -> Vec<&'static str> {
        vec![]
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        // What is for the lives of processes is not needed here.
        for mut map in object.maps_mut() {
            if matches!(map.name().to_str(), Some("pids" | "targets")) {
                map.set_max_entries(1)?;
            }
        }
        Ok(())
    }
}
