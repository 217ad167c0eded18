//! Tables: each column is declared once, on one line, with the function that gets its value out of a row.

use std::fmt;
use std::sync::OnceLock;

use crate::batch::Plain;
use crate::field::{Cell, Field, Highlight, Kind, Merge, Record, Show, Type, Unit, Value};
use crate::item::Event;

/// Characters to which names and paths may be cut where a terminal is narrow, if their column does not say it.
const NAME: usize = 15;
const PATH: usize = 20;

/// A column of a table whose rows are made of an `R`.
pub(crate) struct Column<R> {
    field: Field,
    get: Get<R>,
}

/// Where a column's values come from.
enum Get<R> {
    /// The row's struct.
    Row(fn(&R) -> Value),
    /// A text of the row's struct.
    Text(fn(&R) -> Option<&str>),
    /// The record's other values, after rows were subtracted and added up: a mean, a quantile.
    Record(Derive),
}

/// Makes a value of a record's other values.
type Derive = fn(&Record) -> Value;

impl<R> Clone for Column<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Column<R> {}

impl<R> Clone for Get<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Get<R> {}

impl<R> fmt::Debug for Column<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.field.fmt(f)
    }
}

impl<R> Column<R> {
    const fn new(
        (name, ty, unit, kind): (&'static str, Type, Unit, Kind),
        help: &'static str,
        get: Get<R>,
    ) -> Self {
        Self { field: Field { name, ty, unit, kind, merge: kind.merge(), help, cell: None }, get }
    }

    /// The same column with a place in a table for people.
    pub(crate) const fn shown(self, title: &'static str, width: usize, show: Show) -> Self {
        let least = match show {
            Show::Text if width > NAME => NAME,
            Show::Path if width > PATH => PATH,
            _ => width,
        };
        self.placed(Cell { title, width, show, least, yields: 0, highlight: None })
    }

    const fn placed(self, cell: Cell) -> Self {
        Self { field: Field { cell: Some(cell), ..self.field }, ..self }
    }

    /// The same column, which gives way on a narrow terminal: see [`Cell::yields`].
    pub(crate) const fn yields(self, yields: u8) -> Self {
        match self.field.cell {
            Some(cell) => self.placed(Cell { yields, ..cell }),
            None => self,
        }
    }

    /// The same column, whose texts may be cut to so many characters.
    pub(crate) const fn least(self, least: usize) -> Self {
        match self.field.cell {
            Some(cell) => self.placed(Cell { least, ..cell }),
            None => self,
        }
    }

    /// The same column, of which these values stand out.
    pub(crate) const fn highlight(self, highlight: Highlight) -> Self {
        match self.field.cell {
            Some(cell) => self.placed(Cell { highlight: Some(highlight), ..cell }),
            None => self,
        }
    }

    /// The same column without a place in a table for people.
    pub(crate) const fn hidden(self) -> Self {
        Self { field: Field { cell: None, ..self.field }, ..self }
    }

    /// The same column; of several rows, the least or the greatest value counts.
    pub(crate) const fn merged(self, merge: Merge) -> Self {
        Self { field: Field { merge, ..self.field }, ..self }
    }
}

/// A text that tells rows apart.
pub(crate) const fn key<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::Str, Unit::None, Kind::Key), help, Get::Row(get))
}

/// A text that describes the key.
pub(crate) const fn label<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::Str, Unit::None, Kind::Label), help, Get::Row(get))
}

/// The same, of which there is one for many rows: it is copied where that is needed.
pub(crate) const fn text<R>(
    name: &'static str,
    help: &'static str,
    get: fn(&R) -> Option<&str>,
) -> Column<R> {
    Column::new((name, Type::Str, Unit::None, Kind::Label), help, Get::Text(get))
}

/// A number that is a name: a process id.
pub(crate) const fn id<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::U64, Unit::None, Kind::Key), help, Get::Row(get))
}

/// Yes or no.
pub(crate) const fn flag<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::Bool, Unit::None, Kind::Label), help, Get::Row(get))
}

/// A number of things that grows.
pub(crate) const fn count<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::U64, Unit::Count, Kind::Counter), help, Get::Row(get))
}

/// Things that happened and that other figures do not have.
pub(crate) const fn loss<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::U64, Unit::Count, Kind::Loss), help, Get::Row(get))
}

/// A number in a unit; a name that ends in `_ns` or `_bytes` has its unit in it.
pub(crate) const fn number<R>(
    name: &'static str,
    (unit, kind): (Unit, Kind),
    help: &'static str,
    get: fn(&R) -> Value,
) -> Column<R> {
    Column::new((name, Type::U64, unit, kind), help, Get::Row(get))
}

