//! Accesses by address and time.

use std::collections::{BTreeMap, HashMap};

use super::cube::Bins;

/// Cells that are held while accesses come, and those of a page.
const MOST_HELD: usize = 1 << 19;
const MOST_CELLS: usize = 40_000;
/// The rows of a picture, of all areas together.
const MOST_UNITS: usize = 1024;
/// The smallest unit of addresses: a page of 4 KiB.
const PAGE_BITS: u32 = 12;
/// Units that are this far apart are in different areas, pages.
const GAP_PAGES: u64 = 256;

/// Accesses by address and time.
#[derive(Debug, Clone)]
pub struct Heat {
    bins: Bins,
    /// A unit is so many bytes: a power of two.
    bits: u32,
    /// Accesses and writes of each process, unit and interval.
    cells: BTreeMap<(u64, u64, u16), (u64, u64)>,
    /// What is mapped at a unit.
    names: HashMap<(u64, u64), Box<str>>,
}

/// Neighbouring units of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// The process, and what is mapped there.
    pub name: String,
    /// The first address.
    pub start: u64,
    /// The number of units.
    pub units: u64,
}

impl Default for Heat {
    fn default() -> Self {
        Self { bins: Bins::default(), bits: PAGE_BITS, cells: BTreeMap::new(), names: HashMap::new() }
    }
}

impl Heat {
    pub(super) fn access(
        &mut self,
        pid: u64,
        addr: u64,
        at_ns: u64,
        is_write: bool,
        comm: Option<&str>,
        file: Option<&str>,
    ) {
        let (bin, halved) = self.bins.of(at_ns);
        if halved > 0 {
            self.put(|(pid, unit, bin)| (pid, unit, bin.checked_shr(halved).unwrap_or(0)));
        }
        let unit = addr >> self.bits;
        let sums = self.cells.entry((pid, unit, bin)).or_default();
        (sums.0, sums.1) = (sums.0 + 1, sums.1 + u64::from(is_write));
        self.names.entry((pid, unit)).or_insert_with(|| {
            let file = file.unwrap_or(super::UNKNOWN);
            format!("{} ({pid}) {file}", comm.unwrap_or_default()).into()
        });
        while self.cells.len() > MOST_HELD {
            self.coarsen();
        }
    }

    fn put(&mut self, to: impl Fn((u64, u64, u16)) -> (u64, u64, u16)) {
        for (place, (all, writes)) in std::mem::take(&mut self.cells) {
            let sums = self.cells.entry(to(place)).or_default();
            (sums.0, sums.1) = (sums.0 + all, sums.1 + writes);
        }
    }

    /// Makes units twice as large.
    fn coarsen(&mut self) {
        self.bits += 1;
        self.put(|(pid, unit, bin)| (pid, unit >> 1, bin));
        for ((pid, unit), name) in std::mem::take(&mut self.names) {
            self.names.entry((pid, unit >> 1)).or_insert(name);
        }
    }

    pub(super) fn finish(&mut self) {
        while self.bits < 40 && (self.cells.len() > MOST_CELLS || self.units() > MOST_UNITS as u64) {
            self.coarsen();
        }
    }

    fn units(&self) -> u64 {
        self.areas().iter().map(|area| area.units).sum()
    }

    /// The length of an interval, nanoseconds.
    #[must_use]
    pub fn bin_ns(&self) -> u64 {
        self.bins.width_ns
    }

    /// The size of a unit, bytes.
    #[must_use]
    pub fn unit_bytes(&self) -> u64 {
        1 << self.bits
    }

    /// Where there were accesses, by process and address.
    #[must_use]
    pub fn areas(&self) -> Vec<Area> {
        let gap = (GAP_PAGES >> (self.bits - PAGE_BITS).min(63)).max(2);
        let mut areas: Vec<(u64, Area)> = Vec::new();
        for (pid, unit, _) in self.cells.keys() {
            let start = unit << self.bits;
            match areas.last_mut() {
                Some((last, area)) if last == pid && unit - (area.start >> self.bits) < area.units + gap => {
                    area.units = area.units.max(unit - (area.start >> self.bits) + 1);
                }
                _ => {
                    let name = self.names.get(&(*pid, *unit)).map_or("", |name| name).to_owned();
                    areas.push((*pid, Area { name, start, units: 1 }));
                }
            }
        }
        areas.into_iter().map(|(_, area)| area).collect()
    }

    /// Each cell: its row, counted through all areas, its interval, accesses, writes.
    #[must_use]
    pub fn cells(&self) -> Vec<[u64; 4]> {
        let areas = self.areas();
        let mut rows = Vec::with_capacity(self.cells.len());
        let (mut at, mut before, mut last) = (0, 0, None);
        for ((pid, unit, bin), (all, writes)) in &self.cells {
            let is_in = |area: &Area, at_pid: Option<u64>| {
                let first = area.start >> self.bits;
                at_pid.is_none_or(|last| last == *pid) && (first..first + area.units).contains(unit)
            };
            while at < areas.len() && !is_in(&areas[at], last) {
                before += areas[at].units;
                at += 1;
                last = None;
            }
            let Some(area) = areas.get(at) else { break };
            last = Some(*pid);
            rows.push([before + unit - (area.start >> self.bits), (*bin).into(), *all, *writes]);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_far_apart_are_two_areas_and_no_access_is_lost() {
        let mut heat = Heat::default();
        for n in 0..3000_u64 {
            heat.access(7, 0x10_0000 + (n % 300) * 4096, n * 1_000_000, n % 3 == 0, Some("a"), Some("/f"));
            heat.access(7, 0x7f00_0000_0000, n * 1_000_000, false, Some("a"), None);
            heat.access(8, 0x7f00_0000_1000, n * 1_000_000, false, Some("b"), None);
        }
        heat.finish();
        let areas = heat.areas();
        let names: Vec<&str> = areas.iter().map(|area| area.name.as_str()).collect();
        assert_eq!(names, ["a (7) /f", "a (7) (unknown)", "b (8) (unknown)"]);
        let cells = heat.cells();
        assert_eq!(cells.iter().map(|cell| cell[2]).sum::<u64>(), 9000);
        assert_eq!(cells.iter().map(|cell| cell[3]).sum::<u64>(), 1000);
        let rows = areas.iter().map(|area| area.units).sum::<u64>();
        assert!(rows <= 1024 && cells.iter().all(|cell| cell[0] < rows && cell[1] < 240));
    }
}
