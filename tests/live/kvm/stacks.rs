//! `kvm slower --stacks`: where a VMM was while it handled an exit, as its source says.

use serde_json::Value;

use super::run;
use crate::faults::replay::is_whole;
use crate::run::{Said, Source, u};

/// Static, so that the C library's functions have names.
pub const VMM: Source = Source {
    compiler: "gcc",
    file: "kvm/vmm.c",
    options: &["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-static"],
};

/// The functions that the thread of the vCPU called, outermost first.
fn calls(event: &Value) -> Vec<&str> {
    let stack = event["stack"].as_str().unwrap_or_else(|| panic!("no stack: {event}"));
    let mut frames = stack.split(';');
    // The kernel cuts names of processes.
    assert_eq!(frames.next(), Some("kvm-vmm-c"), "{event}");
    let starts = [frames.next().unwrap(), frames.next().unwrap()];
    assert!(starts[0].contains("clone") && starts[1] == "start_thread", "{event}");
    frames.collect()
}

pub fn are_those_of_the_source(variant: &'static str) {
    let said = Said::by(run("slower", variant, &["0", "--stacks"]).arg("--").arg(VMM.program()));
    let (at_ports, others): (Vec<_>, Vec<_>) =
        said.events.iter().partition(|event| event["name"] == "io" || event["name"] == "IO_INSTRUCTION");
    let [sleeps, spins, quick] = at_ports[..] else { panic!("{:#?}", said.events) };
    let asleep = ["run_vcpu", "dispatch", "sleeps", "handle_write", "wait_for_disk", "syscall"];
    assert_eq!((&sleeps["stack_at"], calls(sleeps)), (&"asleep".into(), asleep.to_vec()));
    // The timer of its 60 ms runs before the thread has left its processor; its other sleep is one of 5 ms.
    assert!((30_000_000..u(&sleeps["latency_ns"])).contains(&u(&sleeps["stack_ns"])), "{sleeps}");
    // The other two do not sleep: they are seen where something else took the processor, or at the next KVM_RUN.
    let enters = ["run_vcpu", "enter_guest", "syscall"];
    for (event, inside) in [(spins, "spins"), (quick, "dispatch")] {
        let calls = calls(event);
        match event["stack_at"].as_str() {
            Some("KVM_RUN") => assert!(calls == enters && event["stack_ns"].is_null(), "{event}"),
            Some("preempted") => assert!(calls[0] == "run_vcpu" && u(&event["stack_ns"]) > 0, "{event}"),
            _ => panic!("{inside}: {event}"),
        }
    }
    assert!(u(&spins["latency_ns"]) >= 60_000_000);
    // KVM handles the others itself.
    let unknown =
        |event: &&&Value| ["stack", "stack_at", "stack_ns"].iter().any(|name| !event[name].is_null());
    assert_eq!(others.iter().find(unknown), None);
    assert!(!others.is_empty(), "first touches of the guest's memory");
    for loss in [
        "lost_events",
        "truncated_stacks",
        "unsymbolized_stacks",
        "lost_stacks",
        "partial_stacks",
        "late_stacks",
    ] {
        assert_eq!(said.end[loss], 0, "{loss} of {}", said.end);
    }
}

pub fn are_recorded(_: &'static str) {
    let program = VMM.program();
    let text = is_whole(&["kvm", "slower", "50ms", "--stacks"], &[program.to_str().unwrap()]);
    assert!(text.contains(";sleeps;handle_write;wait_for_disk;syscall"), "{text}");
}
