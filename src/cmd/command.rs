//! `-- COMMAND`: starting it, and seeing it and the trace to their end.

use std::ffi::OsString;

use anyhow::Result;
use trapline_model::Source;
use trapline_probe::live::{Live, Tool};
use trapline_probe::{Launch, RunAs};

use crate::sink::Named;

/// The command, born and waiting, if there is one.
///
/// # Errors
/// When it cannot be started, or not as that user.
pub(crate) fn launch(command: &[OsString], run_as: Option<&RunAs>) -> Result<Option<Launch>> {
    match command {
        [] => Ok(None),
        command => Launch::prepare(command, run_as).map(Some),
    }
}

/// Everything from a source into a sink.
pub(crate) fn pour<S: Source>(source: &mut S, sink: &mut Named) -> Result<()>
where
    anyhow::Error: From<S::Error>,
{
    while let Some(item) = source.next()? {
        sink.take(&item)?;
    }
    Ok(())
}

/// The status, when all was poured or could not be. A command goes on without being traced then, and is waited for: who
/// started it wants to know when it has ended, and how.
///
/// # Errors
/// When the command cannot be waited for.
pub(crate) fn see_to_the_end<T: Tool>(source: Live<T>, poured: Result<()>) -> Result<u8> {
    match poured.map_err(|error| crate::report(&error)) {
        // A closed pipe is an end like another.
        Ok(()) | Err(0) => source.status(),
        Err(failed) => source.status().map(|_| failed),
    }
}
