//! Tables: each column is declared once, on one line, with the function that gets its value out of a row.

use std::fmt;

use crate::field::{Cell, Field, Kind, Record, Show, Type, Unit, Value};
use crate::item::Event;

/// A column of a table whose rows are made of an `R`.
pub(crate) struct Column<R> {
    field: Field,
    get: fn(&R) -> Value,
}

impl<R> Clone for Column<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Column<R> {}

impl<R> fmt::Debug for Column<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.field.fmt(f)
    }
}

impl<R> Column<R> {
    const fn new(
        (name, ty, unit, kind): (&'static str, Type, Unit, Kind),
        help: &'static str,
        get: fn(&R) -> Value,
    ) -> Self {
        Self { field: Field { name, ty, unit, kind, help, cell: None }, get }
    }

    /// The same column with a place in a table for people.
    pub(crate) const fn shown(self, title: &'static str, width: usize, show: Show) -> Self {
        Self { field: Field { cell: Some(Cell { title, width, show }), ..self.field }, ..self }
    }

    /// The same column without a place in a table for people.
    pub(crate) const fn hidden(self) -> Self {
        Self { field: Field { cell: None, ..self.field }, ..self }
    }
}

/// A text that tells rows apart.
pub(crate) const fn key<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::Str, Unit::None, Kind::Key), help, get)
}

/// A text that describes the key.
pub(crate) const fn label<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::Str, Unit::None, Kind::Label), help, get)
}

/// A number that is a name: a process id.
pub(crate) const fn id<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::U64, Unit::None, Kind::Key), help, get)
}

/// Yes or no.
pub(crate) const fn flag<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::Bool, Unit::None, Kind::Label), help, get)
}

/// A number of things that grows.
pub(crate) const fn count<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::U64, Unit::Count, Kind::Counter), help, get)
}

/// Things that happened and that other figures do not have.
pub(crate) const fn loss<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::U64, Unit::Count, Kind::Loss), help, get)
}

/// A number in a unit; a name that ends in `_ns` or `_bytes` has its unit in it.
pub(crate) const fn number<R>(
    name: &'static str,
    (unit, kind): (Unit, Kind),
    help: &'static str,
    get: fn(&R) -> Value,
) -> Column<R> {
    Column::new((name, Type::U64, unit, kind), help, get)
}

/// A histogram.
pub(crate) const fn hist<R>(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    get: fn(&R) -> Value,
) -> Column<R> {
    Column::new((name, Type::Hist, unit, Kind::Counter), help, get)
}

/// A table: its columns, in parts that several tables may share.
pub(crate) struct Table<R: 'static> {
    id: &'static str,
    tool: &'static str,
    parts: &'static [&'static [Column<R>]],
}

impl<R> Table<R> {
    /// A table of a tool. The id begins with the tool's name and a dot.
    pub(crate) const fn new(
        id: &'static str,
        tool: &'static str,
        parts: &'static [&'static [Column<R>]],
    ) -> Self {
        Self { id, tool, parts }
    }

    /// The record of a row.
    pub(crate) fn record(&'static self, row: &R) -> Record {
        let mut values = Vec::with_capacity(self.parts.iter().map(|part| part.len()).sum());
        for part in self.parts {
            values.extend(part.iter().map(|column| (column.get)(row)));
        }
        Record::new(self, values)
    }

    /// The record of a row as an event of this moment.
    pub(crate) fn event(&'static self, time_ns: u64, row: &R) -> Event {
        Event { time_ns, record: self.record(row) }
    }
}

/// A table without the type of its rows: what a reader knows of it.
pub trait Columns: Sync {
    /// Its name: the tool's, a dot, and what its rows are about.
    fn id(&self) -> &'static str;
    /// The command that it belongs to.
    fn tool(&self) -> &'static str;
    /// A field, by its part and its place in that; nothing beyond the last one of a part.
    fn field(&self, part: usize, at: usize) -> Option<&'static Field>;
    /// Of how many parts it consists.
    fn parts(&self) -> usize;
}

impl<R> Columns for Table<R> {
    fn id(&self) -> &'static str {
        self.id
    }

    fn tool(&self) -> &'static str {
        self.tool
    }

    fn field(&self, part: usize, at: usize) -> Option<&'static Field> {
        self.parts.get(part)?.get(at).map(|column| &column.field)
    }

    fn parts(&self) -> usize {
        self.parts.len()
    }
}

/// The fields of one kind of record, in order.
pub type Schema = dyn Columns;

impl dyn Columns {
    /// Its fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'static Field> + '_ {
        (0..self.parts()).flat_map(move |part| (0..).map_while(move |at| self.field(part, at)))
    }
}

impl PartialEq for dyn Columns {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for dyn Columns {}

impl fmt::Debug for dyn Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl<R> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}
