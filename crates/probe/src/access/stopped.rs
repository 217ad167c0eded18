//! A thread of another process, stopped by ptrace, its registers and signals put back before it goes on.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::inject::sequence_aborts_at;

pub(crate) type Regs = libc::user_regs_struct;

/// How long a thread may take to stop. One that waits for a disk takes longer and is left alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// It is looked for without a pause so long, for it stands still until we see that it does.
const SPIN: Duration = Duration::from_micros(200);

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD;
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
/// The code segment of 64-bit user mode.
const USER_CS: u64 = 0x33;

// include/uapi/linux/ptrace.h; the C library knows not all of them.
const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_SETSIGMASK: u32 = 0x420b;
const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: u32 = 0x4211;

/// System calls that an interruption ends with EINTR though no signal is handled (signal(7)): done again.
const NOT_RESTARTED: &[i64] = &[
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_io_getevents,
    libc::SYS_rt_sigtimedwait,
];

/// A thread that stands still. It must be [released](Stopped::release); if this process ends first, the kernel lets
/// it go with the registers it has then.
pub(crate) struct Stopped {
    pid: u32,
    tid: u32,
    /// Registers and signal mask, to be put back.
    saved: Option<(Regs, u64)>,
    /// A SIGSTOP came meanwhile.
    stop_signal: bool,
}

/// How a thread stopped.
enum Stop {
    /// At the entry or the exit of a system call.
    Syscall,
    /// Interrupted, as we asked, or stopped together with its process.
    Event,
    /// A signal is about to be delivered.
    Signal(i32),
}

