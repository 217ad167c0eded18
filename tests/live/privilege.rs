//! What trapline may do while it watches, and what it shows of what the kernel hides.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::run::{lines, trapline};

/// By number, as in include/uapi/linux/capability.h.
const READING: u64 = 1 << 5 | 1 << 19 | 1 << 23 | 1 << 38 | 1 << 39;
const NAMES: u64 = READING | 1 << 2 | 1 << 34 | 1 << 40;
const FILES: u64 = NAMES | 1 | 1 << 1 | 1 << 3;
/// What an executed program may have beside that: to become nobody.
const EXECUTED: u64 = 1 << 6 | 1 << 7;

fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Runs it until the command has been told to go on, and gives what it printed.
fn watched(arguments: &[&str], may: u64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs");
    let script = "echo >&2; read line; cat /proc/self/status > \"$0\"";
    let mut child = trapline()
        .args(arguments)
        .args(["--", "sh", "-c", script])
        .arg(&theirs)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first line of either comes when it watches.
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    if arguments.contains(&"-o") {
        // The command has begun to speak; trapline gives up its privileges right after that.
        let mut byte = [0];
        child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
    } else {
        out.read_line(&mut text).unwrap();
    }
    let tasks = || fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let statuses = || tasks().map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    while arguments.contains(&"-o") && statuses().any(|status| set(&status, "CapEff:") & !may != 0) {
        std::thread::yield_now();
    }
    for status in statuses() {
        for name in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(set(&status, name) & !may, 0, "{arguments:?}: {status}");
        }
        assert_eq!(set(&status, "CapBnd:") & !(may | EXECUTED), 0, "{arguments:?}: {status}");
    }
    drop(child.stdin.take());
    out.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let theirs = fs::read_to_string(theirs).unwrap();
    for name in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(set(&theirs, name), set(&ours, name), "the command has what it would have without us");
    }
    text
}

pub fn what_reading_does_not_need_is_dropped(variant: &'static str) {
    let json = ["--format", "jsonl", "--variant", variant];
    let faults = |more: &[&str], may| watched(&[&["faults"], &json[..], more].concat(), may);
    for by in ["thread", "file"] {
        let text = faults(&["--by", by, "-i", "50"], READING);
        let end = lines(text.as_bytes()).pop().unwrap();
        assert!(end["type"] == "end" && end["events"].as_u64() > Some(50), "{text}");
    }
    faults(&["-v"], READING);
    faults(&["--log-step", "10", "-v"], NAMES);
    let text = faults(&["--by", "stack"], NAMES);
    assert!(text.contains("sh;") && text.contains("ld-linux") || text.contains("dl_"), "{text}");
    // A file that is made at the end.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.folded");
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let options = ["faults", "--variant", variant, "--by", "stack", "-o", path.to_str().unwrap()];
    watched(&options, FILES);
    assert!(fs::read_to_string(path).unwrap().contains("sh;"));
}

/// The kernel decides who may know where its functions are.
pub fn hidden_addresses_stay_hidden(_: &'static str) {
    let without = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-syslog"]).args(words).stdin(Stdio::null());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let hides = without(&["head", "-n", "100", "/proc/kallsyms"])
        .lines()
        .all(|line| line.starts_with("0000000000000000"));
    let own = env!("CARGO_BIN_EXE_trapline");
    let command = ["--format", "jsonl", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=2"];
    let of_kernel = |text: &str| {
        let events = lines(text.as_bytes()).into_iter().filter(|line| line["type"] == "event");
        events.filter(|event| event["ip"].as_u64().is_some_and(|ip| ip >= 1 << 63)).count()
    };
    let shown = trapline().args(["faults", "-v"]).args(command).output().unwrap();
    let shown = of_kernel(&String::from_utf8(shown.stdout).unwrap());
    let kept = of_kernel(&without(&[&[own, "faults", "-v"], &command[..]].concat()));
    assert_eq!(kept == 0, hides || shown == 0, "{kept} of {shown}, {hides}");
    let stacks = without(&[&[own, "faults", "--by", "stack"], &command[..]].concat());
    assert!(stacks.contains("_[k]"), "{stacks}");
    assert!(!hides || !stacks.contains("0xffff"), "{stacks}");
}
