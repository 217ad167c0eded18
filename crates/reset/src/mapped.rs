//! What a process has mapped, or why that cannot be seen, in words for the user.

use std::io::{self, ErrorKind};

use anyhow::{Error, Result, anyhow, bail};
use nix::errno::Errno;
use trapline_symbols::maps::Maps;

/// What a process has mapped, which is something.
///
/// # Errors
/// Why that cannot be seen, in words for the user.
pub fn mapped(pid: u32) -> Result<Maps> {
    let maps = Maps::read(pid).map_err(|error| unreadable(pid, error))?;
    if maps.is_empty() {
        bail!(
            "process {pid} has no memory: it is a kernel thread, has just ended, or its first thread has ended"
        );
    }
    Ok(maps)
}

/// Why the mappings of a process cannot be read.
pub fn unreadable(pid: u32, error: io::Error) -> Error {
    let name = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    match error.kind() {
        ErrorKind::PermissionDenied => {
            let context = format!(
                "cannot read the mappings of process {pid}: {name:?}; it has privileges that trapline lacks"
            );
            Error::new(error).context(context)
        }
        ErrorKind::NotFound => anyhow!("there is no process {pid}"),
        _ if name == Errno::ESRCH => anyhow!("process {pid} has ended"),
        _ => Error::new(error).context(format!("cannot read the mappings of process {pid}")),
    }
}
