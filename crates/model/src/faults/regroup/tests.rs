use std::rc::Rc;

use super::super::{By, EVENT, FaultColumns, InColumns, STACK_EVENT, StallRule, StepOf};
use super::*;
use crate::faults::ALL;
use crate::hosts::with_host;
use crate::item::Facts;
use crate::kept::KEPT;
use crate::merge::{AsItems, Merged};
use crate::stage::rows;
use crate::table::Schema;

/// Fault `n` of 600: of three threads of two processes, on three files, one in seven major, one in five asleep.
fn fault(n: u64) -> Event {
    let record = Record::named(EVENT, |name| match name {
        "pid" => (7 + n % 3 / 2).into(),
        "tid" => (7 + n % 3).into(),
        "start_ns" => 5_u64.into(),
        "comm" => ["main", "worker", "other"][(n % 3) as usize].into(),
        "kind" if n % 50 == 49 => "failed".into(),
        "kind" => if n.is_multiple_of(7) { "major" } else { "minor" }.into(),
        "latency_ns" => (1000 + n).into(),
        "wait_ns" => if n.is_multiple_of(5) { 700 } else { 0_u64 }.into(),
        "cause" => "zero-fill".into(),
        "file" if !n.is_multiple_of(4) => ["/a", "/b", "[heap]"][(n % 4 - 1) as usize].into(),
        "offset" => (n * 4096).into(),
        _ => Value::Null,
    });
    Event { time_ns: 1000 + n * 10, record }
}

/// A run whose kernel counted two faults more than there are events.
fn run(host: &str, faults: std::ops::Range<u64>) -> VecDeque<Item> {
    let settings = crate::faults::Settings { minor_latency: Some("exact".into()), ..Default::default() };
    let header = Header {
        tool: "faults".into(),
        host: host.into(),
        start_ns: 1000,
        start_unix_ns: 1_700_000_000_000_000_000,
        tables: vec![By::Thread.schema()],
        events: Some(EVENT),
        settings: vec![crate::faults::SETTINGS.record(&settings)],
        ..Header::default()
    };
    let counted = |wanted: &str| {
        let is = |event: &Event| event.record.get("kind") == Some(&Value::from(wanted));
        faults.clone().map(fault).filter(is).count() as u64
    };
    let (major, minor) = (counted("major"), counted("minor") + 2);
    let sum = Record::named(By::Thread.schema(), |name| match name {
        "major" => major.into(),
        "minor" => minor.into(),
        _ => Value::Null,
    });
    let totals = Block { sum: Some(sum), ..Block::new(By::Thread.schema(), 9000, vec![]) };
    let mut items = VecDeque::from([Item::Header(header)]);
    let all: Vec<Event> = faults.map(fault).collect();
    items.extend(all.chunks(37).map(|events| Item::Events(events.to_vec())));
    items.extend([Item::Totals(totals), Item::End(Facts { duration_ns: 8000, ..Facts::default() })]);
    items
}

fn how(table: &'static Schema) -> Regrouping {
    Regrouping::of(table, EVENT)
}

fn made<C: Chunks>(source: C, how: Regrouping) -> Vec<Item>
where
    C::Error: std::fmt::Debug,
{
    let mut source = rows(Regroup::new(source, how).unwrap(), false);
    std::iter::from_fn(|| source.next().unwrap()).collect()
}

fn totals(items: &[Item]) -> &Block {
    items.iter().find_map(|item| if let Item::Totals(block) = item { Some(block) } else { None }).unwrap()
}

fn row<'a>(block: &'a Block, key: &str, value: &str) -> &'a Record {
    let is = |row: &&Record| row.get(key) == Some(&Value::from(value));
    block.rows.iter().find(is).unwrap_or_else(|| panic!("no {value} in {block:?}"))
}

