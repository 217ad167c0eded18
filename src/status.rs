//! What went wrong, as one line of text and an exit status.

use std::fmt;
use std::io::{self, Write};

use trapline_model::kvm::NoSuchExit;
use trapline_probe::{LaunchError, OpenError, name_errnos};
use trapline_view::visible;
use trapline_workload::Unfit;

/// Something failed.
const FAILED: u8 = 1;
/// The command line cannot be understood.
const USAGE: u8 = 2;
/// The machine or our privileges do not allow it.
pub(crate) const UNAVAILABLE: u8 = 3;

/// What is wrong with a command line, where that shows after it was read: options that do not go together, or have no
/// effect.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// As an error.
    pub(crate) fn error(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Refuses the first of these cases that holds: options that would have no effect.
///
/// # Errors
/// The text of that case, as a mistake on the command line.
pub(crate) fn refuse(cases: &[(bool, &str)]) -> anyhow::Result<()> {
    cases.iter().find(|(holds, _)| *holds).map_or(Ok(()), |(_, text)| Err(Usage::error(*text)))
}

/// Prints a line on standard error; text of others is escaped. Nothing is left to do if standard error is closed.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "trapline: {}", visible(&name_errnos(text)));
}

/// Prints in one line what went wrong, and gives the status for it.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if is_broken_pipe(error) {
        // The reader has had enough: that is no failure.
        return 0;
    }
    warn(&format!("{error:#}"));
    if let Some(launch) = error.downcast_ref::<LaunchError>() {
        return launch.status();
    }
    if error.is::<trapline_workload::Unavailable>() {
        return UNAVAILABLE;
    }
    if error.is::<NoSuchExit>() || error.is::<Usage>() || error.is::<Unfit>() {
        return USAGE;
    }
    match error.downcast_ref::<OpenError>() {
        Some(OpenError::Refused(_) | OpenError::Unavailable(_)) => UNAVAILABLE,
        Some(OpenError::NoSuchVariant { .. } | OpenError::Unfit { .. } | OpenError::Usage(_)) => USAGE,
        _ => FAILED,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
