//! What is made of recorded faults.

use anyhow::Result;
use trapline_model::faults::{
    ALL, By, EVENT, Filter, HIST, HIST_EACH, Lines, Regrouping, are_faults, have_parts, shown_as,
};
use trapline_model::layout::DECLARED;
use trapline_model::{Header, Schema};
use trapline_probe::faults::Events;

use super::Args;
use crate::args::Tasks;
use crate::format::Needs;
use crate::status::{Usage, refuse};

/// Why nothing can be made of single faults.
const NEEDS_FAULTS: &str = "has no single faults, which --by, --hist, -v, --log-step, --stall, --slower, --split, -p, -t, --comm and --cgroup need: record with `trapline faults -o NAME.trapline`";

impl Args {
    /// Whether an option is about single faults.
    pub(super) fn is_of_faults(&self) -> bool {
        self.view.is_any() || self.tasks.is_any()
    }
}

/// What is to be made of the faults in recordings with these names and headers; nothing if they are shown as they are recorded, or
/// their rows are.
///
/// # Errors
/// When faults are asked for and a recording has none, or not what is asked.
pub(super) fn made(
    args: &Args,
    inputs: &[(&str, &Header)],
    filter: Filter,
    is_cut_off: bool,
) -> Result<Option<Regrouping>> {
    let (view, rows) = (&args.view, &args.rows);
    let without = inputs.iter().find(|(_, header)| !header.events.is_some_and(are_faults));
    if let Some((name, _)) = without {
        return if args.is_of_faults() {
            Err(Usage::error(format!("{name} {NEEDS_FAULTS}")))
        } else {
            Ok(None)
        };
    }
    let by_host = args.by_host();
    // One that is cut off has no totals of its own; a copy is of what was recorded.
    let about = args.out.format()?.about();
    let has_rows = inputs[0].1.is("unshown_events") || matches!(about.needs, Needs::Rows | Needs::Stacks);
    let lacks_totals = is_cut_off && has_rows && !about.is_folder;
    let is_made = args.is_of_faults()
        || lacks_totals
        || !filter.is_all()
        || rows.interval.is_some()
        || rows.cumulative
        || inputs.len() > 1
        || by_host;
    if !is_made {
        return Ok(None);
    }
    let header = inputs[0].1;
    let recorded = header.events.unwrap_or(EVENT);
    let is_alike = inputs.iter().all(|(_, header)| header.events == Some(recorded));
    let has_parts = is_alike && have_parts(header);
    let by = view.by.and_then(|by| by.by);
    let table = match (by, header.tables.first().copied()) {
        (Some(by), _) if view.splits() => by.split_schema(),
        (Some(by), _) => by.schema(),
        (None, _) if by_host => ALL,
        (None, Some(recorded)) if !view.splits() => recorded,
        (None, _) if view.splits() => By::Thread.split_schema(),
        (None, _) => By::Thread.schema(),
    };
    let hosted = |table: &'static Schema| trapline_model::hosted(table, by_host);
    refuse(&[
        (
            view.splits() && !has_parts,
            "the recording does not have what the time of each fault was spent on: leave out --split and --slower, or record with --split",
        ),
        (
            by == Some(By::Span),
            "the calls of a span are not recorded one by one: leave out --by to print the recorded rows",
        ),
        (
            table == ALL && view.splits(),
            "rows by host alone do not have the parts of times: use --by host,process, or leave out --split",
        ),
    ])?;
    let is_recorded = inputs.iter().all(|(_, header)| header.tables.first() == Some(&table));
    let is_plain = inputs.len() == 1
        && filter.is_all()
        && rows.interval.is_none()
        && !view.hist
        && view.events() == Events::None;
    let faults = if is_alike { recorded } else { EVENT };
    let event = shown_as(faults, has_parts);
    let (lines, events) = match view.events() {
        Events::None => (Lines::None, None),
        Events::Faults => (Lines::Faults(None), Some(hosted(event))),
        Events::Slower(0) => (Lines::Faults(None), Some(hosted(event))),
        Events::Slower(least_ns) => (Lines::Faults(Some(least_ns)), Some(hosted(event))),
        Events::Steps { of, most } | Events::Recorded { of, most } => {
            (Lines::Steps(of, most), Some(hosted(of.schema(most))))
        }
    };
    let layout = match (view.hist, view.by) {
        (false, _) => &DECLARED,
        (true, None) => &HIST,
        (true, Some(_)) => &HIST_EACH,
    };
    let how = Regrouping {
        interval_ns: rows.interval.map(|interval| interval.as_nanos() as u64),
        hist: view.hist,
        lines,
        events,
        filter,
        layout: Some(layout.id).filter(|id| *id != DECLARED.id),
        cumulative: rows.cumulative,
        ..Regrouping::of(hosted(table), faults)
    };
    // What faults do not have, its rows may have been recorded: stacks.
    let is_lacking = how.columns().is_err();
    Ok(Some(how).filter(|_| !(is_lacking && is_recorded && is_plain)))
}

impl Tasks {
    /// The faults of these tasks at these times.
    pub(super) fn filter(&self, times_ns: std::ops::RangeInclusive<u64>) -> Filter {
        let cgroup = self.cgroup.as_ref().map(|path| path.to_string_lossy().into_owned());
        // As the path of a directory, or below the root.
        let below = |path: String| match path.strip_prefix("/sys/fs/cgroup") {
            Some(rest) => rest.to_owned(),
            None => path,
        };
        Filter {
            times_ns,
            pids: self.pids(),
            tid: self.tid,
            comms: self.comm.iter().map(|name| name.to_string_lossy().into_owned()).collect(),
            cgroup: cgroup.map(below),
        }
    }
}
