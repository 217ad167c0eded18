//! The options of `trapline access` that are about summaries and recordings.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use trapline_model::Schema;
use trapline_model::access::summary::{Options, View};
use trapline_model::access::{self, EVENT, TOTAL};
use trapline_store::{Recording, Tool};

use crate::args::Live;
use crate::status::{Usage, refuse};
use crate::values;

/// What can only be said of a trace that is made now.
const LIVE: [&str; 10] = [
    "symbols",
    "interval",
    "duration",
    "reset",
    "every",
    "no_first_touch",
    "max_overhead",
    "variant",
    "ring_size",
    "sort",
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

    /// A recording instead of processes: a file that `-o FILE.jsonl` wrote, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = LIVE)]
    pub(super) read: Option<PathBuf>,
}

const ALL: &str = "workingset,mappings,pages,rw,sharing,reuse,missratio";

fn views() -> impl TypedValueParser<Value = View> {
    PossibleValuesParser::new(View::ALL.map(View::name)).try_map(|name| name.parse::<View>())
}

impl Summarize {
    /// What to summarize, if anything.
    pub(super) fn options(&self, live: &Live) -> Option<Options> {
        let mut views = self.summary.clone()?;
        views.sort_by_key(|view| View::ALL.iter().position(|v| v == view));
        views.dedup();
        Some(Options {
            views,
            window_ns: self.window().as_nanos() as u64,
            top: live.top.unwrap_or(20) as usize,
            intervals: live.interval.is_some(),
            cumulative: live.cumulative,
            ..Options::default()
        })
    }

    /// Whether tables are shown, and no accesses.
    pub(super) fn is_summary(&self) -> bool {
        self.summary.is_some()
    }

    /// Refuses options that do not go together, or have no effect.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(super) fn check(&self, live: &Live, damo: bool) -> Result<()> {
        let has = |views: &[View]| self.summary.iter().flatten().any(|view| views.contains(view));
        let (summary, window) = (self.is_summary(), self.window.is_some());
        let long = has(&[View::Mappings, View::Pages, View::ReadsWrites, View::Sharing]);
        refuse(&[
            (damo && summary, "--format damo is of accesses, not of a --summary of them"),
            (window && !summary && !damo, "--window is for --summary and --format damo"),
            (
                window && summary && !has(&[View::WorkingSet]),
                "--window is about the working set, which is not among the tables",
            ),
            (
                live.top.is_some() && !summary,
                "--top is about the tables of --summary: add that, or leave it out",
            ),
            (live.top.is_some() && !long, "--top is about tables that are not among those of --summary"),
            (
                live.interval.is_some() && !summary,
                "accesses are shown as they happen: add --summary, or leave out -i",
            ),
            (
                live.cumulative && live.interval.is_none(),
                "-c is about rows at intervals, and there are none: give -i TIME, too",
            ),
            (
                live.sort.is_some() && summary,
                "each table of a summary has an order of its own: leave out --sort",
            ),
        ])
    }

    /// Length of a window.
    pub(super) fn window(&self) -> Duration {
        self.window.unwrap_or(WINDOW)
    }

    /// When the source is to tell what time it is: without rows of its own, for windows to end in which nothing happens.
    pub(super) fn tick(&self, live: &Live) -> Option<Duration> {
        self.summary.as_ref()?;
        Some(live.interval.unwrap_or(self.window().max(Duration::from_millis(100))))
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
        Some(_) if one => {
            Err(Usage::error("csv holds one table: choose one, as in --summary pages, or --format jsonl"))
        }
        Some(_) => Ok(EVENT),
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
        return Err(Usage::error(format!(
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
        settings: access::SETTINGS_OF,
        facts: access::FACTS_OF,
        event: EVENT,
        total: TOTAL,
        check: access::check,
        is_counted: access::is_counted,
    };
    let recording = Recording::open(input, name, tool)?;
    if recording.header().setting("summary").is_some() {
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
    let time = values::positive_duration(text)?;
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
