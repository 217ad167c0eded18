//! What is around the counts of `trapline sgx`: intervals, groups, filters, memory, refusals.

use serde_json::Value;

use crate::run::{Beside, Said, lines, trapline, u, version};
use crate::sgx::{Asked, sgx};
use crate::sgx_driver::{Double, touching, unload};

/// Pages in a chunk of marks: SGX_CHUNK_PAGES of bpf/sgx.h.
const CHUNK: usize = 118 * 64;

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
    assert!(text.lines().next().unwrap().contains("memory mb 16"), "{text}");
    assert!(text.contains("distribution") && text.contains("|****"), "{text}");
    assert!(table(&["--by", "enclave"]).contains("ENCLAVE"));
}

/// An enclave of 64 GB. One page of each chunk of marks makes all chunks, and the pages that follow cost nothing.
pub fn sixty_four_gigabytes(_: &'static str) {
    let double = Double::load("auto", 3000);
    let trapline = Beside::start(sgx("auto", &["-c"]));
    let mut enclave = Asked::start("auto", 64 << 18);
    let nothing = map_memory(trapline.pid());
    enclave.touch_each(CHUNK / 2, 0, 64 << 18);
    let sparse = map_memory(trapline.pid());
    let fully = CHUNK;
    enclave.touch(0, fully);
    let dense = map_memory(trapline.pid());
    enclave.end();
    let said = trapline.interrupt();
    assert_eq!(u(&said.totals[0]["pages"]), double.counts()["pages"]);
    assert!(u(&said.totals[0]["pages"]) > (fully + (64 << 18) / CHUNK) as u64);
    assert_eq!(said.totals[0]["unaccounted"], 0);
    println!(
        "marks of 64 GB: {nothing} bytes, {sparse} with two pages in each chunk, {dense} with all of one"
    );
    assert_eq!(sparse, dense);
    // Up to 6.3 the kernel says what a map could hold, not what it holds.
    if version() >= (6, 4) {
        assert!(nothing < 600_000, "{nothing} bytes for nothing");
        assert!(nothing < sparse && sparse <= 3 << 20, "{sparse} bytes");
    }
}

/// Bytes of the map that holds the marks, as the kernel tells them.
fn map_memory(pid: u32) -> u64 {
    let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let texts: Vec<String> = infos.filter_map(|info| std::fs::read_to_string(info.path()).ok()).collect();
    let marks = texts.iter().find(|text| text.contains("value_size:\t944\n")).unwrap();
    let line = marks.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
    line.trim().parse().unwrap()
}

/// Without the stand-in: the probes attach to the kernel's own driver, and it is said that nothing will come of it.
pub fn the_kernels_own_functions(_: &'static str) {
    unload();
    let doctor = trapline().args(["doctor", "--format", "jsonl"]).output().unwrap();
    let said = lines(&doctor.stdout);
    for (variant, attaches) in [("fentry", "yes"), ("kprobe", "yes"), ("legacy", "no")] {
        let row = said.iter().find(|row| row["tool"] == "sgx" && row["variant"] == variant).unwrap();
        assert_eq!(row["attaches"], attaches, "{row}");
    }
    assert!(said[0]["sgx"].as_str().unwrap().starts_with("there is no SGX here: "), "{}", said[0]);
    let output = trapline().arg("sgx").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("trapline: there is no SGX here: ") && error.lines().count() == 1, "{error}");
    let output = trapline().args(["sgx", "--module", "sgx_double"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "it is not loaded");
}

/// The kernel's own driver has functions of the stand-in's names. `fentry` on a module's function takes those of the
/// kernel instead, up to 6.3; then it must be refused, and the next variant used.
pub fn fentry_on_a_module(_: &'static str) {
    let _double = Double::load("auto", 100);
    let options = ["--module", "sgx_double", "--variant", "fentry", "-d", "100ms"];
    let output = trapline().arg("sgx").args(options).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    if version() >= (6, 4) {
        assert!(output.status.success(), "{error}");
        return;
    }
    assert_eq!(output.status.code(), Some(3), "{error}");
    let why = "fentry: the kernel attached it to another function of that name, not to sgx_double's";
    assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    let auto = sgx("auto", &["-d", "100ms"]).output().unwrap();
    assert_eq!(lines(&auto.stdout)[0]["variant"], "kprobe");
}
