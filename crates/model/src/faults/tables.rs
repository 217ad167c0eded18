//! The tables of page faults.

use std::rc::Rc;

use super::rows::{self, Row};
use super::span::{self, SpanRow};
use super::step::Message;
use super::{By, Fault, NamedStack, Parts, Process, Whose};
use crate::field::Show::{Hex, Integer, Microseconds, Milliseconds, Path, Percent, Stack, Text, Thousandths};
use crate::field::{Highlight, Kind, Merge, Record, Type, Unit, Value};
use crate::item::Block;
use crate::table::{
    Column, Of, Relative, Schema, Table, count, derived, hist, id, key, known, label, number, octaves, text,
};

const TIME: (Unit, Kind) = (Unit::Nanoseconds, Kind::Counter);
const LASTS: (Unit, Kind) = (Unit::Nanoseconds, Kind::Gauge);
const START: (Unit, Kind) = (Unit::Nanoseconds, Kind::Key);
const PLACE: (Unit, Kind) = (Unit::Bytes, Kind::Label);
const COUNT: (Unit, Kind) = (Unit::Count, Kind::Counter);
const SHARE: (Unit, Kind) = (Unit::Count, Kind::Gauge);

/// Major faults stand out, and times from 10 ms on: a disk, or a queue for it.
const ANY: Highlight = Highlight::From(1);
const LONG: Highlight = Highlight::From(10_000_000);

/// The figures of every row and total.
#[rustfmt::skip]
const FIGURES: &[Column<Row>] = &[
    count("major", "The faults that read from disk, as ru_majflt counts them.", |r: &Row| r.figures.stats.major.into()).shown("MAJOR", 9, Integer).highlight(ANY),
    count("minor", "The faults that did not read from disk, as ru_minflt counts them.", |r: &Row| r.figures.stats.minor.into()).shown("MINOR", 9, Integer),
    count("waits", "The faults in which the thread slept, for I/O, a lock, memory or something else.", |r: &Row| r.of_waits(r.figures.stats.waits).into()).shown("WAITS", 9, Integer).yields(7).highlight(ANY),
    derived("total_ns", TIME, "Time spent in all faults that were timed.", rows::total_ns).shown("TOTAL_MS", 11, Milliseconds(2)),
    derived("major_ns", TIME, "Time spent in major faults, which read from disk.", rows::major_ns).shown("MAJOR_MS", 11, Milliseconds(2)).yields(5),
    number("wait_ns", TIME, "Time that threads slept in faults.", |r: &Row| r.of_waits(r.figures.stats.wait_ns).into()).shown("WAIT_MS", 11, Milliseconds(2)).yields(6),
    derived("avg_ns", LASTS, "The mean time of a fault.", rows::avg_ns).shown("AVG_MS", 9, Milliseconds(3)).yields(4),
    derived("max_ns", LASTS, "The time of the longest fault.", rows::max_ns).shown("MAX_MS", 9, Milliseconds(3)).yields(2).highlight(LONG).merged(Merge::Max),
    derived("min_ns", LASTS, "The time of the shortest fault.", rows::min_ns).shown("MIN_US", 9, Microseconds(1)).yields(9).merged(Merge::Min),
    derived("p50_ns", LASTS, "Half of the faults took no longer than this, within 12.5 %.", |r| rows::quantile(r, 0.5)),
    derived("p99_ns", LASTS, "99 % of the faults took no longer than this, within 12.5 %.", |r| rows::quantile(r, 0.99)),
    derived("timed", COUNT, "The faults that were timed; those taken inside the kernel on the thread's behalf may not be.", rows::timed),
    octaves("buckets", "The faults by their time, [[lowest, highest, faults], …], log2 (with --hist).", rows::buckets),
    octaves("major_buckets", "The major faults by their time, [[lowest, highest, faults], …], log2 (with --hist).", rows::major_buckets),
];

