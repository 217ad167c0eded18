//! Recordings: what a run said, read back. A recording is a source like a live probe, and whoever takes its items
//! cannot tell it from one.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod jsonl;

pub use jsonl::{Recording, RecordingError};
