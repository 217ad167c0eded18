//! Marks in a program, between which `trapline faults` tells how much was page faults.
//!
//! ```
//! fn query() {
//!     trapline_mark::span!("query"); // until the end of the block, however it is left
//!     // …
//! }
//! # query();
//! ```
//!
//! ```sh
//! trapline faults --span usdt:./app:trapline:query -p PID
//! ```
//!
//! [`begin!`] and [`end!`] do the same without a block. A mark is a `nop`, and a note in the file that says where it is:
//! it costs that and nothing more while nobody looks. The notes are those of USDT (provider `trapline`, points
//! `query__start` and `query__done`), so other tracers understand them too.
//!
//! A span begins and ends in one thread, so it must not hold an `await` after which another thread may go on; and it ends
//! before the next one of its name begins there, unless it holds that (recursion). On x86_64 and aarch64; elsewhere the
//! marks are nothing. There is a header for C and C++, `include/trapline.h`.

#![no_std]

/// A span begins here. The name is a literal of letters, digits and `_`.
#[macro_export]
macro_rules! begin {
    ($name:literal) => {
        $crate::point!($name, "__start")
    };
}

/// The span of that name ends here.
#[macro_export]
macro_rules! end {
    ($name:literal) => {
        $crate::point!($name, "__done")
    };
}

/// A span from here to the end of the block.
#[macro_export]
macro_rules! span {
    ($name:literal) => {
        let _span = {
            struct Span;
            impl Drop for Span {
                #[inline(always)]
                fn drop(&mut self) {
                    $crate::end!($name);
                }
            }
            $crate::begin!($name);
            Span
        };
    };
}

/// One point: the instruction, a note of type 3 for it, and what tells by how much the file was moved after linking.
#[doc(hidden)]
#[macro_export]
macro_rules! point {
    ($name:literal, $end:literal) => {{
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        #[allow(unsafe_code)]
        // SAFETY: a nop; the rest is written into a section that is not loaded.
        unsafe {
            ::core::arch::asm!(
                "990: nop",
                ".pushsection .note.stapsdt,\"?\",\"note\"",
                ".balign 4",
                ".4byte 992f-991f, 994f-993f, 3",
                "991: .asciz \"stapsdt\"",
                "992: .balign 4",
                "993: .8byte 990b",
                ".8byte _.stapsdt.base",
                ".8byte 0",
                ".asciz \"trapline\"",
                ::core::concat!(".asciz \"", $name, $end, "\""),
                ".asciz \"\"",
                "994: .balign 4",
                ".popsection",
                ".ifndef _.stapsdt.base",
                ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat",
                ".weak _.stapsdt.base",
                ".hidden _.stapsdt.base",
                "_.stapsdt.base: .space 1",
                ".size _.stapsdt.base, 1",
                ".popsection",
                ".endif",
                options(preserves_flags, nostack)
            );
        }
    }};
}
