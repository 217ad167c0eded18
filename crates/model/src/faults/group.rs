//! What rows are about, and groups of faults.

use std::rc::Rc;

use super::{Cause, Extremes, Process, Stats, Thread};

/// Which row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// None in particular: the sum, or threads put together.
    #[default]
    None,
    /// A thread's.
    Thread(Thread),
    /// A process's.
    Process(Process),
    /// That of all processes of a name.
    Comm(Rc<str>),
    /// A cgroup's.
    Cgroup(Rc<str>),
    /// A mapped file's.
    File(Rc<File>),
    /// That of a cause.
    Cause(Cause),
    /// A chain of calls'.
    Stack(Rc<Stack>),
    /// Faults whose stack was not asked for.
    Untaken,
    /// Faults that are known to belong to no other row: the variant saw only their number, or there was no room.
    Rest,
    /// That of several of these, in the order of the columns.
    Several(Rc<[Self]>),
}

/// What is mapped where a fault was: a file, or memory that has none and only a name such as `[heap]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    /// As the process that first touched it saw it.
    pub path: Rc<str>,
    /// The device of its file system, MAJOR:MINOR.
    pub device: Option<Rc<str>>,
    /// Its number there.
    pub inode: Option<u64>,
    /// Tells files apart that had the same number one after the other.
    pub generation: u32,
}

/// What the names of the kernel's functions end in.
pub const IN_KERNEL: &str = "_[k]";

/// A chain of calls that ends in a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stack {
    /// The process's name and the functions, outermost first, `;` between them; one of the kernel ends in `_[k]`.
    pub frames: String,
    /// Of each of them the place in source text, or in brackets why it has no name; `;` between them.
    pub lines: String,
    /// Of each without a name the file, `@`, and the file's build id; `;` between them. Nothing if all have names.
    pub binaries: String,
}

impl Stack {
    fn bytes(&self) -> usize {
        self.frames.capacity() + self.lines.capacity() + self.binaries.capacity()
    }

    /// The innermost function in user mode; where there is none, in the kernel.
    pub(super) fn function(&self) -> &str {
        let mut functions = self.frames.rsplit(';');
        // A process's name is no function.
        let innermost = functions.clone().next().unwrap_or_default();
        let outside = self.frames.split(';').count().saturating_sub(1);
        functions.by_ref().take(outside).find(|name| !name.ends_with(IN_KERNEL)).unwrap_or(innermost)
    }

    /// Adds a frame within those that there are.
    pub fn push(&mut self, name: &str, line: &str) {
        self.push_in(name, line, "");
    }

    /// Adds one without a name, with the file that it is in.
    pub fn push_in(&mut self, name: &str, line: &str, binary: &str) {
        let is_first = self.frames.is_empty();
        // What is between frames cannot be in one: not in a name that a process chose, nor in `[u8; 4]`.
        let add = |to: &mut String, text: &str| {
            to.extend(
                (!is_first)
                    .then_some(';')
                    .into_iter()
                    .chain(text.chars().map(|c| if c == ';' { ':' } else { c })),
            );
        };
        add(&mut self.frames, name);
        add(&mut self.lines, line);
        if !binary.is_empty() && self.binaries.is_empty() {
            self.binaries = ";".repeat(self.frames.matches(';').count());
            self.binaries.extend(binary.chars().map(|c| if c == ';' { ':' } else { c }));
        } else if !self.binaries.is_empty() {
            add(&mut self.binaries, binary);
        }
    }
}

/// The faults of one group, as the kernel half reports them: since the trace began.
#[derive(Debug, Clone)]
pub struct Group {
    /// Which row.
    pub key: Key,
    /// Since the trace began.
    pub stats: Stats,
    /// Over the same time.
    pub extremes: Extremes,
    /// Over the interval that is about to be shown.
    pub recent: Extremes,
    /// Where in the group they were: the least and the greatest offset, bytes.
    pub range: Option<(u64, u64)>,
    /// The process that was the first in it, if that is known.
    pub owner: Option<Process>,
    /// The name of the thread or process whose faults they are, if they are one's.
    pub name: Rc<str>,
}

impl Key {
    /// How much memory it takes beside its own structure.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Comm(name) | Self::Cgroup(name) => name.len(),
            Self::File(file) => size_of::<File>() + file.path.len(),
            Self::Stack(stack) => size_of::<Stack>() + stack.bytes(),
            Self::Several(keys) => keys.iter().map(|key| size_of::<Self>() + key.bytes()).sum(),
            Self::None | Self::Thread(_) | Self::Process(_) | Self::Cause(_) | Self::Untaken | Self::Rest => {
                0
            }
        }
    }
}

/// The container id in a cgroup's path: the 64 hexadecimal digits that Docker, containerd, CRI-O and Podman put into
/// the name of a container's cgroup, with or without their own prefix and `.scope`.
pub(super) fn container(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    })
}

