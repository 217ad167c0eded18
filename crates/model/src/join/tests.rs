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
