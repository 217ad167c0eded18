//! Drives the binary on the running kernel, as root, and compares what it says with the kernel's own figures.
//!
//! The list in `main` is the index. Each test runs once for every variant that attaches; what cannot run here is
//! ignored with its reason, or fails where everything must run (`TRAPLINE_PLACE=vm:…`). The same executable is the
//! workload: `--fixture NAME` makes faults whose number is known (see fixture.rs).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod access;
mod cause;
mod chains;
mod command;
mod command_signals;
mod container;
mod exact;
mod fair;
mod file;
mod fixture;
mod fixture_files;
mod frame;
mod hostile;
mod kvm;
mod kvm_cases;
mod many;
mod namespaces;
mod neighbours;
mod numa;
mod privilege;
mod provoke;
mod provoke_uffd;
mod reach;
mod refuse;
mod replay;
mod rootless;
mod rootless_stack;
mod run;
mod sgx;
mod sgx_driver;
mod sgx_exact;
mod sgx_frame;
mod span;
mod stack;
mod step;
mod summary;
mod symbols;
mod taken_away;
mod threads;
mod turmoil;
mod underfoot;
mod unharmed;

use std::process::ExitCode;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::run::{Need, Place, place};

/// A test that runs on each of these variants, where all its needs are met.
struct Case {
    name: &'static str,
    needs: &'static [Need],
    variants: &'static [&'static str],
    test: fn(variant: &'static str),
}

const ALL: &[&str] = &["fentry", "kprobe", "tracepoint", "counters"];
/// Those of root, and the one without privilege.
const EVERY: &[&str] = &["fentry", "kprobe", "tracepoint", "counters", "rootless"];
const TIMING: &[&str] = &["fentry", "kprobe", "tracepoint"];
/// Without privilege.
const ROOTLESS: &[&str] = &["rootless"];
/// About what goes on beside the trace, too: with a kernel half and without.
const AUTO_AND_ROOTLESS: &[&str] = &["auto", "rootless"];
const KVM: &[&str] = &["core", "format"];
/// Not about a variant: run on whichever is chosen. That is fentry on 6.1 and 6.12, kprobe on 7.3, and tracepoint on kernels
/// that refuse both.
const AUTO: &[&str] = &["auto"];
/// About what is read where a fault begins: at the entry of its handling (fentry and kprobe, in the same code) or before.
const BY_ENTRY_OR_EXCEPTION: &[&str] = &["auto", "tracepoint"];
/// About whether single faults are seen, not how.
const SEEING_OR_NOT: &[&str] = &["auto", "counters"];

/// Engines of the access tool that reset something, and all of them.
const RESETS: &[&str] = &["rwp", "numa", "writes"];
const ENGINES: &[&str] = &["rwp", "numa", "writes", "none"];
/// Those whose rounds are ours.
const ROUNDS: &[&str] = &["rwp", "writes"];
const ROUNDS_OR_NONE: &[&str] = &["rwp", "writes", "none"];
const NUMA: &[&str] = &["numa"];

const ROOT: &[Need] = &[Need::Root];
/// The same on every kernel.
const HERE: &[Need] = &[Need::Root, Need::ThisKernel];
const ON_6_1: &[Need] = &[Need::Root, Need::Once("6.1")];
const ON_7_3: &[Need] = &[Need::Root, Need::Once("7.3")];
const EXITS: &[Need] = &[Need::Root, Need::Exits];
const EXITS_ONCE: &[Need] = &[Need::Root, Need::Once("6.12"), Need::Exits];
const APART: &[Need] = &[Need::Root, Need::Once("6.12"), Need::Exits, Need::Disposable];
const EXITS_AND_PERF: &[Need] = &[Need::Root, Need::Exits, Need::Perf];
const EXITS_AND_PERF_ONCE: &[Need] = &[Need::Root, Need::Once("6.12"), Need::Exits, Need::Perf];

