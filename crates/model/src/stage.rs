//! Stages: sources over sources, which know tables and no tool.
//!
//! In this order: [`Delta`], [`GroupBy`], [`Sum`], [`Quantiles`] (these four are [`rows`]), [`Sort`], [`Top`].

mod controls;

use std::collections::{HashMap, VecDeque};

pub use self::controls::{Controls, Cumulative, Pace, Refresh, SortKey};
use crate::field::{Field, Kind, Merge, Record, Type, Value};
use crate::hist::Hist;
use crate::item::{Block, Item, Source};
use crate::table::Schema;

/// The next item of a stage that makes any number of items of each that comes: until some are ready, it takes what comes.
pub(crate) fn pump<T, S: Source>(
    stage: &mut T,
    parts: fn(&mut T) -> (&mut S, &mut VecDeque<Item>),
    take: fn(&mut T, Item),
) -> Result<Option<Item>, S::Error> {
    loop {
        let (source, ready) = parts(stage);
        if let Some(item) = ready.pop_front() {
            return Ok(Some(item));
        }
        let Some(item) = source.next()? else { return Ok(None) };
        take(stage, item);
    }
}

/// The same where the source may break, as a recording that is cut off does: `rest` makes the last items of what is intact, and the error
/// comes after them.
pub(crate) fn pump_intact<T, I, E>(
    stage: &mut T,
    parts: fn(&mut T) -> (&mut VecDeque<Item>, &mut Option<E>),
    next: fn(&mut T) -> Result<Option<I>, E>,
    take: fn(&mut T, I),
    rest: fn(&mut T),
) -> Result<Option<Item>, E> {
    loop {
        let (ready, error) = parts(stage);
        if let Some(item) = ready.pop_front() {
            return Ok(Some(item));
        }
        if let Some(error) = error.take() {
            return Err(error);
        }
        match next(stage) {
            Ok(Some(item)) => take(stage, item),
            Ok(None) => return Ok(None),
            Err(error) => {
                rest(stage);
                *parts(stage).1 = Some(error);
            }
        }
    }
}

/// The rows that outputs have, of a tool's, which grow: those of an interval, or `cumulative` ones.
pub fn rows<S: Source>(source: S, cumulative: impl Into<Cumulative>) -> impl Source<Error = S::Error> {
    Quantiles::new(Sum::new(GroupBy::new(Delta::new(source, cumulative))))
}

/// Makes of rows that grow those of an interval, unless they are to be cumulative.
#[derive(Debug)]
pub struct Delta<S> {
    source: S,
    cumulative: Cumulative,
    /// What each row, by its number, has come to.
    seen: HashMap<u64, Seen>,
    /// When the run began, and when the last interval of each table ended.
    began_ns: Option<u64>,
    ended_ns: HashMap<&'static str, u64>,
}

/// What a row has come to: its columns that are added, in order.
#[derive(Debug, Default)]
struct Seen {
    numbers: Vec<u64>,
    hists: Vec<Hist>,
}

impl Seen {
    /// What a row has grown by. One that is less than it was is made up for later.
    fn since(&mut self, record: &mut Record) {
        let added = |(field, _): &(&&Field, &mut Value)| field.merge == Merge::Add;
        let (mut number, mut hist) = (0, 0);
        for (field, value) in record.schema().all().iter().zip(&mut record.values).filter(added) {
            // What is not known has its place, too: it may be known of another interval.
            if field.ty == Type::Hist {
                let seen = at(&mut self.hists, hist);
                hist += 1;
                if let Value::Hist(now) = value {
                    **now = now.since(seen);
                    seen.add(now);
                }
            } else {
                let seen = at(&mut self.numbers, number);
                number += 1;
                if let Value::U64(n) = value {
                    *n = n.saturating_sub(*seen);
                    *seen += *n;
                }
            }
        }
    }

    fn add(&mut self, other: &Self) {
        for (n, other) in other.numbers.iter().enumerate() {
            *at(&mut self.numbers, n) += other;
        }
        for (n, other) in other.hists.iter().enumerate() {
            at(&mut self.hists, n).add(other);
        }
    }
}

/// The value at a place, which comes next if it is not there.
fn at<T: Default>(values: &mut Vec<T>, at: usize) -> &mut T {
    if at == values.len() {
        // There is one of these for each row.
        values.reserve_exact(if at == 0 { 1 } else { 4 });
        values.push(T::default());
    }
    &mut values[at]
}

impl<S: Source> Delta<S> {
    /// Over a source whose rows grow.
    pub fn new(source: S, cumulative: impl Into<Cumulative>) -> Self {
        let (seen, ended_ns) = (HashMap::new(), HashMap::new());
        Self { source, cumulative: cumulative.into(), seen, began_ns: None, ended_ns }
    }

