//! What is to be made of recorded faults.

use std::cell::Cell;
use std::rc::Rc;

use super::columns::Columns;
use super::filter::Filter;
use super::group;
use crate::faults::StepOf;
use crate::table::Schema;

/// What is shown of recorded faults, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Nothing.
    None,
    /// Those that took at least so long, nanoseconds; each of them if nothing is said.
    Faults(Option<u64>),
    /// A message at each step of a process, which may have the file of most of its faults.
    Steps(StepOf, bool),
}

/// What is made of recorded faults.
#[derive(Debug, Clone)]
pub struct Regrouping {
    /// The table of the rows; its keys are columns of the faults.
    pub table: &'static Schema,
    /// The table of the faults.
    pub faults: &'static Schema,
    /// Rows at intervals of this length; else where the recording has intervals.
    pub interval_ns: Option<u64>,
    /// Rows have histograms.
    pub hist: bool,
    /// Lines beside the rows.
    pub lines: Lines,
    /// The table of the lines, if there are any.
    pub events: Option<&'static Schema>,
    /// Which faults.
    pub filter: Filter,
    /// The faults that come are all of the recording: what its totals have beyond them was lost.
    pub all: bool,
    /// How tables for people look from now on.
    pub layout: Option<&'static str>,
    /// Rows are since the start.
    pub cumulative: bool,
    /// The stream has the ends of recorded intervals.
    pub ticks: bool,
    /// At the end, a key that no fault has: older recordings, and some variants, do not know it.
    pub unknown: Rc<Cell<Option<&'static str>>>,
}

impl Regrouping {
    /// Rows of this table, of all faults of that one.
    #[must_use]
    pub fn of(table: &'static Schema, faults: &'static Schema) -> Self {
        Self {
            table,
            faults,
            interval_ns: None,
            hist: false,
            lines: Lines::None,
            events: None,
            filter: Filter::default(),
            all: true,
            layout: None,
            cumulative: false,
            ticks: false,
            unknown: Rc::default(),
        }
    }

    /// The columns of the faults that it takes, if not all.
    ///
    /// # Errors
    /// When faults do not have the table's keys: the name of the first that is missing.
    pub fn columns(&self) -> Result<Option<Vec<&'static str>>, &'static str> {
        let Columns { copied, of_processes, .. } = Columns::new(self.table, self.faults)?;
        if matches!(self.lines, Lines::Faults(_)) {
            return Ok(None);
        }
        let has = |name: &str| self.table.has(name);
        let mut names: Vec<&str> = copied.iter().filter_map(|copied| copied.from.column()).collect();
        names.extend(group::figures(has));
        if of_processes || !self.filter.is_all() || self.lines != Lines::None {
            names.extend(group::WHOSE);
        }
        Ok(Some(names))
    }
}
