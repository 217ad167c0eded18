//! A live table on a terminal, as a terminal shows it.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A shell in a terminal, and something that makes rows: processes that come and go.
pub struct Terminal {
    pub folder: TempDir,
}

impl Terminal {
    /// Of this size, before a prompt.
    pub fn open(columns: usize, lines: usize) -> Self {
        let terminal = Self::alone(columns, lines);
        terminal.runs("(while /bin/true; do /bin/sleep 0.01; done) & clear");
        terminal
    }

    /// The same, without processes that make rows.
    pub fn alone(columns: usize, lines: usize) -> Self {
        let terminal = Self { folder: tempfile::tempdir().unwrap() };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let shell = "PS1='$ ' exec bash --norc --noprofile -i";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines, shell]);
        terminal.shows("$");
        terminal.runs("unset NO_COLOR; clear");
        terminal
    }

    pub fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.folder.path().join("socket")).args(arguments).stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    pub fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    pub fn runs(&self, line: &str) {
        self.types(&[line, "Enter"]);
    }

    /// Starts a trace with an interval; its id is in a file, and its status is shown at its end.
    fn traces(&self, arguments: &str) {
        self.traces_with("", &format!("-i 200ms {arguments}"));
    }

    /// The same with these variables, and other intervals.
    fn traces_with(&self, variables: &str, arguments: &str) {
        self.starts(variables, &format!("faults {arguments}"));
    }

    /// Starts trapline with these arguments.
    pub fn starts(&self, variables: &str, arguments: &str) {
        let folder = self.folder.path().display();
        let trapline = env!("CARGO_BIN_EXE_trapline");
        let exec = format!("echo $$ > {folder}/pid; {variables} exec {trapline} {arguments}");
        self.runs(&format!("clear; sh -c '{exec}'; echo status $?"));
    }

    /// What is on the screen and above it, where each line of the program is one.
    fn history(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J", "-S", "-"])
    }

    pub fn sends(&self, signal: Signal) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), signal).unwrap();
    }

    pub fn screen(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p"]).lines().map(str::to_owned).collect()
    }

    /// Waits for a line that begins so.
    pub fn shows(&self, beginning: &str) -> Vec<String> {
        self.waits(beginning, |screen| screen.iter().any(|line| line.starts_with(beginning)))
    }

    pub fn waits(&self, what: &str, is_there: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is_there(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "no {what} in\n{}", screen.join("\n"));
            sleep(Duration::from_millis(20));
        }
    }

    /// Clears the screen and what is above it.
    fn empties(&self) {
        self.runs("clear");
        let is_empty = |screen: &[String]| screen.iter().filter(|line| !line.is_empty()).eq(["$"]);
        self.waits("empty screen", is_empty);
        self.tmux(&["clear-history"]);
    }

    pub fn value(&self, of: &str) -> String {
        self.tmux(&["display-message", "-p", of]).trim().to_owned()
    }

    /// The alternate screen is in use, or another's.
    pub fn is_drawn_on(&self) -> bool {
        self.value("#{alternate_on}") == "1"
    }

    /// Waits for the end, after which the shell has its terminal as it was: what is typed is shown, and lines have ends.
    pub fn ends(&self, status: u32) -> Vec<String> {
        let screen = self.shows(&format!("status {status}"));
        assert!(!self.is_drawn_on());
        assert_eq!(self.value("#{cursor_flag}"), "1", "the cursor is there");
        self.runs("stty -a | grep -o -E -e '-?(icanon|echo|ixon)\\b' | paste -s; echo s'een'");
        let after = self.shows("seen");
        assert!(after.iter().any(|line| line.split_whitespace().eq(["ixon", "icanon", "echo"])), "{after:?}");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        let _ = command.arg("-S").arg(self.folder.path().join("socket")).arg("kill-server").status();
    }
}

fn is_table(screen: &[String], lines: usize, heading: &str) -> bool {
    screen.len() == lines
        && screen[0].starts_with('[')
        && screen[1].split_whitespace().any(|title| title == heading)
        && screen[lines - 1].starts_with("q: quit")
}

pub fn a_table_is_redrawn_in_place(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    terminal.traces("");
    let small = terminal.waits("table", |screen| is_table(screen, 24, "MAX_MS"));
    assert!(terminal.is_drawn_on());
    assert!(!small[1].contains("MIN_US") && small[1].trim_start().starts_with("PID"), "{small:?}");
    // Twice, as a picture over the one before may differ from it by little.
    for (columns, lines) in [("160", "40"), ("70", "15"), ("160", "40")] {
        terminal.tmux(&["resize-window", "-x", columns, "-y", lines]);
        let heading = if columns == "160" { "MIN_US" } else { "MINOR" };
        terminal.waits("table of this size", |screen| is_table(screen, lines.parse().unwrap(), heading));
    }
    terminal.types(&["h"]);
    terminal.shows("space  pause");
    terminal.types(&["h"]);
    terminal.waits("table", |screen| is_table(screen, 40, "MIN_US"));
    terminal.types(&["Space"]);
    terminal.shows("q: quit  space: go on (paused)");
    let paused = terminal.screen();
    terminal.types(&["q"]);
    terminal.shows("status 0");
    // The terminal itself moved lines of the shell there, when it became smaller.
    let scrollback = terminal.tmux(&["capture-pane", "-p", "-S", "-", "-E", "-1"]);
    assert!(!scrollback.contains("MINOR") && !scrollback.contains("TOTAL"), "left behind: {scrollback}");
    let last = terminal.ends(0);
    let has = |text: &str| last.iter().any(|line| line.contains(text));
    assert!(last.contains(&paused[0]) && last.contains(&paused[2]), "what was seen stays: {last:?}");
    assert!(has("Totals, trapline faults") && has("TOTAL") && has("of CPU in"), "{last:?}");
}

