//! What is left of a recording when something goes wrong: a kill, a copy at any moment, a full disk.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::run::{fixture, lines, scratch, trapline, u};
use crate::running::{Running, Worker, until};

fn replay(path: &Path, arguments: &[&str]) -> Output {
    trapline().arg("replay").arg(path).args(["--format", "jsonl"]).args(arguments).output().unwrap()
}

/// A copy of what is there now: what is being written is left out.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap().collect::<Vec<_>>() {
        let name = file.unwrap().file_name();
        if !name.to_str().unwrap().starts_with('.') {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

/// The recorded faults, and those that are said to be lost.
fn recorded(output: &Output) -> u64 {
    let lines = lines(&output.stdout);
    let events = lines.iter().filter(|line| line["type"] == "event").count() as u64;
    let end = lines.iter().find(|line| line["type"] == "end");
    events + end.map_or(0, |end| u(&end["lost_events"]))
}

/// Records a process, and has begun.
fn recording(variant: &str, of: &Worker, path: &Path, options: &[&str]) -> Running {
    let tracing = Running::start(
        trapline()
            .args(["faults", "--variant", variant, "-p", &of.id().to_string()])
            .args(options)
            .arg("-o")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    until("the recording has begun", || path.join("header.json").exists());
    tracing
}

/// All faults up to the last part are there after a kill; and a copy of a recording that grows is one that is cut off.
pub fn a_kill_costs_the_last_part(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = folder.path().join("x.trapline");
    let mut worker = Worker::start(&fixture("on-demand"));
    // All that it does to answer has been touched then.
    worker.touch(10);
    let (_, before) = worker.touch(10);
    let tracing = recording(variant, &worker, &path, &[]);
    let has = |name: &str| path.join(name).exists();
    worker.touch(1000);
    until("a part is written", || has("parts-000001.json"));
    let (_, after) = worker.touch(2000);
    let mut copies = 0;
    until("the next part is written", || {
        let copied = folder.path().join(format!("copy-{copies}.trapline"));
        copies += 1;
        copy(&path, &copied);
        let output = replay(&copied, &["-v"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("the recording is cut off at"), "{said}");
        assert!(recorded(&output) >= 1000, "{}", recorded(&output));
        has("parts-000002.json")
    });
    tracing.send(Signal::SIGKILL);
    tracing.output();
    let output = replay(&path, &["-v"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("the recording is cut off at"), "{said}");
    assert_eq!(recorded(&output), after - before, "{said}");
    // It knows what it had lost until shortly before, and the file has that and all that is intact.
    let lines = folder.path().join("y.jsonl");
    let output = replay(&path, &["-v", "-o", lines.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let lines = fs::read_to_string(&lines).unwrap();
    let end = lines.lines().last().unwrap();
    assert!(end.contains("\"type\":\"end\"") && end.contains("\"cut_off\":1"), "{end}");
    assert_eq!(lines.matches("\"type\":\"event\"").count() as u64, after - before);
}

/// Its parts cannot be written any more: the message says why, and the command goes on.
pub fn a_full_disk_ends_the_recording_and_not_the_command(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let (disk, done) = (folder.path().join("disk"), folder.path().join("done"));
    fs::create_dir(&disk).unwrap();
    let own = env!("CARGO_BIN_EXE_trapline");
    // A part is written while the command still runs.
    let command = format!("{own} workload faults 20000 >/dev/null; sleep 7; echo whole >{}", done.display());
    let script = "mount -t tmpfs -o size=64k none $1; shift; exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&disk)
        .args([own, "faults", "--variant", variant, "-o"])
        .arg(disk.join("x.trapline"))
        .args(["--", "sh", "-c", &command])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let why = format!("cannot write to {}: ENOSPC", disk.join("x.trapline").display());
    assert!(output.status.code() == Some(1) && said.contains(&why), "{output:?}");
    assert_eq!(fs::read_to_string(&done).unwrap(), "whole\n");
}

/// A flight recorder of a second: faults of long before are gone, those around a message are there.
pub fn what_was_recorded_around_a_message_stays(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = folder.path().join("x.trapline");
    let mut worker = Worker::start(&fixture("on-demand"));
    worker.touch(10);
    let (_, before) = worker.touch(10);
    let keep = ["--log-step", "2000", "--keep", "1s", "--keep-on-message"];
    let tracing = recording(variant, &worker, &path, &keep);
    let has = |name: &str| path.join(name).exists();
    // The message is in the third part. The first is older than what is kept, and so would be the second.
    let mut after = vec![before];
    for (part, count) in (1..).zip([1000, 500, 1000, 100]) {
        after.push(worker.touch(count).1);
        until("a part is written", || has(&format!("parts-{part:06}.json")));
    }
    until("the first part is discarded", || !has("parts-000001.json"));
    tracing.send(Signal::SIGINT);
    let output = tracing.output();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(shown.lines().filter(|line| line.contains("2000")).count(), 1, "{output:?}");
    let replayed = replay(&path, &["-v"]);
    assert!(replayed.status.success(), "{replayed:?}");
    let times: Vec<u64> = lines(&replayed.stdout)
        .iter()
        .filter(|line| line["type"] == "event")
        .map(|line| u(&line["time_ns"]))
        .collect();
    assert_eq!(times.len() as u64, after[4] - after[1], "{replayed:?}");
    assert!(times.is_sorted());
    // What was discarded is in no row, and rates are of what was kept.
    let grouped = lines(&replay(&path, &["--by", "file"]).stdout);
    let counted = |line: &Value| u(&line["major"]) + u(&line["minor"]);
    let rows = || grouped.iter().filter(|line| line["type"] == "total");
    assert_eq!(rows().map(counted).sum::<u64>(), after[4] - after[1], "{grouped:?}");
    assert!(rows().all(|row| row["file"] != "(not attributed)"), "{grouped:?}");
    let block = grouped.iter().find(|line| line["of"] == "total").unwrap();
    let (header, end) = (&grouped[0], grouped.last().unwrap());
    let kept_ns = u(&header["kept_ns"]);
    assert!(kept_ns > 0 && kept_ns < u(&end["duration_ns"]), "{header} {end}");
    assert_eq!(u(&block["time_ns"]) - u(&block["since_ns"]), kept_ns, "{block}");
    assert_eq!((&header["kept_since_ns"], u(&end["whole_run"])), (&block["since_ns"], 1), "{header} {block}");
}

/// Faults that were lost while trapline could not run are in the interval in which they were lost.
pub fn lost_faults_are_in_their_interval(variant: &str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let path = folder.path().join("x.trapline");
    let mut worker = Worker::start(&fixture("on-demand"));
    worker.touch(10);
    let tracing = recording(variant, &worker, &path, &["-i", "500ms", "--ring-size", "1"]);
    worker.touch(1000);
    std::thread::sleep(std::time::Duration::from_millis(700));
    tracing.send(Signal::SIGSTOP);
    worker.touch(50_000);
    tracing.send(Signal::SIGCONT);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    worker.touch(1000);
    std::thread::sleep(std::time::Duration::from_millis(700));
    tracing.send(Signal::SIGINT);
    tracing.output();
    let counts = |options: &[&str]| {
        let output = lines(&replay(&path, options).stdout);
        let lost = u(&output.last().unwrap()["lost_events"]);
        assert!(lost > 30_000, "{lost}");
        let blocks = output.iter().filter(|line| line["of"] == "row");
        // An interval without faults has no sum.
        let of = |value: &Value| value.as_u64().unwrap_or(0);
        let block = |block: &Value| of(&block["sum"]["major"]) + of(&block["sum"]["minor"]);
        let lost_in = output.iter().filter(|line| line["type"] == "row" && line["pid"].is_null());
        let rest: Vec<u64> =
            lost_in.map(|row| u(&row["major"]) + u(&row["minor"])).filter(|n| *n > 0).collect();
        (blocks.map(block).filter(|faults| *faults > 0).collect::<Vec<_>>(), rest, lost)
    };
    let (live, _, lost) = counts(&[]);
    assert!(live.len() >= 3 && live.iter().any(|faults| *faults >= 50_000), "{live:?}");
    let (made, rest, _) = counts(&["--by", "process", "-i", "500ms"]);
    assert_eq!((made, rest), (live.clone(), vec![lost]));
    // In a part of it nobody knows when it lost them: at its end.
    let (made, rest, _) = counts(&["--by", "process", "-i", "250ms"]);
    assert_eq!((made.iter().sum::<u64>(), rest), (live.iter().sum(), vec![lost]), "{made:?}");
    let (made, rest, _) = counts(&["--by", "process"]);
    assert_eq!((made, rest), (live, vec![lost]));
}
