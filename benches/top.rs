//! `trapline top` while 2,000 processes fault: what it takes of a processor, whether it draws at its interval, and how long
//! a key waits for its picture.
//!
//! The processes take turns, on each processor one at a time, so that all of them have rows in each interval. Keys go to a
//! pseudo terminal; beside it, another one has a program that sends each byte back: what the scheduler takes of a key's
//! time. The result goes to standard output. `-- --trapline=PATH` measures another executable,
//! `--quiet=SECONDS` for longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unsafe_code)]

#[allow(dead_code)]
mod watch;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use crate::watch::median;

const PROCESSES: usize = 2000;
/// Faults of a process in its turn.
const TURN: usize = 64;
const COLUMNS: usize = 100;
const LINES: usize = 40;
/// The line of the selected row's name, below the rows.
const SELECTED: usize = LINES - 9;
/// Seconds without a key, and then so many keys.
const QUIET: u64 = 12;
const KEYS: usize = 60;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--echo") {
        return echo();
    }
    assert!(nix::unistd::geteuid().is_root(), "run it as root");
    // Two for each process of the storm.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let given = words.iter().find_map(|word| word.strip_prefix("--trapline="));
    let trapline = given.unwrap_or(env!("CARGO_BIN_EXE_trapline"));
    let quiet = words.iter().find_map(|word| word.strip_prefix("--quiet="));
    let quiet = Duration::from_secs(quiet.map_or(QUIET, |seconds| seconds.parse().unwrap()));
    println!(
        "`trapline top faults` at an interval of 1 second on a terminal of {COLUMNS}x{LINES}, for {} seconds without keys \
         and then {KEYS} keys (a row, a column to sort by, the help), while {PROCESSES} processes fault in turns of {TURN} \
         faults, each at ordinary priority. *own CPU* is of one processor, of {} here. *drawn every* has the shortest and \
         the longest time between new rows. *a key* is the time from a key to its picture; *echo* that of a program that \
         sends a byte back, at the same time: the scheduler's part of it.\n",
        quiet.as_secs(),
        processors()
    );
    println!(
        "| faults a second | rows | own CPU | drawn every | a key: median | worst | echo: median | worst | RSS at the start | at the end |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for rate in [Some(500_000), None] {
        println!("{}", measured(trapline, quiet, rate));
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// A row of the table, with this number of faults a second; without one, as many as there can be.
fn measured(trapline: &str, quiet: Duration, rate: Option<u64>) -> String {
    let storm = Storm::start(rate);
    let mut top = Terminal::start(
        Command::new(trapline).args(["top", "faults", "-i", "1s"]).env("TERM", "xterm").env("LC_ALL", "C"),
    );
    let mut echo = Terminal::start(Command::new(std::env::current_exe().unwrap()).arg("--echo"));
    top.until("rows", |screen| screen[2].contains("TOTAL_MS"));
    // The rows of all of them have come.
    top.passes(Duration::from_secs(3));
    let (rss, cpu, made, begun) = (top.rss(), top.cpu(), storm.faults(), Instant::now());
    let drawn = top.passes(quiet);
    let made = (storm.faults() - made) as f64 / begun.elapsed().as_secs_f64();
    let (mut keys, mut echoes) = (vec![], vec![]);
    for key in [b"\x1b[B".as_slice(), b">", b"?", b"?"].iter().cycle().take(KEYS) {
        // At any moment of an interval.
        top.passes(Duration::from_millis(170));
        echoes.push(echo.answers(b"x", |old, new| old != new));
        let is_other =
            |place: fn(&[String]) -> &str| move |old: &[String], new: &[String]| place(old) != place(new);
        keys.push(match *key {
            b"?" => top.answers(key, |old, new| is_help(old) != is_help(new)),
            b">" => {
                top.answers(key, is_other(|screen| screen[1].split("rows by ").nth(1).unwrap_or_default()))
            }
            _ => top.answers(key, is_other(|screen| &screen[SELECTED][..COLUMNS / 2])),
        });
    }
    let own = (top.cpu() - cpu).as_secs_f64() * 100.0 / begun.elapsed().as_secs_f64();
    let rows = top.screen.lines[1].split(" rows by").next().and_then(|text| text.split_whitespace().last());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let worst = |times: &[Duration]| ms(times.iter().max().copied().unwrap());
    let middle = |times: &[Duration]| median(times.iter().copied().map(ms));
    let apart: Vec<Duration> = drawn.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let row = format!(
        "| {} | {} | {own:.1} % | {:.0} to {:.0} ms | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} MB | {:.1} MB |",
        match rate {
            Some(rate) => format!("{:.0}k of {}k", made / 1e3, rate / 1000),
            None => format!("{:.0}k, as many as there can be", made / 1e3),
        },
        rows.unwrap_or("?"),
        ms(*apart.iter().min().expect("it was drawn")),
        worst(&apart),
        middle(&keys),
        worst(&keys),
        middle(&echoes),
        worst(&echoes),
        rss,
        top.rss()
    );
    top.to.write_all(b"q").unwrap();
    top.until("the end", |_| false);
    assert!(top.child.wait().unwrap().success());
    row
}

fn is_help(screen: &[String]) -> bool {
    screen.iter().any(|line| line.contains("this help"))
}

/// Sends each byte back.
fn echo() {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {
        std::io::stdout().write_all(&byte).and_then(|()| std::io::stdout().flush()).unwrap();
    }
}

/// Processes that fault until this is dropped.
struct Storm {
    pids: Vec<i32>,
    /// In memory that they share.
    faults: &'static AtomicU64,
}

impl Storm {
    fn start(rate: Option<u64>) -> Self {
        let shared = memory(4096, libc::MAP_SHARED).cast::<AtomicU64>();
        // SAFETY: zeroed memory of its own, which is never unmapped.
        let faults = unsafe { &*shared };
        let rings = processors();
        let period = rate.map_or(0, |rate| 1_000_000_000 * (TURN * rings) as u64 / rate);
        let mut pids = vec![];
        for ring in 0..rings {
            let pipes: Vec<_> = (0..PROCESSES / rings).map(|_| nix::unistd::pipe().unwrap()).collect();
            for at in 0..pipes.len() {
                // SAFETY: no other thread is there, and the child leaves by signal alone.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    let (from, to) = (&pipes[at].0, &pipes[(at + 1) % pipes.len()].1);
                    turns(ring, at, from, to, period, faults);
                }
                assert!(pid > 0, "fork");
                pids.push(pid);
            }
            nix::unistd::write(&pipes[0].1, &now().to_ne_bytes()).unwrap();
        }
        Self { pids, faults }
    }

    fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        for &pid in &self.pids {
            // SAFETY: our own children, which nobody else waits for.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

fn memory(bytes: usize, flags: i32) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: fresh memory, which is looked at below.
    let memory =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags | libc::MAP_ANONYMOUS, -1, 0) };
    assert!(memory != libc::MAP_FAILED);
    memory.cast()
}

