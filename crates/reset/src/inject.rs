//! One system call inside another process: how a userfaultfd of that process's memory comes into our hands.
//!
//! A thread of the target is stopped between two instructions, is led over a `syscall` instruction that its own
//! memory holds, and goes on where it was. Nothing is written to its memory.
//!
//! The memory is the target's to change: at the entry of the call the kernel is asked what is called, and from where.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use trapline_symbols::maps::{Kind, Mapping, Maps};
use trapline_symbols::task;

use super::mapped::mapped;
use super::stopped::Stopped;
use super::uffd;

/// A userfaultfd that was made in a process, ours now.
#[derive(Debug)]
pub(crate) struct Injected {
    pub(crate) uffd: OwnedFd,
    /// How long a thread of the process stood still, nanoseconds.
    pub(crate) stopped_ns: u64,
}

/// Makes a userfaultfd in the process, takes it over and closes it there.
///
/// # Errors
/// Why not, in words for the user; the process goes on as it was.
pub(crate) fn userfaultfd_of(pid: u32) -> Result<Injected, String> {
    mapped(pid).map_err(|error| format!("{error:#}"))?;
    let process = task::pidfd(pid).map_err(|e| format!("cannot open process {pid}: {e}"))?;
    let tid = a_thread(pid).ok_or_else(|| format!("no thread of process {pid} can be stopped now"))?;

    let mut thread = Stopped::seize(pid, tid)?;
    let began = Instant::now();
    let done = borrow(&mut thread, pid, process);
    let restored = thread.release();
    let stopped_ns = began.elapsed().as_nanos() as u64;
    let uffd = done?;
    restored?;
    Ok(Injected { uffd, stopped_ns })
}

/// The calls, in the stopped thread.
fn borrow(thread: &mut Stopped, pid: u32, process: OwnedFd) -> Result<OwnedFd, String> {
    // Only now: until it stood still it could become another program, with its memory elsewhere.
    let maps = Maps::read(pid).map_err(|e| format!("cannot read process {pid}: {e}"))?;
    let memory =
        File::open(format!("/proc/{pid}/mem")).map_err(|e| format!("cannot read process {pid}: {e}"))?;
    let confined = thread.suspend_filter()?;
    let is_vdso = |m: &&Mapping| m.kind == Kind::Vdso;
    let mut gadget = maps.iter().filter(is_vdso).find_map(|m| syscall_instruction(&memory, m));
    if gadget.is_none() {
        if confined {
            return Err(format!(
                "process {pid} is sandboxed (seccomp), and has no vDSO: no other code of it is trusted"
            ));
        }
        let files = maps.iter().filter(|m| m.inode != 0 && !m.writable);
        gadget = files.into_iter().find_map(|m| syscall_instruction(&memory, m));
    }
    let gadget = gadget.ok_or("no system call instruction was found in its memory")?;
    thread.prepare(&memory)?;
    let fd = thread.call(gadget, libc::SYS_userfaultfd, uffd::FLAGS as u64)?;
    if fd < 0 {
        let why = std::io::Error::from_raw_os_error(-fd as i32);
        return Err(match -fd as i32 {
            libc::EMFILE => "its limit of open files is reached".into(),
            libc::ENOSYS | libc::EPERM => format!("it may not use userfaultfd: {why}"),
            _ => format!("its userfaultfd failed: {why}"),
        });
    }
    let taken = uffd::take_over(process.as_fd(), fd as i32);
    // Another thread may have put something else in its place: that is not ours to close.
    if taken.as_ref().is_ok_and(|taken| !uffd::is_userfaultfd(taken)) {
        return Err(format!("process {pid} replaced its new descriptor"));
    }
    thread.call(gadget, libc::SYS_close, fd as u64)?;
    taken.map_err(|e| format!("cannot take its descriptor over: {e}"))
}

/// The address of the bytes 0f 05 in an executable mapping.
fn syscall_instruction(memory: &File, mapping: &Mapping) -> Option<u64> {
    if !mapping.executable {
        return None;
    }
    let mut text = vec![0; mapping.bytes().min(4 << 20) as usize];
    let read = memory.read_at(&mut text, mapping.start).ok()?;
    let at = text[..read].windows(2).position(|bytes| bytes == [0x0f, 0x05])?;
    Some(mapping.start + at as u64)
}

/// The thread to stop: the first that runs, sleeps or is stopped; else one that waits for a disk, which may take a
/// while. None that has ended, or that a debugger holds.
fn a_thread(pid: u32) -> Option<u32> {
    let mut tids: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    tids.sort_unstable_by_key(|&tid| (tid != pid, tid));
    let state = |tid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let of = |states: &str| tids.iter().copied().find(|&tid| state(tid).is_some_and(|s| states.contains(s)));
    of("RST").or_else(|| of("D"))
}
