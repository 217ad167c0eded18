//! What is known of a field, its values, and the records made of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::batch::Plain;
use crate::hist::Hist;
use crate::table::Schema;

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

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A whole number.
    U64,
    /// A whole number that may be less than 0.
    I64,
    /// Yes or no; written as 1 or 0.
    Bool,
    /// A text.
    Str,
    /// A histogram.
    Hist,
}

impl Type {
    /// Whether a value is of it, or unknown.
    #[must_use]
    pub fn fits(self, value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::U64(_) => self == Self::U64,
            Value::I64(_) => self == Self::I64,
            Value::Bool(_) => self == Self::Bool,
            Value::Str(_) => self == Self::Str,
            Value::Buckets(_) | Value::Hist(_) => self == Self::Hist,
        }
    }
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
    /// Things that happened and that other figures do not have, or not where they belong.
    Loss,
}

impl Kind {
    /// How values of fields of this kind are put together, unless the field says otherwise.
    pub(crate) const fn merge(self) -> Merge {
        match self {
            Self::Key | Self::Label | Self::Gauge => Merge::Last,
            Self::Counter | Self::Loss => Merge::Add,
        }
    }
}

/// How the values that several rows have in a field become that of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// They are added, and of an interval is what came since the one before.
    Add,
    /// The least counts, of those that are known.
    Min,
    /// The greatest counts, of those that are known.
    Max,
    /// Any: they are the same, or as good as the same.
    Last,
}

/// How a table for people shows a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The heading.
    pub title: &'static str,
    /// Characters. A longer value is shown whole: it pushes the rest of its line to the right, on a terminal the whole
    /// column.
    pub width: usize,
    /// The form of the value.
    pub show: Show,
    /// Characters to which a text may be cut where a terminal is narrow.
    pub least: usize,
    /// The order in which columns give way where a terminal is narrow: the largest first, 0 never.
    pub yields: u8,
    /// The values that stand out.
    pub highlight: Option<Highlight>,
}

/// Which values of a column stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Highlight {
    /// Numbers from this one on.
    From(u64),
    /// This word.
    Word(&'static str),
}

impl Highlight {
    /// Whether a value is one of them.
    #[must_use]
    pub fn is(self, value: &Value) -> bool {
        match (self, value) {
            (Self::From(least), Value::U64(n)) => *n >= least,
            (Self::Word(word), Value::Str(text)) => text == word,
            _ => false,
        }
    }
}

/// The form of a value in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// As it is, left-aligned; where it is cut, its beginning stays.
    Text,
    /// The same; where it is cut, its beginning and its end stay.
    Path,
    /// Frames with `;` between them, outermost first: below the row, innermost first, each with its part of the next
    /// field.
    Stack,
    /// An integer, right-aligned.
    Integer,
    /// An address in hexadecimal.
    Hex,
    /// The same; where there is none, these words.
    HexOr(&'static str),
    /// Text, and what is shown in its place where there is none.
    TextOr(&'static str),
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

impl Show {
    /// Whether the value is a text.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Path | Self::Stack)
    }
}

/// One figure of one tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in every machine-readable form.
    pub name: &'static str,
    /// The type of its values.
    pub ty: Type,
    /// What it counts.
    pub unit: Unit,
    /// What part it plays.
    pub kind: Kind,
    /// How values of several rows become one.
    pub merge: Merge,
    /// A sentence that can stand alone.
    pub help: &'static str,
    /// Its place in a table for people, if it has one.
    pub cell: Option<Cell>,
}

impl Field {
    /// Whether it has the start of a thread or process, CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn is_start(&self) -> bool {
        matches!(self.name, "start_ns" | "process_start_ns")
    }
}

/// A bucket of a histogram: its lowest and highest value, both inclusive, and the number of values in it. An open-ended bucket
/// has no highest value.
pub type Bucket = (u64, Option<u64>, u64);

/// The value of a field. There are many of them: it is as small as a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// Not known on this variant: `null`, never 0.
    Null,
    /// A number in the field's unit.
    U64(u64),
    /// The same, where it may be less than 0.
    I64(i64),
    /// Yes or no.
    Bool(bool),
    /// A text; may hold anything another process chose to call itself.
    Str(Cow<'static, str>),
    /// A histogram as outputs have it.
    Buckets(Box<[Bucket]>),
    /// A histogram that can be subtracted and added.
    Hist(Box<Hist>),
}