/// What the time is spent on: with --split. Together, it is `total_ns`.
#[rustfmt::skip]
const PARTS: &[Column<Row>] = &[
    number("lock_ns", TIME, "Time of faults asleep until the lock of the address space was free.", |r: &Row| r.part_ns(0).into()).shown("LOCK_MS", 9, Milliseconds(2)).yields(3).highlight(LONG),
    number("io_ns", TIME, "Time of faults asleep for I/O.", |r: &Row| r.part_ns(1).into()).shown("IO_MS", 9, Milliseconds(2)).yields(3),
    number("reclaim_ns", TIME, "Time of faults in direct reclaim and compaction, at work and asleep.", |r: &Row| r.part_ns(2).into()).shown("RECLAIM_MS", 10, Milliseconds(2)).yields(3),
    number("throttled_ns", TIME, "Time of faults, and on the way back to user mode after them, asleep because the cgroup was above its memory.high.", |r: &Row| r.part_ns(3).into()).shown("THROTTLED_MS", 12, Milliseconds(2)).yields(3),
    number("preempted_ns", TIME, "Time of faults in which something else ran on the processor.", |r: &Row| r.part_ns(4).into()).shown("PREEMPTED_MS", 12, Milliseconds(2)).yields(3),
    number("sleep_ns", TIME, "Time of faults asleep for something else: a userfaultfd, a page that is moved.", |r: &Row| r.part_ns(5).into()).shown("SLEEP_MS", 9, Milliseconds(2)).yields(3),
    derived("kernel_ns", TIME, "Time of faults in the kernel's own work: what the other parts leave of total_ns.", rows::kernel_ns).shown("KERNEL_MS", 9, Milliseconds(2)).yields(3),
];

/// What times are made of.
#[rustfmt::skip]
const BASE: &[Column<Row>] = &[
    known("sampling", Type::U64, "One in this number of minor faults is timed, 0 for none; null if no fault is timed.", |r| r.sampling().into()),
    count("timed_major", "Major faults that were timed.", |r| r.figures.stats.timed_major.into()),
    count("timed_minor", "Minor faults that were timed.", |r| r.figures.stats.timed_minor.into()),
    number("timed_major_ns", TIME, "Time spent in the major faults that were timed.", |r| r.figures.stats.major_ns.into()),
    number("timed_minor_ns", TIME, "Time spent in the minor faults that were timed.", |r| r.figures.stats.minor_ns.into()),
    count("slept_minor", "Minor faults in which the thread slept, where not all minor faults are timed.", |r| r.figures.stats.slept_minor.into()),
    number("slept_minor_ns", TIME, "Time spent in these.", |r| r.figures.stats.slept_minor_ns.into()),
    hist("times", Unit::Nanoseconds, "The faults that were timed by their time.", |r| (&r.figures.stats.hist).into()),
    number("longest_ns", LASTS, "The time of the longest fault.", |r: &Row| r.extremes().map(|e| e.max_ns).into()).merged(Merge::Max),
    number("shortest_ns", LASTS, "The time of the shortest fault.", |r: &Row| r.extremes().map(|e| e.min_ns).into()).merged(Merge::Min),
    hist("major_times", Unit::Nanoseconds, "The major faults that were timed by their time.", |r| (&r.figures.stats.major_hist).into()),
    known("with_hist", Type::Bool, "Whether histograms are wanted.", |r| r.hist.into()),
];

/// The same for rows that may be of files which had the same name and number one after the other.
#[rustfmt::skip]
const FILE_BASE: &[Column<Row>] = &[
    BASE[0], BASE[1], BASE[2], BASE[3], BASE[4], BASE[5], BASE[6], BASE[7], BASE[8], BASE[9], BASE[10], BASE[11],
    id("generation", "Which of the files of this number it is.", |r| r.generation().into()),
];

#[rustfmt::skip]
const PID: Column<Row> = id("pid", "The process id.", |r: &Row| r.pid().into()).shown("PID", 8, Integer);
#[rustfmt::skip]
const TID: Column<Row> = id("tid", "The thread id.", |r: &Row| r.tid().into()).shown("TID", 8, Integer);
#[rustfmt::skip]
const START_NS: Column<Row> = number("start_ns", START, "The start time of the thread or process, CLOCK_MONOTONIC.", |r| r.start_ns().into());
#[rustfmt::skip]
const NAME: Column<Row> = label("comm", "The name of the thread, or of the process.", |r: &Row| r.comm().into()).shown("COMM", 15, Text);

#[rustfmt::skip]
const THREAD: &[Column<Row>] = &[PID, TID, START_NS, NAME,
    count("forks", "The processes that the thread forked, with a copy of its memory (not by vfork); null where that is not seen.", |r: &Row| r.figures.stats.forks.into()),
    number("forked_by", (Unit::None, Kind::Label), "The process that forked the thread's, if that was during the trace; null if it was not, or is not seen.", |r: &Row| r.figures.forked_by.into()),
];
const PROCESS: &[Column<Row>] = &[PID, START_NS, NAME];

