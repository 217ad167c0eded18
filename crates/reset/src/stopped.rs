//! A thread of another process, stopped by ptrace, its registers and signals put back before it goes on.
//!
//! The target may be hostile: what it executes is checked at each stop, and every wait has a limit.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::patience;

pub(crate) type Regs = libc::user_regs_struct;

/// How long a thread may take to stop. One that waits for a disk takes longer and is left alone.
const TO_STOP: Duration = Duration::from_secs(3);
/// How long it may take to the next stop once it is led to a system call. One whose processor others have takes longer,
/// and so does one that has changed the instruction.
const TO_CALL: Duration = Duration::from_secs(3);
/// How long it may take to stop again to get its registers back: without them it cannot go on.
const TO_RESTORE: Duration = Duration::from_secs(5);

/// It is looked for without a pause so long, for it stands still until we see that it does.
const SPIN: Duration = Duration::from_micros(200);

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD;
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
/// The code segment of 64-bit user mode.
const USER_CS: u64 = 0x33;
/// A `syscall` instruction, bytes.
const INSTRUCTION: u64 = 2;
/// `AUDIT_ARCH_X86_64`: the call is one of 64-bit programs, not one of `int 0x80`.
const ARCH_X86_64: u32 = 0xc000_003e;
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
const PTRACE_SYSCALL_INFO_EXIT: u8 = 2;

// include/uapi/linux/ptrace.h; the C library knows not all of them.
const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e; // 5.3
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
    /// It was told to go on, and has not stopped since.
    running: bool,
    /// It is being led over a call. What is being put back is not given up.
    leads: bool,
    /// Its seccomp filter is suspended until it is released.
    suspended: bool,
    /// A SIGSTOP came meanwhile.
    stop_signal: bool,
}

/// How a thread stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// At the entry or the exit of a system call.
    Syscall,
    /// Interrupted, as we asked, or stopped together with its process.
    Event,
    /// A signal is about to be delivered.
    Signal(i32),
}

/// `struct ptrace_syscall_info`, include/uapi/linux/ptrace.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SyscallInfo {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    /// At the entry the number and the arguments; at the exit what it returned.
    words: [u64; 7],
    seccomp: u64,
}