/// What each row counts is what a plain loop over the faults counts; those that were lost have their row.
#[test]
fn rows_are_the_faults_put_under_their_keys() {
    let items = made(InColumns(run("h", 0..600)), how(By::File.schema()));
    let block = totals(&items);
    assert_eq!(block.rows.len(), 4, "{block:?}");
    for (at, file) in [(1, "/a"), (2, "/b"), (3, "[heap]")] {
        let own = || (0..600_u64).filter(|n| n % 4 == at && n % 50 != 49);
        let row = row(block, "file", file);
        let number = |name| row.number(name).unwrap();
        assert_eq!(number("major"), own().filter(|n| n % 7 == 0).count() as u64);
        assert_eq!(number("minor"), own().filter(|n| n % 7 > 0).count() as u64);
        assert_eq!(number("waits"), own().filter(|n| n % 5 == 0).count() as u64);
        assert_eq!(number("total_ns"), own().map(|n| 1000 + n).sum::<u64>());
        assert_eq!(
            (number("min_ns"), number("max_ns")),
            (1000 + own().min().unwrap(), 1000 + own().max().unwrap())
        );
        assert_eq!(number("offset"), own().min().unwrap() * 4096);
    }
    let rest = row(block, "file", "(not attributed)");
    let unseen = (0..600_u64).filter(|n| n % 4 == 0 && n % 50 != 49).count() as u64;
    assert_eq!(rest.number("major").unwrap() + rest.number("minor").unwrap(), unseen + 2);
    assert_eq!(
        block.sum.as_ref().unwrap().number("minor"),
        (0..600_u64).filter(|n| n % 7 > 0 && n % 50 != 49).map(|_| 1).sum::<u64>().checked_add(2)
    );
}

#[test]
fn processes_have_the_names_of_their_first_threads() {
    let items = made(InColumns(run("h", 0..600)), how(By::Process.schema()));
    let block = totals(&items);
    assert_eq!(row(block, "comm", "main").number("pid"), Some(7));
    // The first thread of this one had no fault: its name and start are not known.
    assert!(
        block.rows.iter().any(|row| row.number("pid") == Some(8) && row.get("comm") == Some(&Value::Null))
    );
}

#[test]
fn filters_choose_faults_and_rows_of_intervals_add_up_to_them() {
    let filter =
        Filter { times_ns: 2000..=3999, pids: vec![7], comms: vec!["worker".into()], ..Filter::default() };
    let own = || (100..300_u64).filter(|n| n % 3 == 1 && n % 50 != 49);
    let of = Regrouping { filter, interval_ns: Some(500), ..how(By::Thread.schema()) };
    let items = made(InColumns(run("h", 0..600)), of);
    let faults = |block: &Block| {
        let of = |row: &Record| row.number("major").unwrap() + row.number("minor").unwrap();
        block.rows.iter().map(of).sum::<u64>()
    };
    assert_eq!(faults(totals(&items)), own().count() as u64);
    let of_rows =
        |item: &Item| if let Item::Rows(block) = item { Some((block.time_ns, faults(block))) } else { None };
    let intervals: Vec<_> = items.iter().filter_map(of_rows).collect();
    assert_eq!(intervals.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [2500, 3000, 3500, 3999]);
    assert_eq!(intervals.iter().map(|(_, faults)| faults).sum::<u64>(), own().count() as u64);
}

fn events(items: &[Item]) -> Vec<&Event> {
    items
        .iter()
        .filter_map(|item| if let Item::Events(events) = item { Some(events) } else { None })
        .flatten()
        .collect()
}

#[test]
fn messages_come_at_the_faults_that_pass_a_step() {
    let lines = Lines::Steps(StepOf::Major(10), true);
    let events_of = StepOf::Major(10).schema(true);
    let of = Regrouping { lines, events: Some(events_of), ..how(By::Thread.schema()) };
    let items = made(InColumns(run("h", 0..600)), of);
    let (mut counts, mut expected) = ([0; 2], Vec::new());
    for n in (0..600_u64).filter(|n| n % 7 == 0 && n % 50 != 49) {
        let process = (n % 3 / 2) as usize;
        counts[process] += 1;
        if counts[process] % 10 == 0 {
            expected.push((1000 + n * 10, 7 + process as u64, counts[process]));
        }
    }
    let said = events(&items).into_iter().map(|event| {
        let number = |name| event.record.number(name).unwrap();
        (event.time_ns, number("pid"), number("count"))
    });
    assert_eq!(said.collect::<Vec<_>>(), expected);
    assert!(!expected.is_empty());
}