#[rustfmt::skip]
const COMM: &[Column<Row>] = &[
    key("comm", "The name of the processes.", |r: &Row| r.comm().into()).shown("COMM", 15, Text),
];

/// The title comes when the rows of a process are made: nothing is known of it here.
#[rustfmt::skip]
const TITLE: Column<Row> = label("title", "The command line of the process when its row was first printed, which programs may change to report what they do; at most 256 characters.", |_| Value::Null).shown("TITLE", 40, Text);

static PROCESS_TITLE: Table<Row> =
    Table::new("faults.process_title", "faults", &[PROCESS, FIGURES, &[TITLE]])
        .base(BASE)
        .total("TOTAL")
        .relative(RELATIVE);

/// Rows by process with titles.
pub const TITLED: &Schema = &PROCESS_TITLE;

/// Rows by process get titles; other rows stay as they are.
pub fn add_titles(block: &mut Block, mut title: impl FnMut(Process) -> Option<Rc<str>>) {
    if *block.table != *By::Process.schema() {
        return;
    }
    block.table = TITLED;
    for row in block.rows.iter_mut().chain(&mut block.sum) {
        let process = row.number("pid").zip(row.number("start_ns"));
        let process = process.map(|(pid, start_ns)| Process { pid: pid as u32, start_ns });
        let title = Value::from(process.and_then(&mut title).as_deref());
        let values = row.iter().map(|(_, value)| value.clone());
        *row = Record::new(TITLED, values.chain([title]).collect());
    }
}

#[rustfmt::skip]
const CGROUP: &[Column<Row>] = &[
    key("cgroup", "The path of the cgroup below the root of the v2 hierarchy.", |r: &Row| r.cgroup().into()).shown("CGROUP", 40, Path),
    label("container", "The container id, if the path of the cgroup holds one.", |r: &Row| r.container().into()).shown("CONTAINER", 12, Text).yields(7),
    label("pod", "The pod id, if the path of the cgroup holds one.", |r| r.pod().into()),
];

#[rustfmt::skip]
const FILE: &[Column<Row>] = &[
    key("file", "The path of the file as the process sees it, or the kind of memory.", |r: &Row| r.file().into()).shown("FILE", 48, Path),
    number("offset", PLACE, "The least offset in the file that faulted since the trace began.", |r: &Row| r.figures.range.map(|range| range.0).into()).shown("FROM", 12, Hex).yields(8).merged(Merge::Min),
    number("offset_end", PLACE, "The greatest offset in the file that faulted since the trace began.", |r: &Row| r.figures.range.map(|range| range.1).into()).shown("TO", 12, Hex).yields(8).merged(Merge::Max),
    key("dev", "The device number of the file's file system, MAJOR:MINOR in decimal.", |r| r.device().into()),
    id("inode", "The inode number of the file.", |r| r.inode().into()),
];

#[rustfmt::skip]
const CAUSE: &[Column<Row>] = &[
    key("cause", "The cause of the faults.", |r: &Row| r.cause().into()).shown("CAUSE", 14, Text),
    count("failed", "Faults that ended in a signal; the kernel's accounting, and so every other figure, leaves them out.", |r: &Row| r.figures.stats.failed.into()).shown("FAILED", 9, Integer).yields(3),
];

/// What is said of a stack in rows, in recorded faults and in the table of stacks.
const HELP_FRAMES: &str = "The name of the process and its functions, outermost first, with `;` between; those of the kernel end in _[k].";
const HELP_LINES: &str = "The place in source text of each frame of the stack, or in brackets why it has no name, with `;` between.";
const HELP_BINARIES: &str = "The file of each frame that has no name, `@`, and the file's build id if it is known, with `;` between; null if all frames have names.";
const HELP_FUNCTION: &str = "The function in user mode that faulted, or called the kernel that did; a kernel function if there is none.";

#[rustfmt::skip]
const STACK: &[Column<Row>] = &[
    key("stack", HELP_FRAMES, |r: &Row| r.frames().into()).shown("STACK", 5, Stack),
    key("lines", HELP_LINES, |r| r.lines().into()),
    key("binaries", HELP_BINARIES, |r| r.binaries().into()),
];

