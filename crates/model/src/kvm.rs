//! VM exits: their names, rows by reason, VM, vCPU or subject, slow exits, and the ledger behind the rows.

mod ledger;
mod names;
mod tables;

use crate::field::{Field, Kind, Record, Schema, Show, Unit, Value, shown};
use crate::item::Event;

pub use ledger::{Ledger, Level, PHASES, Report, Stats, Vcpu};
pub use names::{Exit, Isa, Names, NoSuchExit};

/// What rows are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The reason of the exit.
    Reason,
    /// The process that runs the guest.
    Vm,
    /// The vCPU and its thread.
    Vcpu,
    /// The reason and the model-specific register.
    Msr,
    /// The reason and the I/O port.
    Port,
    /// The reason and the guest-physical address of a device.
    Mmio,
    /// The reason and the guest's instruction.
    Rip,
}

/// Which figures rows have, beside the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Their key.
    pub by: By,
    /// Whether handling is timed.
    pub timed: bool,
    /// Whether they have a histogram.
    pub buckets: bool,
    /// Whether the handling time is divided into phases.
    pub split: bool,
}

const fn plain(name: &'static str, unit: Unit, kind: Kind, help: &'static str) -> Field {
    Field { name, unit, kind, help, column: None }
}

const fn time(name: &'static str, help: &'static str, title: &'static str, kind: Kind) -> Field {
    let show = match kind {
        Kind::Counter => Show::Milliseconds(2),
        _ => Show::Microseconds(1),
    };
    shown(plain(name, Unit::Nanoseconds, kind, help), title, 10, show)
}

const fn number(name: &'static str, help: &'static str, title: &'static str) -> Field {
    shown(plain(name, Unit::Count, Kind::Counter, help), title, 9, Show::Integer)
}

const ISA: Field = plain("isa", Unit::None, Kind::Key, "what the number belongs to: vmx, svm, arm64, riscv");
const REASON: Field = plain("reason", Unit::None, Kind::Key, "the exit's number, without flags");
const NAME: Field =
    shown(plain("name", Unit::None, Kind::Key, "its name, with its flags"), "EXIT", 24, Show::Text);
const PID: Field =
    shown(plain("pid", Unit::None, Kind::Key, "the process that runs the guest"), "PID", 8, Show::Integer);
const START: Field = plain("start_ns", Unit::Nanoseconds, Kind::Key, "that process's birth, CLOCK_MONOTONIC");
const VM: Field =
    shown(plain("vm", Unit::None, Kind::Label, "the guest's name, if it has one"), "VM", 20, Show::Text);
const VCPU: Field =
    shown(plain("vcpu", Unit::None, Kind::Key, "the number of the vCPU in its VM"), "VCPU", 5, Show::Integer);
const TID: Field =
    shown(plain("tid", Unit::None, Kind::Key, "the thread that runs the vCPU"), "TID", 8, Show::Integer);
const RW: Field =
    shown(plain("rw", Unit::None, Kind::Key, "R it is read, W it is written"), "RW", 2, Show::Text);
const RIP: Field =
    shown(plain("rip", Unit::Address, Kind::Key, "the guest's instruction"), "RIP", 18, Show::Hex);

const fn subject(name: &'static str, help: &'static str, title: &'static str, none: &'static str) -> Field {
    shown(plain(name, Unit::Address, Kind::Key, help), title, 18, Show::HexOr(none))
}

const COUNTS: &Schema = &[
    number("count", "exits", "COUNT"),
    number("l1_count", "of the guest", "L1"),
    number("l2_count", "of the guest's own guests", "L2"),
];

const TIMES: &Schema = &[
    time("total_ns", "handling time: from the exit to the next entry", "TOTAL_MS", Kind::Counter),
    plain("l1_ns", Unit::Nanoseconds, Kind::Counter, "of exits of the guest"),
    plain("l2_ns", Unit::Nanoseconds, Kind::Counter, "of exits of the guest's own guests"),
    time("max_ns", "the longest", "MAX_US", Kind::Gauge),
    time("avg_ns", "the mean", "AVG_US", Kind::Gauge),
    time("p50_ns", "half of the exits took no longer, within 12.5 %", "P50_US", Kind::Gauge),
    time("p90_ns", "90 % of the exits took no longer, within 12.5 %", "P90_US", Kind::Gauge),
    time("p99_ns", "99 % of the exits took no longer, within 12.5 %", "P99_US", Kind::Gauge),
    plain("timed", Unit::Count, Kind::Counter, "exits that were timed: all that an entry followed"),
    plain("l1_timed", Unit::Count, Kind::Counter, "those of the guest"),
    plain("l2_timed", Unit::Count, Kind::Counter, "those of the guest's own guests"),
];

