//! One module per command; `run.rs` is what live tools share.

pub(crate) mod access;
pub(crate) mod doctor;
pub(crate) mod faults;
pub(crate) mod kvm;
mod run;
pub(crate) mod sgx;
pub(crate) mod targets;
pub(crate) mod workload;
