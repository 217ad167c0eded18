//! Records as columns, and columns as records.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Int64Builder, ListBuilder, StringDictionaryBuilder, StructBuilder,
    UInt64Builder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, ListArray, RecordBatch, StructArray, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field as Arrow, Fields, Schema as ArrowSchema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use trapline_model::{Batch, Bucket, Field, Kind, Plain, Record, Schema, Type, Unit, Value, bounds};

use super::words::{self, Words};

/// The column that says to which item of the stream a row belongs.
pub(super) const ITEM: &str = "item";
/// The column with the time of a row, of all tables.
pub(super) const TIME: &str = "time_ns";
/// The column that says what a row of a single table is: an event, a row, a total.
const KIND: &str = "type";

/// Numbers of which there are few in a part take a word of a dictionary each, bytes that it may have; others are stored as
/// differences.
const DICTIONARY: usize = 64 << 10;

/// So many values of a column tell how it is stored.
const SOME: usize = 1024;

/// What leads a row, before the columns of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// The number of its item, and its time.
    Item,
    /// What it is, and its time.
    Kind,
}

/// Columns of less memory are not compressed, bytes: what it saves is less than a Parquet file's own description.
const SMALL: usize = 16 << 10;

/// So many rows are put into one column after the other while the processor's nearest cache holds them.
const TOGETHER: usize = 64;

/// Rows of a table, column by column.
pub(super) struct Columns {
    schema: Arc<ArrowSchema>,
    items: Option<UInt64Builder>,
    kinds: Option<StringDictionaryBuilder<UInt32Type>>,
    times: UInt64Builder,
    columns: Vec<Column>,
    bytes: usize,
}

enum Column {
    U64(UInt64Builder),
    I64(Int64Builder),
    Bool(BooleanBuilder),
    Str(Words),
    Hist(ListBuilder<StructBuilder>),
}

impl Columns {
    pub(super) fn new(table: &'static Schema, lead: Lead) -> Self {
        let fields = leading(lead).into_iter().chain(table.iter().map(arrow)).collect::<Vec<_>>();
        let name = [("table".to_owned(), table.id().to_owned())];
        let column = |field: &Field| match field.ty {
            Type::U64 => Column::U64(UInt64Builder::new()),
            Type::I64 => Column::I64(Int64Builder::new()),
            Type::Bool => Column::Bool(BooleanBuilder::new()),
            Type::Str => Column::Str(Words::default()),
            Type::Hist => Column::Hist(ListBuilder::new(StructBuilder::from_fields(buckets(), 0))),
        };
        Self {
            schema: Arc::new(ArrowSchema::new_with_metadata(fields, name)),
            items: (lead == Lead::Item).then(UInt64Builder::new),
            kinds: (lead == Lead::Kind).then(StringDictionaryBuilder::new),
            times: UInt64Builder::new(),
            columns: table.iter().map(column).collect(),
            bytes: 0,
        }
    }

    /// Appends a row.
    pub(super) fn push(&mut self, item: u64, kind: &str, time_ns: u64, record: &Record) {
        self.lead(item, kind, time_ns);
        for (column, (_, value)) in self.columns.iter_mut().zip(record.iter()) {
            self.bytes += column.push(value);
        }
    }

    /// Appends rows that are no records.
    pub(super) fn extend(&mut self, item: u64, rows: &dyn Batch) {
        for from in (0..rows.len()).step_by(TOGETHER) {
            let these = from..rows.len().min(from + TOGETHER);
            these.clone().for_each(|row| self.lead(item, "", rows.time_ns(row)));
            let mut bytes = 0;
            for (at, column) in self.columns.iter_mut().enumerate() {
                rows.values(at, these.clone(), &mut |value| bytes += column.put(value));
            }
            self.bytes += bytes;
        }
    }

    /// What leads a row.
    fn lead(&mut self, item: u64, kind: &str, time_ns: u64) {
        if let Some(items) = &mut self.items {
            items.append_value(item);
        }
        if let Some(kinds) = &mut self.kinds {
            kinds.append_value(kind);
        }
        self.times.append_value(time_ns);
        self.bytes += 16;
    }

    /// About how much memory the rows take, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows as Parquet wants them; nothing is left.
    pub(super) fn finish(mut self) -> Result<(RecordBatch, WriterProperties), arrow_schema::ArrowError> {
        let mut arrays: Vec<ArrayRef> = Vec::new();
        arrays.extend(self.items.as_mut().map(|items| Arc::new(items.finish()) as ArrayRef));
        arrays.extend(self.kinds.as_mut().map(|kinds| Arc::new(kinds.finish()) as ArrayRef));
        arrays.push(Arc::new(self.times.finish()));
        arrays.extend(self.columns.iter_mut().map(Column::finish));
        let batch = RecordBatch::try_new(self.schema, arrays)?;
        let properties = properties(&batch, self.bytes >= SMALL);
        Ok((batch, properties))
    }
}

