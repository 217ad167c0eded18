//! Fields, declared once as data, and the records made of them.

use std::cmp::Ordering;

/// What a field's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// No unit: a name, an id.
    None,
    /// A number of things.
    Count,
    /// Integer nanoseconds; the name ends in `_ns`.
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// A virtual address.
    Address,
}

/// What part a field plays in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tells one record from another: a process id, a path.
    Key,
    /// Describes the key: a process's name.
    Label,
    /// Grows; the values of several records can be added.
    Counter,
    /// A figure that cannot be added: a mean, a quantile, an extreme.
    Gauge,
}

/// How a table shows a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub title: &'static str,
    /// Characters; a longer value is shown whole and pushes the rest of its line to the right.
    pub width: usize,
    /// The form of the value.
    pub show: Show,
}

/// The form of a value in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// As it is, left-aligned.
    Text,
    /// Frames with `;` between them, outermost first: below the row, innermost first, each with its part of the next
    /// field.
    Stack,
    /// An integer, right-aligned.
    Integer,
    /// An address in hexadecimal.
    Hex,
    /// The same; where there is none, these words.
    HexOr(&'static str),
    /// Nanoseconds as milliseconds with so many decimals.
    Milliseconds(usize),
    /// Nanoseconds as microseconds with so many decimals.
    Microseconds(usize),
    /// Millionths as per cent with so many decimals.
    Percent(usize),
    /// Thousandths as ones with so many decimals.
    Thousandths(usize),
    /// Bytes as megabytes (1,048,576 bytes) with so many decimals.
    Megabytes(usize),
}

/// One figure of one tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in every machine-readable form.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What part it plays.
    pub kind: Kind,
    /// One line for people.
    pub help: &'static str,
    /// Its place in a table, if it has one.
    pub column: Option<Column>,
}

/// A field without a place in a table.
pub(crate) const fn field(name: &'static str, unit: Unit, kind: Kind, help: &'static str) -> Field {
    Field { name, unit, kind, help, column: None }
}

/// The same field with a place in a table.
pub(crate) const fn shown(field: Field, title: &'static str, width: usize, show: Show) -> Field {
    Field { column: Some(Column { title, width, show }), ..field }
}

/// The field with a birth, CLOCK_MONOTONIC nanoseconds, in every schema that has one.
pub(crate) const START: &str = "start_ns";

/// The fields of one sort of record, in order.
pub type Schema = [Field];

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Not known on this variant: `null`, never 0.
    Null,
    /// A number in the field's unit.
    U64(u64),
    /// A text; may hold anything another process chose to call itself.
    Str(String),
    /// A histogram: lowest and highest value of each bucket, both inclusive, and the number of values in it. An open-ended
    /// bucket has no highest value.
    Buckets(Vec<(u64, Option<u64>, u64)>),
}

impl Value {
    /// Numbers come before texts, texts before histograms, and what is not known comes last.
    fn rank(&self) -> u8 {
        match self {
            Self::U64(_) => 0,
            Self::Str(_) => 1,
            Self::Buckets(_) => 2,
            Self::Null => 3,
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::U64(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::U64(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Values for the fields of a schema, one each, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    schema: &'static Schema,
    values: Vec<Value>,
}

impl Record {
    /// Joins a schema and its values. There must be as many values as fields.
    #[must_use]
    pub fn new(schema: &'static Schema, values: Vec<Value>) -> Self {
        debug_assert_eq!(schema.len(), values.len());
        Self { schema, values }
    }

    /// The fields of this record.
    #[must_use]
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// Each field with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Field, &Value)> {
        self.schema.iter().zip(&self.values)
    }

    /// The value of the field of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(field, _)| field.name == name).map(|(_, value)| value)
    }

    /// Tells births by a clock that is so far ahead of the one that they were told by: other times than those are no fields.
    pub(crate) fn shift_clock(&mut self, ahead_ns: i64) {
        for (field, value) in self.schema.iter().zip(&mut self.values) {
            if let (START, Value::U64(time)) = (field.name, value) {
                *time = time.saturating_add_signed(ahead_ns);
            }
        }
    }

    /// Orders two records by the field at `index`: larger numbers first, text in alphabetical order, unknown last.
    #[must_use]
    pub fn compare(&self, other: &Self, index: usize) -> Ordering {
        match (&self.values[index], &other.values[index]) {
            (Value::U64(a), Value::U64(b)) => b.cmp(a),
            (Value::Str(a), Value::Str(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}
