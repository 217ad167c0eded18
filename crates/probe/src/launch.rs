//! `-- COMMAND`: a child that is born, waits until it is watched, and only then becomes its program.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use trapline_symbols::privilege::{self, Keep};

use crate::run_as::RunAs;
use crate::{inherited, system};

/// Why a command could not be run.
#[derive(Debug, Error)]
#[error("cannot run `{program}`")]
pub struct LaunchError {
    program: String,
    source: io::Error,
}

impl LaunchError {
    /// The status a shell would give: 127 if there is no such command, 126 if it cannot be executed.
    #[must_use]
    pub fn status(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// A command that has been born but does not run yet.
#[derive(Debug)]
pub struct Launch {
    born_ns: u64,
    pid: u32,
    program: String,
    go: Option<File>,
    spawned: Option<Receiver<io::Result<Child>>>,
    child: Option<Child>,
    /// Its status, once it has been waited for: then its number may be another process's.
    reaped: Option<ExitStatus>,
    /// The thread that is the command's parent ends with this.
    _parent: Sender<()>,
}

impl Launch {
    /// Forks; the child waits for [`Launch::go`]. The command will be what it would be if it had been started in our place,
    /// but for the user that it is to run as.
    ///
    /// # Errors
    /// When no process or pipe can be made, the command is empty, or it cannot run as that user.
    pub fn prepare(command: &[OsString], run_as: Option<&RunAs>) -> Result<Self> {
        let born_ns = system::monotonic_ns();
        let (program, arguments) = command.split_first().context("the command is empty")?;
        let (mut born, tell_born) = io::pipe()?;
        let (wait_go, go) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments);
        let (tell, wait, close) = (tell_born.as_raw_fd(), wait_go.as_raw_fd(), go.as_raw_fd());
        let run_as = run_as.cloned();
        // SAFETY: between fork and exec the closure only makes system calls, on descriptors that spawn() has left open in
        // the child, and takes no memory.
        unsafe {
            command.pre_exec(move || {
                // As long as it may: hard limits may have to be raised again.
                inherited::restore()?;
                if let Some(user) = &run_as {
                    user.become_them()?;
                }
                let pid = libc::getpid().to_ne_bytes();
                if libc::write(tell, pid.as_ptr().cast(), pid.len()) != pid.len() as isize {
                    return Err(io::Error::last_os_error());
                }
                libc::close(close);
                let mut byte = 0u8;
                match libc::read(wait, (&raw mut byte).cast(), 1) {
                    1 => {
                        inherited::finish();
                        Ok(())
                    }
                    // The tracer has gone: there is nobody to run for, and nobody to tell.
                    _ => libc::_exit(0),
                }
            });
        }
        let (tell_spawned, spawned) = channel();
        let (parent, stay) = channel();
        // spawn() returns when the child has become its program, so it has to wait in a thread of its own.
        std::thread::spawn(move || {
            // Until it is the command that gets them, the child has none: our handlers are not its.
            let _ = SigSet::all().thread_block();
            let child = command.spawn();
            drop((tell_born, wait_go));
            // Where that fails, it is noticed when the first thread drops its own.
            let _ = privilege::restrict(Keep::SIGNALS);
            let _ = tell_spawned.send(child);
            // PR_SET_PDEATHSIG is about the thread that forked.
            let _ = stay.recv();
        });
        let mut pid = [0; 4];
        if born.read_exact(&mut pid).is_err() {
            let failed = spawned.recv().ok().and_then(Result::err);
            return Err(failed.unwrap_or_else(|| io::ErrorKind::Other.into()))
                .context("cannot start the command");
        }
        Ok(Self {
            born_ns,
            pid: u32::from_ne_bytes(pid),
            program: program.to_string_lossy().into_owned(),
            go: Some(File::from(OwnedFd::from(go))),
            spawned: Some(spawned),
            child: None,
            reaped: None,
            _parent: parent,
        })
    }

    /// Becomes readable when the command has ended.
    pub(crate) fn end(&self) -> io::Result<OwnedFd> {
        if self.reaped.is_some() { Err(Errno::ESRCH.into()) } else { system::pidfd(self.pid) }
    }

    /// Its CPU time in user mode and in the kernel, with that of the descendants that were waited for, if it has ended; it is
    /// waited for then.
    pub(crate) fn times(&mut self) -> Option<[Duration; 2]> {
        // One that has not become its program belongs to the thread that starts it.
        self.child.as_ref().filter(|_| self.reaped.is_none())?;
        let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
        // SAFETY: both are to be filled; an all-zero rusage is a valid one.
        let usage = unsafe {
            let done = libc::wait4(self.pid as i32, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
            (done == self.pid as i32).then(|| usage.assume_init())?
        };
        self.reaped = Some(ExitStatus::from_raw(status));
        let time = |of: libc::timeval| {
            Duration::from_secs(of.tv_sec as u64) + Duration::from_micros(of.tv_usec as u64)
        };
        Some([time(usage.ru_utime), time(usage.ru_stime)])
    }

    /// What will be executed, as it was named.
    pub(crate) fn command(&self) -> &Path {
        Path::new(&self.program)
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A moment before its birth, CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn born_ns(&self) -> u64 {
        self.born_ns
    }

    /// Lets the child become its program.
    ///
    /// # Errors
    /// [`LaunchError`] when there is no such program or it cannot be executed.
    pub fn go(&mut self) -> Result<()> {
        if let Some(mut go) = self.go.take() {
            // Not a closed pipe of somebody who has had enough.
            go.write_all(&[1]).map_err(|_| anyhow!("the command was killed before it ran"))?;
        }
        if let Some(spawned) = self.spawned.take() {
            let child = spawned.recv().context("the thread that starts the command has ended")?;
            self.child = Some(child.map_err(|source| LaunchError { program: self.program.clone(), source })?);
        }
        Ok(())
    }

    /// Waits for the command to end and gives the status to exit with: its own, or 128 and the signal that killed it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> Result<u8> {
        let Some(child) = &mut self.child else { return Ok(0) };
        let status = match self.reaped {
            Some(status) => status,
            None => child.wait().context("cannot wait for the command")?,
        };
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or(0) as u8,
        })
    }

    /// Sends a signal to the command. Until it is waited for, the id is still its own, also if it has ended.
    ///
    /// # Errors
    /// When it has become another user's, by a set-user-ID program.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        if self.reaped.is_some() { Ok(()) } else { kill(Pid::from_raw(self.pid as i32), signal) }
    }

    /// Whether it is stopped, as job control stops processes.
    pub(crate) fn is_stopped(&self) -> bool {
        self.says("State:").is_some_and(|state| state.starts_with('T'))
    }

    /// Whether it has a handler for a signal.
    pub(crate) fn catches(&self, signal: Signal) -> bool {
        let caught = self.says("SigCgt:").and_then(|set| u64::from_str_radix(&set, 16).ok());
        caught.unwrap_or(0) & (1 << (signal as i32 - 1)) != 0
    }

    /// A line of its /proc/PID/status, without the heading.
    fn says(&self, heading: &str) -> Option<String> {
        let pid = Some(self.pid).filter(|_| self.reaped.is_none())?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix(heading)).map(|said| said.trim().to_owned())
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // Without a go the child sees the pipe close and ends; reap it.
        drop(self.go.take());
        if let Some(spawned) = self.spawned.take() {
            let _ = spawned.recv();
        }
    }
}
