//! What rows are grouped by.

use std::rc::Rc;

use super::{COMM, PID, Process, Report, TID, Thread, figures};
use crate::field::{Column, Field, Kind, Schema, Show, Unit, Value};

/// What a row is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A thread.
    Thread,
    /// A process: all its threads.
    Process,
    /// A cgroup: all threads that were last seen in it.
    Cgroup,
}

/// Which row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Key {
    /// None in particular: the sum, or threads put together.
    #[default]
    None,
    /// A thread's.
    Thread(Thread),
    /// A process's.
    Process(Process),
    /// A cgroup's.
    Cgroup(Rc<str>),
}

const BIRTH: Field = Field {
    name: "start_ns",
    unit: Unit::Nanoseconds,
    kind: Kind::Key,
    help: "its birth, CLOCK_MONOTONIC",
    column: None,
};

const fn text(
    name: &'static str,
    kind: Kind,
    title: &'static str,
    width: usize,
    help: &'static str,
) -> Field {
    Field { name, unit: Unit::None, kind, help, column: Some(Column { title, width, show: Show::Text }) }
}

const CGROUP: Field = text("cgroup", Kind::Key, "CGROUP", 40, "path below the root of the v2 hierarchy");
const CONTAINER: Field =
    text("container", Kind::Label, "CONTAINER", 12, "container id, if the path holds one");
const POD: Field = Field { column: None, ..text("pod", Kind::Label, "", 0, "pod id, if the path holds one") };

impl By {
    /// The fields of a row and a total.
    #[must_use]
    pub fn schema(self) -> &'static Schema {
        match self {
            Self::Thread => const { &figures::<4, 14>([PID, TID, BIRTH, COMM]) },
            Self::Process => const { &figures::<3, 13>([PID, BIRTH, COMM]) },
            Self::Cgroup => const { &figures::<3, 13>([CGROUP, CONTAINER, POD]) },
        }
    }

    /// The row that a report belongs to, and the name to show.
    pub(super) fn key(self, report: &Report) -> (Key, Rc<str>) {
        match self {
            Self::Thread => (Key::Thread(report.thread), Rc::clone(&report.comm)),
            Self::Process => (Key::Process(report.process), Rc::clone(&report.process_comm)),
            Self::Cgroup => (Key::Cgroup(Rc::clone(&report.cgroup)), Rc::clone(&report.cgroup)),
        }
    }

    /// The values of the fields before the figures.
    pub(super) fn values(self, key: &Key, comm: &str) -> Vec<Value> {
        let (thread, process) = match *key {
            Key::Thread(thread) => (Some(thread), None),
            Key::Process(process) => (None, Some(process)),
            Key::None | Key::Cgroup(_) => (None, None),
        };
        match self {
            Self::Thread => vec![
                thread.map(|t| t.pid).into(),
                thread.map(|t| t.tid).into(),
                thread.map(|t| t.start_ns).into(),
                comm.into(),
            ],
            Self::Process => {
                vec![process.map(|p| p.pid).into(), process.map(|p| p.start_ns).into(), comm.into()]
            }
            Self::Cgroup => vec![comm.into(), container(comm).into(), pod(comm).as_deref().into()],
        }
    }
}

/// The container id in a cgroup's path: the 64 hexadecimal digits that Docker, containerd, CRI-O and Podman put into
/// the name of a container's cgroup, with or without their own prefix and `.scope`.
fn container(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    })
}

/// The Kubernetes pod's id: `pod` and a UUID, whose dashes systemd's names turn into underscores.
fn pod(path: &str) -> Option<String> {
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
    use super::*;

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