/// The variants of `sgx`.
const DRIVERS: &[&str] = &["fentry", "kprobe", "legacy"];
/// Those for the driver in the kernel.
const MAINLINE: &[&str] = &["fentry", "kprobe"];
const SGX: &[Need] = &[Need::Root, Need::SgxDouble];
const SGX_ONCE: &[Need] = &[Need::Root, Need::Once("6.12"), Need::SgxDouble];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "faults::exact::every_kind_of_fault_per_thread", needs: ROOT, variants: ALL, test: exact::every_kind_of_fault_per_thread },
    Case { name: "faults::exact::a_command_equals_wait4", needs: ROOT, variants: ALL, test: exact::a_command_equals_wait4 },
    Case { name: "faults::exact::a_running_process_from_outside", needs: ROOT, variants: ALL, test: exact::a_running_process_from_outside },
    Case { name: "faults::exact::by_process", needs: ROOT, variants: ALL, test: exact::by_process },
    Case { name: "faults::exact::threads_that_exec", needs: ROOT, variants: ALL, test: exact::threads_that_exec },
    Case { name: "faults::exact::cold_files_read_by_many", needs: ROOT, variants: ALL, test: exact::cold_files_read_by_many },
    Case { name: "faults::exact::times_are_plausible", needs: ROOT, variants: TIMING, test: exact::times_are_plausible },
    Case { name: "faults::exact::sampled_minor_latency", needs: ROOT, variants: TIMING, test: exact::sampled_minor_latency },
    Case { name: "faults::exact::verbose_shows_every_fault", needs: ROOT, variants: ALL, test: exact::verbose_shows_every_fault },
    Case { name: "faults::replay::a_recording_is_read_back_whole", needs: HERE, variants: EVERY, test: replay::faults },
    Case { name: "faults::cause::each_by_its_program", needs: ROOT, variants: TIMING, test: cause::each_by_its_program },
    Case { name: "faults::cause::numa_hint", needs: &[Need::Root, Need::OwnMachine, Need::Cause("numa-hint")], variants: BY_ENTRY_OR_EXCEPTION, test: cause::numa_hint },
    Case { name: "faults::namespaces::a_command_equals_wait4", needs: ROOT, variants: ALL, test: namespaces::a_command_equals_wait4 },
    Case { name: "faults::namespaces::root_in_a_user_namespace", needs: ROOT, variants: ROOTLESS, test: namespaces::root_in_a_user_namespace },
    Case { name: "faults::namespaces::a_number_is_of_our_own_namespace", needs: ROOT, variants: ALL, test: namespaces::a_number_is_of_our_own_namespace },
    Case { name: "faults::namespaces::without_a_filter_it_is_the_namespace", needs: ROOT, variants: SEEING_OR_NOT, test: namespaces::without_a_filter_it_is_the_namespace },
    Case { name: "faults::namespaces::cgroups", needs: ROOT, variants: SEEING_OR_NOT, test: namespaces::cgroups },
    Case { name: "faults::namespaces::times", needs: ROOT, variants: TIMING, test: namespaces::times },
    Case { name: "faults::namespaces::stacks", needs: ROOT, variants: AUTO, test: namespaces::stacks },
    Case { name: "faults::namespaces::what_cannot_be_is_said", needs: ROOT, variants: AUTO, test: namespaces::what_cannot_be_is_said },
    Case { name: "faults::container::a_command_equals_wait4", needs: HERE, variants: &["tracepoint", "rootless"], test: container::a_command_equals_wait4 },
    Case { name: "faults::namespaces::the_doctor_names_them", needs: ROOT, variants: AUTO, test: namespaces::the_doctor_names_them },
    Case { name: "faults::many::a_storm_loses_nothing", needs: ROOT, variants: ALL, test: many::a_storm_loses_nothing },
    Case { name: "faults::many::a_storm_overruns_the_ring", needs: ROOT, variants: AUTO, test: many::a_storm_overruns_the_ring },
    Case { name: "faults::many::short_processes", needs: ROOT, variants: ALL, test: many::short_processes },
    Case { name: "faults::step::one_message_a_multiple", needs: ROOT, variants: ALL, test: step::one_message_a_multiple },
    Case { name: "faults::step::in_time", needs: ROOT, variants: TIMING, test: step::in_time },
    Case { name: "faults::step::short_processes", needs: ROOT, variants: SEEING_OR_NOT, test: step::short_processes },
    Case { name: "faults::step::stalls", needs: ROOT, variants: TIMING, test: step::stalls },
    Case { name: "faults::step::what_caused_most", needs: ROOT, variants: AUTO, test: step::what_caused_most },
    Case { name: "faults::fair::files", needs: ROOT, variants: AUTO, test: fair::files },
    Case { name: "faults::fair::events", needs: ROOT, variants: TIMING, test: fair::events },
    Case { name: "faults::fair::stacks", needs: ROOT, variants: AUTO, test: fair::stacks },
    Case { name: "faults::fair::files_come_and_go", needs: ROOT, variants: AUTO, test: fair::files_come_and_go },
    Case { name: "faults::neighbours::of_another_users", needs: HERE, variants: AUTO, test: neighbours::of_another_users },
    Case { name: "faults::file::rows_add_up", needs: ROOT, variants: TIMING, test: file::rows_add_up },
    Case { name: "faults::stack::a_command", needs: ROOT, variants: TIMING, test: stack::a_command },
    Case { name: "faults::stack::a_running_process", needs: ROOT, variants: AUTO, test: stack::a_running_process },
    Case { name: "faults::stack::a_part_of_them", needs: ROOT, variants: AUTO, test: stack::a_part_of_them },
    Case { name: "faults::stack::flame_graphs", needs: ROOT, variants: AUTO, test: stack::flame_graphs },
    Case { name: "faults::stack::narrow_code", needs: ROOT, variants: AUTO, test: stack::narrow_code },
    Case { name: "faults::stack::perf_maps_that_are_written_anew", needs: HERE, variants: &["auto", "rootless"], test: underfoot::perf_maps },
    Case { name: "faults::stack::a_program_that_is_truncated", needs: HERE, variants: AUTO, test: underfoot::a_truncated_program },
    Case { name: "faults::stack::return_addresses_replaced", needs: ROOT, variants: AUTO, test: stack::return_addresses_replaced },
    Case { name: "faults::stack::refusals", needs: ROOT, variants: AUTO, test: stack::refusals },
    Case { name: "faults::file::every_fault_has_its_file", needs: ROOT, variants: TIMING, test: file::every_fault_has_its_file },
    Case { name: "faults::file::every_row_has_its_faults", needs: ROOT, variants: TIMING, test: file::every_row_has_its_faults },
    Case { name: "faults::file::hostile_names", needs: ROOT, variants: AUTO, test: file::hostile_names },
    Case { name: "faults::file::counters_are_refused", needs: ROOT, variants: AUTO, test: file::counters_are_refused },
    Case { name: "faults::span::calls_and_faults_are_exact", needs: ROOT, variants: ALL, test: span::calls_and_faults_are_exact },
    Case { name: "faults::span::files_of_another_user", needs: HERE, variants: AUTO, test: span::files_of_another_user },
    Case { name: "faults::span::recursion", needs: ROOT, variants: AUTO, test: span::recursion },
    Case { name: "faults::span::times", needs: ROOT, variants: TIMING, test: span::times },
    Case { name: "faults::span::returns_that_never_come", needs: ROOT, variants: AUTO, test: span::returns_that_never_come },
    Case { name: "faults::span::marks", needs: ROOT, variants: AUTO, test: span::marks },
    Case { name: "faults::span::names", needs: ROOT, variants: AUTO, test: span::names },
    Case { name: "faults::span::a_running_process", needs: ROOT, variants: AUTO, test: span::a_running_process },
    Case { name: "faults::span::what_cannot_be_is_said", needs: ROOT, variants: AUTO, test: span::what_cannot_be_is_said },
    Case { name: "faults::frame::intervals_add_up", needs: ROOT, variants: SEEING_OR_NOT, test: frame::intervals_add_up },
    Case { name: "faults::frame::filters", needs: ROOT, variants: SEEING_OR_NOT, test: frame::filters },
    Case { name: "faults::frame::a_process_that_ends", needs: ROOT, variants: AUTO, test: frame::a_process_that_ends },
    Case { name: "faults::frame::an_interrupt_gives_totals", needs: ROOT, variants: AUTO, test: frame::an_interrupt_gives_totals },
    Case { name: "faults::frame::the_status_is_the_commands", needs: ROOT, variants: AUTO, test: frame::the_status_is_the_commands },
    Case { name: "faults::frame::tables_leave_standard_output_to_the_command", needs: ROOT, variants: AUTO, test: frame::tables_leave_standard_output_to_the_command },
    Case { name: "faults::command::is_as_without_us", needs: ROOT, variants: EVERY, test: command::of_faults_is_as_without_us },
    Case { name: "faults::command::what_is_sent_to_us_is_passed_on", needs: ROOT, variants: AUTO_AND_ROOTLESS, test: command_signals::what_is_sent_to_us_is_passed_on },
    Case { name: "faults::command::a_second_request_leaves_nobody", needs: ROOT, variants: AUTO_AND_ROOTLESS, test: command_signals::a_second_request_leaves_nobody },
    Case { name: "faults::command::the_usual_company", needs: ROOT, variants: AUTO_AND_ROOTLESS, test: command_signals::the_usual_company },
    Case { name: "faults::command::in_a_terminal", needs: ROOT, variants: AUTO_AND_ROOTLESS, test: command_signals::in_a_terminal },
    Case { name: "faults::command::another_user", needs: ROOT, variants: AUTO, test: command::another_user },
    Case { name: "faults::frame::hostile_names", needs: ROOT, variants: AUTO, test: frame::hostile_names },
    Case { name: "faults::frame::an_empty_name", needs: ROOT, variants: AUTO, test: frame::an_empty_name },
    Case { name: "faults::frame::it_is_small", needs: HERE, variants: AUTO, test: frame::it_is_small },
    Case { name: "faults::threads::workers_of_io_uring", needs: ROOT, variants: EVERY, test: threads::workers_of_io_uring },
    Case { name: "faults::threads::the_memory_of_others", needs: ROOT, variants: ALL, test: threads::the_memory_of_others },
    Case { name: "faults::threads::one_beginning", needs: ROOT, variants: EVERY, test: threads::one_beginning },
    Case { name: "faults::threads::two_at_once", needs: ROOT, variants: BY_ENTRY_OR_EXCEPTION, test: threads::two_at_once },
    Case { name: "faults::rootless::a_command_equals_wait4", needs: ROOT, variants: ROOTLESS, test: rootless::a_command_equals_wait4 },
    Case { name: "faults::rootless::threads_are_exact", needs: ROOT, variants: ROOTLESS, test: rootless::threads_are_exact },
    Case { name: "faults::rootless::every_fault_has_a_line", needs: ROOT, variants: ROOTLESS, test: rootless::every_fault_has_a_line },
    Case { name: "faults::rootless::a_storm_overruns_the_ring", needs: ROOT, variants: ROOTLESS, test: rootless::a_storm_overruns_the_ring },
    Case { name: "faults::rootless::a_running_process", needs: ROOT, variants: ROOTLESS, test: rootless::a_running_process },
    Case { name: "faults::rootless::what_cannot_be_is_said", needs: ROOT, variants: ROOTLESS, test: rootless::what_cannot_be_is_said },
    Case { name: "faults::rootless::stack::a_command", needs: ROOT, variants: ROOTLESS, test: rootless_stack::a_command },
    Case { name: "faults::rootless::stack::a_running_process", needs: ROOT, variants: ROOTLESS, test: rootless_stack::a_running_process },
    Case { name: "faults::rootless::stack::many_short_ones", needs: ROOT, variants: ROOTLESS, test: rootless_stack::many_short_ones },
    Case { name: "faults::rootless::stack::a_part_of_them", needs: ROOT, variants: ROOTLESS, test: rootless_stack::a_part_of_them },
    Case { name: "faults::rootless::stack::flame_graphs", needs: ROOT, variants: ROOTLESS, test: rootless_stack::flame_graphs },
    Case { name: "faults::rootless::the_doctor_has_tried_it", needs: ROOT, variants: ROOTLESS, test: rootless::the_doctor_has_tried_it },
    Case { name: "faults::refuse::without_privileges", needs: ROOT, variants: AUTO, test: refuse::without_privileges },
    Case { name: "faults::refuse::a_full_disk", needs: ROOT, variants: AUTO, test: refuse::a_full_disk },
    Case { name: "faults::refuse::a_closed_pipe", needs: ROOT, variants: AUTO, test: refuse::a_closed_pipe },
    Case { name: "faults::refuse::a_stuck_reader", needs: ROOT, variants: AUTO, test: refuse::a_stuck_reader },
    Case { name: "faults::refuse::few_descriptors", needs: ROOT, variants: AUTO, test: refuse::few_descriptors },
    Case { name: "faults::refuse::a_zombie", needs: ROOT, variants: AUTO, test: refuse::a_zombie },
    Case { name: "faults::refuse::a_process_without_its_first_thread", needs: ROOT, variants: AUTO_AND_ROOTLESS, test: refuse::a_process_without_its_first_thread },
    Case { name: "faults::refuse::through_what_others_have_put_there", needs: ROOT, variants: AUTO, test: refuse::through_what_others_have_put_there },
    Case { name: "faults::refuse::the_doctor_tells_the_truth", needs: ROOT, variants: AUTO, test: refuse::the_doctor_tells_the_truth },
    Case { name: "faults::privilege::what_reading_does_not_need_is_dropped", needs: ROOT, variants: TIMING, test: privilege::what_reading_does_not_need_is_dropped },
    Case { name: "faults::privilege::hidden_addresses_stay_hidden", needs: ROOT, variants: AUTO, test: privilege::hidden_addresses_stay_hidden },
    Case { name: "faults::privilege::no_output_shows_hidden_addresses", needs: HERE, variants: AUTO, test: privilege::no_output_shows_hidden_addresses },
    Case { name: "kvm::privilege::kvm_keeps_what_reading_takes", needs: EXITS_ONCE, variants: AUTO, test: privilege::kvm_keeps_what_reading_takes },
    Case { name: "kvm::privilege::kvm_without_exits_keeps_what_reading_takes", needs: &[Need::Root, Need::UnseenExits], variants: AUTO, test: privilege::kvm_keeps_what_reading_takes },
    Case { name: "sgx::privilege::sgx_keeps_what_reading_takes", needs: SGX_ONCE, variants: AUTO, test: privilege::sgx_keeps_what_reading_takes },
    Case { name: "access::privilege::access_keeps_what_its_engine_takes", needs: ROOT, variants: ENGINES, test: privilege::access_keeps_what_its_engine_takes },
    Case { name: "faults::taken_away::the_kernels_types", needs: ROOT, variants: AUTO, test: taken_away::the_kernels_types },
    Case { name: "faults::taken_away::the_function_tracer", needs: &[Need::Root, Need::FunctionTracer], variants: AUTO, test: taken_away::the_function_tracer },
    Case { name: "faults::taken_away::by_lockdown", needs: &[Need::Root, Need::Lockdown], variants: AUTO, test: taken_away::by_lockdown },
    Case { name: "kvm::counts_equal_the_guests_own", needs: EXITS, variants: KVM, test: kvm::counts_equal_the_guests_own },
    Case { name: "kvm::counts_equal_perf_stat", needs: EXITS_AND_PERF, variants: KVM, test: kvm::counts_equal_perf_stat },
    Case { name: "kvm::means_equal_perf_kvm_stat", needs: EXITS_AND_PERF_ONCE, variants: KVM, test: kvm::means_equal_perf_kvm_stat },
    Case { name: "kvm::times_and_histograms_agree", needs: EXITS_ONCE, variants: KVM, test: kvm::times_and_histograms_agree },
    Case { name: "kvm::slower_shows_what_the_histogram_holds", needs: EXITS_ONCE, variants: KVM, test: kvm::slower_shows_what_the_histogram_holds },
    Case { name: "kvm::phases_add_up", needs: EXITS_ONCE, variants: KVM, test: kvm::phases_add_up },
    Case { name: "kvm::counts_of_reflections_leave_out_an_smi", needs: EXITS, variants: KVM, test: kvm::counts_of_reflections_leave_out_an_smi },
    Case { name: "kvm::subjects", needs: EXITS_ONCE, variants: KVM, test: kvm::subjects },
    Case { name: "kvm::filters", needs: EXITS_ONCE, variants: AUTO, test: kvm_cases::filters },
    Case { name: "kvm::intervals_add_up", needs: EXITS_ONCE, variants: AUTO, test: kvm_cases::intervals_add_up },
    Case { name: "kvm::sixty_four_vcpus", needs: EXITS_ONCE, variants: KVM, test: kvm_cases::sixty_four_vcpus },
    Case { name: "kvm::guests_come_and_go", needs: EXITS_ONCE, variants: AUTO, test: kvm_cases::guests_come_and_go },
    Case { name: "kvm::a_vcpu_dies_in_its_exit", needs: EXITS_ONCE, variants: AUTO, test: kvm_cases::a_vcpu_dies_in_its_exit },
    Case { name: "kvm::a_processor_goes_offline", needs: APART, variants: AUTO, test: kvm_cases::a_processor_goes_offline },
    Case { name: "kvm::a_command_is_as_without_us", needs: EXITS_ONCE, variants: KVM, test: command::of_kvm_is_as_without_us },
    Case { name: "kvm::a_real_vmm_by_its_name", needs: EXITS_ONCE, variants: AUTO, test: kvm_cases::a_real_vmm_by_its_name },
    Case { name: "kvm::what_means_nothing_is_said", needs: EXITS_ONCE, variants: AUTO, test: kvm_cases::what_means_nothing_is_said },
    Case { name: "kvm::guests_that_fire_no_exit_are_no_silent_zero", needs: &[Need::Root, Need::UnseenExits], variants: AUTO, test: kvm_cases::guests_that_fire_no_exit_are_no_silent_zero },
    Case { name: "kvm::without_kvm", needs: APART, variants: AUTO, test: kvm_cases::without_kvm },
    Case { name: "sgx::exact::one_enclave", needs: SGX, variants: DRIVERS, test: sgx_exact::one_enclave },
    Case { name: "sgx::exact::one_that_grows", needs: SGX, variants: MAINLINE, test: sgx_exact::one_that_grows },
    Case { name: "sgx::exact::three_at_once_at_the_same_addresses", needs: SGX, variants: DRIVERS, test: sgx_exact::three_at_once_at_the_same_addresses },
    Case { name: "sgx::exact::eighty_at_once", needs: SGX_ONCE, variants: DRIVERS, test: sgx_exact::eighty_at_once },
    Case { name: "sgx::exact::far_apart_in_32_gb", needs: SGX, variants: DRIVERS, test: sgx_exact::far_apart_in_32_gb },
    Case { name: "sgx::exact::threads_on_all_processors", needs: SGX, variants: DRIVERS, test: sgx_exact::threads_on_all_processors },
    Case { name: "sgx::exact::one_that_dies", needs: SGX, variants: DRIVERS, test: sgx_exact::one_that_dies },
    Case { name: "sgx::exact::one_after_the_other", needs: SGX, variants: DRIVERS, test: sgx_exact::one_after_the_other },
    Case { name: "sgx::command_is_as_without_us", needs: SGX, variants: DRIVERS, test: command::of_sgx_is_as_without_us },
    Case { name: "sgx::exact::a_guests_memory", needs: SGX, variants: MAINLINE, test: sgx_exact::a_guests_memory },
    Case { name: "sgx::exact::who_evicted", needs: SGX, variants: DRIVERS, test: sgx_exact::who_evicted },
    Case { name: "sgx::exact::a_storm", needs: SGX, variants: DRIVERS, test: sgx_exact::a_storm },
    Case { name: "sgx::frame::clearing_and_not", needs: SGX_ONCE, variants: DRIVERS, test: sgx_frame::clearing_and_not },
    Case { name: "sgx::frame::brought_back", needs: SGX_ONCE, variants: DRIVERS, test: sgx_frame::brought_back },
    Case { name: "sgx::frame::groups_and_filters", needs: SGX_ONCE, variants: DRIVERS, test: sgx_frame::groups_and_filters },
    Case { name: "sgx::frame::little_memory", needs: SGX_ONCE, variants: DRIVERS, test: sgx_frame::little_memory },
    Case { name: "sgx::frame::the_form_for_people", needs: SGX_ONCE, variants: AUTO, test: sgx_frame::the_form_for_people },
    Case { name: "sgx::memory::sixty_four_gigabytes", needs: SGX, variants: AUTO, test: sgx_frame::sixty_four_gigabytes },
    Case { name: "sgx::refuse::the_kernels_own_functions", needs: SGX, variants: AUTO, test: sgx_frame::the_kernels_own_functions },
    Case { name: "sgx::refuse::fentry_on_a_module", needs: SGX, variants: AUTO, test: sgx_frame::fentry_on_a_module },
    Case { name: "access::every_touch_on_every_memory", needs: ON_7_3, variants: ROUNDS, test: access::every_touch_on_every_memory },
    Case { name: "access::first_touches_are_marked", needs: HERE, variants: ENGINES, test: access::first_touches_are_marked },
    Case { name: "access::hot_pages_come_back", needs: HERE, variants: ROUNDS, test: access::hot_pages_come_back },
    Case { name: "access::a_running_process", needs: HERE, variants: ROUNDS, test: access::a_running_process },
    Case { name: "access::the_period_is_what_is_wished", needs: HERE, variants: ROUNDS, test: access::the_period_is_what_is_wished },
    Case { name: "access::summary::heat_is_what_was_touched", needs: ROOT, variants: ROUNDS_OR_NONE, test: summary::heat_is_what_was_touched },
    Case { name: "access::summary::sharing_is_what_was_shared", needs: ROOT, variants: ROUNDS, test: summary::sharing_is_what_was_shared },
    Case { name: "access::summary::distances_are_those_of_a_cycle", needs: ROOT, variants: ROUNDS, test: summary::distances_are_those_of_a_cycle },
    Case { name: "access::summary::windows_hold_what_was_touched_in_them", needs: ROOT, variants: ROUNDS, test: summary::windows_hold_what_was_touched_in_them },
    Case { name: "access::summary::a_running_process_in_intervals", needs: ROOT, variants: ROUNDS_OR_NONE, test: summary::a_running_process_in_intervals },
    Case { name: "access::summary::frames", needs: ROOT, variants: &["none"], test: summary::frames },
    Case { name: "access::replay::a_recording_is_read_back_whole", needs: HERE, variants: &["none"], test: replay::accesses },
    Case { name: "access::symbols::the_function_of_each_access", needs: ROOT, variants: ROUNDS_OR_NONE, test: symbols::the_function_of_each_access },
    Case { name: "access::symbols::of_programs_that_came_and_went", needs: ROOT, variants: &["none"], test: symbols::of_programs_that_came_and_went },
    Case { name: "access::symbols::the_lines_have_them", needs: ROOT, variants: &["none"], test: symbols::the_lines_have_them },
    Case { name: "access::unharmed::the_results_are_the_same", needs: HERE, variants: RESETS, test: unharmed::the_results_are_the_same },
    Case { name: "access::unharmed::a_command_is_as_without_us", needs: HERE, variants: ENGINES, test: command::of_access_is_as_without_us },
    Case { name: "access::unharmed::a_mapping_stays_one", needs: HERE, variants: RESETS, test: unharmed::a_mapping_stays_one },
    Case { name: "access::unharmed::a_killed_tracer_leaves_nothing", needs: HERE, variants: ROUNDS, test: unharmed::a_killed_tracer_leaves_nothing },
    Case { name: "access::unharmed::waiting_and_stopped_targets", needs: HERE, variants: RESETS, test: unharmed::waiting_and_stopped_targets },
    Case { name: "access::unharmed::what_cannot_be_is_said", needs: HERE, variants: RESETS, test: unharmed::what_cannot_be_is_said },
    Case { name: "access::unharmed::programs_are_followed_by_name", needs: HERE, variants: RESETS, test: unharmed::programs_are_followed_by_name },
    Case { name: "access::unharmed::a_budget_stretches_the_period", needs: HERE, variants: ROUNDS, test: unharmed::a_budget_stretches_the_period },
    Case { name: "access::hostile::a_userfaultfd_of_its_own", needs: ROOT, variants: RESETS, test: hostile::a_userfaultfd_of_its_own },
    Case { name: "access::hostile::code_that_changes", needs: ROOT, variants: ROUNDS, test: hostile::code_that_changes },
    Case { name: "access::hostile::sandboxed_without_a_vdso", needs: ROOT, variants: ROUNDS, test: hostile::sandboxed_without_a_vdso },
    Case { name: "access::hostile::the_lock_is_roots", needs: ROOT, variants: &["none"], test: hostile::the_lock_is_roots },
    Case { name: "access::hostile::the_list_is_roots", needs: ROOT, variants: &["none"], test: hostile::the_list_is_roots },
    Case { name: "access::hostile::an_ordinary_user", needs: ROOT, variants: &["none"], test: hostile::an_ordinary_user },
    Case { name: "access::numa::a_round_is_seen_whole_or_not_at_all", needs: ON_6_1, variants: NUMA, test: numa::a_round_is_seen_whole_or_not_at_all },
    Case { name: "access::numa::shared_memory_is_seen_or_said_to_be_out_of_sight", needs: ROOT, variants: NUMA, test: numa::shared_memory_is_seen_or_said_to_be_out_of_sight },
    Case { name: "access::numa::the_settings_are_put_back", needs: ROOT, variants: NUMA, test: numa::the_settings_are_put_back },
    Case { name: "access::numa::one_at_a_time", needs: ON_6_1, variants: NUMA, test: numa::one_at_a_time },
    Case { name: "access::numa::cpusets", needs: ON_6_1, variants: NUMA, test: numa::cpusets },
    Case { name: "access::namespaces::an_access_is_of_our_own_namespace", needs: ROOT, variants: AUTO, test: namespaces::an_access_is_of_our_own_namespace },
    Case { name: "access::reach::a_sandboxed_program", needs: ON_7_3, variants: RESETS, test: reach::a_sandboxed_program },
    Case { name: "access::reach::another_users", needs: ON_7_3, variants: RESETS, test: reach::another_users },
    Case { name: "access::reach::in_a_container", needs: ON_7_3, variants: RESETS, test: reach::in_a_container },
    Case { name: "access::reach::one_that_execs_and_is_killed", needs: ON_7_3, variants: RESETS, test: reach::one_that_execs_and_is_killed },
    Case { name: "access::reach::a_large_program", needs: ON_7_3, variants: RESETS, test: reach::a_large_program },
];

