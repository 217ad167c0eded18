//! The symbolizer as trapline sees it: started when it is needed, waited for a limited time, and started anew.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, geteuid};

use super::wire::{self, Reply, Request};
use crate::ending;

/// The processor time that one request may take: the first one about a program with a gigabyte of debug information
/// takes half of it.
const WORK: Duration = Duration::from_secs(2);
/// And the time, also where it waits for a disk, or for other processes.
const WAIT: Duration = Duration::from_secs(6);
/// A function's name is looked for once, before anything begins, and all of a file may have to be gone through for it.
const NAMES: u32 = 10;
/// All requests together may take this long, and a half of what has passed since: rows wait no longer.
const AT_A_STRETCH: Duration = Duration::from_secs(10);
/// After an interrupt: the end is to come within a second.
const AFTER_INTERRUPT: Duration = Duration::from_millis(600);
/// A file of root's, or of the user who runs us, may take this many times as long, also after an interrupt, and its time
/// is not counted: no other user made it what it is, and a slow machine takes longer.
const OWN: u32 = 5;
/// It is not started more often than this in [`AT_A_STRETCH`].
const STARTS: usize = 8;
/// How often processor time and interrupts are looked at while an answer is waited for.
const GLANCE: Duration = Duration::from_millis(50);

/// The processor time of all symbolizers so far, nanoseconds: it is a part of ours.
static WORKED_NS: AtomicU64 = AtomicU64::new(0);

/// The processor time that symbolizers took so far, nanoseconds.
pub fn worked_ns() -> u64 {
    WORKED_NS.load(Ordering::Relaxed)
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The file of the request ended it, or took too long.
    Fault(String),
    /// There is no time left: the same may be asked later.
    Late,
    /// It cannot be started.
    Unavailable(String),
}

/// A process that runs.
struct Running {
    child: Child,
    socket: OwnedFd,
    greeted: bool,
    /// What of its processor time is in [`WORKED_NS`].
    accounted: Duration,
}

/// Starts the symbolizer and asks it.
#[derive(Default)]
pub(crate) struct Client {
    running: Option<Running>,
    /// How many times it was started.
    generation: u64,
    starts: VecDeque<Instant>,
    /// Up to when requests have taken all the time that they may.
    spent_until: Option<Instant>,
    interrupted: Option<Instant>,
    /// What is asked about is a file of root's, or our own.
    own: bool,
    buffer: Vec<u8>,
}

