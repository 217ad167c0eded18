//! Differences between runs: a source made of the totals of others, which have ended. It knows tables and no tool.
//!
//! Rows are joined by what is the same in another run: a name, a file, a function, a cause, a reason; never by a process id,
//! a start time or an inode. Their figures are per second of the run, or per operation.

mod comparable;
mod tables;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::field::{Field, Kind, Show, Type, Unit, Value};
use crate::item::{Block, Facts, Header, Item, Source};
use crate::kept::covered_ns;
use crate::table::Schema;

use self::tables::{DIFFERENCES, FACTS, Noted, Row, SETTINGS, Settings};

pub(crate) use self::tables::TABLES;
pub use self::tables::{LAYOUT, ROWS};

/// What is compared of a run that has ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// What messages call it: the name of its recording.
    pub name: String,
    /// What was run, where and how.
    pub header: Header,
    /// Its totals.
    pub totals: Vec<Block>,
    /// What it saw and lost.
    pub end: Facts,
}

impl Run {
    /// Reads a source to its end.
    ///
    /// # Errors
    /// When the source breaks.
    pub fn read<S: Source>(name: String, source: &mut S) -> Result<Self, S::Error> {
        let mut run = Self { name, header: Header::default(), totals: vec![], end: Facts::default() };
        while let Some(item) = source.next()? {
            match item {
                Item::Header(header) => run.header = header,
                Item::Totals(block) => run.totals.push(block),
                Item::End(end) => run.end = end,
                Item::Events(_) | Item::Rows(_) | Item::Facts(_) | Item::Tick(_) => {}
            }
        }
        Ok(run)
    }
}

/// What figures are divided by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Per {
    /// The duration of the run.
    #[default]
    Second,
    /// A number of operations in each run: of those before, of those after.
    Operations(u64, u64),
    /// Another figure of the row: calls, exits.
    Figure(String),
}

/// Which figures are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Figures {
    /// Those that grow and that a table for people shows.
    Shown,
    /// All that are numbers.
    All,
    /// These.
    Named(Vec<String>),
}

/// What is before, or what is after.
struct Side {
    operations: Option<u64>,
    runs: Vec<Gathered>,
}

/// The totals of a run in one table, by what its rows are about.
struct Gathered {
    /// What they are of, nanoseconds: the whole run, or a part of it.
    duration_ns: u64,
    rows: HashMap<Option<String>, Vec<Option<u64>>>,
    sum: Vec<Option<u64>>,
    /// Whether a figure grows and is known in the run at all: of rows that are not there it is 0.
    known: Vec<bool>,
}

/// The figures of a row on one side, in thousandths.
#[derive(Debug, Clone, Copy)]
struct Figure {
    mean: u64,
    /// From the least to the greatest of the runs, if there are several.
    spread: Option<u64>,
}

/// Compares runs: the totals of each table, a block for each figure, the largest differences first.
///
/// # Errors
/// Why they cannot be compared, in words.
pub fn diff(before: &[Run], after: &[Run], per: &Per, figures: &Figures) -> Result<VecDeque<Item>, String> {
    let differences = comparable::check(before, after)?;
    let Some(last) = after.last() else { return Err("there is no recording to compare with".into()) };
    let time_ns = last.header.start_ns.saturating_add(last.end.duration_ns);
    let mut blocks = Vec::new();
    for table in last.totals.iter().map(|block| block.table) {
        let fields = chosen(table, figures)?;
        let over = match per {
            Per::Figure(name) => Some(counter(table, name)?),
            Per::Second | Per::Operations(..) => None,
        };
        let operations = |pick: fn(u64, u64) -> u64| match per {
            Per::Operations(before, after) => Some(pick(*before, *after)),
            Per::Second | Per::Figure(_) => None,
        };
        let columns: Vec<&Field> = fields.iter().copied().chain(over).collect();
        let before = Side::gather(before, table, &columns, operations(|before, _| before));
        let after = Side::gather(after, table, &columns, operations(|_, after| after));
        let over_at = over.map(|_| columns.len() - 1);
        let of_figure = |at| block(&before, &after, columns[at], at, over_at, time_ns);
        blocks.extend((0..fields.len()).filter(|at| over != Some(columns[*at])).filter_map(of_figure));
    }
    let names = |runs: &[Run]| runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", ");
    let settings = Settings {
        of: last.totals.iter().map(|block| block.table.id()).collect::<Vec<_>>().join(", "),
        before: names(before),
        after: names(after),
        per: match per {
            Per::Second => "second".into(),
            Per::Operations(..) => "operation".into(),
            Per::Figure(name) => name.clone(),
        },
        differences,
    };
    let header = Header {
        tool: "diff".into(),
        tables: vec![ROWS],
        events: None,
        settings: vec![SETTINGS.record(&settings)],
        ..last.header.clone()
    };
    let noted = Noted {
        before_losses: comparable::losses(before),
        after_losses: comparable::losses(after),
        repeated: before.len() > 1 || after.len() > 1,
    };
    let all = || before.iter().chain(after).map(|run| &run.end);
    let end = Facts {
        duration_ns: all().map(|end| end.duration_ns).sum(),
        events: all().map(|end| end.events).sum(),
        lost_events: all().map(|end| end.lost_events).sum(),
        sampled: 1,
        own_cpu_ns: all().map(|end| end.own_cpu_ns).sum(),
        more: vec![FACTS.record(&noted)],
    };
    if blocks.is_empty() {
        blocks.push(Block::new(ROWS, time_ns, vec![]));
    }
    let items = [Item::Header(header)].into_iter().chain(blocks.into_iter().map(Item::Totals));
    Ok(items.chain([Item::End(end)]).collect())
}

