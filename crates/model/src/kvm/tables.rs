//! The tables of VM exits.

use super::ledger::{Level, Row, avg_ns, max_ns, min_ns, quantile};
use super::names::returned;
use super::{By, Layout, SlowRow};
use crate::field::Show::{Hex, HexOr, Integer, Microseconds, Milliseconds, Stack, Text, TextOr};
use crate::field::{Highlight, Kind, Merge, Unit, Value};
use crate::hist::Hist;
use crate::table::{Column, Schema, Table, count, derived, hist, id, key, label, number, octaves};

const TIME: (Unit, Kind) = (Unit::Nanoseconds, Kind::Counter);
const LASTS: (Unit, Kind) = (Unit::Nanoseconds, Kind::Gauge);
const ADDRESS: (Unit, Kind) = (Unit::Address, Kind::Key);

#[rustfmt::skip]
const REASON: [Column<Row>; 3] = [
    key("isa", "The architecture that the number of the exit belongs to: vmx, svm, arm64, riscv.", |r| r.exit().map(|e| e.isa.to_string()).into()),
    id("reason", "The number of the exit, without flags.", |r| r.exit().map(super::Exit::reason).into()),
    key("name", "The name of the exit, with its flags.", |r: &Row| r.name.clone().into()).shown("EXIT", 24, Text),
];

#[rustfmt::skip]
const VM: [Column<Row>; 3] = [
    id("pid", "The process that runs the guest.", |r: &Row| r.process().map(|p| p.0).into()).shown("PID", 8, Integer),
    number("start_ns", (Unit::Nanoseconds, Kind::Key), "The start time of the process that runs the guest, CLOCK_MONOTONIC.", |r| r.process().map(|p| p.1).into()),
    label("vm", "The name of the guest, if it has one.", |r: &Row| r.vm.as_deref().into()).shown("VM", 20, Text).yields(6),
];

#[rustfmt::skip]
const VCPU: [Column<Row>; 2] = [
    id("vcpu", "The number of the vCPU in its VM.", |r: &Row| r.vcpu().map(|v| v.0).into()).shown("VCPU", 5, Integer),
    id("tid", "The thread that runs the vCPU.", |r: &Row| r.vcpu().map(|v| v.1).into()).shown("TID", 8, Integer).yields(7),
];

#[rustfmt::skip]
const RW: Column<Row> = key("rw", "The direction of the access: R it is read, W it is written.", |r: &Row| r.subject().map(|s| Value::word(if s.1 { "W" } else { "R" })).into()).shown("RW", 2, Text);

#[rustfmt::skip]
const MSR: [Column<Row>; 2] = [number("msr", ADDRESS, "The first model-specific register of the exit, null without one.", Row::subject_or_none).shown("MSR", 18, HexOr("(no MSR event)")), RW];
#[rustfmt::skip]
const PORT: [Column<Row>; 2] = [number("port", ADDRESS, "The first I/O port of the exit, null without one.", Row::subject_or_none).shown("PORT", 18, HexOr("(no port event)")), RW];
#[rustfmt::skip]
const MMIO: [Column<Row>; 2] = [number("mmio", ADDRESS, "The first guest-physical address of a device of the exit, null without one.", Row::subject_or_none).shown("MMIO", 18, HexOr("(no MMIO event)")), RW];
#[rustfmt::skip]
const RIP: [Column<Row>; 1] = [number("rip", ADDRESS, "The instruction of the guest.", |r: &Row| r.subject().map(|s| s.0).into()).shown("RIP", 18, Hex)];

#[rustfmt::skip]
const USERSPACE: [Column<Row>; 1] = [
    key("userspace", "Why KVM returned to the program that runs the guest: an exit reason of KVM_RUN, or an error; null of exits that KVM handled itself.", |r: &Row| r.subject().map(|s| returned(s.0)).into()).shown("USERSPACE", 16, TextOr("(in KVM)")),
];

