//! `trapline top` on a terminal, as a terminal shows it.

use std::fs;

use nix::sys::signal::Signal;

use crate::faults::screen::Terminal;
use crate::run::{lines, u};

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
    assert!(
        // A fault of the process's one thread may be under way when tracing begins.
        has("TOTAL_MS")(&screen)
            && (has("nothing lost")(&screen) || has("| 1 unpaired faults |")(&screen))
            && has("own CPU")(&screen),
        "{screen:?}"
    );
    terminal.waits("histogram", has("latency"));
    // Down to the stack, and what a row is within is above it.
    for (key, of) in
        [("Enter", "by thread"), ("Enter", "by file"), ("Enter", "by file,cause"), ("Enter", "by stack")]
    {
        terminal.types(&[key]);
        terminal.waits(of, |screen| {
            has("rows by")(screen) && screen.iter().any(|line| line.contains(&format!("{of}  ")))
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
    terminal.types(&["Escape"]);
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
    terminal.types(&[","]);
    terminal.waits("interval before", at(ends[0]));
    terminal.types(&["+"]);
    terminal.waits("speed", has("2 times as fast, paused"));
    terminal.types(&["q"]);
    terminal.ends(0);
}

pub fn without_privilege_there_are_own_processes(_variant: &'static str) {
    let terminal = Terminal::open(80, 24);
    let trapline = env!("CARGO_BIN_EXE_trapline");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    terminal.runs(&format!("sh -c \"cd /; LC_ALL=C exec {nobody} {trapline} top -i 200ms\"; echo status $?"));
    let screen = terminal.waits("reasons", |screen| has("EPERM")(screen) || has("rootless")(screen));
    // With or without a right to see own faults, it is said what there is.
    assert!(has("(rootless)")(&screen) || has("run as root")(&screen), "{screen:?}");
    assert!(screen.iter().all(|line| line.is_ascii()), "{screen:?}");
    terminal.types(&["q"]);
    terminal.ends(0);
}
