//! What a kernel says of its own tracepoints: their `format` files.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Where the tracepoints may be.
const MOUNTS: &[&str] = &["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The directory of the kvm tracepoints, if there is one: they are there when kvm is loaded.
pub(super) fn kvm_events() -> Option<PathBuf> {
    MOUNTS.iter().map(|mount| PathBuf::from(mount).join("events/kvm")).find(|dir| dir.is_dir())
}

/// Whether the tracepoints of anything can be seen.
pub(super) fn tracefs_is_mounted() -> bool {
    MOUNTS.iter().any(|mount| PathBuf::from(mount).join("events").is_dir())
}

/// The `format` file of a kvm tracepoint.
pub(super) fn read(tracepoint: &str) -> io::Result<String> {
    let dir = kvm_events().ok_or(io::ErrorKind::NotFound)?;
    fs::read_to_string(dir.join(tracepoint).join("format"))
}

/// Where a record of that format has a field, in bytes from its beginning, and how long the field is.
pub(super) fn field(format: &str, name: &str) -> Option<(u32, u32)> {
    let line = format.lines().find(|line| {
        let declared = line.trim().strip_prefix("field:").and_then(|rest| rest.split(';').next());
        declared.and_then(|declared| declared.split_whitespace().last()) == Some(name)
    })?;
    let number = |label: &str| {
        let rest = line.split(';').find_map(|part| part.trim().strip_prefix(label))?;
        rest.parse::<u32>().ok()
    };
    Some((number("offset:")?, number("size:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As recorded on 6.12.
    const KVM_EXIT: &str = "name: kvm_exit\nID: 1234\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:unsigned int exit_reason;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned long guest_rip;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:u32 isa;\toffset:24;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned int vcpu_id;\toffset:56;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"vcpu %u\", REC->vcpu_id\n";

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field(KVM_EXIT, "exit_reason"), Some((8, 4)));
        assert_eq!(field(KVM_EXIT, "guest_rip"), Some((16, 8)));
        assert_eq!(field(KVM_EXIT, "vcpu_id"), Some((56, 4)));
        assert_eq!(field(KVM_EXIT, "vcpu"), None);
        assert_eq!(field(KVM_EXIT, "reason"), None);
    }
}
