//! The kernels that trapline is tested on, as data: one line of `KERNELS` each.
//!
//! A `*` in the first package of a kernel stands for the newest version in the archive, so a kernel that has
//! left the archive is replaced by the newest of its series. In the packages after it, `*` is what it was in
//! the first.

use anyhow::{Result, bail};

use self::Processors::{InTurn, SideBySide};

/// One kernel to boot.
#[derive(Debug)]
pub struct Kernel {
    /// What people call it: the argument of `cargo xtask vm`, and `vm:NAME` in `TRAPLINE_PLACE`.
    pub name: &'static str,
    /// The Debian packages that hold it and its modules.
    pub packages: &'static [&'static str],
    /// Added to the kernel's command line, for example `lockdown=integrity`.
    pub append: &'static str,
    /// Arguments of the test harness, for each time that it runs: a tool, and `--skip` with the variants that are not meant.
    pub tests: &'static [&'static [&'static str]],
    /// How software emulation has its processors run.
    pub processors: Processors,
}

/// How the processors of an emulated machine run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processors {
    /// At the same time, each on a thread of the emulator. SVM is not sound so: it writes to memory that is not a
    /// guest's any more. Of nine machines whose KVM ran guests of 64 vCPUs, seven died of a "corrupted stack end", and in
    /// two a guest stood still; in turns 30 of 30 such guests came to their end.
    SideBySide,
    /// One after the other, on one thread: such a machine needs one processor of the host. Of two machines on two
    /// processors, `faults::exact` on 6.12 takes 57 s so, and 92 s side by side, as each waits for processors that have
    /// none; one alone takes as long either way.
    InTurn,
}

/// Every machine of the stage, in the order in which they start: those that take long before the others.
///
/// Faults have machines of their own, for what other tests load or switch off is not there for the next; of those others,
/// the test that switches the function tracer off comes last: what it leaves behind, kernels before 7.3 attach no probe
/// to a module's functions any more. Each test says itself (`Need` in `tests/live/need.rs`) whether it runs on every kernel,
/// on one of them, or only on the machine's own. Of access there is on each kernel the engine that is best there:
/// `cargo xtask vm 6.12 -- access::` runs all of it, which takes a quarter of an hour. What many threads do at once runs with processors side by side, too.
pub const KERNELS: &[Kernel] = &[
    Kernel { name: "7.3", packages: SPLIT_7_3, tests: &[FAULTS], ..USUAL },
    Kernel { name: "6.1", packages: DEBIAN_6_1, tests: &[FAULTS], ..USUAL },
    Kernel {
        name: "6.12",
        packages: DEBIAN_6_12,
        tests: &[FAULTS, &["above_memory_high"], &["memory_that_is_hidden"]],
        ..USUAL
    },
    Kernel {
        name: "6.12-others",
        packages: DEBIAN_6_12,
        tests: &[
            SGX,
            KVM,
            ACCESS_6_12,
            &["explain::elsewhere::of_"],
            &["top::elsewhere::"],
            &["the_function_tracer"],
        ],
        ..USUAL
    },
    Kernel { name: "6.1-others", packages: DEBIAN_6_1, tests: &[SGX, ACCESS_6_1, KVM], ..USUAL },
    Kernel { name: "7.3-others", packages: SPLIT_7_3, tests: &[ACCESS_7_3, SGX, KVM], ..USUAL },
    Kernel {
        name: "6.12-many",
        packages: DEBIAN_6_12,
        tests: &[&["faults::many"]],
        processors: SideBySide,
        ..USUAL
    },
    Kernel {
        name: "6.12-integrity",
        packages: DEBIAN_6_12,
        append: "lockdown=integrity",
        tests: &[LOCKDOWN],
        ..USUAL
    },
    Kernel {
        name: "6.12-confidentiality",
        packages: DEBIAN_6_12,
        append: "lockdown=confidentiality",
        tests: &[LOCKDOWN],
        ..USUAL
    },
];

const USUAL: Kernel = Kernel { name: "", packages: &[], append: "", tests: &[], processors: InTurn };

const DEBIAN_6_1: &[&str] = &["linux-image-6.1.*-amd64"];

const DEBIAN_6_12: &[&str] = &["linux-image-6.12.*-amd64"];

const FAULTS: &[&str] = &["faults::"];

/// What a locked-down kernel is booted for.
const LOCKDOWN: &[&str] = &["by_lockdown"];

const SGX: &[&str] = &["sgx::"];

const KVM: &[&str] = &["kvm::"];

/// NUMA balancing, and writes by soft-dirty.
const ACCESS_6_1: &[&str] = &["access::", "--skip=::none"];

/// NUMA balancing.
const ACCESS_6_12: &[&str] = &["access::numa::"];

/// The engine that is there since 7.3, and what needs none.
const ACCESS_7_3: &[&str] = &["access::", "--skip=::numa", "--skip=::writes"];

/// From 7.2 on Debian ships the image, the modules and the lists of what is built in as separate packages.
const SPLIT_7_3: &[&str] =
    &["linux-binary-unsigned-7.3.*-amd64", "linux-modules-7.3.*-amd64", "linux-base-7.3.*-amd64"];

/// Those that differ as kernels, the oldest first: some are booted several times, for different tests, and then called by
/// the shortest name.
pub fn distinct() -> Vec<&'static Kernel> {
    let mut all: Vec<&Kernel> = Vec::new();
    for kernel in KERNELS {
        let is_same = |other: &&Kernel| other.packages == kernel.packages && other.append == kernel.append;
        if !all.iter().any(is_same) {
            all.extend(KERNELS.iter().filter(is_same).min_by_key(|other| other.name.len()));
        }
    }
    all.sort_by_key(|kernel| (kernel.append, kernel.name));
    all
}

/// The kernels of those names, or all of them when none is named.
pub fn choose(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    names.iter().map(|name| find(name)).collect()
}

fn find(name: &str) -> Result<&'static Kernel> {
    let Some(kernel) = KERNELS.iter().find(|kernel| kernel.name == name) else {
        let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        bail!(
            "no kernel is called {name:?}; known are {} (one line in xtask/src/kernels.rs adds another)",
            known.join(", ")
        );
    };
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kernel_is_answered_with_the_known_ones() {
        let error = choose(&["6.5".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"6.5\"") && error.contains("7.3, 6.1, 6.12, 6.12-others, "), "{error}");
    }

    #[test]
    fn a_kernel_that_is_booted_several_times_is_one() {
        let names: Vec<_> = distinct().iter().map(|kernel| kernel.name).collect();
        assert_eq!(names, ["6.1", "6.12", "7.3", "6.12-confidentiality", "6.12-integrity"]);
    }

    #[test]
    fn names_are_unique() {
        for kernel in KERNELS {
            assert_eq!(
                KERNELS.iter().filter(|other| other.name == kernel.name).count(),
                1,
                "{}",
                kernel.name
            );
        }
    }
}
