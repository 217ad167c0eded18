//! What works on this machine: every variant of every tool is loaded and attached, and let go again.

use std::sync::OnceLock;

use anyhow::Result;
use trapline_model::Header;
use trapline_model::doctor::{Machine, Program, Refusal, VARIANTS, Variant};
use trapline_model::faults::{By, StepOf};

use crate::abi::{BY_TID, FaultsWalk, TrapFilter};
use crate::access;
use crate::faults::{Events, FaultsRecipe, Kinds, MinorLatency, SEES_EACH_FAULT, Search, Stacks, rootless};
use crate::kvm::{self, KvmRecipe};
use crate::namespaces;
use crate::sgx::SgxRecipe;
use crate::sgx::driver::Driver;
use crate::system;
use crate::variant::{self, Recipe, Verified};

/// Looks at the machine.
#[must_use]
pub fn machine() -> Machine {
    let header = system::header("doctor", "", (vec![], None), vec![]);
    Machine {
        host: header.host,
        kernel: header.kernel,
        lockdown: system::lockdown(),
        btf: system::has_kernel_types(),
        privileged: system::has_bpf_privilege(),
        capabilities: system::named_capabilities(),
        mounted: ["tracefs", "debugfs", "bpf", "cgroup2"]
            .into_iter()
            .filter(|fs| system::is_mounted(fs))
            .collect(),
        lacks: lacks(),
        namespaces: namespaces::entered(),
        changed: access::changed_settings(),
    }
}

/// The tools whose subject is not on this machine, and what is missing.
fn lacks() -> Vec<(&'static str, String)> {
    // Without privilege its tracepoints are not seen, which says nothing of KVM.
    let kvm = match kvm::check() {
        _ if !system::has_bpf_privilege() => None,
        Err(error) => Some(error.to_string()),
        Ok(()) => kvm::fires_none().map(str::to_owned),
    };
    let kvm = kvm.map(|lack| ("kvm", lack));
    let sgx = driver().as_ref().err().map(|lack| ("sgx", lack.clone()));
    [kvm, sgx].into_iter().flatten().collect()
}

/// A tool to look at: its name, and all that can be tried.
struct Tool {
    name: &'static str,
    variants: fn(&'static str) -> Vec<Variant>,
    programs: fn() -> Result<Vec<Verified>>,
}

/// The tools, in the order of the report.
const TOOLS: &[Tool] = &[
    Tool {
        name: "faults",
        variants: |tool| {
            let mut all = tried_faults().to_vec();
            // It has no kernel half.
            all.push(Variant { tool, variant: rootless::NAME, refusal: rootless::tried(), own_only: true });
            all
        },
        programs: faults_programs,
    },
    Tool { name: "kvm", variants: kvm, programs: || variant::load_each(&KvmRecipe::new(nobody()), &[]) },
    Tool { name: "sgx", variants: sgx_variants, programs: || variant::load_each(&sgx(), &[]) },
    Tool {
        name: "access",
        // What sees the accesses is the faults tool's; this tool's variants are the engines that reset page tables.
        variants: |tool| {
            let common = access::unavailable().or_else(no_sight);
            let engines = access::engines().into_iter();
            engines
                .map(|(variant, refusal)| {
                    let refusal = refusal.or_else(|| common.clone());
                    Variant { tool, variant, refusal, own_only: false }
                })
                .collect()
        },
        programs: || variant::load_each(&access::lives(), &[]),
    },
];

/// Tries every variant of every tool.
#[must_use]
pub fn examine() -> Vec<Variant> {
    let mut all: Vec<Variant> = TOOLS.iter().flat_map(|tool| (tool.variants)(tool.name)).collect();
    if let Some((why, remedy)) = namespaces::problem() {
        // Then no tool starts, whatever attaches.
        let refusal = Refusal { errno: None, error: why.into(), remedy: remedy.into() };
        all.iter_mut().for_each(|of| of.refusal = Some(refusal.clone()));
    }
    all
}

/// Loads every program of every tool, each for itself.
///
/// # Errors
/// When the kernel half cannot even be opened.
pub fn programs() -> Result<Vec<Program>> {
    let mut all = Vec::new();
    for Tool { name: tool, programs, .. } in TOOLS {
        all.extend(programs()?.into_iter().map(|(object, program, insns)| Program {
            tool,
            object,
            program,
            insns,
        }));
    }
    Ok(all)
}

/// The variants of `faults`, tried once.
fn tried_faults() -> &'static [Variant] {
    static TRIED: OnceLock<Vec<Variant>> = OnceLock::new();
    TRIED.get_or_init(|| tried("faults", &faults()))
}

