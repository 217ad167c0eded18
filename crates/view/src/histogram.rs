//! A histogram as stars, as `log2` histograms are drawn everywhere.

use std::io::{self, Write};

use trapline_model::{Record, Unit, Value};

const STARS: usize = 40;

/// Draws each histogram of a record; nothing if it has none.
pub(crate) fn histogram(out: &mut impl Write, record: &Record) -> io::Result<()> {
    for (field, value) in record.iter() {
        let Value::Buckets(buckets) = value else { continue };
        let most = buckets.iter().map(|&(.., n)| n).max().unwrap_or(0).max(1);
        let unit = if field.unit == Unit::Nanoseconds { " (ns)" } else { "" };
        writeln!(out, "{:>25} : {:<10} distribution", format!("value{unit}"), "count")?;
        for &(low, high, n) in buckets {
            let high = high.map_or_else(|| "...".into(), |high| high.to_string());
            let stars = "*".repeat((n as u128 * STARS as u128 / u128::from(most)) as usize);
            writeln!(out, "{low:>11} -> {high:<10} : {n:<10} |{stars:<STARS$}|")?;
        }
    }
    Ok(())
}
