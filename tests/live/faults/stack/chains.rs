//! A program whose every fault comes from a chain of calls that is known: `--fixture chains`.
//!
//! The kernel follows frame pointers, which compilers leave out as they like: so the functions are written out here.

#![allow(unsafe_code)]

use std::arch::global_asm;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::AsRawFd;

use crate::fixture::{PAGE, map, rusage, touch};

global_asm!(
    r#"
    .macro chain_call name, callee
    .globl \name
    .type \name, @function
    \name:
        push rbp
        mov rbp, rsp
        call \callee
        pop rbp
        ret
    .size \name, . - \name
    .endm

    .text
    # rdi: the first page, rsi: how many
    .globl chain_leaf
    .type chain_leaf, @function
    chain_leaf:
        push rbp
        mov rbp, rsp
    1:  mov byte ptr [rdi], 1
        add rdi, 4096
        dec rsi
        jnz 1b
        pop rbp
        ret
    .size chain_leaf, . - chain_leaf

    chain_call chain_middle, chain_leaf
    chain_call chain_one, chain_leaf
    chain_call chain_two, chain_leaf
    chain_call chain_three, chain_middle

    # rdi: /dev/zero, rsi: the first page, rdx: bytes
    .globl chain_reads
    .type chain_reads, @function
    chain_reads:
        push rbp
        mov rbp, rsp
        xor eax, eax
        syscall
        pop rbp
        ret
    .size chain_reads, . - chain_reads
    chain_call chain_four, chain_reads

    # and rdx: frames to come
    .globl chain_deep
    .type chain_deep, @function
    chain_deep:
        push rbp
        mov rbp, rsp
        dec rdx
        jnz 2f
        call chain_leaf
        jmp 3f
    2:  call chain_deep
    3:  pop rbp
        ret
    .size chain_deep, . - chain_deep
    "#
);

unsafe extern "C" {
    fn chain_one(page: *mut u8, pages: usize);
    fn chain_two(page: *mut u8, pages: usize);
    fn chain_three(page: *mut u8, pages: usize);
    fn chain_four(fd: usize, page: *mut u8, bytes: usize);
    fn chain_deep(page: *mut u8, pages: usize, frames: usize);
}

/// More frames than the kernel walks.
const DEPTH: usize = 200;

/// Goes through a chain with the first of so many pages.
type Go<'a> = &'a dyn Fn(*mut u8, usize);

/// Goes through all chains, and says of each how the stack of its faults ends, and what getrusage counted meanwhile.
fn all(out: &mut impl Write) {
    let zero = File::open("/dev/zero").unwrap();
    let fd = zero.as_raw_fd() as usize;
    // SAFETY: a mapping of so many writable pages, to a function that keeps to the C calling convention.
    let one = |page, pages| unsafe { chain_one(page, pages) };
    // SAFETY: a mapping of so many writable pages, to a function that keeps to the C calling convention.
    let two = |page, pages| unsafe { chain_two(page, pages) };
    // SAFETY: a mapping of so many writable pages, to a function that keeps to the C calling convention.
    let three = |page, pages| unsafe { chain_three(page, pages) };
    // SAFETY: a mapping of so many writable pages, to a function that keeps to the C calling convention.
    let four = |page, pages: usize| unsafe { chain_four(fd, page, pages * PAGE) };
    // SAFETY: a mapping of so many writable pages, to a function that keeps to the C calling convention.
    let deep = |page, pages| unsafe { chain_deep(page, pages, DEPTH) };
    let work: [(&str, usize, Go<'_>); 5] = [
        ("chain_one;chain_leaf", 101, &one),
        ("chain_two;chain_leaf", 202, &two),
        ("chain_three;chain_middle;chain_leaf", 303, &three),
        ("chain_four;chain_reads", 57, &four),
        ("chain_deep;chain_leaf", 44, &deep),
    ];
    // What the stack and the code need is to be there already: each goes first to a page that is.
    let warm = map(PAGE, 0);
    touch(&warm);
    work.iter().for_each(|(.., go)| go(warm.0, 1));
    for (chain, pages, go) in work {
        let memory = map(pages * PAGE, 0);
        let before = rusage(libc::RUSAGE_THREAD);
        go(memory.0, pages);
        let after = rusage(libc::RUSAGE_THREAD);
        let (major, minor) = (after.0 - before.0, after.1 - before.1);
        let told = r#"{"type":"truth","what":"chain","chain":"#;
        writeln!(out, r#"{told}"{chain}","pages":{pages},"major":{major},"minor":{minor}}}"#).unwrap();
    }
}

/// All chains, once.
pub fn once() {
    all(&mut std::io::stdout());
}

/// All chains at each line, and then what getrusage says of the thread so far; what the answer takes is warm.
pub fn on_demand() {
    let mut stdin = std::io::stdin().lock();
    let mut stdout = std::io::stdout().lock();
    let (mut line, mut answer) = (String::with_capacity(PAGE), Vec::with_capacity(4 * PAGE));
    loop {
        line.clear();
        if stdin.read_line(&mut line).unwrap() == 0 {
            return;
        }
        answer.clear();
        if line.trim().is_empty() {
            all(&mut answer);
        }
        let (major, minor) = rusage(libc::RUSAGE_THREAD);
        writeln!(answer, r#"{{"type":"truth","what":"thread","major":{major},"minor":{minor}}}"#).unwrap();
        stdout.write_all(&answer).unwrap();
        stdout.flush().unwrap();
    }
}
