//! Every count of `trapline sgx` equals the stand-in's own.

use serde_json::Value;

use crate::run::{Beside, lines, missed, spawn, u};
use crate::running::until;
use crate::sgx::driver::{Double, PAGE, device, makes_a_detour, touching};
use crate::sgx::{Asked, assert_same, assert_sums, is_complete, one, sgx};

pub fn one_enclave(variant: &'static str) {
    let double = Double::load(variant, 200);
    let words = touching(variant, &[("pages", 900), ("rounds", 3)]);
    let said = one(variant, &double, &["--by", "enclave"], &words);
    let row = &said.totals[0];
    let truth = &said.truth[0];
    for name in ["pid", "base", "size"] {
        assert_eq!(row[name], truth[name], "{row}");
    }
    assert_eq!((u(&row["pages"]), u(&row["loads"])), (900, 2700));
    assert_eq!(u(&row["bytes"]), 900 * PAGE as u64);
    assert_eq!(u(&row["brought_bytes"]), 2700 * PAGE as u64);
    // Each page is loaded once fresh and twice after it was evicted, all in one interval.
    assert_eq!((u(&row["refaults"]), u(&row["refault_percent"])), (1800, 66));
    assert_eq!(u(&row["timed"]), 2700);
    assert!(u(&row["p50_ns"]) <= u(&row["p99_ns"]) && u(&row["p99_ns"]) <= u(&row["max_ns"]), "{row}");
    assert!(u(&row["max_ns"]) <= u(&row["load_ns"]) && u(&row["load_ns"]) <= u(&said.end["duration_ns"]));
    let module = if makes_a_detour(variant) { Value::Null } else { "sgx_double".into() };
    assert_eq!((&said.header["module"], &said.header["variant"]), (&module, &variant.into()));
}

pub fn one_that_grows(variant: &'static str) {
    let double = Double::load(variant, 200);
    let words = touching(variant, &[("pages", 900), ("rounds", 2), ("grows", 1)]);
    let said = one(variant, &double, &[], &words);
    assert_eq!((u(&said.totals[0]["added"]), u(&said.totals[0]["loads"])), (900, 900));
    assert_eq!(u(&said.totals[0]["brought_bytes"]), 1800 * PAGE as u64);
}

pub fn three_at_once_at_the_same_addresses(variant: &'static str) {
    let double = Double::load(variant, 300);
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    let at = 0x7000_0000_0000;
    let start = |pages: usize| spawn(&touching(variant, &[("pages", pages), ("at", at), ("rounds", 2)]));
    let children: Vec<_> = [400, 700, 1000].into_iter().map(start).collect();
    let mut truths = Vec::new();
    for child in children {
        let output = child.output();
        assert!(output.status.success());
        truths.extend(lines(&output.stdout));
    }
    let said = trapline.interrupt();
    if !is_complete(variant, &said, &double) {
        return;
    }
    assert_eq!((said.totals.len(), truths.len()), (3, 3), "{:?}", said.totals);
    for truth in &truths {
        let row = said.totals.iter().find(|row| row["pid"] == truth["pid"]).unwrap();
        assert_eq!(u(&row["base"]), at as u64);
        // Evictions may go on until the enclave is gone, after it told its counts.
        for name in ["faults", "pages", "loads", "size"] {
            assert_eq!(row[name], truth[name], "{name}: {row} for {truth}");
        }
    }
    let all = double.counts();
    assert_sums(&said, &all);
    assert_eq!(all["pages"], 2100);
}

/// All of them live when they are read.
pub fn eighty_at_once(variant: &'static str) {
    let double = Double::load(variant, 1000);
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    let mut enclaves: Vec<Asked> = (0..80).map(|_| Asked::start(variant, 5)).collect();
    enclaves.iter_mut().for_each(|enclave| enclave.touch(0, 5));
    let said = trapline.interrupt();
    let mut pids: Vec<u64> = enclaves.iter().map(|enclave| enclave.pid().into()).collect();
    enclaves.into_iter().for_each(Asked::end);
    if !is_complete(variant, &said, &double) {
        return;
    }
    let mut rows: Vec<u64> = said.totals.iter().map(|row| u(&row["pid"])).collect();
    pids.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, pids);
    for row in &said.totals {
        assert_eq!(u(&row["pages"]), 5, "{row}");
    }
}