    fn interval(&mut self, block: &mut Block) {
        let is_cumulative = self.cumulative.is_on();
        let before = self.ended_ns.insert(block.table.id(), block.time_ns);
        // Between two intervals there may be a gap.
        let before = before.filter(|_| !is_cumulative);
        block.since_ns = before.max(block.since_ns).or(self.began_ns);
        let mut ended = Vec::new();
        for (mut record, into) in std::mem::take(&mut block.ended) {
            let mut seen = self.seen.remove(&record.row).unwrap_or_default();
            seen.since(&mut record);
            self.seen.entry(into).or_default().add(&seen);
            ended.push(record);
        }
        for record in block.rows.iter_mut().filter(|record| record.row > 0) {
            let seen = self.seen.entry(record.row).or_default();
            if is_cumulative { seen.since(&mut record.clone()) } else { seen.since(record) }
        }
        if !is_cumulative {
            block.rows.append(&mut ended);
        }
    }
}

impl<S: Source> Source for Delta<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        match &mut item {
            Some(Item::Header(header)) => self.began_ns = Some(header.start_ns),
            Some(Item::Rows(block)) => self.interval(block),
            Some(Item::Totals(block)) => block.since_ns = block.since_ns.or(self.began_ns),
            _ => {}
        }
        Ok(item)
    }
}

/// Makes one row of those that have the same keys; where no key is known, the same labels.
#[derive(Debug)]
pub struct GroupBy<S> {
    source: S,
}

impl<S: Source> GroupBy<S> {
    /// Over a source that gives several rows with the same keys.
    pub fn new(source: S) -> Self {
        Self { source }
    }
}

/// What tells a row from others of its table.
fn identity<'a>(schema: &Schema, row: &'a Record) -> Vec<&'a Value> {
    let keys: Vec<&Value> = schema.keys().iter().map(|&at| &row.values[at]).collect();
    if keys.iter().any(|key| **key != Value::Null) {
        return keys;
    }
    let fields = schema.all().iter().zip(&row.values);
    fields.filter(|(field, _)| field.kind == Kind::Label).map(|(_, value)| value).collect()
}

fn group(block: &mut Block) {
    let mut firsts: HashMap<Vec<&Value>, usize> = HashMap::new();
    let into: Vec<usize> = block
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| *firsts.entry(identity(block.table, row)).or_insert(at))
        .collect();
    let groups = firsts.len();
    if groups == block.rows.len() {
        return;
    }
    let mut places = vec![0; into.len()];
    let mut rows: Vec<Record> = Vec::with_capacity(groups);
    for (at, row) in std::mem::take(&mut block.rows).into_iter().enumerate() {
        if into[at] == at {
            places[at] = rows.len();
            rows.push(row);
        } else {
            rows[places[into[at]]].merge(&row, true);
        }
    }
    block.rows = rows;
}

impl<S: Source> Source for GroupBy<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        if let Some(Item::Rows(block) | Item::Totals(block)) = &mut item
            && block.rows.iter().all(|row| row.row > 0)
        {
            group(block);
        }
        Ok(item)
    }
}

/// Adds up the rows of each block whose table has a sum.
#[derive(Debug)]
pub struct Sum<S> {
    source: S,
}

impl<S: Source> Sum<S> {
    /// Over a source whose rows may have a sum.
    pub fn new(source: S) -> Self {
        Self { source }
    }
}

/// All rows of a block in one, under this name.
fn sum(block: &Block, name: &'static str) -> Option<Record> {
    let (first, others) = block.rows.split_first()?;
    let mut sum = first.clone();
    others.iter().for_each(|row| sum.merge(row, false));
    let mut name = Some(name);
    for (field, value) in block.table.all().iter().zip(&mut sum.values) {
        if let Field { kind: Kind::Key | Kind::Label, cell, .. } = field {
            let is_name = matches!(cell, Some(cell) if cell.show.is_text());
            *value = name.take_if(|_| is_name).map(Value::word).into();
        }
    }
    Some(sum)
}

impl<S: Source> Source for Sum<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        if let Some(Item::Rows(block) | Item::Totals(block)) = &mut item
            && let Some(name) = block.table.total()
        {
            block.sum = sum(block, name);
        }
        Ok(item)
    }
}

/// Fills in what is made of other values (means, quantiles, shares), of which nothing is seen after it; and leaves out rows in
/// which nothing happened.
#[derive(Debug)]
pub struct Quantiles<S> {
    source: S,
}

impl<S: Source> Quantiles<S> {
    /// Over a source whose rows are subtracted and added up.
    pub fn new(source: S) -> Self {
        Self { source }
    }
}

fn derive(record: &mut Record) {
    let schema = record.schema();
    if record.values.len() == schema.all().len() {
        for &(at, derive) in schema.derived() {
            record.values[at] = derive(record);
        }
        record.values.truncate(schema.shown());
        record.values.shrink_to_fit();
    }
    record.row = 0;
}

