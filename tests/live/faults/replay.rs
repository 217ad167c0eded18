//! A recording of a live run is read back whole: what is written of it again is the same, byte for byte. (That tables are
//! the same then, too, `src/cmd/replay/tests.rs` shows for every table in every layout.)

use crate::run::{scratch, trapline};

/// Runs this, records it, and replays the recording into another one.
pub fn is_whole(tool: &[&str], command: &[&str]) -> String {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let (recorded, again) = (folder.path().join("x.jsonl"), folder.path().join("again.jsonl"));
    let run = trapline().args(tool).arg("-o").arg(&recorded).arg("--").args(command).output().unwrap();
    assert!(run.status.success(), "{tool:?}: {run:?}");
    let replay = trapline().arg("replay").arg(&recorded).arg("-o").arg(&again).output().unwrap();
    assert!(replay.status.success(), "{tool:?}: {replay:?}");
    let [text, again] = [recorded, again].map(|path| std::fs::read_to_string(path).unwrap());
    assert!(text == again, "{tool:?}: the recording:\n{text}\nand what its replay has:\n{again}");
    text
}

pub fn count(text: &str, kind: &str) -> usize {
    text.lines().filter(|line| line.starts_with(&format!("{{\"type\":\"{kind}\""))).count()
}

/// 3000 faults in a command that takes longer than an interval.
const FAULTS: &[&str] = &["workload", "faults", "3000", "--rate", "20000", "-t", "2"];

pub fn a_recording_is_read_back_whole(variant: &str) {
    let own = env!("CARGO_BIN_EXE_trapline");
    let command = [&[own], FAULTS].concat();
    for by in ["thread", "process", "cgroup", "file", "cause", "stack"] {
        let known = variant != "rootless" || ["thread", "process", "file", "stack"].contains(&by);
        let counted = variant != "counters" || ["thread", "process", "cgroup"].contains(&by);
        if known && counted {
            let text = is_whole(&["faults", "--by", by, "-i", "50ms", "--variant", variant], &command);
            assert!(count(&text, "row") > 0 && count(&text, "total") > 0, "{by}: {text}");
            assert!(count(&text, "block") > 2, "{by}: {text}");
        }
    }
    if variant != "counters" {
        let text = is_whole(&["faults", "-v", "--variant", variant], &command);
        assert!(count(&text, "event") >= 3000, "{text}");
    }
}
