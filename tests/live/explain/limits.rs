//! Findings about memory that is short, or that the scheduler watches.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::file;
use crate::faults::cause::{Swap, many_hints};
use crate::faults::frame::cgroup_root;
use crate::fixture::{PAGE, map, read_all, touch};
use crate::run::{Said, fixture, trapline};

/// A cgroup with little memory, until this is dropped.
pub(super) struct Limited(PathBuf);

impl Limited {
    /// Of either version of the hierarchy: `memory.max`, or what the first one has for it.
    pub(super) fn most(bytes: &str) -> Self {
        let old = Path::new("/sys/fs/cgroup/memory");
        if old.join("memory.limit_in_bytes").exists() {
            return Self::below(old, ("memory.limit_in_bytes", bytes));
        }
        Self::of(("memory.max", bytes))
    }

    /// Of the second version.
    fn of(limit: (&str, &str)) -> Self {
        let root = cgroup_root();
        std::fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        Self::below(&root, limit)
    }

    fn below(root: &Path, (file, bytes): (&str, &str)) -> Self {
        let dir = tempfile::Builder::new().prefix("trapline-explain-").tempdir_in(root).unwrap().keep();
        std::fs::write(dir.join(file), bytes).unwrap();
        Self(dir)
    }

    /// A program in it.
    pub(super) fn command(&self, program: &str) -> Command {
        let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        let mut command = Command::new("sh");
        command.args(["-c", &join, "sh"]).args(fixture("explain")).arg(program);
        command
    }

    /// The rules that apply to a program in it.
    fn found(&self, program: &str) -> Vec<String> {
        let command = self.command(program);
        let mut explain = trapline();
        explain
            .args(["explain", "--format", "jsonl", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        let said = Said::by(&mut explain);
        println!("{:#?}", said.totals);
        said.totals.iter().map(|total| total["rule"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// It has the rule; beside it, only these may apply.
fn assert_found(found: &[String], rule: &str, beside: &[&str]) {
    assert!(found.iter().any(|name| name == rule), "no {rule}: {found:?}");
    assert!(found.iter().all(|name| name == rule || beside.contains(&name.as_str())), "{found:?}");
}

/// Pages of it come back; where they are freed in the faults themselves, that is a finding of its own.
pub fn a_file_larger_than_the_memory(_: &'static str) {
    file();
    assert_found(&Limited::most("16M").found("again-in-order"), "thrash", &["reclaim"]);
}

/// What is freed was a file's, so nothing comes back; the memory itself is fresh.
pub fn memory_that_must_be_freed_first(_: &'static str) {
    file();
    assert_found(
        &Limited::most("24M").found("fresh-beside-a-file"),
        "reclaim",
        &["first-touch", "sequential-reads"],
    );
}

pub fn memory_in_swap(_: &'static str) {
    let _swap = Swap::on();
    assert_found(&Limited::most("12M").found("swapped"), "swap-in", &["reclaim", "first-touch"]);
}

pub fn above_memory_high(_: &'static str) {
    assert_found(
        &Limited::of(("memory.high", "16M")).found("much"),
        "throttled",
        &["reclaim", "first-touch"],
    );
}

/// Reads its memory for some seconds. One with a single thread gets no hints where it is on the node of its memory.
pub fn hinted() {
    std::thread::spawn(|| {
        loop {
            std::thread::park();
        }
    });
    let memory = map(2048 * PAGE, 0);
    touch(&memory);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        read_all(&memory);
    }
}

pub fn memory_that_is_hidden(_: &'static str) {
    let _fast = many_hints();
    let mut words = fixture("explain");
    words.push("hinted".into());
    let said = Said::by(trapline().args(["explain", "--format", "jsonl", "--"]).args(words));
    let found: Vec<_> = said.totals.iter().map(|total| total["rule"].clone()).collect();
    assert_eq!(found, ["numa-hints"], "{:#?} {}", said.totals, said.end);
}
