//! How an input is changed: as fuzzers do, and mostly in one place, so that what is behind it is still reached.

use std::ops::Range;
use std::path::PathBuf;

use fastrand::Rng;

/// An input is at most so long, bytes.
const LONGEST: usize = 64 << 10;

/// Numbers that parsers compare with, and overflow at.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 62,
    u64::MAX >> 1,
    u64::MAX,
];

/// One of the seeds, changed at least once.
pub(crate) fn mutated(seeds: &[(PathBuf, Vec<u8>)], random: &mut Rng) -> Vec<u8> {
    let seed = |random: &mut Rng| random.choice(seeds).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
    let mut input = seed(random).to_vec();
    let other = seed(random);
    // Half of all inputs are changed within a few dozen bytes only.
    let window = if random.bool() { Some(part(&input, 64, random)) } else { None };
    for _ in 0..1 << random.u32(0..6) {
        let within = window.clone().unwrap_or(0..input.len());
        let within = within.start.min(input.len())..within.end.min(input.len());
        change(&mut input, within, other, random);
        input.truncate(LONGEST);
    }
    input
}

/// Some bytes, at most so many.
fn part(bytes: &[u8], longest: usize, random: &mut Rng) -> Range<usize> {
    let start = random.usize(0..=bytes.len());
    start..start + random.usize(0..=longest.min(bytes.len() - start))
}

/// A number that is written in digits becomes another one.
fn renumber(input: &mut Vec<u8>, at: usize, random: &mut Rng) {
    let is_digit = |byte: &&u8| byte.is_ascii_hexdigit();
    let start = at - input[..at].iter().rev().take_while(is_digit).count();
    let end = at + input[at..].iter().take_while(is_digit).count();
    let edge = random.choice(EDGES).unwrap_or(0).wrapping_add(random.u64(0..3)).wrapping_sub(1);
    let written = if random.bool() { edge.to_string() } else { format!("{edge:x}") };
    input.splice(start..end, written.into_bytes());
}

fn change(input: &mut Vec<u8>, within: Range<usize>, other: &[u8], random: &mut Rng) {
    if within.is_empty() {
        input.extend_from_slice(&other[part(other, 256, random)]);
        return;
    }
    let at = random.usize(within.clone());
    if input[at].is_ascii_digit() && random.bool() {
        return renumber(input, at, random);
    }
    match random.u32(0..12) {
        0..=1 => input[at] ^= 1 << random.u32(0..8),
        2 => input[at] = random.u8(..),
        3 => input[at] = input[at].wrapping_add(random.u8(1..32)).wrapping_sub(16),
        4..=6 => {
            // A number of one, two, four or eight bytes, mostly where one would be.
            let size = 1_usize << random.u32(0..4);
            let at = if random.u8(..) < 192 { at / size * size } else { at };
            let edge = random.choice(EDGES).unwrap_or(0);
            let number =
                if random.bool() { edge } else { edge.wrapping_add(random.u64(0..64)).wrapping_sub(32) };
            for (to, from) in input[at..].iter_mut().zip(&number.to_le_bytes()[..size]) {
                *to = *from;
            }
        }
        // A number of seven bits a byte that does not end.
        7 => input[at..].iter_mut().take(random.usize(1..12)).for_each(|byte| *byte |= 0x80),
        8 => {
            let removed = at..(at + random.usize(1..64)).min(input.len());
            input.drain(removed);
        }
        9 => {
            let copied = input[part(input, 64, random)].to_vec();
            input.splice(at..at, copied);
        }
        10 => {
            let copied = other[part(other, 256, random)].to_vec();
            let end = (at + copied.len()).min(input.len());
            input.splice(at..end, copied);
        }
        _ if random.u8(..) < 64 => input.truncate(at),
        _ => {
            let from = random.usize(0..input.len());
            let moved = input[from..].iter().copied().take(random.usize(1..32)).collect::<Vec<_>>();
            for (to, from) in input[at..].iter_mut().zip(moved) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_gives_the_same_input_and_another_one_another() {
        let seeds = [(PathBuf::new(), (0..=255).collect()), (PathBuf::new(), b"text\n".to_vec())];
        let of = |seed| mutated(&seeds, &mut Rng::with_seed(seed));
        let all: std::collections::HashSet<_> = (0..1000).map(of).collect();
        assert!(all.len() > 900 && (0..1000).all(|seed| all.contains(&of(seed))), "{}", all.len());
        assert_eq!(mutated(&[(PathBuf::new(), vec![])], &mut Rng::with_seed(1)).len(), 0);
    }
}
