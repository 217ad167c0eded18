//! The kernel half of faults, run by BPF_PROG_RUN: see [`crate::prog_run`].

mod areas;
mod chains;
mod groups;
mod spans;
mod stacks;
mod steps;
mod tables;
mod times;
mod unwind;

use bytemuck::Zeroable;
use libbpf_rs::OpenObject;

use crate::abi::maps::faults as maps;
use crate::abi::{FaultsConfig, FaultsControl};
use crate::prog_run;
use crate::variant::Attached;

/// The object, with that configuration: all threads are counted from now on.
fn load(config: FaultsConfig, configure: impl FnOnce(&mut OpenObject)) -> Attached {
    prog_run::load(compiled!("test_faults"), |object| {
        prog_run::set(object, maps::CONFIG, &config);
        prog_run::set(object, maps::CONTROL, &began());
        configure(object);
    })
}

fn began() -> FaultsControl {
    FaultsControl { epoch: 1, began_ns: 1, adopted: 1, turn: 1, ..FaultsControl::zeroed() }
}
