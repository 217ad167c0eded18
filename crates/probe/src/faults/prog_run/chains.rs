//! Groups by stack: chains of calls that a test puts where the kernel half walks.

use std::arch::asm;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};

use bytemuck::{Zeroable, pod_read_unaligned};
use fastrand::Rng;
use libbpf_rs::{MapCore, MapFlags};

use super::load;
use crate::abi::maps::{MapName, faults as maps};
use crate::abi::{self, CHAIN_LEN, FaultsChain, FaultsConfig};
use crate::prog_run::{resize, set};
use crate::variant::Attached;

const OUT: MapName<'static> = MapName(".bss.test_out");
const CHAIN: MapName<'static> = MapName(".bss.test_chain");

/// As many frames as the kernel walks.
const DEEPEST: usize = 127;

/// What a function's beginning puts on the stack: the caller's frame, and the address to return to.
type Frame = [u64; 2];

/// The parts of `union bpf_attr` that BPF_PROG_RUN of a raw tracepoint's program looks at.
#[repr(C)]
#[derive(Debug, Default)]
struct Run {
    program: u32,
    returned: u32,
    data: [u64; 3],
    repeat: [u32; 2],
    context_size: [u32; 2],
    context: [u64; 2],
    flags: [u32; 4],
}

/// Runs a program in this thread, whose innermost frame is the one at that address. Gives what it returns.
#[allow(unsafe_code)]
fn run(half: &Attached, program: &str, frame: u64) -> u32 {
    const BPF_PROG_RUN: u64 = 10;
    let context = [0u64; 12];
    let program = half.object.progs().find(|it| it.name() == program).unwrap();
    let mut attr = Run {
        program: program.as_fd().as_raw_fd() as u32,
        context_size: [size_of_val(&context) as u32, 0],
        context: [context.as_ptr() as u64, 0],
        ..Run::default()
    };
    let result: i64;
    // SAFETY: the system call reads and writes `attr` and `context`, which are there; the frame pointer is put back
    // before anything else can need it.
    unsafe {
        asm!(
            "push rbp", "mov rbp, {frame}", "syscall", "pop rbp",
            frame = in(reg) frame,
            inlateout("rax") libc::SYS_bpf => result,
            in("rdi") BPF_PROG_RUN, in("rsi") &raw mut attr, in("rdx") size_of::<Run>(),
            lateout("rcx") _, lateout("r11") _,
        );
    }
    assert_eq!(result, 0, "{attr:?}");
    attr.returned
}

/// The stack's key, and the chain of calls that is kept under it.
fn stack(half: &Attached, frame: u64) -> ([u64; 4], Vec<u64>) {
    assert_eq!(run(half, "test_group_key", frame), 1);
    let out: [u64; 8] = half.read(OUT).unwrap();
    let key = [out[0], out[1], out[2], out[3]];
    let chain = half.handle(maps::CHAINS).unwrap().lookup(&key[2].to_ne_bytes(), MapFlags::ANY).unwrap();
    let chain: FaultsChain = pod_read_unaligned(&chain.unwrap());
    (key, chain.ip[..chain.count as usize].to_vec())
}

/// Puts a chain into memory, its frames in any order. Gives where it begins.
fn lay(random: &mut Rng, frames: &mut [Frame], chain: &[u64], end: u64) -> u64 {
    let mut order: Vec<usize> = (0..frames.len()).collect();
    random.shuffle(&mut order);
    let mut next = end;
    for (&at, &back) in order.iter().zip(chain).rev() {
        frames[at] = [next, back];
        next = (&raw const frames[at]) as u64;
    }
    next
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_chain_is_the_kernels_own_and_its_key_is_of_no_other() {
    let config = FaultsConfig {
        group: abi::GROUP_STACK,
        seed: 6,
        stack_every: 1,
        stack_deepest: DEEPEST as u32,
        groups: 65_536,
        chains: 65_536,
        ..FaultsConfig::zeroed()
    };
    let mut random = Rng::with_seed(7);
    let keys: [u64; CHAIN_LEN] = std::array::from_fn(|_| random.u64(..));
    let half = load(config, |object| {
        set(object, maps::CHAIN_KEYS, &keys);
        resize(object, maps::CHAINS, 65_536);
    });
    let mut frames = vec![[0; 2]; 200];
    let mut known: HashMap<[u64; 4], Vec<u64>> = HashMap::new();
    let mut chains: Vec<Vec<u64>> = vec![];
    for run_number in 0..1000 {
        // New, or one that was there but for a frame, or two that change places, or the same again.
        let mut chain = match chains.last().filter(|_| random.bool()) {
            Some(last) => last.clone(),
            None => (0..random.usize(0..180)).map(|_| random.u64(..) >> 17).collect(),
        };
        if chain.len() > 2 {
            let (a, b) = (random.usize(0..chain.len()), random.usize(0..chain.len()));
            match random.u32(0..3) {
                0 => chain[a] ^= 1 << random.u32(0..47),
                1 => chain.swap(a, b),
                _ => {}
            }
        }
        // Below a program's outermost function there is 0, 1, or what is no frame.
        let end = [0, 1, 0xfff, 0x1000][random.usize(0..4)];
        let first = lay(&mut random, &mut frames, &chain, end);
        let (key, walked) = stack(&half, first);
        let visible = chain.len().min(DEEPEST - 1);
        assert_eq!(walked[1..], chain[..visible], "run {run_number}");
        let bytes = run(&half, "test_kernels_chain", first) as usize;
        let kernels: [u64; CHAIN_LEN] = half.read(CHAIN).unwrap();
        assert_eq!(walked, kernels[..bytes / size_of::<u64>()], "run {run_number}: the kernel's own walk");
        assert_eq!((key[0], key[3]), (std::process::id().into(), abi::CHAIN_NONE));
        if let Some(other) = known.insert(key, walked.clone()) {
            assert_eq!(other, walked, "two chains have one key");
        }
        chains.push(chain);
    }
    let mut distinct: Vec<_> = known.values().collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), known.len(), "a chain has two keys");
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn frames_in_a_circle_are_walked_as_far_as_the_kernel_does() {
    let deepest = 40;
    let config = FaultsConfig {
        group: abi::GROUP_STACK,
        stack_every: 1,
        stack_deepest: deepest,
        groups: 64,
        ..FaultsConfig::zeroed()
    };
    let half = load(config, |object| resize(object, maps::CHAINS, 64));
    let mut frame: Frame = [0, 0xabc];
    let at = (&raw const frame) as u64;
    frame[0] = at;
    let (_, walked) = stack(&half, std::hint::black_box(&frame).as_ptr() as u64);
    assert_eq!(walked[1..], vec![0xabc; deepest as usize - 1]);
}
