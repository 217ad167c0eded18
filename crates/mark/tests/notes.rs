//! Marks leave notes in the file that say where they are.

#![allow(clippy::expect_used)]

/// A span within a block that is left early, and one between two marks.
#[inline(never)]
fn marked(early: bool) -> u32 {
    trapline_mark::span!("test_block");
    if early {
        return 1;
    }
    trapline_mark::begin!("test_pair");
    trapline_mark::end!("test_pair");
    2
}

#[test]
fn the_file_has_a_note_for_each_point() {
    assert_eq!((marked(true), marked(false)), (1, 2));
    let file = std::fs::read(std::env::current_exe().expect("no path")).expect("cannot read it");
    for point in ["test_block__start", "test_block__done", "test_pair__start", "test_pair__done"] {
        let note = [b"trapline\0", point.as_bytes(), b"\0\0"].concat();
        assert!(file.windows(note.len()).any(|bytes| bytes == note), "no note of {point}");
    }
}
