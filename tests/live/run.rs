//! Runs the binary and reads what it says.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::running::{Recording, Running, state, until};

/// Where the tests run.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// On the machine's own kernel.
    Here,
    /// In a virtual machine, with a kernel on which nothing may be missing.
    Vm,
}

pub fn place() -> Place {
    if std::env::var("TRAPLINE_PLACE").is_ok_and(|place| place.starts_with("vm")) {
        Place::Vm
    } else {
        Place::Here
    }
}

/// Whether what is the same on every kernel is tested, too: how things are written, what is refused before a kernel is
/// asked. Virtual machines, where each start takes a second of emulation, leave that to the machine's own kernel.
pub fn in_full() -> bool {
    place() == Place::Here
}

/// All of these, which differ in what is the same on every kernel, or the first of them: see [`in_full`].
pub fn all_or_first<T, const N: usize>(these: [T; N]) -> impl Iterator<Item = T> {
    these.into_iter().take(if in_full() { N } else { 1 })
}

/// How often a test is repeated: not under software emulation, where each variant and kernel repeats it.
pub fn runs() -> usize {
    if place() == Place::Vm { 1 } else { 50 }
}

/// A directory on a real disk, for files that can be cold.
pub fn scratch() -> PathBuf {
    let dir = std::env::var_os("TRAPLINE_SCRATCH")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(), PathBuf::from);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Names the file to which fixtures write what they say, in place of standard output.
pub const TRUTH: &str = "TRAPLINE_TRUTH";

pub fn trapline() -> Command {
    Command::new(env!("CARGO_BIN_EXE_trapline"))
}

/// `trapline faults` on a variant, as JSON lines.
pub fn faults(variant: &str, arguments: &[&str]) -> Command {
    tool(&["faults"], variant, arguments)
}

/// A tool on a variant, as JSON lines.
pub fn tool(words: &[&str], variant: &str, arguments: &[&str]) -> Command {
    let mut command = trapline();
    command.args(words).args(["--format", "jsonl"]).stdin(Stdio::null());
    if variant != "auto" {
        command.args(["--variant", variant]);
    }
    command.args(arguments);
    command
}

/// This executable as a workload.
pub fn fixture(name: &str) -> Vec<String> {
    let own = std::env::current_exe().unwrap();
    vec![own.to_str().unwrap().into(), "--fixture".into(), name.into()]
}

/// A program that is compiled from a source beside the tests.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    pub compiler: &'static str,
    pub file: &'static str,
    pub options: &'static [&'static str],
}

impl Source {
    /// Compiles it into a directory.
    pub fn compile(self, directory: &Path) -> PathBuf {
        let program = self.place(directory);
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/live").join(self.file);
        // The one that compiled this.
        let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
        let compiler = if self.compiler == "rustc" { &rustc } else { Path::new(self.compiler) };
        let made = Command::new(compiler).args(self.options).arg("-o").arg(&program).arg(source).status();
        assert!(made.unwrap_or_else(|error| panic!("{}: {error}", self.compiler)).success());
        program
    }

    /// The program, in a directory of this process's own: made here, or outside of the virtual machine, where it
    /// takes less long.
    pub fn program(self) -> PathBuf {
        let own = scratch().join(format!("programs-{}", std::process::id()));
        std::fs::create_dir_all(&own).unwrap();
        let Some(made) = std::env::var_os("TRAPLINE_PROGRAMS") else { return self.compile(&own) };
        let program = self.place(&own);
        std::fs::copy(self.place(Path::new(&made)), &program).unwrap();
        program
    }

    fn place(self, directory: &Path) -> PathBuf {
        directory.join(self.file.replace(['.', '/'], "-"))
    }
}

/// What the doctor said in JSON lines, with KVM loaded, when it was asked first: it takes seconds under emulation.
pub fn doctor() -> &'static Output {
    static SAID: OnceLock<Output> = OnceLock::new();
    let ask = || {
        crate::kvm::load();
        trapline().args(["doctor", "--format", "jsonl"]).output().unwrap()
    };
    SAID.get_or_init(ask)
}

