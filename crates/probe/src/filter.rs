//! Which tasks are meant: turned into what the kernel half compares.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use bytemuck::Zeroable;
use thiserror::Error;
use trapline_symbols::task;

use crate::abi::{BY_CGROUP, BY_COMM, BY_PID, BY_TID, BY_TREE, COMM_LEN, MAX_PIDS, TrapFilter};
use crate::cgroup::{Hierarchy, is_cgroup};
use crate::namespaces::{self, Kind};
use crate::system;
use crate::variant::OpenError;

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

impl Filter {
    /// The conditions in words; nothing if there are none.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let mut words = Vec::new();
        if !self.pids.is_empty() {
            let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
            words.push(format!("pid {}", pids.join(",")));
        }
        words.extend(self.tid.map(|tid| format!("tid {tid}")));
        words.extend(self.comm.as_ref().map(|comm| format!("comm {comm}")));
        words.extend(self.cgroup.as_ref().map(|path| format!("cgroup {}", path.display())));
        if self.tree {
            words.push("the command and its descendants".into());
        }
        Some(words.join("; ")).filter(|words| !words.is_empty())
    }
}

/// Why a filter cannot be used.
#[derive(Debug, Error)]
pub enum FilterError {
    /// No such process.
    #[error("there is no process {0}: it has ended, or the number is wrong")]
    NoProcess(u32),
    /// A thread's number where a process's belongs.
    #[error(
        "{tid} is a thread of process {pid}: use -t {tid} for the thread (`access` has no -t), or -p {pid} for the process"
    )]
    OnlyThread {
        /// The number.
        tid: u32,
        /// Whose thread it is.
        pid: u32,
    },
    /// It has ended.
    #[error(
        "process {0} has ended, and only its parent's wait for it is missing (a zombie): nothing runs in it"
    )]
    Zombie(u32),
    /// No process has both.
    #[error("thread {tid} belongs to process {pid}, which is not among those of -p: leave out -p")]
    Elsewhere {
        /// The thread.
        tid: u32,
        /// Whose it is.
        pid: u32,
    },
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

impl From<FilterError> for OpenError {
    fn from(error: FilterError) -> Self {
        match error {
            // No machine has what was asked for, whatever runs on it.
            FilterError::TooMany(_) | FilterError::LongName(..) => Self::Usage(error.to_string()),
            _ => Self::Other(error.into()),
        }
    }
}

impl Filter {
    /// Checks that what is named exists, and that numbers mean here what they seem to.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        namespaces::check()?;
        self.conditions().map(|_| ()).map_err(refusal)
    }

    /// The same, turned into what the kernel half reads.
    pub(crate) fn resolve(&self) -> Result<TrapFilter, OpenError> {
        namespaces::check()?;
        let conditions = self.conditions().map_err(refusal)?;
        let TrapFilter { pid_level, pid_inum, numbers, .. } = namespaces::ids()?;
        Ok(TrapFilter { pid_level, pid_inum, numbers, ..conditions })
    }

    fn conditions(&self) -> Result<TrapFilter, FilterError> {
        let mut abi = TrapFilter::zeroed();
        if self.pids.len() > MAX_PIDS {
            return Err(FilterError::TooMany(self.pids.len()));
        }
        for &pid in &self.pids {
            match system::process_of(pid) {
                None => return Err(FilterError::NoProcess(pid)),
                // A thread's id has a directory too, but not in the list of processes.
                Some(process) if process != pid => {
                    return Err(FilterError::OnlyThread { tid: pid, pid: process });
                }
                Some(_) if task::is_zombie(pid) => return Err(FilterError::Zombie(pid)),
                Some(_) => {}
            }
        }
        if !self.pids.is_empty() {
            abi.by |= BY_PID;
        }
        if let Some(tid) = self.tid {
            let pid = system::process_of(tid).ok_or(FilterError::NoThread(tid))?;
            if task::has_ended(tid) {
                return Err(FilterError::NoThread(tid));
            }
            if !self.pids.is_empty() && !self.pids.contains(&pid) {
                return Err(FilterError::Elsewhere { tid, pid });
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

/// A process that is not there may be outside of our PID namespace.
fn refusal(error: FilterError) -> OpenError {
    let missing = matches!(error, FilterError::NoProcess(_) | FilterError::NoThread(_));
    if !missing || Kind::Pid.is_initial() {
        return error.into();
    }
    OpenError::Unavailable(anyhow!(
        "{error}; trapline runs in a PID namespace, where only its own processes and their numbers count: \
         run it outside for others (a container: --pid=host)"
    ))
}

/// The id and the depth of a cgroup of the v2 hierarchy: its directory's inode number, and how far it is below the root
/// of all, whatever of the hierarchy we see.
fn id_and_level(path: &Path) -> Result<(u64, u32), FilterError> {
    let no = |why: String| FilterError::NoCgroup(path.to_owned(), why);
    let all = Hierarchy::find()
        .ok_or_else(|| no("no v2 hierarchy is mounted (mount -t cgroup2 none DIR)".into()))?;
    let dir = [Some(path.to_owned()), all.directory(path)]
        .into_iter()
        .flatten()
        .find(|dir| is_cgroup(dir))
        .ok_or_else(|| match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => no("it does not exist".into()),
        _ => no("it is on another file system".into()),
    })?;
    let dir = dir.canonicalize().map_err(|e| no(e.to_string()))?;
    let file = fs::File::open(&dir).map_err(|e| no(e.to_string()))?;
    let id = file.metadata().map_err(|e| no(e.to_string()))?.ino();
    if let Some(level) = all.level(&dir) {
        return Ok((id, level));
    }
    let own =
        namespaces::read(Some(file.as_fd())).map_err(|e| no(format!("the kernel hides its depth: {e:#}")))?;
    if own.cgroup != id {
        return Err(no("the kernel does not say how deep it is in the hierarchy".into()));
    }
    Ok((id, own.cgroup_level))
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
    fn a_thread_is_not_a_process() {
        let pid = std::process::id();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw() as u32).unwrap();
            let _ = ended.recv();
        });
        let tid = told.recv().unwrap();
        let error = |filter: Filter| filter.resolve().unwrap_err().to_string();
        let thread_as_process = error(Filter { pids: vec![tid], ..Filter::default() });
        assert!(thread_as_process.starts_with(&format!("{tid} is a thread of process {pid}: use -t {tid}")));
        let elsewhere = error(Filter { pids: vec![1], tid: Some(tid), ..Filter::default() });
        assert!(elsewhere.contains(&format!("belongs to process {pid}")), "{elsewhere}");
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn what_has_ended_is_no_process_to_watch() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let ended = system::pidfd(pid).unwrap();
        let mut polled = [nix::poll::PollFd::new(ended.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut polled, nix::poll::PollTimeout::NONE).unwrap();
        let error = Filter { pids: vec![pid], ..Filter::default() }.resolve().unwrap_err().to_string();
        assert!(error.contains("a zombie"), "{error}");
        child.wait().unwrap();
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
