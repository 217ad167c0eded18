//! Recordings as the input of a command.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use trapline_store::Recording;

use crate::sink;
use crate::status::Usage;

/// A recording that is being read.
pub(crate) type Input = Recording<Box<dyn BufRead>>;

/// Opens a recording: a file, or `-` for standard input. If a tool is named, it is of that one.
///
/// # Errors
/// When it cannot be read, is something else, or would be overwritten by the output.
pub(crate) fn open(path: &Path, output: Option<&Path>, tool: Option<&str>) -> Result<Input> {
    let stdin = path == Path::new("-");
    let read = if stdin { fs::metadata("/dev/stdin") } else { fs::metadata(path) };
    if let (Some(Ok(written)), Ok(read)) = (sink::file(output).map(fs::metadata), read)
        && read.is_file()
        && (read.dev(), read.ino()) == (written.dev(), written.ino())
    {
        return Err(Usage::error(format!(
            "{} would be overwritten while it is read: use another file",
            path.display()
        )));
    }
    let (input, name): (Box<dyn BufRead>, _) = if stdin {
        (Box::new(io::stdin().lock()), "standard input".to_owned())
    } else {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        (Box::new(BufReader::new(file)), name)
    };
    Ok(Recording::open(input, name, tool)?)
}
