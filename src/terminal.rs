//! A table that is redrawn in place, on the alternate screen of a terminal: it has a thread of its own, which nothing keeps
//! from answering keys and drawing anew when the terminal has another size.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Text;
use ratatui::widgets::Widget;
use terminal_size::{Height, Width, terminal_size_of};
use trapline_model::{Item, Sink};
use trapline_probe::terminal::{self, Notices};
use trapline_view::{Key, Live, Space, Table};

use crate::sink::{Out, Stream};

/// Characters and lines of a terminal that does not report its size.
const USUAL: (u16, u16) = (80, 24);

/// Lines below the totals: what the run cost, and the next prompt, above which the command line stays.
const END: usize = 4;

/// The space that tables have on a terminal, by what options say about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fit {
    pub(crate) stream: Stream,
    /// Lines may be longer than the terminal's.
    pub(crate) is_wide: bool,
    /// Tables that stay have all rows that come.
    pub(crate) is_whole: bool,
}

impl Fit {
    /// Characters and lines of the terminal, as it is now.
    pub(crate) fn size(self) -> (u16, u16) {
        let size = match self.stream {
            Stream::Output => terminal_size_of(io::stdout()),
            Stream::Error => terminal_size_of(io::stderr()),
        };
        size.map_or(USUAL, |(Width(columns), Height(lines))| (columns, lines))
    }

    fn space(self, of: impl Fn(usize) -> Space) -> Space {
        let (columns, lines) = self.size();
        Space { columns: (!self.is_wide).then_some(columns.into()), ..of(lines.into()) }
    }

    /// For a picture that is redrawn.
    fn picture(self) -> Space {
        self.space(|lines| Space { lines: Some(lines), ..Space::default() })
    }

    /// For the last picture, and for the totals below this number of lines: all fits one screen, with the lines at the end.
    pub(crate) fn last(self, used: usize) -> Space {
        let fitting = |lines: usize| {
            (lines.saturating_sub(8) / 2).max(lines.saturating_sub(used.saturating_add(END))).max(4)
        };
        self.space(|lines| Space { lines: (!self.is_whole).then(|| fitting(lines)), ..Space::default() })
    }

    /// For blocks that follow each other: as many rows as fit a screen with headings and the sum; their stacks are read by
    /// scrolling.
    pub(crate) fn block(self) -> Space {
        let fitting = |lines: usize| lines.saturating_sub(4).max(20);
        self.space(|lines| Space { rows: (!self.is_whole).then(|| fitting(lines)), ..Space::default() })
    }
}

/// What a screen shows, and what keys do to it.
pub(crate) trait Picture: Send + 'static {
    /// The picture in a terminal of this size.
    fn draw(&mut self, area: Rect) -> Buffer;
    /// Keys are pressed. Whether that is the end.
    fn press(&mut self, bytes: &[u8]) -> bool;
    /// The size of the terminal.
    fn size(&self) -> (u16, u16);
}

/// A picture on the alternate screen of a terminal.
pub(crate) struct Screen {
    wake: UnixStream,
    thread: JoinHandle<io::Result<()>>,
    is_over: Arc<AtomicBool>,
}

/// Has the picture drawn anew.
#[derive(Debug)]
pub(crate) struct Waker(UnixStream);

impl Waker {
    /// Soon.
    pub(crate) fn wake(&self) {
        // Where there is no space for a byte, there are some to wake it.
        let _ = (&mut &self.0).write(&[0]);
    }
}

impl Screen {
    /// Takes the terminal, and draws when it is woken.
    pub(crate) fn begin<P: Picture>(picture: &Arc<Mutex<P>>) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let to_signals = wake.try_clone()?;
        let painter = Painter {
            picture: Arc::clone(picture),
            output: output()?,
            before: Buffer::default(),
            unwritten: vec![],
        };
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("screen".into()).spawn(move || {
            let done = painter.run(&to_signals, woken, &over);
            terminal::end();
            done
        })?;
        Ok(Self { wake, thread, is_over })
    }

    pub(crate) fn waker(&self) -> io::Result<Waker> {
        self.wake.try_clone().map(Waker)
    }

    /// Has it drawn anew.
    ///
    /// # Errors
    /// When it cannot be drawn any more.
    fn wake(&self) -> io::Result<()> {
        if self.is_done() {
            // It says why when it is waited for.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let _ = (&mut &self.wake).write(&[0]);
        Ok(())
    }

    /// Nobody draws any more.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Gives the terminal back.
    ///
    /// # Errors
    /// When the picture could not be drawn.
    pub(crate) fn leave(self) -> io::Result<()> {
        let Self { thread, mut wake, is_over } = self;
        is_over.store(true, Ordering::Relaxed);
        let _ = wake.write(&[0]);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that draws has panicked")))
    }
}

pub(crate) fn lock<P>(picture: &Mutex<P>) -> MutexGuard<'_, P> {
    picture.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A table in place, in this space.
struct Redrawn {
    live: Live,
    fit: Fit,
}

impl Picture for Redrawn {
    fn draw(&mut self, area: Rect) -> Buffer {
        let mut now = Buffer::empty(area);
        Text::from(self.live.draw(self.fit.picture())).render(area, &mut now);
        now
    }

    fn press(&mut self, bytes: &[u8]) -> bool {
        // A key that sends several: an arrow.
        if bytes.first() == Some(&0x1b) {
            return false;
        }
        let keys: Vec<Key> = bytes.iter().filter_map(|&byte| Key::of(byte)).collect();
        keys.iter().for_each(|key| self.live.press(*key));
        keys.contains(&Key::Quit)
    }

    fn size(&self) -> (u16, u16) {
        self.fit.size()
    }
}

