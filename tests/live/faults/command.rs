//! `-- COMMAND`: it gets the signals that are meant for it, and its end is ours.

#![allow(unsafe_code)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{is_the_same, program};
use crate::faults::refuse::end_of_stuck;
use crate::run::{all_or_first, as_nobody, faults, in_full, lines, one_line, trapline};
use crate::running::{Running, state, until};

/// `faults` on a variant, with its table.
fn words(variant: &str) -> Vec<&str> {
    if variant == "auto" { vec!["faults"] } else { vec!["faults", "--variant", variant] }
}

/// The same, for a shell.
fn trace(variant: &str) -> String {
    format!("{} {}", env!("CARGO_BIN_EXE_trapline"), words(variant).join(" "))
}

/// The program that says which signals it gets, under trapline.
struct Listening {
    tracer: Running,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    command: u32,
}

impl Listening {
    /// With these options; the program does `listen`, or is `stubborn`.
    fn start(variant: &str, options: &[&str], how: &str) -> Self {
        let mut command = trapline();
        command.args(words(variant)).args(options).args(["--", program(), how]);
        // A group of its own, whose parent is of the same session: in an orphaned one SIGTSTP stops nobody.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tracer = Running::start(&mut command);
        let to = tracer.stdin.take();
        let from = BufReader::new(tracer.stdout.take().unwrap());
        let mut listening = Self { tracer, to, from, command: 0 };
        let ready = listening.hear();
        listening.command = ready.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(ready, format!("ready {} {}", listening.tracer.id(), listening.command));
        listening
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    /// Ends its input, and waits for its end.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.to.take());
        self.ends()
    }

    /// The status, and what was written for people.
    fn ends(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.tracer.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        let status = self.tracer.wait().unwrap();
        assert!(!Path::new(&format!("/proc/{}", self.command)).exists(), "the command has outlived us");
        (status.code(), said)
    }
}

/// Requests within 100 ms are one: this is between two that are not.
fn between_requests() {
    std::thread::sleep(Duration::from_millis(200));
}

/// What is sent to trapline alone is passed on, job control too; the command's status is ours.
pub fn what_is_sent_to_us_is_passed_on(variant: &'static str) {
    let mut listening = Listening::start(variant, &[], "listen");
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGHUP] {
        listening.tracer.send(signal);
        assert_eq!(format!("SIG{}", listening.hear()), signal.as_str());
    }
    let both = [listening.tracer.id(), listening.command];
    listening.tracer.send(Signal::SIGTSTP);
    until("they stop", || both.iter().all(|&pid| state(pid) == 'T'));
    listening.tracer.send(Signal::SIGCONT);
    assert_eq!(listening.hear(), "CONT");
    until("they go on", || both.iter().all(|&pid| state(pid) != 'T'));
    let (status, said) = listening.end();
    assert!(status == Some(0) && said.contains("Totals, "), "{status:?} {said}");
    // Also when the trace has ended before the command; and it is its own status that we end with.
    let mut listening = Listening::start(variant, &["-d", "50ms"], "listen");
    let mut said = [0; 1];
    listening.tracer.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    listening.tracer.send(Signal::SIGTERM);
    assert_eq!(listening.hear(), "TERM");
    assert_eq!(listening.ends().0, Some(5));
}

/// A first request is the command's to decide on; `timeout` makes one request by two signals; a second one ends it.
pub fn a_second_request_leaves_nobody(variant: &'static str) {
    let mut listening = Listening::start(variant, &[], "listen");
    listening.tracer.send(Signal::SIGINT);
    listening.tracer.send(Signal::SIGHUP);
    let mut both = [listening.hear(), listening.hear()];
    both.sort();
    assert_eq!(both, ["HUP", "INT"]);
    assert_eq!(listening.end().0, Some(0));
    for signal in all_or_first([Signal::SIGTERM, Signal::SIGINT]) {
        let mut listening = Listening::start(variant, &[], "stubborn");
        listening.tracer.send(signal);
        assert_eq!(format!("SIG{}", listening.hear()), signal.as_str());
        between_requests();
        assert!(listening.tracer.try_wait().unwrap().is_none(), "it has not been asked twice");
        listening.tracer.send(signal);
        let (status, said) = listening.ends();
        assert!(status == Some(137) && said.contains("Totals, "), "{status:?} {said}");
    }
    // Somebody who does not read what we write holds us up.
    let mut stuck = trapline();
    let script = "trap '' TERM; while :; do /bin/true; done";
    stuck.args(words(variant)).args(["-v", "--format", "jsonl"]).args(["--", "sh", "-c", script]);
    let mut stuck = Running::start(stuck.stdout(Stdio::piped()));
    assert_eq!(end_of_stuck(&mut stuck, Signal::SIGTERM).code(), Some(128 + libc::SIGTERM));
}

