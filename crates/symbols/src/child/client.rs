//! The symbolizer as trapline sees it: started when it is needed, waited for a limited time, and started anew.

#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
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
/// All requests about one user's files may take this long together, and a half of what has passed since: the rest of the
/// symbolizer's time is the others'.
const AT_A_STRETCH: Duration = Duration::from_secs(10);
/// After an interrupt: the end is to come within a second.
const AFTER_INTERRUPT: Duration = Duration::from_millis(250);
/// A file of root's, or of the user who runs us, may take this many times as long, and its time is not counted: no other
/// user made it what it is, and a slow machine takes longer.
const OWN: u32 = 5;
/// It is not started more often than this in [`AT_A_STRETCH`].
const STARTS: usize = 8;
/// So many answers are kept that came while something else was asked for.
const LANDED: usize = 64;
/// Of so many users it is known how much of its time they have used.
const USERS: usize = 1024;
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

/// What tells requests apart: of one that opens something, only what.
type Question = Vec<u8>;

/// A request that the symbolizer has, and has not answered yet.
struct Flight {
    question: Question,
    began: Instant,
    /// The processor time that it had taken before.
    worked: Duration,
    /// How many times as long as is usual it may take.
    times: u32,
    /// Whose file it is about.
    owner: u32,
}

/// Starts the symbolizer and asks it.
///
/// A request is waited for until a moment at most. Then it stays under way: whoever asks the same again later gets the answer.
#[derive(Default)]
pub(crate) struct Client {
    running: Option<Running>,
    flight: Option<Flight>,
    /// Answers that came while something else was asked for, the newest last.
    landed: VecDeque<(Question, Result<Reply, Lost>)>,
    /// Up to when an answer is waited for, and how much longer where a file is root's or our own; nothing: as long as a request
    /// may take.
    until: Option<(Instant, Duration)>,
    /// How many times it was started.
    generation: u64,
    starts: VecDeque<Instant>,
    /// Up to when requests about a user's files have taken all the time that they may.
    spent_until: HashMap<u32, Instant>,
    interrupted: Option<Instant>,
    /// Whose file is asked about.
    owner: u32,
    /// How many requests were sent.
    sent: u64,
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
        self.owner = user;
    }

    /// Answers are waited for until then; what has not come is [`Lost::Late`], and may be asked again.
    pub(crate) fn wait_until(&mut self, until: Option<Instant>) {
        self.until = until.map(|until| (until, Duration::ZERO));
    }

    /// Answers are waited for this long, and [`OWN`] times as long where a file is root's or our own.
    pub(crate) fn wait_for(&mut self, time: Duration) {
        self.until = Some((Instant::now() + time, time * (OWN - 1)));
    }

    /// How many requests were sent up to now.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits for the answer to what is under way. Tells whether it has come; nothing if nothing is.
    pub(crate) fn wait(&mut self) -> Option<bool> {
        self.flight.as_ref()?;
        let _ = self.land();
        Some(self.flight.is_none())
    }

    /// Whether a request is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.flight.is_some()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When there is none (yet). After a [`Lost::Fault`] the process has been ended.
    pub(crate) fn call(&mut self, request: &Request, file: Option<BorrowedFd<'_>>) -> Result<Reply, Lost> {
        let question = question(request);
        loop {
            if let Some(at) = self.landed.iter().position(|(of, _)| *of == question)
                && let Some((_, answer)) = self.landed.remove(at)
            {
                return answer;
            }
            if self.flight.is_some() {
                self.land()?;
                continue;
            }
            self.generation()?;
            self.check_time()?;
            if self.running.as_ref().is_some_and(|running| !running.greeted) {
                self.flight = Some(self.flight_of(Question::new(), 1));
                continue;
            }
            let Some(running) = &self.running else { return Err(Lost::Late) };
            if wire::send(running.socket.as_fd(), request, file).is_err() {
                // It ended in between, and not by this request.
                self.end();
                return Err(Lost::Late);
            }
            self.sent += 1;
            let names = matches!(request, Request::Function { .. });
            self.flight = Some(self.flight_of(question.clone(), if names { NAMES } else { 1 }));
        }
    }

    #[cfg(test)]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    fn flight_of(&self, question: Question, times: u32) -> Flight {
        let worked = self.running.as_ref().and_then(Running::cpu).unwrap_or_default();
        let times = if is_own(self.owner) { times * OWN } else { times };
        Flight { question, began: Instant::now(), worked, times, owner: self.owner }
    }

    /// Waits until what is under way is answered, or cannot be any more.
    fn land(&mut self) -> Result<(), Lost> {
        let Some(answer) = self.answer()? else { return Err(Lost::Late) };
        let Some(flight) = self.flight.take() else { return Ok(()) };
        if !is_own(flight.owner) {
            if self.spent_until.len() >= USERS {
                let now = Instant::now();
                self.spent_until.retain(|_, until| *until > now);
            }
            let spent = self.spent_until.entry(flight.owner).or_insert(flight.began);
            *spent = (*spent).max(flight.began) + flight.began.elapsed() * 2;
        }
        if let Some(running) = &mut self.running {
            running.account();
        }
        if answer.is_err() {
            self.end();
        }
        if flight.question.is_empty() {
            return self.greeted(answer);
        }
        if self.landed.len() >= LANDED {
            self.landed.pop_front();
        }
        self.landed.push_back((flight.question, answer));
        Ok(())
    }

    /// Ends the process: what it had open is nowhere any more.
    fn end(&mut self) {
        self.running = None;
        self.flight = None;
        self.landed.retain(|(_, answer)| answer.is_err());
    }

    fn check_time(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        let spent = self.spent_until.get(&self.owner).filter(|_| !is_own(self.owner));
        let full = spent.is_some_and(|until| *until > now + AT_A_STRETCH * 2);
        if full || self.is_interrupted() { Err(Lost::Late) } else { Ok(()) }
    }

    /// Whether an interrupt came so long ago that the end must come now, whosever file it is: what is not known by then
    /// is not waited for.
    fn is_interrupted(&mut self) -> bool {
        if !ending::is_asked_to_end() {
            return false;
        }
        self.interrupted.get_or_insert_with(Instant::now).elapsed() > AFTER_INTERRUPT
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

    /// It says whether it has given up its privileges before it is asked anything.
    fn greeted(&mut self, answer: Result<Reply, Lost>) -> Result<(), Lost> {
        let why = |why: String| Lost::Unavailable(format!("cannot start the symbolizer: {why}"));
        match answer {
            Ok(Reply::Done) => {
                if let Some(running) = &mut self.running {
                    running.greeted = true;
                }
                Ok(())
            }
            Ok(Reply::Bad(error)) | Err(Lost::Fault(error)) => {
                self.end();
                Err(why(error))
            }
            Ok(_) => {
                self.end();
                Err(why("it does not answer".into()))
            }
            Err(lost) => Err(lost),
        }
    }

    /// The answer to what is under way: nothing if it has not come in time.
    fn answer(&mut self) -> Result<Option<Result<Reply, Lost>>, Lost> {
        loop {
            let (Some(running), Some(flight)) = (&mut self.running, &self.flight) else {
                self.flight = None;
                return Err(Lost::Late);
            };
            let mut fds = [PollFd::new(running.socket.as_fd(), PollFlags::POLLIN)];
            let more = u32::from(is_own(flight.owner));
            let until = self.until.map(|(until, own)| until + own * more);
            let left = until.map_or(GLANCE, |until| until.saturating_duration_since(Instant::now()));
            let timeout = left.min(GLANCE).as_micros().div_ceil(1000);
            match poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => {
                    let work = running.cpu().unwrap_or_default().saturating_sub(flight.worked);
                    if work > WORK * flight.times || flight.began.elapsed() > WAIT * flight.times {
                        return Ok(Some(Err(Lost::Fault("reading the file takes too long".into()))));
                    }
                    if self.is_interrupted() || until.is_some_and(|until| Instant::now() >= until) {
                        return Ok(None);
                    }
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    let why = format!("cannot wait for the symbolizer: {error}");
                    return Ok(Some(Err(Lost::Unavailable(why))));
                }
            }
            return Ok(Some(match wire::receive(running.socket.as_fd(), &mut self.buffer) {
                Ok(Some((reply, _))) => Ok(reply),
                Ok(None) => Err(Lost::Fault(running.death())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    Err(Lost::Fault(running.death()))
                }
                Err(_) => Err(Lost::Fault("malformed reply of the symbolizer".into())),
            }));
        }
    }
}

/// A file of root's, or of the user who runs us.
fn is_own(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}

fn question(request: &Request) -> Question {
    // A file that has grown meanwhile is the same.
    match request {
        Request::Open { id, lines, .. } => [&b"open"[..], &[u8::from(*lines)], &id.to_ne_bytes()].concat(),
        Request::Map { id, .. } => [&b"map"[..], &id.to_ne_bytes()].concat(),
        other => postcard::to_stdvec(other).unwrap_or_default(),
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
                "the file was truncated or unreadable while the symbolizer read it".into()
            }
            Some(Signal::SIGABRT) => "the symbolizer ran out of memory on this file".into(),
            Some(signal) => format!("the symbolizer died of {signal} on this file"),
            None => "the symbolizer ended on this file".into(),
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
