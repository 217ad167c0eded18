//! A table that is redrawn in place, on the alternate screen of a terminal: it has a thread of its own, which nothing keeps
//! from answering keys and drawing anew when the terminal has another size.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
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

use crate::sink::Out;

/// Characters and lines of a terminal that does not say how many it has.
const USUAL: Space = Space { columns: Some(80), lines: Some(24) };

/// The size of the terminal that standard output is.
pub(crate) fn size() -> Option<Space> {
    let (Width(columns), Height(lines)) = terminal_size_of(io::stdout())?;
    Some(Space { columns: Some(columns.into()), lines: Some(lines.into()) })
}

/// As the last picture and the totals have it, which stay: both go into one screen, with the lines at the end.
pub(crate) fn half() -> Space {
    let space = size().unwrap_or(USUAL);
    Space { lines: space.lines.map(|lines| (lines.saturating_sub(8) / 2).max(4)), ..space }
}

/// Shows the rows of intervals in place, and what stays when they have ended as any other table.
pub(crate) struct LiveTable {
    table: Table<Out>,
    live: Arc<Mutex<Live>>,
    is_wide: bool,
    drawer: Option<Drawer>,
}

/// The thread that draws.
struct Drawer {
    thread: JoinHandle<io::Result<()>>,
    wake: UnixStream,
    is_over: Arc<AtomicBool>,
}

impl LiveTable {
    /// A table that stays, and one that is redrawn.
    pub(crate) fn new(table: Table<Out>, live: Live, is_wide: bool) -> Self {
        Self { table, live: Arc::new(Mutex::new(live)), is_wide, drawer: None }
    }

    fn begin(&mut self) -> io::Result<()> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let to_signals = wake.try_clone()?;
        let painter = Painter {
            live: Arc::clone(&self.live),
            is_wide: self.is_wide,
            screen: CrosstermBackend::new(BufWriter::with_capacity(
                1 << 18,
                io::stdout().as_fd().try_clone_to_owned()?.into(),
            )),
            before: Buffer::default(),
        };
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("screen".into()).spawn(move || {
            let done = painter.run(&to_signals, woken, &over);
            terminal::end();
            done
        })?;
        self.drawer = Some(Drawer { thread, wake, is_over });
        Ok(())
    }

    fn wake(&self) -> io::Result<()> {
        let Some(Drawer { thread, wake, .. }) = &self.drawer else { return Ok(()) };
        if thread.is_finished() {
            // It says why when it is waited for.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Where there is no space for a byte, there are some to wake it.
        let _ = (&mut &*wake).write(&[0]);
        Ok(())
    }

    /// Gives the terminal back, and leaves the last picture on it.
    fn leave(&mut self) -> io::Result<()> {
        let Some(Drawer { thread, mut wake, is_over }) = self.drawer.take() else { return Ok(()) };
        lock(&self.live).freeze();
        is_over.store(true, Ordering::Relaxed);
        let _ = wake.write(&[0]);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that draws has panicked")))?;
        let space = half();
        let space = if self.is_wide { Space { columns: None, ..space } } else { space };
        let lines = lock(&self.live).last(space);
        self.table.show(lines)
    }
}

fn lock(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink for LiveTable {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(_) => {
                lock(&self.live).take(item);
                self.table.take(item)?;
                self.begin()
            }
            Item::Totals(_) | Item::End(_) => {
                self.leave()?;
                self.table.take(item)
            }
            item => {
                let is_new = lock(&self.live).take(item);
                if is_new { self.wake().or_else(|_| self.leave()) } else { Ok(()) }
            }
        }
    }
}

impl Drop for LiveTable {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// What draws.
struct Painter {
    live: Arc<Mutex<Live>>,
    is_wide: bool,
    screen: CrosstermBackend<BufWriter<File>>,
    /// What is on the screen.
    before: Buffer,
}

impl Painter {
    /// Draws when it is woken, until it is over.
    fn run(mut self, to_signals: &UnixStream, mut woken: UnixStream, is_over: &AtomicBool) -> io::Result<()> {
        let notices = Notices::listen(to_signals)?;
        let mut keys_are_there = io::stdin().is_terminal();
        let mut bytes = [0; 256];
        loop {
            let anew = notices.obey();
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            terminal::draw(anew, |anew| self.draw(anew))?;
            let reads = keys_are_there && terminal::has_keys();
            let stdin = io::stdin();
            let mut fds = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
            if reads {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let pressed = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
            while woken.read(&mut bytes).is_ok_and(|n| n > 0) {}
            if pressed && terminal::has_keys() {
                match nix::unistd::read(stdin.as_fd(), &mut bytes) {
                    Ok(n @ 1..) => self.press(&bytes[..n]),
                    Err(Errno::EINTR) => {}
                    // The terminal has gone, or is another's.
                    Ok(_) | Err(_) => keys_are_there = false,
                }
            }
        }
    }

    fn press(&self, bytes: &[u8]) {
        // A key that sends several: an arrow.
        if bytes.first() == Some(&0x1b) {
            return;
        }
        for key in bytes.iter().filter_map(|&byte| Key::of(byte)) {
            lock(&self.live).press(key);
            if key == Key::Quit {
                // As Ctrl-C does it.
                let _ = kill(getpid(), Signal::SIGINT);
            }
        }
    }

    /// Writes what is different from what is there, in one piece.
    fn draw(&mut self, anew: bool) -> io::Result<()> {
        let space = size().unwrap_or(USUAL);
        let (width, height) = (space.columns.unwrap_or(80), space.lines.unwrap_or(24));
        let area = Rect::new(0, 0, width.min(1000) as u16, height.min(1000) as u16);
        let space = if self.is_wide { Space { columns: None, ..space } } else { space };
        let mut now = Buffer::empty(area);
        Text::from(lock(&self.live).draw(space)).render(area, &mut now);
        if anew || area != self.before.area {
            self.before = Buffer::empty(area);
            self.screen.write_all(b"\x1b[2J")?;
        }
        self.screen.draw(self.before.diff(&now).into_iter())?;
        self.before = now;
        Backend::flush(&mut self.screen)
    }
}
