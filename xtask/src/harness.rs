//! The tests as cargo builds them, and the counts in what they print.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::system::{self, Scratch};

/// The package whose tests run in the machines.
const PACKAGE: &str = "trapline";

/// The test that runs programs compiled by itself, with `--fixture programs DIRECTORY`.
const WITH_PROGRAMS: &str = "live";

/// An executable that cargo built: a test, or trapline itself.
#[derive(Debug, PartialEq)]
pub struct Executable {
    /// The name of the target.
    pub name: String,
    /// Where cargo put it. Tests know trapline by that path.
    pub place: PathBuf,
    /// Whether it is a test.
    pub is_test: bool,
}

/// What cargo built, and copies of it: a later build may replace the originals while the machines run.
#[derive(Debug)]
pub struct Built {
    /// All of it.
    pub executables: Vec<Executable>,
    copies: Scratch,
}

impl Built {
    /// The tests.
    pub fn tests(&self) -> impl Iterator<Item = &Executable> {
        self.executables.iter().filter(|executable| executable.is_test)
    }

    /// Where the programs are that the tests run beside themselves.
    pub fn programs(&self) -> &Path {
        self.copies.path()
    }

    /// Each executable's copy and its place.
    pub fn copies(&self) -> impl Iterator<Item = (PathBuf, &Path)> {
        let copies = self.copies.path();
        self.executables.iter().map(|Executable { place, .. }| {
            let name = place.file_name().unwrap_or_default();
            (copies.join(name), place.as_path())
        })
    }
}

/// Builds the integration tests of those names, or all, and trapline itself with them.
pub fn build(names: &[String], release: bool) -> Result<Built> {
    let mut cargo = system::command("cargo")?;
    cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics", "--package", PACKAGE]);
    if release {
        cargo.arg("--release");
    }
    if names.is_empty() {
        cargo.args(["--test", "*"]);
    }
    for name in names {
        cargo.args(["--test", name]);
    }
    let built = cargo.current_dir(system::repository()).stderr(Stdio::inherit()).output()?;
    ensure!(
        built.status.success(),
        "the tests do not build, so there is nothing to run in the virtual machines"
    );
    let executables = executables_in(&String::from_utf8_lossy(&built.stdout));
    let built = Built { executables, copies: Scratch::new("built")? };
    ensure!(
        built.tests().next().is_some(),
        "{PACKAGE} has no integration tests to run in the virtual machines"
    );
    for (copy, place) in built.copies() {
        fs::copy(place, copy).with_context(|| format!("cannot copy {}", place.display()))?;
    }
    for test in built.tests().filter(|test| test.name == WITH_PROGRAMS) {
        let mut compile = Command::new(&test.place);
        compile.args(["--fixture", "programs"]).arg(built.programs());
        let compiled = compile.current_dir(system::repository()).status()?;
        ensure!(compiled.success(), "the programs that the tests run do not build");
    }
    Ok(built)
}

/// The executables among cargo's messages, one a line.
pub fn executables_in(messages: &str) -> Vec<Executable> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executables = messages.filter_map(|message| {
        let target = message.get("target")?;
        let kinds = target.get("kind")?.as_array()?;
        let name = target.get("name")?.as_str()?.to_owned();
        let place = message.get("executable")?.as_str()?.into();
        Some(Executable { name, place, is_test: kinds.iter().any(|kind| kind == "test") })
    });
    executables.collect()
}

/// Tests by how they ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Test executables that told their result.
    pub results: usize,
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were not run.
    pub skipped: u64,
    /// The names of those that failed.
    pub failures: Vec<String>,
    /// The names of those that were run a second time, because they failed first.
    pub second_tries: Vec<String>,
    in_failures: bool,
}

impl Tally {
    /// Counts a line of output if it is the last of a test executable's, or names a test that failed. Tests that a filter
    /// left out are not counted.
    pub fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("second try: ").map(str::trim_end) {
            self.second_tries.push(name.to_owned());
        }
        // A list of names ends the output of those that failed.
        match line.strip_prefix("    ") {
            Some(name) if self.in_failures && !name.contains(' ') => self.failures.push(name.to_owned()),
            _ => self.in_failures = line == "failures:",
        }
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        self.results += 1;
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let number: u64 = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            results: self.results + other.results,
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            failures: [self.failures, other.failures].concat(),
            second_tries: [self.second_tries, other.second_tries].concat(),
            in_failures: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_test_executable_is_counted() {
        let mut tally = Tally::default();
        for line in ["second try: a::b", "", "failures:", "", "---- c::d ----", "failures:", "    c::d", ""] {
            tally.read(line);
        }
        tally.read("test result: FAILED. 7 passed; 2 failed; 3 ignored; 0 measured; 5 filtered out; finished in 0.31s");
        tally.read("test counts ... ok");
        let expected = Tally {
            results: 1,
            passed: 7,
            failed: 2,
            skipped: 3,
            failures: vec!["c::d".into()],
            second_tries: vec!["a::b".into()],
            in_failures: false,
        };
        assert_eq!(tally, expected);
    }

    #[test]
    fn tests_are_told_from_other_artifacts() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"model"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"trapline"},"executable":"/t/trapline"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"live"},"executable":"/t/live-1"}
{"reason":"build-finished","success":true}"#;
        let executable =
            |name: &str, place: &str, is_test| Executable { name: name.into(), place: place.into(), is_test };
        let expected = [executable("trapline", "/t/trapline", false), executable("live", "/t/live-1", true)];
        assert_eq!(executables_in(messages), expected);
    }
}
