//! Programs that make a userfaultfd of their own: ours gives way before they can use it. See `bpf/access_own.bpf.h`.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, pipe};
use trapline_symbols::perf::Buffer;
use trapline_symbols::privilege::{self, Keep};

use super::boosted::Boosted;
use super::uffd::{Mode, Uffd};

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
    pub fn gave_way(&self) -> bool {
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

/// The kernel half's list of processes whose memory is held.
pub trait Held: fmt::Debug + Send + Sync {
    /// From now on it asks to be given way to when the process makes a userfaultfd.
    ///
    /// # Errors
    /// When there are too many.
    fn insert(&self, pid: u32) -> Result<()>;

    /// No more; what waits for it in the kernel half goes on.
    fn remove(&self, pid: u32);
}

/// The programs of the kernel half that see a userfaultfd made, attached while this is there.
pub trait Watcher: fmt::Debug + Send {
    /// How many registrations of a program's came before ours was gone.
    fn late(&self) -> u64;
}

/// Which processes are held, here and in the kernel half.
#[derive(Debug)]
struct Register {
    ours: Boosted<HashMap<u32, Arc<Ours>>>,
    held: Box<dyn Held>,
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
        self.held.remove(pid);
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
    pub fn settle(&self) {
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
            self.register.held.remove(self.pid);
        }
    }
}

/// The kernel half that sees programs make a userfaultfd, and the threads that give way.
#[derive(Debug)]
pub struct GiveWay {
    watcher: Box<dyn Watcher>,
    register: Arc<Register>,
    threads: Vec<JoinHandle<()>>,
    /// Closed to end the threads.
    stop: Option<OwnedFd>,
}

impl GiveWay {
    /// Starts a thread on each processor, which gives way when the kernel half writes into that one's buffer.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn begin(watcher: Box<dyn Watcher>, held: Box<dyn Held>, asks: Vec<(i32, Buffer)>) -> Result<Self> {
        let ours = Boosted::new(HashMap::new());
        let register = Arc::new(Register { ours, held, gave_way: Boosted::new(vec![]) });
        let (ended, stop) = pipe().map_err(io::Error::from).context("cannot create a pipe")?;
        let ended = Arc::new(ended);
        let mut threads = Vec::new();
        for (cpu, buffer) in asks {
            let (register, ended) = (Arc::clone(&register), Arc::clone(&ended));
            let thread = Builder::new().name("give-way".into()).stack_size(STACK);
            let attend = move || attend(&buffer, &register, &ended);
            let thread = privilege::spawn(thread, Keep::NOTHING, move || before_all_on(cpu), attend);
            threads.push(thread.context("cannot start a thread")?);
        }
        Ok(Self { watcher, register, threads, stop: Some(stop) })
    }

    /// Holds a process's memory from now on. If it has a userfaultfd of its own it is given way to at once.
    pub(crate) fn hold(&self, pid: u32, uffd: Uffd) -> Result<Hold> {
        let ours = Arc::new(Ours { uffd: Boosted::new(Some(uffd)), gave_way: AtomicBool::new(false) });
        let register = Arc::clone(&self.register);
        register.ours.lock().insert(pid, Arc::clone(&ours));
        let hold = Hold { pid, ours, register };
        hold.register.held.insert(pid)?;
        // One that was made before the kernel half knew of the process.
        if has_userfaultfd(pid) {
            self.register.give_way(pid);
        }
        Ok(hold)
    }

    /// How many registrations of a program's came before ours was gone.
    pub fn late(&self) -> u64 {
        self.watcher.late()
    }

    /// Who was given way to, for another thread to ask.
    pub fn given(&self) -> Given {
        Given(Arc::clone(&self.register))
    }
}

/// Whom ours has given way to.
#[derive(Debug)]
pub struct Given(Arc<Register>);

impl Given {
    /// Those since the last call.
    pub fn take(&self) -> Vec<u32> {
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

/// From now on this thread runs on that processor, before whatever runs there.
fn before_all_on(cpu: i32) {
    let mut only = CpuSet::new();
    // Where we may not choose, the program waits in the kernel half until another processor has done it.
    let _ = only.set(cpu as usize).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    before_all_others();
}

/// The life of a thread: it gives way to whatever runs on its processor.
fn attend(buffer: &Buffer, register: &Register, ended: &OwnedFd) {
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

/// From now on this thread runs before every ordinary one, if we are allowed to ask for that.
#[allow(unsafe_code)]
pub fn before_all_others() {
    // SAFETY: our own thread, and a valid parameter that outlives the call.
    unsafe {
        let highest = libc::sched_get_priority_max(libc::SCHED_FIFO);
        let how = libc::sched_param { sched_priority: highest };
        if libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const how) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        }
    }
}
