//! The cgroup that a filter names: by its directory, in the v2 hierarchy or in that of a v1 controller, or by a unit of
//! systemd, whose cgroup has its name.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, statfs};

use super::{Hierarchy, Mount, is_cgroup, mounts_of, names};
use crate::btf::Btf;
use crate::namespaces::{self, Kind};
use crate::variant::OpenError;

/// A cgroup, as the kernel half compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The inode number of its directory.
    pub(crate) id: u64,
    /// How far it is below the root of all, whatever of the hierarchy we see.
    pub(crate) level: u32,
    /// 0 in the v2 hierarchy; else 1 + the number of a controller of its hierarchy.
    pub(crate) subsys: u32,
}

/// The cgroup with this directory.
///
/// # Errors
/// Why it is none, in words.
pub(crate) fn cgroup(path: &Path) -> Result<Chosen, String> {
    if statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP_SUPER_MAGIC) {
        return of_controller(path);
    }
    let all = Hierarchy::find().ok_or("no v2 hierarchy is mounted, as `mount -t cgroup2 none DIR` does")?;
    let dirs = [Some(path.to_owned()), all.directory(path)];
    let dir =
        dirs.into_iter().flatten().find(|dir| is_cgroup(dir)).ok_or_else(|| match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it does not exist",
            _ => "it is on another file system",
        })?;
    let dir = dir.canonicalize().map_err(|error| error.to_string())?;
    let file = File::open(&dir).map_err(|error| error.to_string())?;
    let id = file.metadata().map_err(|error| error.to_string())?.ino();
    if let Some(level) = all.level(&dir) {
        return Ok(Chosen { id, level, subsys: 0 });
    }
    let own =
        namespaces::read(Some(file.as_fd())).map_err(|e| format!("the kernel hides its depth: {e:#}"))?;
    if own.cgroup != id {
        return Err("the kernel does not show its depth in the hierarchy".into());
    }
    Ok(Chosen { id, level: own.cgroup_level, subsys: 0 })
}

/// The cgroup with this directory in a v1 hierarchy.
fn of_controller(path: &Path) -> Result<Chosen, String> {
    let dir = path.canonicalize().map_err(|error| error.to_string())?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let mounted = old_hierarchies(&mounts).filter(|mount| dir.starts_with(&mount.dir));
    let mount =
        mounted.max_by_key(|mount| names(&mount.dir).count()).ok_or("its mount is not visible here")?;
    if !Kind::Cgroup.is_initial() {
        return Err(
            "trapline runs in a cgroup namespace, where the depth of a v1 cgroup is not visible".into()
        );
    }
    let types = Btf::of(None).map_err(|error| format!("{error:#}"))?;
    let number = |name: &&str| types.value("cgroup_subsys_id", &format!("{}_cgrp_id", controller(name)));
    let subsys = mount.options.split(',').find_map(|name| number(&name)).ok_or_else(|| {
        format!("its hierarchy has no controller ({}), as /sys/fs/cgroup/pids and memory have", mount.options)
    })?;
    let id = fs::metadata(&dir).map_err(|error| error.to_string())?.ino();
    let below = dir.strip_prefix(&mount.dir).unwrap_or(&dir);
    let level = (names(&mount.top).count() + names(below).count()) as u32;
    Ok(Chosen { id, level, subsys: subsys + 1 })
}

/// The mounts of v1 hierarchies.
fn old_hierarchies(mountinfo: &str) -> impl Iterator<Item = Mount> {
    mounts_of(mountinfo, "cgroup")
}

/// What the kernel's types call a controller: since 4.3 (c165b3e3c7bb), what is mounted as `blkio` is `io`.
fn controller(name: &str) -> &str {
    if name == "blkio" { "io" } else { name }
}

