//! How the programs of `bpf/sgx.bpf.c` are attached: which function of which driver each of them is for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use libbpf_rs::{Link, OpenObject, ProgramMut};
use nix::errno::Errno;
use trapline_model::sgx::Known;

use super::driver::Driver;
use super::initial;
use crate::abi::maps::{MapName, sgx as maps, shared};
use crate::abi::{BY_TREE, SGX_NOWHERE, SgxConfig, SgxLayout, TrapControl, TrapFilter};
use crate::compiled::Compiled;
use crate::refusal;
use crate::variant::{Attached, Recipe, Variant};

pub(crate) const OBJECT: Compiled = compiled!("sgx");

/// The number of the first interval; 0 would be what memory that was never written holds.
pub(super) const FIRST_EPOCH: u64 = 1;

/// Maps that are gone through.
const READ: [MapName<'static>; 2] = [maps::ENCLAVES, maps::ENDED];

/// Best first: see [`crate::variant::in_order`]. Each has the programs without which it says nothing of faults, loads or
/// evictions.
const VARIANTS: &[Variant] = &[
    Variant { name: "fentry", ways: &[&["fentry_fault", "fentry_faulted", "fentry_eldu", "fentry_ewb"]] },
    Variant {
        name: "kprobe",
        ways: &[&["kprobe_fault", "kprobe_faulted", "kprobe_eldu", "kprobe_loaded", "kprobe_ewb"]],
    },
    Variant {
        name: "legacy",
        ways: &[&["legacy_fault", "legacy_faulted", "legacy_eldu", "legacy_loaded", "legacy_ewb"]],
    },
];

/// Whether it is the program that counts faults.
pub(super) fn begins_a_fault(program: &str) -> bool {
    ["fentry_fault", "fentry_vepc", "kprobe_fault", "kprobe_vepc", "legacy_fault"].contains(&program)
}

/// Each program with the driver's function that it is for.
const FUNCTIONS: &[(&str, &str)] = &[
    ("fentry_fault", "sgx_vma_fault"),
    ("fentry_faulted", "sgx_vma_fault"),
    ("fentry_eldu", "sgx_encl_eldu"),
    ("fentry_ewb", "sgx_encl_ewb"),
    ("fentry_load_page", "__sgx_encl_load_page"),
    ("fentry_page_alloc", "sgx_encl_page_alloc"),
    ("fentry_alloc_epc", "sgx_alloc_epc_page"),
    ("fentry_vepc", "sgx_vepc_fault"),
    ("fentry_vepced", "sgx_vepc_fault"),
    ("fentry_release", "sgx_encl_release"),
    ("kprobe_fault", "sgx_vma_fault"),
    ("kprobe_faulted", "sgx_vma_fault"),
    ("kprobe_eldu", "sgx_encl_eldu"),
    ("kprobe_loaded", "sgx_encl_eldu"),
    ("kprobe_ewb", "sgx_encl_ewb"),
    ("kprobe_load_page", "__sgx_encl_load_page"),
    ("kprobe_page_alloc", "sgx_encl_page_alloc"),
    ("kprobe_alloc_epc", "sgx_alloc_epc_page"),
    ("kprobe_alloced_epc", "sgx_alloc_epc_page"),
    ("kprobe_vepc", "sgx_vepc_fault"),
    ("kprobe_vepced", "sgx_vepc_fault"),
    ("kprobe_release", "sgx_encl_release"),
    ("legacy_fault", "sgx_fault_page"),
    ("legacy_faulted", "sgx_fault_page"),
    ("legacy_eldu", "sgx_eldu"),
    ("legacy_loaded", "sgx_eldu"),
    ("legacy_ewb", "sgx_ewb"),
    ("legacy_release", "sgx_encl_release"),
];

/// Programs that are used where the driver has their function, and what cannot be told without them.
const OPTIONAL: &[(&str, &str)] = &[
    ("fentry_load_page", "outcomes"),
    ("fentry_page_alloc", "added"),
    ("fentry_alloc_epc", "added"),
    ("fentry_vepc", "guests"),
    ("fentry_vepced", "guests"),
    ("fentry_release", "ends"),
    ("kprobe_load_page", "outcomes"),
    ("kprobe_page_alloc", "added"),
    ("kprobe_alloc_epc", "added"),
    ("kprobe_alloced_epc", "added"),
    ("kprobe_vepc", "guests"),
    ("kprobe_vepced", "guests"),
    ("kprobe_release", "ends"),
    ("legacy_release", "ends"),
];

/// What a page's mark costs: a chunk of them takes a kilobyte, and the map's table 16 to 32 bytes for it.
const CHUNK_BYTES: u32 = 1024 + 32;

/// The recipe that `open` and `doctor` share.
#[derive(Debug)]
pub(crate) struct SgxRecipe {
    filter: TrapFilter,
    driver: Driver,
    layout: SgxLayout,
    chunks: u32,
    /// Programs that were left out of the last try: the driver lacks their function.
    absent: RefCell<BTreeSet<&'static str>>,
}

impl SgxRecipe {
    pub(crate) fn new(filter: TrapFilter, driver: Driver, memory_mib: u32) -> Self {
        let layout = driver.layout();
        let chunks = (memory_mib << 20) / CHUNK_BYTES;
        Self { filter, driver, layout, chunks, absent: RefCell::default() }
    }

    /// What the variant that was tried last cannot tell, by name.
    pub(super) fn without(&self, variant: &str) -> Vec<&'static str> {
        let absent = self.absent.borrow();
        let lacks = |&&(program, _): &&(&str, &str)| program.starts_with(variant) && absent.contains(program);
        let mut without: Vec<_> = OPTIONAL.iter().filter(lacks).map(|&(_, what)| what).collect();
        if variant == "legacy" {
            without.extend(["added", "guests"]);
        }
        without.sort_unstable();
        without.dedup();
        without
    }

    /// The same, of what decides the outcome of a fault.
    pub(super) fn known(&self, variant: &str) -> Known {
        let without = self.without(variant);
        let tells = |what| !without.contains(&what);
        // The out-of-tree driver's faults never add a page of which this would have to be told apart.
        Known {
            added: tells("added"),
            outcomes: tells("outcomes") && (tells("added") || variant == "legacy"),
        }
    }

    fn function(program: &str) -> Option<&'static str> {
        FUNCTIONS.iter().find(|(name, _)| *name == program).map(|&(_, function)| function)
    }

    fn is_optional(program: &str) -> Option<&'static str> {
        OPTIONAL.iter().find(|(name, _)| *name == program).map(|&(name, _)| name)
    }

    /// Finds the function of a program that is to be loaded; leaves the program out if it may be and there is none.
    fn aim(&self, program: &mut libbpf_rs::OpenProgramMut<'_>, variant: &str) -> Result<()> {
        let name = program.name().to_string_lossy().into_owned();
        let Some(function) = Self::function(&name) else { return Ok(()) };
        if let Some(optional) = Self::is_optional(&name) {
            let released = !name.ends_with("_release") || self.layout.encl_refcount != SGX_NOWHERE;
            let wanted = program.autoload() && name.starts_with(variant) && released;
            program.set_autoload(wanted);
            if !wanted {
                self.absent.borrow_mut().insert(optional);
                return Ok(());
            }
        }
        if !program.autoload() || !name.starts_with("fentry") {
            return Ok(());
        }
        let aimed = program.set_attach_target(0, Some(self.driver.function(function)));
        match (aimed, Self::is_optional(&name)) {
            (Err(_), Some(optional)) => {
                program.set_autoload(false);
                self.absent.borrow_mut().insert(optional);
                Ok(())
            }
            (aimed, _) => aimed.map_err(|error| {
                anyhow::Error::from(error)
                    .context(format!("the kernel has no {}", self.driver.function(function)))
            }),
        }
    }
}

