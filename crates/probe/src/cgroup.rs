//! The cgroup v2 hierarchy: where it is, and what its cgroups are called.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

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

/// Paths of cgroups by id: the id is the inode number of the cgroup's directory.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    known: HashMap<u64, Rc<str>>,
}

impl Paths {
    /// The path of a cgroup below the root of the hierarchy; of one that is gone, what there is to say.
    pub(crate) fn path(&mut self, id: u64) -> Rc<str> {
        if !self.known.contains_key(&id) {
            if let Some(root) = hierarchy() {
                self.learn(&root, &root);
            }
            // Asked once and not there: removed meanwhile, or beyond what we may see.
            self.known.entry(id).or_insert_with(|| format!("(removed cgroup {id})").into());
        }
        self.known.get(&id).map_or_else(|| Rc::from(""), Rc::clone)
    }

    fn learn(&mut self, root: &Path, dir: &Path) {
        let Ok(meta) = fs::metadata(dir) else { return };
        let below = dir.strip_prefix(root).unwrap_or(dir).to_string_lossy();
        self.known.entry(meta.ino()).or_insert_with(|| format!("/{below}").into());
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            self.learn(root, &entry.path());
        }
    }
}
