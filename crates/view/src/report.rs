//! One HTML page that needs nothing else: the figures of a [`Report`] as JSON, the script that draws them, and its style. What other
//! processes named is data: it is in no markup, and the script puts it into text nodes alone.

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use trapline_model::report::{Cube, Report, Run, least_ns};
use trapline_model::{Block, Facts, Field, Kind, RUN, Record, Unit, Value};

use crate::escape::visible;
use crate::frames;

const PAGE: &str = include_str!("report/page.html");
const STYLE: &str = include_str!("report/style.css");
const SCRIPT: &str = include_str!("report/script.js");

/// The longest name in a page, characters: the middle of a longer one is left out.
const LONGEST: usize = 400;
/// The functions of a flame graph, those with the most first.
const MOST_FRAMES: usize = 20_000;

/// Writes the page.
///
/// # Errors
/// When it cannot be written.
pub fn write_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    // Also what could end the element of the data.
    let data = data(report).to_string().replace('<', "\\u003c").replace('>', "\\u003e");
    let parts = [("{style}", STYLE), ("{script}", SCRIPT), ("{data}", &data)];
    let mut rest = PAGE;
    while let Some((at, (mark, text))) =
        { parts.iter().filter_map(|part| Some((rest.find(part.0)?, part))).min_by_key(|(at, _)| *at) }
    {
        write!(out, "{}{text}", &rest[..at])?;
        rest = &rest[at + mark.len()..];
    }
    write!(out, "{rest}")?;
    out.flush()
}

/// A name as the page shows it.
fn name(text: &str) -> String {
    let text = visible(text);
    let length = text.chars().count();
    if length <= LONGEST {
        return if text.trim().is_empty() { "[no name]".to_owned() } else { text };
    }
    let half = LONGEST / 2;
    let (first, last) = (text.chars().take(half), text.chars().skip(length - half));
    first.chain(['…']).chain(last).collect()
}

fn data(report: &Report) -> Json {
    let mut page = Map::new();
    let first = report.runs.first();
    let text = |get: fn(&Run) -> String| first.map(get).unwrap_or_default();
    page.insert("tool".into(), text(|run| name(&run.header.tool)).into());
    page.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    page.insert("runs".into(), report.runs.iter().map(run).collect());
    page.insert("has_time".into(), report.has_time.into());
    cube(&mut page, &report.cube);
    if let Some(heat) = &report.heat {
        let areas = heat.areas();
        let areas = areas
            .iter()
            .map(|area| json!([name(&area.name), format!("{:#x}", area.start), area.units]))
            .collect::<Vec<_>>();
        page.insert(
            "heat".into(),
            json!({"bin_ns": heat.bin_ns(), "unit": heat.unit_bytes(), "areas": areas, "cells": heat.cells()}),
        );
    }
    if !report.stacks.is_empty() {
        page.insert("flame".into(), flame(&report.stacks));
    }
    for block in &report.summary {
        page.insert(block.table.id().replace("access.", ""), table(block));
    }
    Json::Object(page)
}

fn value(value: &Value) -> Json {
    match value {
        Value::Null | Value::Hist(_) => Json::Null,
        Value::U64(n) => (*n).into(),
        Value::I64(n) => (*n).into(),
        Value::Bool(is) => (*is).into(),
        Value::Str(text) => name(text).into(),
        Value::Buckets(buckets) => json!(buckets),
    }
}

fn record(record: &Record) -> Json {
    Json::Object(record.iter().map(|(field, of)| (field.name.to_owned(), value(of))).collect())
}

fn table(block: &Block) -> Json {
    block.rows.iter().map(record).collect()
}