impl Value {
    /// The same without a copy; histograms only records have.
    #[must_use]
    pub fn plain(&self) -> Plain<'_> {
        match self {
            Self::U64(n) => Plain::U64(*n),
            Self::I64(n) => Plain::I64(*n),
            Self::Bool(is) => Plain::Bool(*is),
            Self::Str(text) => Plain::Str(text),
            Self::Null | Self::Buckets(_) | Self::Hist(_) => Plain::Null,
        }
    }

    /// A word of ours: nothing is copied.
    #[must_use]
    pub const fn word(word: &'static str) -> Self {
        Self::Str(Cow::Borrowed(word))
    }

    /// Numbers come before texts, texts before histograms, and what is not known comes last.
    fn rank(&self) -> u8 {
        match self {
            Self::U64(_) | Self::I64(_) | Self::Bool(_) => 0,
            Self::Str(_) => 1,
            Self::Buckets(_) | Self::Hist(_) => 2,
            Self::Null => 3,
        }
    }
}

impl From<&Hist> for Value {
    fn from(value: &Hist) -> Self {
        Self::Hist(Box::new(value.clone()))
    }
}

impl From<Vec<Bucket>> for Value {
    fn from(value: Vec<Bucket>) -> Self {
        Self::Buckets(value.into())
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

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::I64(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(Cow::Owned(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(Cow::Owned(value))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The buckets of two histograms, added up.
fn added(a: &[Bucket], b: &[Bucket]) -> Box<[Bucket]> {
    let mut all: Vec<Bucket> = a.iter().chain(b).copied().collect();
    all.sort_unstable_by_key(|(low, ..)| *low);
    all.dedup_by(|next, before| {
        let is_same = next.0 == before.0;
        before.2 += if is_same { next.2 } else { 0 };
        is_same
    });
    all.into()
}

/// Values for the fields of a schema, one each, in its order. On the way through the stages there are values behind them that
/// others are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    schema: &'static Schema,
    pub(crate) values: Vec<Value>,
    /// The number of its row in the run, from 1, as long as it is cumulative; else 0.
    pub(crate) row: u64,
}

impl Record {
    /// Joins a schema and its values. There must be as many values as fields.
    #[must_use]
    pub fn new(schema: &'static Schema, values: Vec<Value>) -> Self {
        debug_assert!([schema.shown(), schema.all().len()].contains(&values.len()));
        debug_assert!(schema.all().iter().zip(&values).all(|(field, value)| field.ty.fits(value)));
        Self { schema, values, row: 0 }
    }

    /// A record of what is known of its values by name.
    #[must_use]
    pub fn named(schema: &'static Schema, value: impl Fn(&str) -> Value) -> Self {
        Self::new(schema, schema.iter().map(|field| value(field.name)).collect())
    }

    /// Whether it has these values, as far as it has such fields.
    #[must_use]
    pub fn is_within(&self, keys: &[(&'static str, Value)]) -> bool {
        keys.iter().all(|(name, key)| self.get(name).is_none_or(|value| value == key))
    }

    /// The same as that of a row that grows; see [`stage::Delta`](crate::stage::Delta).
    pub(crate) fn of_row(self, row: u64) -> Self {
        Self { row, ..self }
    }

    /// The fields of this record.
    #[must_use]
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// Each field that outputs have with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Field, &Value)> {
        self.schema.iter().zip(&self.values)
    }

    /// The value of the field of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let mut all = self.schema.all().iter().zip(&self.values);
        all.find(|(field, _)| field.name == name).map(|(_, value)| value)
    }

    /// The number in the field of that name, if it is known.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        if let Some(&Value::U64(n)) = self.get(name) { Some(n) } else { None }
    }

    /// The text in the field of that name, if it is known.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        if let Some(Value::Str(text)) = self.get(name) { Some(text) } else { None }
    }

    /// The histogram in the field of that name, if it is known.
    pub(crate) fn hist(&self, name: &str) -> Option<&Hist> {
        if let Some(Value::Hist(hist)) = self.get(name) { Some(hist) } else { None }
    }

    /// Whether nothing happened: no figure that grows is known and not 0.
    pub(crate) fn is_idle(&self) -> bool {
        self.schema.all().iter().zip(&self.values).all(|(field, value)| {
            field.merge != Merge::Add
                || match value {
                    Value::U64(n) => *n == 0,
                    Value::Hist(hist) => hist.count() == 0,
                    _ => true,
                }
        })
    }

    /// Puts another row of the same table into this one; its labels, too, if they are wanted.
    pub(crate) fn merge(&mut self, other: &Self, labels: bool) {
        let fields = self.schema.all().iter();
        for (field, (mine, its)) in fields.zip(self.values.iter_mut().zip(&other.values)) {
            if field.kind == Kind::Key || field.kind == Kind::Label && !labels {
                continue;
            }
            match (field.merge, &mut *mine, its) {
                (Merge::Add, Value::U64(a), Value::U64(b)) => *a += b,
                (Merge::Add, Value::Hist(a), Value::Hist(b)) => a.add(b),
                // What is not known of a part is not known of the whole.
                (Merge::Add, ..) => *mine = Value::Null,
                (Merge::Min, Value::U64(a), Value::U64(b)) => *a = *b.min(a),
                (Merge::Max, Value::U64(a), Value::U64(b)) => *a = *b.max(a),
                (Merge::Min | Merge::Max, _, Value::Null) => {}
                (Merge::Min | Merge::Max | Merge::Last, _, its) => *mine = its.clone(),
            }
        }
    }

    /// The same in the table with the name of its machine.
    pub(crate) fn of_host(&self, table: &'static Schema, host: &str) -> Self {
        let values = [host.into()].into_iter().chain(self.values.iter().cloned()).collect();
        Self { schema: table, values, row: self.row }
    }

    /// Puts another row of the same keys into this one, where both have nothing but what outputs have: what is made of other
    /// values is made anew, as far as those are there.
    pub(crate) fn join(&mut self, other: &Self) {
        for (field, (mine, its)) in self.schema.iter().zip(self.values.iter_mut().zip(&other.values)) {
            match (field.kind, field.merge, &mut *mine, its) {
                (Kind::Key, ..) => {}
                (Kind::Counter | Kind::Loss, _, Value::U64(a), Value::U64(b)) => *a = a.saturating_add(*b),
                (Kind::Counter, _, Value::Buckets(a), Value::Buckets(b)) => *a = added(a, b),
                // What is not known of a part is not known of the whole.
                (Kind::Counter | Kind::Loss, ..) => *mine = Value::Null,
                (_, Merge::Min, Value::U64(a), Value::U64(b)) => *a = *b.min(a),
                (_, Merge::Max, Value::U64(a), Value::U64(b)) => *a = *b.max(a),
                (_, Merge::Min | Merge::Max, _, Value::Null) => {}
                (Kind::Gauge, Merge::Last, mine, its) if mine != its => *mine = Value::Null,
                (_, _, mine, its) => *mine = its.clone(),
            }
        }
        let schema = self.schema;
        for &(at, derive) in schema.derived() {
            let field = schema.all()[at];
            if (field.kind, field.merge) == (Kind::Gauge, Merge::Last) {
                self.values[at] = derive(self);
            }
        }
    }

    /// Tells births by a clock that is so far ahead of the one that they were told by: other times than those are no fields.
    pub(crate) fn shift_clock(&mut self, ahead_ns: i64) {
        for (field, value) in self.schema.iter().zip(&mut self.values) {
            if let (true, Value::U64(time)) = (field.is_start(), value) {
                *time = time.saturating_add_signed(ahead_ns);
            }
        }
    }

    /// Orders two records by the field at `index`: larger numbers first, text in alphabetical order, unknown last.
    #[must_use]
    pub fn compare(&self, other: &Self, index: usize) -> Ordering {
        match (&self.values[index], &other.values[index]) {
            (Value::U64(a), Value::U64(b)) => b.cmp(a),
            (Value::I64(a), Value::I64(b)) => b.cmp(a),
            (Value::Bool(a), Value::Bool(b)) => b.cmp(a),
            (Value::Str(a), Value::Str(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }

    /// Orders two records by their keys, then by their labels: smaller numbers first, text in alphabetical order, unknown
    /// last.
    pub(crate) fn by_key(&self, other: &Self) -> Ordering {
        let of = |kind: Kind| {
            let fields = self.iter().zip(&other.values).filter(move |((field, _), _)| field.kind == kind);
            fields.map(|((_, a), b)| match (a, b) {
                (Value::U64(a), Value::U64(b)) => a.cmp(b),
                (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
                (Value::Str(a), Value::Str(b)) => a.cmp(b),
                (a, b) => a.rank().cmp(&b.rank()),
            })
        };
        of(Kind::Key).chain(of(Kind::Label)).fold(Ordering::Equal, Ordering::then)
    }
}
