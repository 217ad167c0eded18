//! What this machine shows of itself: where its kernel's types are, what is mounted, whether it is locked down.

use std::fs;

/// Where a kernel shows its own types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Whether a file system of this type is mounted anywhere.
pub fn is_mounted(kind: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind))
}

/// The lockdown mode in force: `none`, `integrity`, `confidentiality`; nothing if the kernel does not say.
pub fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']').map(str::to_owned))
}
