//! One module per command.

pub(crate) mod access;
pub(crate) mod command;
pub(crate) mod doctor;
pub(crate) mod faults;
pub(crate) mod kvm;
pub(crate) mod sgx;
pub(crate) mod targets;
pub(crate) mod workload;
