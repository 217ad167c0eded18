use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;
use crate::access::{Page, Step, TOTAL, Way, What};
use crate::field::Record;
use crate::item::{Event, Header};

const MS: u64 = 1_000_000;
const START: u64 = 1_000 * MS;

fn header() -> Item {
    Item::Header(Header {
        tool: "access".into(),
        variant: "tracepoint".into(),
        version: "0".into(),
        start_ns: START,
        ..Header::default()
    })
}

fn step(ms: u64, what: What, pid: u32, comm: &str) -> Step {
    Step {
        time_ns: START + ms * MS,
        what,
        pid,
        tid: pid,
        comm: comm.into(),
        cpu: Some(0),
        page: None,
        note: None,
    }
}

fn access(ms: u64, tid: u32, page: u64, way: Way) -> Event {
    of_file(ms, 7, tid, page, way, None)
}

fn of_file(ms: u64, pid: u32, tid: u32, page: u64, way: Way, file: Option<(&str, u64)>) -> Event {
    let page = Page {
        way: Some(way),
        ip: None,
        // Anywhere in the page.
        addr: page * PAGE + ms % PAGE,
        file: file.map(|(name, _)| name.into()),
        offset: file.map(|(_, offset)| offset + ms % PAGE),
        symbol: None,
        first: false,
    };
    Step { tid, page: Some(page), ..step(ms, What::Access, pid, "thread") }.event()
}

fn totals(ms: u64) -> Item {
    Item::Totals(Block::new(TOTAL, START + ms * MS, vec![]))
}

fn end() -> Item {
    Item::End(Facts { duration_ns: 1, sampled: 1, ..Facts::default() })
}

fn run(options: Options, items: Vec<Item>) -> Vec<Item> {
    let mut summary = Summary::new(options);
    let mut ready = VecDeque::new();
    items.into_iter().for_each(|item| summary.take(item, &mut ready));
    ready.into()
}

#[test]
fn what_is_out_of_sight_of_a_command_is_passed_on() {
    let step = |what, note: Option<&str>| Step {
        time_ns: 1,
        what,
        pid: 7,
        tid: 7,
        comm: "x".into(),
        cpu: None,
        page: None,
        note: note.map(str::to_owned),
    };
    let events = vec![step(What::Start, None).event(), step(What::Engine, Some("writes: sees")).event()];
    let engine = events[1].clone();
    let items = whole(events, 10);
    assert!(items.contains(&Item::Events(vec![engine])), "{items:?}");
}

fn whole(events: Vec<Event>, until_ms: u64) -> Vec<Item> {
    run(Options::default(), vec![header(), Item::Events(events), totals(until_ms), end()])
}

fn number(record: &Record, name: &str) -> u64 {
    match record.get(name) {
        Some(&Value::U64(n)) => n,
        other => panic!("{name} is {other:?}"),
    }
}

fn text<'a>(record: &'a Record, name: &str) -> &'a str {
    match record.get(name) {
        Some(Value::Str(text)) => text,
        other => panic!("{name} is {other:?}"),
    }
}

fn table(items: &[Item], view: View) -> Vec<Record> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Totals(block) if View::of(block) == Some(view) => Some(block.rows.clone()),
            _ => None,
        })
        .next()
        .unwrap_or_default()
}

fn windows(items: &[Item]) -> Vec<Vec<u64>> {
    let figures = |record: &Record| {
        ["at_ns", "span_ns", "pages", "read_pages", "written_pages", "new_pages", "accesses"]
            .map(|name| number(record, name) / if name.ends_with("_ns") { MS } else { 1 })
            .to_vec()
    };
    items
        .iter()
        .filter_map(|item| match item {
            Item::Rows(block) if View::of(block) == Some(View::WorkingSet) => Some(figures(&block.rows[0])),
            _ => None,
        })
        .collect()
}

fn loss(items: &[Item], name: &str) -> u64 {
    let Some(Item::End(end)) = items.last() else { panic!("no end") };
    end.get(name).unwrap()
}

