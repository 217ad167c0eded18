//! What `kvm` may do while it watches.

use crate::privilege::{TOOLS, listed, watched};

/// Also where no guest runs.
pub fn kvm_keeps_what_reading_takes(_: &'static str) {
    for what in [&["count"][..], &["slower", "1ms"]] {
        watched(&[&["kvm"], what, &["--format", "jsonl"]].concat(), listed(&[TOOLS]));
    }
}

pub fn kvm_without_exits_keeps_what_reading_takes(variant: &'static str) {
    kvm_keeps_what_reading_takes(variant);
}