#[test]
fn slow_faults_and_stalls_are_found() {
    let of = Regrouping { lines: Lines::Faults(Some(1590)), events: Some(EVENT), ..how(By::Thread.schema()) };
    let items = made(InColumns(run("h", 0..600)), of);
    assert_eq!(events(&items).len(), 10);
    assert_eq!(*events(&items)[0], fault(590));
    let rule = StallRule::new(700, 1_000_000).unwrap();
    let steps = StepOf::Within(rule);
    let of = Regrouping {
        lines: Lines::Steps(steps, false),
        events: Some(steps.schema(false)),
        ..how(By::Thread.schema())
    };
    let items = made(InColumns(run("h", 0..600)), of);
    // Once in a window for each process.
    assert_eq!(events(&items).len(), 2, "{items:?}");
}

/// Two machines: their rows stay apart by host, and are one otherwise; the clock is that of the first.
#[test]
fn recordings_of_several_machines_are_one_stream() {
    let inputs = |by_host| {
        let (mut a, b) = (run("a", 0..600), run("b", 0..300));
        // Its clock began a second later.
        a.iter_mut().for_each(|item| item.shift_clock(1_000_000_000));
        let Some(Item::Header(header)) = a.front().cloned() else { panic!() };
        let Some(Item::Header(other)) = b.front().cloned() else { panic!() };
        Merged::new(vec![("a".into(), header, InColumns(a)), ("b".into(), other, InColumns(b))], by_host)
    };
    let both = made(inputs(false), how(By::File.schema()));
    let items = made(inputs(true), how(with_host(ALL).unwrap()));
    let Some(Item::Header(header)) = items.first() else { panic!() };
    assert_eq!((&*header.host, header.setting("recordings")), ("a, b", Some(&Value::from("a, b"))));
    let block = totals(&items);
    let faults = |row: &Record| row.number("major").unwrap() + row.number("minor").unwrap();
    // With the two that each has lost.
    assert_eq!(faults(row(block, "host", "a")), 588 + 2);
    assert_eq!(faults(row(block, "host", "b")), 294 + 2);
    let by_file = made(inputs(true), how(with_host(By::File.schema()).unwrap()));
    let unseen = |host: &str, of: u64| {
        let is = |row: &&Record| {
            row.get("host") == Some(&Value::from(host))
                && row.get("file") == Some(&Value::from("(not attributed)"))
        };
        let without_file = (0..of).filter(|n| n % 4 == 0 && n % 50 != 49).count() as u64;
        totals(&by_file).rows.iter().find(is).map(faults) == Some(without_file + 2)
    };
    assert!(unseen("a", 600) && unseen("b", 300), "{by_file:?}");
    let sum = |items: &[Item]| totals(items).sum.as_ref().map(faults);
    assert_eq!((sum(&both), sum(&items)), (Some(588 + 294 + 4), Some(588 + 294 + 4)));
    // In the order of time, each once.
    let mut all = AsItems(inputs(true));
    let times: Vec<u64> = std::iter::from_fn(|| all.next().unwrap())
        .filter_map(|item| if let Item::Events(events) = item { Some(events) } else { None })
        .flatten()
        .map(|event| event.time_ns)
        .collect();
    assert!(times.len() == 900 && times.is_sorted());
}

