//! A virtual machine: its memory, and vCPUs that are ready to run the guest's code.

#![allow(unsafe_code)]

use std::io;
use std::ptr;

use anyhow::{Context, Result, ensure};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, Msrs, kvm_mp_state, kvm_msr_entry, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::Options;
use super::code::{self, INNER, INNER_WITH_SMI, MANAGEMENT, MMIO};

const PAGE: usize = 4096;
/// Guest-physical addresses.
const DIRECTORY: usize = 0x1000;
const CODE: usize = 0x2000;
const INNER_CODE: usize = 0x8000;
/// Where a processor looks for its handler of SMIs after a reset: at SMBASE (0x30000) + 0x8000.
const MANAGEMENT_CODE: usize = 0x3_8000;
const FIRST_VCPU: usize = 0x10_0000;
/// Of each vCPU: the table of numbers, the control block of its own guest, and the processor's own save area.
const PAGES_EACH: usize = 3;

/// The first slot of the address space that a vCPU has in system management mode (KVM_CAP_MULTI_ADDRESS_SPACE).
const MANAGEMENT_SLOT: u32 = 1 << 16;

const EFER_SVME: u64 = 1 << 12;
const MSR_VM_HSAVE_PA: u32 = 0xc001_0117;

/// CR0: protected mode, the floating-point unit's type, paging. CR4: pages of 4 MiB.
const CR0: u64 = 0x8000_0011;
const CR4: u64 = 0x10;
/// A page of 4 MiB that is present and may be written.
const LARGE: u32 = 0x83;
const LARGE_SIZE: usize = 4 << 20;

/// The memory of a guest; the kernel uses it as long as the VM exists.
#[derive(Debug)]
struct Memory {
    at: *mut u8,
    len: usize,
}

// SAFETY: it is an address range like a Vec's; all access goes through &mut self before the vCPUs run.
unsafe impl Send for Memory {}
// SAFETY: nothing can be done with a &Memory.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(len: usize) -> Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("no memory for a guest");
        }
        // A page at a time, or a first touch would bring in many.
        // SAFETY: the mapping was made above.
        unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
        Ok(Self { at: at.cast(), len })
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "outside of the guest's memory");
        // SAFETY: within the mapping, as was just checked, and no vCPU runs while we have it mutably.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.add(at), bytes.len()) };
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the VM that used it has been dropped before it.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// A virtual machine. Fields are dropped in this order: first the VM, then its memory.
#[derive(Debug)]
pub(super) struct Machine {
    vm: VmFd,
    memory: Memory,
    cpuid: CpuId,
    nested: bool,
    halts_in_kvm: bool,
}

impl Machine {
    /// With memory for so many vCPUs, each of which is to take those exits.
    pub(super) fn new(kvm: &Kvm, options: &Options) -> Result<Self> {
        let Options { each, vcpus, halts_in_kvm, .. } = *options;
        let vm = kvm.create_vm().context("KVM cannot create a virtual machine")?;
        if halts_in_kvm {
            vm.create_irq_chip().context("KVM cannot emulate the interrupt controller")?;
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("cannot read the processor's features from KVM")?;
        let nested = each.nested > 0;
        let fresh = address_of(vcpus).next_multiple_of(LARGE_SIZE);
        let len = (fresh + vcpus * each.touch as usize * PAGE).next_multiple_of(LARGE_SIZE);
        ensure!(
            len as u64 <= MMIO,
            crate::Unfit::new("a guest has too little memory to touch that number of pages")
        );
        let mut memory = Memory::new(len)?;
        for page in 0..len / LARGE_SIZE {
            memory.put_u32(DIRECTORY + page * 4, (page * LARGE_SIZE) as u32 | LARGE);
        }
        memory.put_u32(DIRECTORY + (MMIO as usize / LARGE_SIZE) * 4, MMIO as u32 | LARGE);
        memory.put(CODE, code::outer());
        memory.put(INNER_CODE, if each.smi { INNER_WITH_SMI } else { INNER });
        memory.put(MANAGEMENT_CODE, MANAGEMENT);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: len as u64,
            userspace_addr: memory.at as u64,
        };
        // SAFETY: the mapping is as long as it says, and outlives the VM.
        unsafe { vm.set_user_memory_region(region) }.context("KVM refuses the memory")?;
        if each.smi {
            let region = kvm_userspace_memory_region { slot: MANAGEMENT_SLOT, ..region };
            // SAFETY: the same memory, in the address space of system management mode.
            unsafe { vm.set_user_memory_region(region) }.context("KVM has no system management mode")?;
        }
        for number in 0..vcpus {
            let table = address_of(number);
            let control = table + PAGE;
            let fresh = fresh + number * each.touch as usize * PAGE;
            let [control_at, inner_at, fresh_at] = [control, INNER_CODE, fresh].map(|at| at as u32);
            let counts = [each.io, each.cpuid, each.hlt, each.mmio, each.msr, each.nested];
            let numbers = counts.into_iter().chain([control_at, inner_at, each.touch, fresh_at]);
            for (i, value) in numbers.enumerate() {
                memory.put_u32(table + i * 4, value);
            }
            inner_state(&mut memory, control);
        }
        Ok(Self { vm, memory, cpuid, nested, halts_in_kvm })
    }

