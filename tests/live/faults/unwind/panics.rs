//! Faults while a panic unwinds: in a destructor, below the runtime of the language and the frames that are unwound.

use std::arch::global_asm;
use std::hint::black_box;

global_asm!(
    ".globl touch_here_pages",
    ".type touch_here_pages, @function",
    "touch_here_pages:",
    ".cfi_startproc",
    ".globl touch_here",
    "touch_here:",
    "movb $1, (%rdi)",
    "add $4096, %rdi",
    "dec %rsi",
    "jnz touch_here",
    "ret",
    ".cfi_endproc",
    ".size touch_here_pages, . - touch_here_pages",
    options(att_syntax)
);

unsafe extern "C" {
    fn touch_here_pages(first: *mut u8, pages: usize);
    fn mmap(at: *mut u8, bytes: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut u8;
    fn madvise(at: *mut u8, bytes: usize, advice: i32) -> i32;
}

const PAGES: usize = 32;

/// Touches new pages when it is dropped.
struct Touches(*mut u8);

impl Drop for Touches {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: all of them are mapped.
        unsafe { touch_here_pages(self.0, PAGES) };
        black_box(&self.0);
    }
}

#[inline(never)]
fn recursion<F: Fn() -> u64>(depth: u32, touches: Touches, act: &F) -> u64 {
    if depth == 0 {
        let sum = act();
        drop(touches);
        return sum;
    }
    black_box(recursion(depth - 1, touches, act)) + 1
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    // SAFETY: PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS; MADV_NOHUGEPAGE.
    let pages = unsafe { mmap(std::ptr::null_mut(), PAGES * 4096, 3, 0x22, -1, 0) };
    unsafe { madvise(pages, PAGES * 4096, 15) };
    let fails = || black_box(None::<u64>).unwrap();
    let caught = std::panic::catch_unwind(|| recursion(20, Touches(pages), &fails));
    assert!(caught.is_err());
}