#[test]
fn what_faults_do_not_have_is_named() {
    let refused = |table| Columns::new(table, EVENT).err();
    let of = how(By::Cgroup.schema());
    let unknown = Rc::clone(&of.unknown);
    made(InColumns(run("h", 0..600)), of);
    assert_eq!(unknown.get(), Some("cgroup"));
    assert_eq!(refused(By::Stack.schema()), Some("stack"));
    assert_eq!(Columns::new(By::Function.schema(), STACK_EVENT).err(), None);
    assert_eq!(refused(By::Span.schema()), Some("span"));
    assert_eq!(refused(with_host(By::File.schema()).unwrap()), None);
    // Batches of a recording keep the order of the table's columns.
    assert_eq!(FaultColumns::of(&[fault(3)]).unwrap().event(0, EVENT), fault(3));
}

/// When that begins.
const START_NS: u64 = 995;

/// A run of intervals of a tenth of its time each, that counts one fault in three that is no event, and loses it; from this one on.
fn losing(first: u64) -> VecDeque<Item> {
    let table = By::Thread.schema();
    let lost = |n: &u64| n % 3 == 2;
    let counts = |of: std::ops::Range<u64>| {
        let of = of.map(|n| fault(n).record);
        let count = |kind: &'static str| {
            of.clone().filter(|fault| fault.get("kind") == Some(&Value::from(kind))).count() as u64
        };
        (count("major"), count("minor"))
    };
    let block = |of: std::ops::Range<u64>, since_ns, time_ns| {
        let (major, minor) = counts(of);
        let sum = Record::named(table, |name| match name {
            "major" => major.into(),
            "minor" => minor.into(),
            _ => Value::Null,
        });
        Block { sum: Some(sum), since_ns: Some(since_ns), ..Block::new(table, time_ns, vec![]) }
    };
    let shown = Shown { interval_ns: Some(600), ..Shown::default() };
    let header = Header {
        tool: "faults".into(),
        start_ns: START_NS,
        tables: vec![table],
        events: Some(EVENT),
        settings: vec![SHOWN.record(&shown)],
        ..Header::default()
    };
    let mut items = VecDeque::from([Item::Header(header)]);
    let mut since_ns = START_NS;
    let lost_until = |n: u64| (0..n).filter(lost).count() as u64;
    for at in 0..10 {
        let of = at * 60..(at + 1) * 60;
        // A little late, as timers are.
        let time_ns = START_NS + of.end * 10 + 3;
        if at >= first {
            let seen: Vec<Event> = of.clone().filter(|n| !lost(n)).map(fault).collect();
            items.extend([Item::Events(seen), Item::Rows(block(of.clone(), since_ns, time_ns))]);
            if at < 9 {
                items.push_back(Item::Facts(Facts { lost_events: lost_until(of.end), ..Facts::default() }));
            }
            items.push_back(Item::Tick(time_ns));
        }
        since_ns = time_ns;
    }
    items.push_back(Item::Totals(block(0..600, START_NS, since_ns)));
    let lost_events = lost_until(600);
    items.push_back(Item::End(Facts { duration_ns: since_ns - START_NS, lost_events, ..Facts::default() }));
    items
}

/// The faults of each interval, and how many of them are in no group.
fn of_intervals(items: &[Item]) -> Vec<(u64, u64)> {
    let faults = |row: &Record| row.number("major").unwrap() + row.number("minor").unwrap();
    let rest = |block: &Block| {
        let none = |row: &&Record| row.get("pid") == Some(&Value::Null);
        block.rows.iter().filter(none).map(faults).sum()
    };
    let blocks =
        items.iter().filter_map(|item| if let Item::Rows(block) = item { Some(block) } else { None });
    blocks.map(|block| (block.rows.iter().map(faults).sum(), rest(block))).collect()
}

