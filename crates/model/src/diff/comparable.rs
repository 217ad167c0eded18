//! Whether runs can be compared, and where they differ otherwise.

use std::collections::BTreeMap;

use super::Run;
use crate::field::{Record, Value};
use crate::item::lost;

/// Settings in which runs may differ that show the same.
const INDIFFERENT: [&str; 7] =
    ["memory_mb", "layout", "cumulative", "interval_ns", "kept_since_ns", "kept_ns", "kept_ranges"];

/// Where the runs differ, in words.
///
/// # Errors
/// Why they cannot be compared.
pub(super) fn check(before: &[Run], after: &[Run]) -> Result<Option<String>, String> {
    let mut all = before.iter().chain(after);
    let Some(first) = all.next() else { return Err("there is no recording to compare".into()) };
    for run in before.iter().chain(after) {
        alone(run)?;
    }
    for run in all {
        if run.header.tool != first.header.tool {
            return Err(format!(
                "{} is a recording of `{}` and {} of `{}`: compare recordings of one command",
                first.name, first.header.tool, run.name, run.header.tool
            ));
        }
        let tables =
            |run: &Run| run.totals.iter().map(|block| block.table.id()).collect::<Vec<_>>().join(", ");
        if tables(run) != tables(first) {
            return Err(format!(
                "{} has rows of {} and {} of {}: compare recordings with the same --by",
                first.name,
                tables(first),
                run.name,
                tables(run)
            ));
        }
    }
    let (before, after) = (words(before), words(after));
    let different: Vec<String> = before
        .iter()
        .filter_map(|(name, old)| {
            let new = after.get(name)?;
            (old != new || old.len() > 1).then(|| format!("{name} {} / {}", old.join(", "), new.join(", ")))
        })
        .collect();
    Ok((!different.is_empty()).then(|| different.join("; ")))
}

/// What one recording lacks.
fn alone(run: &Run) -> Result<(), String> {
    let name = &run.name;
    if run.header.tables.is_empty() && run.totals.iter().all(|block| block.rows.is_empty()) {
        return Err(format!("{name} has no totals to compare, only events: use --by, or record without -v"));
    }
    if run.end.sampled != 1 {
        let sampled = run.end.sampled;
        return Err(format!(
            "{name} is sampled (1 in {sampled} faults is timed), so its times are estimates: record it with \
             --minor-latency exact"
        ));
    }
    if run.end.duration_ns == 0 {
        return Err(format!("{name} has no duration, so nothing in it is per second"));
    }
    let hidden: usize = run.totals.iter().map(|block| block.hidden).sum();
    if hidden > 0 {
        return Err(format!("{name} lacks {hidden} rows, which --top left out: record it without --top"));
    }
    Ok(())
}

/// How runs were made: each word, and what it is in them.
fn words(runs: &[Run]) -> BTreeMap<&'static str, Vec<String>> {
    let mut words: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut add = |name, word: String| {
        let words = words.entry(name).or_default();
        if !words.contains(&word) {
            words.push(word);
            words.sort();
        }
    };
    for Run { header, .. } in runs {
        add("variant", header.variant.to_string());
        add("host", header.host.clone());
        add("kernel", header.kernel.clone());
        add("version", header.version.to_string());
        let settings = header.settings.iter().flat_map(Record::iter);
        for (field, value) in settings.filter(|(field, _)| !INDIFFERENT.contains(&field.name)) {
            let word = match value {
                Value::Str(text) => text.to_string(),
                Value::U64(n) => n.to_string(),
                Value::I64(n) => n.to_string(),
                Value::Bool(is) => is.to_string(),
                Value::Null | Value::Buckets(_) | Value::Hist(_) => "none".into(),
            };
            add(field.name, word);
        }
    }
    words
}

/// The losses of runs, added up; nothing if there are none.
pub(super) fn losses(runs: &[Run]) -> Option<String> {
    let mut losses: Vec<(&str, u64)> = Vec::new();
    for run in runs {
        for (n, field) in run.end.losses() {
            match losses.iter_mut().find(|(name, _)| *name == field.name) {
                Some((_, sum)) => *sum = sum.saturating_add(n),
                None => losses.push((field.name, n)),
            }
        }
    }
    let words: Vec<String> = losses.iter().map(|(name, n)| lost(*n, name)).collect();
    (!words.is_empty()).then(|| words.join(", "))
}
