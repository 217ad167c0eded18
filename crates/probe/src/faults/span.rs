//! Spans: probes at the entry and return of functions and at pairs of USDT points, and what was counted between them.
//! See `bpf/faults_span.bpf.h`.

mod place;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytemuck::pod_read_unaligned;
use libbpf_rs::{Iter, Link, MapCore, MapFlags, MapHandle, UprobeOpts};
use trapline_model::Hist;
use trapline_model::faults::{CallTimes, Calls, Losses, SpanLedger, Timing};
use trapline_symbols::{Binaries, listed};

use self::place::{Place, Places};
use crate::abi::maps::spans as maps;
use crate::abi::{self, FaultsCallTimes, FaultsSpan, FaultsSpanLosses};
use crate::variant::{Attached, OpenError};

/// The programs that are attached to the places of functions, to those of points, and those of both.
const FUNCTIONS: [&str; 2] = ["span_enters", "span_returns"];
const POINTS: [&str; 2] = ["span_starts", "span_is_done"];
const BOTH: [&str; 3] = ["span_thread_ends", "span_thread_execs", REMAINS];
pub(super) const REMAINS: &str = "span_remains";

/// How many spans there are, and of which sorts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kinds {
    pub(super) many: u32,
    functions: bool,
    points: bool,
}

impl Kinds {
    #[cfg(test)]
    pub(super) fn all() -> Self {
        Self { many: 1, functions: true, points: true }
    }

    /// The programs that they need.
    pub(super) fn programs(self) -> impl Iterator<Item = &'static str> {
        let sorts = [(self.functions, &FUNCTIONS[..]), (self.points, &POINTS), (self.many > 0, &BOTH)];
        sorts.into_iter().filter(|(are, _)| *are).flat_map(|(_, names)| names).copied()
    }
}

pub(super) fn kinds(found: &[Found]) -> Kinds {
    let points = |span: &Found| matches!(span.places, Places::Points(..));
    Kinds { many: found.len() as u32, functions: !found.iter().all(points), points: found.iter().any(points) }
}

/// Whether a program is attached to the places of a span, one by one.
pub(super) fn is_placed(name: &str) -> bool {
    FUNCTIONS.contains(&name) || POINTS.contains(&name)
}

/// Of more processes than these, all have the probes, and those that are not meant are left out when they come by.
const EACH_BY_ITSELF: usize = 16;

/// A span whose places are known.
#[derive(Debug)]
pub(super) struct Found {
    name: Rc<str>,
    places: Places,
}

/// Finds what the names mean in these processes, or on this machine if there are none.
pub(super) fn find(names: &[String], pids: &[u32]) -> Result<Vec<Found>, OpenError> {
    if names.len() > abi::SPANS_MAX {
        return Err(OpenError::Usage(format!(
            "{} spans are too many: at most {} are possible",
            names.len(),
            abi::SPANS_MAX
        )));
    }
    let mut found: Vec<Found> = Vec::new();
    let mut known: HashMap<(u64, u64, u64), Rc<str>> = HashMap::new();
    let mut binaries = Binaries::default();
    for name in names {
        let span = Found { name: name.as_str().into(), places: place::find(&mut binaries, name, pids)? };
        for place in span.places.starts() {
            let file = place.binary.identity;
            if let Some(other) = known.insert((file.0, file.1, place.offset), Rc::clone(&span.name)) {
                return Err(OpenError::Usage(format!(
                    "`{other}` and `{name}` are the same function: leave out one"
                )));
            }
        }
        found.push(span);
    }
    Ok(found)
}

/// What somebody who watches these spans has to know beforehand.
pub(super) fn warning(found: &[Found]) -> Option<String> {
    let unwinds = |span: &&Found| matches!(span.places, Places::Function { unwinds: true, .. });
    let names: Vec<String> = found.iter().filter(unwinds).map(|span| format!("`{}`", span.name)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "an exception or panic that unwinds through {} while it is probed ends the process; if that can happen, use marks: docs/spans.md",
            listed(names.into_iter())
        )
    })
}

/// Spans, attached.
#[derive(Debug)]
pub(super) struct Spans {
    links: Vec<Link>,
    cells: MapHandle,
    remains: Link,
    pub(super) ledger: SpanLedger,
    many: u32,
}

