//! The memory that a process can have.

use std::fs;
use std::path::Path;

use crate::cgroup::{self, Hierarchy};

/// The memory of the machine, bytes, or of a process's cgroup if one of those that it is in may have less. Swap is not in it.
pub(crate) fn memory(pid: Option<u32>) -> Option<u64> {
    let machine = of_machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(pid.and_then(of_cgroups).map_or(machine, |limit| limit.min(machine)))
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The least limit of the process's cgroup and those above it, in the v2 hierarchy or in that of the v1 controller.
fn of_cgroups(pid: u32) -> Option<u64> {
    let old = cgroup::old_directories(pid, "memory").unwrap_or_default();
    let old = old.iter().filter_map(|dir| {
        fs::read_to_string(dir.join("memory.limit_in_bytes")).ok()?.trim().parse::<u64>().ok()
    });
    old.chain(of_the_v2_hierarchy(pid)).min()
}

fn of_the_v2_hierarchy(pid: u32) -> Option<u64> {
    let path = cgroup::path_of(pid)?;
    let hierarchy = Hierarchy::find()?;
    let limit = |of: &Path| {
        let file = hierarchy.directory(of)?.join("memory.max");
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    };
    Path::new(&path).ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_machine() {
        assert_eq!(of_machine("MemFree: 1 kB\nMemTotal:       16 kB\n"), Some(16 << 10));
        assert_eq!(of_machine("MemTotal: many\n"), None);
        assert!(memory(Some(std::process::id())) <= memory(None) && memory(None) > Some(0));
    }
}
