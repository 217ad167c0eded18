//! Recordings as the input of a command.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trapline_model::faults::{Chunk, Chunks, InColumns, Regroup, Regrouping};
use trapline_model::stage::rows;
use trapline_model::{AddedUp, Header, Item, Source};
use trapline_store::{FolderRecording, PerfData, Recording, has_end, is_perf_data};

use crate::cmd::run::Items;
use crate::sink;
use crate::status::Usage;

/// A longer last line of JSON lines is no end, bytes.
const LONGEST_END: u64 = 1 << 20;

/// A recording that is being read.
pub(crate) struct Input {
    name: String,
    header: Header,
    reader: Reader,
    /// Why its faults cannot be grouped anew, if they cannot.
    ungroupable: Option<&'static str>,
    is_cut_off: bool,
    /// Makes the totals that it lacks, if it can lack them.
    added_up: Option<AddedUp>,
    /// What comes last.
    ready: VecDeque<Result<Chunk>>,
}

enum Reader {
    Folder(Box<FolderRecording>),
    Items(InColumns<Items<'static>>),
}

impl Input {
    fn new(name: String, header: Header, reader: Reader) -> Self {
        let (ungroupable, added_up) = (None, None);
        Self { name, header, reader, ungroupable, is_cut_off: false, added_up, ready: VecDeque::new() }
    }

    /// It has no end, if that is known before all of it was read.
    fn cut_off(self, is_cut_off: Option<bool>) -> Self {
        let added_up = is_cut_off.unwrap_or(true).then(AddedUp::default);
        Self { is_cut_off: is_cut_off == Some(true), added_up, ..self }
    }

    /// Whether it has no end: it is being written, or what wrote it was killed.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// What the reader has next; before the end or an error, the totals that are missing.
    fn step(&mut self, next: fn(&mut Reader) -> Result<Option<Chunk>>) -> Result<Option<Chunk>> {
        if let Some(ready) = self.ready.pop_front() {
            return ready.map(Some);
        }
        let chunk = next(&mut self.reader);
        let Some(added_up) = &mut self.added_up else { return chunk };
        match chunk {
            Ok(Some(Chunk::Item(Item::End(_)))) | Err(_) => {
                self.ready.extend(added_up.totals().map(|totals| Ok(Chunk::Item(totals))));
                self.ready.extend(chunk.transpose());
                self.ready.pop_front().transpose()
            }
            Ok(Some(Chunk::Item(item))) => {
                added_up.take(&item);
                Ok(Some(Chunk::Item(item)))
            }
            other => other,
        }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What was run, where and how.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether it has the ends of intervals beside single faults.
    pub(crate) fn has_ticks(&self) -> bool {
        matches!(self.reader, Reader::Folder(_))
    }

    /// Refuses to group what is not known of each fault.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn check_groupable(&self) -> Result<()> {
        self.ungroupable.map_or(Ok(()), |why| {
            Err(Usage::error(format!(
                "the faults cannot be grouped: {why}; record with `perf record -d -c 1 -e major-faults,minor-faults`, or leave out --by and -i"
            )))
        })
    }

    /// Of faults, reads the columns of these names alone where the others need no time then.
    pub(crate) fn read_only(&mut self, columns: Vec<&'static str>) {
        if let Reader::Folder(folder) = &mut self.reader {
            folder.read_only(columns);
        }
    }
}

impl Source for Input {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        let next = |reader: &mut Reader| {
            let item = match reader {
                Reader::Folder(folder) => Source::next(&mut **folder)?,
                Reader::Items(items) => items.0.next()?,
            };
            Ok(item.map(Chunk::Item))
        };
        Ok(self.step(next)?.map(|chunk| match chunk {
            Chunk::Item(item) => item,
            Chunk::Faults(faults) => Item::Events(faults.events()),
        }))
    }
}

impl Chunks for Input {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Chunk>> {
        self.step(|reader| match reader {
            Reader::Folder(folder) => Ok(Chunks::next(&mut **folder)?),
            Reader::Items(items) => items.next(),
        })
    }
}

/// A source whose errors are those of a command.
struct Read<S>(S);

impl<S: Source> Source for Read<S>
where
    anyhow::Error: From<S::Error>,
{
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        Ok(self.0.next()?)
    }
}

/// The recorded faults, grouped anew.
///
/// # Errors
/// When they lack what they are to be grouped by.
pub(crate) fn grouped<'a>(
    source: impl Chunks<Error = anyhow::Error> + 'a,
    how: Regrouping,
) -> Result<Items<'a>> {
    let cumulative = how.cumulative;
    Ok(Box::new(rows(Regroup::new(source, how).map_err(no_key)?, cumulative)))
}

