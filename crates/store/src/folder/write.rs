//! Writes a recording. Items are put into columns as they come; a thread of its own encodes and writes them.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use trapline_model::faults::STACKS;
use trapline_model::recorded::{Entry, EntryKind};
use trapline_model::{Batch, BatchSink, Item, Schema, Sink};
use trapline_view::JsonLines;

use super::keep::{Keep, Kept, Written};
use super::manifest::{self, Manifest, Part};
use super::pending::Pending;
use super::{END, HEADER, part, seal};

/// A part is written after this time, so that a kill costs no more.
const EVERY: Duration = Duration::from_secs(5);
/// Or when its columns take this much memory, bytes.
const MOST: usize = 64 << 20;

/// A recording that is written into a folder.
pub struct Recorder {
    shared: Arc<Shared>,
    folder: Arc<Folder>,
    kept: Kept,
    messages: Option<&'static Schema>,
    thread: Option<JoinHandle<()>>,
    start_ns: u64,
}

/// The folder of a recording, and where it is.
struct Folder {
    dir: OwnedFd,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// The number of the next item.
    next: u64,
    /// All that was pending is being written.
    is_writing: bool,
    /// It is to be written now.
    is_due: bool,
    /// The number of writes.
    writes: u64,
    /// The number of messages, and of those around which nothing is kept.
    messages: u64,
    unkept: u64,
    /// No more comes.
    ended: bool,
    failed: Option<io::Error>,
}

impl Shared {
    /// Adds the next item to what is to be written.
    fn add(&self, put: impl FnOnce(&mut Pending, u64)) -> io::Result<()> {
        let mut state = self.lock();
        // What waits takes no more memory than two parts, however slow the disk is.
        while state.is_writing && state.pending.bytes() >= MOST && state.failed.is_none() {
            state = self.wait(state, EVERY);
        }
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let at = state.next;
        state.next += 1;
        put(&mut state.pending, at);
        state.is_due = state.pending.bytes() >= MOST;
        if state.is_due {
            self.changed.notify_all();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Recorder {
    /// Into an empty folder.
    #[must_use]
    pub fn new(dir: OwnedFd, kept: Kept) -> Self {
        let shared = Arc::default();
        Self { shared, folder: Arc::new(Folder { dir }), kept, messages: None, thread: None, start_ns: 0 }
    }

    /// Events of this table are messages. They are not recorded; what was recorded around them is kept.
    #[must_use]
    pub fn keeping_on(mut self, messages: Option<&'static Schema>) -> Self {
        self.messages = messages;
        self
    }

    /// Waits until all was written that was taken.
    #[cfg(test)]
    pub(super) fn settle(&mut self) {
        self.shared.lock().is_due = true;
        self.shared.changed.notify_all();
        let mut state = self.shared.lock();
        while state.is_due || state.is_writing {
            state = self.shared.wait(state, EVERY);
        }
    }

    fn begin(&mut self, header: &Item) -> io::Result<()> {
        if self.thread.is_some() {
            return Err(io::Error::other("a recording is of one tool"));
        }
        self.folder.put(HEADER, seal(&line(header)?).as_bytes())?;
        let mut writer = Writer { folder: Arc::clone(&self.folder), keep: Keep::new(self.kept), number: 0 };
        let shared = Arc::clone(&self.shared);
        let run = move || writer.run(&shared);
        self.thread = Some(std::thread::Builder::new().name("recorder".into()).spawn(run)?);
        Ok(())
    }

    /// Waits until all was written.
    fn end(&mut self) -> io::Result<()> {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            return Err(io::Error::other("the thread that writes it has failed"));
        }
        self.shared.lock().failed.take().map_or(Ok(()), Err)
    }
}

impl Sink for Recorder {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        if let Item::Header(header) = item {
            self.start_ns = header.start_ns;
            return self.begin(item);
        }
        if let Item::End(end) = item {
            self.end()?;
            // What was cut off has no end, nor has its copy: its last facts came before.
            if end.is("cut_off") {
                return Ok(());
            }
            let end = line(item)?;
            let end = format!(
                "{},\"writes\":{}}}",
                end.trim_end().trim_end_matches('}'),
                self.shared.lock().writes
            );
            return self.folder.put(END, seal(&end).as_bytes());
        }
        if let Item::Events(events) = item
            && let (Some(messages), Some(first)) = (self.messages, events.first())
            && *first.record.schema() == *messages
        {
            let mut state = self.shared.lock();
            state.messages += events.len() as u64;
            state.pending.messages += events.len() as u64;
            return Ok(());
        }
        self.shared.add(|pending, at| match item {
            Item::Events(events) => {
                let Some(first) = events.first() else { return };
                for event in events {
                    pending.row(EntryKind::Events, at, event.time_ns, &event.record);
                }
                pending.events(at, first.time_ns, first.record.schema(), events.len());
            }
            Item::Rows(block) => pending.block(EntryKind::Rows, at, block),
            Item::Totals(block) => pending.block(EntryKind::Totals, at, block),
            Item::Facts(facts) => pending.facts(at, self.start_ns + facts.duration_ns, facts),
            Item::Tick(time_ns) => {
                let entry = Entry {
                    kind: EntryKind::Tick,
                    tables: String::new(),
                    rows: 0,
                    hidden: 0,
                    since_ns: None,
                };
                pending.entry(at, *time_ns, &entry);
            }
            Item::Header(_) | Item::End(_) => {}
        })
    }

    fn batches(&mut self) -> Option<Box<dyn BatchSink>> {
        Some(Box::new(Batches { shared: Arc::clone(&self.shared) }))
    }

    fn remark(&self) -> Option<String> {
        let State { messages, unkept, .. } = *self.shared.lock();
        (unkept > 0).then(|| {
            format!(
                "the faults around {unkept} of {messages} messages were discarded: \
                 what is kept around messages takes at most as much as --keep again; use a larger --keep"
            )
        })
    }
}

/// A recording as the place where events are put before they are records.
struct Batches {
    shared: Arc<Shared>,
}

impl BatchSink for Batches {
    fn take(&mut self, events: &dyn Batch) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.shared.add(|pending, at| {
            if *events.table() == *STACKS {
                pending.columns(EntryKind::Frames, events.table()).extend(at, events);
                return pending.aside(events.time_ns(0));
            }
            pending.columns(EntryKind::Events, events.table()).extend(at, events);
            pending.events(at, events.time_ns(0), events.table(), events.len());
        })
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // A run that failed: what it had taken is written, and the recording has no end.
        let _ = self.end();
    }
}