/// `timeout`, pipelines, a shell's `alarm`, what outlives the command, and readers that have had enough.
pub fn the_usual_company(variant: &'static str) {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        let script = script.replace("TRACE", &trace(variant));
        let output = command.args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (said, table) = shell("timeout 1 TRACE -- sleep 1000; echo $?");
    // On a busy machine, that comes before it is attached.
    assert!(said == "124\n" && (table.is_empty() || table.contains("sleep")), "{said} {table}");
    // The command's own pipe, which closes on it and not on us.
    let (said, table) = shell("{ TRACE -- yes; echo $? >&2; } | head -1");
    assert!(said == "y\n" && table.contains("Totals, ") && table.ends_with("141\n"), "{said} {table}");
    let (said, table) = shell("TRACE -- seq 3 | sort -r | head -2");
    assert!(said == "3\n2\n" && table.contains("Totals, "), "{said} {table}");
    // Ours: the command goes on to its end, and its status is ours.
    let (said, error) = shell("{ TRACE -v --format jsonl -- sh -c 'ls >&2; exit 9'; echo $? >&2; } | true");
    assert!(said.is_empty() && error.ends_with("9\n") && !error.contains("trapline:"), "{said} {error}");
    let (said, error) =
        shell("TRACE -o /dev/full --format jsonl -- sh -c 'ls > /dev/null; echo its own; exit 9'; echo $?");
    assert!(said == "its own\n1\n" && error.lines().count() == 1, "{said} {error}");
    // Its descendants may outlive it, with whatever they hold.
    let (said, _) = shell("TRACE -- sh -c 'sleep 1000 2> /dev/null > /dev/null & echo $!'; echo ended");
    let (pid, ended) = said.trim_end().split_once('\n').unwrap();
    assert_eq!(ended, "ended");
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    // A timer that is set before exec is the command's.
    let mut alarmed = faults(variant, &["--", "sleep", "1000"]);
    // Under emulation a start takes seconds, and until then the timer ends whoever has it.
    let seconds = if in_full() { 3 } else { 15 };
    // SAFETY: it makes a system call only.
    unsafe {
        alarmed.pre_exec(move || {
            libc::alarm(seconds);
            Ok(())
        })
    };
    let status = alarmed.stdout(Stdio::null()).status().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(128 + libc::SIGALRM), None));
}

/// A shell in a terminal of its own, which is typed to.
struct Terminal {
    _shell: Running,
    screen: std::fs::File,
    seen: String,
}

impl Terminal {
    fn open() -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut shell = Command::new("sh");
        shell.arg("-i").env("PS1", "$ ").env_remove("ENV");
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        shell.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: they are system calls only; standard input is the terminal.
        unsafe {
            shell.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let shell = Running::start(&mut shell);
        Self { _shell: shell, screen: pty.master.into(), seen: String::new() }
    }

    /// Waits until the shell listens, and gives it a command.
    fn runs(&mut self, command: &str) {
        self.shows("$ ");
        self.types(command);
    }

    fn types(&mut self, keys: &str) {
        std::io::Write::write_all(&mut self.screen, keys.as_bytes()).unwrap();
    }

