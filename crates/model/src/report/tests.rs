use super::*;
use crate::faults::{By as Grouping, Chunk, EVENT, FaultColumns};
use crate::field::Value;
use crate::item::{Event, Item};

fn fault(n: u64) -> Event {
    let kind = if n.is_multiple_of(4) { "major" } else { "minor" };
    let record = Record::named(EVENT, |name| match name {
        "pid" | "tid" => (7 + n % 2).into(),
        "start_ns" => 1_u64.into(),
        "comm" => "a<b".into(),
        "kind" => kind.into(),
        "latency_ns" => (1000 * (n + 1)).into(),
        "file" => format!("/data/{}", n % 3).into(),
        _ => Value::Null,
    });
    Event { time_ns: 1_000_000_000 + n * 10_000_000, record }
}

#[test]
fn each_fault_is_in_a_cell_of_its_time_and_process() {
    let header = Header {
        tool: "faults".into(),
        start_ns: 1_000_000_000,
        events: Some(EVENT),
        tables: vec![Grouping::Thread.schema()],
        ..Header::default()
    };
    let mut gather = Gather::new(&[&header]);
    gather.begin("x", &header);
    let events: Vec<Event> = (0..100).map(fault).collect();
    let Some(columns) = FaultColumns::of(&events) else { panic!() };
    gather.take(&Chunk::Faults(columns));
    gather.take(&Chunk::Item(Item::End(Facts { duration_ns: 1_000_000_000, ..Facts::default() })));
    let report = gather.finish();
    let sum = |at: usize| report.cube.cells.values().map(|cell| cell[at]).sum::<u64>();
    assert_eq!([sum(0), sum(1), sum(2), sum(4)], [100, 25, 1000 * 5050, 100]);
    let processes: Vec<&str> = report.cube.words(0).collect();
    assert_eq!(processes, ["a<b (7)", "a<b (8)"]);
    assert_eq!(report.cube.words(2).count(), 3);
    assert_eq!((report.runs[0].events, report.has_time), (100, true));
    assert!(report.cube.cells.keys().map(|(_, bin, _)| bin).max() > Some(&100));
}

/// The processes of a report of faults by thread, and the faults of each.
fn processes(header: &Header, chunk: Chunk) -> Vec<(String, u64)> {
    let mut gather = Gather::new(&[header]);
    gather.begin("x", header);
    gather.take(&chunk);
    gather.take(&Chunk::Item(Item::End(Facts::default())));
    let cube = gather.finish().cube;
    let mut of: Vec<(String, u64)> = cube.words(0).map(|word| (word.to_owned(), 0)).collect();
    for ((group, ..), figures) in &cube.cells {
        of[cube.groups[*group as usize][0] as usize].1 += figures[0];
    }
    of
}

#[test]
fn a_process_is_one_row_with_the_name_that_it_had_last() {
    let table = Grouping::Thread.schema();
    let header =
        Header { tool: "faults".into(), events: Some(EVENT), tables: vec![table], ..Header::default() };
    // It ran other programs; its number is that of a later process, too.
    let fault = |n: u64| {
        let (name, start_ns) = [("bash", 1), ("python3", 1), ("late", 1), ("next", 2)][n as usize % 8 / 2];
        let start_ns: u64 = start_ns;
        let record = Record::named(EVENT, |of| match of {
            "pid" => 7_u64.into(),
            "tid" => (7 + n % 2).into(),
            "process_start_ns" => start_ns.into(),
            "comm" => "worker".into(),
            "process_comm" => name.into(),
            "kind" => "minor".into(),
            _ => Value::Null,
        });
        Event { time_ns: n, record }
    };
    let Some(columns) = FaultColumns::of(&(0..8).map(fault).collect::<Vec<_>>()) else { panic!() };
    let expected = [("late (7)".to_owned(), 6), ("next (7)".to_owned(), 2)];
    assert_eq!(processes(&header, Chunk::Faults(columns)), expected);
    // Rows of threads: the name of the first one.
    let header = Header { events: None, ..header };
    let row = |(tid, name): (u64, &'static str)| {
        Record::named(table, |of| match of {
            "pid" => 7_u64.into(),
            "tid" | "start_ns" => tid.into(),
            "comm" => name.into(),
            "minor" | "major" => 1_u64.into(),
            _ => Value::Null,
        })
    };
    let rows = [(8, "io"), (7, "early"), (9, "log"), (7, "late"), (8, "io")].map(row).to_vec();
    let block = Chunk::Item(Item::Rows(Block::new(table, 1_000_000_000, rows)));
    assert_eq!(processes(&header, block), [("late (7)".to_owned(), 10)]);
}