const SPLIT: &Schema = &[
    time("kvm_ns", "KVM itself, on a processor", "KVM_MS", Kind::Counter),
    time("vmm_ns", "the program that runs the guest, in user space", "VMM_MS", Kind::Counter),
    time("blocked_ns", "asleep in KVM: halted, or waiting", "BLOCKED_MS", Kind::Counter),
    time("preempted_ns", "could run, but something else did", "PREEMPT_MS", Kind::Counter),
    time("fault_ns", "page faults of the host on the guest's behalf", "FAULT_MS", Kind::Counter),
    number("host_major", "such faults that waited for I/O, by the kernel's own account", "HOST_MAJ"),
    number("host_minor", "such faults that did not", "HOST_MIN"),
    number("to_vmm", "exits that KVM did not handle by itself", "TO_VMM"),
    number("l2_reflected", "exits of L2 passed on to L1; L0 handled the others", "REFLECTED"),
];

const BUCKETS: Field = plain(
    "buckets",
    Unit::Nanoseconds,
    Kind::Counter,
    "[[lowest, highest, exits], …] by handling time, log2",
);

/// The fields of a slow exit.
pub const EVENT: &Schema = &[PID, TID, VCPU, VM, ISA, REASON, NAME, EVENT_LEVEL, EVENT_LATENCY, RIP];

const EVENT_LEVEL: Field = shown(plain("level", Unit::None, Kind::Label, "L1 or L2"), "LV", 2, Show::Text);
const EVENT_LATENCY: Field = time("latency_ns", "from the exit to the next entry", "LATENCY_US", Kind::Gauge);

impl By {
    fn key(self) -> Vec<Field> {
        match self {
            Self::Reason => vec![ISA, REASON, NAME],
            Self::Vm => vec![PID, START, VM],
            Self::Vcpu => vec![PID, START, VM, VCPU, TID],
            Self::Msr => {
                let help = "the first model-specific register of the exit, null without one";
                vec![ISA, REASON, NAME, subject("msr", help, "MSR", "(no MSR event)"), RW]
            }
            Self::Port => {
                let help = "the first I/O port of the exit, null without one";
                vec![ISA, REASON, NAME, subject("port", help, "PORT", "(no port event)"), RW]
            }
            Self::Mmio => {
                let help = "the first guest-physical address of a device of the exit, null without one";
                vec![ISA, REASON, NAME, subject("mmio", help, "MMIO", "(no MMIO event)"), RW]
            }
            Self::Rip => vec![ISA, REASON, NAME, RIP],
        }
    }
}

impl Layout {
    /// The fields of a row. Made once and kept for good: call it once a run.
    #[must_use]
    pub fn schema(self) -> &'static Schema {
        let mut fields = self.by.key();
        fields.extend(COUNTS);
        fields.extend(
            TIMES.iter().map(|field| if self.timed { *field } else { Field { column: None, ..*field } }),
        );
        if self.split {
            fields.extend(SPLIT);
        }
        if self.buckets {
            fields.push(BUCKETS);
        }
        fields.leak()
    }
}

/// One slow exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// The entry that ended it, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Whose it was.
    pub vcpu: Vcpu,
    /// What it was.
    pub exit: Exit,
    /// At which level.
    pub level: Level,
    /// From the exit to the next entry, nanoseconds.
    pub latency_ns: u64,
    /// The guest's instruction.
    pub rip: u64,
}

impl Slow {
    /// As an event with a record of [`EVENT`].
    #[must_use]
    pub fn event(&self, names: &Names) -> Event {
        let values: Vec<Value> = vec![
            self.vcpu.pid.into(),
            self.vcpu.tid.into(),
            self.vcpu.number.into(),
            self.vcpu.vm.as_deref().into(),
            self.exit.isa.to_string().as_str().into(),
            self.exit.reason().into(),
            names.name(self.exit).as_str().into(),
            match self.level {
                Level::L1 => "L1",
                Level::L2 => "L2",
            }
            .into(),
            self.latency_ns.into(),
            self.rip.into(),
        ];
        Event { time_ns: self.time_ns, record: Record::new(EVENT, values) }
    }
}
