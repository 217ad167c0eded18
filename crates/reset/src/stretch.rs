//! What is taken under control in one call: mappings that lie next to each other, and the room around them.
//!
//! A userfaultfd that gets a part of a mapping divides it, and a program that then moves or resizes what it takes for
//! one mapping gets EFAULT (mremap(2)). Between our look at the mappings and the call they change, and of one that is
//! divided by mprotect only for a moment we would get a part. So a stretch ends where something begins that is not
//! to be watched at all, and not where a mapping ends: the kernel passes over holes. Where that has changed too, and
//! something is divided now, it is made one again.

use std::collections::BTreeSet;

use trapline_symbols::maps::{Mapping, Maps};

use super::engine::Engine;
use super::own::Ours;
use super::uffd::Mode;

/// A range that is under control. There may be holes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) mode: Mode,
}

/// Mappings that join, or one that does not. Not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch<'a> {
    start: u64,
    end: u64,
    mappings: &'a [&'a Mapping],
}

/// Takes under control what can be of a process whose mappings were these a moment ago, or are now.
pub(crate) fn take(uffd: &Ours, pid: u32, engine: Engine, maps: &Maps) -> Vec<Taken> {
    let taken = take_those(uffd, engine, maps, |_| true);
    let mut lately = taken.clone();
    let mut newest: Option<Maps> = None;
    for _ in 0..2 {
        let before = newest.as_ref().unwrap_or(maps);
        let now = Maps::read(pid).unwrap_or_default();
        // What has come meanwhile where there was room, and is not to be watched, is let go.
        let is_new = |m: &&Mapping| before.find(m.start).is_none() && !m.is_private_memory();
        for mapping in now.iter().filter(is_new).filter(|m| engine.modes(m).is_empty()) {
            let at = lately.partition_point(|taken| taken.end <= mapping.start);
            if lately.get(at).is_some_and(|taken| taken.start < mapping.end) {
                let _ = uffd.unregister(mapping.start, mapping.end);
            }
        }
        let edges = edges(&lately);
        let divided = |s: &Stretch<'_>| edges.range(s.start + 1..s.end).next().is_some();
        lately = take_those(uffd, engine, &now, divided);
        if lately.is_empty() {
            break;
        }
        newest = Some(now);
    }
    taken
}

fn take_those(uffd: &Ours, engine: Engine, maps: &Maps, which: impl Fn(&Stretch<'_>) -> bool) -> Vec<Taken> {
    let mut taken = Vec::new();
    let all: Vec<&Mapping> = maps.of_the_program().collect();
    for stretch in stretches(&all, engine).filter(which) {
        stretch.register(uffd, engine, &mut taken);
    }
    taken
}

/// Where a range ends and none of the same mode begins, or the other way round.
fn edges(taken: &[Taken]) -> BTreeSet<u64> {
    taken
        .chunk_by(|a, b| a.end == b.start && a.mode == b.mode)
        .flat_map(|one| [one[0].start, one[one.len() - 1].end])
        .collect()
}

/// The stretches of an address space of which something is to be watched. `maps` are all its mappings, in order.
fn stretches<'a>(maps: &'a [&'a Mapping], engine: Engine) -> impl Iterator<Item = Stretch<'a>> {
    let mut free_from = maps.first().map_or(0, |first| first.start);
    let mut at = 0;
    maps.chunk_by(move |a, b| engine.joins(a) && engine.joins(b)).filter_map(move |mappings| {
        at += mappings.len();
        let last = mappings[mappings.len() - 1].end;
        let end = maps.get(at).map_or(last, |next| next.start);
        let stretch = Stretch { start: free_from, end, mappings };
        let is_wanted = mappings.iter().any(|mapping| !engine.modes(mapping).is_empty());
        free_from = if is_wanted { end } else { last };
        is_wanted.then_some(stretch)
    })
}

impl Stretch<'_> {
    /// Takes it under control, in the first of the modes that the kernel allows.
    fn register(&self, uffd: &Ours, engine: Engine, taken: &mut Vec<Taken>) {
        let mut try_it = |start, end, mode| {
            let done = uffd.register(start, end, mode).is_ok();
            taken.extend(done.then_some(Taken { start, end, mode }));
            done
        };
        if let [one] = self.mappings {
            for &mode in engine.modes(one) {
                // Memory that has come into the room around it may have to be watched in the other mode.
                let alone = mode == Mode::Wp && matches!(engine, Engine::Rwp(_));
                // Of large pages the kernel wants whole ones, and the room around them may end within one.
                if !alone && try_it(self.start, self.end, mode) || try_it(one.start, one.end, mode) {
                    return;
                }
            }
            return;
        }
        let best = self.mappings.iter().find_map(|mapping| engine.modes(mapping).first());
        if best.is_some_and(|&best| try_it(self.start, self.end, best)) {
            return;
        }
        // One of them is not to be had.
        if uffd.gave_way() {
            return;
        }
        let (low, high) = self.mappings.split_at(self.mappings.len() / 2);
        let middle = high[0].start;
        Stretch { start: self.start, end: middle, mappings: low }.register(uffd, engine, taken);
        Stretch { start: middle, end: self.end, mappings: high }.register(uffd, engine, taken);
    }
}

#[cfg(test)]
mod tests {
    use super::super::uffd::Features;
    use super::*;

    const TEXT: &str = "\
10000-12000 r-xp 00000000 fe:00 7 /a
12000-13000 rw-p 00002000 fe:00 7 /a
20000-21000 ---p 00000000 00:00 0
21000-22000 rw-p 00000000 00:00 0 [heap]
30000-31000 r--p 00000000 00:00 0
40000-41000 rw-s 00000000 00:01 9 /memfd:x (deleted)
50000-51000 r-xp 00000000 fe:00 8 /b
60000-61000 rw-p 00000000 00:00 0 [anon:x]
70000-71000 r--p 00000000 00:00 0 [vvar]
80000-81000 ---p 00000000 00:00 0
90000-91000 r-xp 00000000 00:00 0 [vdso]
a0000-b0000 rw-p 00000000 00:00 0 [stack]
";

    #[test]
    fn a_stretch_ends_where_something_else_begins() {
        let maps = Maps::parse(TEXT);
        let engine = Engine::Writes(Features { wp: true, rwp: false });
        let all: Vec<&Mapping> = maps.of_the_program().collect();
        let found: Vec<_> = stretches(&all, engine).map(|s| (s.start, s.end, s.mappings.len())).collect();
        assert_eq!(
            found,
            [
                (0x12000, 0x20000, 1),
                (0x20000, 0x40000, 3),
                (0x40000, 0x50000, 1),
                (0x51000, 0x70000, 1),
                (0x91000, 0xb0000, 1)
            ]
        );
    }

    #[test]
    fn what_lies_side_by_side_in_one_mode_has_no_edge() {
        let taken = [(1, 2, Mode::Wp), (2, 4, Mode::Wp), (4, 5, Mode::Rwp), (6, 7, Mode::Rwp)]
            .map(|(start, end, mode)| Taken { start, end, mode });
        assert_eq!(edges(&taken).into_iter().collect::<Vec<_>>(), [1, 4, 5, 6, 7]);
    }
}
