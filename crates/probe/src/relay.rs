//! A command that runs, and what it gets of the signals that come to us.
//!
//! A terminal sends its signals to the whole foreground process group: the command has them already. What a process sends
//! to us is passed on, as `sudo` does it. Who asks twice for the end gets it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getsid};

use crate::inherited;
use crate::launch::Launch;
use crate::signals::{self, Came, Signals};

/// Requests that are closer to each other are one: `timeout` sends its signal to us and then to our group.
const ONE_REQUEST: Duration = Duration::from_millis(100);

/// The command, and how often its end was asked for.
#[derive(Debug)]
pub(crate) struct Relay {
    launch: Launch,
    requests: u32,
    requested: Option<Instant>,
    /// It is left behind, and this is our status.
    left: Option<u8>,
}

impl Relay {
    pub(crate) fn new(launch: Launch) -> Self {
        Self { launch, requests: 0, requested: None, left: None }
    }

    /// Does what a signal means. Tells whether the command is to be waited for no longer.
    pub(crate) fn take(&mut self, came: &Came) -> bool {
        let Came { signal, sender } = *came;
        let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].contains(&signal);
        // What it sends to its whole group, and so to us, it has itself.
        let is_its_own = sender == Some(self.launch.pid() as i32);
        match (signal, sender) {
            (Signal::SIGTSTP, Some(_)) if !is_its_own => {
                self.pass_on(signal);
                signals::stop();
            }
            (Signal::SIGTSTP, _) => signals::stop(),
            _ if is_its_own => {}
            // A shell continues the whole group.
            (Signal::SIGCONT, Some(_)) if self.launch.is_stopped() => self.pass_on(signal),
            (Signal::SIGCONT, _) => {}
            (_, Some(_)) => {
                self.pass_on(signal);
                if ends {
                    self.request(signal);
                }
            }
            // A timer that we were started with, and a hangup that only the first of a session is told of.
            (Signal::SIGALRM, None) => self.pass_on(signal),
            (Signal::SIGHUP, None) if getsid(None) == Ok(getpid()) => self.pass_on(signal),
            // A key. A command that has a handler decides what it means, as often as it is pressed.
            (Signal::SIGINT | Signal::SIGQUIT, None)
                if !inherited::ignored(signal as i32) && !self.launch.catches(signal) =>
            {
                self.request(signal);
            }
            (_, None) => {}
        }
        self.left.is_some()
    }

    fn pass_on(&self, signal: Signal) {
        // It may have ended, or be another user's now: then a second request is not for it.
        let _ = self.launch.signal(signal);
    }

    /// Its end is asked for: the second time it is killed, and whom we cannot kill we leave.
    fn request(&mut self, signal: Signal) {
        let now = Instant::now();
        if self.requested.is_some_and(|before| now - before < ONE_REQUEST) {
            return;
        }
        self.requested = Some(now);
        self.requests += 1;
        let lives = match self.requests {
            1 => false,
            2 => self.launch.signal(Signal::SIGKILL).is_err(),
            _ => true,
        };
        if lives {
            self.left = Some(128 + signal as u8);
        }
    }

    /// The command's CPU times, if it has ended: see [`Launch::times`].
    pub(crate) fn times(&mut self) -> Option<[Duration; 2]> {
        self.launch.times()
    }

    /// Waits for the command to end, and gives the status to exit with.
    pub(crate) fn status(mut self, signals: &mut Signals) -> Result<u8> {
        let ended = self.launch.end();
        while self.left.is_none()
            && let Ok(ended) = &ended
        {
            let mut fds = [signals.fd(), ended.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for the command"),
            }
            let [signalled, ended] = fds.map(|fd| fd.any().unwrap_or(false));
            if ended {
                break;
            }
            if signalled {
                signals.take().iter().for_each(|came| {
                    self.take(came);
                });
            }
        }
        match self.left {
            Some(status) => Ok(status),
            None => {
                signals.forget_command();
                self.launch.wait()
            }
        }
    }
}