impl<S: Source> Source for Quantiles<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        if let Some(Item::Rows(block) | Item::Totals(block)) = &mut item {
            if !block.table.idle() && !block.table.keys().is_empty() {
                block.rows.retain(|row| row.row == 0 || !row.is_idle());
            }
            block.rows.iter_mut().chain(&mut block.sum).for_each(derive);
        }
        Ok(item)
    }
}

/// Sorts the rows of each block by a column, if there is one; else they stay as they come.
#[derive(Debug)]
pub struct Sort<S> {
    source: S,
    key: SortKey,
}

impl<S: Source> Sort<S> {
    /// By the column at this place of the table: larger numbers first, texts in alphabetical order, the unknown last.
    pub fn new(source: S, key: impl Into<SortKey>) -> Self {
        Self { source, key: key.into() }
    }
}

impl<S: Source> Source for Sort<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        if let (Some(Item::Rows(block) | Item::Totals(block)), Some(column)) = (&mut item, self.key.column())
        {
            block.sort(column);
        }
        Ok(item)
    }
}

/// Keeps the first rows of each block.
#[derive(Debug)]
pub struct Top<S> {
    source: S,
    most: Option<usize>,
}

impl<S: Source> Top<S> {
    /// At most this many, if there is a limit.
    pub fn new(source: S, most: Option<usize>) -> Self {
        Self { source, most }
    }
}

impl<S: Source> Source for Top<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        let mut item = self.source.next()?;
        if let (Some(Item::Rows(block) | Item::Totals(block)), Some(most)) = (&mut item, self.most) {
            block.cut(most);
        }
        Ok(item)
    }
}

/// Leaves out the last rows where the totals repeat them: nobody wants to read the same table twice. That is if they are
/// since the start, or if no others came before.
#[derive(Debug)]
pub struct Unrepeated<S: Source> {
    source: S,
    cumulative: bool,
    has_rows: bool,
    /// Rows that may be the last, and what came since.
    held: Vec<Item>,
    ready: VecDeque<Item>,
    /// Why nothing more comes, once all that did was given.
    error: Option<S::Error>,
}

impl<S: Source> Unrepeated<S> {
    /// Over a source whose rows are of intervals, or `cumulative` ones.
    pub fn new(source: S, cumulative: bool) -> Self {
        Self { source, cumulative, has_rows: false, held: vec![], ready: VecDeque::new(), error: None }
    }

    fn take(&mut self, item: Item) {
        let is_of_now = |held: &Item, now: u64| matches!(held, Item::Rows(block) if block.time_ns == now);
        let goes_on = match &item {
            Item::Rows(block) => self.held.iter().all(|held| is_of_now(held, block.time_ns)),
            Item::Tick(_) => true,
            _ => false,
        };
        if !goes_on {
            let is_last = matches!(item, Item::Totals(_)) && (self.cumulative || !self.has_rows);
            let is_kept = |held: &Item| !is_last || !matches!(held, Item::Rows(_));
            self.has_rows |= self.held.iter().any(|held| matches!(held, Item::Rows(_)));
            self.ready.extend(self.held.drain(..).filter(is_kept));
        }
        if matches!(item, Item::Rows(_)) || goes_on && !self.held.is_empty() {
            self.held.push(item);
        } else {
            self.ready.push_back(item);
        }
    }
}

impl<S: Source> Source for Unrepeated<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Item>, S::Error> {
        while self.ready.is_empty() {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            match self.source.next() {
                Ok(Some(item)) => self.take(item),
                Ok(None) if self.held.is_empty() => return Ok(None),
                Ok(None) => self.ready.extend(self.held.drain(..)),
                Err(error) => {
                    self.ready.extend(self.held.drain(..));
                    self.error = Some(error);
                }
            }
        }
        Ok(self.ready.pop_front())
    }
}

/// The stages of a run, for one block after the other.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Stages(Quantiles<Sum<GroupBy<Delta<VecDeque<Item>>>>>);

#[cfg(test)]
impl Stages {
    pub(crate) fn new() -> Self {
        Self(Quantiles::new(Sum::new(GroupBy::new(Delta::new(VecDeque::new(), false)))))
    }

    fn pass(&mut self, item: Item) -> Block {
        self.0.source.source.source.source.push_back(item);
        match self.0.next() {
            Ok(Some(Item::Rows(block) | Item::Totals(block))) => block,
            other => panic!("{other:?}"),
        }
    }

    /// The rows of an interval.
    pub(crate) fn interval(&mut self, block: Block) -> Block {
        self.pass(Item::Rows(block))
    }

    /// Of how many rows it is known what they had come to.
    pub(crate) fn rows_known(&self) -> usize {
        self.0.source.source.source.seen.len()
    }

    /// Rows since the start.
    pub(crate) fn totals(&mut self, block: Block) -> Block {
        self.pass(Item::Totals(block))
    }
}

#[cfg(test)]
mod tests;
