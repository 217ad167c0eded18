//! Recorded faults column by column: what is made of millions of them reads the columns that it needs, and makes no record of each.

use std::collections::HashMap;
use std::rc::Rc;

use crate::field::{Record, Value};
use crate::hosts::{has_host, with_host};
use crate::item::{Event, Header, Item, Source};
use crate::table::Schema;

/// The values of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// None of them is known.
    Unknown,
    /// Numbers.
    Numbers(Vec<Option<u64>>),
    /// Texts: for each its place in the list of different ones.
    Words(Vec<Option<u32>>, Rc<[Rc<str>]>),
}

/// Faults that follow each other in a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultColumns {
    table: &'static Schema,
    times_ns: Vec<u64>,
    columns: Vec<Values>,
    /// The machine on which they happened, where recordings of several are read.
    pub host: Option<Rc<str>>,
}

/// One step of a recorded stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Faults.
    Faults(FaultColumns),
    /// Anything else.
    Item(Item),
}

/// A recorded stream whose faults come column by column.
pub trait Chunks {
    /// Why there is no next one.
    type Error;

    /// The next step; nothing after the end.
    ///
    /// # Errors
    /// When the recording cannot be read on.
    fn next(&mut self) -> Result<Option<Chunk>, Self::Error>;
}

impl<C: Chunks + ?Sized> Chunks for Box<C> {
    type Error = C::Error;

    fn next(&mut self) -> Result<Option<Chunk>, C::Error> {
        (**self).next()
    }
}

/// A stream of items whose faults are put into columns.
#[derive(Debug)]
pub struct InColumns<S>(pub S);

impl<S: Source> Chunks for InColumns<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Chunk>, S::Error> {
        let item = self.0.next()?;
        Ok(item.map(|item| match item {
            Item::Events(events) => match FaultColumns::of(&events) {
                Some(batch) => Chunk::Faults(batch),
                None => Chunk::Item(Item::Events(events)),
            },
            item => Chunk::Item(item),
        }))
    }
}

/// Whether events of this table are single faults.
#[must_use]
pub fn are_faults(table: &Schema) -> bool {
    are_all_faults(table) || *table == *super::SLOW_EVENT
}

/// Whether they are all faults of the run, not the slow ones alone.
#[must_use]
pub fn are_all_faults(table: &Schema) -> bool {
    [super::EVENT, super::SPLIT_EVENT, super::STACK_EVENT].contains(&table)
}

/// Whether a recording has what the time of each fault was spent on. Faults with stacks have columns for it in any case.
#[must_use]
pub fn have_parts(header: &Header) -> bool {
    let knows = |table: &&'static Schema| table.has("lock_ns");
    let events = header.events.filter(knows);
    events.is_some_and(|events| events != super::STACK_EVENT || header.tables.iter().any(knows))
}

/// As what faults of this table are shown one by one: without their stacks.
#[must_use]
pub fn shown_as(table: &'static Schema, have_parts: bool) -> &'static Schema {
    match (table == super::STACK_EVENT, have_parts) {
        (false, _) => table,
        (true, true) => super::SPLIT_EVENT,
        (true, false) => super::EVENT,
    }
}

impl FaultColumns {
    /// Faults of this table that ended at these times; there is a column for each of its fields.
    #[must_use]
    pub fn new(table: &'static Schema, times_ns: Vec<u64>, columns: Vec<Values>) -> Self {
        debug_assert_eq!(table.iter().count(), columns.len());
        Self { table, times_ns, columns, host: None }
    }

    /// Of events, if all of them are faults of one table.
    pub(crate) fn of(events: &[Event]) -> Option<Self> {
        let table = events.first().map(|event| event.record.schema())?;
        if !are_faults(table) || events.iter().any(|event| *event.record.schema() != *table) {
            return None;
        }
        let values = |at: usize| events.iter().map(move |event| &event.record.values[at]);
        let column = |at: usize| {
            let number = |value: &Value| if let Value::U64(n) = value { Some(*n) } else { None };
            if values(at).all(|value| *value == Value::Null) {
                return Values::Unknown;
            }
            if !values(at).any(|value| matches!(value, Value::Str(_))) {
                return Values::Numbers(values(at).map(number).collect());
            }
            let mut places: HashMap<String, u32> = HashMap::new();
            let mut words: Vec<Rc<str>> = Vec::new();
            let mut place = |value: &Value| {
                let Value::Str(text) = value else { return None };
                Some(*places.entry(text.to_string()).or_insert_with(|| {
                    words.push((**text).into());
                    words.len() as u32 - 1
                }))
            };
            let codes = values(at).map(&mut place).collect::<Vec<_>>();
            Values::Words(codes, words.into())
        };
        let columns = (0..table.iter().count()).map(column).collect();
        Some(Self::new(table, events.iter().map(|event| event.time_ns).collect(), columns))
    }

    /// Their table.
    #[must_use]
    pub fn table(&self) -> &'static Schema {
        self.table
    }

    /// Puts texts into the columns of these names: of each row the one that its number in another column stands for, by its place in
    /// the lists.
    pub fn fill(
        &mut self,
        names: &[&str],
        lists: &[Rc<[Rc<str>]>],
        by: &str,
        place: impl Fn(u64) -> Option<u32>,
    ) {
        let at = |name: &str| self.table.position(name);
        let Some(Values::Numbers(numbers)) = at(by).and_then(|at| self.columns.get(at)) else { return };
        let places: Vec<Option<u32>> = numbers.iter().map(|number| place((*number)?)).collect();
        let columns: Vec<_> =
            names.iter().zip(lists).filter_map(|(name, list)| Some((at(name)?, list))).collect();
        for (at, list) in columns {
            if self.columns[at] == Values::Unknown {
                // An empty text is none.
                let is_text = |place: &u32| list.get(*place as usize).is_some_and(|text| !text.is_empty());
                let codes = places.iter().map(|place| place.filter(is_text)).collect();
                self.columns[at] = Values::Words(codes, Rc::clone(list));
            }
        }
    }

    /// The time of each.
    #[must_use]
    pub fn times_ns(&self) -> &[u64] {
        &self.times_ns
    }

    /// The column at this place of the table.
    pub(crate) fn column(&self, at: usize) -> &Values {
        self.columns.get(at).unwrap_or(&Values::Unknown)
    }

    /// Shows all times by a clock that is so far ahead of theirs; also those at which threads started.
    pub fn shift_clock(&mut self, ahead_ns: i64) {
        let shift = |time: &mut u64| *time = time.saturating_add_signed(ahead_ns);
        self.times_ns.iter_mut().for_each(shift);
        for (field, column) in self.table.iter().zip(&mut self.columns) {
            if let (true, Values::Numbers(numbers)) = (field.is_start(), column) {
                numbers.iter_mut().flatten().for_each(shift);
            }
        }
    }

    /// Takes the first of them away.
    #[must_use]
    pub fn split_front(&mut self, count: usize) -> Self {
        let front = |column: &mut Values| match column {
            Values::Unknown => Values::Unknown,
            Values::Numbers(numbers) => Values::Numbers(front(numbers, count)),
            Values::Words(codes, words) => Values::Words(front(codes, count), Rc::clone(words)),
        };
        let columns = self.columns.iter_mut().map(front).collect();
        Self {
            table: self.table,
            times_ns: self::front(&mut self.times_ns, count),
            columns,
            host: self.host.clone(),
        }
    }

    /// All of them as events.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let hosted = self.host.as_ref().and(with_host(self.table));
        (0..self.times_ns.len()).map(|row| self.event(row, hosted.unwrap_or(self.table))).collect()
    }

    /// One of them as an event of a table: that of its columns, the same behind the machine, or one that has not all of them.
    pub(super) fn event(&self, row: usize, table: &'static Schema) -> Event {
        let host = has_host(table).then(|| Value::from(self.host.as_deref()));
        let own = usize::from(host.is_some());
        let values: Vec<Value> = if table.iter().skip(own).count() == self.columns.len() {
            host.into_iter().chain(self.columns.iter().map(|column| column.value(row))).collect()
        } else {
            let value =
                |name: &str| self.table.position(name).map_or(Value::Null, |at| self.columns[at].value(row));
            let others = table.iter().skip(own).map(|field| value(field.name));
            host.into_iter().chain(others).collect()
        };
        Event { time_ns: self.times_ns[row], record: Record::new(table, values) }
    }
}

