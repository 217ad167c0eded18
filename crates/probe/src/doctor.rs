//! What works on this machine: every variant of every tool is loaded and attached, and let go again.

use trapline_model::Header;
use trapline_model::doctor::{Machine, Variant};

use crate::abi::{BY_TID, TrapFilter};
use crate::access;
use crate::faults::{Events, FaultsRecipe, MinorLatency};
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
        mounted: ["tracefs", "debugfs", "bpf", "cgroup2"]
            .into_iter()
            .filter(|fs| system::is_mounted(fs))
            .collect(),
    }
}

/// The tools, in the order of the report; each tries all its variants.
const TOOLS: &[fn() -> Vec<Variant>] = &[faults, access];

/// Tries every variant of every tool.
#[must_use]
pub fn examine() -> Vec<Variant> {
    TOOLS.iter().flat_map(|tool| tool()).collect()
}

fn faults() -> Vec<Variant> {
    let recipe = FaultsRecipe {
        filter: nobody(),
        minor_latency: MinorLatency::Exact,
        events: Events::Faults,
        ring_bytes: 64 << 10,
    };
    tried("faults", &recipe)
}

/// The engines that reset page tables; what sees the accesses is the faults tool's.
fn access() -> Vec<Variant> {
    access::engines()
        .into_iter()
        .map(|(variant, refusal)| Variant { tool: "access", variant, refusal })
        .collect()
}

/// Attaches each variant for a moment.
fn tried(tool: &'static str, recipe: &impl Recipe) -> Vec<Variant> {
    let all = recipe.variants().iter();
    all.map(|of| Variant { tool, variant: of.name, refusal: variant::try_variant(recipe, of).err() })
        .collect()
}

/// A thread that there never is, so that nothing is counted meanwhile.
fn nobody() -> TrapFilter {
    TrapFilter { by: BY_TID, tid: u32::MAX, ..bytemuck::Zeroable::zeroed() }
}

/// The stream's header of a doctor's report.
#[must_use]
pub fn header(machine: &Machine) -> Header {
    system::header("doctor", "none", machine.settings())
}