/// The conditions of a run and its losses.
fn run(run: &Run) -> Json {
    let Run { header, end, .. } = run;
    let start = Timestamp::from_nanosecond(header.start_unix_ns.into()).unwrap_or_default();
    let settings = header.settings.iter().flat_map(Record::iter).filter(|(_, value)| **value != Value::Null);
    json!({
        "name": name(&run.name),
        "host": name(&header.host),
        "kernel": name(&header.kernel),
        "variant": name(&header.variant),
        "version": name(&header.version),
        "start": start.to_string(),
        "duration_ns": run.covered_ns,
        "sampled": end.sampled,
        "events": run.events,
        "counted": run.counted,
        "findings": run.findings.iter().map(record).collect::<Vec<_>>(),
        "verdict": run.verdict,
        "unjudged": run.unjudged.as_deref().map(name),
        "settings": settings.map(|(field, value)| fact(field, value)).collect::<Vec<_>>(),
        "facts": if run.has_facts { facts(end) } else { vec![] },
        "has_facts": run.has_facts,
        "broken": run.broken.as_deref().map(name),
    })
}

fn facts(end: &Facts) -> Vec<Json> {
    let run = RUN.record(end);
    run.iter().chain(end.known()).map(|(field, value)| fact(field, value)).collect()
}

/// A name, its value, the unit, a sentence, and whether it is a loss.
fn fact(field: &Field, of: &Value) -> Json {
    let unit = match field.unit {
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
        Unit::Address => "address",
        Unit::None | Unit::Count => "",
    };
    // A text that says that there is none is no name.
    let of = if let Value::Str(text) = of
        && text.is_empty()
    {
        "".into()
    } else {
        value(of)
    };
    json!([field.name, of, unit, field.help, field.kind == Kind::Loss])
}

fn cube(page: &mut Map<String, Json>, cube: &Cube) {
    // Texts of groups that were put together are left out.
    let mut places: Vec<Vec<Option<usize>>> =
        (0..cube.dims.len()).map(|dim| vec![None; cube.words(dim).count()]).collect();
    let mut used: Vec<Vec<u32>> = vec![vec![]; cube.dims.len()];
    let mut group = |key: &[u32]| -> Vec<usize> {
        let dims = key.iter().zip(&mut places).zip(&mut used);
        let place = |((code, places), used): ((&u32, &mut Vec<Option<usize>>), &mut Vec<u32>)| {
            *places[*code as usize].get_or_insert_with(|| {
                used.push(*code);
                used.len() - 1
            })
        };
        dims.map(place).collect()
    };
    let groups: Vec<Vec<usize>> = cube.groups.iter().map(|key| group(key)).collect();
    let dims = cube.dims.iter().zip(&used).enumerate().map(|(at, (dim, used))| {
        let words: Vec<&str> = cube.words(at).collect();
        let words: Vec<String> = used.iter().map(|code| name(words[*code as usize])).collect();
        json!({"name": dim, "words": words})
    });
    let kept = cube
        .measures
        .iter()
        .enumerate()
        .filter(|(at, _)| *at == 0 || cube.cells.values().any(|cell| cell[*at] > 0));
    let kept: Vec<usize> = kept.map(|(at, _)| at).collect();
    let measures = kept.iter().map(|at| {
        let of = &cube.measures[*at];
        json!({"name": of.name, "help": of.help, "time": of.is_time, "part": of.is_part})
    });
    let column = |at: usize| cube.cells.values().map(|cell| cell[at]).collect::<Vec<_>>();
    page.insert("bin_ns".into(), cube.bin_ns().into());
    page.insert("folded".into(), cube.folded.into());
    page.insert("dims".into(), dims.collect());
    page.insert("measures".into(), measures.collect());
    page.insert("groups".into(), json!(groups));
    let places = || cube.cells.keys();
    let octaves = places().map(|(.., octave)| octave.map_or(-1, i64::from)).collect::<Vec<_>>();
    page.insert(
        "cells".into(),
        json!({
            "group": places().map(|(group, ..)| *group).collect::<Vec<_>>(),
            "bin": places().map(|(_, bin, _)| *bin).collect::<Vec<_>>(),
            "octave": octaves,
            "figures": kept.iter().map(|at| column(*at)).collect::<Vec<_>>(),
        }),
    );
    page.insert("octaves".into(), (0..32).map(least_ns).collect());
}

