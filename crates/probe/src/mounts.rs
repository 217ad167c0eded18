//! Mounts whose files come from a program or another machine, so that a fault on one may wait for these.

use std::fs;

/// Types of file systems that are served.
const SERVED: &[&str] = &[
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gpfs", "lustre", "nfs", "nfs4",
    "orangefs", "smb3", "virtiofs",
];

/// Type and place of each, one a line, as our mount namespace has them.
pub(crate) fn served() -> Option<String> {
    Some(served_of(&fs::read_to_string("/proc/self/mountinfo").ok()?))
}

fn served_of(mountinfo: &str) -> String {
    let mut served: Vec<String> = mountinfo.lines().filter_map(line).collect();
    served.sort_unstable();
    served.dedup();
    served.join("\n")
}

fn line(of: &str) -> Option<String> {
    let (before, after) = of.split_once(" - ")?;
    let (at, kind) = (before.split(' ').nth(4)?, after.split(' ').next()?);
    let is_served = SERVED.contains(&kind) || kind.starts_with("fuse.");
    // A newline in a path stays escaped: each has a line.
    let at = at.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    is_served.then(|| format!("{kind} {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_mounts_are_found_by_their_type() {
        let mountinfo = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            40 22 0:40 / /mnt/a\\040b rw shared:1 - fuse.sshfs host: rw\n\
            41 22 0:41 / /home rw,relatime shared:2 master:3 - nfs4 host:/home rw\n\
            42 22 0:42 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n";
        assert_eq!(served_of(mountinfo), "fuse.sshfs /mnt/a b\nnfs4 /home");
        assert_eq!(served_of("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"), "");
    }
}
