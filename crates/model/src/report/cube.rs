//! Figures by time, by whose they are, and by how long each took.

use std::collections::{BTreeMap, HashMap, HashSet};

/// The most intervals that a run is divided into; there are at least half of them, unless it was very short.
const MOST_BINS: u64 = 240;
/// The length of an interval as long as the run is short, nanoseconds.
const SHORTEST_NS: u64 = 100_000;
/// Groups and cells that are held at most while events come, and keys that are told apart.
const MOST_GROUPS: usize = 1 << 16;
const MOST_CELLS: usize = 1 << 20;
const MOST_KEYS: usize = 1 << 20;
/// Groups that are put together where their process (the last key that stays) is told apart.
const MOST_FOLDED: usize = 500;
/// What groups that were put together have in place of a key.
pub const OTHERS: &str = "(others)";

/// Intervals of time, which become twice as long when they are too many.
#[derive(Debug, Clone)]
pub(super) struct Bins {
    pub(super) width_ns: u64,
}

impl Default for Bins {
    fn default() -> Self {
        Self { width_ns: SHORTEST_NS }
    }
}

impl Bins {
    /// The interval of a moment, and by how much the numbers of earlier ones are to be shifted right.
    pub(super) fn of(&mut self, at_ns: u64) -> (u16, u32) {
        let mut halved = 0;
        while at_ns / self.width_ns >= MOST_BINS {
            self.width_ns = self.width_ns.saturating_mul(2);
            halved += 1;
        }
        ((at_ns / self.width_ns) as u16, halved)
    }
}

/// A figure of each cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    /// A sentence that explains it.
    pub help: &'static str,
    /// Whether it is nanoseconds.
    pub is_time: bool,
    /// Whether it is a part of the time.
    pub is_part: bool,
}

/// Texts, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    places: HashMap<Box<str>, u32>,
    words: Vec<Box<str>>,
}

impl Words {
    /// The number of a text.
    pub(super) fn place(&mut self, word: &str) -> u32 {
        if let Some(place) = self.places.get(word) {
            return *place;
        }
        let place = self.words.len() as u32;
        self.words.push(word.into());
        self.places.insert(word.into(), place);
        place
    }
}

/// The group, the interval, and the power of two of the time that each took.
pub type Place = (u32, u16, Option<u8>);

/// Figures by group, interval and latency.
#[derive(Debug, Clone)]
pub struct Cube {
    /// What groups are told apart by.
    pub dims: Vec<&'static str>,
    /// The figures.
    pub measures: Vec<Measure>,
    /// The number of the first keys that stay when groups are put together.
    kept: usize,
    bins: Bins,
    words: Vec<Words>,
    keys: HashMap<Box<[u32]>, u32>,
    /// The key of each group.
    pub groups: Vec<Box<[u32]>>,
    /// The figures of each cell, in the order of the measures.
    pub cells: BTreeMap<Place, Box<[u64]>>,
    /// Grows when groups have other numbers than before.
    pub(super) generation: u32,
    /// Groups that were put together.
    pub folded: u64,
}

impl Cube {
    pub(super) fn new(dims: Vec<&'static str>, measures: Vec<Measure>) -> Self {
        let kept = dims.iter().position(|dim| *dim == "process").map_or(0, |at| at + 1);
        Self {
            words: vec![Words::default(); dims.len()],
            dims,
            measures,
            kept,
            bins: Bins::default(),
            keys: HashMap::new(),
            groups: Vec::new(),
            cells: BTreeMap::new(),
            generation: 0,
            folded: 0,
        }
    }

    /// The length of an interval, nanoseconds.
    #[must_use]
    pub fn bin_ns(&self) -> u64 {
        self.bins.width_ns
    }

    /// Intervals are at least as long as those of recorded rows, to two digits; with shorter ones, there would be some without rows.
    pub(super) fn lengthen(&mut self, interval_ns: u64) {
        if self.cells.is_empty() {
            let unit = 10_u64.pow(interval_ns.checked_ilog10().unwrap_or(0).saturating_sub(1));
            self.bins.width_ns = self.bins.width_ns.max(interval_ns.saturating_add(unit / 2) / unit * unit);
        }
    }

