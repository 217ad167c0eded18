//! Figures in sentences.

/// A time in the unit that fits: `1.2 s`, `340 ms`, `12 us`.
pub(super) fn time(ns: u64) -> String {
    match ns {
        10_000_000_000.. => format!("{} s", ns / 1_000_000_000),
        1_000_000_000.. => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
        10_000_000.. => format!("{} ms", ns / 1_000_000),
        1_000_000.. => format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10),
        10_000.. => format!("{} us", ns / 1000),
        _ => format!("{}.{} us", ns / 1000, ns / 100 % 10),
    }
}

/// A number with its thousands apart: `1,234`.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something: `1 major fault`, `1,234 major faults`.
pub(super) fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// A size in the unit that fits: `12 KiB`, `3.4 GiB`.
pub(super) fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0x4000_0000.. => (1 << 30, "GiB"),
        0x10_0000.. => (1 << 20, "MiB"),
        _ => (1 << 10, "KiB"),
    };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

/// A share: `37 %`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let share = u128::from(part) * 100;
    format!("{} %", share.checked_div(whole.into()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [999, 12_345, 1_234_567, 340_000_000, 1_250_000_000].map(time),
            ["0.9 us", "12 us", "1.2 ms", "340 ms", "1.2 s"]
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 1000].map(|n| counted(n, "fault")), ["0 faults", "1 fault", "1,000 faults"]);
        assert_eq!([4096, 3 << 19, 7 << 29].map(size), ["4.0 KiB", "1.5 MiB", "3.5 GiB"]);
        assert_eq!(
            [(1, 3), (3, 3), (1, 0)].map(|(part, whole)| percent(part, whole)),
            ["33 %", "100 %", "0 %"]
        );
    }
}