#[test]
fn windows_by_hand() {
    let events = vec![
        access(10, 7, 1, Way::Read),
        access(20, 7, 1, Way::Write),
        access(99, 7, 2, Way::Write),
        // The first moment of the second window.
        access(100, 7, 1, Way::Read),
        // Three windows without anything, then one that is cut short by the end.
        access(510, 8, 3, Way::Read),
    ];
    let items = whole(events, 540);
    assert_eq!(
        windows(&items),
        [
            [0, 100, 2, 1, 2, 2, 3],
            [100, 100, 1, 1, 0, 0, 1],
            [200, 300, 0, 0, 0, 0, 0],
            [500, 40, 1, 1, 0, 1, 1]
        ]
    );
    let total = &table(&items, View::WorkingSet)[0];
    assert_eq!((number(total, "pages"), number(total, "bytes")), (3, 3 * PAGE));
    assert_eq!((number(total, "span_ns") / MS, number(total, "written_pages")), (540, 2));
    assert_eq!((loss(&items, "late_accesses"), loss(&items, "untracked_accesses")), (0, 0));
}

#[test]
fn windows_of_a_trace_that_is_idle_at_the_end_or_always() {
    let items = whole(vec![access(0, 7, 1, Way::Read)], 350);
    assert_eq!(windows(&items), [[0, 100, 1, 1, 0, 1, 1], [100, 250, 0, 0, 0, 0, 0]]);
    assert_eq!(windows(&whole(vec![], 350)), [[0, 350, 0, 0, 0, 0, 0]]);
}

#[test]
fn what_is_told_out_of_order_is_put_in_order_and_what_comes_too_late_is_told() {
    let events = vec![
        access(105, 7, 1, Way::Read),
        // From another processor: older, but not by much.
        access(95, 8, 2, Way::Read),
        access(300, 7, 3, Way::Read),
        // Its window has been shown.
        access(190, 7, 4, Way::Read),
    ];
    let items = whole(events, 400);
    assert_eq!(
        windows(&items),
        [
            [0, 100, 1, 1, 0, 1, 1],
            [100, 100, 1, 1, 0, 1, 1],
            [200, 100, 1, 1, 0, 1, 1],
            [300, 100, 1, 1, 0, 1, 1]
        ]
    );
    assert_eq!(loss(&items, "late_accesses"), 1);
    // What happened while the trace began is in its first window.
    let early = Event { time_ns: START - 5 * MS, ..access(0, 7, 1, Way::Read) };
    assert_eq!(windows(&whole(vec![early, access(10, 7, 2, Way::Read)], 20)), [[0, 25, 2, 2, 0, 2, 2]]);
}

#[test]
fn mappings_by_hand() {
    let lib = |page: u64| Some(("/lib/a.so", page * PAGE));
    let events = vec![
        step(0, What::Start, 7, "prog").event(),
        of_file(1, 7, 7, 1000, Way::Read, lib(3)),
        of_file(2, 7, 7, 1001, Way::Execute, lib(4)),
        of_file(3, 7, 7, 1001, Way::Write, lib(4)),
        // Another mapping of the same file.
        of_file(4, 7, 7, 1002, Way::Read, lib(0)),
        of_file(5, 7, 7, 2000, Way::Read, None),
        // A megabyte further: still the same row; then one page more: another.
        of_file(6, 7, 7, 2256, Way::Write, None),
        of_file(7, 7, 7, 2513, Way::Write, None),
        // What the tracer had not looked up yet.
        of_file(8, 7, 8, 5000, Way::Write, None),
        of_file(9, 7, 8, 5000, Way::Write, Some(("[heap]", 0))),
    ];
    let rows = table(&whole(events, 10), View::Mappings);
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            let offset = row.get("offset").cloned().unwrap();
            let figures = ["accesses", "pages", "reads", "writes", "executes", "start", "end"];
            (text(row, "file"), offset, figures.map(|name| number(row, name)))
        })
        .collect();
    let at = |page: u64| page * PAGE;
    assert_eq!(
        shown,
        [
            ("/lib/a.so", Value::U64(at(3)), [3, 2, 1, 1, 1, at(1000), at(1002)]),
            ("[unknown]", Value::Null, [2, 2, 1, 1, 0, at(2000), at(2257)]),
            ("[heap]", Value::U64(0), [2, 1, 0, 2, 0, at(5000), at(5001)]),
            ("/lib/a.so", Value::U64(0), [1, 1, 1, 0, 0, at(1002), at(1003)]),
            ("[unknown]", Value::Null, [1, 1, 0, 1, 0, at(2513), at(2514)]),
        ]
    );
    assert!(rows.iter().all(|row| text(row, "comm") == "prog" && number(row, "from_ns") == START));
}

