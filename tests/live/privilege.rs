//! What trapline may do while it watches, as docs/security.md lists it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::run::trapline;
use crate::running::Running;

/// By number, as in include/uapi/linux/capability.h.
const NAMES: [(&str, u32); 14] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_FOWNER", 3),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_NICE", 23),
    ("CAP_SYSLOG", 34),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
    ("CAP_CHECKPOINT_RESTORE", 40),
];

/// What a tool keeps, and what a program that it executes may have beside that.
#[derive(Clone, Copy)]
pub struct May {
    kept: u64,
    executed: u64,
}

/// What docs/security.md lists in these rows of its table together.
pub fn listed(rows: &[&str]) -> May {
    let text = include_str!("../../docs/security.md");
    let mut may = May { kept: 0, executed: 0 };
    for row in rows {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("| {row} | ")));
        let line = line.unwrap_or_else(|| panic!("docs/security.md has no row `{row}`"));
        let (kept, executed) = line.split_once("in the bounding set only:").unwrap_or((line, ""));
        let of = |text: &str| {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.filter(|word| word.starts_with("CAP_")).fold(0, |set, word| {
                let known = NAMES.iter().find(|(name, _)| *name == word);
                set | 1 << known.unwrap_or_else(|| panic!("{word}")).1
            })
        };
        may = May { kept: may.kept | of(kept), executed: may.executed | of(executed) };
    }
    may
}

pub const TOOLS: &str = "`faults`, `kvm`, `sgx`";
pub const BY_NAMES: &str = "names of functions: `faults --by stack`, `--slower`, `--log-step -v`, `--stall -v`, `access --symbols`, `kvm slower --stacks`";
pub const AT_THE_END: &str =
    "a file that is made at the end: `-o FILE.svg`, `-o FILE.folded`, `--format damo -o FILE`";
pub const ACCESS: &str = "`access`";
pub const NUMA: &str = "`access --reset numa`";
pub const SOFT_DIRTY: &str = "`access --reset writes` by soft-dirty bits";
const INJECTS: &str = "`access`, the process that stops targets";

fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// The children of a process that have this name: their statuses.
fn children(pid: u32, name: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let statuses = all.filter_map(|process| fs::read_to_string(process.path().join("status")).ok());
    let (name, parent) = (format!("Name:\t{name}\n"), format!("PPid:\t{pid}\n"));
    statuses.filter(|status| status.starts_with(&name) && status.contains(&parent)).collect()
}

/// No set of a thread has more than what is listed.
fn has_at_most(status: &str, may: May, who: &[&str]) {
    for name in ["CapEff:", "CapPrm:", "CapAmb:"] {
        assert_eq!(set(status, name) & !may.kept, 0, "{who:?}: {status}");
    }
    assert_eq!(set(status, "CapInh:"), 0, "{who:?}: {status}");
    assert_eq!(set(status, "CapBnd:") & !(may.kept | may.executed), 0, "{who:?}: {status}");
    assert!(may.executed != 0 || status.contains("NoNewPrivs:\t1\n"), "{who:?}: {status}");
}

/// Runs it until the command has been told to go on, and gives what it printed.
pub fn watched(arguments: &[&str], may: May) -> String {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs");
    let script = "echo >&2; read line; cat /proc/self/status > \"$0\"";
    let mut command = trapline();
    command.args(arguments).args(["--", "sh", "-c", script]).arg(&theirs);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running::start(&mut command);
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
    if text.is_empty() && !arguments.contains(&"-o") {
        panic!("{arguments:?}: {:?}", child.output());
    }
    let tasks = || fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let statuses = || tasks().map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    while arguments.contains(&"-o") && statuses().any(|status| set(&status, "CapEff:") & !may.kept != 0) {
        std::thread::yield_now();
    }
    for (at, status) in statuses().enumerate() {
        has_at_most(&status, may, arguments);
        // The first thread has all of it: the list is not longer than what is kept.
        assert!(at > 0 || set(&status, "CapEff:") == may.kept, "{arguments:?}: {status}");
    }
    if arguments[0] == "access" {
        let injector = listed(&[INJECTS]);
        while children(child.id(), "trapline-inject")
            .iter()
            .any(|of| set(of, "CapEff:") & !injector.kept != 0)
        {
            std::thread::yield_now();
        }
        let injectors = children(child.id(), "trapline-inject");
        assert_eq!(injectors.len(), 1);
        has_at_most(&injectors[0], injector, arguments);
        assert_eq!(set(&injectors[0], "CapEff:"), injector.kept, "{}", injectors[0]);
    }
    drop(child.stdin.take());
    out.read_to_string(&mut text).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}: {errors}");
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let theirs = fs::read_to_string(theirs).unwrap();
    for name in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(set(&theirs, name), set(&ours, name), "the command has what it would have without us");
    }
    assert!(theirs.contains("NoNewPrivs:\t0\n"), "{theirs}");
    text
}
