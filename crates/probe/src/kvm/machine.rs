//! What is known of the machine before the first exit: whether KVM is there, which processes run guests, their names.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use trapline_model::kvm::Isa;

use super::format;

/// Says why no exit can be counted here, if that can be known.
///
/// # Errors
/// When the kvm tracepoints cannot be there.
pub(crate) fn check() -> Result<()> {
    let modules = "load KVM: modprobe kvm_intel, or modprobe kvm_amd";
    if !format::tracefs_is_mounted() {
        bail!(
            "cannot read the kernel's tracepoints: run as root, and mount -t tracefs tracefs /sys/kernel/tracing"
        );
    }
    let device = Path::new("/dev/kvm").exists();
    match (format::kvm_events().is_some(), device) {
        (false, false) => bail!("the kvm module is not loaded, and there is no /dev/kvm; {modules}"),
        (false, true) => bail!("the kvm module is not loaded: the kernel has no kvm tracepoints; {modules}"),
        (true, false) => {
            bail!("there is no /dev/kvm: KVM's module for this processor is not loaded; {modules}")
        }
        (true, true) => Ok(()),
    }
}

/// The kind of virtualization that the processor shows to this kernel, if it shows one.
#[must_use]
pub fn isa() -> Option<Isa> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"))?.split_whitespace();
    flags.find_map(|flag| match flag {
        "vmx" => Some(Isa::Vmx),
        "svm" => Some(Isa::Svm),
        _ => None,
    })
}

/// Why a KVM that is there fires no exits, if that can be known.
pub(crate) fn fires_none() -> Option<&'static str> {
    let why = "the processor has neither VMX nor SVM here, so KVM can only be PVM, which fires no kvm_exit";
    isa().is_none().then_some(why)
}

/// What makes it likely that nothing will be counted, for people. `starting`: a command that may be a VM is about to run.
#[must_use]
pub fn warnings(pids: &[u32], starting: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(fires_none().map(|why| format!("{why}: maybe no exit is counted")));
    let idle: Vec<u32> = pids.iter().copied().filter(|&pid| !runs_guest(pid)).collect();
    if !idle.is_empty() {
        warnings.push(format!(
            "{} no virtual machine now; exits are counted as soon as it does",
            processes(&idle)
        ));
    } else if !starting && vms().is_empty() {
        warnings.push("no virtual machine is running now; exits are counted as soon as one does".to_owned());
    }
    warnings
}

fn processes(pids: &[u32]) -> String {
    let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
    if let [one] = list.as_slice() {
        format!("process {one} runs")
    } else {
        format!("processes {} run", list.join(", "))
    }
}

/// The processes that hold a virtual machine open.
#[must_use]
pub fn vms() -> Vec<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| runs_guest(pid)).collect()
}

/// Says why no VM of that name can be watched: there is none.
///
/// # Errors
/// When no virtual machine that is there has that name.
pub(super) fn ensure_vm(wanted: &str) -> Result<()> {
    let vms: Vec<(u32, Option<String>)> = vms().into_iter().map(|pid| (pid, name_of(pid))).collect();
    if vms.iter().any(|(_, name)| name.as_deref() == Some(wanted)) {
        return Ok(());
    }
    bail!("no virtual machine has the name `{wanted}`; {}", what_there_is(&vms))
}

fn what_there_is(vms: &[(u32, Option<String>)]) -> String {
    let one = |(pid, name): &(u32, Option<String>)| match name {
        Some(name) => format!("`{name}` (process {pid})"),
        None => format!("one without a name (process {pid})"),
    };
    match vms {
        [] => "none is running: start it first, or use `trapline kvm … -- COMMAND`".into(),
        vms => format!("there are {}", vms.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

/// How often all vCPUs that there are have left their guests, by KVM's own statistics, if debugfs shows them.
#[must_use]
pub fn exits_by_kvm() -> Option<u64> {
    fs::read_to_string("/sys/kernel/debug/kvm/exits").ok()?.trim().parse().ok()
}

fn runs_guest(pid: u32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| link.starts_with("anon_inode:kvm-vm")))
}

/// The names of VMs, read once for each process.
#[derive(Debug, Default)]
pub(super) struct VmNames {
    known: HashMap<(u32, u64), Option<String>>,
    latest: HashMap<u32, u64>,
}

impl VmNames {
    /// The name of the VM of the process, by its birth told from others with its id. Ask soon: a process that has ended
    /// tells nothing.
    pub(super) fn of(&mut self, pid: u32, start_ns: u64) -> Option<String> {
        self.latest.insert(pid, start_ns);
        self.known.entry((pid, start_ns)).or_insert_with(|| name_of(pid)).clone()
    }

    /// The birth of the last process of that id that was asked for, 0 if none was.
    pub(super) fn latest(&self, pid: u32) -> u64 {
        self.latest.get(&pid).copied().unwrap_or(0)
    }
}

/// The name of the VM of a process that is there.
fn name_of(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|&b| b == 0).map(String::from_utf8_lossy).collect();
    name_in(&words)
}

/// The name of the VM in a command line: QEMU's and libvirt's `-name guest=NAME,…`, Firecracker's `--id NAME`, the
/// socket's name of cloud-hypervisor's `--api-socket`.
fn name_in<S: AsRef<str>>(words: &[S]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    let value = |option: &str| {
        words.iter().enumerate().find_map(|(i, &word)| match word.strip_prefix(option) {
            Some("") => words.get(i + 1).copied(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        })
    };
    let named = if program.contains("firecracker") {
        value("--id").unwrap_or("anonymous-instance")
    } else if program.contains("cloud-hypervisor") {
        let socket = value("--api-socket")?;
        let path = socket.split(',').map(|part| part.strip_prefix("path=").unwrap_or(part)).next()?;
        Path::new(path).file_stem()?.to_str()?
    } else {
        let name = value("-name").or_else(|| value("--name"))?;
        let guest = name.split(',').find_map(|part| part.strip_prefix("guest="));
        guest.or_else(|| name.split(',').next())?
    };
    Some(named.to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_is_not_there_is_answered_with_those_that_are() {
        let there = [(7, Some("web1".into())), (9, None)];
        assert_eq!(what_there_is(&there), "there are `web1` (process 7), one without a name (process 9)");
        assert!(what_there_is(&[]).contains("none is running"));
        assert!(
            ensure_vm("nosuch")
                .is_err_and(|no| no.to_string().starts_with("no virtual machine has the name `nosuch`; "))
        );
    }

    #[test]
    fn the_name_is_where_each_program_has_it() {
        let name = |line: &str| name_in(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(name("/usr/bin/qemu-system-x86_64 -m 1G -name web1"), Some("web1".into()));
        assert_eq!(name("qemu-kvm -name guest=db,debug-threads=on -S"), Some("db".into()));
        assert_eq!(name("qemu-kvm -name debug-threads=on,guest=db"), Some("db".into()));
        assert_eq!(name("/opt/firecracker --id vm-3 --api-sock /x"), Some("vm-3".into()));
        assert_eq!(name("firecracker --id=vm-4"), Some("vm-4".into()));
        assert_eq!(name("cloud-hypervisor --api-socket path=/run/ch/blue.sock"), Some("blue".into()));
        assert_eq!(name("cloud-hypervisor --api-socket /run/ch/red.sock --cpus boot=1"), Some("red".into()));
        assert_eq!(name("qemu-system-x86_64 -m 1G"), None);
        assert_eq!(name("trapline workload guest --name tiny"), Some("tiny".into()));
    }
}
