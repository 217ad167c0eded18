//! Tables as they are redrawn, in terminals of two sizes, under a storm of rows.

use trapline_model::layout::{LAYOUTS, layout};
use trapline_model::stage::Refresh;
use trapline_model::{Event, Facts, Header, Record, TABLES, Value, table};

use super::*;
use crate::columns::constraints;
use crate::fit::{Plan, Text};
use ratatui::style::Style;

const SMALL: Space = Space { columns: Some(80), lines: Some(24), rows: None };
const LARGE: Space = Space { columns: Some(200), lines: Some(50), rows: None };

/// A row whose texts are long and whose numbers are of several sizes.
fn row(schema: &'static Schema, n: u64) -> Record {
    let value = |(at, field): (usize, &Field)| {
        let at = at as u64;
        match (field.name, field.ty) {
            ("isa", _) => "vmx".into(),
            ("comm", _) => format!("worker-{n}/漢字{}", "x".repeat((n % 9) as usize)).into(),
            ("file" | "cgroup", _) => {
                format!("/srv/db{}/base/{n}/16384.{}", "/deep".repeat((n % 20) as usize), n % 7).into()
            }
            ("stack", _) => {
                format!("db;main;{}_{n};handle_mm_fault_[k]", "f".repeat(n as usize % 250)).into()
            }
            ("lines", _) => ";main.c:3;[no symbols];".into(),
            (name, Type::Str) => format!("{name}-{n}{}", "-long".repeat((n % 12) as usize)).into(),
            (_, Type::I64) => (n.cast_signed() - 7).into(),
            (_, Type::Bool) => n.is_multiple_of(2).into(),
            (_, Type::Hist) => vec![(4, Some(7), n), (1 << 32, None, 2)].into(),
            _ if at + n % 5 == 9 => Value::Null,
            _ => ((1_000_003_u64.saturating_mul(at + 1) * (n % 13)) >> (n % 24)).into(),
        }
    };
    Record::new(schema, schema.iter().enumerate().map(value).collect())
}

fn block(schema: &'static Schema, rows: u64, time_ns: u64) -> Block {
    let rows = (1..=rows).map(|n| row(schema, n)).collect();
    let text = |field: &Field| field.ty == Type::Str && field.name != "isa";
    let mut sum = row(schema, 7);
    if schema.iter().any(text) {
        sum = Record::named(schema, |name| match sum.get(name) {
            Some(Value::Str(_)) | None => "TOTAL".into(),
            Some(value) => value.clone(),
        });
    }
    Block { sum: Some(sum), ..Block::new(schema, time_ns, rows) }
}

fn controls(column: Option<usize>) -> Controls {
    Controls { sort: column.into(), cumulative: false.into(), refresh: Refresh::default() }
}

/// After these intervals of this number of rows of each of the tables.
fn live(look: &'static Layout, tables: &[&'static Schema], intervals: u64, rows: u64) -> Live {
    let controls = (look.id != "access.summary").then(|| controls(None));
    let mut live = Live::new(look, true, true, controls, TimeZone::UTC);
    let tool = look.id.split('.').next().unwrap();
    let header = Header { tool: tool.into(), variant: "fentry".into(), ..Header::default() };
    live.take(&Item::Header(header));
    for second in 1..=intervals {
        for table in tables {
            live.take(&Item::Rows(block(*table, rows, second * 1_000_000_000)));
        }
        assert!(live.take(&Item::Tick(second * 1_000_000_000)), "there is nothing new");
    }
    live
}

