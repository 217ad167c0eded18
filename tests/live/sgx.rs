//! `trapline sgx` beside the stand-in for a driver, whose counts it must equal exactly.

pub mod driver;
pub mod exact;
pub mod frame;
pub mod memory;
pub mod privilege;
pub mod refuse;

use std::process::Command;

use serde_json::Value;

use crate::run::{Said, missed, preempts, tool, u};
use crate::running::Worker;
use crate::sgx::driver::{Counts, Double, makes_a_detour, touching};

/// `trapline sgx` on a variant, as JSON lines.
pub fn sgx(variant: &str, arguments: &[&str]) -> Command {
    let double: &[&str] = if makes_a_detour(variant) { &["sgx"] } else { &["sgx", "--module", "sgx_double"] };
    tool(double, variant, arguments)
}

/// What the module counts, by the names of our fields.
pub const SAME: &[&str] =
    &["faults", "pages", "loads", "evictions", "added", "mapped", "busy", "secs_loads", "secs_evictions"];

pub fn assert_same(row: &Value, counted: &Counts) {
    for &name in SAME {
        if row[name].is_null() {
            assert!(name == "added" && counted[name] == 0, "{name} is not known: {row}");
            continue;
        }
        assert_eq!(u(&row[name]), counted[name], "{name}: {row} for {counted:?}");
    }
    if !row["evicted_by_daemon"].is_null() {
        assert_eq!(u(&row["evicted_by_daemon"]), counted["by_daemon"], "{row} for {counted:?}");
    }
    assert_eq!(row["unaccounted"], 0);
    assert_eq!(row["failed"], 0);
}

fn assert_nothing_lost(said: &Said) {
    for loss in [
        "lost_events",
        "missed_programs",
        "untracked_faults",
        "unpaired_faults",
        "unmarked_evictions",
        "unread_enclaves",
        "folded_rows",
    ] {
        assert_eq!(said.end[loss], 0, "{loss}: {}", said.end);
    }
}

/// Whether it saw everything, as it must, but for one case: where the kernel preempts itself, it may leave programs of
/// `fentry` out. Then what it says of that must add up.
pub fn is_complete(variant: &str, said: &Said, double: &Double) -> bool {
    let [faults, others] = [u(&said.end["missed_faults"]), missed(&said.end)];
    if variant != "fentry" || !preempts() || faults + others == 0 {
        assert_nothing_lost(said);
        return true;
    }
    let counted = double.counts()["faults"];
    println!("fentry, preempted: {faults} faults of {counted} and {others} other events missed");
    assert_eq!(said.end["lost_events"], faults);
    let seen: u64 = said.totals.iter().map(|row| u(&row["faults"])).sum();
    assert_eq!(seen + faults, counted, "{}", said.end);
    false
}

/// The rows of enclaves add up to all counts.
pub fn assert_sums(said: &Said, counted: &Counts) {
    for name in SAME {
        let sum: u64 = said.totals.iter().map(|row| row[name].as_u64().unwrap_or(0)).sum();
        assert_eq!(sum, counted[*name], "{name}");
    }
}

/// Runs a fixture under it; checks the row of all against all counts, and gives what was said.
pub fn one(variant: &'static str, double: &Double, options: &[&str], words: &[String]) -> Said {
    let said = Said::by(sgx(variant, options).arg("--").args(words));
    if is_complete(variant, &said, double) {
        assert_same(&said.totals[0], &double.counts());
    }
    assert_eq!(said.totals.len(), 1, "{:?}", said.totals);
    said
}

/// An enclave that touches what it is asked to.
pub struct Asked(Worker);

impl Asked {
    pub fn start(variant: &str, pages: usize) -> Self {
        Self(Worker::start(&touching(variant, &[("pages", pages), ("asked", 1)])))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn touch(&mut self, first: usize, count: usize) {
        self.touch_each(1, first, count);
    }

    /// Touches the first of each `stride` pages.
    pub fn touch_each(&mut self, stride: usize, first: usize, count: usize) {
        self.0.tell(format_args!("{first} {count} {stride}"));
        assert_eq!(self.0.line(), "done");
    }

    pub fn end(self) {
        self.0.end();
    }
}

pub fn command_is_as_without_us(variant: &'static str) {
    let _double = Double::load(variant, 100);
    crate::command::is_the_same(&|| sgx(variant, &[]), &[]);
}
