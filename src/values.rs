//! The values of options: times and sizes.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use trapline_model::Header;
use trapline_model::faults::{StallRule, StepOf};
use trapline_store::Kept;

/// A moment of a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Moment {
    /// Since the start of the recording, the first one of several.
    Since(Duration),
    /// A time and its zone.
    At(Timestamp),
    /// A date and time here.
    Here(DateTime),
    /// A time of day here: the first after the start, or just before it.
    OfDay(Time),
}

impl Moment {
    /// By the monotonic clock of a recording.
    ///
    /// # Errors
    /// When there is no such time here: clocks were put forward.
    pub(crate) fn of(self, header: &Header) -> Result<u64, String> {
        let start = Timestamp::from_nanosecond(header.start_unix_ns.into()).unwrap_or_default();
        let here = |time: DateTime| {
            let zoned = TimeZone::system().to_zoned(time);
            zoned.map(|zoned| zoned.timestamp()).map_err(|error| error.to_string())
        };
        let at = match self {
            Self::Since(time) => return Ok(header.start_ns.saturating_add(time.as_nanos() as u64)),
            Self::At(at) => at,
            Self::Here(time) => here(time)?,
            Self::OfDay(time) => {
                let day = start.to_zoned(TimeZone::system()).date();
                let on_that_day = here(day.to_datetime(time))?;
                let is_before = start.as_second() - on_that_day.as_second() > DAY / 2;
                let next = day.tomorrow().map_err(|error| error.to_string());
                if is_before { here(next?.to_datetime(time))? } else { on_that_day }
            }
        };
        let since = at.as_nanosecond() - i128::from(header.start_unix_ns);
        let ns = i128::from(header.start_ns) + since;
        Ok(u64::try_from(ns.max(0)).unwrap_or(u64::MAX))
    }
}

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A moment: `500ms` since the start, `2026-11-30T12:00:00Z`, `2026-11-30 12:00` here, or `12:00:05`.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if !text.contains(':') {
        let words = "; or a time of day like 12:00:05 or 2026-11-30T12:00:05Z";
        return duration(text).map(Moment::Since).map_err(|error| format!("{error}{words}"));
    }
    let at = text.parse().map(Moment::At);
    let here = at.or_else(|_| text.parse().map(Moment::Here));
    here.or_else(|_| text.parse().map(Moment::OfDay)).map_err(|_| {
        format!("`{text}` is not a time; try 12:00:05, 2026-11-30T12:00:05 or 2026-11-30T12:00:05Z")
    })
}

/// A time with its unit: `500ms`, `2s`, `1.5s`, `1m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        let is_time = text.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let why = if is_time { "is less than 0" } else { "is not a time; try 500ms, 2s or 1m" };
        return Err(format!("`{text}` {why}"));
    }
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Duration::ZERO),
        Ok(number) if number.is_finite() => Err(format!("`{text}` has no unit: {text}s or {text}ms?")),
        _ => humantime::parse_duration(text).map_err(|error| format!("{error}; try 500ms, 2s or 1m")),
    }
}

/// A time whose bare number is of this unit, as the users of an option know it.
fn duration_in(unit: Duration, text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 => {
            let time = Duration::try_from_secs_f64(number * unit.as_secs_f64());
            time.map_err(|_| format!("`{text}` is not a valid duration"))
        }
        _ => duration(text),
    }
}

/// A time whose bare number is milliseconds.
pub(crate) fn duration_in_ms(text: &str) -> Result<Duration, String> {
    duration_in(MILLISECOND, text)
}

pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    positive(duration(text)?)
}

/// What a message of stalls is about: another `100ms` in faults, or `100ms` asleep in them within a second (`100ms/1s`).
pub(crate) fn stall(text: &str) -> Result<StepOf, String> {
    let ns = |text| positive_duration(text).map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    match text.split_once('/') {
        None => ns(text).map(StepOf::Stall),
        Some((time, window)) => Ok(StepOf::Within(StallRule::new(ns(time)?, ns(window)?)?)),
    }
}

fn positive(time: Duration) -> Result<Duration, String> {
    if time.is_zero() { Err("it must be more than 0".into()) } else { Ok(time) }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The shortest interval: reading all threads takes a fair part of it on a large machine.
const SHORTEST: Duration = Duration::from_millis(10);

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    interval_of(duration(text)?)
}

