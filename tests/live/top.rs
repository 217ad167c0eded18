//! `trapline top` on a terminal, as a terminal shows it.

pub mod elsewhere;

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::faults::screen::Terminal;
use crate::run::{lines, trapline, u};
use crate::running::{Running, until};

/// A line of the overview begins so.
fn overview(screen: &[String]) -> bool {
    screen.first().is_some_and(|line| line.starts_with("trapline  overview"))
        && screen.iter().any(|line| line.starts_with("faults  ") && line.contains("/s"))
}

fn has(text: &'static str) -> impl Fn(&[String]) -> bool {
    move |screen| screen.iter().any(|line| line.contains(text))
}

/// A process that takes faults all the time; its id.
fn workload(terminal: &Terminal) -> String {
    let (folder, trapline) = (terminal.folder.path().display(), env!("CARGO_BIN_EXE_trapline"));
    terminal.runs(&format!(
        "cd {folder}; {trapline} workload faults --storm 10m > {folder}/storm 2>&1 & echo $! > {folder}/of; clear; echo r'eady'"
    ));
    terminal.shows("ready");
    fs::read_to_string(terminal.folder.path().join("of")).unwrap().trim().to_owned()
}

/// A fault of the workload's one thread may be under way when tracing begins.
fn loses_nothing(screen: &[String]) -> bool {
    has("nothing lost")(screen) || has("| 1 unpaired fault |")(screen)
}

pub fn panes_show_rows_and_what_is_within_them(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let pid = workload(&terminal);
    terminal.starts("LC_ALL=C.UTF-8", &format!("top -i 200ms -p {pid}"));
    let screen = terminal.waits("overview", overview);
    assert_eq!(screen.len(), 24);
    assert!(!has("needs a process")(&screen), "access has one: {screen:?}");
    terminal.types(&["Enter"]);
    let row = |screen: &[String]| {
        has("faults by process")(screen) && screen.iter().any(|line| line.trim_start().starts_with(&pid))
    };
    let screen = terminal.waits("row of the process", row);
    assert!(has("TOTAL_MS")(&screen) && loses_nothing(&screen) && has("CPU ")(&screen), "{screen:?}");
    terminal.waits("histogram", has("latency"));
    // Down to the stack, and what a row is within is above it.
    for (key, of) in
        [("Enter", "by thread"), ("Enter", "by file"), ("Enter", "by file,cause"), ("Enter", "by stack")]
    {
        terminal.types(&[key]);
        terminal.waits(of, |screen| {
            (has("row by")(screen) || has("rows by")(screen))
                && screen.iter().any(|line| line.contains(&format!("{of}  ")))
        });
    }
    for of in ["by file,cause", "by file", "by thread", "by process"] {
        terminal.types(&["Escape"]);
        terminal.waits(of, |screen| screen.iter().any(|line| line.contains(&format!("{of} "))));
    }
    terminal.waits("row of the process", row);
    // Single events, other groups, a filter, an order, an interval, sizes.
    terminal.types(&["v"]);
    terminal.waits("events", |screen| {
        has("events of faults")(screen) && has("LATENCY_US")(screen) && has("minor")(screen)
    });
    // There are more than the screen keeps; what it writes does not pass for all of them.
    let faults = minor_faults(&pid);
    until("more faults", || minor_faults(&pid) > faults + 5000);
    terminal.types(&["w"]);
    terminal.waits("recording", has("written to trapline-top-"));
    let folder = terminal.folder.path();
    let is_recording = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "trapline");
    let written: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(is_recording).collect();
    let [written] = &written[..] else { panic!("{written:?}") };
    let explained = trapline().args(["explain", "--format", "jsonl"]).arg(written).output().unwrap();
    let explained = lines(&explained.stdout);
    let end = explained.last().unwrap();
    assert!(u(&end["events"]) == 1000 && u(&end["lost_events"]) >= 2000, "{end}");
    assert_ne!(end["verdict"], "nothing stands out", "{end}");
    fs::remove_dir_all(written).unwrap();
    terminal.types(&["Space", "Escape"]);
    terminal.waits("row of the process", row);
    terminal.types(&["6"]);
    terminal.waits("cause", |screen| has("by cause")(screen) && has("zero-fill")(screen));
    terminal.types(&["/", "n", "o", "s", "u", "c", "h"]);
    terminal.waits("no row", has("No row matches"));
    terminal.types(&["Escape"]);
    terminal.waits("cause", has("zero-fill"));
    terminal.types(&["+", "<"]);
    terminal.waits("interval", has("every 500ms"));
    for (columns, lines) in [("40", "10"), ("20", "4"), ("160", "40"), ("80", "24")] {
        terminal.tmux(&["resize-window", "-x", columns, "-y", lines]);
        let wide = columns.parse::<usize>().unwrap();
        terminal.waits("screen of this size", |screen| {
            screen.len() == lines.parse::<usize>().unwrap()
                && screen.iter().all(|line| line.chars().count() <= wide)
                && has("zero-fill")(screen)
        });
    }
    terminal.types(&["?"]);
    terminal.waits("help", has("this help"));
    terminal.types(&["?"]);
    // What is on the screen becomes a recording.
    terminal.waits("cause", has("zero-fill"));
    terminal.types(&["w"]);
    terminal.waits("recording", has("written to trapline-top-"));
    terminal.types(&["q"]);
    terminal.ends(0);
    let trapline = env!("CARGO_BIN_EXE_trapline");
    terminal.runs(&format!(
        "clear; {trapline} replay trapline-top-*.trapline | grep -m1 zero-fill; rm -r trapline-top-*.trapline; echo d'one'"
    ));
    terminal.waits("recording", |screen| has("done")(screen) && has("zero-fill")(screen));
}