impl Stopped {
    /// Attaches to a thread and stops it.
    pub(crate) fn seize(pid: u32, tid: u32) -> Result<Self, String> {
        ptrace(libc::PTRACE_SEIZE, tid, 0, OPTIONS as u64).map_err(|error| match error {
            Errno::EPERM => {
                format!("cannot stop process {pid}: {error}; it may have a debugger")
            }
            _ => format!("cannot stop process {pid}: {error}"),
        })?;
        let mut thread =
            Self { pid, tid, saved: None, running: true, leads: false, suspended: false, stop_signal: false };
        ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0)
            .map_err(|e| format!("cannot interrupt thread {tid}: {e}"))?;
        let until = Instant::now() + TO_STOP;
        loop {
            match thread.wait(until)? {
                Stop::Event => return Ok(thread),
                Stop::Syscall => thread.resume(libc::PTRACE_CONT, 0)?,
                Stop::Signal(signal) => thread.resume(libc::PTRACE_CONT, signal)?,
            }
        }
    }

    /// Suspends its seccomp filter, and reports whether it has one. While it stands still another thread can give it
    /// one, so that it is suspended wherever we may.
    pub(crate) fn suspend_filter(&mut self) -> Result<bool, String> {
        let options = (OPTIONS | libc::PTRACE_O_SUSPEND_SECCOMP) as u64;
        let suspended = ptrace(libc::PTRACE_SETOPTIONS, self.tid, 0, options);
        self.suspended = suspended.is_ok();
        match (self.is_confined(), suspended) {
            (true, Err(error)) => Err(format!(
                "process {} is sandboxed (seccomp), and its filter cannot be suspended for the call it needs: {error}",
                self.pid
            )),
            (confined, _) => Ok(confined),
        }
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
        // Only what has not been touched may be let go as it is.
        patience::hear_of_death();
        let mut mask = 0u64;
        self.request(PTRACE_GETSIGMASK, size_of::<u64>() as u64, &raw mut mask as u64)?;
        self.saved = Some((regs, mask));
        let mut all = u64::MAX;
        self.request(PTRACE_SETSIGMASK, size_of::<u64>() as u64, &raw mut all as u64)
    }

    /// Makes the thread call `number` with one argument, at a `syscall` instruction of its own. Where it is about to
    /// call anything else, nothing is called.
    pub(crate) fn call(&mut self, instruction: u64, number: i64, argument: u64) -> Result<i64, String> {
        let Some((saved, _)) = self.saved else { return Err("the thread is not prepared".into()) };
        // No number of an interrupted call, or the kernel would restart that here.
        let regs = Regs { rip: instruction, rax: number as u64, rdi: argument, orig_rax: u64::MAX, ..saved };
        self.set_regs(&regs)?;
        let entry = self.until_syscall()?;
        let wanted = SyscallInfo {
            op: PTRACE_SYSCALL_INFO_ENTRY,
            arch: ARCH_X86_64,
            instruction_pointer: instruction + INSTRUCTION,
            stack_pointer: saved.rsp,
            words: [number as u64, argument, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
            ..SyscallInfo::default()
        };
        if entry != wanted {
            // release() cancels it.
            return Err(format!("process {} changed its code meanwhile", self.pid));
        }
        if !self.suspended && self.is_confined() {
            return Err(format!("process {} entered a sandbox (seccomp) meanwhile", self.pid));
        }
        let exit = self.until_syscall()?;
        let place = |info: &SyscallInfo| (info.arch, info.instruction_pointer, info.stack_pointer);
        if exit.op != PTRACE_SYSCALL_INFO_EXIT || place(&exit) != place(&wanted) {
            return Err(format!("process {} did not return from a system call", self.pid));
        }
        Ok(exit.words[0] as i64)
    }

    /// Puts everything back and lets the thread go.
    pub(crate) fn release(mut self) -> Result<(), String> {
        if let Some((regs, mut mask)) = self.saved {
            // A call that was interrupted is restarted only on the way out of an interruption.
            self.leads = false;
            let until = Instant::now() + TO_RESTORE;
            if self.running {
                self.request(libc::PTRACE_INTERRUPT, 0, 0)?;
            }
            loop {
                if !self.running {
                    self.cancel_entry()?;
                    // Every stop makes the kernel forget that there was to be another one.
                    self.request(libc::PTRACE_INTERRUPT, 0, 0)?;
                    // What it called meanwhile would be called without its filter.
                    self.resume(libc::PTRACE_SYSCALL, 0)?;
                }
                match self.wait(until)? {
                    Stop::Event => break,
                    Stop::Syscall => {}
                    Stop::Signal(signal) => self.put_off(signal),
                }
            }
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

    /// Where it stands at the entry of a system call, that call will not be made.
    fn cancel_entry(&mut self) -> Result<(), String> {
        let at_entry = self.syscall_info()?.op == PTRACE_SYSCALL_INFO_ENTRY;
        if at_entry {
            let regs = Regs { orig_rax: u64::MAX, ..self.regs()? };
            self.set_regs(&regs)?;
        }
        Ok(())
    }

    /// Whether its system calls pass a seccomp filter.
    fn is_confined(&self) -> bool {
        let status = self.status();
        // Of one that cannot be read it is not known.
        !status.lines().any(|line| line == "Seccomp:\t0")
    }

    fn status(&self) -> String {
        let path = format!("/proc/{}/task/{}/status", self.pid, self.tid);
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Whether a signal waits that the thread does not block: then the interruption was not ours alone.
    fn has_signals(&self) -> bool {
        let status = self.status();
        let mask = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
        };
        (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
    }

    /// Lets it go on to the next entry or exit of a system call.
    fn until_syscall(&mut self) -> Result<SyscallInfo, String> {
        let until = Instant::now() + TO_CALL;
        self.leads = true;
        loop {
            self.resume(libc::PTRACE_SYSCALL, 0)?;
            match self.wait(until)? {
                Stop::Syscall => return self.syscall_info(),
                Stop::Event => {}
                Stop::Signal(libc::SIGSTOP) => self.put_off(libc::SIGSTOP),
                // All others wait; this is one of an instruction that is not ours.
                Stop::Signal(_) => {
                    return Err(format!("process {} changed its code meanwhile", self.pid));
                }
            }
        }
    }

    fn resume(&mut self, request: u32, signal: i32) -> Result<(), String> {
        self.request(request, 0, signal as u64)?;
        self.running = true;
        Ok(())
    }

    /// A signal that came once the thread was prepared. SIGSTOP waits until we are done.
    fn put_off(&mut self, signal: i32) {
        self.stop_signal |= signal == libc::SIGSTOP;
    }

    /// Waits for the next stop. Once the thread is prepared it is on its way there, and waits for us, so that nothing
    /// may be lost in sleeping.
    fn wait(&mut self, until: Instant) -> Result<Stop, String> {
        let began = Instant::now();
        loop {
            let spins = self.saved.is_none() && began.elapsed() < SPIN;
            let flags = if spins { libc::__WALL | libc::WNOHANG } else { libc::__WALL };
            let mut status = 0;
            // SAFETY: status is an integer to be filled.
            let waited = unsafe { libc::waitpid(self.tid as i32, &raw mut status, flags) };
            if waited > 0 && libc::WIFSTOPPED(status) {
                self.running = false;
                return Ok(match (libc::WSTOPSIG(status), status >> 16) {
                    (_, libc::PTRACE_EVENT_STOP) => Stop::Event,
                    (SYSCALL_STOP, _) => Stop::Syscall,
                    (signal, _) => Stop::Signal(signal),
                });
            }
            // A wait is interrupted at every tick of our patience.
            if waited > 0 || waited < 0 && Errno::last() != Errno::EINTR {
                return Err(format!("process {} ended meanwhile", self.pid));
            }
            if self.leads && patience::is_orphaned() {
                return Err("the tracer has ended".into());
            }
            if Instant::now() > until {
                return Err(format!(
                    "thread {} does not stop: it sleeps uninterruptibly, or gets no CPU",
                    self.tid
                ));
            }
        }
    }

    fn syscall_info(&self) -> Result<SyscallInfo, String> {
        let mut info = SyscallInfo::default();
        let size = size_of::<SyscallInfo>() as u64;
        self.request(PTRACE_GET_SYSCALL_INFO, size, &raw mut info as u64)?;
        info.pad = [0; 3];
        info.seccomp = 0;
        Ok(info)
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

/// Where the thread goes on instead, if it is inside a restartable sequence: the kernel aborts a sequence that was
/// interrupted, and would not notice this one, for the thread is elsewhere when it looks.
fn sequence_aborts_at(memory: &File, area: u64, regs: &Regs) -> Option<u64> {
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at).ok().map(|()| u64::from_ne_bytes(bytes))
    };
    // struct rseq: rseq_cs at 8. struct rseq_cs: start_ip at 8, post_commit_offset at 16, abort_ip at 24.
    let sequence = word(area + 8).filter(|&at| at != 0)?;
    let (start, len, abort) = (word(sequence + 8)?, word(sequence + 16)?, word(sequence + 24)?);
    (regs.rip.wrapping_sub(start) < len).then_some(abort)
}
