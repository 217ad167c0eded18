//! What the binary says without any privilege: help, bad input, statuses.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

fn trapline(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// It fails with this status and says why: what clap finds, over several lines; the rest, in one line.
fn refuses(arguments: &[&str], status: i32, holds: &str) {
    let output = trapline(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
    assert!(error.contains(holds), "{arguments:?}: {error}");
    assert!(!error.contains("panicked"), "{error}");
    if status == 1 {
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(error.starts_with("trapline: "), "{error}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn bad_input_is_refused() {
    refuses(&[], 2, "Usage");
    refuses(&["nosuchtool"], 2, "unrecognized subcommand 'nosuchtool'");
    refuses(&["faults", "-i", "0"], 2, "it must be more than 0");
    refuses(&["faults", "-i", "1"], 2, "it must be at least 10ms");
    refuses(&["faults", "-i", "soon"], 2, "try 500ms, 2s or 1m");
    refuses(&["faults", "-d", "0s"], 2, "it must be more than 0");
    refuses(&["faults", "--format", "xml"], 2, "possible values: table, jsonl, csv");
    refuses(&["faults", "-p", "abc"], 2, "invalid digit");
    refuses(&["faults", "-p", "-1"], 2, "");
    refuses(&["faults", "-t", "0"], 2, "0 is not in 1..");
    refuses(&["faults", "--top", "0"], 2, "0 is not in 1..");
    refuses(&["faults", "-p", "1", "--", "ls"], 2, "cannot be used with");
    refuses(&["faults", "--minor-latency", "1:0"], 2, "give exact, off, or 1:N");
    refuses(&["faults", "--ring-size", "3"], 2, "power of two");
    refuses(&["faults", "--sort", "size"], 1, "there is no such field");
    refuses(
        &["faults", "-o", "/nosuchdir/x.jsonl"],
        1,
        "cannot write to /nosuchdir/x.jsonl: No such file or directory",
    );
    refuses(&["faults", "-o", "result.xyz"], 1, "end it in .jsonl, .csv or .txt");
    refuses(&["access"], 2, "required");
    refuses(&["access", "-p", "1", "--", "ls"], 2, "cannot be used with");
    refuses(&["access", "-p", "1", "--every", "1us"], 2, "at least 100");
    refuses(&["access", "-p", "1", "--max-overhead", "200%"], 2, "a percentage above 0");
    refuses(&["access", "-p", "1", "--reset", "magic"], 2, "rwp, writes, none");
    refuses(&["targets", "add"], 2, "required");
    refuses(&["doctor", "--format", "csv"], 1, "table or jsonl");
    refuses(&["kvm"], 2, "Usage");
    refuses(&["kvm", "hist", "HTL"], 2, "trapline: no exit is called `HTL`; did you mean `HLT`?");
    refuses(&["kvm", "slower", "--excludes", "12,CPIUD"], 2, "did you mean `CPUID`?");
    refuses(&["kvm", "slower", "soon"], 2, "try 500ms, 2s or 1m");
    refuses(
        &["kvm", "count", "--by", "colour"],
        2,
        "possible values: reason, vm, vcpu, msr, port, mmio, rip",
    );
    refuses(&["kvm", "count", "--level", "l3"], 2, "possible values: l1, l2");
}

#[test]
fn what_is_not_there_is_named() {
    refuses(&["faults", "-p", "1073741823"], 1, "there is no process 1073741823");
    refuses(&["faults", "-t", "1073741823"], 1, "there is no thread 1073741823");
    refuses(&["faults", "--comm", "a-name-of-twenty-bytes"], 1, "at most 15 bytes");
    refuses(&["faults", "--cgroup", "/nosuch/group"], 1, "is not a cgroup");
    refuses(&["faults", "--variant", "magic"], 2, "there are fentry, kprobe, tracepoint, counters");
    refuses(&["workload", "mmap", "-f", "/nosuch.bin"], 1, "No such file");
}

#[test]
fn help_names_what_there_is() {
    let help = |arguments: &[&str]| {
        let output = trapline(arguments);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = help(&["--help"]);
    for command in ["faults", "doctor", "workload"] {
        assert!(text.contains(command), "{text}");
    }
    let text = help(&["faults", "--help"]);
    let options = [
        "--pid",
        "--tid",
        "--comm",
        "--cgroup",
        "--interval",
        "--duration",
        "--cumulative",
        "--sort",
        "--top",
    ];
    for option in options.iter().chain(&["--format", "--output", "--variant", "--verbose", "--minor-latency"])
    {
        assert!(text.contains(option), "{option}: {text}");
    }
    assert!(help(&["--version"]).starts_with("trapline 0."));
}
