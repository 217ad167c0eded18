//! Titles of processes: their command lines, which programs such as PostgreSQL's backends change to what they do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use trapline_model::faults::{By, Process, TITLED, add_titles};
use trapline_model::{Item, Source};
use trapline_symbols::task::Task;

use crate::system;

/// Characters of a title.
const LENGTH: usize = 256;
/// Processes whose titles are kept.
const KEPT: usize = 1 << 16;
/// A process can keep a reader of its memory waiting (userfaultfd, FUSE). After this time its title is unknown.
const TIMEOUT: Duration = Duration::from_millis(100);
/// Readers that may be left waiting; then no further title is read.
const STUCK: usize = 4;

/// Rows by process with the titles that these had when they were first printed.
#[derive(Debug)]
pub struct Titles<S> {
    source: S,
    known: HashMap<Process, Option<Rc<str>>>,
    reader: Option<Reader>,
    stuck: usize,
}

impl<S> Titles<S> {
    /// Over rows as they are printed.
    pub fn new(source: S) -> Self {
        Self { source, known: HashMap::new(), reader: None, stuck: 0 }
    }

    fn title(&mut self, process: Process) -> Option<Rc<str>> {
        if let Some(title) = self.known.get(&process) {
            return title.clone();
        }
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        let title = self.read(process).map(Rc::from);
        self.known.insert(process, title.clone());
        title
    }

    fn read(&mut self, process: Process) -> Option<String> {
        if self.reader.is_none() && self.stuck < STUCK {
            self.reader = Reader::start().ok();
        }
        let reader = self.reader.as_ref()?;
        let title =
            reader.requests.send(process).ok().and_then(|()| reader.titles.recv_timeout(TIMEOUT).ok());
        if title.is_none() {
            self.stuck += 1;
            self.reader = None;
        }
        title?
    }
}

impl<S: Source> Source for Titles<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        match &mut item {
            Some(Item::Header(header)) => {
                let tables = header.tables.iter_mut();
                tables.filter(|table| ***table == *By::Process.schema()).for_each(|table| *table = TITLED);
            }
            Some(Item::Rows(block) | Item::Totals(block)) => add_titles(block, |process| self.title(process)),
            _ => {}
        }
        Ok(item)
    }
}

/// A thread that reads, so that none but it waits for a process.
#[derive(Debug)]
struct Reader {
    requests: Sender<Process>,
    titles: Receiver<Option<String>>,
}

impl Reader {
    fn start() -> io::Result<Self> {
        let (requests, requested) = channel::<Process>();
        let (found, titles) = channel();
        thread::Builder::new().name("titles".into()).spawn(move || {
            for process in requested {
                if found.send(title_of(process)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, titles })
    }
}

/// The title of a process that runs; nothing of one that has ended, of another with its id, and of the kernel's own.
fn title_of(Process { pid, start_ns }: Process) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/cmdline")).ok()?.take(4 * LENGTH as u64).read_to_end(&mut bytes).ok()?;
    // By the kernel's own clock, as the process is looked at.
    let start_ns = start_ns.saturating_add_signed(-system::clocks().monotonic_ns);
    Task::process(pid).filter(|task| task.is_of(Process { pid, start_ns }))?;
    let words = String::from_utf8_lossy(&bytes).replace('\0', " ");
    Some(words.trim().chars().take(LENGTH).collect()).filter(|title: &String| !title.is_empty())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_title_is_of_this_process_and_of_no_other_with_its_id() {
        let title = "postgres: a b [local] SELECT\u{1b}[2J".to_owned() + &"x".repeat(1000);
        let mut command = Command::new("bash");
        let command = command.args(["-c", "exec -a \"$1\" cat", "-", &title]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        let of = |start_ns| title_of(Process { pid, start_ns });
        let expected: String = title.chars().take(LENGTH).collect();
        while of(u64::MAX / 2).is_none_or(|title| title != expected) {
            thread::yield_now();
        }
        assert_eq!(of(0), None, "it started later");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(of(u64::MAX / 2), None, "it has ended");
    }
}
