//! Files that change while trapline looks at them: programs that are truncated, perf maps that are written anew.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{Said, Source, faults, scratch, sum};

/// The program that changes its files.
pub const PROGRAM: Source = Source {
    compiler: "cc",
    file: "faults/stack/underfoot.c",
    options: &["-g", "-O1", "-fno-omit-frame-pointer"],
};

/// Its faults below a function that is innermost in user mode.
fn below(said: &Said, function: &str) -> u64 {
    let ends = |record: &Value| record["stack"].as_str().is_some_and(|stack| stack.ends_with(function));
    sum(&said.totals, ends).1
}

/// The names of code that is made at run time are those that it had when it faulted, also after the end.
pub fn perf_maps_that_are_written_anew(variant: &'static str) {
    let program = PROGRAM.program();
    for (mode, rows) in [("append", &[][..]), ("rename", &["-i", "400ms"]), ("once", &[])] {
        let mut command = faults(variant, &[&["--by", "stack"][..], rows, &["--"]].concat());
        let said = Said::by(command.arg(&program).args(["jit", mode]));
        let seen = ["old_one", "new_one", "second"].map(|name| below(&said, &format!(";run;{name}")));
        let expected = if mode == "once" { [50, 0, 0] } else { [50, 30, 70] };
        assert_eq!(seen, expected, "{mode}: {:#?}", said.totals);
    }
    let files = fs::read_dir("/tmp").unwrap().flatten();
    // A device or a pipe that somebody left there may never answer.
    for map in files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_file())) {
        let text = fs::read_to_string(map.path()).unwrap_or_default();
        if text.contains(" filler_old_one_0") || text.contains(" filler_new_one_0") {
            let _ = fs::remove_file(map.path());
        }
    }
}

/// The map is where the process sees it, by the number that it has there: in a mount namespace that it enters while it is traced,
/// by another program or in the same one, and with a number of its own, as in a container.
pub fn perf_maps_in_other_namespaces(variant: &'static str) {
    let program = PROGRAM.program();
    // It is there for long enough to be seen where it was before.
    let unshare = |options: &str, then: &str| {
        let script = format!(
            "sleep 1; exec unshare {options} sh -c 'mount -t tmpfs tmpfs /tmp && {then} \"$@\"' sh \"$@\""
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(&program).args(["jit", "append"]);
        command
    };
    let mut alone = Command::new(&program);
    alone.args(["enter", "append"]);
    for inner in
        [unshare("--mount", "exec"), unshare("--mount --pid --fork --mount-proc", "test $$ = 1 &&"), alone]
    {
        let mut command = faults(variant, &["--by", "stack", "--"]);
        let said = Said::by(command.arg(inner.get_program()).args(inner.get_args()));
        let seen = ["old_one", "new_one", "second"].map(|name| below(&said, &format!(";run;{name}")));
        assert_eq!(seen, [50, 30, 70], "{inner:?}: {:#?}", said.totals);
    }
}

/// The interpreter with a command that makes it name its code.
fn interpreters() -> Vec<(&'static str, Vec<String>)> {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oracles/bin/node");
    let runs = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let node = ["node", oracle.to_str().unwrap()].into_iter().find(|it| runs(it));
    let python = ["python3.14", "python3.13", "python3.12"].into_iter().find(|it| runs(it));
    let words = |of: &[&str]| of.iter().map(|&word| word.to_owned()).collect();
    let node = node.map(|it| ("js", words(&[it, "--perf-basic-prof"])));
    node.into_iter().chain(python.map(|it| ("py", words(&[it, "-X", "perf"])))).collect()
}

/// Why code of no real interpreter can be named here.
pub fn lacks_interpreters() -> Option<String> {
    interpreters().is_empty().then(|| "neither Node.js nor Python 3.12 or later is installed".into())
}

/// Functions of Node.js and Python, by the maps that they write; those of Node.js have frame pointers, so what called them is there.
pub fn functions_of_interpreters(variant: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let javascript = "function leaf(a, n) { for (let i = 0; i < n; i++) a[i * 4096] = 1; }\n\
        function outer(n) { const a = new Uint8Array(n * 4096); leaf(a, n); return a; }\n\
        const kept = []; for (let i = 0; i < 200; i++) { kept.push(outer(300)); if (kept.length > 3) kept.shift(); }\n";
    let python = "import mmap\ndef leaf(a, n):\n    for i in range(n):\n        a[i * 4096] = 1\n\
        a = mmap.mmap(-1, 4 << 20)\na.madvise(mmap.MADV_NOHUGEPAGE)\nleaf(a, 500)\n";
    let maps = || {
        let names = fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.path());
        names.filter(|path| path.extension().is_some_and(|it| it == "map")).collect::<HashSet<_>>()
    };
    let before = maps();
    for (language, command) in interpreters() {
        let script = directory.path().join(format!("script.{language}"));
        fs::write(&script, if language == "js" { javascript } else { python }).unwrap();
        // Node.js writes a log to where it runs.
        let mut traced = faults(variant, &["--by", "stack", "--"]);
        let said = Said::by(traced.args(&command).arg(&script).current_dir(directory.path()));
        let file = script.to_str().unwrap();
        let is_leaf = |frame: &str| frame.contains("leaf") && frame.contains(file);
        let below = |row: &Value| row["stack"].as_str().is_some_and(|stack| stack.split(';').any(is_leaf));
        let found = sum(&said.totals, below).1;
        let least = if language == "js" { 5000 } else { 500 };
        assert!(found >= least, "{command:?}: {found}: {}", said.end);
        if language == "js" {
            let is_whole = |row: &Value| {
                below(row) && row["stack"].as_str().unwrap().split(';').nth(1) == Some("_start")
            };
            let whole = sum(&said.totals, is_whole).1;
            println!("{whole} of {found} faults below a function of Node.js have a whole chain");
            assert!(whole * 100 >= found * 98, "{whole} of {found}: {:#?}", said.totals);
        }
    }
    for map in maps().difference(&before) {
        // Those of others that have begun meanwhile are theirs.
        let pid = map.file_stem().and_then(|name| name.to_str()?.strip_prefix("perf-"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_file(map);
        }
    }
}

/// What was counted is there, and every name but those of the file that is no more.
pub fn a_program_that_is_truncated(variant: &'static str) {
    let copy = scratch().join("truncated");
    let options = ["--by", "stack", "-i", "400ms", "--"];
    let said = Said::by(faults(variant, &options).arg(PROGRAM.program()).arg("cut").arg(&copy));
    assert_eq!(below(&said, ";in_the_copy"), 60 + 40 + 80, "{:#?}", said.totals);
    fs::remove_file(copy).unwrap();
}
