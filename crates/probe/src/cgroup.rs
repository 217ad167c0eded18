//! The cgroup v2 hierarchy: where it is, and what its cgroups are called in our cgroup namespace.

pub(crate) mod chosen;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::namespaces::{self, Kind};

/// As much of the hierarchy as a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    dir: PathBuf,
    /// What our cgroup namespace calls the topmost cgroup of the mount: `/`, or `/..` where the mount shows more than
    /// the namespace, or a path where it shows less.
    top: PathBuf,
    /// Where the namespace's root is below `dir`, if the mount shows it.
    root: Option<PathBuf>,
}

impl Hierarchy {
    /// The mount that shows most.
    pub(crate) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mut found = mounted(&mounts, is_cgroup)?;
        if found.shows_more() {
            // Names do not tell where the namespace's root is; the kernel does.
            let id = namespaces::read(None).ok()?.cgroup_root;
            let mut root = None;
            walk(&found.dir, &mut |dir, of| {
                root = root.take().or_else(|| (of == id).then(|| dir.to_owned()));
            });
            found.root = root.and_then(|dir| Some(dir.strip_prefix(&found.dir).ok()?.to_owned()));
        }
        Some(found)
    }

    fn shows_more(&self) -> bool {
        self.top != Path::new("/") && names(&self.top).all(|name| name == Component::ParentDir)
    }

    /// The directory of the cgroup that our namespace calls so, if the mount shows it.
    pub(crate) fn directory(&self, path: &Path) -> Option<PathBuf> {
        let Some(root) = &self.root else {
            return Some(self.dir.join(Path::new("/").join(path).strip_prefix(&self.top).ok()?));
        };
        let mut below: Vec<_> = names(root).collect();
        for name in names(path) {
            if name == Component::ParentDir {
                below.pop()?;
            } else {
                below.push(name);
            }
        }
        Some(below.iter().fold(self.dir.clone(), |dir, name| dir.join(name)))
    }

    /// What our namespace calls the cgroup with that directory, as /proc/PID/cgroup has it.
    fn path(&self, dir: &Path) -> String {
        let below = dir.strip_prefix(&self.dir).unwrap_or(dir);
        let path = match &self.root {
            None => names(below).fold(self.top.clone(), |path, name| path.join(name)),
            Some(root) => {
                let common = names(root).zip(names(below)).take_while(|(a, b)| a == b).count();
                let up = names(root).skip(common).map(|_| Component::ParentDir);
                up.chain(names(below).skip(common)).fold(PathBuf::from("/"), |path, name| path.join(name))
            }
        };
        path.to_string_lossy().into_owned()
    }

    /// How deep the cgroup with that directory is, where what we see begins at the root of all.
    pub(crate) fn level(&self, dir: &Path) -> Option<u32> {
        let below = dir.strip_prefix(&self.dir).ok()?;
        self.shows_all().then(|| names(below).count() as u32)
    }

    fn shows_all(&self) -> bool {
        self.top == Path::new("/") && Kind::Cgroup.is_initial()
    }
}

/// The cgroup v2 mount that shows most, of those in mountinfo that `is_seen`: none is mounted over it.
fn mounted(mounts: &str, is_seen: impl Fn(&Path) -> bool) -> Option<Hierarchy> {
    let all = mounts_of(mounts, "cgroup2").map(|Mount { dir, top, .. }| Hierarchy { dir, top, root: None });
    // In the order of the mounts, of those that are alike.
    all.filter(|mount| is_seen(&mount.dir))
        .min_by_key(|mount| (mount.top != Path::new("/"), !mount.shows_more()))
}

/// A mount of a hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    dir: PathBuf,
    /// The topmost cgroup that it shows.
    top: PathBuf,
    /// In a v1 hierarchy its controllers, among others.
    options: String,
}

/// The mounts of a type of file system in mountinfo.
fn mounts_of(mountinfo: &str, kind: &str) -> impl Iterator<Item = Mount> {
    mountinfo.lines().filter_map(move |line| {
        let (before, after) = line.split_once(" - ")?;
        let mut words = before.split(' ').skip(3);
        let (top, dir) = (PathBuf::from(unescape(words.next()?)), PathBuf::from(unescape(words.next()?)));
        let options = after.strip_prefix(kind)?.strip_prefix(' ')?.split(' ').nth(1).unwrap_or_default();
        Some(Mount { dir, top, options: options.to_owned() })
    })
}

/// Whether a directory is one of the v2 hierarchy.
pub(crate) fn is_cgroup(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

fn names(path: &Path) -> impl Iterator<Item = Component<'_>> {
    path.components().filter(|name| matches!(name, Component::Normal(_) | Component::ParentDir))
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> OsString {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

/// Goes through a directory and those below it, with their inode numbers: cgroups' ids.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path, u64)) {
    let Ok(meta) = fs::metadata(dir) else { return };
    visit(dir, meta.ino());
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), visit);
    }
}