pub fn the_terminal_is_given_back_at_every_end(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let mouse = || terminal.value("#{mouse_any_flag}");
    for (signal, status) in
        [(Signal::SIGINT, 0), (Signal::SIGTERM, 0), (Signal::SIGHUP, 0), (Signal::SIGQUIT, 131)]
    {
        terminal.starts("", "top -i 200ms");
        terminal.waits("overview", overview);
        assert!(terminal.is_drawn_on() && mouse() == "1");
        terminal.sends(signal);
        terminal.ends(status);
        assert_eq!(mouse(), "0");
    }
    terminal.starts("", "top faults -i 200ms");
    terminal.waits("pane", has("TOTAL_MS"));
    terminal.types(&["C-z"]);
    terminal.shows("[2]+  Stopped");
    assert!(!terminal.is_drawn_on() && mouse() == "0");
    terminal.runs("clear; fg; echo status $?");
    terminal.waits("pane", has("TOTAL_MS"));
    assert_eq!(mouse(), "1");
    // A click on the tab of the overview, as a terminal sends it.
    terminal.tmux(&["send-keys", "-l", "\u{1b}[<0;12;1M"]);
    terminal.waits("overview", overview);
    terminal.types(&["q"]);
    terminal.ends(0);
}

pub fn a_recording_is_played_forward_and_back(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let pid = workload(&terminal);
    let trapline = env!("CARGO_BIN_EXE_trapline");
    let folder = terminal.folder.path().display().to_string();
    terminal.runs(&format!("{trapline} faults --by process -p {pid} -i 100ms -d 2s --format jsonl > {folder}/run.jsonl; clear; echo r'eady'"));
    terminal.shows("ready");
    terminal.starts("", &format!("top {folder}/run.jsonl"));
    terminal.waits("row", |screen| {
        has("run.jsonl  at")(screen) && screen.iter().any(|line| line.trim_start().starts_with(&pid))
    });
    terminal.types(&["Right"]);
    terminal.waits("end", has("the end of the recording"));
    // Where its intervals end, which is later on a busy machine.
    let lines = lines(&fs::read(terminal.folder.path().join("run.jsonl")).unwrap());
    let start = u(&lines[0]["start_ns"]);
    let ends = lines.iter().filter(|line| line["type"] == "block" && line["of"] == "row");
    let ends: Vec<f64> = ends.map(|line| (u(&line["time_ns"]) - start) as f64 / 1e9).collect();
    let at = |end: f64| move |screen: &[String]| screen[0].contains(&format!("at {end:.1} s"));
    terminal.types(&["Space", "Left"]);
    terminal.waits("start", at(ends[0]));
    terminal.types(&["."]);
    terminal.waits("next interval", at(ends[1]));
    terminal.types(&["."]);
    terminal.waits("next interval", at(ends[2]));
    for end in [ends[1], ends[0]] {
        terminal.types(&[","]);
        terminal.waits("interval before", at(end));
    }
    terminal.types(&["+"]);
    terminal.waits("speed", has("2 times as fast, paused"));
    terminal.types(&["q"]);
    terminal.ends(0);
    // Of one that is cut off, what is intact stays on the screen.
    terminal.runs(&format!("head -c -20 {folder}/run.jsonl > {folder}/cut.jsonl; clear; echo r'eady'"));
    terminal.shows("ready");
    terminal.starts("", &format!("top {folder}/cut.jsonl"));
    terminal.waits("row", |screen| screen.iter().any(|line| line.trim_start().starts_with(&pid)));
    terminal.types(&["Right"]);
    terminal.waits("reason and row", |screen| {
        let is_row = |line: &String| line.trim_start().starts_with(&pid);
        has("cut.jsonl: line")(screen) && has("PID COMM")(screen) && screen.iter().any(is_row)
    });
    terminal.types(&["q"]);
    terminal.ends(0);
    // One with each fault is grouped otherwise, and shows them.
    terminal.runs(&format!("{trapline} faults -o {folder}/each.trapline -- {trapline} workload faults 500 > {folder}/made 2>&1; clear; echo r'eady'"));
    terminal.shows("ready");
    terminal.starts("", &format!("top {folder}/each.trapline -i 1m"));
    terminal.waits("histogram", |screen| has("by process")(screen) && has("latency")(screen));
    terminal.types(&["5"]);
    terminal.waits("file", |screen| has("by file")(screen) && has("[anon]")(screen));
    terminal.types(&["v"]);
    terminal.waits("events", |screen| {
        has("events of faults > ")(screen) && has("LATENCY_US")(screen) && has("minor")(screen)
    });
    terminal.types(&["Escape"]);
    terminal.waits("file", |screen| has("by file")(screen) && has("latency")(screen));
    terminal.types(&["S"]);
    terminal.waits("reason", has("faults with --split"));
    terminal.types(&["q"]);
    terminal.ends(0);
}

