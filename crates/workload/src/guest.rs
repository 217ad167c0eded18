//! Makes exits of a virtual machine, an exact number of each kind.
//!
//! The guest needs no operating system: its vCPUs run through loops of port writes, CPUID, HLT, writes to a device's
//! memory, reads of a model-specific register and first touches of pages, and say by one more port write that they are done. With `nested`, each
//! runs a guest of its own by SVM's VMRUN: per run the guest takes a VMRUN, a CPUID and a port write, and the guest's guest a
//! CPUID, which the host handles, and a VMMCALL, which the host passes on to the guest. With `smi`, the guest's guest
//! writes to a port first, and its VMM answers with a system management interrupt: L2 is left for the guest's management
//! mode, whose only instruction is RSM, and goes on after it.
//!
//! HLT returns to the VMM, unless KVM emulates the interrupt controller (`halts_in_kvm`): then the vCPU is halted in KVM, and
//! the VMM wakes it up again.
//!
//! Beside those exits there are first touches of the code and the tables (page faults of the second level, as each touched
//! page is) and whatever interrupts the host has meanwhile.

mod alarm;
mod code;
mod machine;

use std::io::{self, Write};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_mp_state};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};

use crate::report::Line;
use crate::{Control, Unavailable, Unfit};
use alarm::Alarm;
use code::{END_PORT, MMIO, PORT, SMI_PORT};
use machine::Machine;

/// How many exits of each kind a vCPU takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exits {
    /// Writes to a port; one more says that the guest is done.
    pub io: u32,
    /// CPUID.
    pub cpuid: u32,
    /// HLT.
    pub hlt: u32,
    /// Writes to the memory of a device that is not there.
    pub mmio: u32,
    /// Reads of a model-specific register.
    pub msr: u32,
    /// First touches of pages that the host has to find memory for.
    pub touch: u32,
    /// Runs of the guest's own guest.
    pub nested: u32,
    /// In each of them, a port write of L2 that the VMM answers with an SMI.
    pub smi: bool,
}

/// What guest to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Exits of each vCPU.
    pub each: Exits,
    /// vCPUs, 1 to 256: each has a thread.
    pub vcpus: usize,
    /// At each HLT the VMM sleeps for so long before it lets the guest go on.
    pub pause: Duration,
    /// HLT does not return to the VMM: the vCPU is halted in KVM, until the VMM wakes it up, each `pause`.
    pub halts_in_kvm: bool,
}

/// What the guest did, as its VMM saw it, and what follows from its code.
#[derive(Debug, Clone)]
pub struct GuestReport {
    /// What was asked for.
    pub options: Options,
    /// This process.
    pub pid: u32,
    /// Returns to the VMM for port writes, HLT and writes to a device's memory.
    pub seen: [u64; 3],
    /// From the first vCPU's start to the last one's end.
    pub wall: Duration,
}

impl GuestReport {
    /// How many exits there were by kind, of all vCPUs: those of the guest, then those of its own guests.
    #[must_use]
    pub fn exits(&self) -> [(&'static str, u64); 11] {
        let Exits { io, cpuid, hlt, mmio, msr, touch, nested, smi } = self.options.each;
        let smis = if smi { nested } else { 0 };
        let all = |n: u32| u64::from(n) * self.options.vcpus as u64;
        [
            ("io", all(io) + all(nested) + self.options.vcpus as u64),
            ("cpuid", all(cpuid) + all(nested)),
            ("hlt", all(hlt)),
            ("mmio", all(mmio)),
            ("msr", all(msr)),
            ("touch", all(touch)),
            ("vmrun", all(nested)),
            ("l2_cpuid", all(nested)),
            ("l2_hypercall", all(nested)),
            ("l2_io", all(smis)),
            ("rsm", all(smis)),
        ]
    }

    /// Whether the VMM saw exactly the exits that must reach it.
    #[must_use]
    pub fn exact(&self) -> bool {
        let exits = self.exits();
        self.seen == [exits[0].1 + exits[9].1, exits[2].1, exits[3].1]
    }

    /// Writes the report for people.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let vcpus = self.options.vcpus;
        writeln!(
            out,
            "{vcpus} vCPU{} in {:.3} s",
            if vcpus == 1 { "" } else { "s" },
            self.wall.as_secs_f64()
        )?;
        self.exits()
            .iter()
            .filter(|(_, n)| *n > 0)
            .try_for_each(|(name, n)| writeln!(out, "{name:<12} {n:>10}"))
    }

