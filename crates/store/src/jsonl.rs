//! JSON lines, as `trapline-view` writes them.

mod line;

use std::collections::VecDeque;
use std::io::{self, BufRead};

use trapline_model::{Block, Event, Facts, Header, Item, Part, Source, recorded};

pub(crate) use self::line::{Line, end, header};
use self::line::{Lines, number, of_fields, of_id, record, text, time};

/// Events that are given together.
const BATCH: usize = 1024;

/// The types of lines that are known.
const KINDS: [&str; 6] = ["header", "event", "block", "row", "total", "end"];

/// Why a recording cannot be read (on).
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file does not let itself be read.
    #[error("cannot read {name}")]
    Io {
        /// The recording's name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what it should be, as a whole.
    #[error("cannot read {name}: {why}")]
    File {
        /// The recording's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is not what it should be.
    #[error("cannot read {name}: line {line}: {why}")]
    Line {
        /// The recording's name.
        name: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A folder is not what it should be.
    #[error("cannot read {name}: {why}")]
    Folder {
        /// The recording's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Whether JSON lines with this at their end have one.
#[must_use]
pub fn has_end(tail: &[u8]) -> bool {
    let last = tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice::<Line>(last).is_ok_and(|line| text(&line, "type") == Some("end"))
}

/// A recording, read line by line. Types of lines and fields that are not known are passed over.
#[derive(Debug)]
pub struct Recording<R> {
    lines: Lines<R>,
    header: Header,
    /// What is to be given before anything more is read.
    ready: VecDeque<Item>,
    /// Rows or totals that a recording has which does not say where blocks begin.
    loose: Option<(Of, Block)>,
    counted: u64,
    has_totals: bool,
    ended: bool,
    /// Why it cannot be read on, until what is intact was given.
    error: Option<RecordingError>,
}

/// What a block is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Rows,
    Totals,
}

impl Of {
    fn named(name: Option<&str>) -> Option<Self> {
        match name {
            Some("row") => Some(Self::Rows),
            Some("total") => Some(Self::Totals),
            _ => None,
        }
    }

    fn item(self, block: Block) -> Item {
        match self {
            Self::Rows => Item::Rows(block),
            Self::Totals => Item::Totals(block),
        }
    }
}

impl<R: BufRead> Recording<R> {
    /// Reads the header. `name` is what messages call the recording; if a tool is named, it is of that one.
    ///
    /// # Errors
    /// When it is not a recording, or of another tool.
    pub fn open(input: R, name: impl Into<String>, tool: Option<&str>) -> Result<Self, RecordingError> {
        let mut lines = Lines { input, name: name.into(), number: 0 };
        let Some(first) = lines.next()? else {
            lines.number = 1;
            return Err(lines.wrong("it is empty, not a recording"));
        };
        let header = header(&first, tool).map_err(|why| lines.wrong(why))?;
        let ready = VecDeque::from([Item::Header(header.clone())]);
        let (loose, counted) = (None, 0);
        Ok(Self { lines, header, ready, loose, counted, has_totals: false, ended: false, error: None })
    }

    /// What was run, where and how.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads until there is something to give.
    fn read(&mut self) {
        let mut events = Vec::new();
        self.error = self.lines(&mut events).err();
        if !events.is_empty() {
            self.ready.push_front(Item::Events(events));
        }
    }

    fn lines(&mut self, events: &mut Vec<Event>) -> Result<(), RecordingError> {
        while self.ready.is_empty() && events.len() < BATCH {
            let Some(line) = self.lines.next()? else {
                return Err(self.lines.wrong("the recording stops here, and its end is missing"));
            };
            let kind = text(&line, "type");
            let parsed = match (kind, Of::named(kind)) {
                (Some("event"), _) => self.event(&line).map(|event| events.push(event)),
                (_, Some(of)) => self.loose(&line, of),
                (Some("block"), _) => {
                    let block = self.block(&line)?;
                    self.settle();
                    self.give(block);
                    Ok(())
                }
                (Some("end"), _) => end(&line, &self.header.tool).and_then(|end| self.finish(events, end)),
                (Some("header"), _) => Err("another recording begins here: one file holds one".into()),
                (Some(_), _) => Ok(()),
                (None, _) => Err("it has no `type`".into()),
            };
            parsed.map_err(|why| self.lines.wrong(why))?;
        }
        if self.ended && self.lines.next()?.is_some() {
            return Err(self.lines.wrong("there is more after the recording's end"));
        }
        Ok(())
    }

    fn event(&mut self, line: &Line) -> Result<Event, String> {
        let schema = match self.header.events {
            Some(schema) => schema,
            None => of_fields(&self.header.tool, line)?,
        };
        self.header.events = Some(schema);
        let record = record(line, schema)?;
        recorded::check(&record).map_err(|(field, why)| format!("its `{field}` {why}"))?;
        self.counted += u64::from(recorded::is_counted(&record));
        Ok(Event { time_ns: time(line, "time_ns")?, record })
    }

    /// A block and its rows, which follow the line.
    fn block(&mut self, line: &Line) -> Result<(Of, Block), RecordingError> {
        let tool = self.header.tool.clone();
        let parsed = (|| {
            let kind = text(line, "of");
            let of = Of::named(kind).ok_or_else(|| "its `of` is neither row nor total".to_owned())?;
            let table =
                of_id(&tool, text(line, "table").ok_or_else(|| "its `table` is missing".to_owned())?)?;
            let sum = line.get("sum").and_then(|sum| sum.as_object());
            let sum = sum.map(|sum| record(sum, table)).transpose()?;
            let hidden = usize::try_from(number(line, "hidden")?).map_err(|error| error.to_string())?;
            let since_ns = line.contains_key("since_ns").then(|| time(line, "since_ns")).transpose()?;
            let block = Block { sum, hidden, since_ns, ..Block::new(table, time(line, "time_ns")?, vec![]) };
            Ok((of, kind, number(line, "rows")?, block))
        })();
        let (of, kind, count, mut block) = parsed.map_err(|why: String| self.lines.wrong(why))?;
        let mut missing = count;
        while missing > 0 {
            let row = self.lines.next()?;
            let row_kind = row.as_ref().and_then(|row| text(row, "type"));
            match &row {
                Some(row) if row_kind == kind => {
                    block.rows.push(record(row, block.table).map_err(|why| self.lines.wrong(why))?);
                    missing -= 1;
                }
                Some(_) if row_kind.is_some_and(|kind| !KINDS.contains(&kind)) => {}
                _ => return Err(self.lines.wrong(format!("{missing} rows of the block before are missing"))),
            }
        }
        Ok((of, block))
    }

    /// A row or total without a block.
    fn loose(&mut self, line: &Line, of: Of) -> Result<(), String> {
        let table = match text(line, "table") {
            Some(id) => of_id(&self.header.tool, id)?,
            None => of_fields(&self.header.tool, line)?,
        };
        let (time_ns, record) = (time(line, "time_ns")?, record(line, table)?);
        match &mut self.loose {
            Some((old, block)) if (*old, block.time_ns) == (of, time_ns) && block.table == table => {
                block.rows.push(record);
            }
            _ => {
                self.settle();
                self.loose = Some((of, Block::new(table, time_ns, vec![record])));
            }
        }
        Ok(())
    }

    /// Gives the rows without a block that are whole.
    fn settle(&mut self) {
        if let Some(loose) = self.loose.take() {
            self.give(loose);
        }
    }

    fn give(&mut self, (of, block): (Of, Block)) {
        self.has_totals |= of == Of::Totals;
        self.ready.push_back(of.item(block));
    }

    fn finish(&mut self, events: &mut Vec<Event>, end: Facts) -> Result<(), String> {
        let is_summary = self.header.setting("summary").is_some();
        let are_counted = recorded::counts_events(&self.header.tool) && !is_summary;
        if are_counted && end.events != self.counted {
            return Err(format!(
                "its `events` is {}, but it contains {}: lines are missing, or too many",
                end.events, self.counted
            ));
        }
        if !events.is_empty() {
            self.ready.push_back(Item::Events(std::mem::take(events)));
        }
        self.settle();
        if !self.has_totals {
            let time_ns = self.header.start_ns.saturating_add(end.duration_ns);
            let of_rows = recorded::tables(&self.header.tool, Part::Rows);
            if let Some(table) = self.header.tables.first().or(of_rows.first()) {
                self.give((Of::Totals, Block::new(*table, time_ns, vec![])));
            }
        }
        self.ready.push_back(Item::End(end));
        self.ended = true;
        Ok(())
    }
}

impl<R: BufRead> Source for Recording<R> {
    type Error = RecordingError;

    fn next(&mut self) -> Result<Option<Item>, RecordingError> {
        while self.ready.is_empty() && !self.ended && self.error.is_none() {
            self.read();
        }
        match self.ready.pop_front() {
            None => self.error.take().map_or(Ok(None), Err),
            item => Ok(item),
        }
    }
}

#[cfg(test)]
mod tests;