    /// Waits until this is to be seen, and gives what was seen before it, and that, which is then forgotten.
    fn shows(&mut self, what: &str) -> String {
        let mut bytes = [0; 4096];
        while !self.seen.contains(what) {
            let fd = std::os::fd::AsFd::as_fd(&self.screen);
            let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
            let ready = nix::poll::poll(&mut fds, 20_000u16).unwrap();
            assert!(ready > 0, "waited for {what:?} after {:?}", self.seen);
            let n = self.screen.read(&mut bytes).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        let end = self.seen.find(what).unwrap() + what.len();
        self.seen.drain(..end).collect()
    }
}

/// Keys reach the command as without us, and the shell's job control both of us.
pub fn in_a_terminal(variant: &'static str) {
    let mut terminal = Terminal::open();
    let trace = |command: &str| format!("{} -- {command}\n", trace(variant));
    terminal.runs(&trace(&format!("{} listen", program())));
    terminal.shows("ready ");
    let pids: Vec<u32> = {
        let line = terminal.shows("\r\n");
        line.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    // It has a handler: it is pressed as often as one likes.
    for _ in 0..4 {
        terminal.types("\x03");
        terminal.shows("INT\r\n");
    }
    terminal.types("\x1a");
    terminal.shows("Stopped");
    until("both are stopped", || pids.iter().all(|&pid| state(pid) == 'T'));
    terminal.runs("fg\n");
    terminal.shows("CONT\r\n");
    until("both go on", || pids.iter().all(|&pid| state(pid) == 'S'));
    terminal.types("\x1c");
    terminal.shows("Totals, ");
    terminal.runs("echo status $?\n");
    terminal.shows("status 131\r\n");
    assert!(pids.iter().all(|&pid| state(pid) == '-'), "{pids:?}");
    // It has none: it ends, and we after it.
    terminal.runs(&trace("sh -c 'echo begun; exec sleep 1000'"));
    terminal.shows("\nbegun");
    terminal.types("\x03");
    terminal.shows("Totals, ");
    terminal.runs("echo status $?\n");
    terminal.shows("status 130\r\n");
    if !in_full() {
        return;
    }
    // It ignores it: the second time it has to go.
    terminal.runs(&trace(&format!("{} deaf", program())));
    terminal.shows("ready ");
    terminal.types("\x03");
    between_requests();
    terminal.types("\x03");
    terminal.shows("Totals, ");
    terminal.runs("echo status $?\n");
    terminal.shows("status 137\r\n");
}

pub fn is_as_without_us(variant: &'static str) {
    is_the_same(&|| faults(variant, &[]), &[]);
}

pub fn another_user(_: &'static str) {
    let mut command = faults("auto", &["--run-as", "nobody"]);
    command.args(["--", "sh", "-c", "grep -E 'Uid|Gid|Groups|CapPrm|CapEff' /proc/self/status; echo $HOME"]);
    let output = command.env("HOME", "/home/somebody").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let [uid, gid] = ["-u", "-g"].map(|which| {
        let id = Command::new("id").args([which, "nobody"]).output().unwrap();
        String::from_utf8(id.stdout).unwrap().trim().to_owned()
    });
    for (line, id) in [("Uid:", uid), ("Gid:", gid.clone())] {
        assert!(text.contains(&format!("{line}\t{id}\t{id}\t{id}\t{id}\n")), "{text}");
    }
    let zero = "0000000000000000\n";
    assert!(
        text.contains(&format!("CapPrm:\t{zero}")) && text.contains(&format!("CapEff:\t{zero}")),
        "{text}"
    );
    assert!(text.contains(&format!("Groups:\t{gid}")) && text.contains("\n/home/somebody\n"), "{text}");
    assert!(lines(text.as_bytes()).iter().any(|line| line["type"] == "total" && line["comm"] == "grep"));
    one_line(
        &faults("auto", &["--run-as", "no-such-user", "--", "true"]).output().unwrap(),
        1,
        "no such user",
    );
    let tools = [&["faults"][..], &["kvm", "count"], &["sgx"], &["access"]];
    for tool in all_or_first(tools) {
        let mut command = trapline();
        command.args(tool).args(["--run-as", "root", "--", "true"]);
        one_line(&as_nobody(&mut command), 3, "CAP_SETUID");
    }
}
