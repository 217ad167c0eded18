//! What of the kernel half is loaded, how it is set up, and where this kernel has the fields that it reads.

use anyhow::{Result, ensure};
use bytemuck::{Zeroable, bytes_of};
use libbpf_rs::{Link, OpenObject, ProgramMut};
use trapline_model::kvm::By;

use super::{Choice, Options, format};
use crate::abi::maps::{MapName, kvm as maps, kvm_stacks, shared};
use crate::abi::{self, KVM_NO_FIELD, KvmConfig, KvmOffsets, TrapFilter};
use crate::compiled::Compiled;
use crate::variant::{Recipe, Variant};

const OBJECT: Compiled = compiled!("kvm");
/// With the VMM's stack at slow exits.
const WITH_STACKS: Compiled = compiled!("kvm_stack");

#[cfg(test)]
pub(crate) const OBJECTS: &[Compiled] = &[OBJECT, WITH_STACKS];

/// Best first.
const VARIANTS: &[Variant] = &[
    Variant { name: "core", ways: &[&["core_exit"]] },
    Variant { name: "format", ways: &[&["format_exit"]] },
];

/// With the handling time divided into phases; where no probe can be put on page faults, those are not told apart.
const SPLIT_VARIANTS: &[Variant] = &[
    Variant {
        name: "core",
        ways: &[
            &["fault_fentry_end", "fault_fentry_begin", "core_exit"],
            &["fault_kprobe_end", "fault_kprobe_begin", "core_exit"],
            &["core_exit"],
        ],
    },
    Variant {
        name: "format",
        ways: &[
            &["fault_fentry_end", "fault_fentry_begin", "format_exit"],
            &["fault_kprobe_end", "fault_kprobe_begin", "format_exit"],
            &["format_exit"],
        ],
    },
];

/// The recipe that `open` and `doctor` share.
pub(crate) struct KvmRecipe {
    pub(crate) filter: TrapFilter,
    pub(crate) config: KvmConfig,
    pub(crate) tree: bool,
    pub(crate) ring_bytes: u32,
    /// The VMM's stack is taken at slow exits.
    pub(crate) stacks: bool,
}

impl KvmRecipe {
    /// Counts the exits of whoever the filter means.
    pub(crate) fn new(filter: TrapFilter) -> Self {
        let config = KvmConfig { vcpu: abi::KVM_ANY_VCPU, at: offsets(By::Reason), ..KvmConfig::zeroed() };
        Self { filter, config, tree: false, ring_bytes: 64 << 10, stacks: false }
    }

    /// What the options ask for.
    pub(super) fn of(options: &Options, filter: TrapFilter) -> Self {
        let choice = match options.choice {
            Choice::All => abi::KVM_ALL_REASONS,
            Choice::Only(_) => abi::KVM_ONLY_THESE,
            Choice::Except(_) => abi::KVM_ALL_BUT_THESE,
        };
        let config = KvmConfig {
            slow_ns: options.slower.map_or(0, |time| (time.as_nanos() as u64).max(1)),
            timed: options.layout.timed.into(),
            split: options.layout.split.into(),
            vcpu: options.vcpu.unwrap_or(abi::KVM_ANY_VCPU),
            sub: subject(options.layout.by).map_or(abi::KVM_SUB_NONE, |of| of.number),
            choice,
            pad: 0,
            at: offsets(options.layout.by),
        };
        let (ring_bytes, stacks) = (options.ring_bytes, options.stacks);
        Self { filter, config, tree: options.filter.descendants, ring_bytes, stacks }
    }
}