    /// A vCPU before its first instruction.
    pub(super) fn vcpu(&self, number: usize) -> Result<VcpuFd> {
        ensure!(address_of(number + 1) <= self.memory.len, "there is no memory for vCPU {number}");
        let vcpu =
            self.vm.create_vcpu(number as u64).with_context(|| format!("KVM cannot create vCPU {number}"))?;
        vcpu.set_cpuid2(&self.cpuid).context("KVM refuses the processor's features")?;
        if self.halts_in_kvm {
            // All but the first would wait for a startup interrupt.
            vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })?;
        }
        let mut state = vcpu.get_sregs()?;
        let data = segment(0x10, 3);
        state.cs = segment(8, 11);
        (state.ds, state.es, state.ss, state.fs, state.gs) = (data, data, data, data, data);
        (state.cr0, state.cr3, state.cr4) = (CR0, DIRECTORY as u64, CR4);
        state.efer = if self.nested { EFER_SVME } else { 0 };
        vcpu.set_sregs(&state).context(if self.nested {
            "the guest has no SVM: load kvm_amd with nested=1, on an AMD processor"
        } else {
            "KVM refuses the processor's state"
        })?;
        let mut registers = vcpu.get_regs()?;
        (registers.rip, registers.rsi, registers.rflags) = (CODE as u64, address_of(number) as u64, 2);
        vcpu.set_regs(&registers)?;
        if self.nested {
            let area = (address_of(number) + 2 * PAGE) as u64;
            let entry = kvm_msr_entry { index: MSR_VM_HSAVE_PA, data: area, ..Default::default() };
            let msrs = Msrs::from_entries(&[entry]).context("no memory for a list of one")?;
            ensure!(vcpu.set_msrs(&msrs)? == 1, "KVM cannot allocate the guest's state for nested guests");
        }
        Ok(vcpu)
    }
}

/// Where a vCPU's pages begin.
fn address_of(vcpu: usize) -> usize {
    FIRST_VCPU + vcpu * PAGES_EACH * PAGE
}

fn segment(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// The control block of the guest's own guest (AMD's manual, volume 2, appendix B): real mode, one address space, and two
/// instructions that its hypervisor wants to know of.
fn inner_state(memory: &mut Memory, control: usize) {
    const VMRUN_AND_VMMCALL: u32 = 1 | 2;
    memory.put_u32(control + 0x010, VMRUN_AND_VMMCALL);
    memory.put_u32(control + 0x058, 1); // the number of its address space
    let save = control + 0x400;
    // Selector, attributes, limit, base: es, cs, ss, ds, then gdtr, ldtr, idtr, tr.
    for (at, attributes) in
        [(0x00, 0x93), (0x10, 0x9b), (0x20, 0x93), (0x30, 0x93), (0x70, 0x82), (0x90, 0x8b)]
    {
        memory.put_u32(save + at, attributes << 16);
        memory.put_u32(save + at + 4, 0xffff);
    }
    memory.put_u32(save + 0x64, 0xffff);
    memory.put_u32(save + 0x84, 0xffff);
    memory.put_u64(save + 0x0d0, EFER_SVME);
    memory.put_u64(save + 0x158, 0x10); // CR0: real mode
    memory.put_u64(save + 0x160, 0x400); // DR7
    memory.put_u64(save + 0x168, 0xffff_0ff0); // DR6
    memory.put_u64(save + 0x170, 2); // RFLAGS
    memory.put_u64(save + 0x178, INNER_CODE as u64);
    memory.put_u64(save + 0x268, 0x0007_0406_0007_0406); // memory types
}