/// Keys and the mouse, as a terminal sends them, do what the help says; what each of them does is tested without one.
pub fn keys_of_a_terminal_are_understood(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let pid = workload(&terminal);
    terminal.starts("", "top faults --by thread -i 200ms");
    let by = |of: &'static str| move |screen: &[String]| has(of)(screen) && has("rows by")(screen);
    terminal.waits("rows", by("faults by thread  "));
    // What the help has under each number is what the number does.
    terminal.types(&["F1"]);
    terminal
        .waits("help", |screen| has("this help")(screen) && has("group by: 1 process, 2 thread,")(screen));
    terminal.types(&["F1"]);
    terminal.waits("rows", by("faults by thread  "));
    terminal.types(&["F5"]);
    terminal.waits("next group", by("faults by comm  "));
    terminal.types(&["F6"]);
    terminal.waits("next column", has("rows by MAJOR_MS"));
    terminal.types(&["F4", "s", "t", "o", "r", "m", "Enter"]);
    terminal.waits("filter", |screen| has("filter: storm, 0 rows")(screen) && has("No row matches")(screen));
    terminal.types(&["F3", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "Enter"]);
    terminal.waits("all rows", |screen| !has("filter:")(screen) && has("rows by MAJOR_MS")(screen));
    terminal.types(&["1"]);
    terminal.waits("rows", by("faults by process  "));
    // The keyboard, the wheel and a click choose rows; what is chosen is named below them.
    let begins = |screen: &[String], line: &str| screen[15..22].iter().any(|below| below.starts_with(line));
    terminal.types(&["F4", "^workload-0$|^trapline$", "Enter"]);
    terminal.waits("row of the workload", |screen| screen[3].trim_start().starts_with(&pid));
    terminal.types(&["Down", "End", "PPage", "Home"]);
    terminal.waits("name of the row", |screen| begins(screen, &format!("{pid} ")));
    terminal.tmux(&["send-keys", "-l", "\u{1b}[<65;5;5M\u{1b}[<64;5;5M\u{1b}[<0;5;4M"]);
    terminal.waits("threads of the row", |screen| has(" by thread  ")(screen) && has("faults > ")(screen));
    terminal.types(&["BSpace", "BTab"]);
    terminal.waits("overview", overview);
    terminal.types(&["F2", "F10"]);
    terminal.ends(0);
}