fn front<T>(values: &mut Vec<T>, count: usize) -> Vec<T> {
    let rest = values.split_off(count.min(values.len()));
    std::mem::replace(values, rest)
}

impl Values {
    /// The number in a row.
    pub(crate) fn number(&self, row: usize) -> Option<u64> {
        if let Self::Numbers(numbers) = self { numbers.get(row).copied().flatten() } else { None }
    }

    /// The text in a row.
    pub(crate) fn word(&self, row: usize) -> Option<&Rc<str>> {
        let Self::Words(codes, words) = self else { return None };
        words.get(codes.get(row).copied().flatten()? as usize)
    }

    fn value(&self, row: usize) -> Value {
        match self {
            Self::Unknown => Value::Null,
            Self::Numbers(_) => self.number(row).into(),
            Self::Words(..) => self.word(row).map(|word| &**word).into(),
        }
    }
}

/// The texts of a batch.
type List = Rc<[Rc<str>]>;

/// Numbers for texts that come in batches, each with a list of its own.
#[derive(Debug, Default)]
pub(super) struct Words {
    places: HashMap<Rc<str>, u32>,
    words: Vec<Rc<str>>,
    /// The list that was seen last, and the number of each of its texts, if it was asked for.
    last: Option<(List, Vec<u32>)>,
}

/// The number of a text that is not known.
pub(super) const NONE: u64 = u64::MAX;

impl Words {
    /// The number of the text.
    pub(super) fn place(&mut self, word: &Rc<str>) -> u32 {
        if let Some(place) = self.places.get(word) {
            return *place;
        }
        let place = self.words.len() as u32;
        self.words.push(Rc::clone(word));
        self.places.insert(Rc::clone(word), place);
        place
    }

    /// The numbers of the texts of a list, for those that were asked for.
    fn of_list(&mut self, list: &List) -> &mut Vec<u32> {
        if !matches!(&self.last, Some((last, _)) if Rc::ptr_eq(last, list)) {
            self.last = None;
        }
        let new = || (Rc::clone(list), vec![u32::MAX; list.len()]);
        &mut self.last.get_or_insert_with(new).1
    }

    /// The number of a column's value in a row: of a text, or itself.
    pub(super) fn number(&mut self, column: &Values, row: usize) -> u64 {
        let Values::Words(codes, list) = column else { return column.number(row).unwrap_or(NONE) };
        let Some(code) = codes.get(row).copied().flatten() else { return NONE };
        match self.of_list(list).get(code as usize) {
            None => NONE,
            Some(&place) if place != u32::MAX => place.into(),
            Some(_) => {
                let place = self.place(&list[code as usize]);
                if let Some(of) = self.of_list(list).get_mut(code as usize) {
                    *of = place;
                }
                place.into()
            }
        }
    }

    /// The text of a number.
    pub(super) fn word(&self, number: u64) -> Option<&Rc<str>> {
        self.words.get(usize::try_from(number).ok()?)
    }
}