impl Spans {
    /// Attaches the probes: to these processes, or to all if there are none.
    pub(super) fn attach(
        attached: &Attached,
        found: &[Found],
        pids: &[u32],
        timing: Timing,
    ) -> Result<Self, OpenError> {
        let mut spans = Self {
            links: Vec::new(),
            cells: attached.handle(maps::CELLS)?,
            remains: attached.iterator(REMAINS)?,
            ledger: SpanLedger::new(found.iter().map(|span| Rc::clone(&span.name)), timing),
            many: found.len() as u32,
        };
        let pids: Vec<i32> = match pids {
            [] => vec![-1],
            pids if pids.len() > EACH_BY_ITSELF => vec![-1],
            pids => pids.iter().map(|&pid| pid as i32).collect(),
        };
        // The ends first: a return without an entry is passed over, an entry without a return is a riddle.
        for ends in [true, false] {
            for (cookie, span) in (0..).zip(found) {
                let (program, places) = match (&span.places, ends) {
                    (Places::Function { at, .. }, true) => ("span_returns", at),
                    (Places::Function { at, .. }, false) => ("span_enters", at),
                    (Places::Points(_, places), true) => ("span_is_done", places),
                    (Places::Points(places, _), false) => ("span_starts", places),
                };
                for (place, &pid) in places.iter().flat_map(|place| pids.iter().map(move |pid| (place, pid)))
                {
                    let link = probe(attached, program, place, pid, cookie, program == "span_returns");
                    spans.links.push(link.map_err(|error| refused(&span.name, error))?);
                }
            }
        }
        Ok(spans)
    }

    /// Takes the probes away.
    pub(super) fn detach(&mut self) {
        // Entries last, as they were attached last: what they began is seen to its end or known to be open.
        while self.links.pop().is_some() {}
    }

    /// Reads what the spans did; `epoch` is the interval that is about to be shown.
    pub(super) fn read(&mut self, epoch: u64) -> Result<()> {
        let mut all = Vec::new();
        for span in 0..self.many {
            let cells = self.cells.lookup_percpu(&span.to_ne_bytes(), MapFlags::ANY);
            let cells = cells.context("cannot read the spans")?.unwrap_or_default();
            let cells = cells.iter().filter_map(|bytes| bytes.get(..size_of::<FaultsSpan>()));
            all.push(calls(cells.map(pod_read_unaligned), epoch));
        }
        self.ledger.take(all.into_iter());
        Ok(())
    }

    /// What could not be told; those that are open when the probes `have_been` taken away.
    pub(super) fn losses(&self, attached: &Attached, have_been: bool, losses: &mut Losses) -> Result<()> {
        if have_been {
            let remains = &mut Iter::new(&self.remains)?;
            io::copy(remains, &mut io::sink()).context("cannot iterate over the threads")?;
        }
        let of: FaultsSpanLosses = attached.read(maps::LOSSES)?;
        losses.unfinished_calls = Some(self.ledger.unfinished());
        losses.unmatched_returns = Some(of.unmatched);
        losses.open_calls = have_been.then_some(of.open);
        (losses.too_deep_calls, losses.untracked_calls) = (Some(of.too_deep), Some(of.untracked));
        Ok(())
    }
}

fn probe(
    attached: &Attached,
    program: &str,
    place: &Place,
    pid: i32,
    cookie: u64,
    retprobe: bool,
) -> Result<Link, libbpf_rs::Error> {
    let options =
        UprobeOpts { ref_ctr_offset: place.semaphore as usize, cookie, retprobe, ..UprobeOpts::default() };
    let program = attached.object.progs_mut().find(|p| p.name() == program);
    let program = program.ok_or_else(|| io::Error::other("the BPF object has no such program"))?;
    program.attach_uprobe_with_opts(pid, &place.binary.path, place.offset as usize, options)
}

fn refused(name: &str, error: libbpf_rs::Error) -> OpenError {
    if !Path::new("/sys/bus/event_source/devices/uprobe").exists() {
        return OpenError::Unavailable(anyhow::anyhow!(
            "this kernel has no uprobes: use one with CONFIG_UPROBE_EVENTS"
        ));
    }
    OpenError::Other(anyhow::Error::from(error).context(format!("cannot attach a uprobe to `{name}`")))
}

/// A span's cells of all processors, put together.
fn calls(cells: impl Iterator<Item = FaultsSpan>, epoch: u64) -> Calls {
    let mut sum = Calls::default();
    for cell in cells {
        sum.add(&Calls {
            calls: cell.calls,
            unfinished: cell.unfinished,
            major: cell.major,
            minor: cell.minor,
            timed: cell.timed,
            stall_ns: cell.stall_ns,
            major_ns: cell.major_ns,
            span_ns: cell.span_ns,
            stall: times(&cell.stall, epoch),
            span: times(&cell.span, epoch),
        });
    }
    sum
}

fn times(of: &FaultsCallTimes, epoch: u64) -> CallTimes {
    // Those of the whole run are kept under the number 0.
    CallTimes {
        hist: Hist::new(&of.hist),
        extremes: abi::extremes(&of.all, 0),
        recent: abi::extremes(&of.recent, epoch),
    }
}
