//! The faults made are exactly those asked for, by the kernel's own account.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use trapline_workload::faults::{Amount, FaultsReport, Kind, Options, run};
use trapline_workload::usage::Faults;
use trapline_workload::{Control, cache, data};

fn options(amount: Amount, threads: usize) -> Options {
    Options { amount, kind: Kind::Anon, file: PathBuf::from("unused"), threads, rate: None }
}

fn assert_exact(report: &FaultsReport, count: u64) {
    assert!(report.exact(), "{report:?}");
    assert_eq!(report.crew.done(), count);
    assert_eq!(report.crew.work(), report.options.kind.faults(count));
    for thread in &report.crew.threads {
        assert!(thread.life.minor >= thread.work.minor && thread.life.major >= thread.work.major);
    }
}

#[test]
fn any_number_is_exact() {
    for count in [1, 2, 50, 1000, 16_384, 16_385, 100_000] {
        assert_exact(&run(&options(Amount::Count(count), 1), &Control::default()).unwrap(), count);
    }
}

#[test]
fn threads_share_without_loss() {
    for (count, threads) in [(7, 7), (1000, 3), (50_001, 8)] {
        let report = run(&options(Amount::Count(count), threads), &Control::default()).unwrap();
        assert_exact(&report, count);
        let shares = report.crew.threads.iter().map(|thread| thread.done);
        assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1);
    }
}

#[test]
fn a_rate_is_kept() {
    let begun = Instant::now();
    let paced = Options { rate: Some(500), ..options(Amount::Count(100), 2) };
    assert_exact(&run(&paced, &Control::default()).unwrap(), 100);
    // The first fault of each thread is due at once, the last 49 intervals of 4 ms later.
    assert!(begun.elapsed() >= Duration::from_millis(196));
}

#[test]
fn a_storm_counts_what_it_made() {
    let report = run(&options(Amount::Storm(Duration::from_millis(100)), 2), &Control::default()).unwrap();
    assert!(report.crew.done() > 1000);
    assert_exact(&report, report.crew.done());
}

#[test]
fn a_cold_file_gives_major_faults() {
    // Not in the temporary directory, which may be in memory: such a file cannot be dropped.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("cold");
    let made = data::Options {
        file: file.clone(),
        open: |path| Ok(std::fs::File::create_new(path)?),
        bytes: 4 << 20,
        contents: data::Contents::Random,
        seed: 1,
        drop: true,
    };
    if data::run(&made, &Control::default()).unwrap().resident != Some(0) {
        println!("skipped: this file system keeps its pages in memory");
        return;
    }
    let major = Options { kind: Kind::File, file: file.clone(), ..options(Amount::Count(300), 2) };
    let report = run(&major, &Control::default()).unwrap();
    assert_exact(&report, 300);
    assert_eq!(report.crew.work(), Faults { major: 300, minor: 0 });

    let too_many = Options { amount: Amount::Count(1_000_000), ..major };
    assert!(run(&too_many, &Control::default()).unwrap_err().to_string().contains("too few"));
    let (opened, bytes) = cache::open(&file).unwrap();
    assert_eq!(cache::drop_cached(&opened, &file, bytes).unwrap(), Some(0));
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let count = |count, threads| options(Amount::Count(count), threads);
    let storm = options(Amount::Storm(Duration::ZERO), 1);
    for (bad, word) in [
        (count(0, 1), "number of faults is 0"),
        (count(1, 0), "0 threads"),
        (count(5000, 1025), "1025 threads"),
        (count(3, 4), "fewer threads"),
        (Options { rate: Some(0), ..count(1, 1) }, "rate of 0"),
        (Options { kind: Kind::File, ..count(1, 1) }, "cannot read unused"),
        (Options { kind: Kind::File, ..storm.clone() }, "--kind file"),
        (storm, "no duration"),
    ] {
        let error = format!("{:#}", run(&bad, &Control::default()).unwrap_err());
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn what_is_stopped_says_so() {
    let control = Control::default();
    control.stop.store(true, Ordering::Relaxed);
    let report = run(&options(Amount::Count(10), 2), &control).unwrap();
    assert!(report.interrupted);
    assert_eq!(report.crew.work(), Faults::default());
}