#[rustfmt::skip]
const FUNCTION: &[Column<Row>] = &[
    key("function", HELP_FUNCTION, |r: &Row| r.function().into()).shown("FUNCTION", 40, Text),
];

/// The same beside others, with less space.
const THREAD_OF: &[Column<Row>] = &[PID.yields(7), TID, START_NS, NAME.least(8)];
const PROCESS_OF: &[Column<Row>] = &[PID, START_NS, NAME.least(8)];
const COMM_OF: &[Column<Row>] = &[COMM[0].least(8)];
const CGROUP_OF: &[Column<Row>] = &[CGROUP[0].least(14), CGROUP[1], CGROUP[2]];
const FILE_OF: &[Column<Row>] = &[FILE[0].least(14), FILE[1], FILE[2], FILE[3], FILE[4]];

/// What tables for people have beside them.
const RELATIVE: &[Relative] = &[
    Relative { title: "TIME_%", width: 6, yields: 3, of: Of::Share(&["total_ns"]) },
    Relative { title: "FAULTS_%", width: 8, yields: 9, of: Of::Share(&["major", "minor"]) },
    Relative { title: "FAULTS/s", width: 9, yields: 8, of: Of::PerSecond(&["major", "minor"]) },
];

/// Rows without and with what the time was spent on.
pub(super) struct Rows {
    pub(super) whole: Table<Row>,
    pub(super) split: Table<Row>,
}

/// The tables with these keys; their name is in pieces.
macro_rules! table {
    ($($id:literal)+, $base:ident, $($keys:ident),+) => {
        Rows {
            whole: Table::new(concat!("faults.", $($id),+), "faults", &[$($keys,)+ FIGURES])
                .base($base)
                .total("TOTAL")
                .relative(RELATIVE),
            split: Table::new(concat!("faults.split_", $($id),+), "faults", &[$($keys,)+ FIGURES, PARTS])
                .base($base)
                .total("TOTAL")
                .relative(RELATIVE),
        }
    };
}

/// Tables of these by file, by cause, and by both.
macro_rules! tables {
    ($id:literal, $whose:ident) => {
        [
            table!($id "_file", FILE_BASE, $whose, FILE_OF),
            table!($id "_cause", BASE, $whose, CAUSE),
            table!($id "_file_cause", FILE_BASE, $whose, FILE_OF, CAUSE),
        ]
    };
}

static BY_THREAD: Rows = table!("thread", BASE, THREAD);
static BY_PROCESS: Rows = table!("process", BASE, PROCESS);
static BY_COMM: Rows = table!("comm", BASE, COMM);
static BY_CGROUP: Rows = table!("cgroup", BASE, CGROUP);
static BY_FILE: Rows = table!("file", FILE_BASE, FILE);
static BY_CAUSE: Rows = table!("cause", BASE, CAUSE);
static BY_STACK: Rows = table!("stack", BASE, STACK);
static BY_FUNCTION: Rows = table!("function", BASE, FUNCTION);
static BY_FILE_AND_CAUSE: Rows = table!("file_cause", FILE_BASE, FILE_OF, CAUSE);

/// All faults of a machine: see [`with_host`](crate::with_host).
static OF_ALL: Table<Row> =
    Table::new("faults.all", "faults", &[FIGURES]).base(BASE).total("TOTAL").relative(RELATIVE);
/// All faults, in one row.
pub const ALL: &Schema = &OF_ALL;

static OF_THREAD: [Rows; 3] = tables!("thread", THREAD_OF);
static OF_PROCESS: [Rows; 3] = tables!("process", PROCESS_OF);
static OF_COMM: [Rows; 3] = tables!("comm", COMM_OF);
static OF_CGROUP: [Rows; 3] = tables!("cgroup", CGROUP_OF);

