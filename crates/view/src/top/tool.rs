//! A tool on the screen: its rows, which of them are shown, in which order, and which one is chosen.

use regex_lite::{Regex, RegexBuilder};
use trapline_model::{Block, Facts, Field, Header, Item, Kind, Record, Unit, Value};

use super::face::{Begin, Face, Group, Want};
use super::history::{Figures, Histories};
use super::recorded::LastEvents;
use super::row::{identity, is_of, shown_keys, words};
use crate::columns::cells;

/// What a tool is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing: why.
    Idle(String),
    Attaching,
    Running,
    /// It could not, or could no longer: why.
    Failed(String),
    Ended,
}

/// Rows of a grouping, within a row of another.
#[derive(Debug, Clone)]
pub(super) struct Level {
    pub(super) group: &'static str,
    /// The keys of that row.
    pub(super) keys: Vec<(&'static str, Value)>,
    /// That row in words; empty for none.
    pub(super) of: String,
}

/// Which rows are shown.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    regex: Regex,
}

impl Pattern {
    /// A regular expression, or else the text itself; capital letters are told apart where there are any.
    pub(super) fn new(text: &str) -> Option<Self> {
        let build = |pattern: &str| {
            let mut builder = RegexBuilder::new(pattern);
            builder.case_insensitive(!text.chars().any(char::is_uppercase)).build().ok()
        };
        let regex = build(text).or_else(|| build(&regex_lite::escape(text)))?;
        (!text.is_empty()).then(|| Self { text: text.to_owned(), regex })
    }

    fn is_match(&self, row: &Record) -> bool {
        cells(row, false).iter().any(|cell| self.regex.is_match(&cell.text))
    }
}

fn is_match(pattern: Option<&Pattern>, row: &Record) -> bool {
    pattern.is_none_or(|pattern| pattern.is_match(row))
}

/// A tool's pane.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) face: &'static Face,
    pub(super) begin: Begin,
    pub(super) stage: Stage,
    /// The number of its items: those of before are late.
    pub(super) run: u32,
    /// The last one is shown.
    pub(super) levels: Vec<Level>,
    /// They cannot be grouped otherwise.
    pub(super) is_fixed: bool,
    pub(super) split: bool,
    /// Single events are shown.
    pub(super) shows_events: bool,
    pub(super) header: Option<Header>,
    /// The tables of the interval that is shown, and of the one that is coming.
    pub(super) blocks: Vec<Block>,
    coming: Vec<Block>,
    newest: Option<Vec<Block>>,
    /// The table that is shown where there are several.
    pub(super) table: usize,
    /// The end of the interval that is shown, also where it has no rows.
    pub(super) shown_ns: u64,
    /// The end of the last interval of each table.
    ended_ns: Vec<(&'static str, u64)>,
    sort: Option<&'static str>,
    pub(super) reversed: bool,
    pub(super) pattern: Option<Pattern>,
    /// The places of the rows that are shown.
    pub(super) rows: Vec<usize>,
    pub(super) at: usize,
    /// The row that somebody chose, as it was last.
    pub(super) chosen: Option<Record>,
    pub(super) histories: Histories,
    /// All rows together.
    pub(super) whole: Histories,
    /// The last facts, and those before.
    pub(super) facts: Option<Facts>,
    pub(super) before: Option<Facts>,
    /// Nanoseconds that BPF programs had taken at the last facts, and at those before.
    pub(super) cost: [Option<u64>; 2],
    pub(super) events: LastEvents,
}

/// The number of all rows together.
pub(super) const ALL: u64 = 0;