impl Column {
    /// Appends a value, and gives about how many bytes it took. What is not of the column's type is not known.
    fn push(&mut self, value: &Value) -> usize {
        let Self::Hist(column) = self else { return self.put(value.plain()) };
        match value {
            Value::Buckets(buckets) => push_buckets(column, buckets),
            Value::Hist(hist) => {
                let bucket = |(at, n)| {
                    let (low, high) = bounds(at);
                    (low, Some(high).filter(|high| *high != u64::MAX), n)
                };
                let buckets: Vec<Bucket> = hist.iter().map(bucket).collect();
                push_buckets(column, &buckets)
            }
            _ => {
                column.append_null();
                8
            }
        }
    }

    /// The same of one that is no histogram.
    fn put(&mut self, value: Plain<'_>) -> usize {
        match (self, value) {
            (Self::U64(column), Plain::U64(n)) => column.append_value(n),
            (Self::U64(column), _) => column.append_null(),
            (Self::I64(column), Plain::I64(n)) => column.append_value(n),
            (Self::I64(column), _) => column.append_null(),
            (Self::Bool(column), Plain::Bool(is)) => column.append_value(is),
            (Self::Bool(column), _) => column.append_null(),
            (Self::Str(column), Plain::Str(text)) => return column.push(text),
            (Self::Str(column), _) => column.push_null(),
            (Self::Hist(column), _) => column.append_null(),
        }
        8
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::U64(column) => ArrayBuilder::finish(column),
            Self::I64(column) => ArrayBuilder::finish(column),
            Self::Bool(column) => ArrayBuilder::finish(column),
            Self::Str(column) => column.finish(),
            Self::Hist(column) => ArrayBuilder::finish(column),
        }
    }
}

fn push_buckets(column: &mut ListBuilder<StructBuilder>, buckets: &[Bucket]) -> usize {
    let values = column.values();
    for (low, high, count) in buckets {
        for (at, value) in [Some(*low), *high, Some(*count)].into_iter().enumerate() {
            if let Some(field) = values.field_builder::<UInt64Builder>(at) {
                field.append_option(value);
            }
        }
        values.append(true);
    }
    column.append(true);
    buckets.len() * 24
}

fn buckets() -> Fields {
    let field = |name, is_nullable| Arrow::new(name, DataType::UInt64, is_nullable);
    Fields::from(vec![field("low", false), field("high", true), field("count", false)])
}

fn word() -> DataType {
    DataType::Dictionary(DataType::UInt32.into(), DataType::Utf8.into())
}

fn leading(lead: Lead) -> [Arrow; 2] {
    let of = |name, ty, unit: &str, help: &str| {
        let about = [("unit", unit), ("kind", "label"), ("help", help)];
        Arrow::new(name, ty, false)
            .with_metadata(about.map(|(name, text)| (name.to_owned(), text.to_owned())))
    };
    let first = match lead {
        Lead::Item => {
            of(ITEM, DataType::UInt64, "", "The item of the recorded stream to which the row belongs.")
        }
        Lead::Kind => of(KIND, word(), "", "What the row is: an event, a row of an interval, or a total."),
    };
    [
        first,
        of(TIME, DataType::UInt64, "ns", "The time of the event or of the interval's end, CLOCK_MONOTONIC."),
    ]
}

fn arrow(field: &'static Field) -> Arrow {
    let ty = match field.ty {
        Type::U64 => DataType::UInt64,
        Type::I64 => DataType::Int64,
        Type::Bool => DataType::Boolean,
        Type::Str => word(),
        Type::Hist => DataType::List(Arrow::new("item", DataType::Struct(buckets()), true).into()),
    };
    let unit = match field.unit {
        Unit::None => "",
        Unit::Count => "count",
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
        Unit::Address => "address",
    };
    let kind = match field.kind {
        Kind::Key => "key",
        Kind::Label => "label",
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Loss => "loss",
    };
    let about = [("unit", unit), ("kind", kind), ("help", field.help)];
    Arrow::new(field.name, ty, true)
        .with_metadata(about.map(|(name, text)| (name.to_owned(), text.to_owned())))
}

/// What the name of the program in our Parquet files begins with.
pub(super) const OWN: &str = "trapline ";