/// What times of spans are made of.
#[rustfmt::skip]
const SPAN_BASE: &[Column<SpanRow>] = &[
    hist("stalls", Unit::Nanoseconds, "The calls by their stall.", |r| r.timed(&r.calls.stall.hist)),
    number("stall_longest_ns", LASTS, "The longest stall of a call.", |r: &SpanRow| r.timed(r.extremes(&r.calls.stall).map(|e| e.max_ns))).merged(Merge::Max),
    number("stall_shortest_ns", LASTS, "The shortest stall of a call.", |r: &SpanRow| r.timed(r.extremes(&r.calls.stall).map(|e| e.min_ns))).merged(Merge::Min),
    hist("spans", Unit::Nanoseconds, "The calls by their time.", |r| (&r.calls.span.hist).into()),
    number("span_longest_ns", LASTS, "The time of the longest call.", |r: &SpanRow| r.extremes(&r.calls.span).map(|e| e.max_ns).into()).merged(Merge::Max),
    number("span_shortest_ns", LASTS, "The time of the shortest call.", |r: &SpanRow| r.extremes(&r.calls.span).map(|e| e.min_ns).into()).merged(Merge::Min),
];

/// Times without `span` in their name are times in faults: stalls.
#[rustfmt::skip]
pub(super) static SPAN: Table<SpanRow> = Table::new("faults.span", "faults", &[&[
    key("span", "The span as it was given on the command line.", |r: &SpanRow| (*r.name).into()).shown("SPAN", 40, Text),
    count("calls", "The calls of the span that began and returned.", |r: &SpanRow| r.calls.calls.into()).shown("CALLS", 9, Integer),
    count("major", "The faults during the calls that read from disk, as ru_majflt counts them.", |r: &SpanRow| r.calls.major.into()).shown("MAJOR", 9, Integer).highlight(ANY),
    count("minor", "The faults during the calls that did not read from disk, as ru_minflt counts them.", |r: &SpanRow| r.calls.minor.into()).shown("MINOR", 9, Integer),
    derived("faults_per_1000_calls", SHARE, "Major and minor faults for each thousand calls.", span::faults_per_1000_calls).shown("PER_CALL", 9, Thousandths(3)).yields(6),
    number("total_ns", TIME, "Time spent in faults during the calls.", |r: &SpanRow| r.timed(r.calls.stall_ns)).shown("STALL_MS", 11, Milliseconds(2)),
    derived("stall_ppm", SHARE, "The share of the calls' time that was spent in faults, millionths.", span::stall_ppm).shown("SHARE_%", 7, Percent(1)).yields(1),
    number("major_ns", TIME, "Time spent in major faults during the calls.", |r| r.major_ns().into()),
    derived("avg_ns", LASTS, "The mean stall of a call.", |r| span::per_call(r, "total_ns")).shown("AVG_MS", 9, Milliseconds(3)).yields(7),
    derived("p50_ns", LASTS, "Half of the calls stalled no longer than this, within 12.5 %.", |r| span::STALL.quantile(r, 0.5)).shown("P50_MS", 9, Milliseconds(3)).yields(8),
    derived("p99_ns", LASTS, "99 % of the calls stalled no longer than this, within 12.5 %.", |r| span::STALL.quantile(r, 0.99)).shown("P99_MS", 9, Milliseconds(3)).yields(4),
    derived("max_ns", LASTS, "The longest stall of a call.", |r| span::STALL.longest(r)).shown("MAX_MS", 9, Milliseconds(3)).yields(3).highlight(LONG).merged(Merge::Max),
    derived("min_ns", LASTS, "The shortest stall of a call.", |r| span::STALL.shortest(r)).merged(Merge::Min),
    count("timed", "The faults during the calls that were timed.", |r| r.calls.timed.into()),
    number("span_ns", TIME, "Time spent in the calls, from the beginning of each to its return.", |r: &SpanRow| r.calls.span_ns.into()).shown("SPAN_MS", 11, Milliseconds(2)).yields(9),
    derived("span_avg_ns", LASTS, "The mean time of a call.", |r| span::per_call(r, "span_ns")),
    derived("span_p50_ns", LASTS, "Half of the calls took no longer than this, within 12.5 %.", |r| span::SPAN.quantile(r, 0.5)),
    derived("span_p99_ns", LASTS, "99 % of the calls took no longer than this, within 12.5 %.", |r| span::SPAN.quantile(r, 0.99)),
    derived("span_max_ns", LASTS, "The time of the longest call.", |r| span::SPAN.longest(r)).merged(Merge::Min),
    count("unfinished_calls", "Calls that did not return; they are in no other figure.", |r| r.calls.unfinished.into()),
]]).base(SPAN_BASE).idle();