/// A number in a unit that may be less than 0.
pub(crate) const fn signed<R>(name: &'static str, help: &'static str, get: fn(&R) -> Value) -> Column<R> {
    Column::new((name, Type::I64, Unit::Count, Kind::Gauge), help, Get::Row(get))
}

/// A histogram.
pub(crate) const fn hist<R>(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    get: fn(&R) -> Value,
) -> Column<R> {
    Column::new((name, Type::Hist, unit, Kind::Counter), help, Get::Row(get))
}

/// What a run knows of its figures as a whole, which other columns need.
pub(crate) const fn known<R>(
    name: &'static str,
    ty: Type,
    help: &'static str,
    get: fn(&R) -> Value,
) -> Column<R> {
    Column::new((name, ty, Unit::None, Kind::Gauge), help, Get::Row(get))
}

/// A number in a unit that is made of the record's other values.
pub(crate) const fn derived<R>(
    name: &'static str,
    (unit, kind): (Unit, Kind),
    help: &'static str,
    get: Derive,
) -> Column<R> {
    Column::new((name, Type::U64, unit, kind), help, Get::Record(get)).merged(Merge::Last)
}

/// A histogram by octave that is made of the record's other values.
pub(crate) const fn octaves<R>(name: &'static str, help: &'static str, get: Derive) -> Column<R> {
    Column::new((name, Type::Hist, Unit::Nanoseconds, Kind::Counter), help, Get::Record(get))
        .merged(Merge::Last)
}

/// A column of tables for people alone: others can make it of a block's rows, sum and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relative {
    /// The heading.
    pub title: &'static str,
    /// Characters.
    pub width: usize,
    /// The order in which it gives way: see [`Cell::yields`].
    pub yields: u8,
    /// What it is.
    pub of: Of,
}

/// What a figure is compared with; it is the sum of the columns with these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// That of all rows: a share.
    Share(&'static [&'static str]),
    /// The time in which it came about: a rate.
    PerSecond(&'static [&'static str]),
}

/// What part a table has in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its records are the header's settings.
    Settings,
    /// Its records are what was lost and reached.
    Facts,
    /// Its records are rows, totals or events.
    Rows,
}

/// A table: its columns, in parts that several tables may share.
pub struct Table<R: 'static> {
    id: &'static str,
    tool: &'static str,
    part: Part,
    parts: &'static [&'static [Column<R>]],
    base: &'static [Column<R>],
    total: Option<&'static str>,
    idle: bool,
    relative: &'static [Relative],
    shape: OnceLock<Shape>,
}

impl<R> Table<R> {
    /// A table of a tool. The id begins with the tool's name and a dot.
    pub(crate) const fn new(
        id: &'static str,
        tool: &'static str,
        parts: &'static [&'static [Column<R>]],
    ) -> Self {
        Self::of(Part::Rows, id, tool, parts)
    }

    /// A table of how the tool runs.
    pub(crate) const fn settings(
        id: &'static str,
        tool: &'static str,
        parts: &'static [&'static [Column<R>]],
    ) -> Self {
        Self::of(Part::Settings, id, tool, parts)
    }

    /// A table of what was lost and reached.
    pub(crate) const fn facts(
        id: &'static str,
        tool: &'static str,
        parts: &'static [&'static [Column<R>]],
    ) -> Self {
        Self::of(Part::Facts, id, tool, parts)
    }

    const fn of(
        part: Part,
        id: &'static str,
        tool: &'static str,
        parts: &'static [&'static [Column<R>]],
    ) -> Self {
        Self {
            id,
            tool,
            part,
            parts,
            base: &[],
            total: None,
            idle: false,
            relative: &[],
            shape: OnceLock::new(),
        }
    }

    /// The same with columns that others are made of, and that no output has.
    pub(crate) const fn base(mut self, base: &'static [Column<R>]) -> Self {
        self.base = base;
        self
    }

    /// The same; its rows have a sum, which is called so.
    pub(crate) const fn total(mut self, total: &'static str) -> Self {
        self.total = Some(total);
        self
    }

    /// The same; tables for people have these columns, too.
    pub(crate) const fn relative(mut self, relative: &'static [Relative]) -> Self {
        self.relative = relative;
        self
    }

    /// The same; a row in which nothing happened is a row, too.
    pub(crate) const fn idle(mut self) -> Self {
        self.idle = true;
        self
    }

    /// The record of a row; what is made of other values is not known yet.
    pub fn record(&'static self, row: &R) -> Record {
        let columns = self.parts.iter().copied().chain([self.base]).flatten();
        let value = |column: &Column<R>| match column.get {
            Get::Row(get) => get(row),
            Get::Text(get) => get(row).into(),
            Get::Record(_) => Value::Null,
        };
        let mut values = Vec::with_capacity(self.shape().fields.len());
        values.extend(columns.map(value));
        Record::new(self, values)
    }

    /// The values of rows in the column at this place that are not made of others, without records.
    pub(crate) fn values(&'static self, column: usize, rows: &[R], put: &mut dyn FnMut(Plain<'_>)) {
        match self.parts.iter().copied().flatten().nth(column).map(|column| column.get) {
            Some(Get::Row(get)) => rows.iter().for_each(|row| put(get(row).plain())),
            Some(Get::Text(get)) => rows.iter().for_each(|row| put(get(row).map_or(Plain::Null, Plain::Str))),
            Some(Get::Record(_)) | None => rows.iter().for_each(|_| put(Plain::Null)),
        }
    }

    /// The record of a row as an event of this moment.
    pub(crate) fn event(&'static self, time_ns: u64, row: &R) -> Event {
        Event { time_ns, record: self.record(row) }
    }
}