fn now() -> u64 {
    Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64
}

/// A process of the storm: it has its turn when a moment comes from the one before, and not before that moment.
fn turns(ring: usize, at: usize, from: impl AsFd, to: impl AsFd, period: u64, faults: &AtomicU64) -> ! {
    let name = std::ffi::CString::new(format!("storm-{ring}-{at}")).unwrap();
    // SAFETY: names and masks are ours; the memory is given back and touched within its bounds.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        let mut own: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(ring, &mut own);
        libc::sched_setaffinity(0, size_of_val(&own), &raw const own);
        let pages = memory(TURN * 4096, libc::MAP_PRIVATE);
        loop {
            let mut bytes = [0; 8];
            assert_eq!(nix::unistd::read(&from, &mut bytes).unwrap(), 8);
            let due = u64::from_ne_bytes(bytes);
            let wait = due.saturating_sub(now());
            if wait > 0 {
                std::thread::sleep(Duration::from_nanos(wait));
            }
            libc::madvise(pages.cast(), TURN * 4096, libc::MADV_DONTNEED);
            for page in 0..TURN {
                pages.add(page * 4096).write_volatile(1);
            }
            faults.fetch_add(TURN as u64, Relaxed);
            // What is late is not made up for.
            let next = (due + period).max(now().saturating_sub(10 * period));
            nix::unistd::write(&to, &next.to_ne_bytes()).unwrap();
        }
    }
}

