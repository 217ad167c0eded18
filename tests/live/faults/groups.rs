//! `--by process,file` and the like: each fault is in one row, whatever rows are of.

use std::collections::BTreeSet;

use serde_json::Value;

use super::exact::assert_truth_of;
use super::file::with_truth;
use crate::run::{Beside, Said, all_or_first, faults, fixture, missed, sum, u};
use crate::running::Worker;

/// The rows of a thread, or of a process, together are what it said of itself: whatever was seen of its faults.
pub fn of_threads_and_processes(variant: &'static str) {
    let groupings = ["process,file,cause", "thread,file", "thread,cause"];
    for by in all_or_first(groupings) {
        let mut command = faults(variant, &["--by", by, "-i", "50ms"]);
        let said = Said::by(command.arg("--").args(fixture("wait4")));
        let what: &[&str] =
            if by.starts_with("thread") { &["thread", "process", "wait4"] } else { &["process", "wait4"] };
        assert_truth_of(&said, what);
        assert_eq!(
            (&said.end["unattributed_faults"], &said.end["over_quota_faults"]),
            (&0.into(), &0.into())
        );
        assert_eq!(sum(&said.rows, |_| true), sum(&said.totals, |_| true));
        let key = |row: &Value| {
            ["pid", "tid", "start_ns", "file", "dev", "inode", "cause"].map(|name| row[name].to_string())
        };
        let keys: BTreeSet<_> = said.totals.iter().map(key).collect();
        assert_eq!(keys.len(), said.totals.len(), "a row for each key: {:#?}", said.totals);
        for total in &said.totals {
            let rows = sum(&said.rows, |row| key(row) == key(total));
            assert_eq!(rows, sum(std::slice::from_ref(total), |_| true), "{total}");
            assert!(total["comm"].is_string() && total["comm"] != "", "{total}");
        }
    }
}

/// However rows are grouped, they add up to what the process says of itself; what all have in common is in each.
pub fn sums_are_the_same(variant: &'static str) {
    let mut worker = Worker::start(&fixture("on-demand"));
    worker.touch(10);
    let before = worker.touch(1000);
    let pid = worker.id().to_string();
    let groupings = ["comm", "function", "file,cause", "comm,cause", "cgroup,file", "comm,file,cause"];
    let beside = |by: &&'static str| Beside::start(faults(variant, &["-p", &pid, "--by", by]));
    let traplines: Vec<_> = groupings.iter().map(|by| (*by, beside(by))).collect();
    worker.touch(300);
    let after = worker.touch(4000);
    for (by, trapline) in traplines {
        let said = trapline.interrupt();
        let told = (after.0 - before.0, after.1 - before.1);
        assert_eq!(sum(&said.totals, |_| true), told, "{by}: {:#?}", said.totals);
        let all_are = |name: &str, value: &str| {
            assert!(said.totals.iter().all(|row| row[name] == value), "{by}: {:#?}", said.totals);
        };
        if by.contains("comm") {
            all_are("comm", std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim_end());
        }
        if by.contains("cgroup") {
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
            if let Some(cgroup) = cgroup {
                all_are("cgroup", cgroup);
            }
        }
        if by == "file,cause" {
            let touched = |row: &&Value| row["file"] == "[anon]" && row["cause"] == "zero-fill";
            assert!(said.totals.iter().find(touched).is_some_and(|row| u(&row["minor"]) >= 4000));
        }
    }
}

/// Each fault that was timed is in the histogram of its row, and major ones are in theirs.
pub fn histograms(variant: &'static str) {
    let mut command = faults(variant, &["--by", "thread", "--hist", "-i", "50ms"]);
    let said = Said::by(command.arg("--").args(fixture("wait4")));
    let in_buckets = |row: &Value, name: &str| -> u64 {
        row[name].as_array().unwrap().iter().map(|bucket| u(&bucket[2])).sum()
    };
    let mut major = 0;
    for row in said.rows.iter().chain(&said.totals) {
        assert_eq!(in_buckets(row, "buckets"), u(&row["timed"]), "{row}");
        major += in_buckets(row, "major_buckets");
    }
    // A fault whose completion was not seen has no time.
    let counted = sum(&said.rows, |_| true).0 + sum(&said.totals, |_| true).0;
    assert!(major <= counted && counted - major <= 2 * missed(&said.end), "{major} of {counted}");
    let without = Said::by(faults(variant, &[]).args(["--", "true"]));
    assert!(without.totals.iter().all(|row| row["buckets"].is_null() && row["major_buckets"].is_null()));
}

/// What each process touched of each file.
pub fn of_a_process_and_a_file(variant: &'static str) {
    let beside = Beside::start(faults(variant, &["--by", "process"]));
    let said = with_truth(&mut faults(variant, &["--by", "process,file"]));
    let beside = beside.interrupt();
    let touched: Vec<_> = said.truth.iter().filter(|truth| truth["what"] == "touched").collect();
    for truth in touched.iter().filter(|truth| truth["offset"].is_u64() || truth["file"] == "[shmem]") {
        let is_same = |other: &Value| (&other["pid"], &other["file"]) == (&truth["pid"], &truth["file"]);
        let expected = touched.iter().filter(|other| is_same(other)).map(|truth| u(&truth["faults"])).sum();
        let rows: Vec<_> = said.totals.iter().filter(|row| is_same(row)).collect();
        let [row] = rows[..] else { panic!("{} rows for {truth}", rows.len()) };
        let count = u(&row["major"]) + u(&row["minor"]);
        assert!(said.is_but_for_missed(count, expected, 1), "{row} {truth} {}", said.end);
    }
    // By the kernel's own accounting of the same processes, which another instance watched.
    for pid in touched.iter().map(|truth| &truth["pid"]) {
        let of = |totals| sum(totals, |total| total["pid"] == *pid);
        assert_eq!(of(&said.totals), of(&beside.totals), "{pid}");
    }
}