    /// Writes the report as one JSON line.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_jsonl(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = Line::new("total").with("workload", "guest").with("pid", self.pid);
        line = line.with("vcpus", self.options.vcpus as u64);
        for (name, n) in self.exits() {
            line = line.with(name, n);
        }
        line.with("wall_ns", self.wall.as_nanos() as u64).write(out)
    }
}

/// Runs the guest to its end.
///
/// # Errors
/// When there is no KVM, KVM refuses what the guest needs, the guest does something else than it should, or it was stopped.
pub fn run(options: &Options, control: &Control) -> Result<GuestReport> {
    ensure!((1..=256).contains(&options.vcpus), Unfit::new("a guest has 1 to 256 vCPUs"));
    ensure!(
        !options.each.smi || options.vcpus == 1,
        Unfit::new("a guest whose guest gets SMIs has one vCPU")
    );
    let kvm = Kvm::new().map_err(|error| {
        Unavailable(format!(
            "cannot open /dev/kvm: {error}; load kvm_intel or kvm_amd, and check its permissions"
        ))
    })?;
    ensure!(
        !options.halts_in_kvm || !options.pause.is_zero(),
        Unfit::new("a vCPU that is halted in KVM needs a pause after which it is woken up")
    );
    let machine = Machine::new(&kvm, options)?;
    let vcpus = (0..options.vcpus).map(|number| machine.vcpu(number)).collect::<Result<Vec<_>>>()?;
    let seen = Seen::default();
    let together = Barrier::new(options.vcpus + 1);
    if let Some(ready) = control.ready {
        ready(options.vcpus);
    }
    let began = thread::scope(|scope| {
        let threads: Vec<_> = vcpus
            .into_iter()
            .map(|vcpu| {
                scope.spawn(|| {
                    together.wait();
                    drive(vcpu, options, control, &seen)
                })
            })
            .collect();
        let began = Instant::now();
        together.wait();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("the thread of a vCPU panicked"))??;
        }
        anyhow::Ok(began)
    })?;
    let seen = [&seen.io, &seen.hlt, &seen.mmio].map(|of| of.load(Ordering::Relaxed));
    Ok(GuestReport { options: options.clone(), pid: std::process::id(), seen, wall: began.elapsed() })
}

/// Returns to the VMM.
#[derive(Debug, Default)]
struct Seen {
    io: AtomicU64,
    hlt: AtomicU64,
    mmio: AtomicU64,
}

/// Runs a vCPU until it says that it is done.
fn drive(mut vcpu: VcpuFd, options: &Options, control: &Control, seen: &Seen) -> Result<()> {
    let pause = options.pause;
    let alarm = options.halts_in_kvm.then(|| Alarm::each(pause)).transpose()?;
    loop {
        ensure!(!control.stopped(), "the guest was stopped before its end");
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port @ (PORT | END_PORT), _)) => {
                seen.io.fetch_add(1, Ordering::Relaxed);
                if port == END_PORT {
                    return Ok(());
                }
            }
            Ok(VcpuExit::IoOut(SMI_PORT, _)) => {
                seen.io.fetch_add(1, Ordering::Relaxed);
                vcpu.smi().context("KVM cannot inject an SMI")?;
            }
            Ok(VcpuExit::Hlt) => {
                seen.hlt.fetch_add(1, Ordering::Relaxed);
                if !pause.is_zero() {
                    thread::sleep(pause);
                }
            }
            Ok(VcpuExit::MmioWrite(MMIO, _)) => {
                seen.mmio.fetch_add(1, Ordering::Relaxed);
            }
            Ok(other) => bail!("unexpected exit of the guest: {other:?}"),
            Err(error) if error.errno() == libc::EINTR => {
                let is_halted = || vcpu.get_mp_state().map(|state| state.mp_state == KVM_MP_STATE_HALTED);
                if alarm.is_some() && is_halted().context("cannot read from KVM whether a vCPU is halted")? {
                    vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
                        .context("KVM cannot wake a vCPU up")?;
                    seen.hlt.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => return Err(io::Error::from(error)).context("KVM cannot run the guest"),
        }
    }
}