#[rustfmt::skip]
const FAULT_FIELDS: &[Column<Fault>] = &[
    id("pid", "The process id.", |f: &Fault| f.thread.pid.into()).shown("PID", 8, Integer).yields(7),
    id("tid", "The thread id.", |f: &Fault| f.thread.tid.into()).shown("TID", 8, Integer),
    number("start_ns", START, "The start time of the thread, CLOCK_MONOTONIC.", |f: &Fault| f.thread.start_ns.into()),
    text("comm", "The name of the thread.", |f: &Fault| Some(&f.comm)).shown("COMM", 15, Text),
    text("kind", "The kind of the fault: major, minor, or failed if it ended in a signal.", |f: &Fault| Some(f.outcome.name())).shown("KIND", 6, Text).highlight(Highlight::Word("major")),
    number("addr", (Unit::Address, Kind::Label), "The address that faulted.", |f: &Fault| f.addr.into()).shown("ADDR", 18, Hex).yields(6),
    number("ip", (Unit::Address, Kind::Label), "The instruction that faulted.", |f: &Fault| f.ip.into()).shown("IP", 18, Hex).yields(9),
    text("rw", "How the memory was accessed: R read, W write, X execute.", |f: &Fault| f.access.map(super::Access::name)).shown("RW", 2, Text).yields(4),
    number("latency_ns", LASTS, "The time from the fault to its completion.", |f: &Fault| f.latency_ns.into()).shown("LATENCY_US", 10, Microseconds(1)).highlight(LONG),
    number("wait_ns", LASTS, "The time that the thread slept in the fault.", |f: &Fault| f.wait_ns.into()).shown("WAIT_US", 10, Microseconds(1)).yields(7).highlight(LONG),
    text("cause", "The cause of the fault.", |f: &Fault| f.cause.map(super::Cause::name)).shown("CAUSE", 13, Text).yields(5),
    text("file", "The path of the file that is mapped at the address, or the kind of memory.", |f: &Fault| f.file().map(|file| &*file.path)).shown("FILE", 48, Path),
    number("offset", (Unit::Bytes, Kind::Label), "The offset of the fault in the file.", |f: &Fault| f.offset.into()).shown("OFFSET", 12, Hex).yields(8),
    text("dev", "The device number of the file's file system, MAJOR:MINOR in decimal.", |f: &Fault| f.file().and_then(|file| file.device.as_deref())),
    number("inode", (Unit::None, Kind::Label), "The inode number of the file.", |f: &Fault| f.file().and_then(|file| file.inode).into()),
    text("process_comm", "The name of the process.", |f: &Fault| f.process_comm.as_deref()),
    number("process_start_ns", (Unit::Nanoseconds, Kind::Label), "The start time of the process, CLOCK_MONOTONIC.", |f: &Fault| f.process_start_ns.into()),
    text("cgroup", "The path of the thread's cgroup below the root of the v2 hierarchy.", |f: &Fault| f.cgroup.as_deref()),
];

#[rustfmt::skip]
const FAULT_FUNCTION: &[Column<Fault>] = &[
    label("function", "The function in user mode that faulted, or called the kernel that did.", |f: &Fault| f.function.as_deref().into()).shown("FUNCTION", 30, Text).least(12),
];

/// What its time was spent on.
#[rustfmt::skip]
const FAULT_PARTS: &[Column<Fault>] = &[
    number("lock_ns", LASTS, "The time asleep until the lock of the address space was free.", |f: &Fault| f.part(0).into()).shown("LOCK_US", 10, Microseconds(1)).yields(6),
    number("io_ns", LASTS, "The time asleep for I/O.", |f: &Fault| f.part(1).into()).shown("IO_US", 10, Microseconds(1)).yields(6),
    number("reclaim_ns", LASTS, "The time in direct reclaim and compaction, at work and asleep.", |f: &Fault| f.part(2).into()).shown("RECLAIM_US", 10, Microseconds(1)).yields(6),
    number("throttled_ns", LASTS, "The time asleep because the cgroup was above its memory.high, also on the way back to user mode.", |f: &Fault| f.part(3).into()).shown("THROTTLED_US", 12, Microseconds(1)).yields(6),
    number("preempted_ns", LASTS, "The time in which something else ran on the processor.", |f: &Fault| f.part(4).into()).shown("PREEMPTED_US", 12, Microseconds(1)).yields(6),
    number("sleep_ns", LASTS, "The time asleep for something else: a userfaultfd, a page that is moved.", |f: &Fault| f.part(5).into()).shown("SLEEP_US", 10, Microseconds(1)).yields(6),
    number("kernel_ns", LASTS, "The time in the kernel's own work: what the other parts leave of latency_ns.", |f: &Fault| f.kernel_ns().into()).shown("KERNEL_US", 10, Microseconds(1)).yields(6),
];

