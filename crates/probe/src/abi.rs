//! The structures that user space and the kernel half share: `bpf/trap.h` and each tool's header, mirrored.
//!
//! A test compares each with the types in the compiled object, so a mirror cannot drift from its original.

use bytemuck::{Pod, Zeroable};

pub(crate) const COMM_LEN: usize = 16;
/// A minimum of nothing; an address that is not known.
pub(crate) const NONE: u64 = u64::MAX;

/// Nanoseconds of an interval's longest time; the interval's number is above them.
const TIME_BITS: u32 = 44;
/// The longest time that there is.
pub(crate) const LONGEST_TIME: u64 = (1 << TIME_BITS) - 1;

pub(crate) const BY_PID: u32 = 1;
pub(crate) const BY_TID: u32 = 2;
pub(crate) const BY_COMM: u32 = 4;
pub(crate) const BY_CGROUP: u32 = 8;
pub(crate) const BY_TREE: u32 = 16;

/// A structure's C name, its size, and each field's name and offset in bytes.
#[cfg(test)]
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident = $c_name:literal { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        #[cfg(test)]
        impl $name {
            pub(super) fn layout() -> $crate::abi::Layout {
                let fields = vec![$((stringify!($field), std::mem::offset_of!($name, $field)),)*];
                ($c_name, size_of::<$name>(), fields)
            }
        }
    };
}

mod access;
mod faults;
mod kvm;
mod sgx;

pub(crate) use self::access::*;
pub(crate) use self::faults::*;
pub(crate) use self::kvm::*;
pub(crate) use self::sgx::*;

mirror! {
    /// Where the numbers of a task are, by PID namespace.
    TrapNumbers = "trap_numbers" {
        thread_pid: u32,
        signal: u32,
        tgid: u32,
        level: u32,
        numbers: u32,
        inum: u32,
    }
}

mirror! {
    /// Which tasks are meant.
    TrapFilter = "trap_filter" {
        cgroup: u64,
        cgroup_level: u32,
        tid: u32,
        by: u32,
        pid_level: u32,
        pid_inum: u32,
        numbers: TrapNumbers,
        pad: u32,
        comm: [u8; COMM_LEN],
    }
}

mirror! {
    /// Where we are among namespaces.
    Namespaces = "namespaces" {
        cgroup_root: u64,
        cgroup: u64,
        cgroup_level: u32,
        pid_level: u32,
        numbers: TrapNumbers,
    }
}

/// A task's name: up to the first NUL, bytes that are not UTF-8 replaced.
pub(crate) fn comm(bytes: &[u8; COMM_LEN]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The longest time of the interval `epoch`, nanoseconds, as `raise_recent()` of `bpf/recent.bpf.h` keeps it; 0 without
/// one. What came between the begin of the next interval and this reading is in the figures, so it is in this, too.
pub(crate) fn recent(words: [u64; 2], epoch: u64) -> u64 {
    let numbers = [epoch, epoch + 1].map(|number| number << TIME_BITS);
    let times = words.into_iter().filter(|word| numbers.contains(&(word & !LONGEST_TIME)));
    times.map(|word| word & LONGEST_TIME).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::io::Write;

    use libbpf_rs::btf::{Btf, HasSize, types};

    use super::*;
    use crate::compiled::Compiled;

    #[test]
    fn an_interval_has_its_own_longest_time_and_what_the_next_has_by_now() {
        let at = |interval: u64, time| interval << TIME_BITS | time;
        assert_eq!(recent([0, 0], 7), 0);
        assert_eq!(recent([at(6, 900), at(7, 50)], 7), 50);
        assert_eq!(recent([at(8, 70), at(7, 50)], 7), 70);
        assert_eq!(recent([at(8, 70), at(7, LONGEST_TIME)], 7), LONGEST_TIME);
        // Numbers are cut to what a word has room for.
        assert_eq!(recent([at(1 << 20, 3), at((1 << 20) + 1, 4)], 1 << 20), 4);
        assert_eq!(recent([at(6, 900), at(5, 50)], 7), 0);
    }

    #[test]
    fn mirrors_equal_the_kernel_half() {
        let shared = [TrapFilter::layout(), TrapNumbers::layout()];
        compare(crate::faults::OBJECTS, &[&shared, &faults_layouts()[..]].concat());
        compare(&[crate::kvm::OBJECT], &[&shared, &kvm_layouts()[..]].concat());
        compare(&[crate::sgx::OBJECT], &[&shared, &sgx_layouts()[..]].concat());
        compare(&[crate::access::OBJECT], &access_layouts());
        compare(&[crate::namespaces::OBJECT], &[Namespaces::layout()]);
    }

    /// Each in every object that has it.
    fn compare(objects: &[Compiled], mirrors: &[Layout]) {
        let mut found = BTreeSet::new();
        for object in objects {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(object.bytes).unwrap();
            compare_in(&Btf::from_path(file.path()).unwrap(), mirrors, &mut found);
        }
        for (name, ..) in mirrors {
            assert!(found.contains(name), "no object has {name}");
        }
    }

    fn compare_in(btf: &Btf<'_>, mirrors: &[Layout], found: &mut BTreeSet<&'static str>) {
        for (name, size, fields) in mirrors {
            let Some(original) = btf.type_by_name::<types::Struct<'_>>(name) else { continue };
            found.insert(name);
            assert_eq!(original.size(), *size, "size of {name}");
            let members: Vec<_> = original
                .iter()
                .map(|member| match member.attr {
                    types::MemberAttr::Normal { offset } => (member.name, offset as usize / 8),
                    types::MemberAttr::BitField { .. } => panic!("{name} has a bit field"),
                })
                .collect();
            let mirrored: Vec<_> = fields.iter().map(|&(f, at)| (Some(OsStr::new(f)), at)).collect();
            assert_eq!(members, mirrored, "fields of {name}");
        }
    }

    #[test]
    fn a_name_ends_at_its_first_nul_and_is_text() {
        assert_eq!(comm(b"bash\0garbage\0\0\0\0"), "bash");
        assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
        assert_eq!(comm(b"\xff\x1b[2J\0\0\0\0\0\0\0\0\0\0\0"), "\u{fffd}\x1b[2J");
    }
}
