//! Which tasks are meant: turned into what the kernel half compares.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use thiserror::Error;

use crate::abi::{BY_CGROUP, BY_COMM, BY_PID, BY_TID, BY_TREE, COMM_LEN, TrapFilter};
use crate::cgroup::hierarchy;

/// How many processes can be named, TRAP_MAX_PIDS in `bpf/trap.h`.
const MAX_PIDS: usize = 4096;

/// Conditions that must all hold; none means every task.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The task belongs to one of these processes.
    pub pids: Vec<u32>,
    /// The task is this thread.
    pub tid: Option<u32>,
    /// The task has this name.
    pub comm: Option<String>,
    /// The task is in this cgroup (v2) or below it.
    pub cgroup: Option<PathBuf>,
    /// The task is the started command or descends from it.
    pub tree: bool,
}

/// Why a filter cannot be used.
#[derive(Debug, Error)]
pub enum FilterError {
    /// No such process.
    #[error("there is no process {0}: it has ended, or the number is wrong")]
    NoProcess(u32),
    /// No such thread.
    #[error("there is no thread {0}: it has ended, or the number is wrong")]
    NoThread(u32),
    /// Too many processes.
    #[error("{0} processes are too many: name at most {MAX_PIDS}, or filter by --cgroup")]
    TooMany(usize),
    /// A name the kernel would never give.
    #[error("no task can be called `{0}`: the kernel keeps at most 15 bytes of a name; try `{1}`")]
    LongName(String, String),
    /// Not a cgroup of the v2 hierarchy.
    #[error("{path} is not a cgroup (v2): {why}; give a directory below the mounted hierarchy", path = .0.display(), why = .1)]
    NoCgroup(PathBuf, String),
}

impl FilterError {
    /// Whether no machine has what was asked for, whatever runs on it.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::TooMany(_) | Self::LongName(..))
    }
}

impl Filter {
    /// Checks that what is named exists, and turns it into what the kernel half reads.
    pub(crate) fn resolve(&self) -> Result<TrapFilter, FilterError> {
        let mut abi = TrapFilter { cgroup: 0, cgroup_level: 0, tid: 0, by: 0, pad: 0, comm: [0; COMM_LEN] };
        if self.pids.len() > MAX_PIDS {
            return Err(FilterError::TooMany(self.pids.len()));
        }
        for &pid in &self.pids {
            // A thread's id has a directory too, but not in the list of processes.
            let leads = fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.lines().any(|line| line == format!("Tgid:\t{pid}")));
            if !leads {
                return Err(FilterError::NoProcess(pid));
            }
        }
        if !self.pids.is_empty() {
            abi.by |= BY_PID;
        }
        if let Some(tid) = self.tid {
            if !Path::new(&format!("/proc/{tid}/status")).exists() {
                return Err(FilterError::NoThread(tid));
            }
            abi.by |= BY_TID;
            abi.tid = tid;
        }
        if let Some(comm) = &self.comm {
            if comm.len() >= COMM_LEN {
                let mut end = COMM_LEN - 1;
                while !comm.is_char_boundary(end) {
                    end -= 1;
                }
                return Err(FilterError::LongName(comm.clone(), comm[..end].to_owned()));
            }
            abi.by |= BY_COMM;
            abi.comm[..comm.len()].copy_from_slice(comm.as_bytes());
        }
        if let Some(path) = &self.cgroup {
            let (id, level) = id_and_level(path)?;
            abi.by |= BY_CGROUP;
            abi.cgroup = id;
            abi.cgroup_level = level;
        }
        if self.tree {
            // The command's process is in `pids` too; its descendants are known by their descent.
            abi.by |= BY_TREE | BY_PID;
        }
        Ok(abi)
    }
}

/// The id and the depth of a cgroup of the v2 hierarchy: its directory's inode number, and how far below the root.
fn id_and_level(path: &Path) -> Result<(u64, u32), FilterError> {
    let no = |why: String| FilterError::NoCgroup(path.to_owned(), why);
    let root =
        hierarchy().ok_or_else(|| no("no v2 hierarchy is mounted (mount -t cgroup2 none DIR)".into()))?;
    let dir = [path.to_owned(), root.join(path.strip_prefix("/").unwrap_or(path))]
        .into_iter()
        .find(|dir| statfs(dir).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC))
        .ok_or_else(|| match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => no("it does not exist".into()),
            _ => no("it is on another file system".into()),
        })?;
    let dir = dir.canonicalize().map_err(|e| no(e.to_string()))?;
    let id = fs::metadata(&dir).map_err(|e| no(e.to_string()))?.ino();
    let below = dir.strip_prefix(&root).map_err(|_| no(format!("it is not below {}", root.display())))?;
    Ok((id, below.components().filter(|c| matches!(c, Component::Normal(_))).count() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_named() {
        let gone = Filter { pids: vec![u32::MAX >> 2], ..Filter::default() };
        assert!(gone.resolve().unwrap_err().to_string().starts_with("there is no process 1073741823"));
        let long = Filter { comm: Some("a-name-of-twenty-bytes".into()), ..Filter::default() };
        assert!(long.resolve().unwrap_err().to_string().ends_with("try `a-name-of-twent`"));
        let outside = Filter { cgroup: Some("/etc/passwd".into()), ..Filter::default() };
        assert!(outside.resolve().is_err());
    }

    #[test]
    fn conditions_add_up() {
        let filter = Filter {
            pids: vec![std::process::id()],
            tid: Some(std::process::id()),
            comm: Some("x".into()),
            ..Filter::default()
        };
        let abi = filter.resolve().unwrap();
        assert_eq!(abi.by, BY_PID | BY_TID | BY_COMM);
        assert_eq!((abi.tid, abi.comm[0], abi.comm[1]), (std::process::id(), b'x', 0));
        assert_eq!(Filter::default().resolve().unwrap().by, 0);
    }
}
