//! The totals of a run as a profile for pprof: each counter is a sample type, each row a sample.

mod proto;

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use trapline_model::{Block, Facts, Field, Header, Item, Kind, Record, Sink, Value};

use self::proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use crate::blocks::note;
use crate::end::{UNKNOWN, end_lines};
use crate::escape::visible;
use crate::frames::{Frame, Measure, frames, measures, unit};

/// Writes the totals of the run, when it ends. All of them are kept until then.
#[derive(Debug)]
pub struct Pprof<W> {
    out: W,
    profile: Profile,
    strings: Ids<String>,
    functions: Ids<(String, String)>,
    mappings: Ids<(String, String)>,
    locations: Ids<Frame>,
}

/// Mappings begin and end at pages.
const PAGE: u64 = 4096;

/// Numbers for what was met, from 1.
#[derive(Debug)]
struct Ids<T>(HashMap<T, u64>);

impl<T: Hash + Eq> Ids<T> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// Its number, and whether it is new.
    fn of(&mut self, it: T) -> (u64, bool) {
        let next = self.0.len() as u64 + 1;
        let id = *self.0.entry(it).or_insert(next);
        (id, id == next)
    }
}

impl<W: Write> Pprof<W> {
    /// Over a writer, for any rows.
    pub fn new(out: W) -> Self {
        let profile = Profile { string_table: vec![String::new()], period: 1, ..Profile::default() };
        let (strings, functions) = (Ids::new(), Ids::new());
        Self { out, profile, strings, functions, mappings: Ids::new(), locations: Ids::new() }
    }

    fn header(&mut self, header: &Header) {
        self.profile.time_nanos = header.start_unix_ns;
        self.comment(&note(header));
        self.comment(&format!("host {}, kernel {}", visible(&header.host), visible(&header.kernel)));
    }

    fn comment(&mut self, text: &str) {
        let comment = self.string(text);
        self.profile.comment.push(comment);
    }

    fn totals(&mut self, block: &Block) -> io::Result<()> {
        if !self.profile.sample_type.is_empty() {
            return Err(io::Error::other("a profile has the rows of one table, and there are several"));
        }
        let measures = measures(block);
        for (name, unit, _) in &measures {
            let of = ValueType { r#type: self.string(name), unit: self.string(unit) };
            self.profile.sample_type.push(of);
        }
        if let Some(first) = self.profile.sample_type.first() {
            self.profile.default_sample_type = first.r#type;
            self.profile.period_type = Some(first.clone());
        }
        let mut unknown = vec![0u64; measures.len()];
        for row in &block.rows {
            let value = |(measure, unknown): (&Measure, &mut u64)| {
                let mut fields = measure.2.iter();
                let known = fields.try_fold(0, |sum: u64, f| Some(sum.saturating_add(row.number(f)?)));
                *unknown += u64::from(known.is_none());
                known.unwrap_or(0).try_into().unwrap_or(i64::MAX)
            };
            let value = measures.iter().zip(&mut unknown).map(value).collect();
            let location_id = frames(row).into_iter().rev().map(|frame| self.location(frame)).collect();
            let label = self.labels(row);
            self.profile.sample.push(Sample { location_id, value, label });
        }
        for ((name, ..), rows) in measures.iter().zip(unknown).filter(|(_, rows)| *rows > 0) {
            self.comment(&format!("{name}: unknown of {rows} rows, which have 0"));
        }
        if block.hidden > 0 {
            self.comment(&format!("{} rows left out", block.hidden));
        }
        Ok(())
    }

    /// What else is known of a row.
    fn labels(&mut self, row: &Record) -> Vec<Label> {
        let is_label = |field: &Field| {
            matches!(field.kind, Kind::Key | Kind::Label)
                && !["stack", "lines", "binaries"].contains(&field.name)
        };
        let mut labels = vec![];
        for (field, value) in row.iter().filter(|(field, _)| is_label(field)) {
            let mut label = Label { key: self.string(field.name), ..Label::default() };
            match value {
                Value::Str(text) => label.str = self.string(&visible(text)),
                // Readers take 0 without a unit for no label.
                Value::U64(n) => {
                    label.num = n.cast_signed();
                    label.num_unit = self.string(unit(field.unit));
                }
                _ => continue,
            }
            labels.push(label);
        }
        labels
    }

    fn location(&mut self, frame: Frame) -> u64 {
        let (id, is_new) = self.locations.of(frame.clone());
        if is_new {
            let Frame { name, file, line, module, build_id, offset } = frame;
            let function_id = self.function(name, file);
            let mapping_id = module.map_or(0, |module| self.mapping(module, build_id, offset));
            let line = vec![Line { function_id, line }];
            self.profile.location.push(Location { id, mapping_id, address: offset, line });
        }
        id
    }

    fn function(&mut self, name: String, file: String) -> u64 {
        let (id, is_new) = self.functions.of((name.clone(), file.clone()));
        if is_new {
            let (name, filename) = (self.string(&name), self.string(&file));
            self.profile.function.push(Function { id, name, system_name: name, filename });
        }
        id
    }

    /// A file with a path holds functions without a name: readers that have it may look for them. Addresses are places in the
    /// file, so it is mapped where it lies in the file, as far as there are any.
    fn mapping(&mut self, module: String, build_id: String, offset: u64) -> u64 {
        let is_file = module.starts_with('/');
        let (id, is_new) = self.mappings.of((module.clone(), build_id.clone()));
        let (start, limit) = (offset & !(PAGE - 1), (offset | (PAGE - 1)).saturating_add(1));
        if is_new {
            let (filename, build_id, has) = (self.string(&module), self.string(&build_id), !is_file);
            let all = Mapping {
                has_functions: has,
                has_filenames: has,
                has_line_numbers: has,
                ..Mapping::default()
            };
            let (memory_start, memory_limit) = if is_file { (start, limit) } else { (0, 0) };
            let file_offset = memory_start;
            self.profile.mapping.push(Mapping {
                id,
                memory_start,
                memory_limit,
                file_offset,
                filename,
                build_id,
                ..all
            });
        } else if is_file && let Some(known) = self.profile.mapping.get_mut(id as usize - 1) {
            known.memory_start = known.memory_start.min(start);
            known.memory_limit = known.memory_limit.max(limit);
            known.file_offset = known.memory_start;
        }
        id
    }

    /// The number of a text; 0 is the empty one.
    fn string(&mut self, text: &str) -> i64 {
        if text.is_empty() {
            return 0;
        }
        let (id, is_new) = self.strings.of(text.to_owned());
        if is_new {
            self.profile.string_table.push(text.to_owned());
        }
        id.cast_signed()
    }

    fn end(&mut self, end: Option<&Facts>) -> io::Result<()> {
        match end {
            Some(end) => {
                self.profile.duration_nanos = end.duration_ns.cast_signed();
                end_lines(end).iter().for_each(|line| self.comment(line.trim_start()));
            }
            None => self.comment(UNKNOWN),
        }
        let mut out = GzEncoder::new(&mut self.out, Compression::default());
        out.write_all(&self.profile.encode_to_vec())?;
        out.finish()?;
        Ok(())
    }
}

impl<W: Write> Sink for Pprof<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header),
            Item::Events(_) | Item::Rows(_) | Item::Facts(_) | Item::Tick(_) => {}
            Item::Totals(block) => self.totals(block)?,
            Item::End(end) => self.end(Some(end))?,
        }
        self.out.flush()
    }

    fn cut_off(&mut self) -> io::Result<()> {
        self.end(None)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