/// A table's fields, and what is done with them.
#[derive(Debug)]
pub struct Shape {
    /// Those that outputs have, then those that others are made of.
    fields: Vec<&'static Field>,
    /// How many outputs have.
    shown: usize,
    derived: Vec<(usize, Derive)>,
    keys: Vec<usize>,
}

impl Shape {
    /// That of a table with one more column, before all others.
    pub(crate) fn behind(first: &'static Field, of: &'static Schema) -> Self {
        let own = of.shape();
        Self {
            fields: [first].into_iter().chain(own.fields.iter().copied()).collect(),
            shown: own.shown + 1,
            derived: own.derived.iter().map(|(at, derive)| (at + 1, *derive)).collect(),
            keys: [0].into_iter().chain(own.keys.iter().map(|at| at + 1)).collect(),
        }
    }
}

/// A table without the type of its rows: what a reader knows of it.
pub trait Columns: Sync {
    /// Its name: the tool's, a dot, and what its rows are about.
    fn id(&self) -> &'static str;
    /// The command that it belongs to.
    fn tool(&self) -> &'static str;
    /// What part it has in a stream.
    fn part(&self) -> Part;
    /// What the sum of its rows is called, if they have one.
    fn total(&self) -> Option<&'static str>;
    /// Whether a row in which nothing happened is a row, too.
    fn idle(&self) -> bool;
    /// The columns that only tables for people have, behind the others.
    fn relative(&self) -> &'static [Relative];
    /// Its fields, and what is done with them.
    fn shape(&self) -> &Shape;
}

impl<R> Columns for Table<R> {
    fn id(&self) -> &'static str {
        self.id
    }

    fn tool(&self) -> &'static str {
        self.tool
    }

    fn part(&self) -> Part {
        self.part
    }

    fn total(&self) -> Option<&'static str> {
        self.total
    }

    fn idle(&self) -> bool {
        self.idle
    }

    fn relative(&self) -> &'static [Relative] {
        self.relative
    }

    fn shape(&self) -> &Shape {
        self.shape.get_or_init(|| {
            let columns: Vec<&'static Column<R>> =
                self.parts.iter().copied().chain([self.base]).flatten().collect();
            let derive = |(at, column): (usize, &&Column<R>)| match column.get {
                Get::Row(_) | Get::Text(_) => None,
                Get::Record(derive) => Some((at, derive)),
            };
            let is_key = |at: &usize| columns[*at].field.kind == Kind::Key;
            Shape {
                fields: columns.iter().map(|column| &column.field).collect(),
                shown: columns.len() - self.base.len(),
                derived: columns.iter().enumerate().filter_map(derive).collect(),
                keys: (0..columns.len()).filter(is_key).collect(),
            }
        })
    }
}

/// The fields of one kind of record, in order.
pub type Schema = dyn Columns;

impl dyn Columns {
    /// The fields that outputs have, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'static Field> + '_ {
        let Shape { fields, shown, .. } = self.shape();
        fields[..*shown].iter().copied()
    }

    /// Where the field of that name is among them, if there is one.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.iter().position(|field| field.name == name)
    }

    /// Whether there is a field of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// How many fields outputs have.
    pub(crate) fn shown(&self) -> usize {
        self.shape().shown
    }

    /// All fields: those that outputs have, and those that they are made of.
    pub(crate) fn all(&self) -> &[&'static Field] {
        &self.shape().fields
    }

    /// Where the keys are among all fields.
    pub(crate) fn keys(&self) -> &[usize] {
        &self.shape().keys
    }

    /// The fields that are made of others: where they are, and how.
    pub(crate) fn derived(&self) -> &[(usize, Derive)] {
        &self.shape().derived
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
