//! Drives the binary on the running kernel, as root, and compares what it says with the kernel's own figures.
//!
//! The list in `main` is the index: a test is called by its path. Each one runs once for every variant that attaches;
//! what cannot run here is ignored with its reason, or fails where everything must run (`TRAPLINE_PLACE=vm:…`). The same
//! executable is the workload: `--fixture NAME` makes faults whose number is known (see fixture.rs).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod access;
mod command;
mod docs;
mod explain;
mod faults;
mod fixture;
mod kvm;
mod need;
mod privilege;
mod run;
mod running;
mod sgx;
mod top;

use std::process::ExitCode;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::need::{Need, missing};
use crate::run::{Place, is_younger, place};

/// A test that runs on each of these variants, where all its needs are met.
struct Case {
    name: &'static str,
    needs: &'static [Need],
    variants: &'static [&'static str],
    test: fn(variant: &'static str),
}

/// The case of a test, which is called by the test's path.
macro_rules! case {
    ($test:path, $needs:expr, $variants:expr) => {
        Case { name: stringify!($test), needs: $needs, variants: $variants, test: $test }
    };
}

const ALL: &[&str] = &["fentry", "kprobe", "tracepoint", "counters"];
/// Those of root, and the one without privilege.
const EVERY: &[&str] = &["fentry", "kprobe", "tracepoint", "counters", "rootless"];
const TIMING: &[&str] = &["fentry", "kprobe", "tracepoint"];
const TIMING_AND_ROOTLESS: &[&str] = &["fentry", "kprobe", "tracepoint", "rootless"];
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
const PERF_HERE: &[Need] = &[Need::Root, Need::ThisKernel, Need::Program("perf")];
const GDB: &[Need] = &[Need::Root, Need::ThisKernel, Need::Program("gdb")];
const GDB_SQLITE: &[Need] = &[Need::Root, Need::ThisKernel, Need::Program("gdb"), Need::Program("sqlite3")];
const GDB_PYTHON: &[Need] =
    &[Need::Root, Need::ThisKernel, Need::Program("gdb"), Need::Program("/usr/bin/python3")];
const GDB_POSTGRESQL: &[Need] = &[Need::Root, Need::ThisKernel, Need::Program("gdb"), Need::PostgreSql];
const UNWOUND: &[Need] =
    &[Need::Root, Need::ThisKernel, Need::Program("/usr/bin/python3"), Need::Program("sqlite3")];
const TMUX: &[Need] = &[Need::Root, Need::ThisKernel, Need::Tmux];
/// What costs much time and hardly differs between kernels.
const SPREAD: &[Need] = &[Need::Root, Need::Spread];
const SPREAD_OWN: &[Need] = &[Need::Root, Need::Spread, Need::OwnMachine];
/// The same on every kernel, by a kernel half that this machine's own kernel may not take.
const ON_6_12: &[Need] = &[Need::Root, Need::Once("6.12")];
const ON_6_1: &[Need] = &[Need::Root, Need::Once("6.1")];
const ON_7_3: &[Need] = &[Need::Root, Need::Once("7.3")];
const EXITS: &[Need] = &[Need::Root, Need::Exits];
const EXITS_ONCE: &[Need] = &[Need::Root, Need::Once("6.12"), Need::Exits];
const APART: &[Need] = &[Need::Root, Need::Once("6.12"), Need::Exits, Need::Disposable];
const EXITS_AND_PERF: &[Need] = &[Need::Root, Need::Exits, Need::Program("perf")];
const EXITS_AND_PERF_ONCE: &[Need] = &[Need::Root, Need::Once("6.12"), Need::Exits, Need::Program("perf")];

/// The variants of `sgx`.
const DRIVERS: &[&str] = &["fentry", "kprobe", "legacy"];
/// Those for the driver in the kernel.
const MAINLINE: &[&str] = &["fentry", "kprobe"];
const SGX: &[Need] = &[Need::Root, Need::SgxDouble];
const SGX_ONCE: &[Need] = &[Need::Root, Need::Once("6.12"), Need::SgxDouble];