fn text(lines: &[Line<'_>]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Every table of every tool in every layout, also in terminals in which hardly anything has space.
#[test]
fn no_line_is_wider_than_the_terminal_and_none_is_below_it() {
    for look in LAYOUTS {
        let tool = look.id.split('.').next().unwrap();
        let is_of = |table: &&&'static Schema| {
            let is_own = look.id == "declared" && table.tool() != "trapline" || table.tool() == tool;
            is_own && look.sections.iter().any(|s| s.table.is_empty() || s.table == table.id())
        };
        for table in TABLES.iter().filter(is_of) {
            let mut live = live(look, &[*table], 3, 60);
            for (columns, lines) in [(1, 1), (20, 5), (80, 24), (200, 50)] {
                let space = Space { columns: Some(columns), lines: Some(lines), rows: None };
                for _ in 0..2 {
                    let drawn = live.draw(space);
                    assert_eq!(drawn.len(), lines, "{} in {table:?}", look.id);
                    let widest = drawn.iter().map(Line::width).max().unwrap();
                    assert!(widest <= columns, "{widest}: {} in {table:?}\n{}", look.id, text(&drawn));
                    live.press(Key::Help);
                }
                assert!(live.last(space).len() <= lines + 1, "{} in {table:?}", look.id);
            }
        }
    }
}

/// In a terminal of 80 columns, what tells rows apart and what is asked for most is there.
#[test]
fn as_they_look() {
    let shown = [
        ("declared", vec!["faults.thread"]),
        ("declared", vec!["faults.process"]),
        ("declared", vec!["faults.cgroup"]),
        ("declared", vec!["faults.file"]),
        ("declared", vec!["faults.cause"]),
        ("declared", vec!["faults.stack"]),
        ("declared", vec!["faults.span"]),
        ("kvm.count", vec!["kvm.count_reason"]),
        ("kvm.time", vec!["kvm.time_reason"]),
        ("kvm.hist", vec!["kvm.hist_reason"]),
        ("declared", vec!["kvm.split_vcpu"]),
        ("sgx.lines", vec!["sgx.all"]),
        ("declared", vec!["sgx.enclave"]),
        ("access.summary", vec!["access.workingset", "access.mappings", "access.pages", "access.rw"]),
    ];
    for (look, tables) in shown {
        let name = format!("{}_{}", look, tables[0]).replace('.', "_");
        let tables: Vec<_> = tables.iter().map(|id| table(id).unwrap()).collect();
        let grows = ["sgx.lines", "access.summary"].contains(&look);
        let live =
            live(layout(look).unwrap(), &tables, if grows { 60 } else { 1 }, if grows { 20 } else { 300 });
        insta::assert_snapshot!(format!("{name}_80x24"), text(&live.draw(SMALL)));
        insta::assert_snapshot!(format!("{name}_200x50"), text(&live.draw(LARGE)));
    }
}

/// So many columns give way that no number is cut: each table declares enough of them, and events have their time.
#[test]
fn every_table_fits_80_columns() {
    let mut wide = vec![];
    for table in TABLES.iter() {
        let is_event =
            ["faults.fault", "faults.step", "kvm.slow"].iter().any(|id| table.id().starts_with(id));
        // The name of a machine has its own 9 columns beside what fits 80.
        let is_hosted = table.iter().next().is_some_and(|field| field.name == "host");
        let columns = if is_event { 80 - 16 } else { 80 } + if is_hosted { 9 } else { 0 };
        let plan = Plan::new::<Vec<Text>>(constraints(*table), &[], Some(columns), None);
        let headings = plan.headings(Style::new()).to_string();
        wide.extend(headings.contains('…').then(|| format!("{table:?}: {headings}")));
        assert!(table.iter().all(|field| field.cell.is_none()) || !headings.is_empty(), "{table:?}");
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn a_pause_keeps_the_picture_and_then_shows_the_newest() {
    let thread = table("faults.thread").unwrap();
    let mut live = live(layout("declared").unwrap(), &[thread], 1, 3);
    let before = text(&live.draw(SMALL));
    live.press(Key::of(b' ').unwrap());
    for second in 2..4 {
        live.take(&Item::Rows(block(thread, second, second * 1_000_000_000)));
        assert!(!live.take(&Item::Tick(second * 1_000_000_000)), "it is not drawn");
    }
    let paused = text(&live.draw(SMALL));
    assert_eq!(paused.replace("space: go on (paused)", "space: pause"), before);
    live.press(Key::Pause);
    assert!(text(&live.draw(SMALL)).starts_with("[00:00:03]"), "{}", text(&live.draw(SMALL)));
    live.press(Key::Quit);
    live.take(&Item::Rows(block(thread, 1, 9_000_000_000)));
    live.take(&Item::Tick(9_000_000_000));
    assert!(text(&live.last(SMALL)).starts_with("[00:00:03]"), "the end changes what is seen");
    assert_eq!((Key::of(b'x'), Key::of(b'Q')), (None, Some(Key::Quit)));
}

#[test]
fn a_stack_that_is_higher_than_the_terminal_is_cut() {
    let schema = table("faults.stack").unwrap();
    let frames: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
    let record = Record::named(schema, |name| match name {
        "stack" => frames.join(";").into(),
        _ => Value::Null,
    });
    let mut live = live(layout("declared").unwrap(), &[], 0, 0);
    live.take(&Item::Rows(Block::new(schema, 1, vec![record.clone(), record])));
    live.take(&Item::Tick(1));
    let drawn = text(&live.draw(SMALL));
    assert!(drawn.contains("\n    f99\n") && drawn.contains("\n    …\n(1 more)\n"), "{drawn}");
    assert_eq!(drawn.lines().count(), 24);
}

/// Each key goes to the stage that makes rows so, and the rows that are there are sorted at once.
#[test]
fn keys_change_the_order_and_the_time_of_rows() {
    let thread = table("faults.thread").unwrap();
    let controls = controls(thread.position("minor"));
    let Controls { sort: key, cumulative, refresh } = controls.clone();
    let mut live = Live::new(layout("declared").unwrap(), false, true, Some(controls), TimeZone::UTC);
    live.take(&Item::Rows(block(thread, 9, 1)));
    live.take(&Item::Tick(1));
    let name = |key: &SortKey| thread.iter().nth(key.column().unwrap()).unwrap().name;
    let mut names = vec![name(&key)];
    for _ in 0..11 {
        live.press(Key::of(b's').unwrap());
        names.push(name(&key));
        let of: Vec<&Value> = live.shown[0].rows.iter().map(|row| row.get(name(&key)).unwrap()).collect();
        let known: Vec<u64> =
            of.iter().filter_map(|v| if let Value::U64(n) = v { Some(*n) } else { None }).collect();
        assert!(known.is_sorted_by(|a, b| a >= b), "{}: {known:?}", name(&key));
    }
    assert_eq!(
        names,
        [
            "minor", "waits", "total_ns", "major_ns", "wait_ns", "avg_ns", "max_ns", "min_ns", "pid", "tid",
            "major", "minor"
        ]
    );
    // The column that rows are sorted by does not give way.
    (0..7).for_each(|_| live.press(Key::Sort));
    assert!(text(&live.draw(SMALL)).contains("MIN_US"), "{}", text(&live.draw(SMALL)));
    live.press(Key::of(b'c').unwrap());
    assert!(cumulative.is_on() && text(&live.draw(SMALL)).contains("c: cumulative (on)"));
    live.press(Key::Cumulative);
    assert!(!cumulative.is_on());
    live.press(Key::Pause);
    live.press(Key::of(b'\n').unwrap());
    assert!(refresh.take() && !live.paused, "what comes next is shown");
}

#[test]
fn before_rows_come_and_between_them_there_is_a_line_that_says_so() {
    let look = layout("access.summary").unwrap();
    let mut live = live(look, &[], 0, 0);
    assert!(text(&live.draw(SMALL)).contains("has not ended yet"));
    let event = table("access.event");
    if let Some(schema) = event {
        let engine = Record::named(schema, |name| match name {
            "event" => "engine".into(),
            "comm" | "note" => name.into(),
            "pid" => 7_u64.into(),
            _ => Value::Null,
        });
        live.take(&Item::Events(vec![Event { time_ns: 1, record: engine }]));
        assert!(text(&live.draw(SMALL)).contains("comm (7): note"), "{}", text(&live.draw(SMALL)));
        assert!(text(&live.last(SMALL)).contains("comm (7): note"));
    }
    assert!(!live.take(&Item::Facts(Facts::default())));
}
