//! What user space and the kernel half share: the structures and constants of `bpf/trap.h` and of each tool's header,
//! mirrored.
//!
//! A test compares each with the types in the compiled objects, so a mirror cannot drift from its original.

use bytemuck::{Pod, Zeroable};
use trapline_model::Extremes;

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

/// An enumeration's C name, and the C name and value of each of its constants.
#[cfg(test)]
type Values = (&'static str, Vec<(&'static str, i128)>);

/// Constants of an enumeration in C; there, each name begins with the prefix.
macro_rules! constants {
    ($list:ident = $c_name:literal, $prefix:literal: $type:ty {
        $($(#[$doc:meta])* $name:ident = $value:expr,)*
    }) => {
        $(
            $(#[$doc])*
            #[allow(dead_code, reason = "a mirror has all that its original has")]
            pub(crate) const $name: $type = $value;
        )*

        #[cfg(test)]
        pub(super) fn $list() -> $crate::abi::Values {
            ($c_name, vec![$((concat!($prefix, stringify!($name)), $name as i128),)*])
        }
    };
}

mod access;
mod faults;
mod kvm;
pub(crate) mod maps;
mod sgx;
mod trap;
mod unwind;

pub(crate) use self::access::*;
pub(crate) use self::faults::*;
pub(crate) use self::kvm::*;
pub(crate) use self::sgx::*;
pub(crate) use self::trap::*;
pub(crate) use self::unwind::*;

/// The longest time that there is.
pub(crate) const LONGEST_TIME: u64 = (1 << TIME_BITS) - 1;

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

/// The extremes of the interval `epoch`, out of those that the kernel half keeps.
pub(crate) fn extremes(of: &TrapExtremes, epoch: u64) -> Extremes {
    let short_of_longest = recent(of.min, epoch);
    Extremes {
        max_ns: recent(of.max, epoch),
        min_ns: if short_of_longest == 0 { u64::MAX } else { LONGEST_TIME - short_of_longest },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
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
        compare(
            crate::faults::OBJECTS,
            &[trap_layouts(), vec![TrapExtremes::layout()], faults_layouts(), unwind_layouts()].concat(),
            &[trap_constants(), faults_constants(), unwind_constants()],
        );
        let own = (crate::kvm::OBJECTS, kvm_layouts(), kvm_constants());
        compare(
            own.0,
            &[trap_layouts(), vec![TrapControl::layout(), TrapExtremes::layout()], own.1].concat(),
            &[trap_constants(), own.2],
        );
        let own = (crate::sgx::OBJECT, sgx_layouts(), sgx_constants());
        compare(
            &[own.0],
            &[trap_layouts(), vec![TrapControl::layout()], own.1].concat(),
            &[trap_constants(), own.2],
        );
        compare(&[crate::access::OBJECT], &access_layouts(), &[trap_constants(), access_constants()]);
        compare(&[crate::namespaces::OBJECT], &[Namespaces::layout()], &[]);
    }

    /// Each in every object that has it.
    fn compare(objects: &[Compiled], mirrors: &[Layout], constants: &[Vec<Values>]) {
        let mut found = BTreeSet::new();
        let constants: Vec<_> = constants.concat();
        for object in objects {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(object.bytes).unwrap();
            let btf = Btf::from_path(file.path()).unwrap();
            compare_in(&btf, mirrors, &mut found);
            for (name, mirrored) in &constants {
                let Some(original) = values(&btf, name) else { continue };
                found.insert(name);
                let mirrored: BTreeMap<_, _> = mirrored.iter().map(|&(n, v)| (n.to_owned(), v)).collect();
                assert_eq!(original, mirrored, "constants of {name}");
            }
        }
        for name in mirrors.iter().map(|(name, ..)| name).chain(constants.iter().map(|(name, _)| name)) {
            assert!(found.contains(name), "no object has {name}");
        }
    }

    /// The constants of an enumeration, none of which is negative.
    fn values(btf: &Btf<'_>, name: &str) -> Option<BTreeMap<String, i128>> {
        let named = |name: Option<&OsStr>| name.unwrap().to_str().unwrap().to_owned();
        if let Some(all) = btf.type_by_name::<types::Enum<'_>>(name) {
            return Some(all.iter().map(|of| (named(of.name), i128::from(of.value as u32))).collect());
        }
        let all = btf.type_by_name::<types::Enum64<'_>>(name)?;
        Some(all.iter().map(|of| (named(of.name), i128::from(of.value as u64))).collect())
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
