use super::*;
use crate::faults::By;
use crate::{Block, Facts, Record, Value};

/// What is seen while rows are cumulative is not in the next interval.
#[test]
fn rows_may_become_cumulative_and_again_those_of_an_interval() {
    let schema = By::Process.schema();
    let block = |minor: u64| {
        let record = Record::named(schema, |name| match name {
            "pid" => 1_u64.into(),
            "minor" => minor.into(),
            _ => Value::Null,
        });
        Item::Rows(Block::new(schema, 5, vec![record.of_row(1)]))
    };
    let cumulative = Cumulative::from(false);
    let mut source =
        Delta::new(VecDeque::from([block(3), block(5), block(9), block(10)]), cumulative.clone());
    let mut next = || {
        let Ok(Some(Item::Rows(block))) = source.next() else { panic!("no rows") };
        block.rows[0].number("minor")
    };
    assert_eq!((next(), next()), (Some(3), Some(2)));
    cumulative.turn();
    assert_eq!(next(), Some(9));
    cumulative.turn();
    assert_eq!(next(), Some(1));
}

#[test]
fn rows_and_totals_are_sorted_and_cut_and_nothing_else_is_changed() {
    let schema = By::Process.schema();
    let row = |pid: u64, minor: u64| {
        Record::named(schema, |name| match name {
            "pid" => pid.into(),
            "minor" => minor.into(),
            _ => Value::Null,
        })
    };
    let block = Block::new(schema, 5, vec![row(1, 7), row(2, 9), row(3, 7), row(4, 8)]);
    let items = [Item::Tick(4), Item::Rows(block.clone()), Item::Totals(block)];
    let by = schema.position("minor");
    let mut source = Top::new(Sort::new(VecDeque::from(items), by), Some(3));
    assert_eq!(source.next(), Ok(Some(Item::Tick(4))));
    for _ in 0..2 {
        let Ok(Some(Item::Rows(block) | Item::Totals(block))) = source.next() else { panic!("no rows") };
        assert_eq!(block.rows, [row(2, 9), row(4, 8), row(1, 7)]);
        assert_eq!(block.hidden, 1);
    }
    assert_eq!(source.next(), Ok(None));
}

/// A block says since when its figures grew: that of an interval since the one before, others since the run began.
#[test]
fn blocks_have_a_beginning() {
    let rows = |time_ns| Item::Rows(Block::new(By::Process.schema(), time_ns, vec![]));
    let header = Item::Header(crate::Header { start_ns: 3, ..crate::Header::default() });
    let items =
        [header, rows(5), rows(9), rows(10), Item::Totals(Block::new(By::Process.schema(), 11, vec![]))];
    let cumulative = Cumulative::from(false);
    let mut source = Delta::new(VecDeque::from(items), cumulative.clone());
    let mut since = move || match source.next() {
        Ok(Some(Item::Rows(block) | Item::Totals(block))) => block.since_ns,
        _ => None,
    };
    assert_eq!([since(), since(), since()], [None, Some(3), Some(5)]);
    cumulative.turn();
    assert_eq!([since(), since()], [Some(3), Some(3)]);
}

/// Rows with equal figures come in the order of their keys, whatever the order in which they were made.
#[test]
fn equal_rows_are_sorted_by_their_keys() {
    let schema = By::File.schema();
    let row = |file: Option<&str>, inode: u64| {
        Record::named(schema, |name| match name {
            "file" => file.into(),
            "inode" => inode.into(),
            "minor" => 7_u64.into(),
            _ => Value::Null,
        })
    };
    let sorted = [row(Some("/a"), 9), row(Some("/a"), 10), row(Some("/b"), 1), row(None, 1)];
    let by = schema.position("minor").unwrap();
    for turn in 0..sorted.len() {
        let mut rows = sorted.to_vec();
        rows.rotate_left(turn);
        let mut block = Block::new(schema, 5, rows);
        block.sort(by);
        assert_eq!(block.rows, sorted);
    }
}

#[test]
fn the_last_rows_are_left_out_where_the_totals_repeat_them() {
    let block = |time_ns| Block::new(By::Process.schema(), time_ns, vec![]);
    let rows = |time_ns| Item::Rows(block(time_ns));
    let (totals, tick) = (Item::Totals(block(3)), Item::Tick(3));
    let given = |items: &[Item], cumulative| {
        let mut source = Unrepeated::new(VecDeque::from(items.to_vec()), cumulative);
        std::iter::from_fn(|| source.next().ok().flatten()).collect::<Vec<_>>()
    };
    // Of a live run, and of a recording, which has no ticks.
    let live = [rows(1), Item::Facts(Facts::default()), Item::Tick(1), rows(3), tick.clone(), totals.clone()];
    let recorded = [rows(1), rows(3), totals.clone()];
    let alone = [rows(3), tick.clone(), totals.clone()];
    assert_eq!(given(&live, false), live);
    assert_eq!(given(&live, true), [&live[..3], &live[4..]].concat());
    assert_eq!(given(&recorded, false), recorded);
    assert_eq!(given(&recorded, true), [rows(1), totals.clone()]);
    assert_eq!(given(&alone, false), [tick, totals]);
    // Cut off before the totals, they are not repeated.
    assert_eq!(given(&recorded[..2], true), recorded[..2]);
}
