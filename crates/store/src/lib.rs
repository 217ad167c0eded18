//! Recordings: what a run said, read back. A recording is a source like a live probe, and whoever takes its items
//! cannot tell it from one.

mod folder;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod jsonl;
mod perf_data;

pub use folder::{FolderRecording, Kept, Recorder, SingleTable};
pub use jsonl::{Recording, RecordingError, has_end};
pub use perf_data::{PerfData, is_perf_data};