/// Whether a variant came to Linux after the running kernel, so that it need not be there.
pub fn is_younger(variant: &str) -> bool {
    variant == "rwp" && version() < (7, 3)
}

/// The running kernel's version: its first two numbers.
pub fn version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The objects of JSON lines; lines that are something else (a command's own output) are left out.
pub fn lines(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a run printed, by type.
#[derive(Debug)]
pub struct Said {
    pub header: Value,
    pub rows: Vec<Value>,
    pub events: Vec<Value>,
    pub totals: Vec<Value>,
    pub end: Value,
    /// What a fixture said it did.
    pub truth: Vec<Value>,
}

impl Said {
    /// Whether a count is what it should be, but for what BPF programs that the kernel skipped would have counted: `each`
    /// at most.
    pub fn is_but_for_missed(&self, count: u64, expected: u64, each: u64) -> bool {
        count <= expected && expected - count <= each * missed(&self.end)
    }

    /// The times of each total are those of the rows with the same `key`: their sums and their extremes.
    pub fn times_add_up(&self, key: &str) {
        assert!(self.totals.iter().any(|total| total["timed"].as_u64() > Some(0)), "{:?}", self.totals);
        for total in &self.totals {
            let rows = self.rows.iter().filter(|row| row[key] == total[key]);
            let of = |name: &str| rows.clone().filter_map(|row| row[name].as_u64()).collect::<Vec<_>>();
            for name in ["timed", "total_ns"] {
                let all = total[name].as_u64().unwrap_or(0);
                assert_eq!(of(name).iter().sum::<u64>(), all, "{name} of {total}");
            }
            assert_eq!(of("max_ns").into_iter().max(), total["max_ns"].as_u64(), "{total}");
            assert_eq!(of("min_ns").into_iter().min(), total["min_ns"].as_u64(), "{total}");
        }
    }

    pub fn of(output: &Output) -> Self {
        Self::parse(&output.stdout, &String::from_utf8_lossy(&output.stderr))
    }

    pub fn parse(stdout: &[u8], stderr: &str) -> Self {
        Self::of_lines(lines(stdout), stderr)
    }

    pub fn of_lines(lines: Vec<Value>, stderr: &str) -> Self {
        let (mut header, mut end) = (Value::Null, Value::Null);
        let (mut rows, mut events, mut totals, mut truth) = (vec![], vec![], vec![], vec![]);
        for line in lines {
            match line["type"].as_str() {
                Some("header") => header = line,
                Some("row") => rows.push(line),
                Some("event") => events.push(line),
                Some("total") => totals.push(line),
                Some("end") => end = line,
                Some("truth") => truth.push(line),
                // What rows have in common.
                Some("block") => {}
                _ => panic!("unknown line {line}"),
            }
        }
        assert!(!end.is_null(), "no end; standard error: {stderr}");
        Self { header, rows, events, totals, end, truth }
    }

    /// Runs a command to its end, which must be a good one.
    pub fn by(command: &mut Command) -> Self {
        Self::run(command, |command| command.output().unwrap())
    }

    /// The same, run in a way of its own. What a fixture says goes to a file: two who write to one pipe cut into each other's
    /// lines when it is full.
    pub fn run(command: &mut Command, how: impl FnOnce(&mut Command) -> Output) -> Self {
        let truth = Recording::new("truth");
        let output = how(command.env(TRUTH, &truth.0));
        assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let mut said = Self::of(&output);
        said.truth.extend(truth.lines());
        said
    }
}

/// How many BPF programs the kernel skipped in a run, by its last line: what they would have counted may lack. Kernels that
/// preempt BPF programs (7.0 on) skip those that would interrupt themselves; under emulation one in eight of a storm was
/// skipped. Other kernels skip none.
pub fn missed(end: &Value) -> u64 {
    let missed = end["missed_programs"].as_u64().unwrap_or(0);
    let most = if preempts() { u(&end["events"]) / 4 + 8 } else { 0 };
    assert!(
        missed <= most,
        "the kernel skipped {missed} BPF programs, more than the {most} that may be: {end}"
    );
    missed
}

/// Whether the running kernel preempts BPF programs.
pub fn preempts() -> bool {
    let mode = std::fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    version() >= (7, 0) && (mode.contains("(full)") || mode.contains("(lazy)"))
}

/// The sum of (major, minor) over records that satisfy a condition.
pub fn sum(records: &[Value], which: impl Fn(&Value) -> bool) -> (u64, u64) {
    records.iter().filter(|r| which(r)).fold((0, 0), |(major, minor), r| {
        (major + r["major"].as_u64().unwrap(), minor + r["minor"].as_u64().unwrap())
    })
}

/// The process that was born first: the parent of all others of a command. Not told by its number: those begin anew.
pub fn parent_of_all(records: &[Value]) -> &Value {
    let born = records.iter().filter_map(|record| Some((record["start_ns"].as_u64()?, &record["pid"])));
    born.min_by_key(|&(start_ns, _)| start_ns).unwrap().1
}

pub fn u(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Runs a command as nobody, without any capability.
pub fn as_nobody(command: &mut Command) -> Output {
    command.uid(65534).gid(65534).stdin(Stdio::null()).output().unwrap()
}

/// It failed with this status and one line that holds this.
pub fn one_line(output: &Output, status: i32, holds: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert!(error.starts_with("trapline: ") && error.trim_end().lines().count() == 1, "{error}");
    assert!(error.contains(holds), "{error}");
}

/// A trapline that runs beside the test; it is attached when this exists.
pub struct Beside {
    child: Running,
    lines: Receiver<Vec<u8>>,
    said: Vec<u8>,
}

impl Beside {
    pub fn start(mut command: Command) -> Self {
        let mut child = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::inherit()));
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (to, lines) = mpsc::channel();
        // All the time: what nobody reads would hold it up.
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if to.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        let mut beside = Self { child, lines, said: Vec::new() };
        assert!(beside.line().starts_with(b"{\"type\":\"header\""), "no header from {command:?}");
        beside
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it, until it goes on.
    pub fn stop(&self) {
        self.child.send(Signal::SIGSTOP);
        until("it stops", || state(self.pid()) == 'T');
    }

    pub fn go_on(&self) {
        self.child.send(Signal::SIGCONT);
    }

    /// What it said first.
    pub fn header(&self) -> Value {
        serde_json::from_slice(self.said.split(|&byte| byte == b'\n').next().unwrap()).unwrap()
    }

    fn line(&mut self) -> Vec<u8> {
        let line = self.lines.recv().unwrap_or_default();
        self.said.extend_from_slice(&line);
        line
    }

    /// Waits for its next record.
    pub fn next(&mut self) -> Value {
        serde_json::from_slice(&self.line()).unwrap()
    }

    /// Of one that shows rows since the start: waits until all stacks of the programs of this name have been looked up. On a
    /// busy machine there are always others that have not.
    pub fn until_all_is_named(&mut self, comm: &str) {
        let (mut is_named, mut rows) = (true, 0);
        let own = format!(r#""stack":"{comm};"#);
        loop {
            // There are many: they are not parsed.
            let line = String::from_utf8(self.line()).unwrap();
            if line.starts_with(r#"{"type":"block""#) {
                if is_named && rows > 0 {
                    return;
                }
                (is_named, rows) = (true, 0);
            }
            rows += usize::from(line.contains(&own));
            is_named &= !line.contains(&own) || !line.contains("[not symbolized yet]");
            assert!(!line.is_empty(), "it has ended");
        }
    }

    /// Interrupts it, as Ctrl-C does, and gives what it said.
    pub fn interrupt(self) -> Said {
        self.child.send(Signal::SIGINT);
        self.wait()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Said {
        self.lines.iter().for_each(|line| self.said.extend(line));
        assert!(self.child.wait().unwrap().success());
        Said::parse(&self.said, "(see above)")
    }
}

/// A process that runs beside the test, whose input and output are the test's.
pub fn spawn(words: &[String]) -> Running {
    let mut command = Command::new(&words[0]);
    Running::start(command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()))
}
