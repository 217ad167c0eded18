//! Kernel to model: the kernel half is loaded, attached and read here, and nowhere else.
//!
//! This crate has the only libbpf. Each tool is a module with an ordered list of variants; the first that really loads
//! and attaches is used.

#[macro_use]
mod compiled;

mod abi;
pub mod access;
mod btf;
mod capacity;
mod cgroup;
pub mod doctor;
mod elements;
pub mod faults;
mod filter;
mod inherited;
pub mod kvm;
mod launch;
mod mounts;
mod namespaces;
#[cfg(test)]
mod prog_run;
mod refusal;
mod relay;
mod ring;
pub mod run;
mod run_as;
pub mod sgx;
mod signals;
mod stacks;
mod system;
pub mod terminal;
mod titles;
mod variant;

pub use cgroup::chosen::cgroup_of_unit;
pub use filter::{Filter, FilterError, Person};
pub use launch::{Launch, LaunchError};
pub use refusal::name_errnos;
pub use run_as::RunAs;
pub use system::{bpf_cost, toggle_bpf_statistics};
pub use titles::Titles;
pub use trapline_symbols::privilege::Keep;
pub use trapline_symbols::symbolize_if_asked;
pub use variant::{OpenError, Refused, refused};

/// Keeps libbpf from writing to standard error; with `verbose`, shows all it has to say (the verifier's log too).
pub fn set_libbpf_output(verbose: bool) {
    let print: libbpf_rs::PrintCallback = |_, text| eprint!("{text}");
    libbpf_rs::set_print(verbose.then_some((libbpf_rs::PrintLevel::Debug, print)));
}

/// Drops all capabilities but those that the rest of the run takes, of all threads.
///
/// # Errors
/// When the kernel refuses that, or another thread keeps more.
pub fn drop_all_but(keep: Keep) -> std::io::Result<()> {
    // Answered by what we may now.
    system::shows_kernel_addresses();
    trapline_symbols::privilege::drop_all_but(keep)
}

/// Test programs have no `main` of ours: the C library calls this before theirs, as it calls all such functions.
#[cfg(test)]
#[allow(unsafe_code)]
mod symbolizer_of_tests {
    extern "C" fn start() {
        trapline_symbols::symbolize_if_asked();
    }

    // SAFETY: the section holds pointers to functions that are called with three arguments; one that takes none may be.
    #[unsafe(link_section = ".init_array")]
    #[used]
    static START: extern "C" fn() = start;
}