    /// The texts of a dimension.
    pub fn words(&self, dim: usize) -> impl Iterator<Item = &str> {
        self.words.get(dim).into_iter().flat_map(|words| words.words.iter().map(|word| &**word))
    }

    /// The group with these keys.
    pub(super) fn group(&mut self, key: &[&str]) -> u32 {
        let codes: Vec<u32> = self.words.iter_mut().zip(key).map(|(words, word)| words.place(word)).collect();
        if let Some(group) = self.keys.get(&codes[..]) {
            return *group;
        }
        if self.keys.len() >= MOST_KEYS {
            self.folded += 1;
            return self.others(&codes, 0);
        }
        if self.groups.len() >= MOST_GROUPS {
            self.fold(MOST_CELLS / 2, MOST_GROUPS / 2);
        }
        self.of_codes(codes)
    }

    fn of_codes(&mut self, codes: Vec<u32>) -> u32 {
        if let Some(group) = self.keys.get(&codes[..]) {
            return *group;
        }
        let group = self.groups.len() as u32;
        self.groups.push(codes.clone().into());
        self.keys.insert(codes.into(), group);
        group
    }

    /// The group that one is put into, of which so many keys stay.
    fn others(&mut self, codes: &[u32], kept: usize) -> u32 {
        let others = self.words.iter_mut().zip(codes).enumerate();
        let codes = others.map(|(at, (words, code))| if at < kept { *code } else { words.place(OTHERS) });
        let codes = codes.collect();
        self.of_codes(codes)
    }

    /// Adds figures, which are by measure, of a moment since the start of the run.
    pub(super) fn add(&mut self, group: u32, at_ns: u64, took: Option<u8>, figures: &[(usize, u64)]) {
        let (bin, halved) = self.bins.of(at_ns);
        if halved > 0 {
            self.move_cells(|(group, bin, took)| (group, bin.checked_shr(halved).unwrap_or(0), took));
        }
        let measures = self.measures.len();
        let cell = self.cells.entry((group, bin, took)).or_insert_with(|| vec![0; measures].into());
        for (measure, figure) in figures {
            if let Some(sum) = cell.get_mut(*measure) {
                *sum = sum.saturating_add(*figure);
            }
        }
        if self.cells.len() >= MOST_CELLS {
            self.fold(MOST_CELLS / 2, MOST_GROUPS / 2);
        }
    }

    /// Gives keys other names. Groups whose keys are the same then are one.
    pub(super) fn rename(&mut self, dim: &str, names: &HashMap<String, String>) {
        let Some(at) = self.dims.iter().position(|name| *name == dim) else { return };
        let old = std::mem::take(&mut self.words[at]);
        let renamed = old.words.iter().map(|word| names.get(&**word).map_or(&**word, String::as_str));
        let codes: Vec<u32> = renamed.map(|word| self.words[at].place(word)).collect();
        self.keys.clear();
        let mut to = Vec::new();
        for key in std::mem::take(&mut self.groups) {
            let mut key = key.to_vec();
            key[at] = codes[key[at] as usize];
            to.push(self.of_codes(key));
        }
        self.move_cells(|(group, bin, took)| (to[group as usize], bin, took));
        self.generation += 1;
    }

