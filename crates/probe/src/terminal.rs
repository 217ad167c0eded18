//! The terminal that a table is redrawn on: taken, and given back however trapline ends, also where that is in the handler
//! of a signal.
//!
//! The table is on standard output, keys come from standard input. Both are another's while we are in the background.

#![allow(unsafe_code)]

use std::io::{self, IsTerminal};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Once, OnceLock};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::flag;
use signal_hook::low_level::pipe;
use signal_hook_registry::register;

use crate::{inherited, signals};

/// The alternate screen, empty, and no cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &[u8] = b"\x1b[?1006l\x1b[?1000l\x1b[0m\x1b[?25h\x1b[?1049l";
/// The mouse reports where it is pressed.
const MOUSE: &[u8] = b"\x1b[?1000h\x1b[?1006h";

/// Nobody draws; somebody does; nobody does any more.
const FREE: u8 = 0;
const TAKEN: u8 = 1;
const OVER: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(FREE);
/// A picture is being written. A signal's handler waits for its end, for so many milliseconds at most.
static DRAWING: AtomicBool = AtomicBool::new(false);
const PATIENCE: u32 = 500;
/// The mouse is ours, too.
static HAS_MOUSE: AtomicBool = AtomicBool::new(false);
/// How the terminal handled keys before.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

/// What ends a process that does not catch it.
const DEADLY: [Signal; 5] =
    [Signal::SIGQUIT, Signal::SIGALRM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGXCPU];

/// What a terminal and a shell do to us, as flags.
#[derive(Debug, Default)]
pub struct Notices {
    stop: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
}

impl Notices {
    /// Writes to `wake` when the terminal has another size, and when we are to stop or go on; sees to it that the terminal
    /// is given back however we end. The calling thread does not run handlers, but for that of a stop.
    ///
    /// # Errors
    /// When a signal cannot be caught.
    pub fn listen(wake: &UnixStream) -> io::Result<Self> {
        let notices = Self::default();
        let stop = Signal::SIGTSTP as i32;
        let mut deaf = SigSet::all();
        deaf.remove(Signal::SIGTSTP);
        deaf.thread_block()?;
        pipe::register(libc::SIGWINCH, wake.try_clone()?)?;
        flag::register(libc::SIGCONT, Arc::clone(&notices.continued))?;
        pipe::register(libc::SIGCONT, wake.try_clone()?)?;
        // What a shell without job control ignores cannot stop us.
        if !inherited::ignored(stop) {
            flag::register(stop, Arc::clone(&notices.stop))?;
            pipe::register(stop, wake.try_clone()?)?;
        }
        for signal in DEADLY.map(|signal| signal as i32) {
            if !inherited::ignored(signal) {
                // SAFETY: it makes system calls and changes atomic numbers.
                unsafe { register(signal, end) }?;
                flag::register_conditional_default(signal, Arc::new(AtomicBool::new(true)))?;
            }
        }
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                end();
                before(panic);
            }));
        });
        Ok(notices)
    }

    /// Stops if somebody asked for it, and gives the terminal back meanwhile. Whether all is to be drawn anew: another has
    /// had the terminal.
    pub fn obey(&self) -> bool {
        if self.stop.swap(false, Ordering::Relaxed) {
            give_back(FREE);
            signals::stop();
        }
        self.continued.swap(false, Ordering::Relaxed)
    }
}

/// The mouse presses keys, too, from the next time on that the terminal is taken.
pub fn with_mouse() {
    HAS_MOUSE.store(true, Ordering::Relaxed);
}

/// The signals that end a screen on which nothing else runs; each gives the terminal back at once.
#[derive(Debug)]
pub struct Ends(signals::Signals);

impl Ends {
    /// Catches them from here on.
    ///
    /// # Errors
    /// When a signal cannot be caught.
    pub fn catch() -> anyhow::Result<Self> {
        signals::Signals::catch(None).map(Self)
    }

    /// Becomes readable when one comes.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

/// Whether the terminal is that of our process group, or of no session that we are in.
fn is_ours() -> bool {
    // SAFETY: a number; both can be called in a signal's handler.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(libc::STDOUT_FILENO), libc::getpgrp()) };
    foreground < 0 || foreground == own
}

/// Draws, with the terminal as it is to be; nothing where it is another's. `picture` gets whether all of it is to be drawn,
/// because nothing of it is there yet.
///
/// # Errors
/// When the picture cannot be drawn.
pub fn draw(anew: bool, picture: impl FnOnce(bool) -> io::Result<()>) -> io::Result<()> {
    if !is_ours() {
        return Ok(());
    }
    DRAWING.store(true, Ordering::SeqCst);
    let drawn = match STATE.compare_exchange(FREE, TAKEN, Ordering::SeqCst, Ordering::SeqCst) {
        Err(OVER) => Ok(()),
        Err(_) if !anew => picture(false),
        _ => {
            without_lines();
            write(ENTER);
            if HAS_MOUSE.load(Ordering::Relaxed) {
                write(MOUSE);
            }
            picture(true)
        }
    };
    DRAWING.store(false, Ordering::SeqCst);
    drawn
}

/// Whether keys are ours to read.
#[must_use]
pub fn has_keys() -> bool {
    STATE.load(Ordering::SeqCst) == TAKEN && BEFORE.get().is_some() && is_ours()
}

/// Each key comes when it is pressed, and is not shown. Those that send signals still do.
fn without_lines() {
    if !io::stdin().is_terminal() {
        return;
    }
    // SAFETY: all zeros is a value of it; it is to be filled.
    let mut now: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: it is to be filled, and outlives the call.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, &raw mut now) } != 0 {
        return;
    }
    let _ = BEFORE.set(now);
    now.c_lflag &= !(libc::ICANON | libc::ECHO);
    // Ctrl-S would stop the table, and the end with it.
    now.c_iflag &= !libc::IXON;
    now.c_cc[libc::VMIN] = 0;
    now.c_cc[libc::VTIME] = 0;
    // SAFETY: it outlives the call.
    unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const now) };
}

/// Writes to the terminal what it can take.
fn write(bytes: &[u8]) {
    let mut ready = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one of them, which outlives the call, and as many bytes as said.
    unsafe {
        if libc::poll(&raw mut ready, 1, 0) > 0 {
            libc::write(libc::STDOUT_FILENO, bytes.as_ptr().cast(), bytes.len());
        }
    }
}

/// Gives the terminal back, once and for all. It may be called in the handler of a signal.
pub fn end() {
    // SAFETY: where the number of the last error is; it is ours to change and put back.
    let errno = unsafe { *libc::__errno_location() };
    give_back(OVER);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn give_back(state: u8) {
    if STATE.swap(state, Ordering::SeqCst) != TAKEN {
        return;
    }
    for _ in 0..PATIENCE {
        if !DRAWING.load(Ordering::SeqCst) {
            break;
        }
        let millisecond = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // SAFETY: it outlives the call, and nothing is to be filled.
        unsafe { libc::nanosleep(&raw const millisecond, std::ptr::null_mut()) };
    }
    if !is_ours() {
        return;
    }
    write(LEAVE);
    if let Some(before) = BEFORE.get() {
        // SAFETY: it lives for ever.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before) };
    }
}
