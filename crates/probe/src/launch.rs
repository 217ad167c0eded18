//! `-- COMMAND`: a child that is born, waits until it is watched, and only then becomes its program.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::system;

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
    spawning: Option<JoinHandle<io::Result<Child>>>,
    child: Option<Child>,
}

impl Launch {
    /// Forks; the child waits for [`Launch::go`].
    ///
    /// # Errors
    /// When no process or pipe can be made, or the command is empty.
    pub fn prepare(command: &[OsString]) -> Result<Self> {
        let born_ns = system::monotonic_ns();
        let (program, arguments) = command.split_first().context("the command is empty")?;
        let (mut born, tell_born) = io::pipe()?;
        let (wait_go, go) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments);
        let (tell, wait, close) = (tell_born.as_raw_fd(), wait_go.as_raw_fd(), go.as_raw_fd());
        // SAFETY: between fork and exec the closure only calls getpid, write, close and read, which are
        // async-signal-safe, on descriptors that spawn() has left open in the child.
        unsafe {
            command.pre_exec(move || {
                let pid = libc::getpid().to_ne_bytes();
                if libc::write(tell, pid.as_ptr().cast(), pid.len()) != pid.len() as isize {
                    return Err(io::Error::last_os_error());
                }
                libc::close(close);
                let mut byte = 0u8;
                match libc::read(wait, (&raw mut byte).cast(), 1) {
                    1 => Ok(()),
                    // The tracer has gone: there is nobody to run for.
                    _ => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
                }
            });
        }
        // spawn() returns when the child has become its program, so it has to wait in a thread of its own.
        let spawning = std::thread::spawn(move || {
            // Signals are for the thread that waits for them.
            let _ = SigSet::all().thread_block();
            let child = command.spawn();
            drop((tell_born, wait_go));
            child
        });
        let mut pid = [0; 4];
        if born.read_exact(&mut pid).is_err() {
            let failed =
                spawning.join().map_err(|_| anyhow!("the thread that starts the command panicked"))?;
            return Err(failed.err().unwrap_or_else(|| io::ErrorKind::Other.into())).context("cannot fork");
        }
        Ok(Self {
            born_ns,
            pid: u32::from_ne_bytes(pid),
            program: program.to_string_lossy().into_owned(),
            go: Some(File::from(OwnedFd::from(go))),
            spawning: Some(spawning),
            child: None,
        })
    }

    /// Becomes readable when the command has ended.
    pub(crate) fn end(&self) -> io::Result<OwnedFd> {
        system::pidfd(self.pid)
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
            go.write_all(&[1]).context("the command ended before it began")?;
        }
        if let Some(spawning) = self.spawning.take() {
            let child =
                spawning.join().map_err(|_| anyhow!("the thread that starts the command panicked"))?;
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
        let status = child.wait().context("cannot wait for the command")?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or(0) as u8,
        })
    }

    /// Sends a signal to the command.
    pub fn signal(&self, signal: Signal) {
        // It may have ended meanwhile; then there is nobody to tell. It is not reaped yet, so the id is still its own.
        let _ = kill(Pid::from_raw(self.pid as i32), signal);
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // Without a go the child sees the pipe close and ends; reap it.
        drop(self.go.take());
        if let Some(spawning) = self.spawning.take() {
            let _ = spawning.join();
        }
    }
}