/// Why accesses cannot be seen, if no variant that sees single faults attaches.
fn no_sight() -> Option<Refusal> {
    let sees = |of: &&Variant| SEES_EACH_FAULT.iter().any(|seeing| seeing.name == of.variant);
    let mut seeing = tried_faults().iter().filter(sees).map(|of| of.refusal.clone());
    let first = seeing.next()?;
    // The reason of the best one.
    if seeing.any(|refusal| refusal.is_none()) { None } else { first }
}

fn faults() -> FaultsRecipe {
    FaultsRecipe {
        filter: nobody(),
        by: By::Thread,
        spans: Kinds::default(),
        stacks: Stacks::All,
        unwinds: false,
        copies: false,
        minor_latency: MinorLatency::Exact,
        events: Events::Faults,
        counts_only: false,
        seeing: false,
        split: false,
        ring_bytes: 64 << 10,
        causes: Some(FaultsWalk::deepest()),
    }
}

/// The programs of its objects: one that is in several as it is in the first of these, where it costs most.
fn faults_programs() -> Result<Vec<Verified>> {
    let recipe = |by, events, causes| FaultsRecipe { by, events, causes, split: true, ..faults() };
    let steps = Events::Steps { of: StepOf::Faults(1), most: false };
    let objects = [
        recipe(By::Stack, Events::None, None),
        FaultsRecipe { split: true, ..faults() },
        recipe(By::File, Events::None, None),
        recipe(By::Thread, Events::None, None),
        recipe(By::Thread, steps, None),
        // With variants that do not see what time is spent on.
        faults(),
    ];
    let mut all = Vec::new();
    for recipe in &objects {
        all.extend(variant::load_each(recipe, &all)?);
    }
    all.extend(variant::load_each(&Search::nowhere(), &all)?);
    Ok(all)
}

fn sgx() -> SgxRecipe {
    // Where no driver works, what the kernel has is tried all the same: that it attaches is worth knowing.
    SgxRecipe::new(nobody(), driver().clone().unwrap_or_default(), 1)
}

/// Where no driver works, no privilege and no other variant helps.
fn sgx_variants(tool: &'static str) -> Vec<Variant> {
    let mut all = tried(tool, &sgx());
    if let Err(lack) = driver() {
        all.iter_mut().filter_map(|of| of.refusal.as_mut()).for_each(|of| of.remedy.clone_from(lack));
    }
    all
}

/// The driver of SGX that works here. It is looked for once: the kernel's list of functions is long.
fn driver() -> &'static Result<Driver, String> {
    static FOUND: OnceLock<Result<Driver, String>> = OnceLock::new();
    FOUND.get_or_init(|| Driver::find(None))
}

/// Without KVM there is nothing to attach to: that is said, not what the kernel says of it.
fn kvm(tool: &'static str) -> Vec<Variant> {
    let recipe = KvmRecipe::new(nobody());
    if !system::has_bpf_privilege() {
        return tried(tool, &recipe);
    }
    let Err(error) = kvm::check() else { return tried(tool, &recipe) };
    let missing = || Refusal {
        errno: Some("ENOENT".into()),
        error: error.to_string(),
        remedy: "modprobe kvm_intel or kvm_amd, on a machine with VMX or SVM".into(),
    };
    let all = variant::in_order(&recipe).into_iter();
    all.map(|of| Variant { tool, variant: of.name, refusal: Some(missing()), own_only: false }).collect()
}

/// Attaches each variant for a moment.
fn tried(tool: &'static str, recipe: &impl Recipe) -> Vec<Variant> {
    let all = variant::in_order(recipe).into_iter();
    all.map(|of| {
        let refusal = variant::try_variant(recipe, of).err();
        Variant { tool, variant: of.name, refusal, own_only: false }
    })
    .collect()
}

/// A thread that there never is, so that nothing is counted meanwhile.
fn nobody() -> TrapFilter {
    TrapFilter { by: BY_TID, tid: u32::MAX, ..bytemuck::Zeroable::zeroed() }
}

/// The stream's header of a doctor's report.
#[must_use]
pub fn header(machine: &Machine) -> Header {
    let mut header = system::header("doctor", "none", (vec![VARIANTS], None), vec![machine.settings()]);
    header.start_ns = header.start_ns.saturating_add_signed(system::clocks().monotonic_ns);
    header
}
