//! What recorded faults are put under as they come: files, or chains of calls.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use trapline_model::faults::{Fault, Key, Ledger};
use trapline_symbols::task::Counts;

use super::stack_table::StackTable;
use super::untimed::{group, id};

/// The rows that are not of threads.
#[derive(Debug)]
pub(super) enum Grouping {
    /// There are none.
    None,
    Files(HashMap<Rc<str>, InFile>),
    Stacks(Box<StackTable>),
}

/// The faults of a file, or of a sort of memory.
#[derive(Debug)]
pub(super) struct InFile {
    /// By which the ledger knows it.
    number: u64,
    key: Key,
    faults: Counts,
    /// The least and the greatest offset, bytes.
    range: Option<(u64, u64)>,
}

impl Grouping {
    /// Whether it is to be known what is mapped where a fault was.
    pub(super) fn are_of_files(&self) -> bool {
        matches!(self, Self::Files(_))
    }

    /// Puts one under its file.
    pub(super) fn put(&mut self, fault: &Fault, faults: Counts) {
        let Self::Files(files) = self else { return };
        let path =
            fault.file.as_ref().map_or_else(|| "(not attributed)".into(), |file| Rc::clone(&file.path));
        let number = files.len() as u64 + 1;
        let entry = files.entry(Rc::clone(&path)).or_insert_with(|| {
            let key = fault.file.as_ref().map_or(Key::Rest, |file| Key::File(Rc::clone(file)));
            InFile { number, key, faults: Counts::default(), range: None }
        });
        entry.faults += faults;
        if let Some(offset) = fault.offset {
            let (low, high) = entry.range.unwrap_or((offset, offset));
            entry.range = Some((low.min(offset), high.max(offset)));
        }
    }

    /// Puts them into the ledger, of so many faults that there were; gives how many have a row.
    pub(super) fn report(
        &mut self,
        all: Counts,
        ledger: &mut Ledger,
        until: Instant,
        last: bool,
        meanwhile: impl FnMut(),
    ) -> Counts {
        match self {
            Self::None => Counts::default(),
            Self::Files(files) => files.values().fold(Counts::default(), |sum, file| {
                ledger.group(id(file.number), group(file.key.clone(), file.faults, file.range));
                sum + file.faults
            }),
            Self::Stacks(stacks) => stacks.report(all, ledger, until, last, meanwhile),
        }
    }
}