pub fn far_apart_in_32_gb(variant: &'static str) {
    let double = Double::load(variant, 300);
    let pages = 32 << 18;
    let words = touching(variant, &[("pages", pages), ("stride", 16_411), ("rounds", 2)]);
    let said = one(variant, &double, &[], &words);
    assert_eq!(u(&said.totals[0]["pages"]), pages.div_ceil(16_411) as u64);
}

pub fn threads_on_all_processors(variant: &'static str) {
    let double = Double::load(variant, 300);
    let threads = std::thread::available_parallelism().unwrap().get() * 2;
    let words = touching(variant, &[("pages", 1000), ("threads", threads), ("rounds", 2)]);
    one(variant, &double, &[], &words);
}

pub fn one_that_dies(variant: &'static str) {
    let double = Double::load(variant, 100);
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    for _ in 0..3 {
        let before = double.counts()["loads"];
        let child = spawn(&touching(variant, &[("pages", 500), ("rounds", 100_000)]));
        until("loads", || double.counts()["loads"] >= before + 1000);
        drop(child);
    }
    let said = trapline.interrupt();
    if !is_complete(variant, &said, &double) {
        return;
    }
    assert_eq!(said.totals.len(), 3, "one for each: {:?}", said.totals);
    let all = double.counts();
    assert_sums(&said, &all);
}

/// A driver's structure is used again for the next enclave: it is another enclave all the same.
pub fn one_after_the_other(variant: &'static str) {
    let double = Double::load(variant, 300);
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    for _ in 0..5 {
        assert!(spawn(&touching(variant, &[("pages", 50)])).wait().unwrap().success());
    }
    let said = trapline.interrupt();
    assert_eq!(said.totals.len(), 5, "{:?}", said.totals);
    assert!(said.totals.iter().all(|row| row["pages"] == 50), "{:?}", said.totals);
    assert_eq!(double.counts()["pages"], 250);
}

pub fn a_guests_memory(variant: &'static str) {
    let double = Double::load(variant, 300);
    let trapline = Beside::start(sgx(variant, &["--by", "enclave", "-c"]));
    let mut words = touching(variant, &[("pages", 120)]);
    let at = words.iter().position(|word| word == device(variant)).unwrap();
    words[at] = "/dev/sgx_double_vepc".into();
    assert!(spawn(&words).wait().unwrap().success());
    let said = trapline.interrupt();
    assert_eq!(said.totals.len(), 1, "{:?}", said.totals);
    let row = &said.totals[0];
    assert_eq!((row["class"].as_str(), u(&row["size"])), (Some("guest"), 120 * PAGE as u64));
    assert_same(row, &double.counts());
    assert_eq!((u(&row["added"]), u(&row["evictions"])), (120, 0));
}

pub fn who_evicted(variant: &'static str) {
    let double = Double::load(variant, 1000);
    let trapline = Beside::start(sgx(variant, &["-c"]));
    let mut enclave = Asked::start(variant, 400);
    enclave.touch(0, 320);
    double.evict(5);
    enclave.touch(0, 320);
    enclave.end();
    let said = trapline.interrupt();
    let row = &said.totals[0];
    assert_same(row, &double.counts());
    assert_eq!((u(&row["evicted_by_tasks"]), u(&row["evicted_by_daemon"])), (80, 0));
    assert_eq!((u(&row["refaults"]), u(&row["loads"])), (80, 400));
}

pub fn a_storm(variant: &'static str) {
    // Less than the pages of one thread: also if it runs alone for a while, each touch is a load.
    const POOL: usize = 256;
    let double = Double::load(variant, POOL);
    let threads = std::thread::available_parallelism().unwrap().get() * 2;
    let pages = threads * POOL * 2;
    let words = touching(variant, &[("pages", pages), ("threads", threads), ("rounds", 2)]);
    let said = one(variant, &double, &[], &words);
    let row = &said.totals[0];
    let seconds = u(&said.end["duration_ns"]) as f64 / 1e9;
    println!("{variant}: {:.0} faults a second for {seconds:.1} s", u(&row["faults"]) as f64 / seconds);
    assert!(u(&row["loads"]) + missed(&said.end) >= 2 * pages as u64, "{row}");
}
