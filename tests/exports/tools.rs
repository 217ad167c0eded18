//! Tools that are not ours, and what they show of files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Where `make test-deps` puts what package registries have: Python, Node.js, packages of both.
pub(crate) fn oracles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oracles")
}

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What `go tool pprof` prints; nothing, with a line that says so, if it is not installed.
pub(crate) fn pprof(arguments: &[&str]) -> Option<String> {
    let there = std::env::var_os("PATH").unwrap();
    if !std::env::split_paths(&there).any(|folder| folder.join("go").exists()) {
        eprintln!("not compared: Go is not installed");
        return None;
    }
    Some(run(Command::new("go").args(["tool", "pprof"]).args(arguments)))
}

/// What `read.py` finds in each of these files; nothing, with a line that says so, if its parsers are not installed.
pub(crate) fn read(files: &[String]) -> Option<Vec<Value>> {
    let python = oracles().join("bin/python");
    let parsers = "import duckdb, perfetto.protos.perfetto.trace.perfetto_trace_pb2";
    let has = Command::new(&python).args(["-c", parsers]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("not compared: DuckDB and Perfetto's messages are not installed in target/oracles");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports/read.py");
    let printed = run(Command::new(python).arg(script).args(files));
    let found: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (file, found) in files.iter().zip(&found) {
        assert_eq!(found["wrong"], Value::from(Vec::<Value>::new()), "{file}");
    }
    Some(found)
}

/// Text and numbers of what a parser found.
pub(crate) fn strings(found: &Value) -> Vec<&str> {
    found["texts"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

/// A profile, opened by the Firefox Profiler's own command line.
pub(crate) struct Profiler {
    folder: tempfile::TempDir,
}

impl Profiler {
    /// Opens it; nothing, with a line that says so, if it is not installed.
    pub(crate) fn open(profile: &str) -> Option<Self> {
        if !oracles().join("node_modules/.bin/profiler-cli").exists() {
            eprintln!("not compared: the Firefox Profiler is not installed in target/oracles");
            return None;
        }
        let this = Self { folder: tempfile::tempdir().unwrap() };
        // It waits half a second for itself, and is told to be waited for by asking again.
        let opened = this.command(&["load", profile]);
        let mut asked = this.command(&["profile", "info"]);
        for _ in 0..100 {
            if asked.status.success() {
                break;
            }
            asked = this.command(&["profile", "info"]);
        }
        assert!(asked.status.success(), "{opened:?} {asked:?}");
        Some(this)
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let program = oracles().join("node_modules/.bin/profiler-cli");
        let mut node = Command::new(oracles().join("bin/node"));
        node.env("PROFILER_CLI_SESSION_DIR", self.folder.path());
        node.arg(program).args(arguments).output().unwrap()
    }

    /// What it prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        self.command(&["stop"]);
    }
}
