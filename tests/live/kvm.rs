//! Exits of virtual machines: counts equal the guest's own and perf's, times and histograms agree with each other.

pub mod cases;
pub mod privilege;
pub mod stacks;

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

pub use self::cases::*;
use crate::run::{Place, Said, place, tool, trapline, u};

/// What a guest of the tests does, all kinds of exits at once.
pub const ALL_KINDS: &[&str] =
    &["--io", "50", "--cpuid", "70", "--hlt", "30", "--mmio", "20", "--msr", "40", "--touch", "25"];

/// In a virtual machine KVM is a module that somebody has to load.
pub fn load() {
    if place() == Place::Vm {
        Command::new("modprobe").args(["kvm_amd", "nested=1"]).status().unwrap();
    }
}

/// Why guests make no exits here that could be counted, if they do not: told by the kernel, not by trapline.
pub fn no_exits() -> Option<String> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        load();
        let events = "/sys/kernel/tracing/events/kvm/kvm_exit";
        if !std::path::Path::new(events).exists() {
            return Some("kvm is not loaded".into());
        }
        let output = trapline().args(["workload", "guest", "--io", "1", "--nested", "1"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        (!output.status.success()).then(|| format!("this kernel's KVM runs no such guest ({error})"))
    };
    WHY.get_or_init(find).clone()
}

/// Why there are no guests here that run without firing kvm_exit, if there are none.
pub fn no_unseen_exits() -> Option<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    if flags.split(' ').any(|flag| flag == "vmx" || flag == "svm") {
        return Some("this processor has VMX or SVM".into());
    }
    let there = ["/dev/kvm", "/sys/kernel/tracing/events/kvm/kvm_exit"];
    let missing = there.into_iter().find(|path| !std::path::Path::new(path).exists());
    missing.map(|path| format!("there is no {path}"))
}

/// `trapline kvm WHAT` on a variant, as JSON lines.
pub fn run(what: &str, variant: &str, arguments: &[&str]) -> Command {
    tool(&["kvm", what], variant, arguments)
}

/// The words that run a guest.
pub fn guest(arguments: &[&str]) -> Vec<String> {
    let start = [env!("CARGO_BIN_EXE_trapline"), "workload", "guest", "--format", "jsonl"];
    start.iter().chain(arguments).map(ToString::to_string).collect()
}

/// What trapline said of a guest that it ran, and what the guest said of itself.
pub fn watched(what: &str, variant: &str, options: &[&str], of_guest: &[&str]) -> (Said, Value) {
    let mut said = Said::by(run(what, variant, options).arg("--").args(guest(of_guest)));
    let at =
        said.totals.iter().position(|total| total["workload"] == "guest").expect("the guest said nothing");
    let truth = said.totals.remove(at);
    (said, truth)
}

/// Sums of `field` over rows of an exit, by the name that SVM or VMX gives it.
pub fn of(rows: &[Value], names: [&str; 2], field: &str) -> u64 {
    rows.iter().filter(|row| names.iter().any(|name| row["name"] == *name)).map(|row| u(&row[field])).sum()
}

/// The sum of a field of all rows.
pub fn sum(rows: &[Value], field: &str) -> u64 {
    rows.iter().map(|row| u(&row[field])).sum()
}

pub const IO: [&str; 2] = ["io", "IO_INSTRUCTION"];
pub const CPUID: [&str; 2] = ["cpuid", "CPUID"];
pub const HLT: [&str; 2] = ["hlt", "HLT"];
const MSR: [&str; 2] = ["msr", "MSR_READ"];
const PAGES: [&str; 2] = ["npf", "EPT_VIOLATION"];
const VMRUN: [&str; 2] = ["vmrun", ""];
const HYPERCALL: [&str; 2] = ["hypercall", ""];

