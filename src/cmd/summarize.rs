//! The options that are about summaries of accesses.

use std::time::Duration;

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use trapline_model::Schema;
use trapline_model::access::EVENT;
use trapline_model::access::summary::{Options, View};

use crate::status::{Usage, refuse};
use crate::values;

/// Summaries of accesses.
#[derive(Debug, clap::Args)]
pub(crate) struct Summarize {
    /// Print these tables instead of single accesses: workingset (pages per window of time), mappings, pages
    /// (the most accessed), rw (reads and writes), sharing (pages written by several threads), reuse
    /// (distances), missratio [default: all]
    #[arg(long, value_name = "WHICH", num_args = 0..=1, value_delimiter = ',', default_missing_value = ALL,
          value_parser = views())]
    summary: Option<Vec<View>>,

    /// Set the window of the working set, or with `--format damo` the time of a snapshot [default: 100ms]
    #[arg(long, value_name = "TIME", value_parser = window)]
    window: Option<Duration>,
}

const ALL: &str = "workingset,mappings,pages,rw,sharing,reuse,missratio";

fn views() -> impl TypedValueParser<Value = View> {
    PossibleValuesParser::new(View::ALL.map(View::name)).try_map(|name| name.parse::<View>())
}

impl Summarize {
    /// What to summarize, if anything.
    pub(crate) fn options(&self, top: Option<u32>) -> Option<Options> {
        let mut views = self.summary.clone()?;
        views.sort_by_key(|view| View::ALL.iter().position(|v| v == view));
        views.dedup();
        let window_ns = self.window().as_nanos() as u64;
        Some(Options { views, window_ns, top: top.unwrap_or(20) as usize, ..Options::default() })
    }

    /// Whether tables are shown, and no accesses.
    pub(crate) fn is_summary(&self) -> bool {
        self.summary.is_some()
    }

    /// Refuses options that do not go together, or have no effect.
    ///
    /// # Errors
    /// Which, and what to do.
    pub(crate) fn check(&self, top: bool, sort: bool, damo: bool) -> Result<()> {
        let has = |views: &[View]| self.summary.iter().flatten().any(|view| views.contains(view));
        let (summary, window) = (self.is_summary(), self.window.is_some());
        let long = has(&[View::Mappings, View::Pages, View::ReadsWrites, View::Sharing]);
        refuse(&[
            (damo && summary, "--format damo prints accesses: leave out --summary"),
            (
                window && !summary && !damo,
                "--window needs --summary or --format damo: add one of them, or leave it out",
            ),
            (
                window && summary && !has(&[View::WorkingSet]),
                "--window needs the table workingset: add it to --summary, or leave out --window",
            ),
            (top && summary && !long, "--top limits tables that --summary leaves out: leave out --top"),
            (sort && summary, "each table of a summary has its own order: leave out --sort"),
        ])
    }

    /// Length of a window.
    pub(crate) fn window(&self) -> Duration {
        self.window.unwrap_or(WINDOW)
    }
}

/// The fields of the one table that a form without several has.
///
/// # Errors
/// When it is to hold several.
pub(crate) fn schema(options: Option<&Options>, one: bool) -> Result<&'static Schema> {
    match options.map(|options| options.views.as_slice()) {
        None => Ok(EVENT),
        Some([view]) => Ok(view.schema()),
        Some(_) if one => Err(Usage::error(
            "csv can print one table: use --summary pages or another one, or --format jsonl",
        )),
        Some(_) => Ok(EVENT),
    }
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
