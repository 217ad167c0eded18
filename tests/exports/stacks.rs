//! Stacks of recorded faults, grouped afterwards: kernel and user functions, with any name, of a part of the faults.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::hostile::{frames, named, names};
use crate::tools::{pprof, read, strings};
use crate::{recording_of, unzipped};

/// Faults of which no stack was taken.
const WITHOUT: u64 = 3;

/// Each name is that of a function in one fault more than the one before, below two of the kernel.
fn recorded(folder: &TempDir) -> (String, u64) {
    let mut lines = Vec::new();
    let mut fault = |pid: u64, stack: Value| {
        let time_ns = 2000 + 10 * lines.len() as u64;
        let id = if stack.is_null() { Value::Null } else { pid.into() };
        let lines_of = if stack.is_null() { Value::Null } else { ";;;;;/src/memory.c:17".into() };
        let fault = json!({
            "type": "event", "time_ns": time_ns, "pid": pid, "tid": pid, "start_ns": 5, "comm": "app", "kind": "minor",
            "addr": 4096, "latency_ns": 500, "stack_id": id, "stack": stack, "lines": lines_of,
        });
        lines.push(fault.to_string());
    };
    for (n, name) in (1..).zip(names()) {
        let stack = format!("{};handle_mm_fault_[k];do_anonymous_page_[k]", frames(&name).as_str().unwrap());
        (0..n).for_each(|_| fault(n, stack.clone().into()));
    }
    (0..WITHOUT).for_each(|_| fault(99, Value::Null));
    let count = lines.len() as u64;
    let events = "\"faults.stack_fault\"";
    let path = recording_of(("faults", count as usize), folder, "faults.stack", events, &lines);
    // One stack in four was asked for.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"tables\":", "\"stacks\":\"1:4\",\"tables\":", 1)).unwrap();
    (path, count)
}

fn replay(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).arg("replay").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn stacks_that_are_grouped_afterwards_are_whole_in_every_format() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (of_lines, count) = recorded(&folder);
    let of_folder = place("x.trapline");
    replay(&[&of_lines, "-o", &of_folder]);
    let mut files = Vec::new();
    for format in ["folded", "svg", "json.gz", "jsonl", "pb.gz"] {
        let [of_lines, again] = [(&of_lines, "lines"), (&of_folder, "folder")].map(|(recording, name)| {
            let to = place(&format!("{name}.{format}"));
            replay(&[recording, "--by", "stack", "-o", &to]);
            to
        });
        assert!(fs::read(&of_lines).unwrap() == fs::read(&again).unwrap(), "{format}");
        files.push(of_lines);
    }
    let [folded, svg, firefox, jsonl, profile] = &files[..] else { panic!("{files:?}") };
    // A part of the faults, from which no stack follows for the rest.
    let folded_text = fs::read_to_string(folded).unwrap();
    let (with, without): (Vec<_>, Vec<_>) =
        folded_text.lines().partition(|line| line.contains(";handle_mm_fault_[k];do_anonymous_page_[k] "));
    assert_eq!(without, [format!("[no stack taken] {WITHOUT}")]);
    let counts = with.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    let mut counts: Vec<u64> = counts.collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=names().len() as u64).collect::<Vec<_>>(), "{folded_text}");
    let rows = fs::read_to_string(jsonl).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let without = rows.filter(|row| row["type"] == "total" && row["stack"].is_null());
    assert_eq!(without.map(|row| row["minor"].as_u64().unwrap()).collect::<Vec<_>>(), [WITHOUT]);
    let threads = &unzipped(firefox)["threads"];
    let weights =
        threads.as_array().unwrap().iter().flat_map(|of| of["samples"]["weight"].as_array().unwrap());
    assert_eq!(weights.filter_map(Value::as_u64).sum::<u64>(), count);
    if let Some(raw) = pprof(&["-raw", profile]) {
        let samples = raw.split_once("Samples:\n").unwrap().1.split_once("Locations").unwrap().0;
        let values = samples.lines().filter_map(|line| line.split_once(':'));
        let values = values.filter_map(|(values, _)| values.split_whitespace().next()?.parse::<u64>().ok());
        assert_eq!(values.sum::<u64>(), count, "{raw}");
        assert!(raw.contains("[kernel.kallsyms]") && raw.contains("do_anonymous_page"), "{raw}");
        for name in names() {
            assert!(raw.contains(&named(&name.replace(';', ":"))), "{name:?}: {raw}");
        }
    }
    let Some(found) = read(&[folded.clone(), svg.clone(), firefox.clone()]) else { return };
    for (found, file) in found.iter().zip(&files) {
        let texts = strings(found);
        for name in names().iter().map(|name| named(&name.replace(';', ":"))) {
            assert!(texts.iter().any(|text| text.contains(&name)), "{file}: no function {name:?}");
        }
        assert!(texts.iter().any(|text| text.contains("do_anonymous_page")), "{file}");
    }
}
