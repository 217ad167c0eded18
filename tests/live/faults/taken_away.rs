//! What a kernel takes away: the doctor says it, and the tool takes the next variant or says why there is none.

use std::process::Command;

use serde_json::Value;

use crate::need::lockdown;
use crate::run::{lines, trapline};

/// What the doctor and the tool say after a shell command, in a mount namespace of their own.
fn after(command: &str) -> (Vec<Value>, std::process::Output) {
    let run = |words: &str| {
        let binary = env!("CARGO_BIN_EXE_trapline");
        let script = format!("{command}\nexec {binary} {words}");
        Command::new("unshare").args(["--mount", "sh", "-ec", &script]).output().unwrap()
    };
    let doctor = run("doctor --format jsonl");
    (lines(&doctor.stdout), run("faults -d 200ms --format jsonl"))
}

fn refused(doctor: &[Value]) -> Vec<(&str, &str)> {
    let rows = doctor.iter().filter(|line| line["tool"] == "faults" && line["attaches"] == "no");
    rows.map(|row| (row["variant"].as_str().unwrap(), row["remedy"].as_str().unwrap())).collect()
}

pub fn the_kernels_types(_: &'static str) {
    let (doctor, faults) = after("mount --bind /dev/null /sys/kernel/btf/vmlinux");
    assert_eq!(doctor[0]["btf"], "no");
    let refused = refused(&doctor);
    assert_eq!(refused.len(), 4);
    assert!(refused.iter().all(|(_, remedy)| remedy.contains("CONFIG_DEBUG_INFO_BTF")), "{refused:?}");
    let error = String::from_utf8(faults.stderr).unwrap();
    assert_eq!(faults.status.code(), Some(3), "{error}");
    assert!(error.lines().count() == 1 && error.contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
}

/// Without the function tracer there are no trampolines at handle_mm_fault, and no kprobes that use it.
pub fn the_function_tracer(_: &'static str) {
    let sysctl = "/proc/sys/kernel/ftrace_enabled";
    std::fs::write(sysctl, "0").unwrap();
    let (doctor, faults) = after("true");
    let access =
        trapline().args(["access", "--reset", "none", "--format", "jsonl", "--", "ls", "/"]).output();
    std::fs::write(sysctl, "1").unwrap();
    let refused = refused(&doctor);
    assert!(refused.iter().any(|&(variant, _)| variant == "fentry"), "{refused:?}");
    assert!(refused.iter().all(|&(variant, _)| variant == "fentry" || variant == "kprobe"), "{refused:?}");
    let first = doctor.iter().find(|line| line["attaches"] == "yes").unwrap();
    assert_eq!(faults.status.code(), Some(0));
    assert_eq!(lines(&faults.stdout)[0]["variant"], first["variant"]);
    let access = access.unwrap();
    let text = [access.stdout, access.stderr].concat();
    let said: Vec<Value> = String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line.is_object())
        .collect();
    assert!(access.status.success() && said[0]["variant"] == first["variant"], "{said:?}");
    assert!(said.iter().filter(|line| line["event"] == "access").count() > 50, "{said:?}");
}

/// Integrity leaves everything; confidentiality lets nobody read the kernel.
pub fn by_lockdown(_: &'static str) {
    let mode = lockdown().unwrap();
    let (doctor, faults) = after("true");
    assert_eq!(doctor[0]["lockdown"].as_str(), Some(mode.as_str()));
    let refused = refused(&doctor);
    let error = String::from_utf8(faults.stderr).unwrap();
    if mode == "confidentiality" {
        assert_eq!(refused.len(), 4);
        assert!(
            refused.iter().all(|(_, remedy)| remedy.contains("lockdown is `confidentiality`")),
            "{refused:?}"
        );
        assert_eq!(faults.status.code(), Some(3));
        assert!(error.lines().count() == 1 && error.contains("lockdown"), "{error}");
        assert_eq!(trapline().arg("doctor").output().unwrap().status.code(), Some(3));
    } else {
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(faults.status.code(), Some(0), "{error}");
        assert_eq!(lines(&faults.stdout)[0]["variant"], "fentry");
    }
}
