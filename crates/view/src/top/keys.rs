//! The keys: as htop, top and perf top have them where they do the same.

use super::press::Press;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Quit,
    Help,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Enter,
    Back,
    /// The next pane, or the one before.
    Pane(bool),
    Overview,
    /// By the next column, or the one before.
    Sort(bool),
    Reverse,
    Filter,
    Cumulative,
    Pause,
    Refresh,
    /// A longer interval or a greater speed, or less of it.
    Faster(bool),
    Group,
    Split,
    Events,
    Measure,
    Write,
    /// Forward in time, or back.
    Leap(bool),
    Step(bool),
}

use Press::{
    BackTab, Backspace, Char, Down, End, Enter, Escape, Function, Home, Left, PageDown, PageUp, Right, Tab,
    Up,
};

/// When a key does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Where a recording is played.
    Played,
    /// Where none is.
    Live,
}

/// Each key, what it does and when; what the help says of it, with those that have nothing to say.
pub(super) const KEYS: &[(&[Press], Does, When, &str, &str)] = &[
    (&[Char('?'), Char('h'), Function(1)], Does::Help, When::Always, "? h F1", "this help"),
    (&[Char('q'), Char('Q'), Function(10)], Does::Quit, When::Always, "q F10", "quit"),
    (&[Tab], Does::Pane(false), When::Live, "Tab", "the next pane; Shift-Tab the one before"),
    (&[BackTab], Does::Pane(true), When::Live, "", ""),
    (&[Char('o')], Does::Overview, When::Live, "o", "overview of all tools"),
    (
        &[Up, Char('k')],
        Does::Up,
        When::Always,
        "Up Down",
        "choose a row; also k j, PgUp PgDn, Home End, the mouse",
    ),
    (&[Down, Char('j')], Does::Down, When::Always, "", ""),
    (&[PageUp], Does::PageUp, When::Always, "", ""),
    (&[PageDown], Does::PageDown, When::Always, "", ""),
    (&[Home, Char('g')], Does::First, When::Always, "", ""),
    (&[End, Char('G')], Does::Last, When::Always, "", ""),
    (
        &[Enter],
        Does::Enter,
        When::Always,
        "Enter",
        "go into the row: process, threads, files, causes, stacks",
    ),
    (&[Escape, Backspace], Does::Back, When::Always, "Esc", "go back up, or to the overview"),
    (&[Char('b'), Function(5)], Does::Group, When::Always, "1-9 b", "group the rows by something else"),
    (
        &[Char('>'), Char('s'), Function(6)],
        Does::Sort(false),
        When::Always,
        "< > s",
        "sort by the column before, or the next",
    ),
    (&[Char('<')], Does::Sort(true), When::Always, "", ""),
    (&[Char('I'), Char('R')], Does::Reverse, When::Always, "I", "invert the order"),
    (
        &[Char('/'), Char('\\'), Function(3), Function(4)],
        Does::Filter,
        When::Always,
        "/ F4",
        "show only rows with this text or regular expression",
    ),
    (&[Char('c')], Does::Cumulative, When::Live, "c", "figures since the start, or of each interval"),
    (&[Char(' '), Char('p')], Does::Pause, When::Always, "space", "pause, and go on: counting does not stop"),
    (&[Char('r'), Function(2)], Does::Refresh, When::Live, "r", "rows now, before the interval ends"),
    (&[Char('+'), Char('=')], Does::Faster(false), When::Live, "+ -", "a longer or shorter interval"),
    (&[Char('-'), Char('_')], Does::Faster(true), When::Live, "", ""),
    (&[Char('+'), Char('=')], Does::Faster(false), When::Played, "+ -", "play faster or slower"),
    (&[Char('-'), Char('_')], Does::Faster(true), When::Played, "", ""),
    (&[Right], Does::Leap(false), When::Played, "Left Right", "10 seconds back, or forward"),
    (&[Left], Does::Leap(true), When::Played, "", ""),
    (&[Char('.')], Does::Step(false), When::Played, ", .", "the interval before, or the next"),
    (&[Char(',')], Does::Step(true), When::Played, "", ""),
    (&[Char('S')], Does::Split, When::Always, "S", "what the time was spent on, as --split"),
    (&[Char('v')], Does::Events, When::Always, "v", "the events of the row as they happen"),
    (&[Char('B')], Does::Measure, When::Live, "B", "measure what the BPF programs cost, or no longer"),
    (&[Char('w')], Does::Write, When::Always, "w", "write what is on the screen to a recording"),
];

pub(super) fn is_now(when: When, played: bool) -> bool {
    match when {
        When::Always => true,
        When::Played => played,
        When::Live => !played,
    }
}

/// What a key does, if anything.
pub(super) fn does(press: Press, played: bool) -> Option<Does> {
    let is = |(presses, _, when, ..): &&(&[Press], Does, When, &str, &str)| {
        presses.contains(&press) && is_now(*when, played)
    };
    KEYS.iter().find(is).map(|(_, does, ..)| *does)
}

/// What the help has: keys, what they do, and that in words.
pub(super) fn help(played: bool) -> impl Iterator<Item = (&'static str, Does, &'static str)> {
    let said = KEYS.iter().filter(move |(.., when, name, _)| !name.is_empty() && is_now(*when, played));
    said.map(|(_, does, _, name, words)| (*name, *does, *words))
}

#[cfg(test)]
mod tests {
    use super::{KEYS, When, is_now};

    #[test]
    fn no_key_does_two_things() {
        for played in [false, true] {
            let mut seen = vec![];
            for (presses, _, when, ..) in KEYS.iter().filter(|(.., when, _, _)| is_now(*when, played)) {
                for press in *presses {
                    assert!(!seen.contains(press), "{press:?} ({when:?})");
                    seen.push(*press);
                }
            }
        }
        assert!(KEYS.iter().all(|(_, _, when, ..)| is_now(*when, *when == When::Played)));
    }
}