/// Pages that a program is known to touch, and no others of that file.
pub fn accesses_are_those_of_the_program(_variant: &'static str) {
    let terminal = Terminal::alone(80, 24);
    let words =
        ["workload", "touch", "--on", "file", "--pages", "48", "--rounds", "100000", "--pause", "20ms"];
    let touches = Running::start(trapline().args(words).stdout(Stdio::null()));
    let pid = touches.id().to_string();
    terminal.starts("LC_ALL=C.UTF-8", &format!("top -i 500ms -p {pid}"));
    // It slows down what it traces: it waits to be shown.
    terminal
        .waits("overview", |screen| screen.iter().any(|line| line.starts_with("access  Enter attaches it")));
    terminal.types(&["4"]);
    terminal.waits("pages", has("access: pages  "));
    terminal.types(&["/", "t", "o", "u", "c", "h", "-", "Enter"]);
    terminal.waits("the pages of the file", |screen| {
        has("filter: touch-, 48 rows by ACCESSES")(screen) && loses_nothing(screen)
    });
    terminal.types(&["2"]);
    terminal.waits("the mapping of the file", |screen| {
        has("access: mappings  filter: touch-, 1 row by ACCESSES")(screen) && {
            let words: Vec<&str> = screen[3].split_whitespace().collect();
            words[0] == pid && words[3] == "48"
        }
    });
    terminal.types(&["Escape", "3"]);
    terminal.waits("reads and writes", |screen| has("access: rw  1 row")(screen) && has("READONLY")(screen));
    terminal.types(&["5"]);
    terminal.waits("working set", |screen| has("access: workingset")(screen) && has("rows by AT_MS")(screen));
    terminal.types(&["v"]);
    terminal.waits("events", |screen| {
        has("events of access")(screen) && screen.iter().filter(|line| line.contains(" W  0x")).count() > 10
    });
    terminal.types(&["Escape"]);
    terminal.waits("working set", has("rows by AT_MS"));
    drop(touches);
    terminal.waits("the end of what it traces", |screen| screen[1].ends_with("ended"));
    terminal.types(&["q"]);
    terminal.ends(0);
}

