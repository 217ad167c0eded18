//! The names of programs that a running `access` follows: a pinned map, so that it can be changed meanwhile.
//!
//! In a bpf file system that everybody can write to, another user may be the first to make its directory: nothing in a
//! directory or map is used before its owner, its permissions and its type are checked.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::{geteuid, mkdir};

use crate::abi::{self, COMM_LEN};
use crate::system;
use crate::variant::OpenError;

const BPF_FS: &str = "/sys/fs/bpf";
const MOUNTED: &str = "mounted bpffs at /sys/fs/bpf for the list of targets";
const DIR: &str = "/sys/fs/bpf/trapline";
const PIN: &str = "/sys/fs/bpf/trapline/targets";
/// The names that a running tracer has added, one a line.
const ADDED: &str = "/run/trapline/access.targets";
/// ACCESS_MAX_NAMES in `bpf/access.h`.
const MAX_NAMES: u32 = 256;
/// What the kernel calls the map.
const NAME: &str = "targets";
/// BPF_FS_MAGIC
const BPF_FS_TYPE: FsType = FsType(0xcafe_4a11);

/// The directory of the pinned map, checked: ours or root's, and no other user can write to it.
#[derive(Debug)]
struct Dir(File);

impl Dir {
    /// Opens it; nothing if there is none.
    fn open() -> Result<Option<Self>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = match open(DIR, flags, Mode::empty()) {
            Ok(dir) => File::from(dir),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => bail!("{DIR} is not a directory: remove it"),
            Err(errno) => return Err(errno).with_context(|| format!("cannot open {DIR}")),
        };
        let metadata = dir.metadata().with_context(|| format!("cannot examine {DIR}"))?;
        ensure!(
            is_trusted(metadata.uid()),
            "{DIR} belongs to user {}, not to root: remove it (rm -r {DIR})",
            metadata.uid()
        );
        ensure!(
            metadata.mode() & 0o022 == 0,
            "other users can write to {DIR}: check what is in it, and remove it (rm -r {DIR})"
        );
        Ok(Some(Self(dir)))
    }

    /// Opens it, and makes it first if there is none.
    fn make() -> Result<Self> {
        match mkdir(DIR, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("cannot create {DIR}")),
        }
        Self::open()?.with_context(|| format!("{DIR} was removed meanwhile: start again"))
    }

    /// The way to the pinned map that does not depend on what is at its path by now.
    fn pin(&self) -> PathBuf {
        let file = Path::new(PIN).file_name().unwrap_or(OsStr::new("targets"));
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(file)
    }

    /// The pinned map; nothing if there is none.
    fn map(&self) -> Result<Option<MapHandle>> {
        let pin = self.pin();
        let Ok(metadata) = pin.symlink_metadata() else { return Ok(None) };
        let kind = metadata.file_type();
        // The kernel calls what is pinned a regular file.
        ensure!(
            kind.is_file() && !kind.is_fifo() && is_trusted(metadata.uid()),
            "{PIN} is a link, or belongs to user {}: remove it",
            metadata.uid()
        );
        let map = MapHandle::from_pinned_path(&pin).with_context(|| format!("cannot open {PIN}"))?;
        let shape = (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
        ensure!(
            shape == (MapType::Hash, COMM_LEN as u32, 1, MAX_NAMES) && map.name() == NAME,
            "{PIN} is not a list of targets: remove it"
        );
        Ok(Some(map))
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// The list, made if there is none yet.
#[derive(Debug)]
pub struct Targets {
    map: MapHandle,
    dir: Dir,
    /// Said to the user: what had to be changed for it.
    mounted: bool,
}

impl Targets {
    /// Opens the list.
    ///
    /// # Errors
    /// [`OpenError::Unavailable`] without the privilege; when there is no bpf file system and none can be mounted, or
    /// what is at its place is not a list of ours.
    pub fn open() -> Result<Self, OpenError> {
        Self::open_or_make().map_err(|error| {
            if system::has_bpf_privilege() { OpenError::Other(error) } else { OpenError::Unavailable(error) }
        })
    }

    fn open_or_make() -> Result<Self> {
        let mounted = mounted_now()?;
        if let Some(dir) = Dir::open()?
            && let Some(map) = dir.map()?
        {
            return Ok(Self { map, dir, mounted });
        }
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let mut map = MapHandle::create(MapType::Hash, Some(NAME), COMM_LEN as u32, 1, MAX_NAMES, &options)
            .context("cannot create the list of targets, which needs root")?;
        let dir = Dir::make()?;
        map.pin(dir.pin()).with_context(|| format!("cannot pin the list of targets at {PIN}"))?;
        Ok(Self { map, dir, mounted })
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
            "`{name}` is not the name of an executable: leave out its path"
        );
        self.map.update(&key(name), &[1], MapFlags::ANY).context("the list of targets is full")?;
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
            let _ = fs::remove_file(self.dir.pin());
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
    let list = Dir::open().and_then(|dir| match dir {
        Some(dir) => Ok(dir.map()?.map(|map| Targets { map, dir, mounted: false })),
        None => Ok(None),
    });
    match list {
        Ok(Some(list)) => {
            // Somebody may have cleared them meanwhile.
            names.retain(|name| list.map.delete(&key(name)).is_ok());
            list.retire();
        }
        // Of a list that is gone, or that is not ours any more, nothing is left to be put back.
        Ok(None) | Err(_) => names.clear(),
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
        .with_context(|| format!("cannot mount bpffs at {BPF_FS}, which needs root"))?;
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
