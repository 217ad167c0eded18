//! The names of programs that a running `access` follows: a pinned map, so that it can be changed meanwhile.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use crate::abi::{self, COMM_LEN};

const BPF_FS: &str = "/sys/fs/bpf";
const MOUNTED: &str = "mounted the bpf file system at /sys/fs/bpf, where the list of targets is kept";
const DIR: &str = "/sys/fs/bpf/trapline";
const PIN: &str = "/sys/fs/bpf/trapline/targets";
/// The names that a running tracer has added, one a line.
const ADDED: &str = "/run/trapline/access.targets";
/// ACCESS_MAX_NAMES in `bpf/access.h`.
const MAX_NAMES: u32 = 256;
/// BPF_FS_MAGIC
const BPF_FS_TYPE: FsType = FsType(0xcafe_4a11);

/// The list, made if there is none yet.
#[derive(Debug)]
pub struct Targets {
    map: MapHandle,
    /// Said to the user: what had to be changed for it.
    mounted: bool,
}

impl Targets {
    /// Opens the list.
    ///
    /// # Errors
    /// When there is no bpf file system and none can be mounted, or we may not use it.
    pub fn open() -> Result<Self> {
        let mounted = mounted_now()?;
        if Path::new(PIN).exists() {
            let map = MapHandle::from_pinned_path(PIN).with_context(|| format!("cannot open {PIN}"))?;
            ensure!(map.key_size() == COMM_LEN as u32, "{PIN} is not a list of trapline's: remove it");
            return Ok(Self { map, mounted });
        }
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let mut map =
            MapHandle::create(MapType::Hash, Some("targets"), COMM_LEN as u32, 1, MAX_NAMES, &options)
                .context("cannot make the list of targets")?;
        fs::create_dir_all(DIR).with_context(|| format!("cannot make {DIR}"))?;
        map.pin(PIN).with_context(|| format!("cannot pin the list of targets at {PIN}"))?;
        Ok(Self { map, mounted })
    }

    /// What had to be changed on the machine for it, in words: the bpf file system was mounted.
    #[must_use]
    pub fn mounted(&self) -> Option<&'static str> {
        self.mounted.then_some(MOUNTED)
    }

    /// Adds a name; one that is there stays. Of a longer one the first 15 bytes count, for the kernel keeps no more.
    ///
    /// # Errors
    /// When the name is empty or a path, or the list is full (256).
    pub fn add(&self, name: &str) -> Result<()> {
        ensure!(
            !name.is_empty() && !name.contains('/'),
            "`{name}` is not the name of a program: give it without a path"
        );
        self.map.update(&key(name), &[1], MapFlags::ANY).context("the list of targets takes no more")?;
        Ok(())
    }

    /// The names, in alphabetical order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.map.keys().filter_map(|key| Some(abi::comm(key.first_chunk()?))).collect();
        names.sort_unstable();
        names
    }

    /// Removes the names given, or all.
    ///
    /// # Errors
    /// When a name is not in the list.
    pub fn clear(&self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            let keys: Vec<_> = self.map.keys().collect();
            // Somebody else may be clearing it too.
            keys.iter().for_each(|key| drop(self.map.delete(key)));
        }
        for name in names {
            self.map.delete(&key(name)).with_context(|| format!("`{name}` is not in the list"))?;
        }
        Ok(())
    }

    /// Opens the list and adds names for the time of a trace; [`restore`] takes them out again.
    pub(crate) fn with(names: &[String]) -> Result<Self> {
        let list = Self::open()?;
        let before = list.names();
        names.iter().try_for_each(|name| list.add(name))?;
        let added: Vec<String> = list.names().into_iter().filter(|name| !before.contains(name)).collect();
        fs::write(ADDED, added.join("\n")).with_context(|| format!("cannot write {ADDED}"))?;
        Ok(list)
    }

    /// Takes the list away if it is empty.
    fn retire(&self) {
        if self.map.keys().next().is_none() {
            let _ = fs::remove_file(PIN);
            let _ = fs::remove_dir(DIR);
        }
    }

    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// Takes the names out that a tracer added, this one or one that was killed; gives them. To be called by the holder of
/// the lock.
pub(crate) fn restore() -> Result<Vec<String>> {
    let Ok(text) = fs::read_to_string(ADDED) else { return Ok(vec![]) };
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    if Path::new(PIN).exists() {
        let list = Targets::open()?;
        // Somebody may have cleared them meanwhile.
        names.retain(|name| list.map.delete(&key(name)).is_ok());
        list.retire();
    }
    fs::remove_file(ADDED).with_context(|| format!("cannot remove {ADDED}"))?;
    Ok(names)
}

/// The name as the kernel keeps it: 15 bytes and a NUL.
fn key(name: &str) -> [u8; COMM_LEN] {
    let mut key = [0; COMM_LEN];
    let len = name.len().min(COMM_LEN - 1);
    key[..len].copy_from_slice(&name.as_bytes()[..len]);
    key
}

/// Makes sure that the bpf file system is where everybody has it. Tells whether it had to be mounted.
fn mounted_now() -> Result<bool> {
    if statfs(BPF_FS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_TYPE) {
        return Ok(false);
    }
    mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("cannot mount the bpf file system at {BPF_FS} (run as root?)"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn names_are_kept_as_the_kernel_keeps_them() {
        assert_eq!(&key("ls"), b"ls\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&key("a-name-of-twenty-bytes"), b"a-name-of-twent\0");
    }
}
