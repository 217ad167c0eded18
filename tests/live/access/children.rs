//! Descendants of a process that is traced.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::run::{fixture, u};
use crate::running::Worker;

/// Their first touches are accesses; not those of a child that was there before.
pub fn of_a_process(engine: &'static str) {
    let mut family = Worker::start(&fixture("family"));
    family.tell("begin");
    let first: u64 = family.line().parse().unwrap();
    let tracer = super::tracer(engine, &["-p", &family.id().to_string(), "--children"]).begun();
    family.tell("go on");
    let truth: Value = serde_json::from_str(&family.line()).unwrap();
    let said = tracer.wait();
    let touched = |pid: u64| {
        said.iter()
            .filter(|line| line["event"] == "access" && u(&line["pid"]) == pid && line["first"] == 1)
            .count()
    };
    assert!(touched(u(&truth["pid"])) >= 300, "{}", said.len());
    assert_eq!(touched(first), 0);
    let pids: BTreeSet<u64> =
        said.iter().filter(|line| line["event"] == "access").map(|line| u(&line["pid"])).collect();
    assert_eq!(pids.len(), 3, "{pids:?}");
}
