use super::*;
use crate::field::Record;
use crate::item::Facts;
use crate::kvm::{By, Layout};

fn table() -> &'static Schema {
    Layout { by: By::Reason, timed: true, buckets: true, split: false }.schema()
}

fn row(reason: u64, count: u64, total_ns: u64, max_ns: u64) -> Record {
    Record::named(table(), |name| match name {
        "isa" => "vmx".into(),
        "reason" => reason.into(),
        "name" => "x".into(),
        "count" | "timed" => count.into(),
        "total_ns" => total_ns.into(),
        "max_ns" => max_ns.into(),
        "avg_ns" => total_ns.checked_div(count).into(),
        "p99_ns" => max_ns.into(),
        "buckets" => vec![(64, Some(127), count)].into(),
        _ => Value::Null,
    })
}

fn block(time_ns: u64, rows: Vec<Record>) -> Block {
    let mut sum = rows[0].clone();
    rows[1..].iter().for_each(|row| sum.join(row));
    Block { sum: Some(sum), ..Block::new(table(), time_ns, rows) }
}

fn joined(how: Joining) -> Vec<Item> {
    let header = Header { start_ns: 0, ..Header::default() };
    let items = [
        Item::Header(header),
        Item::Rows(block(10, vec![row(1, 2, 200, 150), row(2, 1, 70, 70)])),
        Item::Rows(block(20, vec![row(1, 3, 600, 400)])),
        Item::Rows(block(30, vec![row(2, 5, 500, 90)])),
        Item::Totals(block(30, vec![row(1, 5, 800, 400), row(2, 6, 570, 90)])),
        Item::End(Facts { duration_ns: 30, ..Facts::default() }),
    ];
    let mut source = Join::new(VecDeque::from(items), how);
    std::iter::from_fn(|| source.next().unwrap()).collect()
}

const ALL: Joining = Joining { interval_ns: None, times_ns: 0..=u64::MAX, several: false, cumulative: false };

fn blocks(items: &[Item]) -> Vec<(u64, Vec<(u64, u64)>)> {
    let of = |block: &Block| {
        let row = |row: &Record| (row.number("reason").unwrap(), row.number("count").unwrap());
        (block.time_ns, block.rows.iter().map(row).collect())
    };
    items
        .iter()
        .filter_map(
            |item| if let Item::Rows(block) | Item::Totals(block) = item { Some(of(block)) } else { None },
        )
        .collect()
}

#[test]
fn intervals_become_longer_ones_that_add_up() {
    let items = joined(Joining { interval_ns: Some(20), ..ALL });
    let expected = vec![(20, vec![(1, 5), (2, 1)]), (30, vec![(2, 5)]), (30, vec![(1, 5), (2, 6)])];
    assert_eq!(blocks(&items), expected);
    let Some(Item::Rows(block)) = items.iter().find(|item| matches!(item, Item::Rows(_))) else { panic!() };
    let first = &block.rows[0];
    let number = |name| first.number(name);
    assert_eq!((number("total_ns"), number("max_ns"), number("avg_ns")), (Some(800), Some(400), Some(160)));
    // A quantile of parts is not one of the whole.
    assert_eq!(first.get("p99_ns"), Some(&Value::Null));
    assert_eq!(first.get("buckets"), Some(&Value::from(vec![(64, Some(127), 5)])));
    assert_eq!(block.sum.as_ref().unwrap().number("count"), Some(6));
}

#[test]
fn of_a_part_of_the_time_totals_are_its_rows() {
    let items = joined(Joining { times_ns: 15..=u64::MAX, ..ALL });
    let expected = vec![(20, vec![(1, 3)]), (30, vec![(2, 5)]), (30, vec![(1, 3), (2, 5)])];
    assert_eq!(blocks(&items), expected);
}

#[test]
fn rows_of_several_recordings_are_in_the_totals_alone() {
    let items = joined(Joining { several: true, ..ALL });
    assert_eq!(blocks(&items), [(30, vec![(1, 5), (2, 6)])]);
}

