//! Headings and rows: the columns that fields declare, and those of a layout.

use std::io::{self, Write};

use trapline_model::layout::Column;
use trapline_model::{Block, Cell, Field, Kind, Record, Schema, Show, Type, Value};
use unicode_width::UnicodeWidthStr;

use crate::escape::{name, visible};
use crate::template::{Template, Word};

/// Writes a block in columns that are not those of its fields.
pub(crate) fn drawn(out: &mut impl Write, columns: &[Column], block: &Block) -> io::Result<()> {
    let read = |template: fn(&Column) -> &str| -> Vec<Template> {
        columns.iter().map(|column| Template::new(template(column))).collect()
    };
    let (row_cells, sum_cells) = (read(|column| column.cell), read(|column| column.sum));
    let cells = |row: &Record, templates: &[Template]| -> Vec<String> {
        let word = |name: &str| Word::Value(row.get(name).cloned().unwrap_or(Value::Null));
        templates.iter().map(|template| template.line(&word)).collect()
    };
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|column| column.title.to_owned()).collect()];
    lines.extend(block.rows.iter().map(|row| cells(row, &row_cells)));
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| lines.iter().map(|line| line[i].width()).fold(columns[i].width, usize::max))
        .collect();
    if block.hidden > 0 {
        let more =
            |column: &Column| if column.left { format!("({} more)", block.hidden) } else { String::new() };
        let first = columns.iter().position(|column| column.left);
        let line = columns.iter().enumerate();
        lines.push(
            line.map(|(i, column)| if Some(i) == first { more(column) } else { String::new() }).collect(),
        );
    }
    lines.extend(block.sum.iter().map(|sum| cells(sum, &sum_cells)));
    for line in lines {
        let mut text = String::new();
        for ((cell, column), width) in line.iter().zip(columns).zip(&widths) {
            let pad = " ".repeat(width.saturating_sub(cell.width()));
            text.extend(if column.left { [cell.as_str(), &pad, " "] } else { [&pad, cell.as_str(), " "] });
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
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

/// The column of a field, if it has one in the row itself.
fn column(field: &Field) -> Option<Cell> {
    field.cell.filter(|cell| cell.show != Show::Stack)
}

pub(crate) fn headings(schema: &Schema) -> String {
    let cells = schema.iter().filter_map(|field| column(field).map(|c| (field, c.title.to_owned())));
    join(cells)
}

pub(crate) fn line(record: &Record) -> String {
    // A sum, and what was folded, have no key: words for what a key does not have are not for them.
    let is_key = |(field, value): (&Field, &Value)| {
        field.kind == Kind::Key && field.ty == Type::U64 && *value != Value::Null
    };
    let has_key = record.iter().any(is_key);
    let text = |field: &Field, value: &Value, show| match (value, show) {
        (Value::Str(comm), _) if field.name == "comm" => name(comm),
        (Value::Null, Show::HexOr(_)) if !has_key => cell(value, Show::Hex),
        _ => cell(value, show),
    };
    join(
        record.iter().filter_map(|(field, value)| column(field).map(|c| (field, text(field, value, c.show)))),
    )
}

fn join<'a>(cells: impl Iterator<Item = (&'a Field, String)>) -> String {
    let mut line = String::new();
    for (i, (field, text)) in cells.enumerate() {
        let Some(column) = field.cell else { continue };
        if i > 0 {
            line.push(' ');
        }
        let pad = " ".repeat(column.width.saturating_sub(text.width()));
        if column.show == Show::Text { line.extend([text, pad]) } else { line.extend([pad, text]) }
    }
    line.truncate(line.trim_end().len());
    line
}

pub(crate) fn cell(value: &Value, show: Show) -> String {
    match (value, show) {
        (Value::Null, Show::HexOr(none)) => none.into(),
        (Value::Null | Value::Buckets(_) | Value::Hist(_), _) => "-".into(),
        (Value::Str(s), _) => visible(s),
        (Value::Bool(is), _) => if *is { "yes" } else { "no" }.into(),
        (Value::U64(n), Show::Hex | Show::HexOr(_)) => format!("{n:#x}"),
        (Value::U64(n), Show::Milliseconds(decimals)) => format!("{:.decimals$}", *n as f64 / 1e6),
        (Value::U64(n), Show::Microseconds(decimals)) => format!("{:.decimals$}", *n as f64 / 1e3),
        (Value::U64(n), Show::Percent(decimals)) => format!("{:.decimals$}", *n as f64 / 1e4),
        (Value::U64(n), Show::Thousandths(decimals)) => format!("{:.decimals$}", *n as f64 / 1e3),
        (Value::U64(n), Show::Megabytes(decimals)) => format!("{:.decimals$}", *n as f64 / 1_048_576.0),
        (Value::U64(n), Show::Integer | Show::Text | Show::Stack) => n.to_string(),
    }
}
