//! `bpf/sgx.h`, mirrored.

use bytemuck::{Pod, Zeroable};
use trapline_model::BUCKETS;

use super::COMM_LEN;

constants! {
    nothing = "sgx_none", "": u32 {
        /// An offset that is not known.
        SGX_NOWHERE = u32::MAX,
    }
}

constants! {
    marks = "sgx_mark", "": u64 {
        /// A figure that is not known.
        SGX_UNKNOWN = u64::MAX,
        SGX_CHUNK_EVICTED = 1 << 63,
    }
}

constants! {
    sizes = "sgx_size", "": usize {
        SGX_MAX_ENCLAVES = 4096,
        SGX_CHUNK_WORDS = 118,
        SGX_CHUNK_PAGES = SGX_CHUNK_WORDS * 64,
    }
}

mirror! {
    /// Where an SGX driver's types have their fields, bytes.
    SgxLayout = "sgx_layout" {
        encl_base: u32,
        encl_size: u32,
        encl_refcount: u32,
        encl_secs: u32,
        page_encl: u32,
        page_desc: u32,
        epc_owner: u32,
        pad: u32,
    }
}

mirror! {
    /// How the sgx programs work.
    SgxConfig = "sgx_config" {
        release_is_seen: u32,
        pad: u32,
    }
}

mirror! {
    /// Which pages of which enclave, in which interval.
    SgxChunkKey = "sgx_chunk_key" {
        index: u64,
        serial: u32,
        epoch: u32,
    }
}

mirror! {
    /// One enclave.
    SgxEnclave = "sgx_enclave" {
        serial: u64,
        start_ns: u64,
        cgroup: u64,
        base: u64,
        size: u64,
        pid: u32,
        guest: u32,
        pages: u64,
        unaccounted: u64,
        faults: u64,
        loads: u64,
        added: u64,
        mapped: u64,
        busy: u64,
        failed: u64,
        evictions: u64,
        by_daemon: u64,
        caused: u64,
        refaults: u64,
        secs_loads: u64,
        secs_evictions: u64,
        load_ns: u64,
        hist: [u64; BUCKETS],
        recent: [u64; 2],
        comm: [u8; COMM_LEN],
    }
}

mirror! {
    /// What the sgx programs lost.
    SgxLosses = "sgx_losses" {
        untracked: u64,
        unpaired: u64,
        events: u64,
        unmarked: u64,
        unread: u64,
    }
}

#[cfg(test)]
pub(super) fn sgx_layouts() -> Vec<super::Layout> {
    vec![
        SgxLayout::layout(),
        SgxConfig::layout(),
        SgxChunkKey::layout(),
        SgxEnclave::layout(),
        SgxLosses::layout(),
    ]
}

#[cfg(test)]
pub(super) fn sgx_constants() -> Vec<super::Values> {
    vec![nothing(), marks(), sizes()]
}
