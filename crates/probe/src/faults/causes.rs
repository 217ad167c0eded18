//! What is known of a fault, as the kernel half packs it, in the words of the model. See `bpf/faults_cause.bpf.h`.

use trapline_model::faults::{Also, Facts, Memory, Page};

/// FAULTS_MEMORY_*, by their numbers.
const MEMORIES: &[(&str, Memory)] = &[
    ("UNKNOWN", Memory::Unknown),
    ("ANON", Memory::Anonymous),
    ("FILE", Memory::File),
    ("SHMEM", Memory::Shmem),
    ("HUGETLB", Memory::Hugetlb),
    ("DEVICE", Memory::Device),
];

/// FAULTS_BEFORE_*, by their numbers.
const PAGES: &[(&str, Page)] = &[
    ("UNKNOWN", Page::Unknown),
    ("ABSENT", Page::Absent),
    ("SWAPPED", Page::Swapped),
    ("MOVING", Page::Moving),
    ("HIDDEN", Page::Hidden),
    ("READ_ONLY", Page::ReadOnly),
    ("THERE", Page::There),
];

/// FAULTS_FACTS() undone.
pub(super) fn facts(word: u32) -> Facts {
    let memory = MEMORIES.get((word & 0xff) as usize).map_or(Memory::Unknown, |(_, memory)| *memory);
    let page = PAGES.get((word >> 8 & 0xff) as usize).map_or(Page::Unknown, |(_, page)| *page);
    Facts { memory, page, also: Also(word >> 16) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use libbpf_rs::btf::{Btf, types};

    use super::*;
    use crate::faults::recipe::ALL;

    const ALSO: &[(&str, Also)] = &[
        ("WRITE", Also::WRITE),
        ("SHARED", Also::SHARED),
        ("MISSING", Also::MISSING),
        ("WATCHED", Also::WATCHED),
        ("GUARDED", Also::GUARDED),
        ("SLEPT", Also::SLEPT),
        ("HUGE", Also::HUGE),
        ("MAJOR", Also::MAJOR),
        ("SIGNAL", Also::SIGNAL),
    ];

    /// The numbers are the kernel half's own.
    #[test]
    fn facts_equal_the_kernel_half() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(ALL.bytes).unwrap();
        let btf = Btf::from_path(file.path()).unwrap();
        let named = |name: &str| -> Vec<(String, i64)> {
            let original: types::Enum<'_> = btf.type_by_name(name).unwrap();
            original.iter().map(|v| (v.name.unwrap().to_str().unwrap().to_owned(), v.value)).collect()
        };
        let numbered = |prefix: &str, names: Vec<&str>| -> Vec<(String, i64)> {
            names.iter().zip(0..).map(|(name, n)| (format!("FAULTS_{prefix}_{name}"), n)).collect()
        };
        let memories = MEMORIES.iter().map(|(name, _)| *name).collect();
        assert_eq!(named("faults_memory"), numbered("MEMORY", memories));
        let pages = PAGES.iter().map(|(name, _)| *name).collect();
        assert_eq!(named("faults_before"), numbered("BEFORE", pages));
        let also: Vec<_> =
            ALSO.iter().map(|(name, also)| (format!("FAULTS_ALSO_{name}"), i64::from(also.0))).collect();
        assert_eq!(named("faults_also"), also);
        let word = 3 | 5 << 8 | (Also::WRITE.0 | Also::SIGNAL.0) << 16;
        let also = Also(Also::WRITE.0 | Also::SIGNAL.0);
        assert_eq!(facts(word), Facts { memory: Memory::Shmem, page: Page::ReadOnly, also });
    }
}