/// How columns are stored: numbers as differences, or as words of a dictionary where they are few.
fn properties(batch: &RecordBatch, is_compressed: bool) -> WriterProperties {
    let zstd = || Compression::ZSTD(ZstdLevel::default());
    let compression = if is_compressed { zstd() } else { Compression::UNCOMPRESSED };
    let mut properties: WriterPropertiesBuilder = WriterProperties::builder()
        .set_created_by(format!("{OWN}{}", env!("CARGO_PKG_VERSION")))
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None);
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if matches!(field.data_type(), DataType::UInt64 | DataType::Int64) {
            let path = ColumnPath::from(field.name().clone());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), has_few(column))
                .set_column_dictionary_page_size_limit(path.clone(), DICTIONARY)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    properties.build()
}

/// Whether many of a column's numbers are the same, as far as some of them tell.
fn has_few(column: &ArrayRef) -> bool {
    let Some(numbers) = column.as_primitive_opt::<UInt64Type>() else { return true };
    let step = (numbers.len() / SOME).max(1);
    let some: HashSet<Option<u64>> =
        (0..numbers.len()).step_by(step).map(|at| numbers.is_valid(at).then(|| numbers.value(at))).collect();
    some.len() * 4 <= numbers.len().min(SOME)
}

/// The rows of a batch, of which some columns may be missing: what is not there is not known.
pub(super) struct Rows {
    table: &'static Schema,
    items: UInt64Array,
    times: UInt64Array,
    columns: Vec<Read>,
}

/// A column that was read.
pub(super) enum Read {
    Missing,
    U64(UInt64Array),
    I64(Int64Array),
    Bool(BooleanArray),
    /// The texts, and of each row the number of its own.
    Str(UInt32Array, Vec<Value>),
    Hist(ListArray),
}

impl Rows {
    /// # Errors
    /// When a column has another type than the table says.
    pub(super) fn of(table: &'static Schema, batch: &RecordBatch) -> Result<Self, String> {
        let lead = |name: &str| match batch
            .column_by_name(name)
            .and_then(|column| column.as_primitive_opt::<UInt64Type>())
        {
            Some(column) if column.null_count() == 0 => Ok(column.clone()),
            _ => Err(format!(
                "its column `{name}` is missing, or has another type: it is no part of a recording"
            )),
        };
        let column = |field: &'static Field| match batch.column_by_name(field.name) {
            None => Ok(Read::Missing),
            Some(column) if column.data_type() == arrow(field).data_type() => Ok(Read::of(column)),
            Some(_) => Err(format!("its column `{}` has another type", field.name)),
        };
        Ok(Self {
            table,
            items: lead(ITEM)?,
            times: lead(TIME)?,
            columns: table.iter().map(column).collect::<Result<_, String>>()?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn item(&self, row: usize) -> u64 {
        self.items.value(row)
    }

    pub(super) fn time_ns(&self, row: usize) -> u64 {
        self.times.value(row)
    }

    /// The column at a place of the table, if it was read.
    pub(super) fn column(&self, at: usize) -> Option<&Read> {
        self.columns.get(at)
    }

    pub(super) fn record(&self, row: usize) -> Record {
        Record::new(self.table, self.columns.iter().map(|column| column.value(row)).collect())
    }
}

impl Read {
    /// Of a type that tables have.
    fn of(column: &ArrayRef) -> Self {
        match column.data_type() {
            DataType::UInt64 => Self::U64(column.as_primitive().clone()),
            DataType::Int64 => Self::I64(column.as_primitive().clone()),
            DataType::Boolean => Self::Bool(column.as_boolean().clone()),
            DataType::Dictionary(..) => {
                let words = column.as_dictionary::<UInt32Type>();
                let texts = words.values().as_string::<i32>().iter();
                let texts = texts.map(|text| text.map_or(Value::Null, words::held)).collect();
                Self::Str(words.keys().clone(), texts)
            }
            DataType::List(_) => Self::Hist(column.as_list().clone()),
            _ => Self::Missing,
        }
    }

    fn value(&self, row: usize) -> Value {
        match self {
            Self::U64(column) if column.is_valid(row) => Value::U64(column.value(row)),
            Self::I64(column) if column.is_valid(row) => Value::I64(column.value(row)),
            Self::Bool(column) if column.is_valid(row) => Value::Bool(column.value(row)),
            Self::Str(keys, texts) if keys.is_valid(row) => {
                texts.get(keys.value(row) as usize).cloned().unwrap_or(Value::Null)
            }
            Self::Hist(column) if column.is_valid(row) => {
                let list = column.value(row);
                let buckets: Vec<Bucket> = list.as_struct_opt().map(of_buckets).unwrap_or_default();
                buckets.into()
            }
            _ => Value::Null,
        }
    }
}

fn of_buckets(of: &StructArray) -> Vec<Bucket> {
    let column = |at: usize| of.column(at).as_primitive::<UInt64Type>();
    let [low, high, count] = [0, 1, 2].map(column);
    let bucket = |at| (low.value(at), high.is_valid(at).then(|| high.value(at)), count.value(at));
    (0..of.len()).map(bucket).collect()
}