/// As a live run with such intervals shows them.
#[test]
fn lost_faults_are_in_the_interval_that_lost_them() {
    let of = |interval_ns| Regrouping { interval_ns, ticks: true, ..how(By::Process.schema()) };
    let counted = |of: std::ops::Range<u64>| of.filter(|n| n % 50 != 49).count() as u64;
    // A fault that failed is counted as lost, and by nobody else.
    let lost = |of: std::ops::Range<u64>| of.filter(|n| n % 50 != 49 && n % 3 == 2).count() as u64;
    for (interval_ns, length) in [(None, 60), (Some(600), 60), (Some(1200), 120), (Some(3000), 300)] {
        let items = made(InColumns(losing(0)), of(interval_ns));
        let expected: Vec<(u64, u64)> = (0..600 / length)
            .map(|at| at * length..(at + 1) * length)
            .map(|of| (counted(of.clone()), lost(of)))
            .collect();
        assert_eq!(of_intervals(&items), expected, "{interval_ns:?}");
        let rest = totals(&items).rows.iter().find(|row| row.get("pid") == Some(&Value::Null)).unwrap();
        assert_eq!(rest.number("major").unwrap() + rest.number("minor").unwrap(), lost(0..600));
        let Some(Item::End(end)) = items.last() else { panic!() };
        assert_eq!(end.value("whole_run"), None);
    }
}

/// What was discarded is not lost, and rates are of what was kept.
#[test]
fn what_was_kept_of_a_run_is_shown() {
    let mut items = losing(4);
    let kept = Kept::new(vec![(3398, 6998)]);
    let Some(Item::Header(header)) = items.front_mut() else { panic!() };
    header.set(KEPT.record(&kept));
    let items = made(InColumns(items), how(By::Process.schema()));
    let lost = |of: std::ops::Range<u64>| of.filter(|n| n % 50 != 49 && n % 3 == 2).count() as u64;
    let intervals = of_intervals(&items);
    // Of the first interval a part may have been discarded.
    assert_eq!(
        intervals.iter().map(|(_, lost)| *lost).collect::<Vec<_>>(),
        [0, lost(300..360), lost(360..420), lost(420..480), lost(480..540), lost(540..600)]
    );
    let block = totals(&items);
    assert_eq!((block.since_ns, block.time_ns), (Some(3398), 6998));
    let faults = |row: &Record| row.number("major").unwrap() + row.number("minor").unwrap();
    let seen = (240..600_u64).filter(|n| n % 50 != 49 && n % 3 != 2).count() as u64;
    assert_eq!(block.sum.as_ref().map(faults), Some(seen + lost(300..600)));
    let Some(Item::Rows(first)) = items.iter().find(|item| matches!(item, Item::Rows(_))) else { panic!() };
    assert_eq!(first.since_ns, Some(3398));
    let Some(Item::End(end)) = items.last() else { panic!() };
    assert_eq!(end.value("whole_run"), Some(&Value::Bool(true)));
}

/// In a part of a run, those of the intervals that are in it.
#[test]
fn lost_faults_of_a_part_are_those_of_its_intervals() {
    let filter = Filter { times_ns: 2000..=4500, ..Filter::default() };
    let items = made(InColumns(losing(0)), Regrouping { filter, ..how(By::Process.schema()) });
    let lost = |of: std::ops::Range<u64>| of.filter(|n| n % 50 != 49 && n % 3 == 2).count() as u64;
    let rest = totals(&items).rows.iter().find(|row| row.get("pid") == Some(&Value::Null)).unwrap();
    assert_eq!(rest.number("major").unwrap() + rest.number("minor").unwrap(), lost(120..300));
    let Some(Item::End(end)) = items.last() else { panic!() };
    assert_eq!(end.value("whole_run"), Some(&Value::Bool(true)));
    // Of some processes nobody knows which were lost.
    let filter = Filter { pids: vec![7], ..Filter::default() };
    let items = made(InColumns(losing(0)), Regrouping { filter, ..how(By::Process.schema()) });
    assert!(totals(&items).rows.iter().all(|row| row.number("pid") == Some(7)), "{items:?}");
}