/// Every exit that the guest knows of is there, at its level.
pub fn assert_truth(rows: &[Value], truth: &Value) {
    let expected = [
        (IO, "io", "l1_count"),
        (CPUID, "cpuid", "l1_count"),
        (HLT, "hlt", "l1_count"),
        (MSR, "msr", "l1_count"),
        (VMRUN, "vmrun", "l1_count"),
        (CPUID, "l2_cpuid", "l2_count"),
        (HYPERCALL, "l2_hypercall", "l2_count"),
    ];
    for (names, name, level) in expected {
        assert_eq!(of(rows, names, level), u(&truth[name]), "{name} of {truth} in {rows:#?}");
    }
    for names in [IO, HLT, MSR, VMRUN] {
        assert_eq!(of(rows, names, "l2_count"), 0);
    }
    assert_eq!(of(rows, HYPERCALL, "l1_count"), 0);
    // First touches of code and tables come on top.
    let pages = of(rows, PAGES, "count");
    assert!(pages >= u(&truth["mmio"]) + u(&truth["touch"]), "{pages} page faults of {truth}");
    for row in rows {
        assert_eq!(u(&row["count"]), u(&row["l1_count"]) + u(&row["l2_count"]), "{row}");
    }
}

pub fn counts_equal_the_guests_own(variant: &'static str) {
    for what in ["count", "time", "hist"] {
        let (said, truth) = watched(what, variant, &[], &[ALL_KINDS, &["--nested", "60"]].concat());
        assert_truth(&said.totals, &truth);
        assert_eq!(
            (said.end["lost_events"].clone(), said.end["uncounted_exits"].clone()),
            (0.into(), 0.into())
        );
        let all: u64 = said.totals.iter().map(|row| u(&row["count"])).sum();
        assert_eq!(u(&said.end["events"]), all);
        if what == "count" {
            assert!(said.totals.iter().all(|row| row["total_ns"].is_null() && row["max_ns"].is_null()));
        } else {
            // The last port write: no entry follows it.
            assert_eq!(u(&said.end["untimed_exits"]), 1);
        }
    }
}