pub fn without_privilege_there_are_own_processes(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let trapline = env!("CARGO_BIN_EXE_trapline");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let storm = || {
        let mut command = Command::new("setpriv");
        command.args(nobody.split(' ').skip(1)).args([trapline, "workload", "faults", "--storm", "10m"]);
        Running::start(command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let first = storm();
    terminal.runs(&format!("sh -c \"cd /; LC_ALL=C exec {nobody} {trapline} top -i 200ms\"; echo status $?"));
    let screen = terminal.waits("reasons", |screen| has("EPERM")(screen) || has("rootless")(screen));
    // With or without a right to see own faults, it is said what there is.
    assert!(has("(rootless)")(&screen) || has("run as root")(&screen), "{screen:?}");
    assert!(screen.iter().all(|line| line.is_ascii()), "{screen:?}");
    if has("(rootless)")(&screen) {
        terminal.types(&["Enter"]);
        let row = |process: &Running| {
            let pid = format!("{} ", process.id());
            move |screen: &[String]| screen.iter().any(|line| line.trim_start().starts_with(&pid))
        };
        let screen = terminal.waits("own process", row(&first));
        assert!(has("yours only")(&screen) || has("your processes only")(&screen), "{screen:?}");
        // One that has come later.
        let second = storm();
        terminal.waits("other process", row(&second));
    }
    terminal.types(&["q"]);
    terminal.ends(0);
}

/// Nanoseconds per event, as the status line has them.
fn cost(screen: &[String]) -> Option<f64> {
    let (_, cost) = screen.iter().find_map(|line| line.split_once("BPF "))?;
    cost.strip_suffix("/event").unwrap_or(cost).strip_suffix(" ns")?.parse().ok()
}

/// What the BPF programs of a process have taken, and how often they ran, by the kernel's account.
fn programs(pid: u32) -> [u64; 2] {
    let mut programs = HashMap::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let text = fs::read_to_string(fd.path()).unwrap_or_default();
        let number =
            |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(ns), Some(runs)) =
            (number("prog_id:"), number("run_time_ns:"), number("run_cnt:"))
        {
            programs.insert(id, [ns, runs]);
        }
    }
    [0, 1].map(|of| programs.values().map(|figures| figures[of]).sum())
}

/// Minor faults of a process so far (proc_pid_stat(5), minflt).
fn minor_faults(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(7).unwrap().parse().unwrap()
}

pub fn the_cost_of_bpf_programs_is_the_kernels(_variant: &'static str) {
    let switch = || fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap();
    let before = switch();
    let terminal = Terminal::open(80, 24);
    let pid = workload(&terminal);
    terminal.starts("", &format!("top faults -i 200ms -p {pid}"));
    terminal.waits("row", |screen| screen.iter().any(|line| line.trim_start().starts_with(&pid)));
    let is_off = |screen: &[String]| has("BPF off")(screen) || has("BPF cost off")(screen);
    if before.trim() == "0" {
        terminal.waits("cost that is off", is_off);
        terminal.types(&["B"]);
    }
    let mut shown = vec![cost(&terminal.waits("cost", |screen| cost(screen).is_some())).unwrap()];
    let top = fs::read_to_string(terminal.folder.path().join("pid")).unwrap().trim().parse().unwrap();
    let ([began_ns, _], began) = (programs(top), minor_faults(&pid));
    for _ in 0..6 {
        let last = shown.last().copied();
        shown.push(
            cost(&terminal.waits("other cost", |screen| cost(screen).is_some_and(|n| Some(n) != last)))
                .unwrap(),
        );
    }
    let ([ended_ns, _], ended) = (programs(top), minor_faults(&pid));
    let each = (ended_ns - began_ns) as f64 / (ended - began) as f64;
    shown.sort_by(f64::total_cmp);
    let median = shown[shown.len() / 2];
    // Intervals are not equally busy: other processes run the programs, too.
    assert!(each > 0.0 && (each / 2.0..each * 2.0).contains(&median), "{each} ns per fault, and {shown:?}");
    let is_complete = |screen: &[String]| {
        let status = screen.iter().find(|line| line.contains(" | BPF "));
        status.is_some_and(|line| {
            loses_nothing(std::slice::from_ref(line))
                && ["200ms |", "not sampled", "CPU", "ns"].iter().all(|part| line.contains(part))
        })
    };
    terminal.waits("whole status line", is_complete);
    assert_eq!(switch(), before);
    if before.trim() == "0" {
        terminal.types(&["B"]);
        terminal.waits("cost that is off", is_off);
        terminal.types(&["B"]);
        terminal.waits("cost", |screen| cost(screen).is_some());
    }
    // What is killed leaves nothing that is measured.
    let mut command = trapline();
    let other = Running::start(command.args(["faults", "-p", &pid, "-i", "100ms"]).stdout(Stdio::null()));
    until("runs of the programs of another", || programs(other.id())[1] > 0);
    terminal.sends(Signal::SIGKILL);
    until("the end of trapline", || !fs::exists(format!("/proc/{top}")).unwrap());
    assert_eq!(switch(), before);
    if before.trim() == "0" {
        let ([_, runs], faults) = (programs(other.id()), minor_faults(&pid));
        until("more faults", || minor_faults(&pid) > faults + 1000);
        assert_eq!(programs(other.id())[1], runs);
    }
}

