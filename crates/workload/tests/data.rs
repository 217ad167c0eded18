//! Files have the size, the contents and the holes that were asked for.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering;

use tempfile::{TempDir, tempdir_in};
use trapline_workload::Control;
use trapline_workload::data::{Contents, DataReport, Options, run};

fn folder() -> TempDir {
    tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn options(file: &Path, bytes: u64, contents: Contents) -> Options {
    let open = |path: &Path| {
        Ok(fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?)
    };
    Options { file: file.to_owned(), open, bytes, contents, seed: 42, drop: false }
}

fn make(file: &Path, bytes: u64, contents: Contents) -> DataReport {
    run(&options(file, bytes, contents), &Control::default()).unwrap()
}

#[test]
fn every_size_is_exact() {
    let folder = folder();
    let file = folder.path().join("file");
    for contents in [Contents::Random, Contents::Sequential, Contents::Sparse] {
        for bytes in [1, 7, 4095, 4097, 65_536, 65_537, 1_000_003, 1 << 20] {
            let report = make(&file, bytes, contents);
            assert_eq!(report.bytes, bytes);
            assert_eq!(fs::metadata(&file).unwrap().len(), bytes);
            if contents != Contents::Sparse {
                assert_eq!(report.written, bytes);
            }
        }
    }
}

#[test]
fn random_repeats_with_its_seed_and_uses_all_bytes_alike() {
    let folder = folder();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    make(&one, 1 << 20, Contents::Random);
    make(&two, 1 << 20, Contents::Random);
    let bytes = fs::read(&one).unwrap();
    assert_eq!(bytes, fs::read(&two).unwrap());
    let other_seed = Options { seed: 43, ..options(&two, 1 << 20, Contents::Random) };
    run(&other_seed, &Control::default()).unwrap();
    assert_ne!(bytes, fs::read(&two).unwrap());

    let mut counts = [0u64; 256];
    for byte in &bytes {
        counts[usize::from(*byte)] += 1;
    }
    let entropy: f64 = counts
        .iter()
        .map(|count| *count as f64 / bytes.len() as f64)
        .map(|share| if share > 0.0 { -share * share.log2() } else { 0.0 })
        .sum();
    assert!(entropy > 7.999, "{entropy} bits per byte");
    // No chunk comes twice, as it would with a generator of short period.
    let mut chunks: Vec<_> = bytes.chunks(64).collect();
    chunks.sort_unstable();
    assert!(chunks.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn sequential_counts_up_across_chunks() {
    let folder = folder();
    let file = folder.path().join("file");
    make(&file, 200_000, Contents::Sequential);
    for (index, word) in fs::read(&file).unwrap().chunks_exact(8).enumerate() {
        assert_eq!(u64::from_ne_bytes(word.try_into().unwrap()), index as u64);
    }
}

#[test]
fn sparse_has_data_at_each_chunk_and_holes_between() {
    let folder = folder();
    let file = folder.path().join("file");
    let report = make(&file, (4 << 20) + 100, Contents::Sparse);
    assert_eq!(report.written, 64 * 4096 + 100);
    assert!(report.allocated < 1 << 20, "{report:?}");
    let bytes = fs::read(&file).unwrap();
    for chunk in bytes.chunks(65_536) {
        let (data, hole) = chunk.split_at(chunk.len().min(4096));
        assert!(data.iter().any(|byte| *byte != 0));
        assert!(hole.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_longer_file_is_replaced_whole() {
    let folder = folder();
    let file = folder.path().join("file");
    make(&file, 1 << 20, Contents::Random);
    assert_eq!(make(&file, 100, Contents::Sparse).bytes, 100);
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let folder = folder();
    let missing = folder.path().join("no such folder\n/file");
    for (file, bytes, word) in [
        (folder.path().join("empty").as_path(), 0, "0 bytes"),
        (folder.path(), 1, "a directory"),
        (Path::new("/dev/full"), 1, "a character device"),
        (missing.as_path(), 1, "cannot create"),
        (folder.path().join("huge").as_path(), 1 << 61, "not enough space"),
    ] {
        let refused = run(&options(file, bytes, Contents::Random), &Control::default()).unwrap_err();
        let error = format!("{refused:#}");
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn an_interrupted_file_is_removed() {
    let folder = folder();
    let file = folder.path().join("file");
    let control = Control::default();
    control.stop.store(true, Ordering::Relaxed);
    let error = format!("{:#}", run(&options(&file, 1, Contents::Random), &control).unwrap_err());
    assert!(error.contains("interrupted") && error.contains("removed"), "{error}");
    assert_eq!(fs::metadata(&file).unwrap_err().kind(), ErrorKind::NotFound);
}
