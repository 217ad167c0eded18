//! What trapline may do while it watches, and what it shows of what the kernel hides.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::run::{lines, trapline};

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
struct May {
    kept: u64,
    executed: u64,
}

/// What docs/security.md lists in these rows of its table together.
fn listed(rows: &[&str]) -> May {
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

const TOOLS: &str = "`faults`, `kvm`, `sgx`";
const BY_NAMES: &str =
    "names of functions: `faults --by stack`, `--log-step -v`, `--stall -v`, `access --symbols`";
const AT_THE_END: &str =
    "a file that is made at the end: `-o FILE.svg`, `-o FILE.folded`, `--format damo -o FILE`";
const ACCESS: &str = "`access`";
const NUMA: &str = "`access --reset numa`";
const SOFT_DIRTY: &str = "`access --reset writes` by soft-dirty bits";
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
fn watched(arguments: &[&str], may: May) -> String {
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
    if text.is_empty() && !arguments.contains(&"-o") {
        panic!("{arguments:?}: {:?}", child.wait_with_output());
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

pub fn what_reading_does_not_need_is_dropped(variant: &'static str) {
    let json = ["--format", "jsonl", "--variant", variant];
    let faults = |more: &[&str], may| watched(&[&["faults"], &json[..], more].concat(), may);
    let reading = listed(&[TOOLS]);
    for by in ["thread", "file"] {
        let text = faults(&["--by", by, "-i", "50"], reading);
        let end = lines(text.as_bytes()).pop().unwrap();
        assert!(end["type"] == "end" && end["events"].as_u64() > Some(50), "{text}");
    }
    faults(&["-v"], reading);
    let names = listed(&[TOOLS, BY_NAMES]);
    faults(&["--log-step", "10", "-v"], names);
    let text = faults(&["--by", "stack"], names);
    assert!(text.contains("sh;") && text.contains("ld-linux") || text.contains("dl_"), "{text}");
    // A file that is made at the end.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.folded");
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let options = ["faults", "--variant", variant, "--by", "stack", "-o", path.to_str().unwrap()];
    watched(&options, listed(&[TOOLS, BY_NAMES, AT_THE_END]));
    assert!(fs::read_to_string(path).unwrap().contains("sh;"));
}

/// The same of `kvm`: also where no guest runs.
pub fn kvm_keeps_what_reading_takes(_: &'static str) {
    for what in [&["count"][..], &["slower", "1ms"]] {
        watched(&[&["kvm"], what, &["--format", "jsonl"]].concat(), listed(&[TOOLS]));
    }
}

/// The same of `sgx`.
pub fn sgx_keeps_what_reading_takes(_: &'static str) {
    let _double = crate::sgx_driver::Double::load("auto", 200);
    watched(&["sgx", "--format", "jsonl", "-i", "50ms"], listed(&[TOOLS]));
}

/// The version of the kernel: the first two numbers.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.trim().parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The same of `access`, whose injector has a process of its own.
pub fn access_keeps_what_its_engine_takes(engine: &'static str) {
    let options = ["access", "--reset", engine, "--format", "jsonl"];
    let engine = match engine {
        "numa" => &[NUMA][..],
        // By userfaultfd from 6.7 on.
        "writes" if kernel() < (6, 7) => &[SOFT_DIRTY],
        _ => &[],
    };
    let text = watched(&options, listed(&[&[TOOLS, ACCESS], engine].concat()));
    let end = lines(text.as_bytes()).pop().unwrap();
    assert!(end["type"] == "end" && end["events"].as_u64() > Some(50), "{text}");
    let text = watched(
        &[&options[..], &["--symbols"]].concat(),
        listed(&[&[TOOLS, ACCESS, BY_NAMES], engine].concat()),
    );
    let named = lines(text.as_bytes()).iter().filter(|line| line["symbol"].is_string()).count();
    assert!(named > 10, "{text}");
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

/// Every number in a text that can be an address in the kernel, decimal or hexadecimal.
fn kernel_addresses(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let is_one = |word: &&str| {
        let hex = word.strip_prefix("0x").unwrap_or(word);
        let decimal = word.parse::<u64>().is_ok_and(|n| n >= 1 << 63);
        decimal || hex.len() == 16 && hex.starts_with("ffff") && u64::from_str_radix(hex, 16).is_ok()
    };
    words.filter(is_one).collect()
}

/// Whoever may not see where the kernel's functions are sees it in no output, whatever its format.
pub fn no_output_shows_hidden_addresses(_: &'static str) {
    assert_eq!(
        kernel_addresses("a+0xffffffff81000000 18446744071578845184 0xffff"),
        ["0xffffffff81000000", "18446744071578845184"]
    );
    let without = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-syslog"]).args(words).stdin(Stdio::null());
        command.output().unwrap()
    };
    let kallsyms = without(&["head", "-n", "100", "/proc/kallsyms"]).stdout;
    if !kernel_addresses(&String::from_utf8(kallsyms).unwrap()).is_empty() {
        return;
    }
    let own = env!("CARGO_BIN_EXE_trapline");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let copy = folder.path().join("trapline");
    fs::copy(own, &copy).unwrap();
    let copy = copy.to_str().unwrap();
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let dd = ["--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=2"];
    let (stack, each) = (["faults", "--by", "stack"], ["faults", "-v"]);
    let step = ["faults", "--log-step", "20", "-v"];
    let access = ["access", "--reset", "none", "--symbols"];
    let rootless = [nobody.as_slice(), &[copy, "faults", "--variant", "rootless", "--by", "stack"]].concat();
    let rootless_each = [nobody.as_slice(), &[copy, "faults", "--variant", "rootless", "-v"]].concat();
    let of = |words: &[&'static str]| [&[own][..], words].concat();
    let (stack, each, step, access) = (of(&stack), of(&each), of(&step), of(&access));
    // Debian's kernels have a level 3, at which nobody else may record anything.
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    let may_record = paranoid.trim().parse::<i32>().unwrap() <= 2;
    for (words, formats) in [
        (&stack, &["table", "jsonl", "svg"][..]),
        (&each, &["table", "jsonl"]),
        (&step, &["jsonl"]),
        (&access, &["jsonl"]),
        (&rootless, &["folded"]),
        (&rootless_each, &["jsonl"]),
    ] {
        if words[0] == nobody[0] && !may_record {
            continue;
        }
        for format in formats {
            let words = [words.as_slice(), &["--format", format], &dd].concat();
            let output = without(&words);
            assert!(output.status.success(), "{words:?}: {output:?}");
            for text in [&output.stdout, &output.stderr] {
                let text = String::from_utf8_lossy(text);
                assert_eq!(kernel_addresses(&text), [""; 0], "{words:?}: {text}");
            }
        }
    }
}
