//! Events as time on a thread, for formats that draw them so.

use trapline_model::{Event, Record, Unit, Value};

use crate::escape::{name, visible};

/// What happened on a thread, and when: CLOCK_MONOTONIC, nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    /// The name of the thread, or of the guest whose vCPU it runs.
    pub(crate) thread: String,
    /// What happened, in a word or two.
    pub(crate) what: String,
    pub(crate) start_ns: u64,
    /// The same as the start if its duration is not known.
    pub(crate) end_ns: u64,
    /// It is one of those that wait: a major fault or another in which the thread slept, a slow exit.
    pub(crate) is_slow: bool,
}

impl Moment {
    /// That of an event; nothing if it is of no process.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let record = &event.record;
        let id = |field| record.number(field).and_then(|id| u32::try_from(id).ok());
        let pid = id("pid")?;
        let latency_ns = record.number("latency_ns");
        let kind = record.text("kind");
        let slept = record.number("wait_ns").is_some_and(|ns| ns > 0);
        Some(Self {
            pid,
            tid: id("tid").unwrap_or(pid),
            thread: record.text("comm").or(record.text("vm")).map_or_else(String::new, name),
            what: what(record),
            // An event is reported when it has ended.
            start_ns: event.time_ns.saturating_sub(latency_ns.unwrap_or(0)),
            end_ns: event.time_ns,
            is_slow: kind.map_or(latency_ns.is_some(), |kind| kind == "major" || slept),
        })
    }
}

fn what(record: &Record) -> String {
    let of = |field| record.text(field).map(visible);
    match (of("kind"), of("name"), of("event"), of("rw")) {
        (Some(kind), ..) => format!("{kind} fault"),
        (_, Some(exit), ..) => exit,
        (_, _, Some(event), Some(rw)) => format!("{event} {rw}"),
        (_, _, Some(event), None) => event,
        _ => record.schema().id().to_owned(),
    }
}

/// What its thread and its name say of an event.
pub(crate) const SAID: [&str; 5] = ["pid", "tid", "comm", "kind", "event"];

/// What else is known of an event: the names of fields, and their values as text.
pub(crate) fn details(record: &Record) -> impl Iterator<Item = (&'static str, String)> {
    record.iter().filter(|(field, _)| !SAID.contains(&field.name)).filter_map(|(field, value)| {
        let value = match value {
            Value::Str(text) => visible(text),
            Value::U64(n) if field.unit == Unit::Address => format!("{n:#x}"),
            Value::U64(n) => n.to_string(),
            Value::Bool(is) => is.to_string(),
            _ => return None,
        };
        Some((field.name, value))
    })
}

#[cfg(test)]
mod tests {
    use trapline_model::faults::{Fault, Outcome, Thread};

    use super::*;

    #[test]
    fn a_minor_fault_in_which_the_thread_slept_is_one_of_those_that_wait() {
        let thread = Thread { pid: 1, tid: 1, start_ns: 1 };
        let fault = Fault {
            latency_ns: Some(80),
            wait_ns: Some(0),
            ..Fault::new(90, thread, "db".into(), Outcome::Minor)
        };
        let is_slow = |fault: &Fault| Moment::of(&fault.event()).map(|moment| moment.is_slow);
        assert_eq!(is_slow(&fault), Some(false));
        assert_eq!(is_slow(&Fault { wait_ns: Some(70), ..fault.clone() }), Some(true));
        assert_eq!(is_slow(&Fault { outcome: Outcome::Major, ..fault }), Some(true));
    }
}