/// What came out of the ring buffer after the end of its interval is in that interval.
#[test]
fn a_fault_is_in_the_interval_in_which_it_was() {
    let mut items = losing(0);
    // The last ten faults of each interval come after its end, with those of the next.
    let mut late: Vec<Event> = Vec::new();
    for item in &mut items {
        if let Item::Events(events) = item {
            let rest = events.split_off(events.len() - 10);
            events.splice(0..0, std::mem::replace(&mut late, rest));
        }
    }
    let totals = items.iter().position(|item| matches!(item, Item::Totals(_))).unwrap();
    let tick = items.iter().rposition(|item| matches!(item, Item::Tick(_))).unwrap();
    // At the end all come before the last rows.
    let rows = items.iter().rposition(|item| matches!(item, Item::Rows(_))).unwrap();
    assert!(rows < tick && tick < totals);
    items.insert(rows, Item::Events(late));
    for (ticks, interval_ns) in [(true, None), (true, Some(600)), (true, Some(1200)), (false, Some(600))] {
        let of = || Regrouping { interval_ns, ticks, ..how(By::Process.schema()) };
        let late = made(InColumns(items.clone()), of());
        // Without recorded intervals, those that were lost are in the one in which the recorded one ended.
        assert_eq!(
            of_intervals(&late),
            of_intervals(&made(InColumns(losing(0)), of())),
            "{ticks} {interval_ns:?}"
        );
    }
}

/// Rows since the start have all there was, also what nothing was added to.
#[test]
fn rows_since_the_start_are_all_rows() {
    let of = Regrouping { interval_ns: Some(1000), cumulative: true, ..how(By::File.schema()) };
    let mut source = rows(Regroup::new(InColumns(run("h", 0..600)), of).unwrap(), true);
    let items: Vec<Item> = std::iter::from_fn(|| source.next().unwrap()).collect();
    let faults = |row: &Record| row.number("major").unwrap() + row.number("minor").unwrap();
    let blocks =
        items.iter().filter_map(|item| if let Item::Rows(block) = item { Some(block) } else { None });
    let counts: Vec<u64> = blocks.map(|block| block.rows.iter().map(faults).sum()).collect();
    let counted = |n: u64| (0..n).filter(|n| n % 50 != 49).count() as u64;
    assert_eq!(counts[..5], [100, 200, 300, 400, 500].map(counted), "{counts:?}");
}

/// One machine is not several: its lost faults are in their intervals, whatever of the run is shown.
#[test]
fn lost_faults_are_on_their_machine() {
    let lost = |of: std::ops::Range<u64>| of.filter(|n| n % 50 != 49 && n % 3 == 2).count() as u64;
    let merged = |times_ns: std::ops::RangeInclusive<u64>, interval_ns| {
        let mut items = losing(0);
        let sum = |item: &mut Item| {
            if let Item::Header(header) = item {
                header.host = "a".into();
            }
        };
        items.iter_mut().for_each(sum);
        let Some(Item::Header(header)) = items.front().cloned() else { panic!() };
        let filter = Filter { times_ns, ..Filter::default() };
        let table = with_host(By::Process.schema()).unwrap();
        let of = Regrouping { filter, interval_ns, ticks: true, ..how(table) };
        made(Merged::new(vec![("a".into(), header, InColumns(items))], true), of)
    };
    let items = merged(0..=u64::MAX, None);
    assert_eq!(of_intervals(&items)[3].1, lost(180..240));
    let items = merged(2000..=4500, Some(600));
    let block = totals(&items);
    let rest = block.rows.iter().find(|row| row.get("pid") == Some(&Value::Null)).unwrap();
    assert_eq!(rest.get("host"), Some(&Value::from("a")));
    assert_eq!(rest.number("major").unwrap() + rest.number("minor").unwrap(), lost(120..300));
}

