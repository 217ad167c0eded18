//! What `kvm` may do while it watches.

use crate::privilege::{BY_NAMES, TOOLS, listed, watched};

/// Also where no guest runs.
pub fn kvm_keeps_what_reading_takes(_: &'static str) {
    for what in [&["count"][..], &["slower", "1ms"]] {
        watched(&[&["kvm"], what, &["--format", "jsonl"]].concat(), listed(&[TOOLS]));
    }
    watched(&["kvm", "slower", "1ms", "--stacks", "--format", "jsonl"], listed(&[TOOLS, BY_NAMES]));
}

pub fn kvm_without_exits_keeps_what_reading_takes(variant: &'static str) {
    kvm_keeps_what_reading_takes(variant);
}