/// An interval whose bare number is milliseconds, as the users of `faults` know it.
pub(crate) fn interval_in_ms(text: &str) -> Result<Duration, String> {
    interval_of(duration_in(MILLISECOND, text)?)
}

/// An interval whose bare number is seconds, as the users of `sgx` know it.
pub(crate) fn interval_in_seconds(text: &str) -> Result<Duration, String> {
    interval_of(duration_in(SECOND, text)?)
}

fn interval_of(time: Duration) -> Result<Duration, String> {
    let time = positive(time)?;
    if time < SHORTEST { Err(format!("it must be at least {SHORTEST:?}")) } else { Ok(time) }
}

/// A size of memory: a bare number is MiB, units are accepted (`512K`, `64M`, `1G`).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[number.len()..] {
        "K" | "k" | "KiB" => 10,
        "" | "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        _ => return Err(format!("`{text}` has an unknown unit; try 512K, 64M or 1G")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a size; try 512K, 64M or 1G"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1_048_576..=0x100_0000_0000) => Ok(bytes),
        _ => Err("it must be from 1M to 1024G".into()),
    }
}

/// What a recording keeps: the last of a time (`10m`), or of a size (`2G`). Units of sizes are upper case.
pub(crate) fn kept(text: &str) -> Result<Kept, String> {
    if text.contains(|c: char| c.is_ascii_uppercase()) {
        return size(text).map(Kept::Bytes);
    }
    let time = positive_duration(text).map_err(|error| format!("{error}; for a size, 64M or 2G"))?;
    if time < SECOND { Err("it must be at least 1s".into()) } else { Ok(Kept::Time(time)) }
}

/// A program's name, as the kernel keeps it: without a path.
pub(crate) fn program(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the name is empty".into()),
        path if path.contains('/') => Err("use the name of the executable without its path".into()),
        name => Ok(name.to_owned()),
    }
}

/// A unit of systemd: a name without a suffix is a service.
pub(crate) fn unit(text: &str) -> Result<String, String> {
    const SUFFIXES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];
    if text.is_empty() || text.contains('/') {
        return Err("give the name of a unit, as in postgresql or user@1000.service".into());
    }
    let has_suffix = SUFFIXES.iter().any(|suffix| text.ends_with(suffix));
    Ok(format!("{text}{}", if has_suffix { "" } else { ".service" }))
}

/// The size of a ring buffer, MiB.
pub(crate) fn ring_mib(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(mib @ 1..=1024) if mib.is_power_of_two() => Ok(mib),
        _ => Err("use a power of two from 1 to 1024".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_unit_and_the_error_offers_both() {
        let error = |text: &str| duration(text).unwrap_err();
        assert_eq!(error("10"), "`10` has no unit: 10s or 10ms?");
        assert_eq!(error("0.5"), "`0.5` has no unit: 0.5s or 0.5ms?");
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(positive_duration("0").unwrap_err(), "it must be more than 0");
        assert!(["-1", "-1s", "nan", "inf", "soon", ""].iter().all(|text| duration(text).is_err()));
        assert!(interval("5").is_err() && interval("1ms").is_err() && interval("0s").is_err());
    }

    #[test]
    fn a_bare_number_is_what_the_users_of_an_option_know() {
        assert_eq!(duration_in_ms("0.5"), Ok(Duration::from_micros(500)));
        assert_eq!(duration_in_ms("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(interval_in_ms("1500"), Ok(Duration::from_millis(1500)));
        assert!(interval_in_ms("0").is_err() && interval_in_ms("1").is_err());
        assert_eq!(interval_in_seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval_in_seconds("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e300"] {
            assert!(interval_in_seconds(wrong).is_err() && interval_in_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_recording_keeps() {
        assert_eq!(kept("10m"), Ok(Kept::Time(Duration::from_secs(600))));
        assert_eq!(kept("2G"), Ok(Kept::Bytes(2 << 30)));
        assert_eq!(kept("64M"), Ok(Kept::Bytes(64 << 20)));
        for wrong in ["", "0", "5", "10ms", "1K", "x"] {
            assert!(kept(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_of_memory() {
        assert_eq!(size("64"), Ok(64 << 20));
        assert_eq!(size("2048K"), Ok(2 << 20));
        assert_eq!(size("1G"), Ok(1 << 30));
        for wrong in ["", "M", "0", "1K", "-1", "5X", "1.5G", "99999999999G", "2000G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
