//! One table as one Parquet file: events if there are any, else rows and totals.

use std::io::{self, Write};

use parquet::arrow::ArrowWriter;
use trapline_model::{Event, Item, Record, Schema, Sink};

use super::columns::{Columns, Lead};

/// Rows are encoded when their columns take this much memory, bytes.
const MOST: usize = 64 << 20;

/// Writes one table; the first two columns are `type` and `time_ns`. It has one schema: where events are shown, rows and totals
/// are not. The file is whole at the end.
pub struct SingleTable<W> {
    out: W,
    table: &'static Schema,
    columns: Columns,
    /// What it has encoded waits in its vector until it is moved on to `out`.
    writer: Option<ArrowWriter<Vec<u8>>>,
}

impl<W: Write> SingleTable<W> {
    /// Over a writer.
    pub fn new(out: W, table: &'static Schema) -> Self {
        Self { out, table, columns: Columns::new(table, Lead::Kind), writer: None }
    }

    fn record(&mut self, kind: &str, time_ns: u64, record: &Record) -> io::Result<()> {
        if record.schema() != self.table {
            return Ok(());
        }
        self.columns.push(0, kind, time_ns, record);
        if self.columns.bytes() >= MOST { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> io::Result<()> {
        let columns = std::mem::replace(&mut self.columns, Columns::new(self.table, Lead::Kind));
        let (batch, properties) = columns.finish().map_err(io::Error::other)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties));
                none.insert(writer.map_err(io::Error::other)?)
            }
        };
        writer.write(&batch).and_then(|()| writer.flush()).map_err(io::Error::other)?;
        self.out.write_all(&std::mem::take(writer.inner_mut()))
    }

    /// What a file needs at its end to be one.
    fn finish(&mut self) -> io::Result<()> {
        self.encode()?;
        if let Some(writer) = self.writer.take() {
            self.out.write_all(&writer.into_inner().map_err(io::Error::other)?)?;
        }
        self.out.flush()
    }
}

impl<W: Write> Sink for SingleTable<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Events(events) => {
                events.iter().try_for_each(|Event { time_ns, record }| self.record("event", *time_ns, record))
            }
            Item::Rows(block) => block.rows.iter().try_for_each(|row| self.record("row", block.time_ns, row)),
            Item::Totals(block) => {
                block.rows.iter().try_for_each(|row| self.record("total", block.time_ns, row))
            }
            Item::Header(_) | Item::Facts(_) | Item::Tick(_) => Ok(()),
            Item::End(_) => self.finish(),
        }
    }

    fn cut_off(&mut self) -> io::Result<()> {
        self.finish()
    }
}

impl<W> std::fmt::Debug for SingleTable<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleTable").field("table", &self.table).finish_non_exhaustive()
    }
}