/// Paths of cgroups by id: the id is the inode number of the cgroup's directory.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    known: HashMap<u64, Rc<str>>,
}

/// Paths that are held. Whoever may make cgroups, which any user may be, can make and remove them without end.
const MOST: usize = 64 << 10;

impl Paths {
    /// What our namespace calls a cgroup that this process is in, or was; of one that cannot be found, what there is to
    /// say.
    pub(crate) fn path(&mut self, id: u64, pid: u32) -> Rc<str> {
        if let Some(path) = self.known.get(&id) {
            return Rc::clone(path);
        }
        // Those that are still there are found again.
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let all = Hierarchy::find();
        if let Some(all) = &all {
            walk(&all.dir, &mut |dir, id| {
                self.known.entry(id).or_insert_with(|| all.path(dir).into());
            });
        }
        // Asked once and not there: removed meanwhile, or beyond what we may see.
        Rc::clone(self.known.entry(id).or_insert_with(|| {
            if all.as_ref().is_some_and(Hierarchy::shows_all) {
                return format!("(removed cgroup {id})").into();
            }
            let path = unseen(pid, all.is_some());
            path.unwrap_or_else(|| format!("(cgroup {id}, removed or out of sight)")).into()
        }))
    }
}

/// The path of a process's cgroup, if no mount shows it: where there is one, because it is outside of our namespace.
fn unseen(pid: u32, mounted: bool) -> Option<String> {
    path_of(pid).filter(|path| !mounted || path.starts_with("/.."))
}

/// The path of a process's cgroup in the v2 hierarchy, as our namespace has it.
pub(crate) fn path_of(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    Some(groups.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned())
}

/// The directories of a process's cgroup in the v1 hierarchy of a controller, and of those above it.
pub(crate) fn old_directories(pid: u32, controller: &str) -> Option<Vec<PathBuf>> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (_, path) = lines.find(|(names, _)| names.split(',').any(|name| name == controller))?;
    let is_of = |mount: &Mount| mount.options.split(',').any(|name| name == controller);
    let mount = mounts_of(&mounts, "cgroup").find(is_of)?;
    let below = Path::new(path).strip_prefix(&mount.top).ok()?;
    Some(below.ancestors().map(|of| mount.dir.join(of)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(top: &str, root: Option<&str>) -> Hierarchy {
        Hierarchy { dir: "/sys/fs/cgroup".into(), top: top.into(), root: root.map(PathBuf::from) }
    }

    #[test]
    fn paths_of_cgroups_without_end_are_not_all_held() {
        let mut paths = Paths::default();
        paths.known.extend((1 << 40..).take(MOST).map(|id| (id, "/x".into())));
        assert_eq!(&*paths.path(1 << 40, 1), "/x");
        paths.path(u64::MAX, std::process::id());
        assert!(paths.known.len() < MOST && !paths.known.contains_key(&(1 << 40)), "{}", paths.known.len());
    }

    #[test]
    fn the_mount_that_shows_most() {
        let own = "31 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw";
        let more = "40 23 0:26 /../.. /mnt/a\\040b rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        let less = "41 23 0:26 /some /mnt/less rw - cgroup2 cgroup2 rw";
        let other = "24 23 0:5 / /dev rw,nosuid - devtmpfs dev rw";
        let found = |lines: &[&str]| mounted(&lines.join("\n"), |dir| dir != Path::new("/hidden"));
        let hidden = "30 23 0:26 / /hidden rw,nosuid - cgroup2 cgroup2 rw";
        assert_eq!(found(&[other, hidden, less, more, own]), Some(seen("/", None)));
        let all = found(&[other, less, more]).unwrap();
        assert!(all.shows_more() && all.dir == Path::new("/mnt/a b"));
        assert!(!found(&[less]).unwrap().shows_more());
        assert_eq!(found(&[other]), None);
    }

    #[test]
    fn cgroups_are_called_as_in_proc() {
        let named = |seen: Hierarchy, dir: &str, path: &str| {
            let dir = seen.dir.join(dir);
            assert_eq!(seen.path(&dir), path);
            assert_eq!(seen.directory(Path::new(path)), Some(dir), "{seen:?}");
        };
        named(seen("/", None), "", "/");
        named(seen("/", None), "a/b", "/a/b");
        named(seen("/a", None), "", "/a");
        named(seen("/a", None), "b", "/a/b");
        named(seen("/../other", None), "b", "/../other/b");
        let more = || seen("/../..", Some("a/b"));
        named(more(), "", "/../..");
        named(more(), "a", "/..");
        named(more(), "a/b", "/");
        named(more(), "a/b/c", "/c");
        named(more(), "a/d", "/../d");
        named(more(), "e/f", "/../../e/f");
        assert_eq!(more().directory(Path::new("c")), Some("/sys/fs/cgroup/a/b/c".into()));
        assert_eq!(more().directory(Path::new("/../../../c")), None);
        assert_eq!(seen("/a", None).directory(Path::new("/b")), None, "the mount does not show it");
    }
}
