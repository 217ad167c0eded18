//! What works on this machine: every variant of every tool is loaded and attached, and let go again.

use trapline_model::doctor::{Machine, Variant};
use trapline_model::Header;

use crate::abi::{BY_TID, TrapFilter};
use crate::faults::{FaultsRecipe, MinorLatency};
use crate::system;
use crate::variant::{self, Recipe};

/// Looks at the machine.
#[must_use]
pub fn machine() -> Machine {
    let header = system::header("doctor", "", vec![]);
    Machine {
        host: header.host,
        kernel: header.kernel,
        lockdown: system::lockdown(),
        btf: std::path::Path::new(system::KERNEL_BTF).exists(),
        privileged: system::has_bpf_privilege(),
        capabilities: system::named_capabilities(),
        mounted: ["tracefs", "debugfs", "bpf", "cgroup2"].into_iter().filter(|fs| system::is_mounted(fs)).collect(),
    }
}

/// Tries every variant of every tool.
#[must_use]
pub fn examine() -> Vec<Variant> {
    // Attached for the moment only, and to a thread that there never is, so that nothing is counted.
    let filter = TrapFilter { by: BY_TID, tid: u32::MAX, ..bytemuck::Zeroable::zeroed() };
    let recipe =
        FaultsRecipe { filter, minor_latency: MinorLatency::Exact, verbose: true, ring_bytes: 64 << 10 };
    let variants = recipe.variants().iter();
    variants
        .map(|of| Variant { tool: "faults", variant: of.name, refusal: variant::try_variant(&recipe, of).err() })
        .collect()
}

/// The stream's header of a doctor's report.
#[must_use]
pub fn header(machine: &Machine) -> Header {
    system::header("doctor", "none", machine.settings())
}
