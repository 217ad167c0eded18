//! One module per command.

pub(crate) mod access;
pub(crate) mod doctor;
pub(crate) mod faults;
pub(crate) mod targets;
pub(crate) mod workload;
