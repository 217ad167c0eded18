//! A process of its own for injections, so that killing the tracer at any moment cannot leave a target half-way.
//!
//! For each injection it forks once more: whatever goes wrong there, ending that process detaches from the target.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, setsockopt, shutdown, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, setsid};
use serde::{Deserialize, Serialize};
use trapline_symbols::privilege::{self, Keep};
use trapline_symbols::{packet, task};

use super::inject::{Injected, userfaultfd_of};
use super::{patience, trial};

/// Longer than any injection takes, whose waits have limits.
const PATIENCE_SECONDS: i64 = 15;
/// An injection that takes longer hangs: it reads memory that the target keeps from it.
const HANGS_MS: u16 = 10_000;

/// What it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Request {
    /// A userfaultfd of this process's memory.
    Userfaultfd(u32),
    /// Whether the kernel's balancing goes over files in memory.
    GoesOverShared,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    /// The descriptor comes with the answer.
    Userfaultfd {
        /// How long a thread of the process stood still, nanoseconds.
        stopped_ns: u64,
    },
    /// Nothing if that is not known.
    GoesOverShared(Option<bool>),
    /// It could not be done, and why, in words.
    Refused(String),
}

/// The other process, as its client sees it.
#[derive(Debug)]
pub struct Injector {
    socket: Arc<OwnedFd>,
    process: Pid,
}

impl Injector {
    /// Forks it. To be called before there are threads.
    ///
    /// # Errors
    /// When there can be no further process.
    pub fn start() -> Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .context("cannot create a socket")?;
        setsockopt(&ours, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))
            .context("cannot set up a socket")?;
        let parent = getpid();
        // SAFETY: there is only this thread, so that the child may do whatever we may.
        match unsafe { fork() }.context("cannot fork")? {
            ForkResult::Parent { child } => Ok(Self { socket: Arc::new(ours), process: child }),
            ForkResult::Child => {
                drop(ours);
                patience::die_with(parent);
                serve(&theirs);
                // SAFETY: ends the process; nothing of the parent's is to be cleaned up here.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Whether the kernel's balancing, which is on, goes over files in memory; nothing if that is not known. It is tried in
    /// a child of that process's, which does not hold what we have open.
    pub fn goes_over_shared(&self) -> Option<bool> {
        match self.ask(Request::GoesOverShared).ok()? {
            (Reply::GoesOverShared(answer), _) => answer,
            _ => None,
        }
    }

    fn ask(&self, request: Request) -> Result<(Reply, Option<OwnedFd>)> {
        packet::send(self.socket.as_fd(), &request, None).context("the injector has ended")?;
        let answer = packet::receive(self.socket.as_fd(), &mut Vec::new());
        answer.context("the injector does not answer")?.context("the injector has ended")
    }

    /// To give up what the other process is doing, from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.socket))
    }

    /// Has a userfaultfd made in a process.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(crate) fn userfaultfd_of(&self, pid: u32) -> Result<Injected> {
        match self.ask(Request::Userfaultfd(pid))? {
            (Reply::Userfaultfd { stopped_ns }, Some(uffd)) => Ok(Injected { uffd, stopped_ns }),
            (Reply::Refused(why), _) => bail!("{why}"),
            _ => bail!("unexpected reply of the injector"),
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        // Closing it is not enough: a command that waits to be started has it too.
        self.canceller().cancel();
        let _ = waitpid(self.process, None);
    }
}

/// Ends the other process's work: whoever waits for an answer gets none.
#[derive(Debug)]
pub struct Canceller(Arc<OwnedFd>);

impl Canceller {
    pub fn cancel(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

/// The injector's life: until the other end is closed.
fn serve(socket: &OwnedFd) {
    // Out of reach of Ctrl-C and of whatever else is sent to our group.
    let _ = setsid();
    let _ = SigSet::all().thread_block();
    // SAFETY: a string that ends in NUL, and numbers. The target stands still while we wait for a processor.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"trapline-inject".as_ptr());
        libc::setpriority(libc::PRIO_PROCESS, 0, -20);
    }
    if privilege::restrict(Keep::INJECTING).is_err() {
        return;
    }
    let own = getpid();
    let mut buffer = Vec::new();
    while let Ok(Some((request, _))) = packet::receive::<Request>(socket.as_fd(), &mut buffer) {
        // SAFETY: there is only this thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                patience::die_with(own);
                patience::tick();
                answer(socket, request);
                return;
            }
            Ok(ForkResult::Parent { child }) => {
                if !ends(child, socket) {
                    return;
                }
            }
            Err(error) => reply(socket, &Reply::Refused(format!("cannot fork: {error}")), None),
        }
    }
}

/// Waits until a child has ended, which is killed if it hangs. Not if nobody wants what it does any more: it hears of our
/// end, and puts back what it has changed.
fn ends(child: Pid, socket: &OwnedFd) -> bool {
    if let Ok(process) = task::pidfd(child.as_raw() as u32) {
        let ended = PollFd::new(process.as_fd(), PollFlags::POLLIN);
        let unwanted = PollFd::new(socket.as_fd(), PollFlags::empty());
        let mut fds = [ended, unwanted];
        while poll(&mut fds, HANGS_MS) == Err(Errno::EINTR) {}
        let [ended, unwanted] = fds.map(|fd| fd.any().unwrap_or(false));
        if unwanted && !ended {
            return false;
        }
        if !ended {
            let _ = kill(child, Signal::SIGKILL);
        }
    }
    let _ = waitpid(child, None);
    true
}

/// Does what is asked for, and tells what came of it.
fn answer(socket: &OwnedFd, request: Request) {
    match request {
        Request::GoesOverShared => reply(socket, &Reply::GoesOverShared(trial::goes_over_shared()), None),
        Request::Userfaultfd(pid) => match userfaultfd_of(pid) {
            Ok(Injected { uffd, stopped_ns }) => {
                reply(socket, &Reply::Userfaultfd { stopped_ns }, Some(&uffd))
            }
            Err(why) => reply(socket, &Reply::Refused(why), None),
        },
    }
}

fn reply(socket: &OwnedFd, reply: &Reply, uffd: Option<&OwnedFd>) {
    // If nobody listens any more, nobody wants it.
    let _ = packet::send(socket.as_fd(), reply, uffd.map(AsFd::as_fd));
}
