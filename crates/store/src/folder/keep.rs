//! Which writes of a recording stay: the last ones, and those around messages.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::manifest::{self, Part};

/// The names of a stack that is in use come again after a minute, and are written within this time.
const NAMES_KEPT: Duration = Duration::from_secs(120);

/// The writes of one message: the one before, its own, and the one after. Those of the last message that left the window stay, however
/// large they are.
const MOMENT: usize = 3;

/// Which parts stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kept {
    /// All.
    #[default]
    All,
    /// Those of the last time.
    Time(Duration),
    /// The last that take this many bytes together.
    Bytes(u64),
}

impl Kept {
    /// Whether writes are more than that.
    fn is_exceeded<'a>(self, writes: impl Iterator<Item = &'a Written>) -> bool {
        match self {
            Self::All => false,
            Self::Time(most) => writes.map(|write| write.took).sum::<Duration>() > most,
            Self::Bytes(most) => writes.map(|write| write.bytes).sum::<u64>() > most,
        }
    }
}

/// A write: its parts, and when it was.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) number: u64,
    pub(super) at: Instant,
    /// The time since the first of it was taken.
    pub(super) took: Duration,
    pub(super) bytes: u64,
    pub(super) parts: Vec<Part>,
    /// The number of messages meanwhile.
    pub(super) messages: u64,
}

/// What is in the folder.
#[derive(Debug, Default)]
pub(super) struct Keep {
    kept: Kept,
    /// The last writes.
    writes: VecDeque<Written>,
    /// Older ones, around messages: together no more than the last ones may be.
    moments: VecDeque<Written>,
    /// The last write that left the window had a message.
    follows_message: bool,
    /// The names of stacks in writes that are not kept, and when they were written: faults that are kept may have them.
    frames: VecDeque<(Instant, Part)>,
    /// The number of messages of which the write was discarded.
    pub(super) unkept: u64,
}

impl Keep {
    pub(super) fn new(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// The oldest of the last writes.
    pub(super) fn first(&self) -> Option<u64> {
        self.writes.front().map(|write| write.number)
    }

    /// The older ones that are kept.
    pub(super) fn moments(&self) -> Vec<u64> {
        self.moments.iter().map(|write| write.number).collect()
    }

    /// The names of stacks beside those.
    pub(super) fn frames(&self) -> Vec<Part> {
        self.frames.iter().map(|(_, part)| part.clone()).collect()
    }

    /// Adds a write, and gives the names of the files that are not kept any more.
    pub(super) fn add(&mut self, written: Written) -> Vec<String> {
        self.writes.push_back(written);
        let mut dropped = Vec::new();
        while let Some(old) = self.too_old() {
            let is_next = self.writes.front().is_some_and(|next| next.messages > 0);
            let follows = std::mem::replace(&mut self.follows_message, old.messages > 0);
            if follows || old.messages > 0 || is_next {
                self.moments.push_back(old);
            } else {
                dropped.push(old);
            }
        }
        while self.moments.len() > MOMENT && self.kept.is_exceeded(self.moments.iter()) {
            let Some(old) = self.moments.pop_front() else { break };
            self.unkept += old.messages;
            dropped.push(old);
        }
        let mut names = Vec::new();
        for Written { number, at, parts, .. } in dropped {
            names.push(manifest::name(number));
            let (frames, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(Part::is_of_frames);
            self.frames.extend(frames.into_iter().map(|part| (at, part)));
            names.extend(others.into_iter().map(|part| part.name));
        }
        let oldest = self.writes.front().map(|write| write.at);
        let moments = &self.moments;
        // Those that are in use were written again since then.
        let is_used = |at: Instant| {
            oldest.is_none_or(|oldest| at + NAMES_KEPT >= oldest)
                || moments.iter().any(|write| at.max(write.at) - at.min(write.at) <= NAMES_KEPT)
        };
        self.frames.retain(|(at, part)| {
            let is_used = is_used(*at);
            if !is_used {
                names.push(part.name.clone());
            }
            is_used
        });
        names
    }

    /// The next write that is not one of the last. The newest is.
    fn too_old(&mut self) -> Option<Written> {
        let next = self.writes.get(1)?;
        let is_too_old = match self.kept {
            // What a part holds began a part's time before it was written.
            Kept::Time(time) => next.at.elapsed() > time,
            Kept::All | Kept::Bytes(_) => self.kept.is_exceeded(self.writes.iter()),
        };
        if is_too_old { self.writes.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes of a byte each, of which these have this many messages; gives which are left, and the messages that are not.
    fn left(kept: Kept, count: u64, messages: impl Fn(u64) -> u64) -> (Vec<u64>, Vec<u64>, u64) {
        let mut keep = Keep::new(kept);
        let began = Instant::now();
        for number in 1..=count {
            let at = began.checked_sub(Duration::from_secs(5 * (count - number))).unwrap();
            let took = Duration::from_secs(5);
            let parts = vec![Part::new(format!("events-x-{number:06}.parquet"), b"x")];
            let gone = keep.add(Written { number, at, took, bytes: 1, parts, messages: messages(number) });
            assert!(gone.iter().all(|name| !name.contains(&format!("{number:06}"))), "{gone:?}");
        }
        (keep.moments(), keep.writes.iter().map(|write| write.number).collect(), keep.unkept)
    }

    #[test]
    fn what_is_around_a_message_is_kept() {
        for kept in [Kept::Bytes(3), Kept::Time(Duration::from_secs(7))] {
            assert_eq!(left(kept, 20, |_| 0), (vec![], vec![18, 19, 20], 0));
            assert_eq!(left(kept, 20, |n| u64::from(n == 9)), (vec![8, 9, 10], vec![18, 19, 20], 0));
            // The window still has the message's own write.
            assert_eq!(left(kept, 20, |n| u64::from(n == 18)), (vec![17], vec![18, 19, 20], 0));
        }
        assert_eq!(left(Kept::All, 3, |_| 1), (vec![], vec![1, 2, 3], 0));
    }

    /// A storm of messages takes as much again as the window, and the messages whose faults are gone are counted.
    #[test]
    fn messages_do_not_fill_the_disk() {
        assert_eq!(left(Kept::Bytes(5), 100, |_| 7), ((91..=95).collect(), (96..=100).collect(), 90 * 7));
        let seconds = Kept::Time(Duration::from_secs(22));
        assert_eq!(left(seconds, 100, |_| 7), ((91..=94).collect(), (95..=100).collect(), 90 * 7));
        // What is around the last message stays, though the writes are larger than what is kept.
        assert_eq!(left(Kept::Bytes(0), 100, |n| u64::from(n == 50)), (vec![49, 50, 51], vec![100], 0));
        let two = left(Kept::Bytes(0), 100, |n| u64::from(n == 50 || n == 60));
        assert_eq!(two, (vec![59, 60, 61], vec![100], 1));
    }
}
