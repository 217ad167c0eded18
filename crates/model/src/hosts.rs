//! The tables of rows of several machines: those of one, behind a column with its name.

use std::sync::LazyLock;

use crate::field::{Cell, Field, Kind, Merge, Record, Show, Type, Unit};
use crate::item::Item;
use crate::table::{Columns, Part, Relative, Schema, Shape};
use crate::{access, faults, kvm, sgx};

/// The name of the column.
pub(crate) const HOST: &str = "host";

static FIELD: Field = Field {
    name: HOST,
    ty: Type::Str,
    unit: Unit::None,
    kind: Kind::Key,
    merge: Merge::Last,
    help: "The name of the machine.",
    cell: Some(Cell { title: "HOST", width: 16, show: Show::Text, least: 8, yields: 0, highlight: None }),
};

/// A table with the name of the machine.
struct Hosted {
    of: &'static Schema,
    id: &'static str,
    shape: Shape,
}

impl Columns for Hosted {
    fn id(&self) -> &'static str {
        self.id
    }

    fn tool(&self) -> &'static str {
        self.of.tool()
    }

    fn part(&self) -> Part {
        self.of.part()
    }

    fn total(&self) -> Option<&'static str> {
        self.of.total()
    }

    fn idle(&self) -> bool {
        self.of.idle()
    }

    fn relative(&self) -> &'static [Relative] {
        self.of.relative()
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// The tables of rows of which several recordings can be one, beside those without the name of a machine. They are made once and stay.
static HOSTED: LazyLock<Vec<(&'static Schema, &'static Schema)>> = LazyLock::new(|| {
    let is_of_rows = |table: &&Schema| table.part() == Part::Rows;
    let tables = faults::tables().chain(kvm::tables()).chain(sgx::tables()).filter(is_of_rows);
    let tables = tables.chain([access::EVENT, access::TOTAL]);
    let hosted = |of: &'static Schema| {
        let rest = of.id().split_once('.').map_or("", |(_, rest)| rest);
        // Rows of machines and nothing else.
        let id =
            if *of == *faults::ALL { "faults.host".to_owned() } else { format!("{}.host_{rest}", of.tool()) };
        let hosted = Hosted { of, id: id.leak(), shape: Shape::behind(&FIELD, of) };
        (of, &*Box::leak(Box::new(hosted)) as &Schema)
    };
    tables.chain([faults::ALL]).map(hosted).collect()
});

/// All of them.
pub(crate) fn tables() -> impl Iterator<Item = &'static Schema> {
    HOSTED.iter().map(|(_, hosted)| *hosted)
}

/// The table of the same rows with the name of their machine, if there can be one.
#[must_use]
pub fn with_host(of: &Schema) -> Option<&'static Schema> {
    HOSTED.iter().find(|(own, _)| **own == *of).map(|(_, hosted)| *hosted)
}

/// The same if rows are of machines, too; else the table itself.
#[must_use]
pub fn hosted(of: &'static Schema, by_host: bool) -> &'static Schema {
    with_host(of).filter(|_| by_host).unwrap_or(of)
}

/// Puts the name of the machine into a record, if there can be one.
pub(crate) fn name(record: &mut Record, host: &str) {
    if let Some(table) = with_host(record.schema()) {
        *record = record.of_host(table, host);
    }
}

/// The same of all records of an item.
pub(crate) fn name_all(item: &mut Item, host: &str) {
    match item {
        Item::Events(events) => events.iter_mut().for_each(|event| name(&mut event.record, host)),
        Item::Rows(block) | Item::Totals(block) => {
            block.rows.iter_mut().chain(&mut block.sum).for_each(|record| name(record, host));
            block.table = hosted(block.table, true);
        }
        Item::Header(_) | Item::Facts(_) | Item::Tick(_) | Item::End(_) => {}
    }
}

/// Whether its rows have the name of their machine.
#[must_use]
pub fn has_host(table: &Schema) -> bool {
    table.iter().next().is_some_and(|field| field.name == HOST)
}
