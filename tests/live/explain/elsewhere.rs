//! Findings of recordings that are not of faults: accesses, exits and enclaves.

use std::time::Duration;

use super::limits::Limited;
use crate::faults::cause::Setting;
use crate::fixture::{PAGE, map, touch};
use crate::kvm::guest;
use crate::run::{Said, fixture, scratch, trapline};
use crate::running::Worker;
use crate::sgx::driver::{Double, touching};

/// The rules that apply to a recording that these words make of a command.
fn found(words: &[&str], command: &[String]) -> Vec<String> {
    let whose: Vec<&str> = ["--"].into_iter().chain(command.iter().map(String::as_str)).collect();
    found_of(words, &whose)
}

/// The same of what the last words name.
fn found_of(words: &[&str], whose: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let recording = folder.path().join("elsewhere.trapline");
    let output = trapline().args(words).arg("-o").arg(&recording).args(whose).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = trapline().args(["explain", "--format", "jsonl"]).arg(&recording).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = Said::parse(&output.stdout, "");
    println!("{:#?} {}", said.totals, said.end);
    said.totals.iter().map(|total| total["rule"].as_str().unwrap().to_owned()).collect()
}

/// Two threads write to the same pages, each to the other end of them.
pub fn shares_pages() {
    let memory = map(64 * PAGE, 0);
    let at = memory.0.expose_provenance();
    std::thread::scope(|scope| {
        for line in [0, PAGE - 64] {
            scope.spawn(move || {
                for _ in 0..100 {
                    for page in (0..64 * PAGE).step_by(PAGE) {
                        let word: *mut u8 = std::ptr::with_exposed_provenance_mut(at + page + line);
                        // SAFETY: within the mapping, which is writable; no other thread has this word.
                        unsafe { word.write_volatile(1) };
                    }
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
        }
    });
}

pub fn of_accesses(engine: &'static str) {
    let mut apart = fixture("explain");
    apart.push("shares-pages".into());
    assert_eq!(found(&["access", "--reset", engine], &apart), ["false-sharing"]);
    let touch = |more: &[&str]| {
        let words = ["workload", "touch", "--pages", "64", "--rounds", "200", "--pause", "2ms"];
        let mut command = vec![env!("CARGO_BIN_EXE_trapline").to_owned()];
        command.extend(words.iter().chain(more).map(ToString::to_string));
        found(&["access", "--reset", engine], &command)
    };
    // Both threads write the first word of each page: they share what they write, and truly.
    assert_eq!(touch(&["--on", "shared", "--threads", "2", "--together"]), [""; 0]);
    assert_eq!(touch(&[]), [""; 0]);
}

/// Writes to each of so many pages, again and again, for longer than it is looked at.
pub fn needs_pages(pages: usize) {
    let memory = map(pages * PAGE, 0);
    touch(&memory);
    println!("ready");
    for _ in 0..2000 {
        touch(&memory);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// It writes to most of the pages that its cgroup may have, or to half of them.
pub fn of_a_working_set(engine: &'static str) {
    for (pages, rules) in [(2600, &["working-set"][..]), (1500, &[])] {
        // 3072 pages.
        let limited = Limited::most("12M");
        let mut worker = Worker::by(&mut limited.command(&format!("needs-{pages}-pages")));
        assert_eq!(worker.line(), "ready");
        let pid = worker.id().to_string();
        assert_eq!(
            found_of(&["access", "--reset", engine, "-d", "2s"], &["-p", &pid]),
            rules,
            "{pages} pages"
        );
    }
}

/// KVM polls for as long as it may, in nanoseconds.
const HALT_POLL_NS: &str = "/sys/module/kvm/parameters/halt_poll_ns";

pub fn of_guests(_: &'static str) {
    let halted = || guest(&["--hlt", "120", "--halts-in-kvm", "--pause", "60ms"]);
    for (poll_ns, rules) in [("100000000", &["halt-polling"][..]), ("0", &[])] {
        let _polls = Setting::change(HALT_POLL_NS, poll_ns);
        assert_eq!(found(&["kvm", "time", "--split"], &halted()), rules, "{poll_ns} ns");
    }
    for (does, rules) in [
        (&["--cpuid", "100"][..], &[][..]),
        (&["--hlt", "150", "--pause", "5ms"], &["slow-vmm"]),
        (&["--msr", "20000"], &["msr-storm"]),
        (&["--touch", "20000"], &["host-faults"]),
    ] {
        assert_eq!(found(&["kvm", "time", "--split"], &guest(does)), rules, "{does:?}");
    }
    // The guest's own guest makes it write to a port each time, which is a finding of its own.
    let nested = found(&["kvm", "time", "--split"], &guest(&["--nested", "3000"]));
    assert!(nested.iter().any(|rule| rule == "nested"), "{nested:?}");
    assert!(nested.iter().all(|rule| ["nested", "slow-vmm"].contains(&rule.as_str())), "{nested:?}");
}

pub fn of_enclaves(_: &'static str) {
    let touched = |memory, pages| {
        let _double = Double::load("auto", memory);
        found(&["sgx"], &touching("auto", &[("pages", pages), ("rounds", 30)]))
    };
    assert_eq!(touched(200, 500), ["epc-thrash"]);
    assert_eq!(touched(1000, 500), [""; 0]);
}