#[test]
fn another_program_has_other_pages() {
    let events = vec![
        step(0, What::Start, 7, "one").event(),
        access(1, 7, 5, Way::Write),
        step(2, What::Start, 7, "two").event(),
        access(3, 7, 5, Way::Write),
        step(4, What::End, 7, "two").event(),
        // The number is used again by a process whose beginning is not told.
        access(5, 7, 5, Way::Read),
    ];
    let items = whole(events, 10);
    let rows = table(&items, View::Pages);
    assert_eq!(rows.iter().map(|row| text(row, "comm")).collect::<Vec<_>>(), ["one", "two", "thread"]);
    assert_eq!(number(&table(&items, View::Reuse)[0], "cold"), 3);
    assert!(table(&items, View::Sharing).is_empty());
    assert_eq!(table(&items, View::ReadsWrites).len(), 3);
}

#[test]
fn sharing_by_hand() {
    let events = vec![
        access(1, 10, 5, Way::Write),
        access(2, 11, 5, Way::Write),
        access(3, 11, 5, Way::Write),
        // Reading is not writing.
        access(4, 10, 6, Way::Write),
        access(5, 11, 6, Way::Read),
        access(6, 11, 5, Way::Write),
        access(7, 12, 5, Way::Write),
    ];
    let items = whole(events, 10);
    let rows = table(&items, View::Sharing);
    assert_eq!(rows.len(), 1);
    assert_eq!((number(&rows[0], "addr"), number(&rows[0], "threads")), (5 * PAGE, 3));
    assert_eq!((number(&rows[0], "writes"), text(&rows[0], "writers")), (5, "11:3 10:1 12:1"));
    let ways = &table(&items, View::ReadsWrites)[0];
    let figures = ["accesses", "reads", "writes", "pages", "only_read", "only_written", "both"];
    assert_eq!(figures.map(|name| number(ways, name)), [7, 1, 6, 2, 0, 1, 1]);
}

#[test]
fn reuse_and_misses_by_hand() {
    // As in `distance`: a a b c b a c.
    let pages = [0, 0, 1, 2, 1, 0, 2];
    let events = pages.into_iter().zip(0..).map(|(page, ms)| access(ms, 7, page, Way::Read)).collect();
    let items = whole(events, 10);
    let reuse = &table(&items, View::Reuse)[0];
    let figures = ["accesses", "cold", "reused", "mean_pages", "p50_pages", "p99_pages", "max_pages"];
    assert_eq!(figures.map(|name| number(reuse, name)), [7, 3, 4, 1, 1, 2, 2]);
    assert_eq!(reuse.get("buckets"), Some(&vec![(0, Some(0), 1), (1, Some(1), 1), (2, Some(3), 2)].into()));
    let curve: Vec<_> = table(&items, View::MissRatio)
        .iter()
        .map(|row| ["pages", "bytes", "misses", "miss_ppm"].map(|name| number(row, name)))
        .collect();
    assert_eq!(curve, [[1, PAGE, 6, 857_142], [2, 2 * PAGE, 5, 714_285], [3, 3 * PAGE, 3, 428_571]]);
}

