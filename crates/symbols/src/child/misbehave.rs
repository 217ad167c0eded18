//! What a file that has taken over the symbolizer would try. In tests only.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::wire::{Misdeed, Reply};

pub(super) fn misbehave(misdeed: Misdeed) -> Reply {
    match misdeed {
        Misdeed::Calls => Reply::Errors(calls()),
        Misdeed::Hang => loop {
            std::hint::spin_loop();
        },
        Misdeed::Swell => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
            }
        }
        Misdeed::Babble => Reply::Bad("x".repeat(10_000)),
    }
}

fn calls() -> Vec<i32> {
    let error = |error: std::io::Error| error.raw_os_error().unwrap_or(-1);
    let code = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: if the call were to succeed, the page would belong to nobody.
    let mapped = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, code, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    let mapped = if mapped == libc::MAP_FAILED { Errno::last_raw() } else { 0 };
    // SAFETY: if the call were to succeed, the child would end at once, by a call that does nothing else.
    let forked = match unsafe { libc::fork() } {
        // SAFETY: as above.
        0 => unsafe { libc::_exit(0) },
        -1 => Errno::last_raw(),
        _ => 0,
    };
    // SAFETY: the arguments are numbers; what is attached to is let go when this process ends.
    let traced = match unsafe { libc::ptrace(libc::PTRACE_SEIZE, getppid().as_raw(), 0, 0) } {
        0 => 0,
        _ => Errno::last_raw(),
    };
    vec![
        File::open("/etc/passwd").map_or_else(error, |_| 0),
        UnixStream::pair().map_or_else(error, |_| 0),
        kill(Pid::from_raw(1), None::<Signal>).map_or_else(|error| error as i32, |()| 0),
        traced,
        mapped,
        forked,
    ]
}
