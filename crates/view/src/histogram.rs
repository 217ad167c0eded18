//! A histogram as stars, as bcc's `print_log2_hist` draws it.

use trapline_model::{Record, Unit, Value};

/// Characters of the longest bar.
const BAR: usize = 40;

/// The lines of each histogram of a record. `what` is what its values are, if their unit does not say it.
pub(crate) fn histogram(record: &Record, what: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (field, value) in record.iter() {
        let Value::Buckets(buckets) = value else { continue };
        let part = field.name.strip_suffix("_buckets");
        if part.is_some() && buckets.is_empty() {
            continue;
        }
        let of_part = part.map(|part| format!("{part} (ns)"));
        let what = match of_part.as_deref().unwrap_or(what) {
            "" if field.unit == Unit::Nanoseconds => "value (ns)",
            "" => "value",
            what => what,
        };
        out.push(format!("     {what:<19} : count     distribution"));
        let most = buckets.iter().map(|&(.., n)| n).max().unwrap_or(0);
        let mut next = 0;
        for &(low, high, n) in buckets {
            // The empty ones before it.
            while next < low {
                let last = if next == 0 { 1 } else { next.saturating_mul(2) - 1 }.min(low - 1);
                out.push(bucket(next, Some(last), 0, most));
                next = last + 1;
            }
            out.push(bucket(low, high, n, most));
            next = high.map_or(u64::MAX, |high| high.saturating_add(1));
        }
    }
    out
}

fn bucket(low: u64, high: Option<u64>, n: u64, most: u64) -> String {
    let high = high.map_or_else(|| "...".into(), |high| high.to_string());
    let bar = (BAR as u128 * u128::from(n)).checked_div(most.into()).unwrap_or(0) as usize;
    format!("{low:>10} -> {high:<10} : {n:<8} |{:<BAR$}|", "*".repeat(bar))
}
