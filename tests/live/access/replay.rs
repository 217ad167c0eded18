//! The same of `access` as of `faults`.

use crate::faults::replay::{count, is_whole};

pub fn a_recording_is_read_back_whole(engine: &str) {
    let command = [env!("CARGO_BIN_EXE_trapline"), "workload", "touch", "--pages", "16", "--rounds", "3"];
    let text = is_whole(&["access", "--reset", engine], &command);
    assert!(count(&text, "event") >= 16, "{text}");
    let text = is_whole(&["access", "--reset", engine, "--summary"], &command);
    assert!(count(&text, "total") >= 6, "{text}");
}