#[test]
fn rows_without_events_are_by_their_keys_and_interval() {
    let table = Grouping::File.schema();
    let header = Header { tool: "faults".into(), tables: vec![table], ..Header::default() };
    let row = |file: &str, minor: u64| {
        Record::named(table, |name| match name {
            "file" => file.into(),
            "major" => 1_u64.into(),
            "minor" => minor.into(),
            _ => Value::Null,
        })
    };
    let mut gather = Gather::new(&[&header]);
    gather.begin("x", &header);
    for second in 1..=3_u64 {
        let block = Block::new(table, second * 1_000_000_000, vec![row("/a", second), row("/b", 2)]);
        gather.take(&Chunk::Item(Item::Rows(block)));
    }
    // What the rows have already.
    let totals = Block::new(table, 3_000_000_000, vec![row("/a", 6)]);
    gather.take(&Chunk::Item(Item::Totals(totals)));
    gather.take(&Chunk::Item(Item::End(Facts::default())));
    let report = gather.finish();
    assert_eq!((report.cube.dims[0], report.cube.measures[0].name), ("file", "faults"));
    assert_eq!(report.cube.cells.values().map(|cell| cell[0]).sum::<u64>(), 6 + 6 + 6);
    assert_eq!(report.cube.words(0).collect::<Vec<_>>(), ["/a", "/b"]);
}

/// Rows of 20 ms, some of which come late: an interval has two of them, not one, two, one.
#[test]
fn rows_are_in_intervals_as_long_as_theirs() {
    let table = Grouping::File.schema();
    let header = Header { tool: "faults".into(), start_ns: 7_000, tables: vec![table], ..Header::default() };
    let mut gather = Gather::new(&[&header]);
    gather.begin("x", &header);
    for n in 1..=300_u64 {
        let row = Record::named(table, |name| match name {
            "major" | "minor" => 1_u64.into(),
            _ => Value::Null,
        });
        let late = (n % 5) * 100_000;
        // Attaching took a second.
        gather.take(&Chunk::Item(Item::Rows(Block {
            since_ns: Some(1_000_007_000 + (n - 1) * 20_000_000),
            ..Block::new(table, 1_000_007_000 + n * 20_000_000 + late, vec![row])
        })));
    }
    gather.take(&Chunk::Item(Item::End(Facts::default())));
    let report = gather.finish();
    assert_eq!(report.cube.bin_ns(), 40_000_000);
    assert_eq!(report.cube.cells.keys().next().map(|(_, bin, _)| *bin), Some(0));
    let of_each: Vec<u64> = report.cube.cells.values().map(|cell| cell[0]).collect();
    assert!(of_each.iter().all(|faults| *faults == 4), "{of_each:?}");
}

/// The first row comes 3 ms after the start, as where the command ended the interval before; all others are of 20 ms.
#[test]
fn a_first_row_that_is_early_does_not_make_the_intervals_short() {
    let table = Grouping::File.schema();
    let header = Header { tool: "faults".into(), tables: vec![table], ..Header::default() };
    for count in [3_u64, 100] {
        let mut gather = Gather::new(&[&header]);
        gather.begin("x", &header);
        for n in 0..count {
            let row = Record::named(table, |name| match name {
                "major" | "minor" => 1_u64.into(),
                _ => Value::Null,
            });
            let time = 3_000_000 + n * 20_000_000;
            gather.take(&Chunk::Item(Item::Rows(Block {
                since_ns: Some(time.saturating_sub(20_000_000)),
                ..Block::new(table, time, vec![row])
            })));
        }
        let report = gather.finish();
        assert_eq!(report.cube.bin_ns(), 20_000_000);
        let bins: Vec<u16> = report.cube.cells.keys().map(|(_, bin, _)| *bin).collect();
        // The short one is with the second, then one in each.
        assert_eq!(bins, (0..count as u16 - 1).collect::<Vec<_>>());
    }
}

#[test]
fn the_least_time_of_a_cell_is_a_power_of_two() {
    for ns in [0, 1, 3, 4, 1000, 1024, 5_000_000] {
        let least = least_ns(octave(ns));
        assert!(least <= ns && (ns < 4 || ns < least * 2), "{ns} {least}");
    }
}
