//! What is known of a fault, as the kernel half packs it, in the words of the model. See `bpf/faults_cause.bpf.h`.

use trapline_model::faults::{Also, Facts, Memory, Page};

use crate::abi;

/// FAULTS_FACTS() undone.
pub(super) fn facts(word: u32) -> Facts {
    let memory = match word & 0xff {
        abi::MEMORY_ANON => Memory::Anonymous,
        abi::MEMORY_FILE => Memory::File,
        abi::MEMORY_SHMEM => Memory::Shmem,
        abi::MEMORY_HUGETLB => Memory::Hugetlb,
        abi::MEMORY_DEVICE => Memory::Device,
        _ => Memory::Unknown,
    };
    let page = match word >> 8 & 0xff {
        abi::BEFORE_ABSENT => Page::Absent,
        abi::BEFORE_SWAPPED => Page::Swapped,
        abi::BEFORE_MOVING => Page::Moving,
        abi::BEFORE_HIDDEN => Page::Hidden,
        abi::BEFORE_READ_ONLY => Page::ReadOnly,
        abi::BEFORE_THERE => Page::There,
        _ => Page::Unknown,
    };
    Facts { memory, page, also: Also(word >> 16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_unpacked() {
        let also = Also::WRITE.0 | Also::SIGNAL.0;
        let word = abi::MEMORY_SHMEM | abi::BEFORE_READ_ONLY << 8 | also << 16;
        assert_eq!(facts(word), Facts { memory: Memory::Shmem, page: Page::ReadOnly, also: Also(also) });
    }
}
