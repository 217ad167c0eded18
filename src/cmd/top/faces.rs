//! How each tool is shown, as data.

use trapline_model::{Of, Relative};
use trapline_view::top::{Face, Group};

const fn group(name: &'static str, into: &'static str) -> Group {
    Group { name, into: Some(into) }
}

const fn last(name: &'static str) -> Group {
    Group { name, into: None }
}

const NONE: Face = Face {
    tool: "",
    counts: "",
    groups: &[],
    events: &[],
    time: None,
    parts: &[],
    relative: &[],
    has_events: false,
};

pub(super) static FAULTS: Face = Face {
    tool: "faults",
    counts: "faults",
    groups: &[
        group("process", "thread"),
        group("thread", "file"),
        group("comm", "process"),
        group("cgroup", "process"),
        group("file", "file,cause"),
        group("cause", "stack"),
        group("function", "stack"),
        last("stack"),
        group("file,cause", "stack"),
    ],
    events: &["major", "minor"],
    time: Some("total_ns"),
    parts: &[
        ("lock_ns", "lock"),
        ("io_ns", "I/O"),
        ("reclaim_ns", "reclaim"),
        ("throttled_ns", "throttled"),
        ("preempted_ns", "preempted"),
        ("sleep_ns", "sleep"),
        ("kernel_ns", "kernel"),
    ],
    has_events: true,
    ..NONE
};

pub(super) static KVM: Face = Face {
    tool: "kvm",
    counts: "exits",
    groups: &[
        group("reason", "msr"),
        group("vm", "vcpu"),
        group("vcpu", "reason"),
        group("vm,reason", "userspace"),
        last("userspace"),
        last("msr"),
        last("port"),
        last("mmio"),
        last("rip"),
    ],
    events: &["count"],
    time: Some("total_ns"),
    parts: &[
        ("kvm_ns", "KVM"),
        ("vmm_ns", "VMM"),
        ("blocked_ns", "blocked"),
        ("preempted_ns", "preempted"),
        ("fault_ns", "faults"),
    ],
    relative: &[
        Relative { title: "EXITS/s", width: 9, yields: 3, of: Of::PerSecond(&["count"]) },
        Relative { title: "EXITS_%", width: 7, yields: 4, of: Of::Share(&["count"]) },
        Relative { title: "TIME_%", width: 6, yields: 3, of: Of::Share(&["total_ns"]) },
    ],
    has_events: true,
};

pub(super) static SGX: Face = Face {
    tool: "sgx",
    counts: "faults",
    groups: &[last("enclave"), group("process", "enclave"), group("cgroup", "enclave")],
    events: &["faults"],
    time: Some("load_ns"),
    ..NONE
};

pub(super) static ACCESS: Face =
    Face { tool: "access", counts: "accesses", events: &["accesses"], has_events: true, ..NONE };

/// All of them, in the order of the screen.
pub(super) static FACES: [&Face; 4] = [&FAULTS, &KVM, &SGX, &ACCESS];