fn main() -> ExitCode {
    if let Some(status) = fixture::run_if_asked() {
        return status;
    }
    let mut arguments = Arguments::from_args();
    // They measure the whole machine: one at a time.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for case in CASES {
        let mut unmet = None;
        for &variant in case.variants {
            let name = format!("{}::{variant}", case.name);
            if !is_wanted(&arguments, &name) {
                trials.push(Trial::test(name, || Ok(())));
                continue;
            }
            let unmet = unmet.get_or_insert_with(|| {
                case.needs.iter().find_map(|need| need.unmet().map(|why| (why, need.is_special())))
            });
            let missing = unmet.clone().or_else(|| Some((run::missing(case.name, variant)?, false)));
            let test = case.test;
            let trial = match missing {
                None => Trial::test(name, move || {
                    let began = Instant::now();
                    test(variant);
                    print!("({:.1} s) ", began.elapsed().as_secs_f64());
                    Ok(())
                }),
                Some((why, false)) if place() == Place::Vm && !run::is_younger(variant) => {
                    Trial::test(name, move || Err(Failed::from(format!("must run here, but {why}"))))
                }
                Some((why, _)) => {
                    println!("ignored: {name}: {why}");
                    Trial::test(name, || Ok(())).with_ignored_flag(true)
                }
            };
            trials.push(trial);
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether the arguments let a test run: what those that do not need is not looked for, which takes seconds.
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let is = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
    arguments.filter.iter().all(is) && !arguments.skip.iter().any(is)
}
