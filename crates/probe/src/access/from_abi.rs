//! What the kernel half reports: accesses, and the lives of processes.

use trapline_model::access::Way;

use crate::abi::{self, AccessLife, FaultsEvent, FaultsGroupKey};
use crate::faults::inode_number;

/// What the page table held when an access faulted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nothing that the processor could use.
    Nothing,
    /// A page that did not allow the access.
    Page,
    /// The variant does not tell.
    Unknown,
}

/// A fault.
#[derive(Debug)]
pub(crate) struct PageAccess {
    pub(crate) time_ns: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) comm: String,
    pub(crate) cpu: u32,
    pub(crate) way: Option<Way>,
    pub(crate) ip: Option<u64>,
    /// Nothing if the variant could only count it.
    pub(crate) addr: Option<u64>,
    pub(crate) page: Held,
    /// What was mapped there, and where in it, bytes.
    pub(super) memory: FaultsGroupKey,
    pub(super) offset: Option<u64>,
    pub(crate) latency_ns: u64,
    /// How many faults it stands for.
    pub(crate) count: u64,
}

impl PageAccess {
    /// The number of the file that was mapped there then, 0 for memory without one. Nothing if that is not known.
    pub(crate) fn inode(&self) -> Option<u64> {
        inode_number(&self.memory)
    }

    /// One in a file of that number, of which no more is told.
    #[cfg(test)]
    pub(crate) fn of_inode(time_ns: u64, way: Way, inode: u64) -> Self {
        Self {
            time_ns,
            pid: 1,
            tid: 1,
            comm: String::new(),
            cpu: 0,
            way: Some(way),
            ip: None,
            addr: None,
            page: Held::Unknown,
            memory: FaultsGroupKey { word: [u64::from(abi::AREA_FILE) << 32 | 8 << 20, inode, 0, 1] },
            offset: None,
            latency_ns: 0,
            count: 1,
        }
    }
}

/// How a process's memory begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Fork,
    Exec,
    End,
}

/// A process gets memory of its own, or ends.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) time_ns: u64,
    pub(crate) what: Begin,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) cpu: u32,
    pub(crate) parent: u32,
    /// It runs in its parent's memory.
    pub(crate) borrows: bool,
    pub(crate) comm: String,
}

/// One thing that was seen.
#[derive(Debug)]
pub(crate) enum ProbeEvent {
    Access(PageAccess),
    Life(Life),
}

impl ProbeEvent {
    pub(super) fn time_ns(&self) -> u64 {
        match self {
            Self::Access(access) => access.time_ns,
            Self::Life(life) => life.time_ns,
        }
    }
}

pub(super) fn access(event: &FaultsEvent) -> ProbeEvent {
    let known = |value: u64| Some(value).filter(|&v| v != abi::NONE);
    ProbeEvent::Access(PageAccess {
        time_ns: event.time_ns,
        pid: event.pid,
        tid: event.tid,
        comm: abi::comm(&event.comm),
        cpu: event.cpu,
        way: match event.rw {
            abi::READ => Some(Way::Read),
            abi::WRITE => Some(Way::Write),
            abi::EXEC => Some(Way::Execute),
            _ => None,
        },
        ip: known(event.user_ip),
        addr: known(event.addr),
        page: match event.page {
            abi::PAGE_ABSENT => Held::Nothing,
            abi::PAGE_PRESENT => Held::Page,
            _ => Held::Unknown,
        },
        memory: event.file,
        offset: known(event.offset),
        latency_ns: known(event.latency_ns).unwrap_or(0),
        count: event.count,
    })
}

pub(super) fn life(event: &AccessLife) -> Option<ProbeEvent> {
    Some(ProbeEvent::Life(Life {
        time_ns: event.time_ns,
        what: match event.what {
            abi::ACCESS_EXEC => Begin::Exec,
            abi::ACCESS_FORK => Begin::Fork,
            abi::ACCESS_EXIT => Begin::End,
            _ => return None,
        },
        pid: event.pid,
        tid: event.tid,
        cpu: event.cpu,
        parent: event.parent,
        borrows: event.borrows != 0,
        comm: abi::comm(&event.comm),
    }))
}
