//! `bpf/access.h`, mirrored.

use super::COMM_LEN;
use bytemuck::{Pod, Zeroable};

constants! {
    sizes = "access_size", "": usize {
        ACCESS_MAX_NAMES = 256,
    }
}

constants! {
    whats = "access_what", "": u32 {
        ACCESS_EXEC = 1,
        ACCESS_FORK = 2,
        ACCESS_EXIT = 3,
    }
}

mirror! {
    /// Which processes the access programs follow.
    AccessConfig = "access_config" {
        follow: u32,
        named: u32,
    }
}

mirror! {
    /// A process gets memory of its own, or ends.
    AccessLife = "access_life" {
        time_ns: u64,
        what: u32,
        pid: u32,
        tid: u32,
        cpu: u32,
        borrows: u32,
        parent: u32,
        comm: [u8; COMM_LEN],
    }
}

#[cfg(test)]
pub(super) fn access_layouts() -> Vec<super::Layout> {
    vec![AccessConfig::layout(), AccessLife::layout()]
}

#[cfg(test)]
pub(super) fn access_constants() -> Vec<super::Values> {
    vec![sizes(), whats()]
}