    fn move_cells(&mut self, to: impl Fn(Place) -> Place) {
        for (place, figures) in std::mem::take(&mut self.cells) {
            match self.cells.entry(to(place)) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(figures);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    for (sum, figure) in entry.get_mut().iter_mut().zip(&figures) {
                        *sum = sum.saturating_add(*figure);
                    }
                }
            }
        }
    }

    /// Puts groups together until there are at most so many cells and groups: those with the least time, or where that is not
    /// known the least events. Sums stay what they are.
    pub(super) fn fold(&mut self, most_cells: usize, most_groups: usize) {
        if self.cells.len() <= most_cells && self.groups.len() <= most_groups {
            return;
        }
        let time = self.measures.iter().position(|measure| measure.is_time && !measure.is_part);
        let mut weights = vec![(0_u64, 0_u64, 0_usize); self.groups.len()];
        for ((group, ..), figures) in &self.cells {
            let weight = &mut weights[*group as usize];
            weight.0 = weight.0.saturating_add(time.map_or(0, |time| figures[time]));
            weight.1 = weight.1.saturating_add(figures.first().copied().unwrap_or(0));
            weight.2 += 1;
        }
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse((weights[*at].0, weights[*at].1)));
        let (mut cells, mut stay) = (0, HashSet::new());
        for at in order {
            cells += weights[at].2;
            // Those that are put together need cells, too.
            if stay.len() + MOST_FOLDED.min(most_groups / 2) >= most_groups || cells * 4 > most_cells * 3 {
                break;
            }
            stay.insert(at as u32);
        }
        let old = std::mem::take(&mut self.groups);
        let keys = std::mem::take(&mut self.keys);
        // As many of the first keys as are few: recordings are, where processes are not.
        let heads =
            |kept: usize| old.iter().map(|key| &key[..kept.min(key.len())]).collect::<HashSet<&[u32]>>();
        let is_few = |kept: &usize| heads(*kept).len() <= MOST_FOLDED.min(most_groups / 2);
        let kept = (0..=self.kept).rev().find(is_few).unwrap_or(0);
        let mut to = Vec::with_capacity(old.len());
        for (at, key) in (0..).zip(&old) {
            let is_folded = !stay.contains(&at);
            self.folded += u64::from(is_folded);
            let group = if is_folded { self.others(key, kept) } else { self.of_codes(key.to_vec()) };
            to.push(group);
        }
        for (key, group) in keys {
            self.keys.entry(key).or_insert(to[group as usize]);
        }
        self.move_cells(|(group, bin, took)| (to[group as usize], bin, took));
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURES: [Measure; 2] = [
        Measure { name: "faults", help: "", is_time: false, is_part: false },
        Measure { name: "total_ns", help: "", is_time: true, is_part: false },
    ];

    fn sum(cube: &Cube, measure: usize) -> u64 {
        cube.cells.values().map(|figures| figures[measure]).sum()
    }

    #[test]
    fn the_longer_the_run_the_longer_the_intervals() {
        let mut cube = Cube::new(vec!["process"], MEASURES.to_vec());
        let group = cube.group(&["a"]);
        for at in 0..1000 {
            cube.add(group, at * 10_000_000, Some(9), &[(0, 1), (1, 500)]);
        }
        let bins: HashSet<u16> = cube.cells.keys().map(|(_, bin, _)| *bin).collect();
        assert!((100..=240).contains(&bins.len()), "{}", bins.len());
        assert_eq!((sum(&cube, 0), sum(&cube, 1)), (1000, 500_000));
        assert!(cube.bin_ns() * 240 > 9_990_000_000);
    }

    #[test]
    fn a_recording_stays_where_processes_are_too_many() {
        let mut cube = Cube::new(vec!["recording", "process"], MEASURES.to_vec());
        for n in 0..1000_u64 {
            let group = cube.group(&["r", &format!("p{n}")]);
            cube.add(group, n * 1000, Some(3), &[(0, 1), (1, n)]);
        }
        cube.fold(200, 100);
        assert_eq!(cube.words(0).collect::<Vec<_>>(), ["r"]);
        assert!(cube.groups.len() <= 100);
    }

    #[test]
    fn groups_that_are_put_together_keep_their_sums_and_their_process() {
        let mut cube = Cube::new(vec!["process", "file"], MEASURES.to_vec());
        for n in 0..1000_u64 {
            let (process, file) = (format!("p{}", n % 2), format!("/f{n}"));
            let group = cube.group(&[&process, &file]);
            cube.add(group, n * 1000, Some(3), &[(0, 1), (1, n)]);
        }
        cube.fold(200, 100);
        assert!(cube.cells.len() <= 200 && cube.groups.len() <= 100, "{}", cube.groups.len());
        assert_eq!((sum(&cube, 0), sum(&cube, 1)), (1000, 999 * 500));
        let words: Vec<&str> = cube.words(0).collect();
        let of = |process: &str| {
            let is = |group: u32| words[cube.groups[group as usize][0] as usize] == process;
            cube.cells.iter().filter(|((group, ..), _)| is(*group)).map(|(_, f)| f[0]).sum::<u64>()
        };
        assert_eq!((of("p0"), of("p1")), (500, 500));
        // One that was put together stays there.
        let group = cube.group(&["p0", "/f0"]);
        let files: Vec<&str> = cube.words(1).collect();
        assert_eq!(files[cube.groups[group as usize][1] as usize], OTHERS);
    }
}