/// The Kubernetes pod's id: `pod` and a UUID, whose dashes systemd's names turn into underscores.
pub(super) fn pod(path: &str) -> Option<String> {
    path.split('/').find_map(|name| {
        let name = name.strip_suffix(".slice").unwrap_or(name);
        let id = name.rsplit_once("pod").filter(|(before, _)| before.is_empty() || before.ends_with('-'))?.1;
        let id = id.replace('_', "-");
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        let is_uuid = parts == [8, 4, 4, 4, 12] && id.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
        is_uuid.then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{By, Ledger, Timing};
    use super::*;
    use crate::Value;

    /// Several sorts of facts may be one cause; one that the kernel does not count has a row all the same.
    #[test]
    fn files_stand_beside_frames_without_a_name() {
        let mut stack = Stack::default();
        stack.push("sh", "");
        assert_eq!(stack.binaries, "");
        stack.push_in("a;b.so+0x1", "[no symbols]", "/lib/a;b.so@0f");
        stack.push("read_[k]", "");
        assert_eq!(stack.frames, "sh;a:b.so+0x1;read_[k]");
        assert_eq!((stack.lines.as_str(), stack.binaries.as_str()), (";[no symbols];", ";/lib/a:b.so@0f;"));
    }

    #[test]
    fn facts_of_one_cause_are_one_row() {
        let mut ledger = Ledger::new(By::Cause, Timing::All(1));
        let mut report = |id, cause, minor, failed| {
            let stats =
                Stats { minor, failed, timed_minor: minor, minor_ns: minor * 1000, ..Stats::default() };
            let extremes = Extremes { max_ns: 1000, min_ns: if minor > 0 { 1000 } else { u64::MAX } };
            let group = Group {
                key: Key::Cause(cause),
                stats,
                extremes,
                recent: extremes,
                range: None,
                owner: None,
                name: "".into(),
            };
            ledger.group([id, 0, 0, 0, 0, 0, 0], group);
        };
        report(1, Cause::ZeroFill, 5, 0);
        report(2, Cause::ZeroFill, 7, 0);
        report(3, Cause::BadAddress, 0, 4);
        report(4, Cause::Unknown, 0, 0);
        let mut stages = crate::stage::Stages::new();
        let mut rows = stages.interval(ledger.block(1, false));
        rows.sort(0);
        let shown = |rows: &crate::Block| -> Vec<Vec<Value>> {
            let fields = ["cause", "failed", "major", "minor", "total_ns", "avg_ns"];
            rows.rows.iter().map(|row| fields.map(|name| row.get(name).unwrap().clone()).to_vec()).collect()
        };
        let n = Value::U64;
        let bad = vec!["bad-address".into(), n(4), n(0), n(0), Value::Null, Value::Null];
        let zero = vec!["zero-fill".into(), n(0), n(0), n(12), n(12_000), n(1000)];
        assert_eq!(shown(&rows), [bad.clone(), zero.clone()]);
        // Nothing more happened, so there is nothing more to show; in the totals it is all there.
        assert!(stages.interval(ledger.block(2, false)).rows.is_empty());
        let mut totals = stages.totals(ledger.block(3, true));
        totals.sort(0);
        assert_eq!(shown(&totals), [bad, zero]);
    }

    #[test]
    fn the_function_of_a_stack_is_the_innermost_in_user_mode() {
        let function =
            |frames: &str| Stack { frames: frames.into(), ..Stack::default() }.function().to_owned();
        assert_eq!(function("db;main;read_page"), "read_page");
        assert_eq!(function("db;main;read;ksys_read_[k];filemap_read_[k]"), "read");
        assert_eq!(function("kvm;kvm_page_fault_[k]"), "kvm_page_fault_[k]");
        assert_eq!(function("db"), "db");
    }

    #[test]
    fn containers_and_pods_by_the_names_of_their_cgroups() {
        let id = "0123456789abcdef".repeat(4);
        let kube = "/kubepods.slice/kubepods-burstable.slice/\
                    kubepods-burstable-pod0a1b2c3d_0000_1111_2222_333344445555.slice";
        let uuid = Some("0a1b2c3d-0000-1111-2222-333344445555".to_owned());
        for (path, has_container, pod_id) in [
            (format!("/system.slice/docker-{id}.scope"), true, None),
            (format!("/docker/{id}"), true, None),
            (format!("{kube}/cri-containerd-{id}.scope"), true, uuid.clone()),
            (format!("{kube}/crio-{id}.scope/container"), true, uuid.clone()),
            (format!("/kubepods/pod0a1b2c3d-0000-1111-2222-333344445555/{id}"), true, uuid.clone()),
            (format!("/machine.slice/libpod-{id}.scope"), true, None),
            ("/user.slice/user-0.slice/session-1.scope".into(), false, None),
            ("/tripod/podium".into(), false, None),
            ("/".into(), false, None),
        ] {
            assert_eq!(container(&path), has_container.then_some(id.as_str()), "{path}");
            assert_eq!(pod(&path), pod_id, "{path}");
        }
    }
}