/// The item as a line of JSON lines.
fn line(item: &Item) -> io::Result<String> {
    let mut bytes = Vec::new();
    JsonLines::new(&mut bytes).take(item)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// What the thread has.
struct Writer {
    folder: Arc<Folder>,
    keep: Keep,
    number: u64,
}

impl Writer {
    fn run(&mut self, shared: &Shared) {
        loop {
            let mut state = shared.lock();
            let pending = loop {
                let age = state.pending.since.map(|since| since.elapsed());
                if state.ended || state.is_due || age.is_some_and(|age| age >= EVERY) {
                    state.is_due = false;
                    state.is_writing = true;
                    break std::mem::take(&mut state.pending);
                }
                state = shared.wait(state, EVERY.saturating_sub(age.unwrap_or_default()));
            };
            let ended = state.ended;
            drop(state);
            let written = if pending.tables.is_empty() { Ok(()) } else { self.write(pending) };
            let mut state = shared.lock();
            state.is_writing = false;
            state.writes = self.number;
            state.unkept = self.keep.unkept;
            let failed = written.is_err();
            state.failed = written.err();
            drop(state);
            shared.changed.notify_all();
            if ended || failed {
                return;
            }
        }
    }

    fn write(&mut self, pending: Pending) -> io::Result<()> {
        self.number += 1;
        let mut parts = Vec::new();
        for ((kind, table), columns) in pending.tables {
            let name = match kind {
                EntryKind::Items => format!("items-{:06}.parquet", self.number),
                _ => format!("{}-{table}-{:06}.parquet", kind.name(), self.number),
            };
            let content = part::encode(columns)?;
            self.folder.put(&name, &content)?;
            parts.push(Part::new(name, &content));
        }
        let at = Instant::now();
        let names = self.keep.add(Written {
            number: self.number,
            at,
            took: pending.since.map_or(Duration::ZERO, |since| at - since),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            parts: parts.clone(),
            messages: pending.messages,
        });
        let manifest = Manifest {
            parts,
            frames: self.keep.frames(),
            first: self.keep.first().unwrap_or(self.number),
            moments: self.keep.moments(),
            unkept: self.keep.unkept,
            times: pending.times.unwrap_or_default(),
        };
        self.folder.sync()?;
        self.folder.put(&manifest::name(self.number), seal(&manifest.write()).as_bytes())?;
        self.folder.sync()?;
        names.iter().for_each(|name| self.folder.remove(name));
        Ok(())
    }
}

impl Folder {
    /// Makes a file, which has its name when it is whole.
    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let draft = format!(".{name}.tmp");
        let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(self.dir.as_fd(), draft.as_str(), how, mode)?);
        let written = file.write_all(content).and_then(|()| file.sync_all());
        let named =
            written.and_then(|()| Ok(renameat(self.dir.as_fd(), draft.as_str(), self.dir.as_fd(), name)?));
        if named.is_err() {
            self.remove(&draft);
        }
        named
    }

    fn sync(&self) -> io::Result<()> {
        match nix::unistd::fsync(&self.dir) {
            // Some file systems have none for folders.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn remove(&self, name: &str) {
        let _ = unlinkat(self.dir.as_fd(), name, UnlinkatFlags::NoRemoveDir);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("kept", &self.kept).finish_non_exhaustive()
    }
}