/// perf counts the same exits by its filters, around trapline and its guest: nothing else runs a guest meanwhile.
pub fn counts_equal_perf_stat(variant: &'static str) {
    let nested = [ALL_KINDS, &["--nested", "60", "--vcpus", "2"]].concat();
    let (probe, _) = watched("count", variant, &[], &nested);
    let reasons: Vec<u64> = probe.totals.iter().map(|row| u(&row["reason"])).collect();
    let results = tempfile::NamedTempFile::new().unwrap();
    let mut perf = Command::new("perf");
    perf.args(["stat", "-a", "-x", ";", "-o"]).arg(results.path());
    for event in ["kvm:kvm_exit", "kvm:kvm_nested_vmexit"] {
        for reason in &reasons {
            perf.args(["-e", event, "--filter", &format!("exit_reason=={reason}")]);
        }
        perf.args(["-e", event]);
    }
    perf.arg("--");
    let ours = run("count", variant, &["--"]);
    perf.arg(ours.get_program()).args(ours.get_args()).args(guest(&nested));
    let mut said = Said::by(&mut perf);
    said.totals.retain(|total| total["workload"] != "guest");
    let text = std::fs::read_to_string(results.path()).unwrap();
    let counts: Vec<u64> = text
        .lines()
        .filter(|line| line.contains("kvm:kvm_"))
        .map(|line| line.split(';').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(counts.len(), 2 * (reasons.len() + 1), "{text}");
    let (exits, nested) = counts.split_at(reasons.len() + 1);
    let mut known = 0;
    for (i, reason) in reasons.iter().enumerate() {
        let count = |field: &str| {
            said.totals.iter().filter(|r| u(&r["reason"]) == *reason).map(|r| u(&r[field])).sum::<u64>()
        };
        assert_eq!((count("count"), count("l2_count")), (exits[i], nested[i]), "reason {reason}");
        known += exits[i];
    }
    let all = |field: &str| said.totals.iter().map(|row| u(&row[field])).sum::<u64>();
    assert_eq!(
        (all("count"), all("l2_count")),
        (exits[reasons.len()], nested[reasons.len()]),
        "{known} known"
    );
    assert!(all("l2_count") > 100);
}

/// Where most of an exit's time is a long pause of the VMM, what reading the clocks costs does not matter.
pub fn means_equal_perf_kvm_stat(variant: &'static str) {
    let data = tempfile::NamedTempFile::new().unwrap();
    let mut perf = Command::new("perf");
    perf.args(["kvm", "stat", "record", "-a", "-o"]).arg(data.path()).arg("--");
    // No look at every program that runs meanwhile, and no copy of it.
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[record]\nbuild-id = skip\n").unwrap();
    perf.env("PERF_CONFIG", config.path());
    let ours = run("time", variant, &["--"]);
    perf.arg(ours.get_program()).args(ours.get_args());
    perf.args(guest(&["--hlt", "20", "--pause", "20ms", "--cpuid", "50"])).stderr(Stdio::null());
    let mut said = Said::by(&mut perf);
    said.totals.retain(|total| total["workload"] != "guest");
    let report =
        Command::new("perf").args(["kvm", "-i"]).arg(data.path()).args(["stat", "report"]).output().unwrap();
    let text = String::from_utf8_lossy(&report.stdout) + String::from_utf8_lossy(&report.stderr);
    // VM-EXIT Samples Samples% Time% Min Max Avg, in microseconds.
    let row = |names: [&str; 2]| -> Vec<String> {
        let line =
            text.lines().find(|line| line.split_whitespace().next().is_some_and(|w| names.contains(&w)));
        line.unwrap_or_else(|| panic!("no {names:?} in {text}"))
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let number = |word: &str| word.trim_end_matches("us").parse::<f64>().unwrap();
    assert_eq!(row(HLT)[1].parse::<u64>().unwrap(), of(&said.totals, HLT, "timed"));
    assert_eq!(row(CPUID)[1].parse::<u64>().unwrap(), of(&said.totals, CPUID, "timed"));
    let (theirs, mine) = (number(&row(HLT)[6]) * 1e3, of(&said.totals, HLT, "avg_ns") as f64);
    println!("mean of HLT: {mine} ns, perf kvm stat {theirs} ns");
    assert!(mine > 20e6 && (mine / theirs - 1.0).abs() < 0.03, "{mine} {theirs}");
}

pub fn times_and_histograms_agree(variant: &'static str) {
    let (said, _) =
        watched("hist", variant, &[], &[ALL_KINDS, &["--nested", "30", "--pause", "1ms"]].concat());
    for row in &said.totals {
        let [count, timed, total, max, avg] =
            ["count", "timed", "total_ns", "max_ns", "avg_ns"].map(|name| row[name].as_u64().unwrap_or(0));
        let buckets: Vec<(u64, u64, u64)> = row["buckets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bucket| (u(&bucket[0]), bucket[1].as_u64().unwrap_or(u64::MAX), u(&bucket[2])))
            .collect();
        assert_eq!(buckets.iter().map(|&(.., n)| n).sum::<u64>(), timed, "{row}");
        assert!(timed <= count && count - timed <= 1, "{row}");
        if timed == 0 {
            continue;
        }
        let least: u64 = buckets.iter().map(|&(low, _, n)| low * n).sum();
        let most: u64 = buckets.iter().map(|&(_, high, n)| high.saturating_mul(n)).sum();
        assert!(least <= total && total <= most && avg == total / timed, "{row}");
        assert!(u(&row["p50_ns"]) <= u(&row["p90_ns"]) && u(&row["p90_ns"]) <= u(&row["p99_ns"]), "{row}");
        assert!(u(&row["p99_ns"]) <= max && max <= u(&said.end["duration_ns"]), "{row}");
        let &(low, high, _) = buckets.last().unwrap();
        assert!(low <= max && max <= high, "{row}");
        let (min, (low, high, _)) = (u(&row["min_ns"]), buckets[0]);
        assert!(low <= min && min <= high && min <= avg, "{row}");
        assert_eq!(u(&row["l1_ns"]) + u(&row["l2_ns"]), total);
    }
    // A vCPU is in its guest or out of it.
    let (guest, out) = (sum(&said.totals, "guest_ns"), sum(&said.totals, "total_ns"));
    assert!(guest > 0 && guest + out <= u(&said.end["duration_ns"]), "{guest} + {out}");
    // Each HLT waits for the VMM's pause.
    assert!(of(&said.totals, HLT, "p50_ns") >= 1_000_000);
}

pub fn slower_shows_what_the_histogram_holds(variant: &'static str) {
    let guest = [ALL_KINDS, &["--nested", "40", "--pause", "2ms", "--vcpus", "3"]].concat();
    for (than, threshold) in [("1048576ns", 1 << 20), ("0.065536", 1 << 16)] {
        let (said, _) = watched("slower", variant, &[than, "--excludes", "cpuid,"], &guest);
        let above = |buckets: &Value| {
            let buckets = buckets.as_array().unwrap();
            buckets
                .iter()
                .filter(|bucket| u(&bucket[0]) >= threshold)
                .map(|bucket| u(&bucket[2]))
                .sum::<u64>()
        };
        for row in &said.totals {
            for level in ["L1", "L2"] {
                let events =
                    said.events.iter().filter(|e| e["reason"] == row["reason"] && e["level"] == level);
                assert!(events.clone().all(|event| u(&event["latency_ns"]) >= threshold));
                assert!(events.count() as u64 <= above(&row["buckets"]));
            }
            let events = said.events.iter().filter(|event| event["reason"] == row["reason"]).count();
            assert_eq!(events as u64, above(&row["buckets"]), "{row}");
        }
        assert_eq!(said.events.len() as u64, u(&said.end["events"]));
        assert!(said.events.iter().filter(|event| event["name"] == HLT[0]).count() == 90);
        assert_eq!((of(&said.totals, CPUID, "count"), said.end["lost_events"].clone()), (0, 0.into()));
    }
}

/// Each moment of the handling belongs to one phase; and phases are what they are called.
pub fn phases_add_up(variant: &'static str) {
    let guest = [ALL_KINDS, &["--nested", "40", "--pause", "3ms"]].concat();
    let (said, truth) = watched("time", variant, &["--split"], &guest);
    let phases = ["kvm_ns", "vmm_ns", "blocked_ns", "preempted_ns", "fault_ns"];
    for row in &said.totals {
        let sum: u64 = phases.iter().map(|phase| u(&row[phase])).sum();
        assert_eq!(sum, u(&row["total_ns"]), "{row}");
    }
    // The VMM sleeps 30 times for 3 ms at HLT, is asked about every HLT, port and device, and about nothing else.
    assert!(of(&said.totals, HLT, "vmm_ns") >= 90_000_000, "{:#?}", said.totals);
    let vmm = |names| of(&said.totals, names, "to_vmm");
    assert_eq!((vmm(HLT), vmm(IO) + 1, vmm(PAGES)), (u(&truth["hlt"]), u(&truth["io"]), u(&truth["mmio"])));
    assert_eq!(vmm(CPUID) + vmm(MSR) + vmm(VMRUN) + vmm(HYPERCALL), 0);
    // The host finds memory for each page that the guest touches first.
    let found = of(&said.totals, PAGES, "host_minor");
    assert_eq!(found, u(&truth["touch"]), "{:#?}", said.totals);
    assert!(of(&said.totals, PAGES, "fault_ns") > 0);
    assert_eq!(of(&said.totals, CPUID, "fault_ns") + of(&said.totals, HLT, "host_minor"), 0);
    // Of the guest within: CPUID is the host's own to handle, VMMCALL goes to the guest.
    assert_eq!(of(&said.totals, CPUID, "l2_reflected"), 0);
    assert_eq!(of(&said.totals, HYPERCALL, "l2_reflected"), u(&truth["l2_hypercall"]));
}

/// L2 is left for an SMI after an exit that the VMM handled: that exit was not passed on to L1.
pub fn counts_of_reflections_leave_out_an_smi(variant: &'static str) {
    let (said, truth) = watched("time", variant, &["--split"], &["--nested", "20", "--smi"]);
    let of = |names, field: &str| of(&said.totals, names, field);
    assert_eq!((of(IO, "l2_count"), of(IO, "l2_reflected")), (u(&truth["l2_io"]), 0), "{:#?}", said.totals);
    assert_eq!(of(IO, "to_vmm") + 1, u(&truth["io"]) + u(&truth["l2_io"]));
    assert_eq!(of(["rsm", ""], "l1_count"), u(&truth["rsm"]), "{:#?}", said.totals);
    assert_eq!((of(HYPERCALL, "l2_count"), of(HYPERCALL, "l2_reflected")), (20, 20));
    assert_eq!((of(CPUID, "l2_count"), of(CPUID, "l2_reflected")), (20, 0));
}

pub fn subjects(variant: &'static str) {
    let counts = |by: &str, name: [&str; 2]| {
        let (said, truth) = watched("time", variant, &["--by", by], ALL_KINDS);
        assert_eq!(sum(&said.totals, "count"), u(&said.end["events"]), "rows add up to all exits");
        let (with, without): (Vec<Value>, Vec<Value>) =
            said.totals.into_iter().partition(|row| !row[by].is_null());
        let row = |row: &Value| (u(&row[by]), row["rw"].as_str().unwrap().to_owned(), u(&row["count"]));
        assert!(without.iter().all(|row| row["rw"].is_null()), "{without:#?}");
        assert_eq!(of(&without, CPUID, "count"), u(&truth["cpuid"]));
        (with.iter().map(row).collect::<Vec<_>>(), of(&without, name, "count"), truth)
    };
    let (msr, without, truth) = counts("msr", MSR);
    assert_eq!((msr, without), (vec![(0x1b, "R".to_owned(), u(&truth["msr"]))], 0));
    let (ports, without, truth) = counts("port", IO);
    assert_eq!(ports, [(0x10, "W".to_owned(), u(&truth["io"]) - 1), (0x11, "W".to_owned(), 1)]);
    assert_eq!(without, 0);
    let (devices, without, truth) = counts("mmio", PAGES);
    assert_eq!(devices, [(0xd000_0000, "W".to_owned(), u(&truth["mmio"]))]);
    // The first touches of pages.
    assert!(without >= u(&truth["touch"]), "{without} of {truth}");
    // The VMM is asked about each port, device and HLT, and about nothing else.
    let (said, truth) = watched("time", variant, &["--by", "userspace"], ALL_KINDS);
    assert_eq!(sum(&said.totals, "count"), u(&said.end["events"]), "rows add up to all exits");
    let asked = |why: &str| -> u64 {
        let rows = said.totals.iter().filter(|row| row["userspace"] == why);
        rows.map(|row| u(&row["count"])).sum()
    };
    let expected = ["io", "hlt", "mmio"].map(|name| u(&truth[name]));
    assert_eq!([asked("IO"), asked("HLT"), asked("MMIO")], expected, "{:#?}", said.totals);
    let own: Vec<Value> = said.totals.iter().filter(|row| row["userspace"].is_null()).cloned().collect();
    assert_eq!(sum(&own, "count") + expected.iter().sum::<u64>(), u(&said.end["events"]));
    // Each loop of the guest is one instruction.
    let (said, truth) = watched("count", variant, &["--by", "rip"], ALL_KINDS);
    let cpuid: Vec<&Value> = said.totals.iter().filter(|row| row["name"] == CPUID[0]).collect();
    assert_eq!((cpuid.len(), u(&cpuid[0]["count"])), (1, u(&truth["cpuid"])));
    assert!(said.totals.iter().all(|row| (0x2000..0x3000).contains(&u(&row["rip"]))));
}