/// A pseudo terminal of this size, in which trapline starts: nobody reads what it writes but the test.
struct Pty {
    trapline: Running,
    screen: fs::File,
    terminal: OwnedFd,
}

impl Pty {
    fn open(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let size = nix::pty::Winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = trapline();
        command.args(arguments).env("TERM", "xterm").env_remove("NO_COLOR").envs(variables.iter().copied());
        let trapline = Running::start(command.stdin(end()).stdout(end()).stderr(end()));
        Self { trapline, screen: pty.master.into(), terminal: pty.slave }
    }

    /// Reads until this comes, and gives all that came.
    fn shows(&mut self, what: &str) -> String {
        let mut seen = vec![];
        let mut bytes = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&seen).into_owned();
            if text.contains(what) {
                return text;
            }
            let mut fds = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
            assert!(poll(&mut fds, PollTimeout::from(60_000_u16)).unwrap() > 0, "no {what} in {text}");
            let n = self.screen.read(&mut bytes).unwrap();
            seen.extend(&bytes[..n]);
        }
    }

    /// Waits for the end of trapline, and gives its status.
    fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of trapline", || {
            status = self.trapline.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Has it draw, and reads nothing, until the terminal takes no more.
    fn fills(&mut self) {
        loop {
            let mut fds = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut fds, PollTimeout::ZERO).unwrap() == 0 {
                return;
            }
            self.screen.write_all(b"?").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Keys and signals end it although nobody reads what it draws.
pub fn a_terminal_that_reads_nothing_does_not_hold_it_up(_variant: &'static str) {
    for by_key in [true, false] {
        let mut pty = Pty::open(&["top", "faults", "-i", "100ms"], &[]);
        pty.shows("TOTAL_MS");
        pty.fills();
        if by_key {
            pty.screen.write_all(b"q").unwrap();
        } else {
            pty.trapline.send(Signal::SIGTERM);
        }
        let status = pty.ends();
        assert!(status.success(), "{status}");
        let lines = tcgetattr(&pty.terminal).unwrap().local_flags;
        assert!(lines.contains(LocalFlags::ICANON | LocalFlags::ECHO));
    }
}

pub fn variables_of_the_terminal_are_obeyed(_variant: &'static str) {
    let has_color =
        |text: &str| text.contains("\x1b[38;") || text.contains("\x1b[33m") || text.contains("\x1b[31m");
    for (variables, is_plain) in
        [(&[("NO_COLOR", "1"), ("LC_ALL", "C")][..], true), (&[("LC_ALL", "C")], false)]
    {
        let mut pty = Pty::open(&["top", "faults", "-i", "100ms"], variables);
        let text = pty.shows("TOTAL_MS");
        assert!(text.is_ascii() && !(is_plain && has_color(&text)), "{text:?}");
        pty.screen.write_all(b"q").unwrap();
        pty.shows("\x1b[?1049l");
        assert!(pty.ends().success());
    }
    let mut pty = Pty::open(&["top"], &[("TERM", "dumb")]);
    let text = pty.shows("use `trapline faults`");
    assert!(text.contains("not TERM=dumb") && !text.contains('\x1b'), "{text:?}");
    assert_eq!(pty.ends().code(), Some(2));
}
