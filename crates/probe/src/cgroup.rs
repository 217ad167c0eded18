//! Cgroups of the v2 hierarchy: from what the kernel half knows, a number, to what people know, a path.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

/// Where the cgroup v2 hierarchy is mounted.
pub(crate) fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let root_is_shown = before.split(' ').nth(3) == Some("/");
        let dir = before.split(' ').nth(4)?;
        (after.starts_with("cgroup2 ") && root_is_shown).then(|| PathBuf::from(unescape(dir)))
    })
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> OsString {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

/// Names of cgroups by their ids, looked up once each.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: HashMap<u64, String>,
}

impl Names {
    /// The path below the hierarchy's root, `/` for the root; or `cgroup:ID` of one that is gone or cannot be seen.
    pub(crate) fn of(&mut self, id: u64) -> String {
        if let Some(name) = self.known.get(&id) {
            return name.clone();
        }
        let root = hierarchy();
        let path = root.as_deref().and_then(|root| {
            use std::os::unix::fs::MetadataExt;
            if fs::metadata(root).is_ok_and(|meta| meta.ino() == id) {
                return Some("/".to_owned());
            }
            let dir = find(root, id)?;
            Some(format!("/{}", dir.strip_prefix(root).ok()?.to_string_lossy()))
        });
        let name = path.unwrap_or_else(|| format!("cgroup:{id}"));
        self.known.insert(id, name.clone());
        name
    }
}

/// The directory with that inode number: the id of a cgroup is the number of its directory.
fn find(dir: &Path, id: u64) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let dirs: Vec<_> = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).collect();
    if let Some(found) = dirs.iter().find(|entry| entry.ino() == id) {
        return Some(found.path());
    }
    dirs.iter().find_map(|entry| find(&entry.path(), id))
}
