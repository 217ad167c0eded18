//! Which SGX driver there is, and if there is none, what is missing for one.

use std::fs;
use std::path::Path;

use crate::abi::{SGX_NOWHERE, SgxLayout};
use crate::btf::Btf;

/// What each of the drivers calls the function that a fault is handed to.
const FAULT_FUNCTIONS: [&str; 2] = ["sgx_vma_fault", "sgx_fault_page"];
/// What the kernel's own driver makes when it has found everything it needs.
const DEVICES: [&str; 2] = ["/dev/sgx_enclave", "/dev/sgx_vepc"];

/// The driver whose functions are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Driver {
    /// The module; nothing for the driver in the kernel.
    pub(crate) module: Option<String>,
}

impl Driver {
    /// The driver that works here, or that module.
    ///
    /// # Errors
    /// What is missing, in one line.
    pub(crate) fn find(module: Option<&str>) -> Result<Self, String> {
        if let Some(name) = module {
            return if Path::new("/sys/module").join(name).exists() {
                Ok(Self { module: Some(name.to_owned()) })
            } else {
                Err(format!("there is no module {name}: load it first (lsmod shows those that are)"))
            };
        }
        let holders = holders(&fs::read_to_string("/proc/kallsyms").unwrap_or_default());
        let built_in = holders.iter().any(Option::is_none);
        if built_in && DEVICES.iter().any(|device| Path::new(device).exists()) {
            return Ok(Self::default());
        }
        match holders.into_iter().flatten().next() {
            Some(module) => Ok(Self { module: Some(module) }),
            None => Err(format!("SGX is unavailable: {}", missing(cpu(), built_in))),
        }
    }

    /// The name by which a function of this driver is asked for.
    pub(crate) fn function(&self, name: &str) -> String {
        self.module.as_ref().map_or_else(|| name.to_owned(), |module| format!("{module}:{name}"))
    }

    /// Where the driver's types have their fields; nowhere, where its module does not tell.
    pub(crate) fn layout(&self) -> SgxLayout {
        let btf = Btf::of(self.module.as_deref()).ok();
        let at = |structure: &str, field: &str| {
            btf.as_ref().and_then(|btf| btf.offset(structure, field)).unwrap_or(SGX_NOWHERE)
        };
        let owner = match at("sgx_epc_page", "owner") {
            // The out-of-tree driver's name for it.
            SGX_NOWHERE => at("sgx_epc_page", "encl_page"),
            offset => offset,
        };
        let address = match at("sgx_encl_page", "desc") {
            SGX_NOWHERE => at("sgx_encl_page", "addr"),
            offset => offset,
        };
        SgxLayout {
            encl_base: at("sgx_encl", "base"),
            encl_size: at("sgx_encl", "size"),
            encl_refcount: at("sgx_encl", "refcount"),
            encl_secs: at("sgx_encl", "secs"),
            page_encl: at("sgx_encl_page", "encl"),
            page_desc: address,
            epc_owner: owner,
            pad: 0,
        }
    }
}

/// Who holds a function that takes faults: modules by name, and the kernel itself as nothing.
fn holders(kallsyms: &str) -> Vec<Option<String>> {
    let holder = |line: &str| {
        let (symbol, module) = line.split_once('\t').unwrap_or((line, ""));
        let is_of = |function: &&str| symbol.strip_suffix(*function).is_some_and(|rest| rest.ends_with(' '));
        let module = Some(module.trim_matches(['[', ']'])).filter(|name| !name.is_empty());
        FAULT_FUNCTIONS.iter().any(is_of).then(|| module.map(str::to_owned))
    };
    let mut holders: Vec<_> = kallsyms.lines().filter_map(holder).collect();
    holders.sort();
    holders.dedup();
    holders
}

/// How far the processor and the firmware are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cpu {
    Without,
    SwitchedOff,
    Ready,
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, unused_unsafe)]
fn cpu() -> Cpu {
    use std::arch::x86_64::__cpuid_count;

    // SAFETY: every 64-bit processor has the instruction; a leaf beyond the last gives figures of no meaning, and is
    // not asked for.
    let leaf = |leaf, sub| unsafe { __cpuid_count(leaf, sub) };
    let last = leaf(0, 0).eax;
    if last < 0x12 || leaf(7, 0).ebx & (1 << 2) == 0 {
        Cpu::Without
    } else if leaf(0x12, 0).eax & 1 == 0 {
        Cpu::SwitchedOff
    } else {
        Cpu::Ready
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> Cpu {
    Cpu::Without
}

/// What to say when no driver works.
fn missing(cpu: Cpu, built_in: bool) -> &'static str {
    match (cpu, built_in) {
        (Cpu::Without, _) => "the processor lacks it, or the hypervisor hides it",
        (Cpu::SwitchedOff, _) => "the firmware disables it: enable SGX in the BIOS setup",
        (Cpu::Ready, false) => {
            "the kernel has no driver: boot one with CONFIG_X86_SGX=y, 5.11 or later, or load the out-of-tree module"
        }
        (Cpu::Ready, true) => {
            "the kernel's driver did not start, perhaps for lack of flexible launch control: see `dmesg | grep -i sgx`; the out-of-tree module may work"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_told_apart() {
        let symbols = "0000000000000000 t sgx_vma_fault\n\
                       0000000000000000 t sgx_vma_fault_not\t[other]\n\
                       0000000000000000 t sgx_vma_fault\t[intel_sgx]\n\
                       0000000000000000 T sgx_fault_page\t[isgx]\n\
                       0000000000000000 t sgx_vma_fault\t[isgx]\n";
        let found = holders(symbols);
        assert_eq!(found, [None, Some("intel_sgx".to_owned()), Some("isgx".to_owned())]);
        assert_eq!(holders("0 t sgx_vma_fault"), [None]);
        assert_eq!(holders("cut short\n"), []);
    }

    #[test]
    fn each_lack_has_its_own_words() {
        let said = [
            missing(Cpu::Without, true),
            missing(Cpu::SwitchedOff, true),
            missing(Cpu::Ready, false),
            missing(Cpu::Ready, true),
        ];
        for (i, one) in said.iter().enumerate() {
            assert!(!one.contains('\n') && !said[..i].contains(one), "{one}");
        }
    }

    #[test]
    fn a_function_of_a_module_has_its_name_before_it() {
        let isgx = Driver { module: Some("isgx".into()) };
        assert_eq!(isgx.function("sgx_ewb"), "isgx:sgx_ewb");
        assert_eq!(Driver::default().function("sgx_ewb"), "sgx_ewb");
        assert!(
            Driver::find(Some("no_such_module"))
                .unwrap_err()
                .starts_with("there is no module no_such_module")
        );
    }
}
