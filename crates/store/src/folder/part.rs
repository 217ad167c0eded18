//! A part: columns as the bytes of a Parquet file, and back.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use trapline_model::{Record, Schema};

use super::columns::{Columns, Rows};

/// Rows that are decoded together.
const BATCH: usize = 16_384;

/// The bytes of a Parquet file with these rows.
///
/// # Errors
/// When they cannot be encoded.
pub(super) fn encode(columns: Columns) -> io::Result<Vec<u8>> {
    let (batch, properties) = columns.finish().map_err(io::Error::other)?;
    let mut writer =
        ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(io::Error::other)?;
    writer.write(&batch).map_err(io::Error::other)?;
    writer.into_inner().map_err(io::Error::other)
}

/// The rows of a part, in order.
pub(super) struct Reader {
    table: &'static Schema,
    batches: ParquetRecordBatchReader,
    rows: Option<(Rows, usize)>,
}

/// A row: the number of its item, its time, its values.
pub(super) type Row = (u64, u64, Record);

/// The decoder is given what anybody may have written: where it panics, the part is damaged.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("it cannot be decoded".into()))
}

impl Reader {
    /// # Errors
    /// When it is no Parquet file, or not one with rows of this table.
    pub(super) fn open(table: &'static Schema, content: Vec<u8>) -> Result<Self, String> {
        let batches = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(content));
            let builder = builder.map_err(|error| error.to_string())?;
            builder.with_batch_size(BATCH).build().map_err(|error| error.to_string())
        })?;
        let mut reader = Self { table, batches, rows: None };
        reader.refill()?;
        Ok(reader)
    }

    fn refill(&mut self) -> Result<(), String> {
        while self.rows.as_ref().is_none_or(|(rows, at)| *at >= rows.len()) {
            let Some(batch) = guarded(|| self.batches.next().transpose().map_err(|error| error.to_string()))?
            else {
                self.rows = None;
                return Ok(());
            };
            self.rows = Some((Rows::of(self.table, &batch)?, 0));
        }
        Ok(())
    }

    /// The item to which the next row belongs.
    pub(super) fn item(&self) -> Option<u64> {
        self.rows.as_ref().map(|(rows, at)| rows.item(*at))
    }

    /// The next row if it belongs to this item.
    ///
    /// # Errors
    /// When what follows cannot be decoded.
    pub(super) fn next_of(&mut self, item: u64) -> Result<Option<Row>, String> {
        let Some((rows, at)) = &mut self.rows else { return Ok(None) };
        if rows.item(*at) != item {
            return Ok(None);
        }
        let row = (item, rows.time_ns(*at), rows.record(*at));
        *at += 1;
        self.refill()?;
        Ok(Some(row))
    }
}

/// Reads all rows of a part, and gives how many there are.
///
/// # Errors
/// When some of it cannot be read.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_all(table: &'static Schema, content: Vec<u8>) -> Result<usize, String> {
    let mut reader = Reader::open(table, content)?;
    let mut rows = 0;
    while let Some(item) = reader.item() {
        while reader.next_of(item)?.is_some() {
            rows += 1;
        }
    }
    Ok(rows)
}
