//! Figures as characters: a line of columns, a bar, a bar in parts.

/// The characters of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink {
    /// Empty, and eight heights.
    columns: [char; 9],
    full: char,
}

const BLOCKS: Ink =
    Ink { columns: [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'], full: '█' };
const ASCII: Ink = Ink { columns: [' ', '.', ':', '-', '=', '+', '*', '#', '@'], full: '#' };

impl Ink {
    pub(super) fn new(ascii: bool) -> Self {
        if ascii { ASCII } else { BLOCKS }
    }

    /// A column per figure, the last on the right; what is not 0 can be seen.
    pub(super) fn spark(self, figures: &[u64], width: usize) -> String {
        let figures = &figures[figures.len().saturating_sub(width)..];
        let most = figures.iter().copied().max().unwrap_or(0).max(1);
        let height = |n: u64| (u128::from(n) * 8).div_ceil(most.into()) as usize;
        let columns = figures.iter().map(|n| self.columns[height(*n).min(8)]);
        std::iter::repeat_n(' ', width - figures.len()).chain(columns).collect()
    }

    /// A bar of a share of the width; what is not 0 can be seen.
    pub(super) fn bar(self, n: u64, most: u64, width: usize) -> String {
        let length = (u128::from(n) * width as u128).div_ceil(most.max(1).into()) as usize;
        std::iter::repeat_n(self.full, length.min(width)).collect()
    }
}

/// How many characters each part of a whole gets in a bar: all of them together are the bar, if there is anything.
pub(super) fn shares(parts: &[u64], width: usize) -> Vec<usize> {
    let all: u128 = parts.iter().copied().map(u128::from).sum();
    let mut below = 0_u128;
    let mut end = 0;
    let ends = parts.iter().map(|&part| {
        below += u128::from(part);
        let next = (below * width as u128).checked_div(all).unwrap_or(0) as usize;
        let own = next - end;
        end = next;
        own
    });
    ends.collect()
}

/// A number in at most six characters.
pub(super) fn short(n: u64) -> String {
    let scaled = |unit: f64, name: &str| {
        let n = n as f64 / unit;
        if n < 99.95 { format!("{n:.1}{name}") } else { format!("{n:.0}{name}") }
    };
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => scaled(1e3, "k"),
        1_000_000..1_000_000_000 => scaled(1e6, "M"),
        1_000_000_000..1_000_000_000_000 => scaled(1e9, "G"),
        _ => scaled(1e12, "T"),
    }
}

/// A time with its unit.
pub(super) fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ink, shares, short, time};

    #[test]
    fn figures_have_their_heights() {
        assert_eq!(Ink::new(false).spark(&[0, 1, 50, 100], 6), "   ▁▄█");
        assert_eq!(Ink::new(true).spark(&[9, 0, 1, 50, 100], 4), " .=@");
        assert_eq!(Ink::new(true).spark(&[], 0), "");
        assert_eq!(Ink::new(true).bar(1, 1000, 10), "#");
        assert_eq!(Ink::new(true).bar(u64::MAX, u64::MAX, 3), "###");
    }

    #[test]
    fn parts_fill_the_bar() {
        assert_eq!(shares(&[1, 1, 2], 8), [2, 2, 4]);
        assert_eq!(shares(&[1, 1, 1], 10).iter().sum::<usize>(), 10);
        assert_eq!(shares(&[0, 0], 10), [0, 0]);
        assert_eq!(shares(&[u64::MAX, u64::MAX], 3), [1, 2]);
    }

    #[test]
    fn numbers_are_short() {
        let all = [0, 9999, 10_000, 123_456, 999_999, 5_000_000_000, u64::MAX].map(short);
        assert_eq!(all, ["0", "9999", "10.0k", "123k", "1000k", "5.0G", "18446744T"]);
        assert_eq!(
            [999, 1500, 20_000_000, 3_000_000_000].map(time),
            ["999 ns", "1.5 us", "20.0 ms", "3.00 s"]
        );
    }
}