/// The directory of a unit's cgroup, of the system's manager or of a user's: that with the unit's name, in the v2 hierarchy
/// or in one of v1; of several, the one nearest to the root.
///
/// # Errors
/// [`OpenError`] when there is no systemd, the unit has no cgroup, or several have equal claim.
pub fn cgroup_of_unit(unit: &str) -> Result<PathBuf, OpenError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let old =
        old_hierarchies(&mounts).filter(|mount| !mount.options.contains("name=")).map(|mount| mount.dir);
    let mut alike = Vec::new();
    for root in Hierarchy::find().map(|all| all.dir).into_iter().chain(old) {
        let mut found = Vec::new();
        super::walk(&root, &mut |dir, _| match claim(dir, unit) {
            Claim::Is => found.push(dir.to_owned()),
            Claim::IsLike(name) if !alike.contains(&name) => alike.push(name),
            Claim::IsLike(_) | Claim::None => {}
        });
        found.sort_by_key(|dir| names(dir).count());
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one.clone()),
            [one, next, ..] if names(one).count() < names(next).count() => return Ok(one.clone()),
            several => {
                let several: Vec<_> = several.iter().map(|dir| dir.display().to_string()).collect();
                let text = format!(
                    "several units are called {unit}: give --cgroup with one of {}",
                    several.join(", ")
                );
                return Err(OpenError::Usage(text));
            }
        }
    }
    // sd_booted(3)
    if !Path::new("/run/systemd/system").exists() {
        return Err(OpenError::Unavailable(anyhow!(
            "cannot find the unit {unit}: systemd does not run here (there is no /run/systemd/system); give --cgroup PATH"
        )));
    }
    let also = if alike.is_empty() { String::new() } else { format!("; there is {}", alike.join(", ")) };
    Err(OpenError::Other(anyhow!(
        "the unit {unit} has no cgroup: it does not run, or has no processes{also}"
    )))
}

/// What a directory has to do with a unit.
enum Claim {
    Is,
    /// An instance of it, or another that begins so: `postgresql@16-main.service` where `postgresql.service` is meant.
    IsLike(String),
    None,
}

fn claim(dir: &Path, unit: &str) -> Claim {
    let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { return Claim::None };
    // systemd puts a `_` before names that the kernel could mean otherwise (cg_escape()).
    if name == unit || name.strip_prefix('_') == Some(unit) {
        return Claim::Is;
    }
    let (stem, suffix) = unit.rsplit_once('.').unwrap_or((unit, ""));
    let instance = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(suffix)?.strip_suffix('.'));
    if instance.is_some_and(|rest| rest.starts_with(['@', '-'])) {
        Claim::IsLike(name.to_owned())
    } else {
        Claim::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_controllers_are_found_among_the_mounts() {
        let mounts = "33 32 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      34 32 0:28 /docker/a\\040b /mnt rw shared:1 - cgroup none rw,cpu,cpuacct\n\
                      31 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let mount = |dir: &str, top: &str, options: &str| Mount {
            dir: dir.into(),
            top: top.into(),
            options: options.into(),
        };
        assert_eq!(
            old_hierarchies(mounts).collect::<Vec<_>>(),
            [
                mount("/sys/fs/cgroup/memory", "/", "rw,memory"),
                mount("/mnt", "/docker/a b", "rw,cpu,cpuacct")
            ]
        );
    }

    #[test]
    fn a_unit_is_known_by_the_name_of_its_cgroup() {
        let claims = |dir: &str, unit: &str| claim(Path::new(dir), unit);
        assert!(matches!(claims("/x/db.service", "db.service"), Claim::Is));
        assert!(matches!(claims("/x/_cpu.service", "cpu.service"), Claim::Is));
        assert!(
            matches!(claims("/x/db@16-main.service", "db.service"), Claim::IsLike(name) if name == "db@16-main.service")
        );
        for other in ["/x/dbus.service", "/x/db.slice", "/x/db", "/", "/x/my-db.service"] {
            assert!(matches!(claims(other, "db.service"), Claim::None), "{other}");
        }
    }
}