impl Stopped {
    /// Attaches to a thread and stops it. With `sandboxed` its seccomp filter is suspended as long as we are attached.
    pub(crate) fn seize(pid: u32, tid: u32, sandboxed: bool) -> Result<Self, String> {
        let suspend = if sandboxed { libc::PTRACE_O_SUSPEND_SECCOMP } else { 0 };
        ptrace(libc::PTRACE_SEIZE, tid, 0, (OPTIONS | suspend) as u64).map_err(|error| match error {
            Errno::EPERM | Errno::EINVAL if sandboxed => format!(
                "process {pid} is sandboxed (seccomp), and its filter cannot be suspended for the call it needs: {error}"
            ),
            Errno::EPERM => format!("process {pid} cannot be stopped: {error} (it may have a debugger already)"),
            _ => format!("process {pid} cannot be stopped: {error}"),
        })?;
        let mut thread = Self { pid, tid, saved: None, stop_signal: false };
        ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0)
            .map_err(|e| format!("cannot interrupt thread {tid}: {e}"))?;
        thread.until_event()?;
        Ok(thread)
    }

    /// Saves what will be put back, as it must be for the thread to notice nothing, and holds signals off.
    pub(crate) fn prepare(&mut self, memory: &File) -> Result<(), String> {
        let mut regs = self.regs()?;
        if regs.cs != USER_CS {
            return Err(format!("process {} is a 32-bit program", self.pid));
        }
        let mut dispatch = [0u64; 4];
        let size = size_of_val(&dispatch) as u64;
        let asked =
            ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, self.tid, size, dispatch.as_mut_ptr() as u64);
        if asked.is_ok() && dispatch[0] != 0 {
            return Err(format!("process {} handles its own system calls (prctl)", self.pid));
        }
        let mut rseq = [0u64; 3];
        let size = size_of_val(&rseq) as u64;
        if ptrace(PTRACE_GET_RSEQ_CONFIGURATION, self.tid, size, rseq.as_mut_ptr() as u64).is_ok()
            && let Some(abort) = sequence_aborts_at(memory, rseq[0], &regs)
        {
            regs.rip = abort;
        }
        let interrupted = regs.rax as i64 == -i64::from(libc::EINTR);
        if interrupted && NOT_RESTARTED.contains(&(regs.orig_rax as i64)) && !self.has_signals() {
            // Back to the system call instruction, two bytes long.
            regs.rip -= 2;
            regs.rax = regs.orig_rax;
            regs.orig_rax = u64::MAX;
        }
        let mut mask = 0u64;
        self.request(PTRACE_GETSIGMASK, size_of::<u64>() as u64, &raw mut mask as u64)?;
        let mut all = u64::MAX;
        self.request(PTRACE_SETSIGMASK, size_of::<u64>() as u64, &raw mut all as u64)?;
        self.saved = Some((regs, mask));
        Ok(())
    }

    /// Makes the thread call `number` with one argument, at a `syscall` instruction of its own.
    pub(crate) fn call(&mut self, instruction: u64, number: i64, argument: u64) -> Result<i64, String> {
        let Some((saved, _)) = self.saved else { return Err("the thread is not prepared".into()) };
        // No number of an interrupted call, or the kernel would restart that here.
        let regs = Regs { rip: instruction, rax: number as u64, rdi: argument, orig_rax: u64::MAX, ..saved };
        self.set_regs(&regs)?;
        self.until_syscall()?;
        self.until_syscall()?;
        Ok(self.regs()?.rax as i64)
    }

    /// Puts everything back and lets the thread go.
    pub(crate) fn release(mut self) -> Result<(), String> {
        if let Some((regs, mut mask)) = self.saved {
            // A call that was interrupted is restarted only on the way out of an interruption.
            self.request(libc::PTRACE_INTERRUPT, 0, 0)?;
            self.request(libc::PTRACE_CONT, 0, 0)?;
            self.until_event()?;
            self.set_regs(&regs)?;
            self.request(PTRACE_SETSIGMASK, size_of::<u64>() as u64, &raw mut mask as u64)?;
        }
        self.request(libc::PTRACE_DETACH, 0, 0)?;
        if self.stop_signal {
            // SAFETY: the arguments are numbers.
            unsafe { libc::kill(self.pid as i32, libc::SIGSTOP) };
        }
        Ok(())
    }

    /// Whether a signal waits that the thread does not block: then the interruption was not ours alone.
    fn has_signals(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/task/{}/status", self.pid, self.tid));
        let status = status.unwrap_or_default();
        let mask = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
        };
        (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
    }

    fn until_event(&mut self) -> Result<(), String> {
        loop {
            match self.wait()? {
                Stop::Event => return Ok(()),
                Stop::Syscall => self.request(libc::PTRACE_CONT, 0, 0)?,
                Stop::Signal(signal) => self.pass(libc::PTRACE_CONT, signal)?,
            }
        }
    }

    fn until_syscall(&mut self) -> Result<(), String> {
        self.request(libc::PTRACE_SYSCALL, 0, 0)?;
        loop {
            match self.wait()? {
                Stop::Syscall => return Ok(()),
                Stop::Event => self.request(libc::PTRACE_SYSCALL, 0, 0)?,
                Stop::Signal(signal) => self.pass(libc::PTRACE_SYSCALL, signal)?,
            }
        }
    }

    /// Lets a signal through. Once the thread is prepared it can only be SIGSTOP, which waits until we are done.
    fn pass(&mut self, request: u32, signal: i32) -> Result<(), String> {
        if self.saved.is_some() && signal == libc::SIGSTOP {
            self.stop_signal = true;
            return self.request(request, 0, 0);
        }
        self.request(request, 0, signal as u64)
    }

    /// Waits for the next stop. Before the thread is prepared it may be anywhere, and take long; after that it is on
    /// its way to the next stop, and waits for us there, so that nothing may be lost in sleeping.
    fn wait(&self) -> Result<Stop, String> {
        let began = Instant::now();
        let flags = if self.saved.is_some() { libc::__WALL } else { libc::__WALL | libc::WNOHANG };
        loop {
            let mut status = 0;
            // SAFETY: status is an integer to be filled.
            let waited = unsafe { libc::waitpid(self.tid as i32, &raw mut status, flags) };
            if waited < 0 || waited > 0 && !libc::WIFSTOPPED(status) {
                return Err(format!("process {} ended meanwhile", self.pid));
            }
            if waited > 0 {
                return Ok(match (libc::WSTOPSIG(status), status >> 16) {
                    (_, libc::PTRACE_EVENT_STOP) => Stop::Event,
                    (SYSCALL_STOP, _) => Stop::Syscall,
                    (signal, _) => Stop::Signal(signal),
                });
            }
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "thread {} does not stop: it waits for something in the kernel",
                    self.tid
                ));
            }
            if began.elapsed() > SPIN {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    }

    fn regs(&self) -> Result<Regs, String> {
        let mut regs = MaybeUninit::<Regs>::zeroed();
        self.request(libc::PTRACE_GETREGS, 0, regs.as_mut_ptr() as u64)?;
        // SAFETY: all-zero is a valid value, and the kernel has filled it.
        Ok(unsafe { regs.assume_init() })
    }

    fn set_regs(&self, regs: &Regs) -> Result<(), String> {
        self.request(libc::PTRACE_SETREGS, 0, std::ptr::from_ref(regs) as u64)
    }

    fn request(&self, request: u32, addr: u64, data: u64) -> Result<(), String> {
        ptrace(request, self.tid, addr, data).map_err(|error| match error {
            Errno::ESRCH => format!("process {} ended meanwhile", self.pid),
            _ => format!("cannot control thread {}: {error}", self.tid),
        })
    }
}

fn ptrace(request: u32, tid: u32, addr: u64, data: u64) -> Result<(), Errno> {
    // SAFETY: where addr or data stand for memory, the callers pass values of theirs, of the size the request has.
    let done = unsafe { libc::ptrace(request, tid as i32, addr, data) };
    if done < 0 {
        let error = io::Error::last_os_error();
        return Err(Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    }
    Ok(())
}
