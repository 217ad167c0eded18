//! Drives the binary on the running kernel, as root, and compares what it says with the kernel's own figures.
//!
//! The list in `main` is the index. Each test runs once for every variant that attaches; what cannot run here is
//! ignored with its reason, or fails where everything must run (`TRAPLINE_PLACE=vm:…`). The same executable is the
//! workload: `--fixture NAME` makes faults whose number is known (see fixture.rs).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod exact;
mod fixture;
mod frame;
mod many;
mod refuse;
mod run;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::run::{Place, place};

/// A test that runs on each variant of these.
struct Case {
    name: &'static str,
    variants: &'static [&'static str],
    test: fn(variant: &'static str),
}

const ALL: &[&str] = &["fentry", "kprobe", "tracepoint", "counters"];
const TIMING: &[&str] = &["fentry", "kprobe", "tracepoint"];
/// Not about a variant: run on whichever is chosen.
const AUTO: &[&str] = &["auto"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "exact::every_kind_of_fault_per_thread", variants: ALL, test: exact::every_kind_of_fault_per_thread },
    Case { name: "exact::a_command_equals_wait4", variants: ALL, test: exact::a_command_equals_wait4 },
    Case { name: "exact::a_running_process_from_outside", variants: ALL, test: exact::a_running_process_from_outside },
    Case { name: "exact::threads_that_exec", variants: ALL, test: exact::threads_that_exec },
    Case { name: "exact::cold_files_read_by_many", variants: ALL, test: exact::cold_files_read_by_many },
    Case { name: "exact::times_are_plausible", variants: TIMING, test: exact::times_are_plausible },
    Case { name: "exact::sampled_minor_latency", variants: TIMING, test: exact::sampled_minor_latency },
    Case { name: "exact::verbose_shows_every_fault", variants: ALL, test: exact::verbose_shows_every_fault },
    Case { name: "many::a_storm_loses_nothing", variants: ALL, test: many::a_storm_loses_nothing },
    Case { name: "many::a_storm_overruns_the_ring", variants: TIMING, test: many::a_storm_overruns_the_ring },
    Case { name: "many::short_processes", variants: ALL, test: many::short_processes },
    Case { name: "frame::intervals_add_up", variants: ALL, test: frame::intervals_add_up },
    Case { name: "frame::filters", variants: ALL, test: frame::filters },
    Case { name: "frame::a_process_that_ends", variants: AUTO, test: frame::a_process_that_ends },
    Case { name: "frame::an_interrupt_gives_totals", variants: AUTO, test: frame::an_interrupt_gives_totals },
    Case { name: "frame::the_status_is_the_commands", variants: AUTO, test: frame::the_status_is_the_commands },
    Case { name: "frame::hostile_names", variants: AUTO, test: frame::hostile_names },
    Case { name: "frame::it_is_small_and_quick", variants: AUTO, test: frame::it_is_small_and_quick },
    Case { name: "refuse::without_privileges", variants: AUTO, test: refuse::without_privileges },
    Case { name: "refuse::a_full_disk", variants: AUTO, test: refuse::a_full_disk },
    Case { name: "refuse::a_closed_pipe", variants: AUTO, test: refuse::a_closed_pipe },
    Case { name: "refuse::the_doctor_tells_the_truth", variants: AUTO, test: refuse::the_doctor_tells_the_truth },
];

fn main() -> ExitCode {
    if let Some(status) = fixture::run_if_asked() {
        return status;
    }
    let place = place();
    let mut trials = Vec::new();
    for case in CASES {
        for &variant in case.variants {
            let missing = run::missing(variant);
            let test = case.test;
            let name = format!("{}::{variant}", case.name);
            let trial = match (&missing, &place) {
                (None, _) => Trial::test(name, move || {
                    test(variant);
                    Ok(())
                }),
                (Some(why), Place::Vm(_)) => {
                    let why = why.clone();
                    Trial::test(name, move || Err(Failed::from(format!("must run here, but {why}"))))
                }
                (Some(why), Place::Here) => {
                    println!("ignored: {name}: {why}");
                    Trial::test(name, || Ok(())).with_ignored_flag(true)
                }
            };
            trials.push(trial);
        }
    }
    let mut arguments = Arguments::from_args();
    // They measure the whole machine: one at a time.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}
