//! Kernel to model: the kernel half is loaded, attached and read here, and nowhere else.
//!
//! This crate has the only libbpf, and with `trapline-workload` the only `unsafe`. Each tool is a module with an
//! ordered list of variants; the first that really loads and attaches is used.

mod abi;
pub mod access;
mod btf;
mod cgroup;
pub mod doctor;
mod elements;
pub mod faults;
mod filter;
mod inherited;
pub mod kvm;
mod launch;
pub mod live;
mod maps;
mod namespaces;
mod perf;
pub mod privilege;
mod relay;
mod ring;
mod run_as;
pub mod sgx;
mod sgx_driver;
mod signals;
mod symbols;
mod system;
mod task;
mod variant;

pub use filter::{Filter, FilterError};
pub use launch::{Launch, LaunchError};
pub use run_as::RunAs;
pub use symbols::symbolize_if_asked;
pub use variant::{OpenError, Refused, refused};

/// Keeps libbpf from writing to standard error; with `verbose`, shows all it has to say (the verifier's log too).
pub fn set_libbpf_output(verbose: bool) {
    let print: libbpf_rs::PrintCallback = |_, text| eprint!("{text}");
    libbpf_rs::set_print(verbose.then_some((libbpf_rs::PrintLevel::Debug, print)));
}