fn is_figure(field: &Field) -> bool {
    field.ty == Type::U64 && matches!(field.kind, Kind::Counter | Kind::Gauge)
}

/// The figures that are compared, in the order in which they matter: times, counts, volumes, and what does not grow.
fn chosen(table: &'static Schema, figures: &Figures) -> Result<Vec<&'static Field>, String> {
    let all = || table.iter().filter(|field| is_figure(field));
    let mut chosen: Vec<&Field> = match figures {
        Figures::All => all().collect(),
        Figures::Shown => all().filter(|field| field.kind == Kind::Counter && field.cell.is_some()).collect(),
        Figures::Named(names) => {
            let find = |name: &String| {
                all().find(|field| field.name == name).ok_or_else(|| {
                    let names: Vec<&str> = all().map(|field| field.name).collect();
                    format!("{} has no figure `{name}`; there are {}", table.id(), names.join(", "))
                })
            };
            return names.iter().map(find).collect();
        }
    };
    chosen.sort_by_key(|field| match (field.kind, field.unit) {
        (Kind::Counter, Unit::Nanoseconds) => 0,
        (Kind::Counter, Unit::Count | Unit::None | Unit::Address) => 1,
        (Kind::Counter, Unit::Bytes) => 2,
        _ => 3,
    });
    Ok(chosen)
}

/// The figure that others are divided by.
fn counter(table: &'static Schema, name: &str) -> Result<&'static Field, String> {
    let all = || table.iter().filter(|field| is_figure(field) && field.kind == Kind::Counter);
    all().find(|field| field.name == name).ok_or_else(|| {
        let names: Vec<&str> = all().map(|field| field.name).collect();
        format!("--per {name}: {} counts {}", table.id(), names.join(", "))
    })
}

/// Columns that name one process, thread or enclave of one run, and nothing in another.
const OF_ONE_RUN: [&str; 3] = ["pid", "tid", "enclave"];

/// The columns that say what a row is about, in any run: keys that people are shown; for the ids of one run, the names that
/// are beside them.
fn stable(table: &Schema) -> Vec<usize> {
    let has_ids = table.iter().any(|field| OF_ONE_RUN.contains(&field.name));
    let is_stable = |field: &Field| match field.kind {
        _ if field.cell.is_none() => false,
        Kind::Key => !OF_ONE_RUN.contains(&field.name),
        Kind::Label => has_ids && field.ty == Type::Str,
        Kind::Counter | Kind::Gauge | Kind::Loss => false,
    };
    table.iter().enumerate().filter(|(_, field)| is_stable(field)).map(|(at, _)| at).collect()
}

/// What a row is about, if that is known.
fn name(fields: &[&Field], values: &[Value], stable: &[usize]) -> Option<String> {
    let word = |&at: &usize| match (&values[at], fields[at].cell.map(|cell| cell.show)) {
        (Value::Str(text), _) => Some(text.to_string()),
        (Value::U64(n), Some(Show::Hex | Show::HexOr(_))) => Some(format!("{} {n:#x}", fields[at].name)),
        (Value::U64(n), _) => Some(format!("{} {n}", fields[at].name)),
        _ => None,
    };
    let words: Vec<String> = stable.iter().filter_map(word).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

impl Side {
    fn gather(runs: &[Run], table: &Schema, figures: &[&Field], operations: Option<u64>) -> Self {
        let gather = |run: &Run| {
            let block = run.totals.iter().find(|block| block.table == table)?;
            Some(Gathered::new(run, block, figures))
        };
        Self { operations, runs: runs.iter().filter_map(gather).collect() }
    }

    /// A figure of a row, or of all rows, in each run in which it is known.
    fn figure(
        &self,
        name: Option<&Option<String>>,
        field: &Field,
        at: usize,
        over: Option<usize>,
    ) -> Option<Figure> {
        let of_run = |run: &Gathered| {
            let value = run.value(name, at)?;
            let (times, by) = match (field.kind, over) {
                (Kind::Gauge, _) => (1000, 1),
                (_, Some(over)) => (1000, run.value(name, over)?.into()),
                _ => match self.operations {
                    Some(operations) => (1000, operations.into()),
                    None => (1_000_000_000_000, run.duration_ns.into()),
                },
            };
            let scaled = u128::from(value) * times + by / 2;
            Some(u64::try_from(scaled.checked_div(by)?).unwrap_or(u64::MAX))
        };
        let values: Vec<u64> = self.runs.iter().filter_map(of_run).collect();
        let (least, greatest) = (values.iter().min()?, values.iter().max()?);
        let sum: u128 = values.iter().map(|&value| u128::from(value)).sum();
        let count = values.len() as u128;
        let mean = u64::try_from((sum + count / 2) / count).unwrap_or(u64::MAX);
        Some(Figure { mean, spread: (count > 1).then_some(greatest - least) })
    }

    fn has(&self, name: &Option<String>) -> bool {
        self.runs.iter().any(|run| run.rows.contains_key(name))
    }
}

impl Gathered {
    fn new(run: &Run, block: &Block, figures: &[&Field]) -> Self {
        let fields: Vec<&Field> = block.table.iter().collect();
        let stable = stable(block.table);
        let places: Vec<usize> =
            figures.iter().filter_map(|figure| fields.iter().position(|field| field == figure)).collect();
        let numbers = |values: &[Value]| -> Vec<Option<u64>> {
            let number = |&at: &usize| if let Value::U64(n) = values[at] { Some(n) } else { None };
            places.iter().map(number).collect()
        };
        let add = |into: &mut Vec<Option<u64>>, more: Vec<Option<u64>>| {
            for ((into, more), figure) in into.iter_mut().zip(more).zip(figures) {
                // What does not grow cannot be added.
                *into =
                    into.zip(more).filter(|_| figure.kind == Kind::Counter).map(|(a, b)| a.saturating_add(b));
            }
        };
        let mut rows: HashMap<Option<String>, Vec<Option<u64>>> = HashMap::new();
        let mut sum = vec![Some(0); figures.len()];
        let mut known = vec![block.rows.is_empty(); figures.len()];
        for row in &block.rows {
            let own = numbers(&row.values);
            known.iter_mut().zip(&own).for_each(|(known, own)| *known |= own.is_some());
            add(&mut sum, own.clone());
            match rows.entry(name(&fields, &row.values, &stable)) {
                std::collections::hash_map::Entry::Occupied(mut entry) => add(entry.get_mut(), own),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(own);
                }
            }
        }
        known.iter_mut().zip(figures).for_each(|(known, figure)| *known &= figure.kind == Kind::Counter);
        let sum = block.sum.as_ref().map_or(sum, |sum| numbers(&sum.values));
        let duration_ns = covered_ns(&run.header, &run.end, Some(block), false);
        Self { duration_ns, rows, sum, known }
    }

    /// A figure of a row, or of all; where a row is not there, nothing happened.
    fn value(&self, name: Option<&Option<String>>, at: usize) -> Option<u64> {
        match name.map(|name| self.rows.get(name)) {
            None => self.sum[at],
            Some(Some(values)) => values[at],
            Some(None) => self.known[at].then_some(0),
        }
    }
}

/// The differences of one figure, if it is known on any side.
fn block(
    before: &Side,
    after: &Side,
    field: &'static Field,
    at: usize,
    over: Option<usize>,
    time_ns: u64,
) -> Option<Block> {
    let names = |side: &Side| side.runs.iter().flat_map(|run| run.rows.keys().cloned()).collect::<Vec<_>>();
    let all: BTreeSet<Option<String>> = names(before).into_iter().chain(names(after)).collect();
    let is_per_operation = before.operations.is_some() || over.is_some();
    let row = |name: Option<&Option<String>>| {
        let [old, new] = [before, after].map(|side| side.figure(name, field, at, over));
        let only = name.and_then(|name| match (before.has(name), after.has(name)) {
            (true, false) => Some("before"),
            (false, true) => Some("after"),
            _ => None,
        });
        let name = name.cloned().unwrap_or_else(|| Some("TOTAL".into()));
        Row::new(field.name, name, unit(field, is_per_operation), old, new, only)
    };
    let mut rows: Vec<Row> = all.iter().filter_map(|name| row(Some(name))).collect();
    if rows.is_empty() {
        return None;
    }
    rows.sort_by(|a, b| (Reverse(a.size()), &a.name).cmp(&(Reverse(b.size()), &b.name)));
    let records = rows.iter().map(|row| DIFFERENCES.record(row)).collect();
    let sum = row(None).map(|sum| DIFFERENCES.record(&sum));
    Some(Block { sum, ..Block::new(ROWS, time_ns, records) })
}

/// The unit of a figure, a thousandth of which its numbers are in.
fn unit(field: &Field, per_operation: bool) -> String {
    let unit = match field.unit {
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
        Unit::Count | Unit::None | Unit::Address => "count",
    };
    match (field.kind, per_operation) {
        (Kind::Counter, false) => format!("{unit}/s"),
        (Kind::Counter, true) => format!("{unit}/op"),
        _ => unit.into(),
    }
}

#[cfg(test)]
mod tests;
