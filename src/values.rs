//! The values of options: times and sizes.

use std::time::Duration;

/// A time: a bare number is milliseconds, units are accepted (`500ms`, `2s`, `1m`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        let is_time = text.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let why = if is_time { "is less than 0" } else { "is no time; try 500ms, 2s or 1m" };
        return Err(format!("`{text}` {why}"));
    }
    if let Ok(ms) = text.parse::<f64>() {
        let time = Duration::try_from_secs_f64(ms / 1e3);
        return time.map_err(|_| format!("`{text}` is not a valid duration"));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; try 500ms, 2s or 1m"))
}

pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than 0".into()),
        time => Ok(time),
    }
}

/// The shortest interval: reading all threads takes a fair part of it on a large machine.
const SHORTEST: Duration = Duration::from_millis(10);

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let time = positive_duration(text)?;
    if time < SHORTEST { Err(format!("it must be at least {SHORTEST:?}")) } else { Ok(time) }
}

/// An interval whose bare number is seconds, as the users of `sgx` know it.
pub(crate) fn interval_in_seconds(text: &str) -> Result<Duration, String> {
    let bare = text.parse::<f64>().is_ok();
    interval(&if bare { format!("{text}s") } else { text.to_owned() })
}

/// A size of memory: a bare number is MiB, units are accepted (`512K`, `64M`, `1G`).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[number.len()..] {
        "K" | "k" | "KiB" => 10,
        "" | "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        _ => return Err(format!("`{text}` has no unit that is known; try 512K, 64M or 1G")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size; try 512K, 64M or 1G"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1_048_576..=0x100_0000_0000) => Ok(bytes),
        _ => Err("it must be from 1M to 1024G".into()),
    }
}

/// A program's name, as the kernel keeps it: without a path.
pub(crate) fn program(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the name is empty".into()),
        path if path.contains('/') => Err("give the name of a program without a path".into()),
        name => Ok(name.to_owned()),
    }
}

/// The size of a ring buffer, MiB.
pub(crate) fn ring_mib(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(mib @ 1..=1024) if mib.is_power_of_two() => Ok(mib),
        _ => Err("give a power of two from 1 to 1024".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_milliseconds() {
        assert_eq!(duration("1500"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0.5"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert!(duration("-1").is_err());
        assert!(duration("nan").is_err());
        assert!(duration("soon").is_err());
        assert!(interval("0").is_err());
        assert!(interval("1").is_err());
        assert!(interval("0s").is_err());
        assert_eq!(interval_in_seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval_in_seconds("500ms"), Ok(Duration::from_millis(500)));
        assert!(interval_in_seconds("0").is_err() && interval_in_seconds("-1").is_err());
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
