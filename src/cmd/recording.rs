//! Recordings as the input of a command.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use trapline_model::faults::{Regroup, Regrouping};
use trapline_model::stage::rows;
use trapline_model::{Header, Item, Source};
use trapline_store::{FolderRecording, PerfData, Recording, is_perf_data};

use crate::cmd::run::Items;
use crate::sink;
use crate::status::Usage;

/// A recording that is being read.
pub(crate) struct Input {
    header: Header,
    items: Items<'static>,
    /// Why its faults cannot be grouped anew, if they cannot.
    ungroupable: Option<&'static str>,
}

impl Input {
    /// What was run, where and how.
    pub(crate) fn header(&self) -> &Header {
        &self.header
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
}

impl Source for Input {
    type Error = anyhow::Error;

    fn next(&mut self) -> Result<Option<Item>> {
        self.items.next()
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
pub(crate) fn grouped(source: Items<'_>, how: Regrouping, cumulative: bool) -> Result<Items<'_>> {
    match Regroup::new(source, how) {
        Ok(regrouped) => Ok(Box::new(rows(regrouped, cumulative))),
        Err(key) => Err(Usage::error(format!(
            "the recording has no {key} of each fault: group by something else, or leave out --by to print its rows"
        ))),
    }
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
    if read.is_ok_and(|read| read.is_dir()) {
        let folder = FolderRecording::open(path, name, tool)?;
        return Ok(Input {
            header: folder.header().clone(),
            items: Box::new(Read(folder)),
            ungroupable: None,
        });
    }
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
            let (header, ungroupable) = (faults.header().clone(), faults.ungroupable());
            return Ok(Input { header, items: Box::new(Read(faults)), ungroupable });
        }
        Box::new(file)
    };
    let lines = Recording::open(input, name, tool)?;
    Ok(Input { header: lines.header().clone(), items: Box::new(Read(lines)), ungroupable: None })
}
