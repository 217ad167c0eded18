//! What a row is about.

use std::hash::{DefaultHasher, Hash, Hasher};

use trapline_model::faults::IN_KERNEL;
use trapline_model::{Kind, Record, Schema, Type, Unit, Value};

use super::bars::time;
use crate::escape::visible;

/// Whether an event is of the row with these keys: a row may be of its page.
pub(super) fn is_of(event: &Record, keys: &[(&'static str, Value)]) -> bool {
    let is = |(name, key): &(&'static str, Value)| match (key, event.get(name)) {
        (Value::U64(page), Some(Value::U64(addr))) if *name == "addr" => {
            addr == page || addr & !0xfff == *page
        }
        (_, None) => true,
        (key, Some(value)) => value == key,
    };
    keys.iter().all(is)
}

/// The keys of a row that people see: they mean the same in other tables.
pub(super) fn shown_keys(row: &Record) -> impl Iterator<Item = (&'static str, Value)> + '_ {
    let keys = row
        .iter()
        .filter(|(field, value)| field.kind == Kind::Key && field.cell.is_some() && **value != Value::Null);
    keys.map(|(field, value)| (field.name, value.clone()))
}

/// What tells a row from others: two that differ may have the same number, once in about 2⁶⁴ pairs.
pub(super) fn identity(row: &Record) -> u64 {
    let hash = |kind: Kind| {
        let mut hasher = DefaultHasher::new();
        let values = row.iter().filter(|(field, value)| field.kind == kind && **value != Value::Null);
        let known = values.map(|(_, value)| value.hash(&mut hasher)).count();
        (known > 0).then(|| hasher.finish())
    };
    hash(Kind::Key).or_else(|| hash(Kind::Label)).unwrap_or(1)
}

/// What a row is about, in words; of those of its names that matter.
pub(super) fn words(row: &Record, matters: impl Fn(&str) -> bool) -> String {
    let is_name = |kind: Kind| matches!(kind, Kind::Key | Kind::Label);
    let names = row.iter().filter(|(field, _)| is_name(field.kind) && field.cell.is_some());
    let names = names.filter(|(field, _)| matters(field.name));
    let words = names.filter_map(|(field, value)| match value {
        Value::Str(text) if is_stack(row.schema()) => Some(visible(innermost(text))),
        Value::Str(text) => Some(visible(text)),
        Value::U64(n) if field.ty == Type::U64 && field.kind == Kind::Key => Some(match field.unit {
            Unit::Nanoseconds => format!("at {}", time(*n)),
            Unit::Address => format!("{n:#x}"),
            _ => n.to_string(),
        }),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether rows are of stacks.
pub(super) fn is_stack(schema: &Schema) -> bool {
    schema.has("stack")
}

/// The last function of a stack in user mode; one of the kernel's where there is none.
pub(super) fn innermost(stack: &str) -> &str {
    let mut frames = stack.rsplit(';');
    frames.clone().find(|frame| !frame.ends_with(IN_KERNEL)).or_else(|| frames.next()).unwrap_or(stack)
}