/// A program on a pseudo terminal, and its screen.
struct Terminal {
    child: Child,
    to: File,
    screen: Screen,
}

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let size =
            nix::pty::Winsize { ws_row: LINES as u16, ws_col: COLUMNS as u16, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).unwrap();
        let mut raw = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut raw);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &raw).unwrap();
        // The program alone is to have its terminal, so that it ends with this process.
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        fcntl(&pty.slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(Stdio::inherit()).spawn().unwrap();
        Self { child, to: pty.master.into(), screen: Screen::new() }
    }

    /// Takes what comes before that moment. Whether something came.
    fn reads(&mut self, until: Instant) -> bool {
        let mut fds = [PollFd::new(self.to.as_fd(), PollFlags::POLLIN)];
        let left = until.saturating_duration_since(Instant::now()).as_millis() as u16;
        if poll(&mut fds, PollTimeout::from(left)).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 16 << 10];
        // At the end of the program there is nothing to read any more.
        let n = self.to.read(&mut bytes).unwrap_or(0);
        self.screen.takes(&bytes[..n]);
        n > 0
    }

    fn until(&mut self, what: &str, is_there: impl Fn(&[String]) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_there(&self.screen.lines) {
            if !self.reads(end) {
                assert!(what == "the end", "no {what} in {:#?}", self.screen.lines);
                return;
            }
        }
    }

    /// Reads for so long, and gives the moments at which rows were new.
    fn passes(&mut self, time: Duration) -> Vec<Instant> {
        let (end, mut drawn) = (Instant::now() + time, Vec::<Instant>::new());
        let mut before = self.screen.lines.clone();
        while Instant::now() < end {
            // A picture may come in pieces.
            if self.reads(end) && before[3..SELECTED] != self.screen.lines[3..SELECTED] {
                let now = Instant::now();
                if drawn.last().is_none_or(|last| now - *last > Duration::from_millis(50)) {
                    drawn.push(now);
                }
                before.clone_from(&self.screen.lines);
            }
        }
        drawn
    }

    /// The time until the screen is what the key makes of it.
    fn answers(&mut self, key: &[u8], is_answer: impl Fn(&[String], &[String]) -> bool) -> Duration {
        let (old, begun) = (self.screen.lines.clone(), Instant::now());
        self.to.write_all(key).unwrap();
        let end = begun + Duration::from_secs(10);
        while !is_answer(&old, &self.screen.lines) {
            assert!(self.reads(end), "no answer to {key:?} in {:#?}", self.screen.lines);
        }
        begun.elapsed()
    }

    fn rss(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
    }

    /// Processor time of all its threads, user and system: in steps of 10 ms.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

/// What a terminal shows of what trapline sends it: characters of ASCII, places, and colors that do not matter here.
struct Screen {
    lines: Vec<String>,
    at: (usize, usize),
    /// The beginning of a sequence.
    begun: Vec<u8>,
}

impl Screen {
    fn new() -> Self {
        Self { lines: vec![" ".repeat(COLUMNS); LINES], at: (0, 0), begun: vec![] }
    }

    fn takes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.begun.is_empty() && byte != 0x1b {
                self.puts(byte);
                continue;
            }
            self.begun.push(byte);
            if self.begun.len() > 2 && (0x40..=0x7e).contains(&byte) {
                let sequence = std::mem::take(&mut self.begun);
                let numbers = String::from_utf8_lossy(&sequence[2..sequence.len() - 1]).into_owned();
                let place = |at: usize| {
                    numbers.split(';').nth(at).and_then(|n| n.parse::<usize>().ok()).unwrap_or(1) - 1
                };
                match byte {
                    b'H' => self.at = (place(0), place(1)),
                    b'J' => *self = Self::new(),
                    _ => {}
                }
            }
        }
    }

    fn puts(&mut self, byte: u8) {
        let (line, column) = self.at;
        if byte.is_ascii_graphic() || byte == b' ' {
            if let Some(line) = self.lines.get_mut(line).filter(|line| column < line.len()) {
                line.replace_range(column..=column, char::from(byte).encode_utf8(&mut [0; 4]));
            }
            self.at.1 += 1;
        }
    }
}
