//! Differences between recordings of a workload that knows what it did.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{Said, lines, missed, scratch, trapline, u};

const BY: [&str; 6] = ["thread", "process", "cgroup", "file", "cause", "stack"];

fn by_variant(variant: &str) -> impl Iterator<Item = &'static str> {
    let known: &[&str] = match variant {
        "rootless" => &["thread", "process", "file", "stack"],
        "counters" => &["thread", "process", "cgroup"],
        _ => &BY,
    };
    BY.into_iter().filter(|by| known.contains(by))
}

/// Records faults on files, as many as are given for each, and gives what the recording has.
fn record(variant: &str, by: &str, to: &Path, faults: &[(&str, u64)]) -> Said {
    recorded(variant, by, to, faults);
    Said::of_lines(lines(&std::fs::read(to).unwrap()), "")
}

fn recorded(variant: &str, by: &str, to: &Path, faults: &[(&str, u64)]) {
    let own = env!("CARGO_BIN_EXE_trapline");
    let command = |(file, count)| format!("'{own}' workload faults {count} --kind file -f {file}");
    let script: Vec<String> = faults.iter().copied().map(command).collect();
    let mut run = trapline();
    run.current_dir(to.parent().unwrap()).args(["faults", "--by", by, "--variant", variant, "-o"]).arg(to);
    let output = run.args(["--", "sh", "-ec", &script.join("; ")]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

pub(crate) fn compared(arguments: &[&Path], options: &[&str]) -> Vec<Value> {
    let mut diff = trapline();
    let output = diff.arg("diff").args(arguments).args(options).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    lines(&output.stdout)
}

/// The faults of a side, which are thousandths of a count for one operation.
fn faults<'a>(rows: impl Iterator<Item = &'a Value>, side: &str) -> u64 {
    let of = |row: &&Value| row["figure"] == "major" || row["figure"] == "minor";
    let count = |row: &Value| {
        assert_eq!(u(&row[side]) % 1000, 0, "{row}");
        u(&row[side]) / 1000
    };
    rows.filter(of).map(count).sum()
}

/// Twice the faults on one file, and none on another any more.
pub fn twice_the_faults_on_a_file(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let file = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        std::fs::write(file(name), vec![7; 16 << 20]).unwrap();
    }
    for by in by_variant(variant) {
        let (before, after) = (file("before.jsonl"), file("after.jsonl"));
        let said = [
            record(variant, by, &before, &[("a", 300), ("b", 100)]),
            record(variant, by, &after, &[("a", 600)]),
        ];
        let all = compared(&[&before, &after], &["--per", "1", "--format", "jsonl"]);
        let rows = || all.iter().filter(|line| line["type"] == "total");
        let sums = || all.iter().filter(|line| line["type"] == "block").map(|block| &block["sum"]);
        for (said, side) in said.iter().zip(["before", "after"]) {
            let events = u(&said.end["events"]);
            assert_eq!([faults(rows(), side), faults(sums(), side)], [events; 2], "{by} {side}: {all:#?}");
        }
        if by != "file" {
            continue;
        }
        for (name, expected) in [("a", [300, 600]), ("b", [100, 0])] {
            let path = file(name);
            let of_file = || rows().filter(|row| row["name"] == path.to_str().unwrap());
            for (side, (expected, said)) in
                ["before", "after"].into_iter().zip(expected.into_iter().zip(&said))
            {
                let count = faults(of_file(), side);
                assert!(
                    said.is_but_for_missed(count, expected, 1) || missed(&said.end) > 0,
                    "{name}: {all:#?}"
                );
            }
            let only = if name == "b" { "before".into() } else { Value::Null };
            assert!(of_file().count() > 0 && of_file().all(|row| row["only"] == only), "{name}: {all:#?}");
        }
    }
}

/// Recordings of all faults are grouped when they are compared: by thread their figures are those that the kernel counted.
pub fn recorded_faults_are_grouped(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let file = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        std::fs::write(file(name), vec![7; 16 << 20]).unwrap();
    }
    let (before, after) = (file("before.trapline"), file("after.trapline"));
    let events = |recording: &Path| {
        let replayed = trapline().args(["replay", "--format", "jsonl"]).arg(recording).output().unwrap();
        u(&lines(&replayed.stdout).last().unwrap()["events"])
    };
    let run = |to: &Path, faults| {
        recorded(variant, "thread", to, faults);
        events(to)
    };
    let all = [run(&before, &[("a", 300), ("b", 100)]), run(&after, &[("a", 600)])];
    for by in ["process", "file", "cause", "process,file"] {
        // Only the kernel half tells causes.
        if (variant, by) == ("rootless", "cause") {
            continue;
        }
        let lines = compared(&[&before, &after], &["--by", by, "--per", "1", "--format", "jsonl"]);
        let rows = || lines.iter().filter(|line| line["type"] == "total");
        assert_eq!(["before", "after"].map(|side| faults(rows(), side)), all, "{by}: {lines:#?}");
        if by == "file" {
            let path = file("b");
            let gone = rows().find(|row| row["name"] == path.to_str().unwrap()).unwrap();
            assert_eq!((&gone["only"], &gone["after"]), (&"before".into(), &0.into()), "{gone}");
        }
    }
}

/// The picture has both sides of each stack, the table says where runs differ, and what cannot be compared is refused.
pub fn what_is_shown_and_refused(_variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("a"), vec![7; 16 << 20]).unwrap();
    let (stacks, causes, picture) = (file("s.jsonl"), file("c.jsonl"), file("x.svg"));
    record("tracepoint", "stack", &stacks, &[("a", 100)]);
    record("tracepoint", "cause", &causes, &[("a", 100)]);
    let diff = |arguments: &[&Path]| {
        Command::new(env!("CARGO_BIN_EXE_trapline")).arg("diff").args(arguments).output().unwrap()
    };
    let drawn = diff(&[&stacks, &stacks, Path::new("-o"), &picture]);
    assert!(drawn.status.success(), "{drawn:?}");
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.contains("red is more than before"), "no legend");
    assert!(picture.contains(" faults/s, 100%)") && picture.contains("; 0.00%)"), "no differences");
    let table = String::from_utf8(diff(&[&causes, &causes]).stdout).unwrap();
    assert!(table.contains("no noise is known") && table.contains("file-read"), "{table}");
    let refused = diff(&[&stacks, &causes]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(2) && error.contains("compare recordings with the same --by"),
        "{error}"
    );
}