#[rustfmt::skip]
const COUNTS: [Column<Row>; 3] = [
    count("count", "The exits.", |r: &Row| r.all.count.into()).shown("COUNT", 9, Integer),
    count("l1_count", "The exits of the guest.", |r: &Row| r.levels[0].count.into()).shown("L1", 9, Integer).yields(7),
    count("l2_count", "The exits of the guest's own guests.", |r: &Row| r.levels[1].count.into()).shown("L2", 9, Integer).yields(7),
];

#[rustfmt::skip]
const TIMES: [Column<Row>; 13] = [
    number("total_ns", TIME, "The handling time of the exits, from each exit to the next entry.", |r: &Row| r.timed(r.all.ns)).shown("TOTAL_MS", 10, Milliseconds(2)).yields(1),
    number("l1_ns", TIME, "The handling time of exits of the guest.", |r| r.timed(r.levels[0].ns)),
    number("l2_ns", TIME, "The handling time of exits of the guest's own guests.", |r| r.timed(r.levels[1].ns)),
    derived("max_ns", LASTS, "The longest handling time of an exit.", max_ns).shown("MAX_US", 10, Microseconds(1)).yields(2).merged(Merge::Max),
    derived("min_ns", LASTS, "The shortest handling time of an exit.", min_ns).shown("MIN_US", 10, Microseconds(1)).yields(10).merged(Merge::Min),
    derived("avg_ns", LASTS, "The mean handling time of an exit.", avg_ns).shown("AVG_US", 10, Microseconds(1)).yields(3),
    derived("p50_ns", LASTS, "Half of the exits took no longer than this, within 12.5 %.", |r| quantile(r, 0.5)).shown("P50_US", 10, Microseconds(1)).yields(8),
    derived("p90_ns", LASTS, "90 % of the exits took no longer than this, within 12.5 %.", |r| quantile(r, 0.9)).shown("P90_US", 10, Microseconds(1)).yields(9),
    derived("p99_ns", LASTS, "99 % of the exits took no longer than this, within 12.5 %.", |r| quantile(r, 0.99)).shown("P99_US", 10, Microseconds(1)).yields(5),
    number("guest_ns", TIME, "The time in the guest before the exits, each from the last entry.", |r: &Row| r.timed(r.all.guest_ns)).shown("GUEST_MS", 10, Milliseconds(2)).yields(6),
    count("timed", "The exits that were timed: all that an entry followed.", |r| r.timed(r.all.timed)),
    count("l1_timed", "The exits of the guest that were timed.", |r| r.timed(r.levels[0].timed)),
    count("l2_timed", "The exits of the guest's own guests that were timed.", |r| r.timed(r.levels[1].timed)),
];

#[rustfmt::skip]
const SPLIT: [Column<Row>; 9] = [
    number("kvm_ns", TIME, "Time that KVM itself spent on a processor.", |r: &Row| r.all.phase_ns[0].into()).shown("KVM_MS", 10, Milliseconds(2)),
    number("vmm_ns", TIME, "Time that the program that runs the guest spent in user space.", |r: &Row| r.all.phase_ns[1].into()).shown("VMM_MS", 10, Milliseconds(2)),
    number("blocked_ns", TIME, "Time that the vCPU slept in KVM, halted or waiting.", |r: &Row| r.all.phase_ns[2].into()).shown("BLOCKED_MS", 10, Milliseconds(2)).yields(1),
    number("preempted_ns", TIME, "Time in which the vCPU could run and something else did.", |r: &Row| r.all.phase_ns[3].into()).shown("PREEMPT_MS", 10, Milliseconds(2)).yields(1),
    number("fault_ns", TIME, "Time spent in page faults of the host on the guest's behalf.", Row::fault_ns).shown("FAULT_MS", 10, Milliseconds(2)).yields(2),
    count("host_major", "The page faults of the host on the guest's behalf that read from disk, by the kernel's own accounting.", |r: &Row| r.all.faults[0].into()).shown("HOST_MAJ", 9, Integer).yields(4).highlight(Highlight::From(1)),
    count("host_minor", "The page faults of the host on the guest's behalf that did not read from disk, by the kernel's own accounting.", |r: &Row| r.all.faults[1].into()).shown("HOST_MIN", 9, Integer).yields(6),
    count("to_vmm", "The exits that KVM did not handle by itself.", |r: &Row| r.all.to_vmm.into()).shown("TO_VMM", 9, Integer).yields(5),
    count("l2_reflected", "The exits of L2 that were passed on to L1; L0 handled the others.", |r: &Row| r.all.reflected.into()).shown("REFLECTED", 9, Integer).yields(7),
];