/// Several recordings have no intervals together: faults are where their time is, and what one discarded was not lost.
#[test]
fn several_recordings_are_shown_by_time() {
    let inputs = |kept: bool| {
        let (mut a, mut b) = (losing(0), losing(4));
        if let Some(Item::Header(header)) = b.front_mut().filter(|_| kept) {
            header.set(KEPT.record(&Kept::new(vec![(3398, 6998)])));
        }
        let header = |items: &mut VecDeque<Item>, host: &str| {
            let Some(Item::Header(header)) = items.front_mut() else { panic!() };
            header.host = host.into();
            header.clone()
        };
        let (first, second) = (header(&mut a, "a"), header(&mut b, "b"));
        Merged::new(vec![("a".into(), first, InColumns(a)), ("b".into(), second, InColumns(b))], false)
    };
    let of = || Regrouping { interval_ns: Some(1200), ..how(By::Process.schema()) };
    let items = made(inputs(true), of());
    let seen = |of: std::ops::Range<u64>| of.filter(|n| n % 50 != 49 && n % 3 != 2).count() as u64;
    let expected: Vec<u64> =
        (0..5).map(|at| seen(at * 120..at * 120 + 120) * if at < 2 { 1 } else { 2 }).collect();
    assert_eq!(of_intervals(&items), expected.iter().map(|n| (*n, 0)).collect::<Vec<_>>());
    assert_eq!(totals(&items).rows.iter().filter(|row| row.get("pid") == Some(&Value::Null)).count(), 0);
    let Some(Item::End(end)) = items.last() else { panic!() };
    assert_eq!(end.value("whole_run"), Some(&Value::Bool(true)));
}

/// Between what was kept nothing is known: no interval stands for it, and rates are without it.
#[test]
fn gaps_of_what_was_kept_are_no_quiet_time() {
    let mut items = losing(0);
    // The fourth to the seventh interval were discarded.
    let is_gone = |time_ns: u64| (2799..=5198).contains(&time_ns);
    let mut until = 0;
    items.retain(|item| {
        match item {
            Item::Events(events) => until = events.last().map_or(until, |event| event.time_ns),
            Item::Rows(block) => until = block.time_ns,
            _ => {}
        }
        !matches!(item, Item::Events(_) | Item::Rows(_) | Item::Facts(_) | Item::Tick(_)) || !is_gone(until)
    });
    let Some(Item::Header(header)) = items.front_mut() else { panic!() };
    header.set(KEPT.record(&Kept::new(vec![(START_NS, 2798), (5198, 6998)])));
    for (ticks, interval_ns) in [(true, None), (true, Some(600)), (false, Some(300))] {
        let of = Regrouping { interval_ns, ticks, ..how(By::Process.schema()) };
        let items = made(InColumns(items.clone()), of);
        let blocks =
            items.iter().filter_map(|item| if let Item::Rows(block) = item { Some(block) } else { None });
        let spans: Vec<(u64, u64)> = blocks.map(|block| (block.since_ns.unwrap(), block.time_ns)).collect();
        assert!(spans.iter().all(|(since, time)| time - since <= 606), "{spans:?}");
        assert!(spans.iter().all(|(_, time)| *time <= 3100 || *time >= 5200), "{spans:?}");
        let block = totals(&items);
        assert_eq!(block.time_ns - block.since_ns.unwrap(), 1803 + 1800, "{interval_ns:?}");
    }
    let filter = Filter { times_ns: 0..=4000, ..Filter::default() };
    let items = made(InColumns(items), Regrouping { filter, ..how(By::Process.schema()) });
    let block = totals(&items);
    assert_eq!((block.time_ns, block.time_ns - block.since_ns.unwrap()), (4000, 1803));
}

/// So is one of faults: by it nothing takes memory without end.
#[test]
fn a_fault_that_is_far_ahead_is_shown() {
    let mut items = run("h", 0..10);
    let Some(Item::Events(events)) = items.get_mut(1) else { panic!() };
    events.push(Event { time_ns: i64::MAX as u64, ..fault(10) });
    for cumulative in [false, true] {
        let of = Regrouping { interval_ns: Some(1), cumulative, ..how(By::Process.schema()) };
        let made = made(InColumns(items.clone()), of);
        let intervals = of_intervals(&made);
        assert!(
            intervals.len() < 100 && intervals.last().is_some_and(|(faults, _)| *faults > 0),
            "{intervals:?}"
        );
    }
}
