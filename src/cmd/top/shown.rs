//! The screen between keys and tools: it passes inputs to the state, and what that asks for to who does it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, Weak};

use anyhow::Result;
use jiff::Zoned;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use trapline_model::Item;
use trapline_view::top::{Command, Input, Keyboard, State};

use crate::format::{Ask, Format};
use crate::sink::{self, From, Stream};
use crate::terminal::{Fit, Picture, Waker, lock};

/// The screen and its state.
pub(super) struct Shown {
    state: State,
    keyboard: Keyboard,
    orders: Sender<Command>,
}

impl Shown {
    pub(super) fn new(state: State, orders: Sender<Command>) -> Self {
        Self { state, keyboard: Keyboard::default(), orders }
    }

    /// What is to be done first.
    pub(super) fn begin(&mut self) {
        let commands = self.state.begin();
        self.order(commands);
    }

    fn order(&self, commands: Vec<Command>) {
        // At the end nobody takes them.
        commands.into_iter().for_each(|command| drop(self.orders.send(command)));
    }

    fn take(&mut self, input: Input) {
        let commands = self.state.update(input);
        self.order(commands);
    }
}

impl Picture for Shown {
    fn draw(&mut self, area: Rect) -> Buffer {
        self.take(Input::Size(area.width, area.height));
        let mut buffer = Buffer::empty(area);
        self.state.draw(&mut buffer);
        buffer
    }

    fn press(&mut self, bytes: &[u8]) -> bool {
        let presses = self.keyboard.read(bytes);
        let commands: Vec<Command> =
            presses.into_iter().flat_map(|press| self.state.update(Input::Press(press))).collect();
        let is_end = commands.contains(&Command::Quit);
        self.order(commands);
        is_end
    }

    fn size(&self) -> (u16, u16) {
        Fit { stream: Stream::Output, is_wide: false, is_whole: false }.size()
    }
}

/// A way to the screen, for threads that may outlast it.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) shown: Weak<Mutex<Shown>>,
    pub(super) waker: Arc<Waker>,
}

impl Post {
    /// Passes an input on; the screen is drawn anew for what can be seen.
    pub(super) fn send(&self, input: Input) {
        let is_seen =
            !matches!(input, Input::Cost { .. } | Input::Item { item: Item::Rows(_) | Item::Facts(_), .. });
        if let Some(shown) = self.shown.upgrade() {
            lock(&shown).take(input);
        }
        if is_seen {
            self.waker.wake();
        }
    }
}

impl Post {
    /// Writes a recording in the working directory, and reports its name.
    pub(super) fn write(&self, items: &[Item]) {
        let said = write(items, Path::new("."))
            .map_or_else(|error| format!("{error:#}"), |name| format!("written to {name}"));
        self.send(Input::Said(said));
    }
}

/// A thread that panics ends it all: the terminal is not its own any more.
pub(super) struct EndIfPanicked;

impl Drop for EndIfPanicked {
    fn drop(&mut self) {
        if std::thread::panicking() {
            HAS_PANICKED.store(true, Ordering::Relaxed);
            let _ = kill(getpid(), Signal::SIGTERM);
        }
    }
}

static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// Whether a thread has panicked.
pub(super) fn has_panicked() -> bool {
    HAS_PANICKED.load(Ordering::Relaxed)
}

/// Writes items to a recording in this folder, and gives its name.
///
/// # Errors
/// When it cannot be written.
fn write(items: &[Item], folder: &Path) -> Result<String> {
    let name = free(&Zoned::now().strftime("trapline-top-%Y%m%d-%H%M%S").to_string(), folder);
    let schema = items.iter().find_map(|item| match item {
        Item::Rows(block) => Some(block.table),
        _ => None,
    });
    let ask = Ask::new(schema.unwrap_or(trapline_model::faults::EVENT));
    let mut sink = sink::open(Format::Recording, Some(&folder.join(&name)), From::Recording, ask)?;
    items.iter().try_for_each(|item| sink.take(item))?;
    Ok(name)
}

/// The first name of a recording that nothing in this folder has: there may be several in a second.
fn free(name: &str, folder: &Path) -> String {
    let mut names = (1..).map(|n: u32| match n {
        1 => format!("{name}.trapline"),
        n => format!("{name}-{n}.trapline"),
    });
    let is_free = |name: &String| folder.join(name).symlink_metadata().is_err();
    names.find(is_free).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use trapline_model::faults::By;
    use trapline_model::{Block, Facts, Header};

    use super::{Item, free, write};

    #[test]
    fn recordings_of_the_same_second_have_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let table = By::Process.schema();
        let header = Header { tool: "faults".into(), tables: vec![table], ..Header::default() };
        let totals = Item::Totals(Block::new(table, 1, vec![]));
        let items = [Item::Header(header), totals, Item::End(Facts::default())];
        let names: Vec<String> = (0..3).map(|_| write(&items, folder.path()).unwrap()).collect();
        for name in &names {
            assert!(folder.path().join(name).is_dir(), "{names:?}");
        }
        assert!(names[0] != names[1] && names[1] != names[2] && names[2] != names[0], "{names:?}");
        std::fs::create_dir(folder.path().join("a.trapline")).unwrap();
        assert_eq!(free("a", folder.path()), "a-2.trapline");
        std::fs::write(folder.path().join("a-2.trapline"), "").unwrap();
        assert_eq!(free("a", folder.path()), "a-3.trapline");
        assert_eq!(free("b", folder.path()), "b.trapline");
    }
}