#[rustfmt::skip]
const BUCKETS: [Column<Row>; 1] = [
    octaves("buckets", "The exits by handling time, [[lowest, highest, exits], …], log2.", |r| r.hist("times").map(Hist::octaves).into()),
];

/// What times are made of.
#[rustfmt::skip]
const BASE: [Column<Row>; 3] = [
    hist("times", Unit::Nanoseconds, "The exits by handling time.", |r| (&r.all.hist).into()),
    number("longest_ns", LASTS, "The longest handling time of an exit.", |r: &Row| r.all.extremes.max_ns.into()).merged(Merge::Max),
    number("shortest_ns", LASTS, "The shortest handling time of an exit.", |r: &Row| r.all.extremes.known().map(|of| of.min_ns).into()).merged(Merge::Min),
];

/// Times that are not known, in no table for people.
const UNTIMED: [Column<Row>; 13] = {
    let mut columns = TIMES;
    let mut at = 0;
    while at < columns.len() {
        columns[at] = columns[at].hidden();
        at += 1;
    }
    columns
};

/// Tables with these keys: of counts, of times, of times in phases, and of both with histograms.
macro_rules! tables {
    ($by:literal, $($keys:expr),+) => {
        [
            Table::new(concat!("kvm.count_", $by), "kvm", &[$(&$keys,)+ &COUNTS, &UNTIMED]).base(&BASE).total("Total"),
            Table::new(concat!("kvm.time_", $by), "kvm", &[$(&$keys,)+ &COUNTS, &TIMES]).base(&BASE).total("Total"),
            Table::new(concat!("kvm.split_", $by), "kvm", &[$(&$keys,)+ &COUNTS, &TIMES, &SPLIT]).base(&BASE).total("Total"),
            Table::new(concat!("kvm.hist_", $by), "kvm", &[$(&$keys,)+ &COUNTS, &TIMES, &BUCKETS]).base(&BASE).total("Total"),
            Table::new(concat!("kvm.split_hist_", $by), "kvm", &[$(&$keys,)+ &COUNTS, &TIMES, &SPLIT, &BUCKETS]).base(&BASE).total("Total"),
        ]
    };
}

type Tables = [Table<Row>; 5];

static BY_REASON: Tables = tables!("reason", REASON);
static BY_VM: Tables = tables!("vm", VM);
static BY_VCPU: Tables = tables!("vcpu", VM, VCPU);
static BY_MSR: Tables = tables!("msr", REASON, MSR);
static BY_PORT: Tables = tables!("port", REASON, PORT);
static BY_MMIO: Tables = tables!("mmio", REASON, MMIO);
static BY_RIP: Tables = tables!("rip", REASON, RIP);
static BY_USERSPACE: Tables = tables!("userspace", REASON, USERSPACE);
static BY_VM_REASON: Tables = tables!("vm_reason", VM, REASON);

impl Layout {
    /// The table of its rows. Phases and histograms are of times.
    pub(super) fn table(self) -> &'static Table<Row> {
        let tables = match self.by {
            By::Reason => &BY_REASON,
            By::Vm => &BY_VM,
            By::Vcpu => &BY_VCPU,
            By::Msr => &BY_MSR,
            By::Port => &BY_PORT,
            By::Mmio => &BY_MMIO,
            By::Rip => &BY_RIP,
            By::Userspace => &BY_USERSPACE,
            By::VmReason => &BY_VM_REASON,
        };
        let [counts, times, split, hist, both] = tables;
        match (self.timed, self.split, self.buckets) {
            (false, ..) => counts,
            (true, false, false) => times,
            (true, true, false) => split,
            (true, false, true) => hist,
            (true, true, true) => both,
        }
    }

    /// The fields of a row.
    #[must_use]
    pub fn schema(self) -> &'static Schema {
        self.table()
    }
}

