//! What `faults` may do while it watches, and what it shows of what the kernel hides.

use std::fs;
use std::process::{Command, Stdio};

use crate::privilege::{AT_THE_END, BY_NAMES, TOOLS, listed, watched};
use crate::run::{lines, trapline};

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
