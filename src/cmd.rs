//! One module per command; `run.rs`, `recording.rs` and `summarize.rs` are what several share.

pub(crate) mod access;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod faults;
pub(crate) mod generate;
pub(crate) mod help;
pub(crate) mod kvm;
pub(crate) mod prefetch;
mod recording;
pub(crate) mod replay;
pub(crate) mod report;
mod run;
pub(crate) mod sgx;
mod summarize;
pub(crate) mod targets;
pub(crate) mod top;
pub(crate) mod workload;