#[rustfmt::skip]
const SLOW_EXIT: [Column<SlowRow>; 10] = [
    id("pid", "The process that runs the guest.", |r: &SlowRow| r.slow.vcpu.pid.into()).shown("PID", 8, Integer),
    id("tid", "The thread that runs the vCPU.", |r: &SlowRow| r.slow.vcpu.tid.into()).shown("TID", 8, Integer).yields(7),
    id("vcpu", "The number of the vCPU in its VM.", |r: &SlowRow| r.slow.vcpu.number.into()).shown("VCPU", 5, Integer),
    label("vm", "The name of the guest, if it has one.", |r: &SlowRow| r.slow.vcpu.vm.as_deref().into()).shown("VM", 20, Text).yields(6),
    key("isa", "The architecture that the number of the exit belongs to: vmx, svm, arm64, riscv.", |r| r.slow.exit.isa.to_string().into()),
    id("reason", "The number of the exit, without flags.", |r| r.slow.exit.reason().into()),
    key("name", "The name of the exit, with its flags.", |r: &SlowRow| r.name.as_str().into()).shown("EXIT", 24, Text),
    label("level", "The level of the guest that exited: L1 or L2.", |r: &SlowRow| Value::word(if r.slow.level == Level::L1 { "L1" } else { "L2" })).shown("LV", 2, Text),
    number("latency_ns", LASTS, "The time from the exit to the next entry.", |r: &SlowRow| r.slow.latency_ns.into()).shown("LATENCY_US", 10, Microseconds(1)),
    number("rip", ADDRESS, "The instruction of the guest.", |r: &SlowRow| r.slow.rip.into()).shown("RIP", 18, Hex).yields(8),
];

#[rustfmt::skip]
const VMM_STACK: [Column<SlowRow>; 4] = [
    label("stack_at", "The moment of the stack: where the thread slept (asleep) or lost its processor (preempted) for the longest time after KVM returned to the VMM, or, if it did neither, where it called KVM_RUN after the exit (KVM_RUN); null without a stack.", |r| r.stack().and_then(|s| s.at).map(|at| at.to_string()).into()),
    number("stack_ns", LASTS, "The time that the thread was off its processor at that moment, null for KVM_RUN.", |r| r.stack().and_then(|s| s.away_ns).into()),
    label("stack", "The name of the VMM and its functions, outermost first, with `;` between; null of an exit that KVM handled itself.", |r: &SlowRow| r.stack().map(|s| s.calls.frames.as_str()).into()).shown("STACK", 5, Stack),
    label("lines", "The place in source text of each frame of the stack, or in brackets why it has no name, with `;` between.", |r| r.stack().map(|s| s.calls.lines.as_str()).into()),
];

pub(super) static SLOW: Table<SlowRow> = Table::new("kvm.slow", "kvm", &[&SLOW_EXIT]);
pub(super) static SLOW_WITH_STACK: Table<SlowRow> =
    Table::new("kvm.slow_stack", "kvm", &[&SLOW_EXIT, &VMM_STACK]);

/// Slow exits.
pub const EVENT: &Schema = &SLOW;
/// Slow exits with the stacks of VMMs.
pub const EVENT_WITH_STACK: &Schema = &SLOW_WITH_STACK;

/// All of them.
pub(crate) fn tables() -> Vec<&'static Schema> {
    let subjects = [&BY_MSR, &BY_PORT, &BY_MMIO, &BY_RIP, &BY_USERSPACE];
    let rows = [&BY_REASON, &BY_VM, &BY_VCPU, &BY_VM_REASON].into_iter().chain(subjects);
    let rows = rows.flatten().map(|table| table as &Schema);
    rows.chain([EVENT, EVENT_WITH_STACK]).chain(super::run::TABLES).collect()
}