#[rustfmt::skip]
const CASES: &[Case] = &[
    case!(faults::exact::every_kind_of_fault_per_thread, ROOT, ALL),
    case!(faults::exact::a_command_equals_wait4, ROOT, ALL),
    case!(faults::exact::a_running_process_from_outside, ROOT, ALL),
    case!(faults::exact::by_process, ROOT, ALL),
    case!(faults::exact::threads_that_exec, ROOT, ALL),
    case!(faults::exact::cold_files_read_by_many, ROOT, ALL),
    case!(faults::exact::times_are_plausible, ROOT, TIMING),
    case!(faults::time::waits_for_the_lock, SPREAD, TIMING),
    case!(faults::time::waits_are_its_own_switches, SPREAD, TIMING),
    case!(faults::time::waits_are_not_sampled, ROOT, &["tracepoint"]),
    case!(faults::time::the_last_wait_is_seen, ROOT, &["tracepoint"]),
    case!(faults::time::parts_are_all_of_it, SPREAD, TIMING),
    case!(faults::time::slower, ROOT, TIMING),
    case!(faults::time::a_slow_device, &[Need::Root, Need::Fuse], TIMING),
    case!(faults::time::memory_high, SPREAD_OWN, TIMING),
    case!(faults::time::memory_max, SPREAD_OWN, TIMING),
    case!(faults::exact::sampled_minor_latency, ROOT, TIMING),
    case!(faults::exact::verbose_shows_every_fault, ROOT, ALL),
    case!(explain::each_rule_on_its_program, ROOT, AUTO),
    case!(explain::what_lacks_causes_is_not_judged, HERE, AUTO),
    case!(explain::limits::a_file_larger_than_the_memory, ROOT, AUTO),
    case!(explain::limits::memory_that_must_be_freed_first, ROOT, AUTO),
    case!(explain::limits::memory_in_swap, &[Need::Root, Need::Cause("swap-in")], AUTO),
    case!(explain::limits::above_memory_high, &[Need::Root, Need::OwnMachine], AUTO),
    case!(explain::limits::memory_that_is_hidden, &[Need::Root, Need::OwnMachine, Need::Cause("numa-hint")], AUTO),
    case!(explain::elsewhere::of_accesses, HERE, &["writes"]),
    case!(explain::elsewhere::of_a_working_set, HERE, &["writes"]),
    case!(explain::elsewhere::of_guests, EXITS_ONCE, AUTO),
    case!(explain::elsewhere::of_enclaves, SGX_ONCE, AUTO),
    case!(explain::real::nothing_stands_out_in_healthy_programs, HERE, AUTO),
    case!(explain::real::a_file_that_a_program_serves, &[Need::Root, Need::ThisKernel, Need::Fuse], AUTO),
    case!(explain::a_recording_is_explained, HERE, AUTO),
    case!(explain::the_demo, HERE, AUTO),
    case!(faults::replay::a_recording_is_read_back_whole, HERE, EVERY),
    case!(faults::replay::a_recording_answers_every_by, HERE, &["tracepoint", "rootless"]),
    case!(faults::replay::a_recording_has_the_stack_of_each_fault, HERE, &["tracepoint", "rootless"]),
    case!(faults::replay::a_recording_has_what_the_time_of_each_fault_was_spent_on, HERE, &["tracepoint"]),
    case!(faults::recording::a_kill_costs_the_last_part, HERE, &["tracepoint"]),
    case!(faults::recording::what_was_recorded_around_a_message_stays, HERE, &["tracepoint"]),
    case!(faults::recording::lost_faults_are_in_their_interval, HERE, &["tracepoint"]),
    case!(faults::recording::a_full_disk_ends_the_recording_and_not_the_command, HERE, &["tracepoint"]),
    case!(faults::diff::twice_the_faults_on_a_file, HERE, EVERY),
    case!(faults::diff::recorded_faults_are_grouped, HERE, &["tracepoint", "rootless"]),
    case!(faults::diff::what_is_shown_and_refused, HERE, AUTO),
    case!(faults::perf_data::replay_shows_what_perf_shows, PERF_HERE, AUTO),
    case!(faults::perf_data::samples_stand_for_their_period, PERF_HERE, AUTO),
    case!(faults::cause::each_by_its_program, ROOT, TIMING),
    case!(faults::cause::numa_hint, &[Need::Root, Need::OwnMachine, Need::Cause("numa-hint")], BY_ENTRY_OR_EXCEPTION),
    case!(faults::namespaces::a_command_equals_wait4, ROOT, ALL),
    case!(faults::namespaces::root_in_a_user_namespace, ROOT, ROOTLESS),
    case!(faults::namespaces::a_number_is_of_our_own_namespace, ROOT, ALL),
    case!(faults::namespaces::without_a_filter_it_is_the_namespace, ROOT, SEEING_OR_NOT),
    case!(faults::namespaces::cgroups, ROOT, SEEING_OR_NOT),
    case!(faults::namespaces::times, ROOT, TIMING),
    case!(faults::namespaces::stacks, ROOT, AUTO),
    case!(faults::namespaces::what_cannot_be_is_said, ROOT, AUTO),
    case!(faults::container::a_command_equals_wait4, HERE, &["tracepoint", "rootless"]),
    case!(faults::namespaces::the_doctor_names_them, ON_6_12, AUTO),
    case!(faults::many::a_storm_loses_nothing, ROOT, ALL),
    case!(faults::many::a_storm_overruns_the_ring, ROOT, AUTO),
    case!(faults::many::short_processes, ROOT, ALL),
    case!(faults::step::one_message_a_multiple, ROOT, ALL),
    case!(faults::step::in_time, ROOT, TIMING),
    case!(faults::step::short_processes, ROOT, SEEING_OR_NOT),
    case!(faults::step::stalls, ROOT, TIMING),
    case!(faults::step::stalls_within_a_window, ROOT, TIMING),
    case!(faults::step::what_caused_most, ROOT, AUTO),
    case!(faults::fair::files, ON_6_12, AUTO),
    case!(faults::fair::events, ROOT, TIMING),
    case!(faults::fair::stacks, ON_6_12, AUTO),
    case!(faults::fair::files_come_and_go, ON_6_12, AUTO),
    case!(faults::neighbours::of_another_users, HERE, AUTO),
    case!(faults::file::rows_add_up, ROOT, TIMING),
    case!(faults::groups::of_threads_and_processes, ROOT, TIMING),
    case!(faults::groups::sums_are_the_same, ROOT, BY_ENTRY_OR_EXCEPTION),
    case!(faults::groups::histograms, ROOT, TIMING),
    case!(faults::groups::of_a_process_and_a_file, ROOT, BY_ENTRY_OR_EXCEPTION),
    case!(faults::stack::a_command, SPREAD, TIMING),
    case!(faults::stack::a_running_process, ROOT, AUTO),
    case!(faults::stack::a_part_of_them, ROOT, AUTO),
    case!(faults::stack::flame_graphs, ON_6_12, AUTO),
    case!(faults::stack::narrow_code, ON_6_12, AUTO),
    case!(faults::stack::perf_maps_that_are_written_anew, HERE, &["auto", "rootless"]),
    case!(faults::stack::perf_maps_in_other_namespaces, HERE, &["auto", "rootless"]),
    case!(faults::stack::functions_of_interpreters, &[Need::Root, Need::ThisKernel, Need::Interpreter], AUTO),
    case!(faults::stack::a_program_that_is_truncated, HERE, AUTO),
    case!(faults::stack::return_addresses_replaced, ROOT, AUTO),
    case!(faults::stack::refusals, ROOT, AUTO),
    case!(faults::unwind::chains_are_those_of_the_debugger, GDB, TIMING_AND_ROOTLESS),
    case!(faults::unwind::programs::sqlite_has_the_chains_of_the_debugger, GDB_SQLITE, &["tracepoint"]),
    case!(faults::unwind::programs::python_has_the_chains_of_the_debugger, GDB_PYTHON, &["tracepoint"]),
    case!(faults::unwind::programs::gcc_has_the_chains_of_the_debugger, GDB, &["tracepoint"]),
    case!(faults::unwind::programs::postgresql_has_the_chains_of_the_debugger, GDB_POSTGRESQL, &["tracepoint"]),
    case!(faults::unwind::a_program_that_is_written_anew, GDB, TIMING),
    case!(faults::unwind::frame_pointers_find_less, SPREAD, TIMING_AND_ROOTLESS),
    case!(faults::unwind::programs_that_just_began_are_unwound, UNWOUND, AUTO),
    case!(faults::unwind::python_is_unwound, UNWOUND, AUTO),
    case!(faults::file::every_fault_has_its_file, ROOT, TIMING),
    case!(faults::file::every_row_has_its_faults, ROOT, TIMING),
    case!(faults::file::hostile_names, ROOT, AUTO),
    case!(faults::file::counters_are_refused, ROOT, AUTO),
    case!(faults::span::calls_and_faults_are_exact, ROOT, ALL),
    case!(faults::span::files_of_another_user, HERE, AUTO),
    case!(faults::span::recursion, ROOT, AUTO),
    case!(faults::span::times, ROOT, TIMING),
    case!(faults::span::returns_that_never_come, ROOT, AUTO),
    case!(faults::span::marks, ROOT, AUTO),
    case!(faults::span::names, ROOT, AUTO),
    case!(faults::span::a_running_process, ROOT, AUTO),
    case!(faults::span::what_cannot_be_is_said, ROOT, AUTO),
    case!(faults::frame::intervals_add_up, ROOT, SEEING_OR_NOT),
    case!(faults::frame::filters, ROOT, SEEING_OR_NOT),
    case!(faults::filters::several_processes, ROOT, SEEING_OR_NOT),
    case!(faults::filters::several_names, ROOT, ALL),
    case!(faults::filters::of_users, ROOT, TIMING),
    case!(faults::filters::descendants, ROOT, ALL),
    case!(faults::filters::old_cgroups, HERE, SEEING_OR_NOT),
    case!(faults::filters::units, ROOT, AUTO),
    case!(faults::titles::of_a_process, ROOT, AUTO_AND_ROOTLESS),
    case!(faults::frame::a_process_that_ends, ROOT, AUTO),
    case!(faults::frame::an_interrupt_gives_totals, ROOT, AUTO),
    case!(faults::frame::the_status_is_the_commands, ROOT, AUTO),
    case!(faults::frame::a_command_has_its_times, HERE, AUTO),
    case!(faults::frame::tables_leave_standard_output_to_the_command, ROOT, AUTO),
    case!(faults::command::is_as_without_us, ROOT, EVERY),
    case!(faults::command::what_is_sent_to_us_is_passed_on, ROOT, AUTO_AND_ROOTLESS),
    case!(faults::command::a_second_request_leaves_nobody, ROOT, AUTO_AND_ROOTLESS),
    case!(faults::command::the_usual_company, ON_6_12, AUTO_AND_ROOTLESS),
    case!(faults::command::in_a_terminal, ROOT, AUTO_AND_ROOTLESS),
    case!(top::panes_show_rows_and_what_is_within_them, TMUX, AUTO),
    case!(top::the_terminal_is_given_back_at_every_end, TMUX, AUTO),
    case!(top::a_recording_is_played_forward_and_back, TMUX, AUTO),
    case!(top::keys_of_a_terminal_are_understood, TMUX, AUTO),
    case!(top::accesses_are_those_of_the_program, TMUX, AUTO),
    case!(top::without_privilege_there_are_own_processes, TMUX, AUTO),
    case!(top::the_cost_of_bpf_programs_is_the_kernels, TMUX, AUTO),
    case!(top::a_terminal_that_reads_nothing_does_not_hold_it_up, HERE, AUTO),
    case!(top::variables_of_the_terminal_are_obeyed, HERE, AUTO),
    case!(top::elsewhere::exits_are_those_of_the_guest, EXITS_ONCE, AUTO),
    case!(top::elsewhere::pages_are_those_of_the_driver, SGX_ONCE, AUTO),
    case!(faults::screen::a_table_is_redrawn_in_place, TMUX, AUTO),
    case!(faults::screen::the_terminal_is_given_back_at_every_end, TMUX, AUTO),
    case!(faults::screen::a_commands_terminal_and_a_dumb_one_get_blocks, TMUX, AUTO),
    case!(faults::screen::every_table_leaves_the_screen_as_it_was, TMUX, AUTO),
    case!(faults::screen::a_key_shows_rows_before_the_interval_ends, TMUX, AUTO),
    case!(faults::screen::colors_and_widths_are_those_of_options_and_variables, TMUX, AUTO),
    case!(faults::screen::a_table_that_stays_names_the_option_for_the_rest, TMUX, AUTO),
    case!(faults::command::another_user, ROOT, AUTO),
    case!(faults::frame::hostile_names, ROOT, AUTO),
    case!(faults::frame::an_empty_name, ON_6_12, AUTO),
    case!(faults::frame::it_is_small, HERE, AUTO),
    case!(faults::threads::workers_of_io_uring, ROOT, EVERY),
    case!(faults::threads::the_memory_of_others, ROOT, ALL),
    case!(faults::threads::one_beginning, ROOT, EVERY),
    case!(faults::threads::two_at_once, ROOT, BY_ENTRY_OR_EXCEPTION),
    case!(faults::rootless::a_command_equals_wait4, ROOT, ROOTLESS),
    case!(faults::rootless::threads_are_exact, ROOT, ROOTLESS),
    case!(faults::rootless::every_fault_has_a_line, ROOT, ROOTLESS),
    case!(faults::rootless::a_storm_overruns_the_ring, ROOT, ROOTLESS),
    case!(faults::rootless::a_running_process, ROOT, ROOTLESS),
    case!(faults::rootless::what_cannot_be_is_said, ROOT, ROOTLESS),
    case!(faults::rootless::stack::a_command, ROOT, ROOTLESS),
    case!(faults::rootless::stack::a_running_process, ROOT, ROOTLESS),
    case!(faults::rootless::stack::many_short_ones, ROOT, ROOTLESS),
    case!(faults::rootless::stack::a_part_of_them, ROOT, ROOTLESS),
    case!(faults::rootless::stack::flame_graphs, ROOT, ROOTLESS),
    case!(faults::rootless::stack::copied_stacks, ROOT, ROOTLESS),
    case!(faults::rootless::the_doctor_has_tried_it, ROOT, ROOTLESS),
    case!(faults::refuse::without_privileges, ROOT, AUTO),
    case!(faults::refuse::a_full_disk, ROOT, AUTO),
    case!(faults::refuse::a_closed_pipe, ROOT, AUTO),
    case!(faults::refuse::a_stuck_reader, ROOT, AUTO),
    case!(faults::refuse::few_descriptors, ROOT, AUTO),
    case!(faults::refuse::a_zombie, ROOT, AUTO),
    case!(faults::refuse::a_process_without_its_first_thread, &[Need::Root, Need::Program("python3")], AUTO_AND_ROOTLESS),
    case!(faults::refuse::through_what_others_have_put_there, ROOT, AUTO),
    case!(faults::refuse::the_doctor_tells_the_truth, ROOT, AUTO),
    case!(faults::privilege::what_reading_does_not_need_is_dropped, SPREAD, TIMING),
    case!(faults::privilege::hidden_addresses_stay_hidden, ROOT, AUTO),
    case!(faults::privilege::no_output_shows_hidden_addresses, HERE, AUTO),
    case!(kvm::privilege::kvm_keeps_what_reading_takes, EXITS_ONCE, AUTO),
    case!(kvm::privilege::kvm_without_exits_keeps_what_reading_takes, &[Need::Root, Need::UnseenExits], AUTO),
    case!(sgx::privilege::sgx_keeps_what_reading_takes, SGX_ONCE, AUTO),
    case!(access::privilege::access_keeps_what_its_engine_takes, ROOT, ENGINES),
    case!(faults::taken_away::the_kernels_types, ROOT, AUTO),
    case!(faults::taken_away::the_function_tracer, &[Need::Root, Need::FunctionTracer], AUTO),
    case!(faults::taken_away::by_lockdown, &[Need::Root, Need::Lockdown], AUTO),
    case!(kvm::counts_equal_the_guests_own, EXITS, KVM),
    case!(kvm::counts_equal_perf_stat, EXITS_AND_PERF, KVM),
    case!(kvm::means_equal_perf_kvm_stat, EXITS_AND_PERF_ONCE, KVM),
    case!(kvm::times_and_histograms_agree, EXITS_ONCE, KVM),
    case!(kvm::slower_shows_what_the_histogram_holds, EXITS_ONCE, KVM),
    case!(kvm::stacks::are_those_of_the_source, EXITS, KVM),
    case!(kvm::stacks::are_recorded, EXITS_ONCE, AUTO),
    case!(kvm::phases_add_up, EXITS_ONCE, KVM),
    case!(kvm::counts_of_reflections_leave_out_an_smi, EXITS, KVM),
    case!(kvm::subjects, EXITS_ONCE, KVM),
    case!(kvm::filters, EXITS_ONCE, AUTO),
    case!(kvm::intervals_add_up, EXITS_ONCE, AUTO),
    case!(kvm::a_recording_is_read_back_whole, EXITS_ONCE, AUTO),
    case!(kvm::a_page_has_the_exits_of_the_guest, EXITS_ONCE, AUTO),
    case!(kvm::differences_are_those_of_the_guests, EXITS_ONCE, AUTO),
    case!(kvm::sixty_four_vcpus, EXITS_ONCE, KVM),
    case!(kvm::guests_come_and_go, EXITS_ONCE, AUTO),
    case!(kvm::a_vcpu_dies_in_its_exit, EXITS_ONCE, AUTO),
    case!(kvm::a_processor_goes_offline, APART, AUTO),
    case!(kvm::a_command_is_as_without_us, EXITS_ONCE, KVM),
    case!(kvm::a_real_vmm_by_its_name, &[Need::Root, Need::Once("6.12"), Need::Exits, Need::Program("qemu-system-x86_64")], AUTO),
    case!(kvm::what_means_nothing_is_said, EXITS_ONCE, AUTO),
    case!(kvm::guests_that_fire_no_exit_are_no_silent_zero, &[Need::Root, Need::UnseenExits], AUTO),
    case!(kvm::without_kvm, APART, AUTO),
    case!(sgx::exact::one_enclave, SGX, DRIVERS),
    case!(sgx::exact::one_that_grows, SGX, MAINLINE),
    case!(sgx::exact::three_at_once_at_the_same_addresses, SGX, DRIVERS),
    case!(sgx::exact::eighty_at_once, SGX_ONCE, DRIVERS),
    case!(sgx::exact::far_apart_in_32_gb, SGX, DRIVERS),
    case!(sgx::exact::threads_on_all_processors, SGX, DRIVERS),
    case!(sgx::exact::one_that_dies, SGX, DRIVERS),
    case!(sgx::exact::one_after_the_other, SGX, DRIVERS),
    case!(sgx::command_is_as_without_us, SGX, DRIVERS),
    case!(sgx::exact::a_guests_memory, SGX, MAINLINE),
    case!(sgx::exact::who_evicted, SGX, DRIVERS),
    case!(sgx::exact::a_storm, SGX, DRIVERS),
    case!(sgx::frame::clearing_and_not, SGX_ONCE, DRIVERS),
    case!(sgx::frame::brought_back, SGX_ONCE, DRIVERS),
    case!(sgx::frame::groups_and_filters, SGX_ONCE, DRIVERS),
    case!(sgx::frame::little_memory, SGX_ONCE, DRIVERS),
    case!(sgx::frame::the_form_for_people, SGX_ONCE, AUTO),
    case!(sgx::frame::a_recording_is_read_back_whole, SGX_ONCE, AUTO),
    case!(sgx::frame::a_page_has_the_paging_of_the_enclave, SGX_ONCE, AUTO),
    case!(sgx::frame::differences_are_those_of_the_driver, SGX_ONCE, AUTO),
    case!(sgx::memory::sixty_four_gigabytes, SGX, AUTO),
    case!(sgx::refuse::the_kernels_own_functions, SGX, AUTO),
    case!(sgx::refuse::fentry_on_a_module, SGX, AUTO),
    case!(access::every_touch_on_every_memory, ON_7_3, ROUNDS),
    case!(access::first_touches_are_marked, HERE, ENGINES),
    case!(access::hot_pages_come_back, HERE, ROUNDS),
    case!(access::children::of_a_process, HERE, ENGINES),
    case!(access::a_running_process, HERE, ROUNDS),
    case!(access::the_period_is_what_is_wished, HERE, ROUNDS),
    case!(access::summary::heat_is_what_was_touched, ROOT, ROUNDS_OR_NONE),
    case!(access::summary::sharing_is_what_was_shared, ROOT, ROUNDS),
    case!(access::summary::distances_are_those_of_a_cycle, ROOT, ROUNDS),
    case!(access::summary::windows_hold_what_was_touched_in_them, ROOT, ROUNDS),
    case!(access::summary::a_running_process_in_intervals, ROOT, ROUNDS_OR_NONE),
    case!(access::summary::frames, ROOT, &["none"]),
    case!(access::replay::a_recording_is_read_back_whole, HERE, &["none"]),
    case!(access::symbols::the_function_of_each_access, ROOT, ROUNDS_OR_NONE),
    case!(access::symbols::of_programs_that_came_and_went, ROOT, &["none"]),
    case!(access::symbols::the_lines_have_them, ROOT, &["none"]),
    case!(access::unharmed::the_results_are_the_same, HERE, RESETS),
    case!(access::unharmed::a_command_is_as_without_us, HERE, ENGINES),
    case!(access::unharmed::a_mapping_stays_one, HERE, RESETS),
    case!(access::unharmed::a_killed_tracer_leaves_nothing, HERE, ROUNDS),
    case!(access::unharmed::waiting_and_stopped_targets, HERE, RESETS),
    case!(access::unharmed::what_cannot_be_is_said, HERE, RESETS),
    case!(access::unharmed::programs_are_followed_by_name, HERE, RESETS),
    case!(access::unharmed::a_budget_stretches_the_period, HERE, ROUNDS),
    case!(access::hostile::a_userfaultfd_of_its_own, ROOT, RESETS),
    case!(access::hostile::code_that_changes, ROOT, ROUNDS),
    case!(access::hostile::sandboxed_without_a_vdso, ROOT, ROUNDS),
    case!(access::hostile::the_lock_is_roots, ROOT, &["none"]),
    case!(access::hostile::the_list_is_roots, ROOT, &["none"]),
    case!(access::hostile::an_ordinary_user, ROOT, &["none"]),
    case!(access::numa::a_round_is_seen_whole_or_not_at_all, ON_6_1, NUMA),
    case!(access::numa::shared_memory_is_seen_or_said_to_be_out_of_sight, ROOT, NUMA),
    case!(access::numa::the_settings_are_put_back, ROOT, NUMA),
    case!(access::numa::one_at_a_time, ON_6_1, NUMA),
    case!(access::numa::cpusets, ON_6_1, NUMA),
    case!(access::namespaces::an_access_is_of_our_own_namespace, ROOT, AUTO),
    case!(access::reach::a_sandboxed_program, ON_7_3, RESETS),
    case!(access::reach::another_users, ON_7_3, RESETS),
    case!(access::reach::in_a_container, ON_7_3, RESETS),
    case!(access::reach::one_that_execs_and_is_killed, ON_7_3, RESETS),
    case!(access::reach::a_large_program, ON_7_3, RESETS),
    case!(docs::here::commands, HERE, AUTO),
    case!(docs::kvm::commands, EXITS_ONCE, AUTO),
    case!(docs::sgx::commands, SGX_ONCE, AUTO),
    case!(docs::access::commands, HERE, AUTO),
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
        for &variant in case.variants {
            let name = format!("{}::{variant}", case.name);
            if !is_wanted(&arguments, &name) {
                trials.push(Trial::test(name, || Ok(())));
                continue;
            }
            let unmet =
                case.needs.iter().find_map(|need| need.unmet(variant).map(|why| (why, need.is_special())));
            let missing = unmet.or_else(|| Some((missing(case.name, variant)?, false)));
            let (test, called) = (case.test, name.clone());
            let trial = match missing {
                None => Trial::test(name, move || {
                    let began = Instant::now();
                    run_case(test, variant, &called);
                    print!("({:.1} s) ", began.elapsed().as_secs_f64());
                    Ok(())
                }),
                Some((why, false)) if place() == Place::Vm && !is_younger(variant) => {
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

/// Runs a case. An emulated machine shares two processors with two others, and now and then it stands still for seconds: a
/// case that fails there is run once more. `cargo xtask vm` lists it, and fails if there are many; elsewhere a failure is a failure.
fn run_case(test: fn(&'static str), variant: &'static str, name: &str) {
    if place() == Place::Here {
        return test(variant);
    }
    if std::panic::catch_unwind(|| test(variant)).is_err() {
        println!("\nsecond try: {name}");
        test(variant);
    }
}

/// Whether the arguments let a test run: what those that do not need is not looked for, which takes seconds.
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let is = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
    arguments.filter.iter().all(is) && !arguments.skip.iter().any(is)
}
