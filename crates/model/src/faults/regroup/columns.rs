//! Where the columns of a row come from.

use super::super::fault_columns::{FaultColumns, NONE, Words};
use super::super::group::{container, pod};
use crate::field::{Kind, Type, Value};
use crate::table::Schema;

/// Where a column comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The machine.
    Host,
    /// A column of the faults.
    Column(&'static str),
    /// The container in the path of a cgroup.
    Container,
    /// The pod in it.
    Pod,
}

/// A column of rows that is no figure.
#[derive(Debug)]
pub(super) struct Copied {
    /// Its place in the rows.
    pub(super) at: usize,
    pub(super) from: From,
    /// It tells rows apart.
    pub(super) is_key: bool,
    is_text: bool,
}

/// The columns of rows that are no figures.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) copied: Vec<Copied>,
    /// The number of keys.
    pub(super) keys: usize,
    /// Rows are told apart by more than the machine.
    pub(super) has_keys: bool,
    /// Rows are of processes.
    pub(super) of_processes: bool,
}

/// The column of the faults with what a column of rows has, which may be rows of processes.
fn named(faults: &Schema, name: &'static str, kind: Kind, of_processes: bool) -> Option<From> {
    Some(match name {
        "host" => From::Host,
        "container" => From::Container,
        "pod" => From::Pod,
        "start_ns" if of_processes => From::Column("process_start_ns"),
        // That of a process; a fault has its thread's, too.
        "comm" if of_processes || kind == Kind::Key => From::Column("process_comm"),
        _ if faults.has(name) => From::Column(name),
        _ => return None,
    })
}

impl Columns {
    /// Of a table of rows that are made of faults of another.
    ///
    /// # Errors
    /// The first key that faults do not have.
    pub(super) fn new(table: &'static Schema, faults: &Schema) -> Result<Self, &'static str> {
        let has_tid = table.has("tid");
        let of_processes = !has_tid && table.has("start_ns");
        let mut copied = Vec::new();
        let mut has_keys = false;
        for (at, field) in table.iter().enumerate() {
            if matches!(field.kind, Kind::Counter | Kind::Gauge)
                || matches!(field.name, "offset" | "offset_end")
            {
                continue;
            }
            let from = named(faults, field.name, field.kind, of_processes);
            match from {
                Some(from) => {
                    let is_key = field.kind == Kind::Key;
                    has_keys |= is_key && from != From::Host;
                    copied.push(Copied { at, from, is_key, is_text: field.ty == Type::Str });
                }
                // Numbers of devices and files belong to a name that is a key.
                None if field.kind == Kind::Key && !has_keys => {
                    return Err(field.name);
                }
                None => {}
            }
        }
        let keys = copied.iter().filter(|copied| copied.is_key).count();
        Ok(Self { copied, keys, has_keys, of_processes })
    }
}

/// The same in the faults of a table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Host,
    At(usize),
    Nowhere,
}

impl From {
    /// The name of the column of the faults.
    pub(super) fn column(self) -> Option<&'static str> {
        match self {
            Self::Host => None,
            Self::Column(name) => Some(name),
            Self::Container | Self::Pod => Some("cgroup"),
        }
    }

    pub(super) fn place(self, faults: &Schema) -> Place {
        let Some(name) = self.column() else { return Place::Host };
        faults.position(name).map_or(Place::Nowhere, Place::At)
    }
}

impl Place {
    /// The number of the value in a row.
    pub(super) fn number(self, batch: &FaultColumns, row: usize, words: &mut Words) -> u64 {
        match self {
            Self::Host => batch.host.as_ref().map_or(NONE, |host| words.place(host).into()),
            Self::At(at) => words.number(batch.column(at), row),
            Self::Nowhere => NONE,
        }
    }
}

impl Copied {
    /// The value of a number.
    pub(super) fn value(&self, number: u64, words: &Words) -> Value {
        let word = || words.word(number).map(|word| &**word);
        match self.from {
            _ if number == NONE => Value::Null,
            From::Container => word().and_then(container).into(),
            From::Pod => word().and_then(pod).into(),
            _ if self.is_text => word().into(),
            _ => number.into(),
        }
    }
}
