//! The kernel half of sgx, run by BPF_PROG_RUN: see [`crate::prog_run`].

use std::collections::HashSet;

use fastrand::Rng;

use crate::abi::maps::sgx as maps;
use crate::abi::{SGX_CHUNK_EVICTED, SGX_CHUNK_PAGES, TrapControl};
use crate::prog_run::{self, resize};
use crate::variant::Attached;

/// What marking a page has come to: `enum mark` of `bpf/sgx_enclave.bpf.h`.
const NOW: u32 = 0;
const BEFORE: u32 = 1;
const NO_MEMORY: u32 = 2;

fn half(chunks: u32) -> Attached {
    prog_run::load(compiled!("test_sgx"), |object| resize(object, maps::CHUNKS, chunks))
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_page_is_marked_once_in_an_interval_and_for_its_enclave_alone() {
    let half = half(4096);
    let mut random = Rng::with_seed(12);
    let pages = SGX_CHUNK_PAGES as u64;
    for epoch in 1..=5 {
        half.write(maps::CONTROL, &TrapControl { epoch }).unwrap();
        let mut marked = HashSet::new();
        for _ in 0..5000 {
            // About the border of a chunk, and anywhere.
            let page = match random.bool() {
                true => pages * random.u64(1..4) + random.u64(0..128) - 64,
                false => random.u64(0..pages * 4),
            };
            let enclave = random.u64(1..4);
            let kind = [0, SGX_CHUNK_EVICTED][random.usize(0..2)];
            let mark = (enclave, page, kind);
            let is_marked = half.run("test_is_marked", &[enclave, page, kind]) != 0;
            assert_eq!(is_marked, marked.contains(&mark), "{mark:?}");
            if random.bool() {
                let expected = if marked.insert(mark) { NOW } else { BEFORE };
                assert_eq!(half.run("test_mark", &[enclave, page, kind]), expected, "{mark:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_page_for_which_there_is_no_memory_is_not_marked() {
    let half = half(1);
    let beyond = SGX_CHUNK_PAGES as u64;
    assert_eq!(half.run("test_mark", &[1, 0, 0]), NOW);
    assert_eq!(half.run("test_mark", &[1, beyond, 0]), NO_MEMORY);
    assert_eq!(half.run("test_is_marked", &[1, beyond, 0]), 0);
    assert_eq!(half.run("test_mark", &[1, 0, 0]), BEFORE);
}