impl Tool {
    pub(super) fn new(face: &'static Face, begin: Begin, group: Option<&str>, split: bool) -> Self {
        let group = face.groups.iter().find(|of| Some(of.name) == group).or(face.groups.first());
        let stage = match &begin {
            Begin::Never(why) => Stage::Idle(why.clone()),
            Begin::Now | Begin::Shown => Stage::Idle("Enter attaches it".into()),
        };
        let level = Level { group: group.map_or("", |group| group.name), keys: vec![], of: String::new() };
        Self {
            face,
            begin,
            stage,
            run: 0,
            levels: vec![level],
            is_fixed: false,
            split: split && !face.parts.is_empty(),
            shows_events: false,
            header: None,
            blocks: vec![],
            coming: vec![],
            newest: None,
            table: 0,
            shown_ns: 0,
            ended_ns: vec![],
            sort: None,
            reversed: false,
            pattern: None,
            rows: vec![],
            at: 0,
            chosen: None,
            histories: Histories::default(),
            whole: Histories::default(),
            facts: None,
            before: None,
            cost: [None; 2],
            events: LastEvents::default(),
        }
    }

    pub(super) fn level(&self) -> Option<&Level> {
        self.levels.last()
    }

    /// The grouping that is shown.
    pub(super) fn group(&self) -> Option<&'static Group> {
        let name = self.level()?.group;
        self.face.groups.iter().find(|group| group.name == name)
    }

    /// Other rows from now on.
    pub(super) fn reopen(&mut self) -> Want {
        self.run += 1;
        self.stage = Stage::Attaching;
        (self.header, self.facts, self.before, self.cost) = (None, None, None, [None; 2]);
        self.rewind();
        (self.sort, self.chosen, self.at) = (None, None, 0);
        let (group, keys) = self.level().map_or(("", vec![]), |level| (level.group, level.keys.clone()));
        Want { group, keys, split: self.split, events: self.shows_events }
    }

    /// What comes next comes after nothing.
    pub(super) fn rewind(&mut self) {
        (self.blocks, self.coming, self.newest, self.rows) = (vec![], vec![], None, vec![]);
        (self.histories, self.whole) = (Histories::default(), Histories::default());
        self.events = LastEvents::default();
        self.ended_ns.clear();
    }

    pub(super) fn take(&mut self, item: Item, paused: bool) {
        match item {
            Item::Header(header) => {
                self.stage = Stage::Running;
                // It may begin anew, with other processes.
                (self.header, self.facts, self.before) = (Some(header), None, None);
            }
            // A tool may give a table in pieces, as windows of time end.
            Item::Rows(block) => match self.coming.iter_mut().find(|coming| coming.table == block.table) {
                Some(coming) => {
                    coming.time_ns = block.time_ns;
                    coming.rows.extend(block.rows);
                }
                None => self.coming.push(block),
            },
            Item::Events(events) => {
                let keys = self.levels.last().map_or(&[][..], |level| &level.keys);
                let events = events.into_iter().filter(|event| is_of(&event.record, keys));
                if paused && self.shows_events { self.events.skip(events) } else { self.events.take(events) }
            }
            Item::Tick(time_ns) => {
                self.tick(paused);
                if !paused {
                    self.shown_ns = time_ns;
                }
            }
            Item::Facts(facts) => self.before = self.facts.replace(facts),
            // A recording has no other rows of tables that have no intervals.
            Item::Totals(block) => {
                if !self.blocks.iter().any(|shown| shown.table == block.table) && self.newest.is_none() {
                    self.coming.push(block);
                }
            }
            Item::End(facts) => {
                if self.blocks.is_empty() && !self.coming.is_empty() {
                    self.tick(paused);
                } else {
                    self.blocks.append(&mut self.coming);
                    self.arrange();
                }
                let end_ns = self.block().map_or(0, |block| block.time_ns);
                self.shown_ns = self.shown_ns.max(end_ns);
                self.stage = Stage::Ended;
                self.before = self.facts.replace(facts);
            }
        }
    }

    fn tick(&mut self, paused: bool) {
        let mut coming = std::mem::take(&mut self.coming);
        // They come as they end, and have the places that the header gives them.
        let tables = self.header.as_ref().map_or(&[][..], |header| &header.tables);
        let place = |block: &Block| tables.iter().position(|table| table.id() == block.table.id());
        coming.sort_by_key(|block| place(block).unwrap_or(usize::MAX));
        // One of several that has nothing new keeps its place.
        if self.blocks.len() > 1 && !coming.is_empty() {
            let time_ns = coming.iter().map(|block| block.time_ns).max().unwrap_or(0);
            for (at, before) in self.blocks.iter().enumerate() {
                if !coming.iter().any(|block| block.table.id() == before.table.id()) {
                    coming.insert(at.min(coming.len()), Block::new(before.table, time_ns, vec![]));
                }
            }
        }
        for (at, block) in coming.iter().enumerate() {
            let before = self.ended_ns.iter_mut().find(|(table, _)| *table == block.table.id());
            let began = block.since_ns.unwrap_or(block.time_ns);
            let last = before.as_ref().map_or(began, |(_, last)| *last);
            match before {
                Some((_, last)) => *last = block.time_ns,
                None => self.ended_ns.push((block.table.id(), block.time_ns)),
            }
            // How long the first one was may be unknown.
            if at == self.table.min(coming.len() - 1) && block.time_ns > last {
                let (duration_ns, cumulative) = (block.time_ns.saturating_sub(last), began < last);
                let figures = |row: &Record| (identity(row), self.face.figures(row));
                self.histories.interval(block.rows.iter().map(figures), duration_ns, cumulative);
                let all = block.rows.iter().map(|row| self.face.figures(row));
                let all = all
                    .fold([0_u64; 2], |[a, b], [c, d]: Figures| [a.saturating_add(c), b.saturating_add(d)]);
                self.whole.interval([(ALL, all)].into_iter(), duration_ns, cumulative);
            }
        }
        if paused {
            self.newest = Some(coming);
        } else {
            self.blocks = coming;
            self.arrange();
        }
    }

    /// What came while the picture was to stay.
    pub(super) fn go_on(&mut self) {
        if let Some(newest) = self.newest.take() {
            self.blocks = newest;
            self.arrange();
        }
    }

    /// How long the last interval was.
    pub(super) fn seconds(&self) -> f64 {
        let ns = |facts: &Option<Facts>| facts.as_ref().map_or(0, |facts| facts.duration_ns);
        ns(&self.facts).saturating_sub(ns(&self.before)) as f64 / 1e9
    }

    /// Events in the last interval, if it counts.
    pub(super) fn events_per_second(&self) -> Option<f64> {
        let before = self.before.as_ref().map_or(0, |facts| facts.events);
        let events = self.facts.as_ref()?.events.saturating_sub(before);
        (self.stage == Stage::Running && self.seconds() > 0.0).then(|| events as f64 / self.seconds())
    }

    pub(super) fn block(&self) -> Option<&Block> {
        self.blocks.get(self.table).or(self.blocks.last())
    }

    /// The column that rows are sorted by: if nobody chose one, when they were, the time they took, or the most frequent
    /// events.
    pub(super) fn sorted_by(&self) -> Option<usize> {
        let block = self.block()?;
        let place = |name: &str| block.table.position(name);
        if let Some(at) = self.sort.and_then(place) {
            return Some(at);
        }
        let is_when = |field: &Field| {
            field.kind == Kind::Key && field.unit == Unit::Nanoseconds && field.cell.is_some()
        };
        if let Some(at) = block.table.iter().position(is_when) {
            return Some(at);
        }
        let all = |name: &str| block.rows.iter().filter_map(|row| row.number(name)).sum::<u64>();
        let is_shown =
            |name: &&str| block.table.iter().any(|field| field.name == *name && field.cell.is_some());
        let time = self.face.time.filter(is_shown).filter(|time| all(time) > 0);
        let by = time.or_else(|| self.face.events.iter().copied().max_by_key(|name| all(name)));
        by.and_then(place).or_else(|| block.table.iter().position(|field| field.kind == Kind::Counter))
    }

    /// Sorts by the column that is shown next, or before.
    pub(super) fn sort(&mut self, back: bool) {
        let Some(table) = self.block().map(|block| block.table) else { return };
        let now = self.sorted_by();
        let shown = table.iter().enumerate().filter(|(_, field)| field.cell.is_some());
        let shown: Vec<(usize, &'static str)> = shown.map(|(at, field)| (at, field.name)).collect();
        let place = shown.iter().position(|(at, _)| Some(*at) == now).unwrap_or(0);
        let step = if back { shown.len() - 1 } else { 1 };
        self.sort = shown.get((place + step) % shown.len().max(1)).map(|(_, name)| *name);
        self.arrange();
    }

    /// Sorts and filters the rows.
    pub(super) fn arrange(&mut self) {
        let (sort, reversed) = (self.sorted_by(), self.reversed);
        let at = self.table.min(self.blocks.len().saturating_sub(1));
        let Some(block) = self.blocks.get_mut(at) else {
            self.rows.clear();
            return;
        };
        if let Some(sort) = sort {
            block.sort(sort);
        }
        if reversed {
            block.rows.reverse();
        }
        let keys = self.levels.last().map_or(&[][..], |level| &level.keys);
        let matches = |row: &Record| is_match(self.pattern.as_ref(), row);
        let shown = block.rows.iter().enumerate().filter(|(_, row)| row.is_within(keys) && matches(row));
        self.rows = shown.map(|(at, _)| at).collect();
        if let Some(chosen) = &self.chosen {
            let id = identity(chosen);
            let place = self.rows.iter().position(|&row| identity(&block.rows[row]) == id);
            if let Some(place) = place {
                self.at = place;
                self.chosen = Some(block.rows[self.rows[place]].clone());
            }
        }
        self.at = self.at.min(self.rows.len().saturating_sub(1));
    }

    /// Whether the filter has a row or an event.
    pub(super) fn is_match(&self, row: &Record) -> bool {
        is_match(self.pattern.as_ref(), row)
    }

    pub(super) fn row(&self, at: usize) -> Option<&Record> {
        self.block()?.rows.get(*self.rows.get(at)?)
    }

    /// The row that is chosen: without a choice, the one at the place of the cursor.
    pub(super) fn selected(&self) -> Option<&Record> {
        self.chosen.as_ref().or_else(|| self.row(self.at))
    }

    /// Chooses the row at a place.
    pub(super) fn choose(&mut self, at: usize) {
        self.at = at.min(self.rows.len().saturating_sub(1));
        self.chosen = self.row(self.at).cloned();
    }

    /// The row that took the most time, or has the most events.
    pub(super) fn worst(&self) -> Option<&Record> {
        self.block()?.rows.iter().max_by_key(|row| {
            let [events, time] = self.face.figures(row);
            (time, events)
        })
    }

    /// Down into the selected row, if there is something within.
    pub(super) fn enter(&mut self) -> Option<Want> {
        let into = self.group()?.into?;
        let level = self.within()?;
        self.levels.push(Level { group: into, ..level });
        Some(self.reopen())
    }

    /// What is within the selected row.
    fn within(&self) -> Option<Level> {
        let (row, level) = (self.selected()?, self.level()?);
        let is_known = |name: &str| level.keys.iter().any(|(known, _)| *known == name);
        let mut keys = level.keys.clone();
        keys.extend(shown_keys(row).filter(|(name, _)| !is_known(name)));
        Some(Level { group: level.group, keys, of: words(row, |name| !is_known(name)) })
    }

    /// Shows single events, of the selected row if there is one. Whether it can.
    pub(super) fn watch(&mut self) -> bool {
        if !self.face.has_events || self.shows_events {
            return false;
        }
        let level = self.within().or_else(|| self.level().cloned());
        self.levels.extend(level);
        self.shows_events = true;
        true
    }

    /// Groups rows otherwise, within the same.
    pub(super) fn regroup(&mut self, group: &'static Group) -> Option<Want> {
        let shown_events = std::mem::take(&mut self.shows_events);
        let level = self.levels.last_mut()?;
        if level.group == group.name && !shown_events {
            return None;
        }
        level.group = group.name;
        Some(self.reopen())
    }
}
