//! What is around the counts of `trapline sgx`: intervals, groups, filters, memory.

use serde_json::Value;

use crate::faults::diff::compared;
use crate::faults::replay::{count, is_whole, page};
use crate::run::{Beside, Said, scratch, trapline, u};
use crate::sgx::driver::{Double, touching};
use crate::sgx::{Asked, sgx};

/// Pages in a chunk of marks: SGX_CHUNK_PAGES of bpf/sgx.h.
pub const CHUNK: usize = 118 * 64;

/// Waits until its rows have told of so many evictions and faults in all, and then of an interval without any.
fn settled(trapline: &mut Beside, told: &mut [u64; 2], cumulative: bool, until: [u64; 2]) {
    for _ in 0..1200 {
        let row = trapline.next();
        if row["type"] != "row" {
            continue;
        }
        let here = ["evictions", "faults"].map(|name| u(&row[name]));
        let idle = here == if cumulative { *told } else { [0, 0] };
        *told = if cumulative { here } else { [told[0] + here[0], told[1] + here[1]] };
        assert!(told[0] <= until[0] && told[1] <= until[1], "{row}");
        if idle && *told == until {
            return;
        }
    }
    panic!("a minute's rows tell of {told:?} evictions and faults, not of {until:?}");
}

/// What is distinct, and what is brought back, is so within an interval, or with `-c` within the run.
pub fn clearing_and_not(variant: &'static str) {
    for cumulative in [false, true] {
        let double = Double::load(variant, 1000);
        let options: &[&str] = if cumulative { &["-i", "100ms", "-c"] } else { &["-i", "100ms"] };
        let mut trapline = Beside::start(sgx(variant, options));
        let mut told = [0, 0];
        let mut settled = |until| settled(&mut trapline, &mut told, cumulative, until);
        let mut enclave = Asked::start(variant, 400);
        enclave.touch(0, 200);
        settled([0, 200]);
        double.evict(4);
        settled([64, 200]);
        enclave.touch(0, 200);
        settled([64, 264]);
        enclave.touch(100, 200);
        enclave.end();
        let said = trapline.interrupt();
        let counted = double.counts();
        assert_eq!((counted["pages"], counted["faults"], counted["loads"]), (300, 364, 364));
        let row = &said.totals[0];
        assert_eq!((u(&row["faults"]), u(&row["loads"]), u(&row["evictions"])), (364, 364, 64));
        // Another interval began between eviction and load.
        assert_eq!(u(&row["refaults"]), if cumulative { 64 } else { 0 });
        let all = |name: &str| said.rows.iter().map(|row| u(&row[name])).sum::<u64>();
        assert_eq!(all("unaccounted"), 0);
        if cumulative {
            let pages = |row: &Value| u(&row["pages"]);
            assert_eq!((pages(row), pages(said.rows.last().unwrap())), (300, 300));
            assert!(said.rows.iter().map(pages).is_sorted());
        } else {
            // 200, then the 64 that were evicted, then 100 that were not there yet.
            assert_eq!((all("pages"), all("faults")), (364, 364), "{:#?}", said.rows);
            assert_eq!((all("timed"), all("load_ns")), (364, u(&row["load_ns"])));
            assert_eq!(
                said.rows.iter().filter_map(|row| row["max_ns"].as_u64()).max(),
                row["max_ns"].as_u64()
            );
            assert!(row["pages"].is_null(), "distinct in each interval is not distinct over all: {row}");
        }
    }
}

/// Pages that had been touched before anybody looked: that they were evicted is all that tells of their coming back.
pub fn brought_back(variant: &'static str) {
    let double = Double::load(variant, 1000);
    let mut enclave = Asked::start(variant, 400);
    enclave.touch(0, 200);
    let trapline = Beside::start(sgx(variant, &["-c"]));
    double.evict(4);
    enclave.touch(0, 300);
    enclave.end();
    let said = trapline.interrupt();
    let row = &said.totals[0];
    let figures = ["evictions", "faults", "loads", "pages", "refaults"].map(|name| u(&row[name]));
    assert_eq!(figures, [64, 164, 164, 164, 64], "{row}");
}

pub fn groups_and_filters(variant: &'static str) {
    let _double = Double::load(variant, 1000);
    let mut enclaves = [Asked::start(variant, 100), Asked::start(variant, 100)];
    let pids = enclaves.each_ref().map(|enclave| enclave.pid().to_string());
    for group in ["process", "cgroup"] {
        let trapline = Beside::start(sgx(variant, &["--by", group, "-c"]));
        let fresh = if group == "process" { 0 } else { 30 };
        enclaves.iter_mut().for_each(|enclave| enclave.touch(fresh, 30));
        let said = trapline.interrupt();
        let faults: Vec<_> = said.totals.iter().map(|row| u(&row["faults"])).collect();
        if group == "process" {
            assert_eq!(faults, [30, 30]);
        } else {
            assert_eq!(faults, [60]);
            assert!(said.totals[0]["cgroup"].as_str().unwrap().starts_with('/'), "{:?}", said.totals);
        }
    }
    let trapline = Beside::start(sgx(variant, &["-p", &pids[1], "--by", "process", "-c"]));
    enclaves.iter_mut().for_each(|enclave| enclave.touch(60, 40));
    enclaves.into_iter().for_each(Asked::end);
    let said = trapline.wait();
    assert_eq!(said.totals.len(), 1, "{:?}", said.totals);
    assert_eq!((u(&said.totals[0]["faults"]), said.totals[0]["pid"].to_string()), (40, pids[1].clone()));
}

