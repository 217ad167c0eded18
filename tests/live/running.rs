//! Processes that run beside a test and end with it: one that fails leaves nothing behind.

use std::fmt::Display;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::run::{lines, scratch};

/// A process that is killed with all its descendants, and waited for, when this is dropped.
pub struct Running(Option<Child>);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))))
    }

    pub fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).unwrap();
    }

    /// Waits for its end, and gives what it printed.
    pub fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(child) = &mut self.0 else { return };
        if child.try_wait().is_ok_and(|status| status.is_none()) {
            kill_all(child.id());
            let _ = child.wait();
        }
    }
}

fn kill_all(pid: u32) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // Whoever is killed has no children any more.
    let children: String =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill_all);
}

/// What a process is doing, as /proc says it: `S` if it sleeps, `T` if it is stopped; `-` if there is none.
pub fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('-')
}

/// A process that works at each line that it is sent, and answers with lines.
pub struct Worker {
    child: Running,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(words: &[String]) -> Self {
        Self::by(Command::new(&words[0]).args(&words[1..]))
    }

    pub fn by(command: &mut Command) -> Self {
        let mut child = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a line.
    pub fn tell(&mut self, what: impl Display) {
        writeln!(self.to.as_mut().unwrap(), "{what}").unwrap();
    }

    /// Waits for its next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Has `on-demand` touch this many fresh pages; gives the major and minor faults that it has had so far.
    pub fn touch(&mut self, pages: u64) -> (u64, u64) {
        self.tell(pages);
        let line = self.line();
        let (major, minor) = line.split_once(' ').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    }

    /// Ends its input.
    pub fn close(&mut self) {
        self.to.take();
    }

    /// Ends its input, and waits for its end, which must be a good one: the rest of what it said.
    pub fn end(mut self) -> String {
        self.close();
        let mut said = String::new();
        self.from.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success());
        said
    }
}

/// How long is waited for what is bound to come, on a busy machine too.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until something is so that nobody is told of: of a file, or of another process.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file of JSON lines that is removed with this.
pub struct Recording(pub PathBuf);

impl Recording {
    /// A new one, to which every user can write.
    pub fn new(name: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = scratch().join(format!("{name}-{}-{serial}.jsonl", std::process::id()));
        File::create(&path).unwrap().set_permissions(Permissions::from_mode(0o666)).unwrap();
        Self(path)
    }

    /// What it has up to now.
    pub fn lines(&self) -> Vec<Value> {
        lines(&fs::read(&self.0).unwrap_or_default())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A trapline that writes to a file.
pub struct Tracer {
    pub child: Running,
    file: Recording,
}

impl Tracer {
    pub fn start(mut command: Command, file: Recording) -> Self {
        Self { child: Running::start(&mut command), file }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said up to now.
    pub fn said(&self) -> Vec<Value> {
        self.file.lines()
    }

    /// Waits until this is so of what it has said.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        until(what, || {
            let ended = self.child.try_wait().unwrap();
            let is_so = is_so(&self.said());
            assert!(is_so || ended.is_none(), "{what}: it has ended, {ended:?}");
            is_so
        });
    }

    /// Waits until it traces: then it has a header.
    pub fn begun(mut self) -> Self {
        self.until("a header", |said| !said.is_empty());
        self
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Interrupts it: what it has said at its end.
    pub fn interrupt(self) -> Vec<Value> {
        self.child.send(Signal::SIGINT);
        self.wait()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Vec<Value> {
        assert!(self.child.wait().unwrap().success());
        self.said()
    }
}
