//! A process of its own for injections, so that killing the tracer at any moment cannot leave a target half-way.
//!
//! For each injection it forks once more: whatever goes wrong there, ending that process detaches from the target.

#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg,
    sendmsg, setsockopt, shutdown, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, setsid};

use trapline_symbols::privilege::{self, Keep};
use trapline_symbols::task;

use super::inject::{Injected, userfaultfd_of};
use super::{patience, trial};

/// The longest answer: a reason in words.
const ANSWER: usize = 1024;
/// Longer than any injection takes, whose waits have limits.
const PATIENCE_SECONDS: i64 = 15;
/// An injection that takes longer hangs: it reads memory that the target keeps from it.
const HANGS_MS: u16 = 10_000;

/// Instead of a process: see [`Injector::goes_over_shared`].
const TRIAL: u32 = 0;

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
                .context("cannot make a socket")?;
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
        let socket = self.ask(TRIAL).ok()?;
        let mut answer = [0; ANSWER];
        let mut buffer = [IoSliceMut::new(&mut answer)];
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut buffer, None, MsgFlags::empty());
        let len = received.ok()?.bytes;
        [Some(false), Some(true), None]
            .into_iter()
            .find(|seen| words_of(*seen).as_bytes() == &answer[..len])?
    }

    fn ask(&self, pid: u32) -> Result<&OwnedFd> {
        let question = pid.to_ne_bytes();
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&question)], &[], MsgFlags::MSG_NOSIGNAL, None)
            .context("the injector has ended")?;
        Ok(&self.socket)
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
        let socket = self.ask(pid)?;
        let mut answer = [0; ANSWER];
        let mut buffer = [IoSliceMut::new(&mut answer)];
        let mut space = cmsg_space!([i32; 1]);
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut buffer, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
                .context("the injector does not answer")?;
        let len = message.bytes;
        let fd = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
            // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
            ControlMessageOwned::ScmRights(fds) => fds.first().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => None,
        });
        match (fd, answer.first_chunk()) {
            (Some(uffd), Some(&stopped)) if len == 8 => {
                Ok(Injected { uffd, stopped_ns: u64::from_ne_bytes(stopped) })
            }
            _ if len == 0 => bail!("the injector has ended"),
            _ => bail!("{}", String::from_utf8_lossy(&answer[..len])),
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
    loop {
        let mut pid = [0; 4];
        let mut buffer = [IoSliceMut::new(&mut pid)];
        let received =
            recvmsg::<()>(socket.as_raw_fd(), &mut buffer, None, MsgFlags::empty()).map(|m| m.bytes);
        match received {
            Err(Errno::EINTR) => continue,
            Ok(4) => {}
            _ => return,
        }
        // SAFETY: there is only this thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                patience::die_with(own);
                patience::tick();
                answer(
                    socket,
                    match u32::from_ne_bytes(pid) {
                        TRIAL => Err(words_of(trial::goes_over_shared()).to_owned()),
                        pid => userfaultfd_of(pid),
                    },
                );
                return;
            }
            Ok(ForkResult::Parent { child }) => {
                if !ends(child, socket) {
                    return;
                }
            }
            Err(error) => answer(socket, Err(format!("cannot fork: {error}"))),
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

/// What came of the trial, as it is told.
fn words_of(seen: Option<bool>) -> &'static str {
    match seen {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    }
}

fn answer(socket: &OwnedFd, result: Result<Injected, String>) {
    let send = |bytes: &[u8], control: &[ControlMessage<'_>]| {
        // If nobody listens any more, nobody wants it.
        let _ =
            sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
    };
    match result {
        Ok(injected) => {
            let fds = [injected.uffd.as_raw_fd()];
            send(&injected.stopped_ns.to_ne_bytes(), &[ControlMessage::ScmRights(&fds)]);
        }
        Err(why) => {
            let end = (0..=why.len().min(ANSWER)).rev().find(|&end| why.is_char_boundary(end)).unwrap_or(0);
            send(&why.as_bytes()[..end], &[]);
        }
    }
}