/// Its stack. A recording has names of stacks in a table of their own, `STACKS`, as they come later than the faults; who reads it
/// puts them here.
#[rustfmt::skip]
const FAULT_STACK: &[Column<Fault>] = &[
    number("stack_id", (Unit::None, Kind::Label), "The number of the stack in the recording.", |f: &Fault| f.stack_id.into()),
    text("stack", HELP_FRAMES, |_| None),
    text("lines", HELP_LINES, |_| None),
    text("binaries", HELP_BINARIES, |_| None),
    text("function", HELP_FUNCTION, |_| None),
];

/// What a stack's number means.
#[rustfmt::skip]
pub(super) static STACK_NAMES: Table<NamedStack> = Table::new("faults.stacks", "faults", &[&[
    number("stack_id", (Unit::None, Kind::Key), "The number of the stack.", |s: &NamedStack| s.id.into()),
    text("stack", HELP_FRAMES, |s: &NamedStack| Some(&s.stack.frames)),
    text("lines", HELP_LINES, |s: &NamedStack| Some(&s.stack.lines)),
    text("binaries", HELP_BINARIES, |s: &NamedStack| Some(&*s.stack.binaries).filter(|of| !of.is_empty())),
    text("function", HELP_FUNCTION, |s: &NamedStack| Some(s.stack.function())),
]]);

pub(super) static FAULT: Table<Fault> = Table::new("faults.fault", "faults", &[FAULT_FIELDS]);
pub(super) static SPLIT_FAULT: Table<Fault> =
    Table::new("faults.split_fault", "faults", &[FAULT_FIELDS, FAULT_PARTS]);
pub(super) static SLOW_FAULT: Table<Fault> =
    Table::new("faults.slow_fault", "faults", &[FAULT_FIELDS, FAULT_FUNCTION, FAULT_PARTS]);
pub(super) static STACK_FAULT: Table<Fault> =
    Table::new("faults.stack_fault", "faults", &[FAULT_FIELDS, FAULT_PARTS, FAULT_STACK]);

#[rustfmt::skip]
const WHO: &[Column<Message>] = &[
    id("pid", "The process id.", |m: &Message| m.process.pid.into()).shown("PID", 8, Integer),
    number("start_ns", START, "The start time of the process, CLOCK_MONOTONIC.", |m: &Message| m.process.start_ns.into()),
    label("comm", "The name of the process.", |m: &Message| m.comm.as_str().into()).shown("COMM", 15, Text),
];

#[rustfmt::skip]
const COUNTED: &[Column<Message>] = &[
    count("count", "The faults of the process, a multiple of the step.", |m: &Message| m.reached.into()).shown("NB_PAGE_FAULT", 13, Integer),
    number("step", (Unit::Count, Kind::Label), "The number of faults from one message to the next.", |m| m.step.into()),
];

#[rustfmt::skip]
const SPENT: &[Column<Message>] = &[
    number("stall_ns", TIME, "The time that the process spent in faults, a multiple of the step.", |m: &Message| m.reached.into()).shown("STALL_MS", 13, Milliseconds(0)),
    number("step_ns", (Unit::Nanoseconds, Kind::Label), "The time in faults from one message to the next.", |m| m.step.into()),
];

#[rustfmt::skip]
const WAITED: &[Column<Message>] = &[
    number("wait_ns", LASTS, "The time that the threads of the process slept in faults within the window.", |m: &Message| m.reached.into()).shown("WAIT_MS", 13, Milliseconds(1)).highlight(LONG),
    number("window_ns", (Unit::Nanoseconds, Kind::Label), "The window, up to a 16th less.", |m: &Message| m.step.into()).shown("WINDOW_MS", 10, Milliseconds(0)),
];

#[rustfmt::skip]
const MOST: &[Column<Message>] = &[
    label("file", "The file or kind of memory of most of the faults since the last message.", |m: &Message| m.most.file.as_deref().into()).shown("FILE", 40, Path).least(12),
    label("code", "The function that caused most of the faults since the last message.", |m: &Message| m.most.code.as_deref().into()).shown("CODE", 30, Text).least(12),
];