/// Why faults cannot be grouped so.
pub(crate) fn no_key(key: &str) -> anyhow::Error {
    Usage::error(format!(
        "the recording has no {key} of each fault: group by something else, or leave out --by to print its rows"
    ))
}

/// Opens a recording: a folder, a file, also one of perf, or `-` for standard input. If a tool is named, it is of that one.
///
/// # Errors
/// When it cannot be read, is something else, or would be overwritten by the output.
pub(crate) fn open(path: &Path, output: Option<&Path>, tool: Option<&str>) -> Result<Input> {
    let stdin = path == Path::new("-");
    let read = if stdin { fs::metadata("/dev/stdin") } else { fs::metadata(path) };
    if let (Some(Ok(written)), Ok(read)) = (sink::file(output).map(fs::metadata), &read)
        && (read.is_file() || read.is_dir())
        && (read.dev(), read.ino()) == (written.dev(), written.ino())
    {
        return Err(Usage::error(format!(
            "{} would be overwritten while it is read: use another file",
            path.display()
        )));
    }
    let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let of = name.clone();
    if read.is_ok_and(|read| read.is_dir()) {
        let folder = FolderRecording::open(path, name, tool)?;
        let header = folder.header().clone();
        let is_cut_off = folder.is_cut_off();
        return Ok(Input::new(of, header, Reader::Folder(Box::new(folder))).cut_off(Some(is_cut_off)));
    }
    let items = |header: &Header, items: Items<'static>| {
        Input::new(of.clone(), header.clone(), Reader::Items(InColumns(items)))
    };
    let mut is_cut_off = None;
    let input: Box<dyn BufRead> = if stdin {
        Box::new(io::stdin().lock())
    } else {
        let cannot = || format!("cannot read {name}");
        let mut file = BufReader::new(File::open(path).with_context(cannot)?);
        if is_perf_data(file.fill_buf().with_context(cannot)?) {
            let changed = file.get_ref().metadata().with_context(cannot)?;
            let changed_ns =
                changed.mtime().saturating_mul(1_000_000_000).saturating_add(changed.mtime_nsec());
            let faults = PerfData::open(file, name, tool, changed_ns)?;
            let ungroupable = faults.ungroupable();
            return Ok(Input { ungroupable, ..items(&faults.header().clone(), Box::new(Read(faults))) });
        }
        if file.fill_buf().with_context(cannot)?.starts_with(b"PAR1") {
            return Err(Usage::error(format!(
                "{name} is a table in Parquet, not a recording: those are folders of -o NAME.trapline"
            )));
        }
        is_cut_off = lacks_end(file.get_ref()).with_context(cannot)?;
        Box::new(file)
    };
    let lines = Recording::open(input, name, tool)?;
    Ok(items(&lines.header().clone(), Box::new(Read(lines))).cut_off(is_cut_off))
}

/// Whether JSON lines have no end, by the last of them; not known of a pipe.
fn lacks_end(file: &File) -> io::Result<Option<bool>> {
    let status = file.metadata()?;
    if !status.is_file() {
        return Ok(None);
    }
    let mut tail = vec![0; status.len().min(LONGEST_END) as usize];
    let from = status.len() - tail.len() as u64;
    let length = file.read_at(&mut tail, from)?;
    tail.truncate(length);
    Ok(Some(!has_end(&tail)))
}

/// Opens recordings, the one that began first in front. A folder of such folders is all that are in it.
///
/// # Errors
/// When one cannot be opened, or they are of different tools.
pub(crate) fn open_all(paths: &[PathBuf], output: Option<&Path>, tool: Option<&str>) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for path in paths {
        let within = recordings_in(path).with_context(|| format!("cannot read {}", path.display()))?;
        let of = if within.is_empty() { std::slice::from_ref(path) } else { within.as_slice() };
        for path in of {
            inputs.push(open(path, output, tool)?);
        }
    }
    let other = inputs.iter().find(|input| input.header.tool != inputs[0].header.tool);
    if let Some(other) = other {
        return Err(Usage::error(format!(
            "{} is a recording of `{}` and {} of `{}`: replay recordings of one tool together",
            inputs[0].name, inputs[0].header.tool, other.name, other.header.tool
        )));
    }
    inputs.sort_by_key(|input| input.header.start_unix_ns);
    Ok(inputs)
}

/// The recordings in a folder that is none itself, in the order of their names.
fn recordings_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    let is_recording = |path: &Path| path.join("header.json").is_file();
    if !path.is_dir() || is_recording(path) {
        return Ok(vec![]);
    }
    let mut within = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if is_recording(&path) {
            within.push(path);
        }
    }
    within.sort();
    Ok(within)
}
