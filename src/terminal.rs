//! A table that is redrawn in place, on the alternate screen of a terminal: it has a thread of its own, which nothing keeps
//! from answering keys and drawing anew when the terminal has another size.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
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
    fn size(self) -> (u16, u16) {
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

/// Shows the rows of intervals in place, and what stays when they have ended as any other table.
pub(crate) struct LiveTable {
    table: Table<Out>,
    live: Arc<Mutex<Live>>,
    fit: Fit,
    /// Lines of the last picture.
    used: Rc<Cell<usize>>,
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
    pub(crate) fn new(table: Table<Out>, live: Live, fit: Fit, used: Rc<Cell<usize>>) -> Self {
        Self { table, live: Arc::new(Mutex::new(live)), fit, used, drawer: None }
    }

    fn begin(&mut self) -> io::Result<()> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let to_signals = wake.try_clone()?;
        let painter = Painter {
            live: Arc::clone(&self.live),
            fit: self.fit,
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
        let lines = lock(&self.live).last(self.fit.last(usize::MAX));
        self.used.set(lines.len());
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
    fit: Fit,
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
            let picture = self.picture();
            terminal::draw(anew, |anew| self.draw(picture, anew))?;
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

    /// Makes a picture: it takes longer than to write one, which the end of the run waits for.
    fn picture(&self) -> Buffer {
        let (width, height) = self.fit.size();
        let area = Rect::new(0, 0, width.min(1000), height.min(1000));
        let mut now = Buffer::empty(area);
        Text::from(lock(&self.live).draw(self.fit.picture())).render(area, &mut now);
        now
    }

    /// Writes what is different from what is there, in one piece.
    fn draw(&mut self, now: Buffer, anew: bool) -> io::Result<()> {
        if anew || now.area != self.before.area {
            self.before = Buffer::empty(now.area);
            self.screen.write_all(b"\x1b[2J")?;
        }
        self.screen.draw(self.before.diff(&now).into_iter())?;
        self.before = now;
        Backend::flush(&mut self.screen)
    }
}
