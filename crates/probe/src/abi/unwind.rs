//! `bpf/unwind.h`, mirrored.

use bytemuck::{Pod, Zeroable};

constants! {
    unwind_kinds = "unwind_kind", "": u32 {
        UNWIND_UNKNOWN = 0,
        UNWIND_RSP = 1,
        UNWIND_RBP = 2,
        UNWIND_PLT = 3,
        UNWIND_AT_RSP = 4,
        UNWIND_AT_RSP_ABOVE = 5,
        UNWIND_AT_RBP = 6,
        UNWIND_SIGNAL = 7,
        UNWIND_START = 8,
    }
}

constants! {
    unwind_sizes = "unwind_size", "": u32 {
        UNWIND_SEARCH = 23,
        UNWIND_AT_FRAME = 0x800,
        UNWIND_COPY = 32_704,
        UNWIND_COPIES = 8_192,
    }
}

constants! {
    unwind_states = "unwind_state", "": u32 {
        UNWIND_WANTED = 0,
        UNWIND_READY = 1,
        UNWIND_REFUSED = 2,
    }
}

constants! {
    unwind_ends = "unwind_end", "UNWIND_": u32 {
        /// It was walked by frame pointers: not known.
        END_FRAMES = 0,
        /// The thread began there.
        END_START = 1,
        /// It is longer than what is walked.
        END_DEEPEST = 2,
        /// There is no unwind information of that function.
        END_UNDESCRIBED = 3,
        /// A table was not there yet, and frame pointers led nowhere.
        END_LATE = 4,
        /// The stack cannot be read, or is no stack.
        END_CORRUPT = 5,
        /// A table was not there yet, and frame pointers led to an end: not known.
        END_LATE_FRAMES = 6,
    }
}

mirror! {
    /// From an offset in a file on.
    UnwindRow = "unwind_row" {
        at: u32,
        rule: u32,
    }
}

mirror! {
    /// A file.
    UnwindFile = "unwind_file" {
        inode: u64,
        device: u32,
        pad: u32,
    }
}

mirror! {
    /// Its rows.
    UnwindTable = "unwind_table" {
        first: u32,
        rows: u32,
        state: u32,
        copies: u32,
        turn: u32,
        generation: u32,
    }
}

mirror! {
    /// A file that has no table yet was met.
    UnwindMiss = "unwind_miss" {
        file: UnwindFile,
        addr: u64,
        pid: u32,
        pad: u32,
    }
}

mirror! {
    /// What a stack was copied with, which is behind it.
    UnwindCopy = "unwind_copy" {
        key: u64,
        ip: u64,
        sp: u64,
        bp: u64,
    }
}

#[cfg(test)]
pub(super) fn unwind_layouts() -> Vec<super::Layout> {
    vec![
        UnwindRow::layout(),
        UnwindFile::layout(),
        UnwindTable::layout(),
        UnwindMiss::layout(),
        UnwindCopy::layout(),
    ]
}

#[cfg(test)]
pub(super) fn unwind_constants() -> Vec<super::Values> {
    vec![unwind_kinds(), unwind_sizes(), unwind_states(), unwind_ends()]
}

#[cfg(test)]
mod tests {
    use trapline_symbols::unwind::{AT_FRAME, Kind};

    use super::*;

    #[test]
    fn rules_mean_the_same_to_those_who_make_and_follow_them() {
        let kinds = [
            (Kind::Unknown, UNWIND_UNKNOWN),
            (Kind::Rsp, UNWIND_RSP),
            (Kind::Rbp, UNWIND_RBP),
            (Kind::Plt, UNWIND_PLT),
            (Kind::AtRsp, UNWIND_AT_RSP),
            (Kind::AtRspAbove, UNWIND_AT_RSP_ABOVE),
            (Kind::AtRbp, UNWIND_AT_RBP),
            (Kind::Signal, UNWIND_SIGNAL),
            (Kind::Start, UNWIND_START),
        ];
        for (kind, constant) in kinds {
            assert_eq!(kind as u32, constant);
        }
        assert_eq!(AT_FRAME as u32 & 0xfff, UNWIND_AT_FRAME);
    }
}