#[test]
fn two_faults_of_one_access_are_one() {
    let at = |us: u64, tid, page, first| {
        let mut event = access(0, tid, page, Way::Write);
        event.time_ns = START + us * 1000;
        let values = event.record.iter().map(|(field, value)| match field.name {
            "first" => Value::Bool(first),
            "ip" => Value::U64(9),
            _ => value.clone(),
        });
        event.record = Record::new(event.record.schema(), values.collect());
        event
    };
    let events = vec![
        at(1, 7, 1, true),
        // Of another thread in between.
        at(2, 8, 2, true),
        at(3, 7, 1, false),
        at(4, 8, 3, true),
        // Not next in its thread.
        at(5, 8, 2, false),
        // Not before another round can have been.
        at(1004, 8, 4, true),
        at(1504, 8, 4, false),
        at(1604, 8, 4, false),
    ];
    let items = whole(events, 10);
    assert_eq!(loss(&items, "merged_faults"), 2);
    assert_eq!(number(&table(&items, View::ReadsWrites)[0], "accesses"), 6);
}

#[test]
fn what_does_not_fit_is_told() {
    let options = Options { most_pages: 2, top: 1, ..Options::default() };
    let mut events: Vec<Event> = (0..5).map(|page| access(page, 7, page, Way::Read)).collect();
    events.push(access(6, 7, 0, Way::Read));
    let mut nowhere = access(7, 7, 0, Way::Read);
    nowhere.record = Record::new(
        nowhere.record.schema(),
        nowhere
            .record
            .iter()
            .map(|(field, value)| if field.name == "addr" { Value::Null } else { value.clone() })
            .collect(),
    );
    events.push(nowhere);
    let items = run(options, vec![header(), Item::Events(events), totals(10), end()]);
    assert_eq!(loss(&items, "untracked_accesses"), 4);
    assert_eq!(loss(&items, "hidden_rows"), 1);
    let rows = table(&items, View::Pages);
    assert_eq!((rows.len(), number(&rows[0], "accesses")), (1, 2));
}

#[test]
fn intervals_add_up_to_totals() {
    for cumulative in [false, true] {
        let options = Options { intervals: true, cumulative, top: usize::MAX, ..Options::default() };
        let mut random = fastrand::Rng::with_seed(3);
        let mut items = vec![header()];
        for interval in 0..4 {
            let event = |ms| access(ms, random.u32(7..9), random.u64(..30), Way::Write);
            items.push(Item::Events((interval * 50..interval * 50 + 50).map(event).collect()));
            let time_ns = START + (interval + 1) * 50 * MS;
            items.push(Item::Tick(time_ns));
        }
        items.extend([totals(200), end()]);
        let items = run(options, items);
        let of = |view: View, name: &str| -> Vec<u64> {
            let rows = items.iter().filter_map(|item| match item {
                Item::Rows(block) if View::of(block) == Some(view) => Some(&block.rows),
                _ => None,
            });
            rows.map(|rows| rows.iter().map(|row| number(row, name)).sum()).collect()
        };
        for (view, name) in [(View::Pages, "accesses"), (View::Mappings, "writes"), (View::Reuse, "cold")] {
            let shown = of(view, name);
            let total: u64 = table(&items, view).iter().map(|row| number(row, name)).sum();
            assert_eq!(shown.len(), 4, "{view}");
            assert_eq!(if cumulative { shown[3] } else { shown.iter().sum() }, total, "{view} {name}");
        }
        assert_eq!(number(&table(&items, View::ReadsWrites)[0], "accesses"), 200);
        assert_eq!(loss(&items, "late_accesses"), 0);
    }
}

