//! The options of `trapline access` that are about summaries and recordings.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use trapline_model::Schema;
use trapline_model::access::summary::{Options, View};
use trapline_model::access::{self, EVENT, TOTAL};
use trapline_store::{Recording, Tool};

use crate::cli;

/// What can only be said of a trace that is made now.
const LIVE: [&str; 9] = [
    "symbols",
    "interval",
    "duration",
    "reset",
    "every",
    "no_first_touch",
    "max_overhead",
    "variant",
    "ring_size",
];

/// Summaries and recordings.
#[derive(Debug, clap::Args)]
pub(super) struct Summarize {
    /// Show no accesses, but these tables of them: workingset (pages in each window of time), mappings, pages (the
    /// most accessed), rw (reads and writes), sharing (pages written by several threads), reuse (distances),
    /// missratio [default: all]
    #[arg(long, value_name = "WHICH", num_args = 0..=1, value_delimiter = ',', default_missing_value = ALL,
          value_parser = views())]
    summary: Option<Vec<View>>,

    /// Length of a window of the working set, or with `--format damo` of a snapshot [default: 100ms]
    #[arg(long, value_name = "TIME", value_parser = window)]
    window: Option<Duration>,

    /// Rows of tables that have one for each process, mapping or page [default: 20]
    #[arg(long, value_name = "N", requires = "summary", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,

    /// Show the tables of a summary at each such time too
    #[arg(short, long, value_name = "TIME", requires = "summary", value_parser = cli::interval)]
    pub(super) interval: Option<Duration>,

    /// At intervals, tables are since the start
    #[arg(short, long, requires = "interval")]
    pub(super) cumulative: bool,

    /// A recording instead of processes: a file that `-o FILE.jsonl` wrote, or - for standard input
    #[arg(long, value_name = "FILE", group = "whose", conflicts_with_all = LIVE)]
    pub(super) read: Option<PathBuf>,
}

const ALL: &str = "workingset,mappings,pages,rw,sharing,reuse,missratio";

fn views() -> impl TypedValueParser<Value = View> {
    PossibleValuesParser::new(View::ALL.map(View::name)).try_map(|name| name.parse::<View>())
}

impl Summarize {
    /// What to summarize, if anything.
    pub(super) fn options(&self) -> Option<Options> {
        let mut views = self.summary.clone()?;
        views.sort_by_key(|view| View::ALL.iter().position(|v| v == view));
        views.dedup();
        Some(Options {
            views,
            window_ns: self.window().as_nanos() as u64,
            top: self.top.unwrap_or(20) as usize,
            intervals: self.interval.is_some(),
            cumulative: self.cumulative,
            ..Options::default()
        })
    }

    /// Whether tables are shown, and no accesses.
    pub(super) fn is_summary(&self) -> bool {
        self.summary.is_some()
    }

    /// Ends with a message if options do not go together.
    pub(super) fn check(&self, damo: bool) {
        let has = |views: &[View]| self.summary.iter().flatten().any(|view| views.contains(view));
        let (kind, why) = match (damo, self.summary.is_some(), self.window.is_some()) {
            (true, true, _) => {
                (ErrorKind::ArgumentConflict, "--format damo is of accesses, not of a --summary of them")
            }
            (false, false, true) => {
                (ErrorKind::MissingRequiredArgument, "--window is for --summary and --format damo")
            }
            (false, true, true) if !has(&[View::WorkingSet]) => (
                ErrorKind::ArgumentConflict,
                "--window is about the working set, which is not among the tables",
            ),
            (_, true, _)
                if self.top.is_some()
                    && !has(&[View::Mappings, View::Pages, View::ReadsWrites, View::Sharing]) =>
            {
                (ErrorKind::ArgumentConflict, "--top is about tables that are not among those of --summary")
            }
            _ => return,
        };
        cli::command().error(kind, why).exit()
    }

    /// Length of a window.
    pub(super) fn window(&self) -> Duration {
        self.window.unwrap_or(WINDOW)
    }

    /// When the source is to tell what time it is: without rows of its own, for windows to end in which nothing happens.
    pub(super) fn tick(&self) -> Option<Duration> {
        self.summary.as_ref()?;
        Some(self.interval.unwrap_or(self.window().max(Duration::from_millis(100))))
    }
}

/// The fields of the one table that a form without several has.
///
/// # Errors
/// When it is to hold several.
pub(super) fn schema(options: Option<&Options>, one: bool) -> Result<&'static Schema> {
    match options.map(|options| options.views.as_slice()) {
        None => Ok(EVENT),
        Some([view]) => Ok(view.schema()),
        Some(_) if one => Err(cli::Usage::error(
            "csv holds one table: choose one, as in --summary pages, or --format jsonl",
        )),
        Some(_) => Ok(&[]),
    }
}

/// Opens a recording of accesses.
///
/// # Errors
/// When it cannot be read, is something else, or would be overwritten by the output.
pub(super) fn open(path: &Path, output: Option<&Path>) -> Result<Recording<Box<dyn BufRead>>> {
    let stdin = path == Path::new("-");
    let read = if stdin { fs::metadata("/dev/stdin") } else { fs::metadata(path) };
    if let (Some(Ok(written)), Ok(read)) = (output.map(fs::metadata), read)
        && read.is_file()
        && (read.dev(), read.ino()) == (written.dev(), written.ino())
    {
        return Err(cli::Usage::error(format!(
            "{} would be overwritten while it is read: write to another file",
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
    let tool = Tool {
        name: "access",
        event: EVENT,
        total: TOTAL,
        check: access::check,
        is_counted: access::is_counted,
    };
    let recording = Recording::open(input, name, tool)?;
    if recording.header().settings.iter().any(|(name, _)| name == "summary") {
        bail!(
            "{} holds a summary, not accesses: record with `-o FILE.jsonl` and without --summary",
            path.display()
        );
    }
    Ok(recording)
}

/// A window, if nobody says how long.
const WINDOW: Duration = Duration::from_millis(100);
/// The shortest window.
const SHORTEST: Duration = Duration::from_millis(1);

fn window(text: &str) -> Result<Duration, String> {
    let time = cli::positive_duration(text)?;
    if time < SHORTEST { Err(format!("it must be at least {SHORTEST:?}")) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_all_of_them() {
        assert_eq!(ALL, View::ALL.map(View::name).join(","));
    }
}
