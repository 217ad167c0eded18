//! Recordings: what a run said, read back. A recording is a source like a live probe, and whoever takes its items
//! cannot tell it from one.

mod jsonl;

pub use jsonl::{Recording, RecordingError, Tool};