#[test]
fn all_tables_as_counted_naively_on_random_traces() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let ways = [Way::Read, Way::Write, Way::Execute];
        let length = random.usize(..800);
        // (ms, pid, tid, page, way), in order.
        let mut trace: Vec<(u64, u32, u32, u64, Way)> = std::iter::repeat_with(|| {
            let pid = random.u32(1..4);
            let tid = pid * 10 + random.u32(..3);
            (random.u64(..1500), pid, tid, random.u64(..40), ways[random.usize(..3)])
        })
        .take(length)
        .collect();
        trace.sort_by_key(|&(ms, ..)| ms);
        // Told in an order that is not quite that of time.
        let mut told: Vec<_> = trace.iter().copied().zip(0u64..).collect();
        told.sort_by_key(|&((ms, ..), nth)| ms + (nth * 7919) % 40);
        // Of one moment, the one told first is the first.
        trace = told.iter().map(|&(access, _)| access).collect();
        trace.sort_by_key(|&(ms, ..)| ms);
        let events = told.iter().map(|&((ms, pid, tid, page, way), _)| {
            of_file(ms, pid, tid, page, way, Some(("f", page * PAGE)))
        });
        let options = Options { top: usize::MAX, ..Options::default() };
        let items = run(options, vec![header(), Item::Events(events.collect()), totals(1500), end()]);
        assert_eq!(
            (loss(&items, "late_accesses"), loss(&items, "untracked_accesses")),
            (0, 0),
            "seed {seed}"
        );

        let mut sets: BTreeMap<u64, BTreeSet<(u32, u64)>> = BTreeMap::new();
        trace.iter().for_each(|&(ms, pid, _, page, _)| {
            sets.entry(ms / 100 * 100).or_default().insert((pid, page));
        });
        let shown: Vec<_> = windows(&items).into_iter().filter(|w| w[2] > 0).map(|w| (w[0], w[2])).collect();
        let expected: Vec<_> = sets.iter().map(|(&at, set)| (at, set.len() as u64)).collect();
        assert_eq!(shown, expected, "seed {seed}");
        let spans: u64 = windows(&items).iter().map(|w| w[1]).sum();
        assert_eq!(spans, 1500, "seed {seed}");

        let mut pages: HashMap<(u32, u64), u64> = HashMap::new();
        let mut writers: HashMap<(u32, u64), BTreeSet<u32>> = HashMap::new();
        for &(_, pid, tid, page, way) in &trace {
            *pages.entry((pid, page)).or_default() += 1;
            if way == Way::Write {
                writers.entry((pid, page)).or_default().insert(tid);
            }
        }
        let key = |row: &Record| (number(row, "pid") as u32, number(row, "addr") / PAGE);
        let rows = table(&items, View::Pages);
        let counted: HashMap<_, _> = rows.iter().map(|row| (key(row), number(row, "accesses"))).collect();
        assert_eq!(counted, pages, "seed {seed}");
        assert!(rows.is_sorted_by_key(|row| std::cmp::Reverse(number(row, "accesses"))));
        let shared: HashMap<_, _> = table(&items, View::Sharing)
            .iter()
            .map(|row| (key(row), number(row, "threads") as usize))
            .collect();
        writers.retain(|_, tids| tids.len() > 1);
        assert_eq!(shared, writers.into_iter().map(|(at, tids)| (at, tids.len())).collect(), "seed {seed}");
        for view in [View::Mappings, View::ReadsWrites] {
            let sum: u64 = table(&items, view).iter().map(|row| number(row, "accesses")).sum();
            assert_eq!(sum, trace.len() as u64, "seed {seed}");
        }
        // The order in which the distances are taken is that of time.
        let mut recency = Recency::default();
        let mut numbers = HashMap::new();
        let mut distances = Distances::default();
        for (_, pid, _, page, _) in trace {
            let next = numbers.len() as u32;
            distances.count(recency.access(*numbers.entry((pid, page)).or_insert(next)));
        }
        let curve: Vec<_> = table(&items, View::MissRatio)
            .iter()
            .map(|row| (number(row, "pages"), number(row, "misses")))
            .collect();
        assert_eq!(curve, distances.misses(), "seed {seed}");
    }
}
