//! Interrupts whatever a thread waits for, again and again.

#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::time::Duration;

use anyhow::{Context, Result};

/// A timer of the thread that made it, until it is dropped.
#[derive(Debug)]
pub(super) struct Alarm(libc::timer_t);

extern "C" fn nothing(_: libc::c_int) {}

impl Alarm {
    /// A signal to this thread each `period`. One that comes while nothing waits is lost; the next one is not.
    pub(super) fn each(period: Duration) -> Result<Self> {
        let (seconds, rest) = (period.as_secs(), period.subsec_nanos());
        let every = libc::timespec { tv_sec: seconds as libc::time_t, tv_nsec: rest.into() };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: all-zero is a valid one of each, a handler that does nothing, and pointers to values that live that long.
        let made = unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = zeroed();
            let failed = libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) != 0
                || libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) != 0;
            (!failed).then_some(timer)
        };
        let alarm = Self(made.ok_or_else(io::Error::last_os_error).context("cannot make a timer")?);
        // SAFETY: a timer that exists, and a value that lives that long.
        let failed = unsafe { libc::timer_settime(alarm.0, 0, &raw const times, std::ptr::null_mut()) } != 0;
        if failed {
            return Err(io::Error::last_os_error()).context("cannot start a timer");
        }
        Ok(alarm)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: a timer that exists.
        unsafe { libc::timer_delete(self.0) };
    }
}
