//! What a test needs, and why it cannot run where it does not have that.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{Place, doctor, is_younger, lines, place};

/// The virtual machine, if its tests are those that its line in `xtask/src/kernels.rs` names, and not some that were asked
/// for.
fn machine() -> Option<String> {
    let place = std::env::var("TRAPLINE_PLACE").ok()?;
    place.strip_prefix("vm:").map(str::to_owned).filter(|_| std::env::var_os("TRAPLINE_ASKED").is_none())
}

/// What a test needs beside the variant that it is about.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    Root,
    /// A kernel whose function tracer can be switched off.
    FunctionTracer,
    /// A kernel that is locked down.
    Lockdown,
    /// A machine on which guests make real exits.
    Exits,
    /// A KVM that runs guests without VMX and SVM, and fires no kvm_exit.
    UnseenExits,
    /// A machine that is there for nothing else: the test takes a part of it away.
    Disposable,
    /// A program.
    Program(&'static str),
    /// The server of the distribution's package.
    PostgreSql,
    /// A program that names the code that it makes.
    Interpreter,
    /// A terminal that can be looked at.
    Tmux,
    /// A kernel that makes faults of this cause.
    Cause(&'static str),
    /// A machine that nobody else is on: its scheduler is changed.
    OwnMachine,
    /// A kernel with FUSE.
    Fuse,
    /// The stand-in for an SGX driver, built for the running kernel: `TRAPLINE_SGX_DOUBLE` says where.
    SgxDouble,
    /// The machine's own kernel, as every kernel does the same; a virtual machine only if the test is asked for.
    ThisKernel,
    /// Of the virtual machines one with this kernel, unless the test is asked for.
    Once(&'static str),
    /// Of the virtual machines one for each variant, a different one where that is possible, unless the test is asked for.
    Spread,
}

/// Where variants run whose tests are spread over the kernels; the others run on 6.12.
const SPREAD: &[(&str, &str)] = &[("tracepoint", "6.1"), ("rootless", "6.1"), ("kprobe", "7.3")];

impl Need {
    /// Why it is not met for a variant, if it is not.
    pub fn unmet(self, variant: &str) -> Option<String> {
        match self {
            Self::Root => (!nix::unistd::geteuid().is_root()).then(|| "it needs root".into()),
            // It is left in disorder by that: the machine must be there for nothing else.
            Self::FunctionTracer => (!std::env::var("TRAPLINE_PLACE")
                .is_ok_and(|place| place.ends_with("-ftrace")))
            .then(|| "it needs a machine of its own, whose function tracer it may switch off".into()),
            // A kernel that is not ours may refuse more than that.
            Self::Lockdown => (place() != Place::Vm || lockdown().is_none_or(|mode| mode == "none"))
                .then(|| "it needs a kernel that was booted with lockdown=…".into()),
            Self::Exits => crate::kvm::no_exits(),
            Self::UnseenExits => crate::kvm::no_unseen_exits(),
            Self::Disposable => {
                (place() != Place::Vm).then(|| "it takes a part of the machine away for a while".into())
            }
            Self::Program(program) => lacks(program, "--version"),
            Self::PostgreSql => crate::faults::unwind::programs::postgresql()
                .is_none()
                .then(|| "PostgreSQL is not installed".into()),
            Self::Interpreter => crate::faults::stack::lacks_interpreters(),
            Self::Tmux => lacks("tmux", "-V"),
            Self::Cause(cause) => crate::faults::cause::lacks(cause),
            Self::OwnMachine => (place() != Place::Vm)
                .then(|| "it changes how the whole machine runs: it runs in virtual ones".into()),
            Self::Fuse => {
                // Where it is a module, the device comes with it.
                let _ = Command::new("modprobe").arg("fuse").output();
                (!Path::new("/dev/fuse").exists()).then(|| "it needs /dev/fuse".into())
            }
            Self::SgxDouble => match std::env::var_os("TRAPLINE_SGX_DOUBLE") {
                Some(module) if Path::new(&module).exists() => None,
                _ => Some("it needs the module of tests/sgx-double, which `cargo xtask vm` builds".into()),
            },
            Self::ThisKernel => machine().map(|_| "it is the same on every kernel".into()),
            Self::Once(kernel) => machine()
                .filter(|machine| machine.split('-').next() != Some(kernel))
                .map(|_| format!("it runs on one kernel only, {kernel}")),
            Self::Spread => {
                let place = SPREAD.iter().find(|(of, _)| *of == variant);
                Self::Once(place.map_or("6.12", |(_, kernel)| kernel)).unmet(variant)
            }
        }
    }

    /// Whether it may be missing even where everything must run: it is about a machine of a special sort.
    pub fn is_special(self) -> bool {
        use Need::*;
        matches!(self, Lockdown | FunctionTracer | UnseenExits | Cause(_) | ThisKernel | Once(_) | Spread)
    }
}

/// Why a program cannot be used.
fn lacks(program: &str, version: &str) -> Option<String> {
    let output = Command::new(program).arg(version).output();
    (!output.is_ok_and(|out| out.status.success())).then(|| format!("{program} is not installed"))
}

/// The lockdown mode in force, if the kernel shows one.
pub fn lockdown() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    text.split_whitespace().find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
}

/// Why this variant of the tool that the test's name begins with cannot be tested, if it cannot.
pub fn missing(name: &str, variant: &str) -> Option<String> {
    let tool = name.split("::").next();
    // Whatever is chosen is there; and without a driver of SGX there is nothing to attach to, but it comes with the test.
    if variant == "auto" || tool == Some("sgx") {
        return None;
    }
    // Where nothing may be missing, a test that misses something fails; a doctor takes seconds there.
    if place() == Place::Vm && !is_younger(variant) {
        return None;
    }
    let is_it = |row: &Value| row["tool"].as_str() == tool && row["variant"] == variant;
    let row = lines(&doctor().stdout).into_iter().find(is_it)?;
    let why = || format!("the variant does not attach: {}", row["error"].as_str().unwrap_or_default());
    (row["attaches"] == "no").then(why)
}
