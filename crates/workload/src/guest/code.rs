//! What the guest executes: 32-bit code with paging on, and the few bytes of its own guest.

#![allow(unsafe_code)]

use std::arch::global_asm;
use std::slice;

// Each loop takes its number from the table that esi points to, see machine.rs. The last instruction that counts is the
// write to END_PORT.
// SAFETY: only bytes between two labels in read-only data; nothing here ever executes them.
global_asm!(
    ".pushsection .rodata.trapline_guest, \"a\"",
    ".globl trapline_guest_begin",
    ".globl trapline_guest_end",
    ".code32",
    "trapline_guest_begin:",
    // Port writes.
    "mov edi, [esi]",
    "test edi, edi",
    "jz 21f",
    "20: out 0x10, al",
    "dec edi",
    "jnz 20b",
    // CPUID, which overwrites eax to edx.
    "21: mov edi, [esi + 4]",
    "test edi, edi",
    "jz 31f",
    "30: xor eax, eax",
    "cpuid",
    "dec edi",
    "jnz 30b",
    // HLT.
    "31: mov edi, [esi + 8]",
    "test edi, edi",
    "jz 41f",
    "40: hlt",
    "dec edi",
    "jnz 40b",
    // Writes to a device's memory.
    "41: mov edi, [esi + 12]",
    "mov ebx, 0xd0000000",
    "test edi, edi",
    "jz 51f",
    "50: mov [ebx], eax",
    "dec edi",
    "jnz 50b",
    // Reads of a model-specific register: the base of the local APIC.
    "51: mov edi, [esi + 16]",
    "mov ecx, 0x1b",
    "test edi, edi",
    "jz 61f",
    "60: rdmsr",
    "dec edi",
    "jnz 60b",
    // Writes to pages that the host has not given any memory yet.
    "61: mov edi, [esi + 32]",
    "mov ebx, [esi + 36]",
    "test edi, edi",
    "jz 66f",
    "65: mov byte ptr [ebx], 1",
    "add ebx, 4096",
    "dec edi",
    "jnz 65b",
    // Runs of the guest's own guest, each followed by a CPUID and a port write.
    "66: mov edi, [esi + 20]",
    "test edi, edi",
    "jz 71f",
    "70: mov eax, [esi + 24]",
    "mov ebx, [esi + 28]",
    "mov [eax + 0x578], ebx",
    "vmrun",
    "xor eax, eax",
    "cpuid",
    "out 0x10, al",
    "dec edi",
    "jnz 70b",
    "71: out 0x11, al",
    "72: hlt",
    "jmp 72b",
    "trapline_guest_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static trapline_guest_begin: u8;
    static trapline_guest_end: u8;
}

/// Where the loops of the guest write.
pub(super) const PORT: u16 = 0x10;
/// Where it writes when it has done everything.
pub(super) const END_PORT: u16 = 0x11;
/// Where the guest's own guest writes for an SMI.
pub(super) const SMI_PORT: u16 = 0x12;
/// Where nothing but a device could be.
pub(super) const MMIO: u64 = 0xd000_0000;

/// The guest's own guest: CPUID, and VMMCALL, which its hypervisor wants to know of.
pub(super) const INNER: &[u8] = &[0x0f, 0xa2, 0x0f, 0x01, 0xd9];

/// The same, after a write to [`SMI_PORT`].
pub(super) const INNER_WITH_SMI: &[u8] = &[0xe6, SMI_PORT as u8, 0x0f, 0xa2, 0x0f, 0x01, 0xd9];

/// The guest's handler of SMIs: RSM.
pub(super) const MANAGEMENT: &[u8] = &[0x0f, 0xaa];

/// The guest's code.
pub(super) fn outer() -> &'static [u8] {
    let (begin, end) = (&raw const trapline_guest_begin, &raw const trapline_guest_end);
    // SAFETY: both labels are in the same piece of read-only data, the end after the beginning, and it lives for ever.
    unsafe { slice::from_raw_parts(begin, end.offset_from(begin) as usize) }
}
