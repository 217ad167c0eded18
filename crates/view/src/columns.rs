//! The cells of rows: of the columns that fields declare, and of those of a layout.

use trapline_model::layout::Column;
use trapline_model::{Block, Cell, Field, Kind, Of, Record, Relative, Schema, Show, Type, Value};

use crate::escape::{name, visible};
use crate::fit::{Constraint, Text};
use crate::template::{Template, Word};

/// The columns that fields declare.
pub(crate) fn constraints(schema: &Schema) -> Vec<Constraint> {
    schema.iter().filter_map(column).map(Constraint::of_field).collect()
}

/// The place among these columns of the field at this place.
pub(crate) fn place(schema: &Schema, field: usize) -> Option<usize> {
    let shown = |field: &&Field| column(field).is_some();
    schema.iter().nth(field).filter(shown)?;
    Some(schema.iter().take(field).filter(shown).count())
}

/// A row's cells in columns that are not those of its fields.
pub(crate) fn drawn(row: &Record, templates: &[Template]) -> Vec<Text> {
    let word = |name: &str| Word::Value(row.get(name).cloned().unwrap_or(Value::Null));
    templates.iter().map(|template| Text { text: template.line(&word), highlight: false }).collect()
}

/// The templates of a layout's columns.
pub(crate) fn templates(columns: &[Column], template: fn(&Column) -> &str) -> Vec<Template> {
    columns.iter().map(|column| Template::new(template(column))).collect()
}

/// A row's stack, a frame a line, innermost first.
pub(crate) fn frames(row: &Record) -> Vec<String> {
    let mut fields = row.iter();
    let Some((_, stack)) = fields.find(|(field, _)| field.cell.is_some_and(|c| c.show == Show::Stack)) else {
        return vec![];
    };
    let Value::Str(stack) = stack else { return vec!["    (no stack taken)".into()] };
    let lines = match fields.next() {
        Some((_, Value::Str(lines))) => lines.as_ref(),
        _ => "",
    };
    let lines = lines.split(';').map(visible).chain(std::iter::repeat(String::new()));
    let frames = stack.split(';').zip(lines).map(|(frame, line)| {
        let frame = visible(frame);
        if line.is_empty() { format!("    {frame}") } else { format!("    {frame}  {line}") }
    });
    let mut frames: Vec<String> = frames.collect();
    frames.reverse();
    frames
}

/// A row's cells in the columns that only tables for people have.
pub(crate) fn relative(columns: &[Relative], block: &Block, row: &Record) -> Vec<Text> {
    let figure = |row: &Record, names: &[&str]| {
        names.iter().try_fold(0_u64, |sum, name| Some(sum.saturating_add(row.number(name)?)))
    };
    let cell = |of: Of| match of {
        Of::Share(names) => {
            let (part, whole) = (figure(row, names)?, figure(block.sum.as_ref()?, names)?);
            (whole > 0).then(|| format!("{:.1}", part as f64 / whole as f64 * 100.0))
        }
        Of::PerSecond(names) => {
            let seconds = block.time_ns.checked_sub(block.since_ns?)? as f64 / 1e9;
            let n = figure(row, names)?;
            (seconds > 0.0).then(|| format!("{:.0}", n as f64 / seconds))
        }
    };
    columns
        .iter()
        .map(|column| Text { text: cell(column.of).unwrap_or("-".into()), highlight: false })
        .collect()
}

/// The column of a field, if it has one in the row itself.
fn column(field: &Field) -> Option<Cell> {
    field.cell.filter(|cell| cell.show != Show::Stack)
}

/// A row's cells, as its fields declare them; `color` if some may stand out.
pub(crate) fn cells(record: &Record, color: bool) -> Vec<Text> {
    // A sum, and what was folded, have no key: words for what a key does not have are not for them.
    let is_key = |(field, value): (&Field, &Value)| {
        field.kind == Kind::Key && field.ty == Type::U64 && *value != Value::Null
    };
    let has_key = record.iter().any(is_key);
    let text = |field: &Field, value: &Value, show| match (value, show) {
        (Value::Str(comm), _) if field.name == "comm" => name(comm),
        (Value::Null, Show::HexOr(_) | Show::TextOr(_)) if !has_key => cell(value, Show::Hex),
        _ => cell(value, show),
    };
    let shown = record.iter().filter_map(|(field, value)| Some((field, value, column(field)?)));
    let cells = shown.map(|(field, value, column)| Text {
        text: text(field, value, column.show),
        highlight: color && column.highlight.is_some_and(|highlight| highlight.is(value)),
    });
    cells.collect()
}

pub(crate) fn cell(value: &Value, show: Show) -> String {
    match (value, show) {
        (Value::Null, Show::HexOr(none) | Show::TextOr(none)) => none.into(),
        (Value::Null | Value::Buckets(_) | Value::Hist(_), _) => "-".into(),
        (Value::Str(s), _) => visible(s),
        (Value::Bool(is), _) => if *is { "yes" } else { "no" }.into(),
        (Value::I64(n), _) => n.to_string(),
        (Value::U64(n), Show::Hex | Show::HexOr(_)) => format!("{n:#x}"),
        (Value::U64(n), Show::Milliseconds(decimals)) => format!("{:.decimals$}", *n as f64 / 1e6),
        (Value::U64(n), Show::Microseconds(decimals)) => format!("{:.decimals$}", *n as f64 / 1e3),
        (Value::U64(n), Show::Percent(decimals)) => format!("{:.decimals$}", *n as f64 / 1e4),
        (Value::U64(n), Show::Thousandths(decimals)) => format!("{:.decimals$}", *n as f64 / 1e3),
        (Value::U64(n), Show::Megabytes(decimals)) => format!("{:.decimals$}", *n as f64 / 1_048_576.0),
        (Value::U64(n), Show::Integer | Show::Text | Show::TextOr(_) | Show::Path | Show::Stack) => {
            n.to_string()
        }
    }
}
