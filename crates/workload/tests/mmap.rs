//! The mapping workload reports what its threads did, and every fault of the process has an owner.
//!
//! One test only: the account of a thread's end assumes that no other test runs in this process meanwhile.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use trapline_workload::mmap::{MmapReport, Options, run};
use trapline_workload::pattern::Pattern;
use trapline_workload::usage::Faults;
use trapline_workload::{Control, data};

fn options(file: &Path) -> Options {
    Options {
        file: file.to_owned(),
        pattern: Pattern::Random,
        count: 2000,
        threads: 3,
        stride: 64,
        delay: Duration::ZERO,
        advice: None,
        cold: true,
        seed: 9,
    }
}

fn read(options: &Options) -> MmapReport {
    run(options, &Control::default()).unwrap()
}

#[test]
fn the_mapping_workload_keeps_its_books() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("data");
    let bytes = (8 << 20) + 1;
    let contents = data::Contents::Random;
    let made = data::Options {
        file: file.clone(),
        open: |path| Ok(fs::File::create_new(path)?),
        bytes,
        contents,
        seed: 1,
        drop: true,
    };
    let cold = data::run(&made, &Control::default()).unwrap().resident == Some(0);

    every_fault_has_an_owner(&file);
    if cold {
        cold_pages_are_major_faults(&file);
    }
    equal_seeds_read_equal_bytes(&file);
    json_lines_hold_the_report(&file);
    a_delay_is_kept_and_a_stop_ends(&file);
    bad_input_is_refused_in_one_line(folder.path());
}

fn every_fault_has_an_owner(file: &Path) {
    for pattern in [Pattern::Seq, Pattern::Random, Pattern::Stride, Pattern::Mixed] {
        for threads in [1, 4, 16] {
            let report = read(&Options { pattern, threads, ..options(file) });
            assert_eq!(report.crew.other, Faults::default(), "{report:?}");
            assert_eq!(report.crew.done(), 2000 * threads as u64);
            assert_eq!(report.crew.threads.len(), threads);
            let life = report.crew.life();
            assert!(life.major <= report.process.major && life.minor <= report.process.minor);
            assert!(!report.interrupted);
        }
    }
}

fn cold_pages_are_major_faults(file: &Path) {
    // Without read-ahead each of the 2049 pages is a major fault once, and then never again in one thread.
    let once = Options { pattern: Pattern::Seq, count: 2049, threads: 1, ..options(file) };
    let once = Options { advice: Some(trapline_workload::map::Advice::Random), ..once };
    let report = read(&once);
    assert_eq!((report.pages, report.resident), (2049, Some(0)));
    assert_eq!(report.crew.life().major, 2049);
    let warm = read(&Options { cold: false, ..once });
    assert_eq!((warm.resident, warm.crew.life().major), (Some(2049), 0));
}

fn equal_seeds_read_equal_bytes(file: &Path) {
    let checksum = |seed| read(&Options { seed, ..options(file) }).crew.checksum();
    assert_eq!(checksum(1), checksum(1));
    assert_ne!(checksum(1), checksum(2));
    let sum = fs::read(file).unwrap().iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>();
    let all = Options { pattern: Pattern::Seq, count: 2049, threads: 1, ..options(file) };
    if trapline_workload::map::page_size() == 4096 {
        assert_eq!(read(&all).crew.checksum(), sum);
    }
}

fn json_lines_hold_the_report(file: &Path) {
    let report = read(&options(file));
    let mut text = Vec::new();
    report.write_jsonl(&mut text).unwrap();
    let lines: Vec<Value> =
        String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let (total, threads) = lines.split_last().unwrap();
    assert_eq!(total["type"], "total");
    for field in ["accesses", "major", "minor"] {
        assert!(threads.iter().all(|thread| thread["type"] == "thread"));
        let sum: u64 = threads.iter().map(|thread| thread[field].as_u64().unwrap()).sum();
        assert_eq!(total[field], sum, "{field}");
    }
    let mut text = Vec::new();
    report.write_text(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("TOTAL         6000"), "{text}");
}

fn a_delay_is_kept_and_a_stop_ends(file: &Path) {
    let begun = Instant::now();
    read(&Options { delay: Duration::from_millis(2), count: 20, threads: 2, ..options(file) });
    assert!(begun.elapsed() >= Duration::from_millis(40));
    let control = Control::default();
    control.stop.store(true, Ordering::Relaxed);
    let report = run(&options(file), &control).unwrap();
    assert!(report.interrupted);
    assert_eq!(report.crew.done(), 0);
}

fn bad_input_is_refused_in_one_line(folder: &Path) {
    let empty = folder.join("empty");
    fs::write(&empty, "").unwrap();
    let data = folder.join("data");
    for (bad, word) in [
        (options(&folder.join("missing\n")), "workload data"),
        (options(&empty), "it is empty"),
        (options(folder), "a directory"),
        (options(&PathBuf::from("/dev/zero")), "a character device"),
        (Options { count: 0, ..options(&data) }, "count of accesses is 0"),
        (Options { threads: 0, ..options(&data) }, "0 threads"),
        (Options { threads: 1025, ..options(&data) }, "1 to 1024"),
        (Options { stride: 0, ..options(&data) }, "stride of 0"),
    ] {
        let error = format!("{:#}", run(&bad, &Control::default()).unwrap_err());
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
    }
}
