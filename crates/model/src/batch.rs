//! Rows that are not records yet. There may be a million events a second on their way into a recording, and a record for
//! each would cost more than all else that is done with it.

use std::io;
use std::ops::Range;

use crate::table::Schema;

/// A value that belongs to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain<'a> {
    /// Not known, or of a type that only records have.
    Null,
    /// A number.
    U64(u64),
    /// A number that may be less than 0.
    I64(i64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Str(&'a str),
}

/// Rows of one table, each with its time.
pub trait Batch {
    /// Their table.
    fn table(&self) -> &'static Schema;

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the row was, CLOCK_MONOTONIC nanoseconds.
    fn time_ns(&self, row: usize) -> u64;

    /// The values of these rows in the column at a place of the table. (Column by column: what takes them does the same again and
    /// again then, which a processor foresees.)
    fn values(&self, column: usize, rows: Range<usize>, put: &mut dyn FnMut(Plain<'_>));
}

/// Takes rows that are not records: a recording.
pub trait BatchSink: std::fmt::Debug {
    /// Takes events.
    ///
    /// # Errors
    /// When they cannot be written.
    fn take(&mut self, events: &dyn Batch) -> io::Result<()>;
}
