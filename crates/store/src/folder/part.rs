//! A part: columns as the bytes of a Parquet file, and back.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::CompressionCodec;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader, RowGroupMetaData};
use trapline_model::faults::FaultColumns;
use trapline_model::{Record, Schema};

use super::columns::{Columns, ITEM, OWN, Rows, TIME};
use super::fault_columns::Lists;

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

/// Which program wrote a Parquet file and how it is compressed, in words, if it was not trapline, or not so.
pub(super) fn foreign(content: Bytes) -> Option<String> {
    let metadata = guarded(|| {
        ParquetMetaDataReader::new().parse_and_finish(&content).map_err(|error| error.to_string())
    });
    let metadata = metadata.ok()?;
    let by = metadata.file_metadata().created_by();
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let unread =
        |codec: &CompressionCodec| !matches!(codec, CompressionCodec::UNCOMPRESSED | CompressionCodec::ZSTD);
    let unread = columns.map(ColumnChunkMetaData::compression_codec).find(unread);
    if unread.is_none() && by.is_some_and(|by| by.starts_with(OWN)) {
        return None;
    }
    let by = by.unwrap_or("another program");
    let how = unread.map_or(String::new(), |codec| format!(", compressed with {codec:?}"));
    Some(format!(
        "it was rewritten by {by}{how}; the files of a recording are those that trapline wrote, compressed with zstd"
    ))
}

/// The rows of a part, in order.
pub(super) struct Reader {
    table: &'static Schema,
    batches: ParquetRecordBatchReader,
    rows: Option<(Rows, usize)>,
    lists: Lists,
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
    ///
    /// Of the columns, those of these names are read, or all.
    pub(super) fn open(
        table: &'static Schema,
        content: Vec<u8>,
        only: Option<&[&'static str]>,
    ) -> Result<Self, String> {
        let content = Bytes::from(content);
        Self::rows_of(table, content.clone(), only).map_err(|why| foreign(content).unwrap_or(why))
    }

    fn rows_of(
        table: &'static Schema,
        content: Bytes,
        only: Option<&[&'static str]>,
    ) -> Result<Self, String> {
        let batches = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(content);
            let mut builder = builder.map_err(|error| error.to_string())?;
            if let Some(only) = only {
                let columns = only.iter().copied().chain([ITEM, TIME]);
                let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
                builder = builder.with_projection(mask);
            }
            builder.with_batch_size(BATCH).build().map_err(|error| error.to_string())
        })?;
        let mut reader = Self { table, batches, rows: None, lists: Lists::default() };
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

    /// The next rows that belong to this item, as many as are decoded.
    ///
    /// # Errors
    /// When what follows cannot be decoded.
    pub(super) fn batch_of(&mut self, item: u64) -> Result<Option<FaultColumns>, String> {
        let Some((rows, at)) = &mut self.rows else { return Ok(None) };
        let from = *at;
        let to = (from..rows.len()).find(|row| rows.item(*row) != item).unwrap_or(rows.len());
        if from == to {
            return Ok(None);
        }
        let times = (from..to).map(|row| rows.time_ns(row)).collect();
        let fields = self.table.iter().count();
        let columns =
            (0..fields).map(|field| self.lists.values(field, rows.column(field), from, to)).collect();
        let batch = FaultColumns::new(self.table, times, columns);
        *at = to;
        self.refill()?;
        Ok(Some(batch))
    }
}

/// Reads all rows of a part, and gives how many there are.
///
/// # Errors
/// When some of it cannot be read.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_all(table: &'static Schema, content: Vec<u8>) -> Result<usize, String> {
    let mut reader = Reader::open(table, content, None)?;
    let mut rows = 0;
    while let Some(item) = reader.item() {
        while reader.next_of(item)?.is_some() {
            rows += 1;
        }
    }
    Ok(rows)
}