impl Client {
    /// Which of the processes answers now: what one has open the next has not. Starts one if none runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn generation(&mut self) -> Result<u64, Lost> {
        if self.running.is_none() {
            self.check_time()?;
            self.start()?;
        }
        Ok(self.generation)
    }

    /// Says whose file the next requests are about.
    pub(crate) fn owned_by(&mut self, user: u32) {
        self.own = user == 0 || user == geteuid().as_raw();
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When there is none: the process has been ended then.
    pub(crate) fn call(&mut self, request: &Request, file: Option<BorrowedFd<'_>>) -> Result<Reply, Lost> {
        self.generation()?;
        self.check_time()?;
        let began = Instant::now();
        let result = self.greet(began).and_then(|()| self.ask(request, file, began));
        if !self.own {
            let spent = self.spent_until.map_or(began, |until| until.max(began));
            self.spent_until = Some(spent + began.elapsed() * 2);
        }
        if let Some(running) = &mut self.running {
            running.account();
        }
        if result.is_err() {
            self.running = None;
        }
        result
    }

    #[cfg(test)]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    fn check_time(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        let full = !self.own && self.spent_until.is_some_and(|until| until > now + AT_A_STRETCH * 2);
        if full || self.is_interrupted() { Err(Lost::Late) } else { Ok(()) }
    }

    /// Whether an interrupt came so long ago that the end must come now.
    fn is_interrupted(&mut self) -> bool {
        if !ending::is_asked_to_end() {
            return false;
        }
        let since = self.interrupted.get_or_insert_with(Instant::now);
        since.elapsed() > if self.own { AT_A_STRETCH } else { AFTER_INTERRUPT }
    }

    fn start(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        self.starts.retain(|start| now.duration_since(*start) < AT_A_STRETCH);
        if self.starts.len() >= STARTS {
            return Err(Lost::Late);
        }
        self.starts.push_back(now);
        let running = Running::start();
        let why = |error: io::Error| Lost::Unavailable(format!("cannot start the symbolizer: {error}"));
        self.running = Some(running.map_err(why)?);
        self.generation += 1;
        Ok(())
    }

    /// Waits until it has given up its privileges.
    fn greet(&mut self, began: Instant) -> Result<(), Lost> {
        if self.running.as_ref().is_some_and(|running| running.greeted) {
            return Ok(());
        }
        let why = |why: String| Lost::Unavailable(format!("cannot start the symbolizer: {why}"));
        match self.answer(began, 1) {
            Ok(Reply::Done) => {}
            Ok(Reply::Bad(error)) => return Err(why(error)),
            Err(Lost::Fault(error)) => return Err(why(error)),
            Ok(_) => return Err(why("it does not answer".into())),
            Err(lost) => return Err(lost),
        }
        if let Some(running) = &mut self.running {
            running.greeted = true;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
        began: Instant,
    ) -> Result<Reply, Lost> {
        let Some(running) = &self.running else { return Err(Lost::Late) };
        if wire::send(running.socket.as_fd(), request, file).is_err() {
            // It ended in between, and not by this request.
            return Err(Lost::Late);
        }
        let names = matches!(request, Request::Function { .. });
        self.answer(began, if names { NAMES } else { 1 })
    }

    /// Waits for an answer, so many times as long as is usual.
    fn answer(&mut self, began: Instant, times: u32) -> Result<Reply, Lost> {
        let worked = self.running.as_ref().and_then(Running::cpu).unwrap_or_default();
        let times = if self.own { times * OWN } else { times };
        loop {
            let Some(running) = &mut self.running else { return Err(Lost::Late) };
            let mut fds = [PollFd::new(running.socket.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(GLANCE).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => {
                    let work = running.cpu().unwrap_or_default().saturating_sub(worked);
                    if work > WORK * times || began.elapsed() > WAIT * times {
                        return Err(Lost::Fault("reading it takes too long".into()));
                    }
                    if self.is_interrupted() {
                        return Err(Lost::Late);
                    }
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(Lost::Unavailable(format!("cannot wait for the symbolizer: {error}")));
                }
            }
            return match wire::receive(running.socket.as_fd(), &mut self.buffer) {
                Ok(Some((reply, _))) => Ok(reply),
                Ok(None) => Err(Lost::Fault(running.death())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    Err(Lost::Fault(running.death()))
                }
                Err(_) => Err(Lost::Fault("the symbolizer answered nonsense".into())),
            };
        }
    }
}

impl Running {
    fn start() -> io::Result<Self> {
        let (ours, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(super::NAME).env_clear().current_dir("/");
        command.stdin(Stdio::from(its)).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: setsid is async-signal-safe, and changes only the child.
        unsafe {
            command.pre_exec(|| {
                // Ctrl-C in our terminal is not for it.
                nix::unistd::setsid()?;
                Ok(())
            })
        };
        Ok(Self { child: command.spawn()?, socket: ours, greeted: false, accounted: Duration::ZERO })
    }

    /// Processor time so far.
    fn cpu(&self) -> Option<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id() as i32)).ok()?;
        Some(Duration::from_nanos(clock_gettime(clock).ok()?.num_nanoseconds() as u64))
    }

    fn account(&mut self) {
        let cpu = self.cpu().unwrap_or(self.accounted);
        let more = cpu.saturating_sub(std::mem::replace(&mut self.accounted, cpu));
        WORKED_NS.fetch_add(more.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Why it ended: it has closed its socket.
    fn death(&mut self) -> String {
        let _ = self.child.kill();
        let signal = self.child.wait().ok().and_then(|status| status.signal());
        match signal.and_then(|signal| Signal::try_from(signal).ok()) {
            Some(Signal::SIGBUS) => {
                "it was truncated, or could not be read, while the symbolizer read it".into()
            }
            Some(Signal::SIGABRT) => "the symbolizer ran out of memory over it".into(),
            Some(signal) => format!("the symbolizer died of {signal} over it"),
            None => "the symbolizer ended over it".into(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("generation", &self.generation).finish_non_exhaustive()
    }
}