/// A tree of functions: for each its name, its caller, and what was in it and below.
fn flame(stacks: &[Record]) -> Json {
    struct Node {
        name: String,
        caller: usize,
        figures: [u64; 2],
    }
    let mut nodes = vec![Node { name: "all".to_owned(), caller: 0, figures: [0, 0] }];
    let mut places = std::collections::HashMap::new();
    for row in stacks {
        let number = |name: &str| row.number(name).unwrap_or(0);
        let figures = [number("major") + number("minor"), number("total_ns")];
        let calls = frames::frames(row).into_iter().map(|frame| frame.name);
        let mut at = 0;
        for name in std::iter::once(None).chain(calls.map(Some)) {
            if let Some(name) = name {
                let new = nodes.len();
                at = *places.entry((at, name.clone())).or_insert_with(|| {
                    nodes.push(Node { name: self::name(&name), caller: at, figures: [0, 0] });
                    new
                });
            }
            nodes[at].figures.iter_mut().zip(figures).for_each(|(sum, n)| *sum = sum.saturating_add(n));
        }
    }
    // Callers have at least as much as those that they call, and come before them.
    let mut sizes: Vec<(u64, u64)> = nodes.iter().map(|node| (node.figures[1], node.figures[0])).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let least = sizes.get(MOST_FRAMES).copied().unwrap_or_default();
    let mut kept = vec![None; nodes.len()];
    let mut tree = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        if at == 0 || (node.figures[1], node.figures[0]) > least || sizes.len() <= MOST_FRAMES {
            kept[at] = Some(tree.len());
            let caller = kept[node.caller].unwrap_or(0);
            tree.push(json!([node.name, caller, node.figures[0], node.figures[1]]));
        }
    }
    tree.into()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use trapline_model::faults::{By, Chunks, InColumns};
    use trapline_model::report::Gather;
    use trapline_model::{Header, Item};

    use super::*;

    #[test]
    fn a_name_ends_neither_the_data_nor_a_line() {
        let table = By::File.schema();
        let hostile = "</script><!--\u{202e}\n{data}";
        let header =
            Header { tool: "faults".into(), host: hostile.into(), tables: vec![table], ..Header::default() };
        let row = Record::named(table, |name| match name {
            "file" => hostile.into(),
            "major" | "minor" => 2_u64.into(),
            _ => Value::Null,
        });
        let items = [
            Item::Header(header.clone()),
            Item::Totals(Block::new(table, 9, vec![row])),
            Item::End(Facts::default()),
        ];
        let mut source = InColumns(VecDeque::from(items));
        let mut gather = Gather::new(&[&header]);
        gather.begin(hostile, &header);
        while let Ok(Some(chunk)) = source.next() {
            gather.take(&chunk);
        }
        let mut page = Vec::new();
        assert!(write_report(&mut page, &gather.finish()).is_ok());
        let page = String::from_utf8_lossy(&page);
        let after = page.split("id=\"data\">").nth(1).unwrap_or_default();
        let data = after.split("</script>").next().unwrap_or_default();
        let data: Json = serde_json::from_str(data).unwrap_or_default();
        assert_eq!(data["dims"][0]["words"][0], "</script><!--\\u{202e}\\x0a{data}");
        assert_eq!(data["runs"][0]["host"], data["dims"][0]["words"][0]);
        assert!(page.trim_end().ends_with("</html>"));
    }

    #[test]
    fn a_long_name_keeps_its_ends() {
        let long = format!("/first{}last", "n".repeat(4096));
        let shown = name(&long);
        assert!(
            shown.starts_with("/first") && shown.ends_with("last") && shown.chars().count() == LONGEST + 1
        );
        assert_eq!(name(" "), "[no name]");
    }
}
