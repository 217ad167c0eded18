//! `access` in a PID namespace.

use crate::faults::namespaces::Twin;
use crate::run::{Beside, trapline};

/// `access` follows the process that has the number here.
pub fn an_access_is_of_our_own_namespace(_: &'static str) {
    let mut twin = Twin::new();
    let mut command = trapline();
    command.args(["access", "--reset", "none", "--format", "jsonl", "-p", &twin.pid.to_string()]);
    let traced = Beside::start(twin.beside(&command));
    twin.twin.touch(300);
    twin.outer.touch(9_000);
    twin.twin.close();
    let said = traced.wait();
    let accesses = said.events.iter().filter(|event| event["event"] == "access").count();
    assert!((300..1500).contains(&accesses), "{accesses}");
    assert!(said.events.iter().all(|event| event["pid"] == twin.pid));
}
