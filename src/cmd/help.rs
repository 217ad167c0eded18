//! `trapline help`: the help of a command, or the text of a topic. A topic's text is also the page of that name in `docs/`.

use std::fmt::Write as _;
use std::io::{self, Write};

use anyhow::{Context, Result};
use trapline_model::{Field, Kind, TABLES, Type, Unit, has_host};

use crate::status::Usage;

/// A page that the command prints, and that `docs/` has too.
struct Topic {
    name: &'static str,
    text: fn() -> String,
}

const TOPICS: &[Topic] = &[
    Topic { name: "losses", text: losses },
    Topic { name: "columns", text: columns },
    Topic { name: "variants", text: || include_str!("../../docs/variants.md").to_owned() },
    Topic { name: "containers", text: || include_str!("../../docs/containers.md").to_owned() },
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A command, a command and its subcommand, or a topic: losses, columns, variants, containers
    #[arg(value_name = "COMMAND|TOPIC")]
    of: Vec<String>,
}

/// Prints the text.
///
/// # Errors
/// When there is no such command or topic, or standard output cannot be written.
pub(crate) fn run(args: &Args, command: clap::Command) -> Result<()> {
    let topic = match args.of.as_slice() {
        [name] => TOPICS.iter().find(|topic| topic.name == name),
        _ => None,
    };
    let Some(topic) = topic else { return of_command(&args.of, command) };
    let text = (topic.text)();
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn of_command(names: &[String], command: clap::Command) -> Result<()> {
    let mut of = &command;
    for name in names {
        of = of.find_subcommand(name).ok_or_else(|| {
            let topics: Vec<_> = TOPICS.iter().map(|topic| topic.name).collect();
            Usage::error(format!("no command or topic {name}; the topics are {}", topics.join(", ")))
        })?;
    }
    let words = ["trapline"].into_iter().chain(names.iter().map(String::as_str)).chain(["--help"]);
    let written = command.try_get_matches_from(words).map_or_else(|help| help.print(), |_| Ok(()));
    written.context("cannot write to standard output")
}

fn losses() -> String {
    let mut text = "# Losses

What each tool can lose, and the name of that figure in the `end` record. Below a table there is a
line for each that is not 0. A figure that does not apply to a run is `null`. `trapline help losses` prints this page.
"
    .to_owned();
    by_tool(&mut text, |field| field.kind == Kind::Loss);
    text
}

fn columns() -> String {
    let mut text = "# Columns

All fields of rows, totals, events, headers and ends, in JSON lines and CSV. In parentheses: the heading in a table, the unit,
and the tables that have the field if they are few. `trapline help columns` prints this page;
`trapline help losses` the losses.
"
    .to_owned();
    by_tool(&mut text, |field| field.kind != Kind::Loss);
    text
}

/// Adds a list of the fields that are wanted, a tool at a time, each field once.
fn by_tool(text: &mut String, is_wanted: fn(&Field) -> bool) {
    // Tables of several machines have one column more.
    let tables: Vec<_> = TABLES.iter().filter(|table| !has_host(**table)).collect();
    let mut tools: Vec<_> = tables.iter().map(|table| table.tool()).collect();
    tools.dedup();
    for tool in tools {
        let tables: Vec<_> = tables
            .iter()
            .filter(|table| table.tool() == tool && table.iter().any(is_wanted))
            .map(|table| (table.id().split_once('.').map_or(table.id(), |(_, id)| id), table))
            .collect();
        let mut fields: Vec<(&Field, Vec<&str>)> = Vec::new();
        for (id, table) in &tables {
            for field in table.iter().filter(|field| is_wanted(field)) {
                let is_same = |other: &&mut (&Field, Vec<&str>)| {
                    (other.0.name, other.0.help) == (field.name, field.help)
                };
                match fields.iter_mut().find(is_same) {
                    Some((_, ids)) => ids.push(id),
                    None => fields.push((field, vec![id])),
                }
            }
        }
        if !fields.is_empty() {
            let _ = writeln!(text, "\n## {tool}\n");
        }
        for (field, ids) in fields {
            let heading = field.cell.map(|cell| cell.title).filter(|title| !title.is_empty());
            let unit = match (field.unit, field.ty) {
                (_, Type::Bool) => Some("0 or 1"),
                (Unit::Nanoseconds, _) => Some("ns"),
                (Unit::Bytes, _) => Some("bytes"),
                (Unit::Address, _) => Some("address"),
                (Unit::Count | Unit::None, _) => None,
            };
            let is_of_few = ids.len() <= 3 && ids.len() < tables.len() && field.kind != Kind::Loss;
            let tables = is_of_few.then(|| ids.join(", "));
            let notes: Vec<_> =
                [heading.map(str::to_owned), unit.map(str::to_owned), tables].into_iter().flatten().collect();
            let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
            let _ = writeln!(text, "- `{}`{notes}: {}", field.name, field.help);
        }
    }
}
