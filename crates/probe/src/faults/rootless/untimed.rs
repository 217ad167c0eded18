//! What the ledger is told of a group of faults that were not timed.

use trapline_model::Extremes;
use trapline_model::faults::{Group, GroupId, Key};
use trapline_symbols::task::Counts;

/// By which the ledger knows a group; none has the number 0.
pub(super) fn id(number: u64) -> GroupId {
    [number, 0, 0, 0, 0, 0, 0]
}

/// What is told of a group: nothing of it is timed.
pub(super) fn group(key: Key, faults: Counts, range: Option<(u64, u64)>) -> Group {
    let none = Extremes::default();
    Group { key, stats: faults.stats(), extremes: none, recent: none, range, owner: None, name: "".into() }
}
