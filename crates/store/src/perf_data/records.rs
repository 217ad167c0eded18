//! What of perf's events and records matters here.

use linux_perf_data::linux_perf_event_reader::{
    EventRecord, PerfEventType, RawEventRecord, RecordType, SampleFormat, SamplingPolicy, SoftwareCounterType,
};
use linux_perf_data::{Endianness, PerfFile};
use trapline_model::Value;

/// What to record instead of what cannot be shown.
const INSTEAD: &str = "record with `perf record -d -c 1 -e major-faults,minor-faults`";

/// A record that perf writes since Linux 4.2: `PERF_RECORD_LOST_SAMPLES`.
const LOST_SAMPLES: u32 = 13;

/// The tracepoints of page faults on x86; an exception each.
const EXCEPTIONS: [&str; 2] = ["exceptions:page_fault_user", "exceptions:page_fault_kernel"];

/// What an event of perf counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `page-faults`: each exception that is a page fault, whatever becomes of it.
    Any,
    /// The same by a tracepoint, which has the address and the access in fields of its own.
    Exception,
    Major,
    Minor,
    /// Nothing: perf needs it for its own records.
    Dummy,
}

impl Kind {
    pub(super) fn value(self) -> Value {
        match self {
            Self::Major => Value::word("major"),
            Self::Minor => Value::word("minor"),
            Self::Any | Self::Exception | Self::Dummy => Value::Null,
        }
    }
}

/// A sample.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) time_ns: u64,
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) kind: Kind,
    pub(super) addr: Option<u64>,
    pub(super) ip: Option<u64>,
    pub(super) rw: Option<&'static str>,
    /// The faults that it stands for.
    pub(super) weight: u64,
}

/// What of a record matters.
pub(super) enum Step {
    Fault(Fault),
    Named(u32, String),
    /// A thread, and the one that made it.
    Born(u32, u32),
    Lost(u64),
    Other,
}

/// What the events of a file count.
pub(super) fn events(file: &PerfFile) -> Result<Vec<(Kind, Option<u64>)>, String> {
    let mut events = vec![];
    for event in file.event_attributes() {
        let kind = match event.attr.type_ {
            PerfEventType::Software(SoftwareCounterType::PageFaults) => Kind::Any,
            PerfEventType::Software(SoftwareCounterType::PageFaultsMaj) => Kind::Major,
            PerfEventType::Software(SoftwareCounterType::PageFaultsMin) => Kind::Minor,
            PerfEventType::Software(SoftwareCounterType::Dummy) => Kind::Dummy,
            PerfEventType::Tracepoint(_) if is_exception(event.name()) => {
                if !event.attr.sample_format.contains(SampleFormat::RAW) {
                    return Err(format!("its samples have no addresses: {INSTEAD}"));
                }
                Kind::Exception
            }
            _ => {
                let name = event.name().unwrap_or("without a name");
                return Err(format!("its event {name} is no page fault: {INSTEAD}"));
            }
        };
        let needed = SampleFormat::TID | SampleFormat::TIME;
        if kind != Kind::Dummy && !event.attr.sample_format.contains(needed) {
            return Err(format!("its samples have no threads or no times: {INSTEAD}"));
        }
        let weight = match event.attr.sampling_policy {
            SamplingPolicy::Period(period) => Some(period.get()),
            SamplingPolicy::Frequency(_) if event.attr.sample_format.contains(SampleFormat::PERIOD) => None,
            SamplingPolicy::Frequency(_) | SamplingPolicy::NoSampling => Some(1),
        };
        events.push((kind, weight));
    }
    let has = |wanted| events.iter().any(|(kind, _)| *kind == wanted);
    if has(Kind::Any) && has(Kind::Exception) {
        return Err(format!("its page-faults and exceptions are the same faults: {INSTEAD}"));
    }
    if events.iter().all(|(kind, _)| *kind == Kind::Dummy) {
        return Err(format!("it has no page faults: {INSTEAD}"));
    }
    Ok(events)
}

fn is_exception(name: Option<&str>) -> bool {
    name.is_some_and(|name| EXCEPTIONS.contains(&name))
}

/// The address, the instruction and the access of an exception: fields behind the eight bytes that all tracepoints have.
/// The layout is that of all kernels since Linux 3.10; the last is the processor's error code.
fn exception(raw: &[u8], endian: Endianness) -> Option<(u64, u64, &'static str)> {
    let field = |at: usize| {
        let bytes = *raw.get(8 + at * 8..)?.first_chunk()?;
        Some(if endian == Endianness::LittleEndian {
            u64::from_le_bytes(bytes)
        } else {
            u64::from_be_bytes(bytes)
        })
    };
    let rw = match field(2)? {
        code if code & 1 << 4 != 0 => "X",
        code if code & 1 << 1 != 0 => "W",
        _ => "R",
    };
    Some((field(0)?, field(1)?, rw))
}

/// Reads one record of the kernel.
pub(super) fn step(record: &RawEventRecord<'_>, event: Option<&(Kind, Option<u64>)>) -> Result<Step, String> {
    const READ: [RecordType; 4] = [RecordType::SAMPLE, RecordType::COMM, RecordType::FORK, RecordType::LOST];
    if record.record_type.0 == LOST_SAMPLES {
        let data = record.data.as_slice();
        let lost = data.first_chunk().ok_or("a record is cut off")?;
        let is_little = record.parse_info.endian == Endianness::LittleEndian;
        return Ok(Step::Lost(if is_little { u64::from_le_bytes(*lost) } else { u64::from_be_bytes(*lost) }));
    }
    // Others are not looked into.
    if !READ.contains(&record.record_type) {
        return Ok(Step::Other);
    }
    let id = |id: i32| u32::try_from(id).unwrap_or(0);
    Ok(match record.parse().map_err(|error| format!("a record cannot be read: {error}"))? {
        EventRecord::Sample(sample) => match event {
            Some((kind, weight)) if *kind != Kind::Dummy => {
                let fault = Fault {
                    time_ns: sample.timestamp.unwrap_or(0),
                    pid: id(sample.pid.unwrap_or(0)),
                    tid: id(sample.tid.unwrap_or(0)),
                    kind: *kind,
                    addr: sample.addr,
                    ip: sample.ip,
                    rw: None,
                    weight: weight.or(sample.period).unwrap_or(1),
                };
                let raw =
                    sample.raw.filter(|_| *kind == Kind::Exception).map(|raw| raw.as_slice().into_owned());
                let raw = raw.and_then(|raw| exception(&raw, record.parse_info.endian));
                Step::Fault(match raw {
                    Some((addr, ip, rw)) => Fault { addr: Some(addr), ip: Some(ip), rw: Some(rw), ..fault },
                    None => fault,
                })
            }
            _ => Step::Other,
        },
        EventRecord::Comm(comm) => {
            let name = comm.name.as_slice();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Step::Named(id(comm.tid), String::from_utf8_lossy(name).into_owned())
        }
        EventRecord::Fork(fork) => Step::Born(id(fork.tid), id(fork.ptid)),
        EventRecord::Lost(lost) => Step::Lost(lost.count),
        _ => Step::Other,
    })
}