pub(super) static STEP: Table<Message> = Table::new("faults.step", "faults", &[WHO, COUNTED]);
pub(super) static STEP_MOST: Table<Message> = Table::new("faults.step_most", "faults", &[WHO, COUNTED, MOST]);
pub(super) static STALL: Table<Message> = Table::new("faults.stall", "faults", &[WHO, SPENT]);
pub(super) static STALL_MOST: Table<Message> = Table::new("faults.stall_most", "faults", &[WHO, SPENT, MOST]);
pub(super) static STALLED: Table<Message> = Table::new("faults.stalled", "faults", &[WHO, WAITED]);
pub(super) static STALLED_MOST: Table<Message> =
    Table::new("faults.stalled_most", "faults", &[WHO, WAITED, MOST]);

/// Single faults (`-v`).
pub const EVENT: &Schema = &FAULT;
/// The same with what the time of each was spent on (`-v --split`).
pub const SPLIT_EVENT: &Schema = &SPLIT_FAULT;
/// With that and the function (`--slower`).
pub const SLOW_EVENT: &Schema = &SLOW_FAULT;
/// Those of a recording with stacks, also with what their time was spent on if that was asked for.
pub const STACK_EVENT: &Schema = &STACK_FAULT;
/// The stacks of those.
pub const STACKS: &Schema = &STACK_NAMES;

/// All of them.
pub(crate) fn tables() -> impl Iterator<Item = &'static Schema> {
    let rows: [&Rows; 9] = [
        &BY_THREAD,
        &BY_PROCESS,
        &BY_CGROUP,
        &BY_FILE,
        &BY_CAUSE,
        &BY_STACK,
        &BY_COMM,
        &BY_FUNCTION,
        &BY_FILE_AND_CAUSE,
    ];
    let several = [&OF_THREAD, &OF_PROCESS, &OF_COMM, &OF_CGROUP].into_iter().flatten();
    let rows: Vec<&Rows> = rows.into_iter().chain(several).collect();
    let whole = rows.clone().into_iter().map(|rows| &rows.whole as &Schema);
    let split = rows.into_iter().map(|rows| &rows.split as &Schema);
    let rest: [&Schema; 9] = [
        &PROCESS_TITLE,
        &SPAN,
        &FAULT,
        &SPLIT_FAULT,
        &SLOW_FAULT,
        &STACK_FAULT,
        &STACK_NAMES,
        &STEP,
        &STEP_MOST,
    ];
    let stalls: [&Schema; 4] = [&STALL, &STALL_MOST, &STALLED, &STALLED_MOST];
    whole.chain(split).chain(rest).chain(stalls).chain(super::run::TABLES)
}

impl By {
    /// The tables of rows and totals that are made of threads and groups. Spans have a ledger of their own; beside it,
    /// threads are counted.
    pub(super) fn rows(self) -> &'static Rows {
        match self {
            Self::Thread | Self::Span => &BY_THREAD,
            Self::Process => &BY_PROCESS,
            Self::Comm => &BY_COMM,
            Self::Cgroup => &BY_CGROUP,
            Self::Stack => &BY_STACK,
            Self::Function => &BY_FUNCTION,
            Self::File => &BY_FILE,
            Self::Cause => &BY_CAUSE,
            Self::Several(parts) => parts.rows(),
        }
    }

    /// The fields of a row and a total.
    #[must_use]
    pub fn schema(self) -> &'static Schema {
        if self == Self::Span { &SPAN } else { &self.rows().whole }
    }

    /// The fields of a row and a total that have what the time was spent on.
    #[must_use]
    pub fn split_schema(self) -> &'static Schema {
        &self.rows().split
    }
}

impl Parts {
    fn rows(self) -> &'static Rows {
        let [file, cause, both] = match self.whose {
            Some(Whose::Thread) => &OF_THREAD,
            Some(Whose::Process) => &OF_PROCESS,
            Some(Whose::Comm) => &OF_COMM,
            Some(Whose::Cgroup) => &OF_CGROUP,
            None => return &BY_FILE_AND_CAUSE,
        };
        match (self.file, self.cause) {
            (true, true) => both,
            (true, false) => file,
            (false, _) => cause,
        }
    }
}
