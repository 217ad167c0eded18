//! `--by file`: every fault goes to the file, or the sort of memory, that it was on.

use std::process::Command;

use serde_json::Value;

use crate::refuse::one_line;
use crate::run::{Said, faults, fixture, sum, u};

fn by_file(variant: &str, options: &[&str], words: &[String]) -> Said {
    let mut command = faults(variant, &["--by", "file"]);
    Said::by(command.args(options).arg("--").args(words))
}

/// What one row is called.
fn named<'a>(records: &'a [Value], file: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["file"] == file).collect()
}

/// The rows together are what wait4 says, threads and children and all.
pub fn rows_add_up(variant: &'static str) {
    let mut kinds = fixture("wait4");
    kinds.extend(fixture("kinds"));
    kinds.push("3".into());
    for options in [&[][..], &["-i", "50ms"]] {
        let said = by_file(variant, options, &kinds);
        let truth = said.truth.iter().find(|truth| truth["what"] == "wait4").unwrap();
        // The fixture's own faults, before and after those of the child that it waits for, are in the rows too.
        let all = sum(&said.totals, |_| true);
        assert!(all.0 >= u(&truth["major"]) && all.1 >= u(&truth["minor"]), "{all:?} of {truth}");
        assert_eq!(u(&said.end["events"]), all.0 + all.1);
        assert_eq!((&said.end["crowded"], &said.end["untracked"]), (&0.into(), &0.into()));
        if !options.is_empty() {
            assert_eq!(sum(&said.rows, |_| true), all);
            for total in &said.totals {
                let rows = || said.rows.iter().filter(|row| row["file"] == total["file"]);
                let most = |name: &str| rows().filter_map(|row| row[name].as_u64()).max();
                assert_eq!(most("max_ns"), total["max_ns"].as_u64(), "{total}");
            }
        }
        let heap = named(&said.totals, "[anon]");
        assert!(heap.len() == 1 && u(&heap[0]["minor"]) > 100, "{:?}", said.totals);
        let own = std::env::current_exe().unwrap();
        assert_eq!(named(&said.totals, own.to_str().unwrap()).len(), 1, "{:?}", said.totals);
    }
}

/// A variant that sees no single fault says so.
pub fn counters_are_refused(_: &'static str) {
    let output = faults("counters", &["--by", "file", "-d", "100ms"]).output().unwrap();
    one_line(&output, 2, "sees no single fault");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.args(["faults", "--by", "files"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