/// What exits may be counted under beside their reason.
struct Subject {
    number: u32,
    /// The program, its tracepoint and the fields for what it was and whether it was written.
    from: Option<(&'static str, &'static str, [&'static str; 2])>,
}

fn subject(by: By) -> Option<Subject> {
    let subject = |number, from| Some(Subject { number, from });
    match by {
        By::Reason | By::Vm | By::Vcpu | By::VmReason => None,
        By::Msr => subject(abi::KVM_SUB_MSR, Some(("subject_msr", "kvm_msr", ["ecx", "write"]))),
        By::Port => subject(abi::KVM_SUB_PORT, Some(("subject_port", "kvm_pio", ["port", "rw"]))),
        By::Mmio => subject(abi::KVM_SUB_MMIO, Some(("subject_mmio", "kvm_mmio", ["gpa", "type"]))),
        By::Rip => subject(abi::KVM_SUB_RIP, None),
        By::Userspace => {
            subject(abi::KVM_SUB_RETURN, Some(("subject_return", "kvm_userspace_exit", ["reason", "errno"])))
        }
    }
}

/// Where this kernel's tracepoints have their fields.
fn offsets(by: By) -> KvmOffsets {
    let [exit, fast, injected, returned] =
        ["kvm_exit", "kvm_fast_mmio", "kvm_nested_vmexit_inject", "kvm_userspace_exit"]
            .map(|tracepoint| format::read(tracepoint).unwrap_or_default());
    let at =
        |format: &str, name: &str| format::field(format, name).map_or(KVM_NO_FIELD, |(offset, _)| offset);
    let (sub, write) = match subject(by).and_then(|of| of.from) {
        Some((_, tracepoint, [sub, write])) => {
            let format = format::read(tracepoint).unwrap_or_default();
            (at(&format, sub), at(&format, write))
        }
        None => (KVM_NO_FIELD, KVM_NO_FIELD),
    };
    KvmOffsets {
        reason: at(&exit, "exit_reason"),
        isa: at(&exit, "isa"),
        vcpu: at(&exit, "vcpu_id"),
        rip: at(&exit, "guest_rip"),
        sub,
        write,
        fast: at(&fast, "gpa"),
        injected: at(&injected, "exit_code"),
        injected_info: at(&injected, "exit_int_info"),
        returned: at(&returned, "reason"),
        returned_errno: at(&returned, "errno"),
        pad: 0,
    }
}

/// Refuses a program whose fields this kernel's tracepoints do not have: it would count zeros.
fn ensure_fields(program: &str, at: &KvmOffsets) -> Result<()> {
    let needed: &[u32] = match program {
        "format_exit" => &[at.reason, at.isa, at.vcpu],
        "on_reflected" => &[at.injected],
        "subject_msr" | "subject_port" | "subject_mmio" | "subject_return" => &[at.sub, at.write],
        _ => &[],
    };
    ensure!(
        !needed.contains(&KVM_NO_FIELD),
        "its tracepoint has other fields on this kernel (/sys/kernel/tracing/events/kvm/*/format)"
    );
    Ok(())
}

impl Recipe for KvmRecipe {
    fn object(&self) -> Compiled {
        if self.stacks { WITH_STACKS } else { OBJECT }
    }

    fn variants(&self) -> &'static [Variant] {
        if self.config.split != 0 { SPLIT_VARIANTS } else { VARIANTS }
    }

    fn always(&self) -> Vec<&'static str> {
        // What follows an exit is attached before exits are, or it would be missed.
        let mut names = vec!["thread_ends", "nested_exit", "on_vmm_return"];
        if self.config.timed != 0 {
            names.push("guest_entry");
        }
        if self.config.split != 0 {
            names.extend(["on_sched_switch", "on_reflected"]);
        }
        if self.stacks {
            names.push("vmm_switch");
        }
        match self.config.sub {
            abi::KVM_SUB_MSR => names.push("subject_msr"),
            abi::KVM_SUB_PORT => names.push("subject_port"),
            abi::KVM_SUB_MMIO => names.extend(["subject_mmio", "subject_fast_mmio"]),
            abi::KVM_SUB_RETURN => names.push("subject_return"),
            _ => {}
        }
        if self.tree {
            names.extend(["process_ended", "process_born"]);
        }
        names
    }

    fn readers(&self) -> Vec<MapName<'static>> {
        vec![maps::VCPU_THREADS, maps::EXITS]
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            match MapName(&name) {
                shared::FILTER => map.set_initial_value(bytes_of(&self.filter))?,
                maps::CONFIG => map.set_initial_value(bytes_of(&self.config))?,
                kvm_stacks::STACKS => map.set_max_entries(abi::KVM_STACKS as u32)?,
                maps::EVENTS if self.config.slow_ns != 0 => map.set_max_entries(self.ring_bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn attach(&self, program: &ProgramMut<'_>) -> Result<Vec<Link>> {
        let name = program.name().to_string_lossy().into_owned();
        // Since 4.15; without it no such write passes `kvm_mmio` by.
        if name == "subject_fast_mmio" && self.config.at.fast == KVM_NO_FIELD {
            return Ok(vec![]);
        }
        ensure_fields(&name, &self.config.at)?;
        Ok(vec![program.attach()?])
    }
}

/// A recipe for each thing that can be asked for.
#[cfg(test)]
pub(crate) fn all() -> Vec<KvmRecipe> {
    let subjects = [By::Reason, By::Msr, By::Port, By::Mmio, By::Rip, By::Userspace];
    let mut all = Vec::new();
    for sub in subjects.map(|by| subject(by).map_or(abi::KVM_SUB_NONE, |of| of.number)) {
        for split in [0, 1] {
            let recipe = KvmRecipe::new(TrapFilter::zeroed());
            let config = KvmConfig { timed: 1, split, sub, ..recipe.config };
            let of = |stacks| KvmRecipe { config, tree: true, stacks, ..KvmRecipe::new(recipe.filter) };
            all.extend([false, true].map(of));
        }
    }
    all
}