pub fn the_terminal_is_given_back_at_every_end(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let drawn = |screen: &[String]| is_table(screen, 24, "MAX_MS");
    for (signal, status) in [
        (Signal::SIGINT, 0),
        (Signal::SIGTERM, 0),
        (Signal::SIGHUP, 0),
        (Signal::SIGQUIT, 131),
        (Signal::SIGUSR1, 138),
    ] {
        terminal.traces("");
        terminal.waits("table", drawn);
        terminal.sends(signal);
        terminal.ends(status);
    }
    // Two at once: the second one waits for nothing.
    terminal.traces("");
    terminal.waits("table", drawn);
    terminal.sends(Signal::SIGTERM);
    terminal.sends(Signal::SIGTERM);
    terminal.waits("end", |screen| screen.iter().any(|line| line.starts_with("status ")));
    assert!(!terminal.is_drawn_on());
    // A stop, and in the background the terminal is the shell's.
    terminal.traces("");
    terminal.waits("table", drawn);
    terminal.types(&["C-z"]);
    terminal.shows("[2]+  Stopped");
    assert!(!terminal.is_drawn_on());
    terminal.runs("clear; bg; sleep 1; echo d'one'");
    let background = terminal.shows("done");
    assert!(
        !terminal.is_drawn_on() && !background.iter().any(|line| line.contains("MAX_MS")),
        "{background:?}"
    );
    terminal.runs("fg; echo status $?");
    terminal.waits("table", drawn);
    terminal.types(&["C-c"]);
    terminal.ends(0);
}

pub fn a_commands_terminal_and_a_dumb_one_get_blocks(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    terminal.traces("-- /bin/sleep 0.3");
    let blocks = terminal.ends(0);
    assert!(blocks.iter().any(|line| line.contains("MAX_MS") && !line.contains("MIN_US")), "{blocks:?}");
    terminal.runs("export TERM=dumb; clear; tput -T xterm clear; echo d'umb'");
    terminal.waits("empty screen", |screen| screen[0].starts_with("dumb"));
    terminal.traces("--top 1 -d 300ms");
    let blocks = terminal.shows("status 0").join("");
    assert!(!terminal.is_drawn_on() && blocks.contains("MIN_US"), "{blocks:?}");
}

/// Each kind of rows on a small and on a large screen: what stays is no wider than that, and no piece of a picture is
/// left behind.
pub fn every_table_leaves_the_screen_as_it_was(_variant: &'static str) {
    for (columns, lines, kinds) in
        [(80, 24, &["stack", "file", "thread"][..]), (200, 50, &["cause", "stack"])]
    {
        let terminal = Terminal::open(columns, lines);
        for kind in kinds {
            terminal.empties();
            terminal.traces(&format!("--by {kind}"));
            terminal.waits("table", |screen| is_table(screen, lines, "MINOR"));
            terminal.types(&["q"]);
            terminal.shows("status 0");
            let history = terminal.history();
            let own = history.lines().filter(|line| !line.contains("status $?") && !line.starts_with('$'));
            for line in own {
                // What was lost is explained in a sentence.
                let is_loss = line.trim_start().starts_with(|c: char| c.is_ascii_digit());
                assert!(line.chars().count() <= columns || is_loss && line.contains(". "), "{kind}: {line}");
                assert!(!line.contains("q: quit") && !line.contains("go on"), "{kind}: {history}");
            }
        }
    }
}

pub fn a_key_shows_rows_before_the_interval_ends(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    for key in ["Enter", "r"] {
        terminal.traces_with("", "-i 1h");
        terminal.shows("The first interval has not ended yet.");
        terminal.types(&[key]);
        terminal.waits("table", |screen| is_table(screen, 24, "MAX_MS"));
        terminal.types(&["q"]);
        terminal.ends(0);
    }
}

pub fn colors_and_widths_are_those_of_options_and_variables(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    for (variables, arguments, is_bold) in [
        ("", "", true),
        ("NO_COLOR=1", "", false),
        ("NO_COLOR=1", "--color always", true),
        ("", "--color never", false),
        ("TERM=dumb", "", false),
    ] {
        terminal.empties();
        terminal.traces_with(variables, &format!("{arguments} -- /bin/true"));
        terminal.shows("status 0");
        // With escapes for colors.
        let history = terminal.tmux(&["capture-pane", "-p", "-e"]);
        let headings = history.lines().rfind(|line| line.contains("MINOR")).unwrap();
        assert_eq!(headings.contains("\u{1b}[1m"), is_bold, "{variables} {arguments}: {history}");
        assert!(!headings.contains("MIN_US") || variables == "TERM=dumb", "{headings}");
    }
    terminal.empties();
    terminal.traces_with("", "--wide -- /bin/true");
    terminal.shows("status 0");
    assert!(terminal.history().lines().any(|line| line.contains("MAJOR") && line.contains("MIN_US")));
}

pub fn a_table_that_stays_names_the_option_for_the_rest(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let many = "-- /bin/sh -c \"seq 30 | while read i; do /bin/true; done\"";
    terminal.traces_with("", many);
    terminal.shows("(13 more; --top 33 prints all rows)");
    terminal.shows("status 0");
    for (before, after) in [("--top 33 ", ""), ("", " 2>&1 | cat")] {
        terminal.empties();
        terminal.traces_with("", &format!("{before}{many}{after}"));
        terminal.shows("status 0");
        let all = terminal.history();
        assert!(!all.contains(" more"), "{before}{after}: {all}");
    }
}