/// What the budget cannot hold is counted as such, and nothing else suffers.
pub fn little_memory(variant: &'static str) {
    let double = Double::load(variant, 3000);
    let words = touching(variant, &[("pages", 2000 * CHUNK), ("stride", CHUNK)]);
    let said = Said::by(sgx(variant, &["--memory", "1"]).arg("--").args(&words));
    let (row, counted) = (&said.totals[0], double.counts());
    assert_eq!((u(&row["faults"]), u(&row["loads"])), (counted["faults"], counted["loads"]));
    assert_eq!((u(&row["pages"]), u(&row["unaccounted"])), (992, 2000 - 992), "{row}");
    assert_eq!(said.header["memory_mb"], 1);
}

pub fn a_recording_is_read_back_whole(_: &'static str) {
    let _double = Double::load("auto", 200);
    let words = touching("auto", &[("pages", 500), ("rounds", 20)]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for by in [&[][..], &["--by", "enclave"], &["--by", "cgroup"]] {
        let text = is_whole(&[&["sgx", "-i", "10ms", "--hist"], by].concat(), &words);
        assert!(count(&text, "row") > 0 && count(&text, "total") == 1, "{text}");
    }
}

/// Faults, loads and evictions of each enclave over time are the driver's own.
pub fn a_page_has_the_paging_of_the_enclave(_: &'static str) {
    let double = Double::load("auto", 200);
    let words = touching("auto", &[("pages", 500), ("rounds", 100)]);
    let (page, _) = page(&["sgx", "--by", "enclave", "-i", "50ms"], &words);
    let counted = double.counts();
    for measure in ["faults", "loads"] {
        assert_eq!(page.sum(measure, None), counted[measure], "{measure} of {counted:?}");
    }
    assert!(page.0["has_time"] == true && page.intervals() >= 2, "{} intervals", page.intervals());
    let dims: Vec<&Value> = page.0["dims"].as_array().unwrap().iter().map(|dim| &dim["name"]).collect();
    assert!(dims.contains(&&"process".into()), "{dims:?}");
}

/// Two recordings: the difference of loads and faults is that of the driver's own counts.
pub fn differences_are_those_of_the_driver(_: &'static str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    for (by, extension) in [("enclave", "jsonl"), ("process", "trapline")] {
        let runs = [("before", 500), ("after", 900)].map(|(name, pages)| {
            let double = Double::load("auto", 200);
            let path = folder.path().join(format!("{by}-{name}.{extension}"));
            let mut run = trapline();
            run.args(["sgx", "--by", by, "-o"])
                .arg(&path)
                .arg("--")
                .args(touching("auto", &[("pages", pages)]));
            let output = run.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            (path, double.counts())
        });
        let [(before, old), (after, new)] = &runs;
        let options = ["--per", "1", "--figures", "faults,loads", "--format", "jsonl"];
        let rows = compared(&[before, after], &options);
        for figure in ["faults", "loads"] {
            let of = |side: &str| {
                let rows = rows.iter().filter(|row| row["type"] == "total" && row["figure"] == figure);
                rows.map(|row| u(&row[side])).sum::<u64>()
            };
            assert_eq!(
                [of("before"), of("after")],
                [old[figure] * 1000, new[figure] * 1000],
                "{by}: {rows:#?}"
            );
        }
    }
}

pub fn the_form_for_people(_: &'static str) {
    let _double = Double::load("auto", 200);
    let words = touching("auto", &[("pages", 500)]);
    let table = |options: &[&str]| {
        let output = trapline().arg("sgx").args(options).arg("--").args(&words).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let text = table(&["-i", "1", "--hist"]);
    let heading = text.lines().find(|line| line.contains("PAGES")).unwrap();
    assert!(heading.starts_with('[') && heading.as_bytes()[9] == b']', "{heading}");
    let five = &heading[11..];
    assert!(
        five.starts_with("PAGES        SIZE (MB)    UNACCOUNTED  FAULTS       BANDWIDTH (MB)"),
        "{heading}"
    );
    assert!(text.starts_with("trapline sgx by "), "{text}");
    assert!(text.contains("distribution") && text.contains("|****"), "{text}");
    assert!(table(&["--by", "enclave"]).contains("ENCLAVE"));
}