impl Recipe for SgxRecipe {
    fn object(&self) -> Compiled {
        OBJECT
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn always(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = OPTIONAL.iter().map(|&(program, _)| program).collect();
        if self.filter.by & BY_TREE != 0 {
            names.extend(["process_ended", "process_born"]);
        }
        names
    }

    fn readers(&self) -> Vec<MapName<'static>> {
        READ.to_vec()
    }

    fn configure(&self, object: &mut OpenObject) -> Result<()> {
        self.absent.borrow_mut().clear();
        let loaded = object.progs().filter(libbpf_rs::OpenProgramImpl::autoload);
        let loaded: Vec<_> = loaded.map(|program| program.name().to_string_lossy().into_owned()).collect();
        // What is always loaded belongs to every variant: the main programs tell which one is meant.
        let main = VARIANTS.iter().find(|v| loaded.iter().any(|name| v.ways[0][0] == name));
        let any = VARIANTS.iter().find(|v| loaded.iter().any(|name| name.starts_with(v.name)));
        let variant = main.or(any).map_or("", |v| v.name);
        for mut program in object.progs_mut() {
            self.aim(&mut program, variant)?;
        }
        let release_is_seen = !self.without(variant).contains(&"ends");
        let config = SgxConfig { release_is_seen: release_is_seen.into(), pad: 0 };
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            match MapName(&name) {
                shared::FILTER => map.set_initial_value(initial(&self.filter))?,
                maps::LAYOUT => map.set_initial_value(initial(&self.layout))?,
                maps::CONFIG => map.set_initial_value(initial(&config))?,
                maps::CONTROL => map.set_initial_value(initial(&TrapControl { epoch: FIRST_EPOCH }))?,
                maps::CHUNKS => map.set_max_entries(self.chunks)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Kernels before 6.4 look a module's function up by its name alone, and may find another of that name.
    fn prove(&self, attached: &Attached) -> Result<()> {
        let Some(module) = self.driver.module.as_deref().filter(|_| attached.variant == "fentry") else {
            return Ok(());
        };
        let lists = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
            .map(|place| std::fs::read_to_string(format!("{place}/enabled_functions")));
        // Where the list cannot be seen, there is nothing to hold against it.
        let Some(list) = lists.into_iter().find_map(Result::ok) else { return Ok(()) };
        ensure!(
            is_enabled(&list, "sgx_vma_fault", module),
            "the kernel attached it to another function of that name, not to {module}'s"
        );
        Ok(())
    }

    fn attach(&self, program: &ProgramMut<'_>) -> Result<Vec<Link>> {
        let name = program.name().to_string_lossy().into_owned();
        if self.absent.borrow().contains(name.as_str()) {
            return Ok(vec![]);
        }
        let Some(function) = Self::function(&name) else { return Ok(vec![program.attach()?]) };
        if name.starts_with("fentry") {
            return Ok(vec![program.attach()?]);
        }
        let returns = ["faulted", "loaded", "load_page", "page_alloc", "alloced_epc", "vepced"];
        let at_return = returns.iter().any(|what| name.ends_with(what));
        let attached = program.attach_kprobe(at_return, self.driver.function(function));
        match (attached.map_err(anyhow::Error::from), Self::is_optional(&name)) {
            (Err(error), Some(optional)) if refusal::errno(&error) == Some(Errno::ENOENT) => {
                self.absent.borrow_mut().insert(optional);
                Ok(vec![])
            }
            (attached, _) => Ok(vec![attached?]),
        }
    }
}

/// Whether the tracer's list of functions in use has the module's.
fn is_enabled(list: &str, function: &str, module: &str) -> bool {
    let module = format!("[{module}]");
    list.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(function) && words.next() == Some(&module)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_in_use_is_the_modules_own() {
        let list = "sgx_vma_fault (1) R  D\nvfs_read [isgx] (1)\n";
        assert!(!is_enabled(list, "sgx_vma_fault", "isgx"));
        assert!(is_enabled("sgx_vma_fault [isgx] (1) R   D  \ttramp: x\n", "sgx_vma_fault", "isgx"));
    }

    #[test]
    fn every_program_has_a_function_and_a_way() {
        let object = OBJECT.open().unwrap();
        for program in object.progs() {
            let name = program.name().to_string_lossy().into_owned();
            let follows = ["process_born", "process_ended"].contains(&name.as_str());
            if follows || READ.iter().any(|map| map.reader() == name) {
                continue;
            }
            assert!(SgxRecipe::function(&name).is_some(), "{name} is for no function");
            let in_a_way = VARIANTS.iter().any(|v| v.ways.iter().any(|way| way.contains(&name.as_str())));
            assert!(
                in_a_way != SgxRecipe::is_optional(&name).is_some(),
                "{name} is neither needed nor optional"
            );
        }
        let names: Vec<_> = object.progs().map(|p| p.name().to_string_lossy().into_owned()).collect();
        assert!(FUNCTIONS.iter().all(|(name, _)| names.iter().any(|n| n == name)));
    }
}