/// Shows the rows of intervals in place, and what stays when they have ended as any other table.
pub(crate) struct LiveTable {
    table: Table<Out>,
    picture: Arc<Mutex<Redrawn>>,
    fit: Fit,
    /// Lines of the last picture.
    used: Rc<Cell<usize>>,
    screen: Option<Screen>,
}

impl LiveTable {
    /// A table that stays, and one that is redrawn.
    pub(crate) fn new(table: Table<Out>, live: Live, fit: Fit, used: Rc<Cell<usize>>) -> Self {
        Self { table, picture: Arc::new(Mutex::new(Redrawn { live, fit })), fit, used, screen: None }
    }

    /// Gives the terminal back, and leaves the last picture on it.
    fn leave(&mut self) -> io::Result<()> {
        let Some(screen) = self.screen.take() else { return Ok(()) };
        lock(&self.picture).live.freeze();
        screen.leave()?;
        let lines = lock(&self.picture).live.last(self.fit.last(usize::MAX));
        self.used.set(lines.len());
        self.table.show(lines)
    }
}

impl Sink for LiveTable {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(_) => {
                lock(&self.picture).live.take(item);
                self.table.take(item)?;
                self.screen = Some(Screen::begin(&self.picture)?);
                Ok(())
            }
            Item::Totals(_) | Item::End(_) => {
                self.leave()?;
                self.table.take(item)
            }
            item => {
                let is_new = lock(&self.picture).live.take(item);
                match self.screen.as_ref().filter(|_| is_new).map(Screen::wake) {
                    Some(Err(_)) => self.leave(),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Drop for LiveTable {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// Standard output, such that a write does not wait where the terminal reads nothing: opened anew, since those who have it
/// with us wait. Where it cannot be opened, a write waits.
fn output() -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let own = File::options().write(true).custom_flags(flags.bits()).open("/proc/self/fd/1");
    own.or_else(|_| Ok(io::stdout().as_fd().try_clone_to_owned()?.into()))
}

/// What draws.
struct Painter<P> {
    picture: Arc<Mutex<P>>,
    output: File,
    /// What is on the screen, when all is written.
    before: Buffer,
    /// What of it the terminal has not taken yet; the next picture waits for that.
    unwritten: Vec<u8>,
}

/// A picture that no key asks for comes no sooner than this after the one before.
const APART: Duration = Duration::from_millis(40);

impl<P: Picture> Painter<P> {
    /// Draws when it is woken, until it is over.
    fn run(mut self, to_signals: &UnixStream, mut woken: UnixStream, is_over: &AtomicBool) -> io::Result<()> {
        let notices = Notices::listen(to_signals)?;
        let mut keys_are_there = io::stdin().is_terminal();
        let mut bytes = [0; 256];
        // Whether there is something to draw, and when it is time for it.
        let (mut is_new, mut due) = (true, Instant::now());
        loop {
            let anew = notices.obey();
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let now = Instant::now();
            if anew || is_new && due <= now && self.unwritten.is_empty() {
                let picture = self.picture();
                terminal::draw(anew, |anew| self.draw(picture, anew))?;
                (is_new, due) = (false, Instant::now() + APART);
            } else if !self.unwritten.is_empty() {
                let mut is_written = false;
                terminal::draw(false, |anew| {
                    is_written = !anew;
                    if is_written { self.write() } else { Ok(()) }
                })?;
                if !is_written {
                    // Another has had the terminal.
                    (self.before, self.unwritten) = (Buffer::default(), vec![]);
                    is_new = true;
                }
            }
            let reads = keys_are_there && terminal::has_keys();
            let stdin = io::stdin();
            let waits = !self.unwritten.is_empty();
            // Only what is waited for: a terminal that is gone is always ready.
            let mut fds = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
            if reads {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            if waits {
                fds.push(PollFd::new(self.output.as_fd(), PollFlags::POLLOUT));
            }
            let left = due.saturating_duration_since(now).as_millis() as u16 + 1;
            match poll(&mut fds, if is_new && !waits { PollTimeout::from(left) } else { PollTimeout::NONE }) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let pressed = reads && fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
            while woken.read(&mut bytes).is_ok_and(|n| n > 0) {
                is_new = true;
            }
            if pressed && terminal::has_keys() {
                match nix::unistd::read(stdin.as_fd(), &mut bytes) {
                    Ok(n @ 1..) => {
                        (is_new, due) = (true, now);
                        let is_end = lock(&self.picture).press(&bytes[..n]);
                        if is_end {
                            // As Ctrl-C does it.
                            let _ = kill(getpid(), Signal::SIGINT);
                        }
                    }
                    Err(Errno::EINTR) => {}
                    // The terminal has gone, or is another's.
                    Ok(_) | Err(_) => keys_are_there = false,
                }
            }
        }
    }

    /// Makes a picture: it takes longer than to write one, which the end of the run waits for.
    fn picture(&self) -> Buffer {
        let mut picture = lock(&self.picture);
        let (width, height) = picture.size();
        picture.draw(Rect::new(0, 0, width.min(1000), height.min(1000)))
    }

    /// Writes what is different from what is there, in one piece.
    fn draw(&mut self, now: Buffer, anew: bool) -> io::Result<()> {
        self.unwritten.clear();
        if anew || now.area != self.before.area {
            self.before = Buffer::empty(now.area);
            self.unwritten.extend(b"\x1b[2J");
        }
        CrosstermBackend::new(&mut self.unwritten).draw(self.before.diff(&now).into_iter())?;
        self.before = now;
        self.write()
    }

    /// As much as the terminal takes.
    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        let done = loop {
            match self.output.write(&self.unwritten[written..]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
            if written == self.unwritten.len() {
                break Ok(());
            }
        };
        self.unwritten.drain(..written);
        done
    }
}

#[cfg(test)]
mod tests;
