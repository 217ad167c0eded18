//! The instructions that touch: functions whose first and last byte are known, so that an instruction pointer can be
//! said to be inside one or not.
#![allow(unsafe_code)]

use std::arch::global_asm;

/// Reads the byte at an address, or writes `value` to it.
type Touch = unsafe extern "C" fn(addr: *mut u8, value: u8) -> u8;

#[cfg(target_arch = "x86_64")]
macro_rules! function {
    ($name:literal, $instruction:literal) => {
        global_asm!(
            concat!(".pushsection .text.", $name, ",\"ax\",@progbits"),
            concat!(".globl ", $name),
            concat!(".type ", $name, ",@function"),
            concat!($name, ":"),
            "endbr64",
            "xor eax, eax",
            $instruction,
            "ret",
            concat!(".globl ", $name, "_end"),
            concat!($name, "_end:"),
            concat!(".size ", $name, ", . - ", $name),
            ".popsection",
        );
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! function {
    ($name:literal, $instruction:literal) => {
        global_asm!(
            concat!(".pushsection .text.", $name, ",\"ax\",@progbits"),
            concat!(".globl ", $name),
            concat!(".type ", $name, ",@function"),
            concat!($name, ":"),
            "bti c",
            $instruction,
            "ret",
            concat!(".globl ", $name, "_end"),
            concat!($name, "_end:"),
            concat!(".size ", $name, ", . - ", $name),
            ".popsection",
        );
    };
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    use super::global_asm;
    function!("touch_read_even", "mov al, byte ptr [rdi]");
    function!("touch_read_odd", "mov al, byte ptr [rdi]");
    function!("touch_write_even", "mov byte ptr [rdi], sil");
    function!("touch_write_odd", "mov byte ptr [rdi], sil");
}

#[cfg(target_arch = "aarch64")]
mod instructions {
    use super::global_asm;
    function!("touch_read_even", "ldrb w0, [x0]");
    function!("touch_read_odd", "ldrb w0, [x0]");
    function!("touch_write_even", "strb w1, [x0]");
    function!("touch_write_odd", "strb w1, [x0]");
}

unsafe extern "C" {
    fn touch_read_even(addr: *mut u8, value: u8) -> u8;
    fn touch_read_even_end(addr: *mut u8, value: u8) -> u8;
    fn touch_read_odd(addr: *mut u8, value: u8) -> u8;
    fn touch_read_odd_end(addr: *mut u8, value: u8) -> u8;
    fn touch_write_even(addr: *mut u8, value: u8) -> u8;
    fn touch_write_even_end(addr: *mut u8, value: u8) -> u8;
    fn touch_write_odd(addr: *mut u8, value: u8) -> u8;
    fn touch_write_odd_end(addr: *mut u8, value: u8) -> u8;
}

/// One of the functions.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its symbol.
    pub name: &'static str,
    code: Touch,
    end: Touch,
}

/// All of them: threads with an even number use the even ones.
pub const FUNCTIONS: [Function; 4] = [
    Function { name: "touch_read_even", code: touch_read_even, end: touch_read_even_end },
    Function { name: "touch_read_odd", code: touch_read_odd, end: touch_read_odd_end },
    Function { name: "touch_write_even", code: touch_write_even, end: touch_write_even_end },
    Function { name: "touch_write_odd", code: touch_write_odd, end: touch_write_odd_end },
];

impl Function {
    /// The function of a thread.
    #[must_use]
    pub fn of(thread: usize, writes: bool) -> Self {
        FUNCTIONS[usize::from(writes) * 2 + thread % 2]
    }

    /// The addresses of its first byte and of the byte after its last.
    #[must_use]
    pub fn range(self) -> (usize, usize) {
        (self.code as usize, self.end as usize)
    }

    /// Touches the byte at `addr`.
    ///
    /// # Safety
    /// The byte must be mapped, writable for a function that writes, and nobody may rely on its value.
    pub(super) unsafe fn touch(self, addr: *mut u8, value: u8) -> u8 {
        // SAFETY: the caller vouches for the byte; the code changes nothing but its return register.
        unsafe { (self.code)(addr, value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_does_what_its_name_says_within_its_range() {
        for function in FUNCTIONS {
            let mut byte = 7u8;
            // SAFETY: a byte of our own.
            let read = unsafe { function.touch(&raw mut byte, 9) };
            if function.name.contains("write") {
                assert_eq!(byte, 9);
            } else {
                assert_eq!((byte, read), (7, 7));
            }
            let (start, end) = function.range();
            assert!(start < end && end - start < 32, "{start:#x} {end:#x}");
        }
        assert_eq!(Function::of(3, true).name, "touch_write_odd");
        assert_eq!(Function::of(2, false).name, "touch_read_even");
    }
}