/// Rows of intervals of a second as a live run has them: they end a few microseconds late.
fn late(start_ns: u64, counts: &[u64]) -> Vec<Item> {
    let mut since_ns = start_ns + 30_000;
    let mut items = vec![Item::Header(Header { start_ns, ..Header::default() })];
    for (at, count) in (1..).zip(counts) {
        let time_ns = start_ns + at * SECOND + 40_000 + at * 3_000;
        let rows = Block { since_ns: Some(since_ns), ..block(time_ns, vec![row(1, *count, *count, 1)]) };
        items.extend([Item::Rows(rows), Item::Tick(time_ns)]);
        since_ns = time_ns;
    }
    let duration_ns = since_ns - start_ns;
    let all = counts.iter().sum();
    items.push(Item::Totals(block(since_ns, vec![row(1, all, all, 1)])));
    items.push(Item::End(Facts { duration_ns, ..Facts::default() }));
    items
}

const SECOND: u64 = 1_000_000_000;

/// The counts of each interval, and when it ends, in the order in which they come; then the total.
fn counts(mut source: impl Source<Error = std::convert::Infallible>) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    while let Some(item) = source.next().unwrap() {
        if let Item::Rows(block) | Item::Totals(block) = item {
            counts.push((block.time_ns, block.rows.iter().map(|row| row.number("count").unwrap()).sum()));
        }
    }
    counts
}

#[test]
fn a_recorded_interval_is_in_the_one_that_has_its_middle() {
    let recorded = || VecDeque::from(late(5 * SECOND, &[1, 2, 3, 4]));
    let replayed = |seconds: u64, times_ns| {
        let how = Joining { interval_ns: Some(seconds * SECOND), times_ns, ..ALL };
        counts(Join::new(recorded(), how))
    };
    let end_ns = 9 * SECOND + 52_000;
    let expected = [(6 * SECOND, 1), (7 * SECOND, 2), (8 * SECOND, 3), (9 * SECOND, 4), (end_ns, 10)];
    assert_eq!(replayed(1, 0..=u64::MAX), expected);
    assert_eq!(replayed(2, 0..=u64::MAX), [(7 * SECOND, 3), (9 * SECOND, 7), (end_ns, 10)]);
    // A part begins and ends where its options say.
    let part = replayed(1, 6 * SECOND..=8 * SECOND);
    assert_eq!(part, [(7 * SECOND, 2), (8 * SECOND, 3), (8 * SECOND, 5)]);
}

#[test]
fn intervals_of_two_machines_are_those_that_were_at_the_same_time() {
    use crate::faults::InColumns;
    use crate::merge::{AsItems, Merged};
    // The other one began 2 seconds later, and has the longer intervals.
    let mut longer = late(100 * SECOND, &[0, 0]);
    longer.retain(|item| !matches!(item, Item::Rows(_)));
    for at in [0, 2] {
        let [since_ns, time_ns] = [at, at + 2].map(|at| 100 * SECOND + at * SECOND + 50_000);
        let rows = Block { since_ns: Some(since_ns), ..block(time_ns, vec![row(2, 100, 100, 1)]) };
        longer.insert(1 + at as usize / 2, Item::Rows(rows));
    }
    let inputs = [(late(5 * SECOND, &[1, 2, 3, 4, 5, 6]), 5 * SECOND, 0), (longer, 100 * SECOND, 2)];
    let inputs = inputs.map(|(items, start_ns, later)| {
        let header = Header { start_ns, start_unix_ns: (later * SECOND).cast_signed(), ..Header::default() };
        ("x".to_owned(), header, InColumns(VecDeque::from(items)))
    });
    let merged = AsItems(Merged::new(inputs.into(), false));
    let how = Joining { interval_ns: Some(SECOND), several: true, ..ALL };
    let of: Vec<u64> = counts(Join::new(merged, how)).into_iter().map(|(_, count)| count).collect();
    // Its first interval is from 2 s to 4 s: the middle is where the fourth begins.
    assert_eq!(of[..6], [1, 2, 3, 104, 5, 106]);
}

/// A moment that is wrong, as a damaged or hostile recording may have, is not reached interval by interval.
#[test]
fn time_that_is_far_ahead_is_reached() {
    assert_eq!([0, 5].map(|rows| next_end(1000, 100, 1250, rows)), [1100; 2]);
    assert_eq!(next_end(1000, 100, 1000 + 100_000 * 100, 0), 1100);
    // The interval that has the moment is the next.
    assert_eq!(next_end(1000, 100, 1050 + 100_001 * 100, 0), 1100 + 100_001 * 100);
    assert_eq!(next_end(1000, 100, 1050 + 2000 * 100, 1000), 1100 + 2000 * 100);
    assert_eq!(next_end(1000, 0, u64::MAX, 0), u64::MAX);
}
