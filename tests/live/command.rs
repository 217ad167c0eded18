//! `-- COMMAND`: it is what it would be without us.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::run::{Source, all_or_first, scratch};

pub const PROGRAM: Source =
    Source { compiler: "gcc", file: "command/program.c", options: &["-O1", "-Wall", "-Wextra", "-Werror"] };

pub fn program() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| PROGRAM.program().to_str().unwrap().into())
}

/// How a command is started: as most are, or with all that a caller can set up set up in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Usual,
    Odd,
}

impl Start {
    /// What the program says of itself, at the end of a command line.
    fn says(self, mut command: Command) -> Vec<String> {
        let file = scratch().join(format!("attributes-{}", std::process::id()));
        command.arg(program()).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if self == Self::Odd {
            // SAFETY: it makes system calls only.
            unsafe { command.pre_exec(odd) };
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        let said = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        // Standard error is another pipe each time.
        said.lines().filter(|line| !line.starts_with("/proc/self/fd/2 ")).map(str::to_owned).collect()
    }
}

/// Everything that a process hands on.
fn odd() -> std::io::Result<()> {
    let limit = |which, soft, hard| {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: the limit outlives the call.
        unsafe { libc::setrlimit(which, &raw const limit) }
    };
    limit(libc::RLIMIT_NOFILE, 256, 300);
    limit(libc::RLIMIT_MEMLOCK, 1 << 20, 2 << 20);
    limit(libc::RLIMIT_CORE, 4096, 8192);
    let ordinary = libc::sched_param { sched_priority: 0 };
    // SAFETY: numbers, and structures and strings that outlive the calls.
    unsafe {
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGCHLD, libc::SIGUSR1, libc::SIGRTMIN() + 2] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut blocked = std::mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        libc::sigaddset(&raw mut blocked, libc::SIGUSR2);
        libc::sigaddset(&raw mut blocked, libc::SIGRTMIN() + 3);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const blocked, std::ptr::null_mut());
        libc::umask(0o027);
        libc::setpriority(libc::PRIO_PROCESS, 0, 3);
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const ordinary);
        let mut first: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut first);
        libc::sched_setaffinity(0, size_of_val(&first), &raw const first);
        // IOPRIO_WHO_PROCESS, IOPRIO_CLASS_BE
        libc::syscall(libc::SYS_ioprio_set, 1, 0, 2 << 13 | 6);
        libc::prctl(libc::PR_SET_TIMERSLACK, 123_456);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGURG);
        libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(score, c"77".as_ptr().cast(), 2);
        libc::dup2(1, 9);
        libc::close(0);
    }
    Ok(())
}

/// The program says the same under a tool as alone, but for what starts like one of `but_for`.
pub fn is_the_same(tool: &dyn Fn() -> Command, but_for: &[&str]) {
    for start in all_or_first([Start::Odd, Start::Usual]) {
        let alone = {
            // As the tool does it: without a shell.
            let mut command = Command::new("env");
            command.arg("--");
            start.says(command)
        };
        let mut command = tool();
        command.arg("--");
        let traced = start.says(command);
        let differs = alone
            .iter()
            .zip(&traced)
            .filter(|(alone, traced)| alone != traced && !but_for.iter().any(|part| alone.contains(part)));
        let differs: Vec<_> = differs.collect();
        assert!(differs.is_empty() && alone.len() == traced.len(), "{start:?}: {differs:#?} {traced:#?}");
        assert!(traced.contains(&"hit 40 times".into()) && traced.contains(&"alarmed by 14".into()));
    }
}
