//! Which tasks are meant: turned into what the kernel half compares.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::anyhow;
use bytemuck::Zeroable;
use nix::unistd::User;
use thiserror::Error;
use trapline_symbols::task;

use crate::abi::maps::shared;
use crate::abi::{
    BY_CGROUP, BY_COMM, BY_PID, BY_TID, BY_TREE, BY_USER, COMM_LEN, MAX_NAMES, MAX_PIDS, MAX_USERS,
    TrapFilter,
};
use crate::cgroup::chosen;
use crate::launch::Launch;
use crate::namespaces::{self, Kind};
use crate::system;
use crate::variant::{Attached, OpenError};

/// A user, by their real user ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    name: String,
    uid: u32,
}

impl FromStr for Person {
    type Err = String;

    /// By name, or by number: a number needs no account.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = User::from_name(text).map_err(|errno| format!("cannot look the user up: {errno}"))?;
        let uid = found.map(|user| user.uid.as_raw()).or_else(|| text.parse().ok());
        Ok(Self { name: text.to_owned(), uid: uid.ok_or("there is no such user: give a name or a number")? })
    }
}

/// Conditions that must all hold; none means every task.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The task belongs to one of these processes.
    pub pids: Vec<u32>,
    /// The task is this thread.
    pub tid: Option<u32>,
    /// The task has one of these names.
    pub comms: Vec<OsString>,
    /// The task is one of these users'.
    pub users: Vec<Person>,
    /// The task is in this cgroup or below it.
    pub cgroup: Option<PathBuf>,
    /// Descendants of the processes, or of the started command, are meant too, from their birth during the trace on.
    pub descendants: bool,
}

impl Filter {
    /// The conditions in words; nothing if there are none.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let list = |what: &str, all: Vec<String>| {
            Some(format!("{what} {}", all.join(","))).filter(|_| !all.is_empty())
        };
        let mut words = Vec::new();
        words.extend(list("pid", self.pids.iter().map(u32::to_string).collect()));
        words.extend(self.tid.map(|tid| format!("tid {tid}")));
        words.extend(list("comm", self.comms.iter().map(|n| n.to_string_lossy().into_owned()).collect()));
        words.extend(list("user", self.users.iter().map(|user| user.name.clone()).collect()));
        words.extend(self.cgroup.as_ref().map(|path| format!("cgroup {}", path.display())));
        if self.descendants {
            words.push(if self.pids.is_empty() {
                "the command and its descendants".into()
            } else {
                "and descendants born since the start".into()
            });
        }
        Some(words.join("; ")).filter(|words| !words.is_empty())
    }

    /// Whether processes are all that it names.
    pub(crate) fn is_of_processes(&self) -> bool {
        self.tid.is_none() && self.comms.is_empty() && self.users.is_empty() && self.cgroup.is_none()
    }

    /// Gives an object the processes, names and users, and the launched command.
    pub(crate) fn fill(&self, attached: &Attached, launch: Option<&Launch>) -> anyhow::Result<()> {
        attached.put(shared::PIDS, self.pids.iter().copied().chain(launch.map(Launch::pid)))?;
        attached.put(shared::WANTED_NAMES, self.comms.iter().map(|name| key(name)))?;
        attached.put(shared::WANTED_USERS, self.users.iter().map(|user| user.uid))
    }
}

/// A name as the kernel keeps it, which is not longer than that.
fn key(name: &OsStr) -> [u8; COMM_LEN] {
    let mut key = [0; COMM_LEN];
    key.iter_mut().zip(name.as_bytes()).for_each(|(to, from)| *to = *from);
    key
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
    #[error("process {0} is a zombie: it has ended, and nothing runs in it")]
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
    #[error("{0} processes are too many: name at most {MAX_PIDS}, or use --cgroup")]
    TooMany(usize),
    /// Too many names.
    #[error("{0} names are too many for --comm: give at most {MAX_NAMES}")]
    TooManyNames(usize),
    /// Too many users.
    #[error("{0} users are too many for --user: give at most {MAX_USERS}")]
    TooManyUsers(usize),
    /// A name the kernel would never give.
    #[error("no task can have the name `{0}`: the kernel keeps at most 15 bytes of a name; try `{1}`")]
    LongName(String, String),
    /// Not a cgroup.
    #[error("{path} is not a cgroup: {why}; give a directory of a mounted hierarchy", path = .0.display(), why = .1)]
    NoCgroup(PathBuf, String),
}

impl From<FilterError> for OpenError {
    fn from(error: FilterError) -> Self {
        match error {
            // No machine has what was asked for, whatever runs on it.
            FilterError::TooMany(_)
            | FilterError::TooManyNames(_)
            | FilterError::TooManyUsers(_)
            | FilterError::LongName(..) => Self::Usage(error.to_string()),
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
        if let Some(name) = self.comms.iter().find(|name| name.len() >= COMM_LEN) {
            let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let kept = words(&name.as_bytes()[..COMM_LEN - 1]);
            // A character that is cut in two is left out.
            let kept = kept.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
            return Err(FilterError::LongName(words(name.as_bytes()), kept));
        }
        for (many, most, by, error) in [
            (self.comms.len(), MAX_NAMES, BY_COMM, FilterError::TooManyNames as fn(usize) -> FilterError),
            (self.users.len(), MAX_USERS, BY_USER, FilterError::TooManyUsers),
        ] {
            if many > most {
                return Err(error(many));
            }
            abi.by |= if many > 0 { by } else { 0 };
        }
        if let Some(path) = &self.cgroup {
            let cgroup = chosen::cgroup(path).map_err(|why| FilterError::NoCgroup(path.clone(), why))?;
            abi.by |= BY_CGROUP;
            (abi.cgroup, abi.cgroup_level, abi.cgroup_subsys) = (cgroup.id, cgroup.level, cgroup.subsys);
        }
        if self.descendants {
            // The process that they descend from is in `pids`; they are known by their descent.
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
        "{error}; trapline runs in a PID namespace and sees only its processes: for others run it outside, in a container with --pid=host"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_does_not_exist_is_named() {
        let gone = Filter { pids: vec![u32::MAX >> 2], ..Filter::default() };
        assert!(gone.resolve().unwrap_err().to_string().starts_with("there is no process 1073741823"));
        let long = Filter { comms: vec!["a-name-of-twenty-bytes".into()], ..Filter::default() };
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
            users: ["root", "4000000000"].map(|user| user.parse().unwrap()).into(),
            comms: vec!["x".into(), OsStr::from_bytes(b"\xff").to_owned()],
            ..Filter::default()
        };
        let abi = filter.resolve().unwrap();
        assert_eq!(abi.by, BY_PID | BY_TID | BY_COMM | BY_USER);
        assert_eq!(abi.tid, std::process::id());
        let words = format!("pid {0}; tid {0}; comm x,\u{fffd}; user root,4000000000", std::process::id());
        assert_eq!(filter.words(), Some(words));
        assert_eq!(Filter::default().resolve().unwrap().by, 0);
    }
}
