//! The screen at several sizes, and what keys do to it.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use trapline_model::explain::Explain;
use trapline_model::faults::{By, EVENT, LOSSES, Losses};
use trapline_model::{Block, Event, Facts, Header, Item, Record, Source, Value};

mod each_key;

use super::history::POINTS;
use super::*;

static FAULTS: Face = Face {
    tool: "faults",
    counts: "faults",
    groups: &[
        Group { name: "process", into: Some("thread") },
        Group { name: "thread", into: Some("file") },
        Group { name: "file", into: Some("stack") },
        Group { name: "stack", into: None },
    ],
    events: &["major", "minor"],
    time: Some("total_ns"),
    parts: &[("lock_ns", "lock"), ("io_ns", "I/O"), ("kernel_ns", "kernel")],
    relative: &[],
    has_events: true,
};

static SGX: Face = Face { tool: "sgx", groups: &[], time: None, parts: &[], has_events: false, ..FAULTS };

const SECOND: u64 = 1_000_000_000;

/// A process with so many faults in an interval.
fn row(by: By, n: u64, faults: u64) -> Record {
    Record::named(by.split_schema(), |name| match name {
        "pid" => (1000 + n).into(),
        "tid" => (2000 + n).into(),
        "start_ns" => n.into(),
        "comm" => ["postgres", "rustc", "\u{1b}[31mred", "漢字漢字"][n as usize % 4].into(),
        "file" => format!("/srv/db/base/{n}").into(),
        "stack" => format!("db;main;read_{n};handle_mm_fault_[k]").into(),
        "lines" => ";main.c:7;;".into(),
        "major" => (faults / 100).into(),
        "minor" => faults.into(),
        "total_ns" => (faults * 1500).into(),
        "lock_ns" => (faults * 500).into(),
        "io_ns" => (faults * 750).into(),
        "kernel_ns" => (faults * 250).into(),
        "max_ns" => (n * 70_000).into(),
        "buckets" => vec![
            (256, Some(511), faults / 2),
            (512, Some(1023), faults / 4),
            (1 << 20, Some((1 << 21) - 1), n),
        ]
        .into(),
        _ => Value::Null,
    })
}

fn state(look: Look) -> State {
    let tools = vec![
        (&FAULTS, Begin::Now),
        (&SGX, Begin::Never("no SGX: the processor has none, or the firmware switched it off".into())),
    ];
    State::new(tools, look, Duration::from_secs(1), TimeZone::UTC)
}

fn header() -> Header {
    let start_unix_ns = 1_700_000_000 * SECOND.cast_signed();
    let tables = vec![By::Process.split_schema()];
    Header { tool: "faults".into(), variant: "fentry".into(), start_unix_ns, tables, ..Header::default() }
}

/// The items of an interval, the last of so many.
fn feed(state: &mut State, by: By, interval: u64, rows: impl Iterator<Item = Record>) {
    let run = state.tools[0].run;
    let time_ns = interval * SECOND;
    let block =
        Block { since_ns: Some(time_ns - SECOND), ..Block::new(by.split_schema(), time_ns, rows.collect()) };
    let facts = Facts {
        duration_ns: time_ns,
        events: interval * 100,
        sampled: 1,
        own_cpu_ns: Some(interval * 12_000_000),
        more: vec![LOSSES.record(&Losses { truncated_stacks: Some(interval % 2), ..Losses::default() })],
        ..Facts::default()
    };
    state.update(Input::Cost { tool: 0, run, ns: Some(interval * 4500) });
    for item in [Item::Rows(block), Item::Facts(facts), Item::Tick(time_ns)] {
        assert_eq!(state.update(Input::Item { tool: 0, run, item }), []);
    }
}

/// After 20 intervals of 30 processes.
fn fed(look: Look) -> State {
    fed_with(look, |n| n)
}

/// The same with the names of these processes.
fn fed_with(look: Look, of: impl Fn(u64) -> u64) -> State {
    let mut state = state(look);
    let commands = state.begin();
    assert!(matches!(&commands[..], [Command::Open { tool: 0, run: 1, .. }]), "{commands:?}");
    state.update(Input::Item { tool: 0, run: 1, item: Item::Header(header()) });
    for interval in 1..=20 {
        let rows = (0..30).map(|n| row(By::Process, of(n), (n + 1) * 40 * (1 + interval * (n + 3) % 7)));
        feed(&mut state, By::Process, interval, rows);
    }
    state
}

fn drawn(state: &mut State, columns: u16, lines: u16) -> String {
    state.update(Input::Size(columns, lines));
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
    state.draw(&mut buffer);
    let lines = (0..lines).map(|y| {
        let mut line = String::new();
        let mut x = 0;
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            line += symbol;
            x += unicode_width::UnicodeWidthStr::width(symbol).max(1) as u16;
        }
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn press(state: &mut State, keys: &str) -> Vec<Command> {
    let presses = Keyboard::default().read(keys.as_bytes());
    presses.into_iter().flat_map(|press| state.update(Input::Press(press))).collect()
}

#[test]
fn the_screen_at_every_size() {
    for (columns, lines) in [(80, 24), (120, 40), (200, 60), (40, 10)] {
        let mut state = fed(Look::default());
        insta::assert_snapshot!(format!("overview-{columns}x{lines}"), drawn(&mut state, columns, lines));
        press(&mut state, "\r\x1b[B\x1b[B");
        insta::assert_snapshot!(format!("pane-{columns}x{lines}"), drawn(&mut state, columns, lines));
        press(&mut state, "?");
        insta::assert_snapshot!(format!("help-{columns}x{lines}"), drawn(&mut state, columns, lines));
    }
}

#[test]
fn the_screen_of_a_tiny_terminal() {
    let mut all = String::new();
    for (columns, lines) in [(1, 1), (1, 8), (80, 0), (20, 4)] {
        let mut state = fed(Look::default());
        for (name, keys) in [("overview", ""), ("pane", "\r"), ("help", "?")] {
            press(&mut state, keys);
            let text = drawn(&mut state, columns, lines);
            assert!(
                text.lines().count() == usize::from(lines)
                    && text.lines().all(|line| line.chars().count() <= usize::from(columns))
            );
            all += &format!("{columns}x{lines} {name}\n{text}\n");
        }
    }
    insta::assert_snapshot!("tiny", all);
}

#[test]
fn the_help_has_all_keys_also_on_a_small_terminal() {
    let mut state = fed(Look::default());
    press(&mut state, "?");
    let mut seen = drawn(&mut state, 40, 10);
    assert!(!seen.contains("write what"));
    for _ in 0..9 {
        press(&mut state, "\x1b[6~");
        seen += &drawn(&mut state, 40, 10);
    }
    assert!(keys::help(false).all(|(key, ..)| seen.contains(&format!("\n{key:<10} "))), "{seen}");
    assert!(seen.ends_with(&drawn(&mut state, 40, 10)));
    press(&mut state, "\x1b[A");
    assert!(!seen.ends_with(&drawn(&mut state, 40, 10)), "one line back");
    press(&mut state, "x?");
    assert!(!drawn(&mut state, 40, 10).contains("F1"));
}

#[test]
fn the_page_shows_the_screen() {
    let mut state = fed_with(Look::default(), |n| n / 2 * 4 + n % 2);
    press(&mut state, "1\x1b[B\x1b[B");
    let screen = drawn(&mut state, 80, 24);
    let page = include_str!("../../../../docs/top.md");
    assert!(page.contains(&format!("```\n{screen}```\n")), "docs/top.md should have:\n{screen}");
}

#[test]
fn no_size_and_no_order_of_keys_is_a_panic() {
    let keys = "\r\x1b[B\x1b[5~\x1b[6~\x1b[H\x1b[F<>I/a[\x7f\r/zzz\x1bbc 1234+-Svw?oo\t\x1b[Z\x1b\x1b\x1b";
    for (columns, lines) in
        [(1, 24), (80, 0), (0, 0), (1, 1), (2, 3), (59, 9), (60, 18), (119, 7), (300, 100)]
    {
        let mut state = fed(Look::default());
        for key in Keyboard::default().read(keys.as_bytes()) {
            drawn(&mut state, columns, lines);
            state.update(Input::Press(key));
            for line in 0..lines.min(30) {
                state.update(Input::Press(Press::Click { column: columns / 2, line }));
            }
        }
        drawn(&mut state, columns, lines);
    }
}

#[test]
fn rows_are_sorted_and_filtered_and_the_chosen_one_stays_chosen() {
    let mut state = fed(Look::default());
    press(&mut state, "1");
    let first = |state: &State| state.tools[0].row(0).and_then(|row| row.number("pid"));
    assert_eq!(first(&state), Some(1026));
    press(&mut state, "\x1b[B");
    let chosen = state.tools[0].chosen.clone();
    press(&mut state, "<");
    assert!(drawn(&mut state, 80, 24).contains("30 rows by WAITS"), "{}", drawn(&mut state, 80, 24));
    press(&mut state, "<");
    assert_eq!(first(&state), Some(1026), "by minor faults");
    press(&mut state, "I");
    assert_eq!(first(&state), Some(1004));
    assert_eq!(state.tools[0].chosen, chosen);
    press(&mut state, "/POSTGRES\r");
    assert!(drawn(&mut state, 80, 24).contains("No row matches"));
    press(&mut state, "/\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f^p.*S\r");
    assert!(drawn(&mut state, 80, 24).contains("No row matches"), "capitals count");
    press(&mut state, "/\x1b");
    press(&mut state, "/^po.*es$\r");
    assert_eq!(state.tools[0].rows.len(), 8);
    press(&mut state, "/\x1b/[\r");
    assert_eq!(state.tools[0].rows.len(), 7, "no regular expression: the text itself");
}

#[test]
fn enter_goes_into_a_row_and_escape_back() {
    let mut state = fed(Look::default());
    press(&mut state, "1");
    let commands = press(&mut state, "\x1b[B\r");
    let [Command::Open { tool: 0, run: 2, want }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((want.group, want.keys.as_slice()), ("thread", &[("pid", Value::U64(1027))][..]));
    assert!(drawn(&mut state, 80, 24).contains("Attaching"));
    // What comes late is of before.
    state.update(Input::Item { tool: 0, run: 1, item: Item::Header(header()) });
    assert!(state.tools[0].header.is_none());
    state.update(Input::Item { tool: 0, run: 2, item: Item::Header(header()) });
    let threads = [row(By::Thread, 27, 5), row(By::Thread, 3, 7)];
    feed(&mut state, By::Thread, 1, threads.into_iter());
    let text = drawn(&mut state, 80, 24);
    assert!(text.contains("faults > 1027 漢字漢字 by thread") && !text.contains("1003"), "{text}");
    let commands = press(&mut state, "\r");
    let [Command::Open { run: 3, want, .. }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(want.keys, [("pid", Value::U64(1027)), ("tid", Value::U64(2027))]);
    state.update(Input::Failed { tool: 0, run: 3, why: "no process 1028: ESRCH".into() });
    let text = drawn(&mut state, 80, 24);
    assert!(text.contains("no process 1028: ESRCH") && text.contains("Esc goes back"), "{text}");
    let commands = press(&mut state, "\x1b");
    assert!(matches!(&commands[..], [Command::Open { run: 4, want, .. }] if want.group == "thread"));
    press(&mut state, "\x1b\x1b");
    assert!(drawn(&mut state, 80, 24).contains("no SGX"), "the overview");
}

#[test]
fn stacks_and_events_have_their_panes() {
    let mut state = fed(Look::default());
    press(&mut state, "1");
    let commands = press(&mut state, "4");
    assert!(matches!(&commands[..], [Command::Open { want, .. }] if want.group == "stack"));
    state.update(Input::Item { tool: 0, run: 2, item: Item::Header(header()) });
    feed(&mut state, By::Stack, 1, (0..3).map(|n| row(By::Stack, n, 70)));
    insta::assert_snapshot!("stacks", drawn(&mut state, 130, 20));
    let commands = press(&mut state, "v");
    assert!(matches!(&commands[..], [Command::Open { want, .. }] if want.events));
    state.update(Input::Item { tool: 0, run: 3, item: Item::Header(header()) });
    let record = Record::named(EVENT, |name| match name {
        "pid" => 1001_u32.into(),
        "tid" => 1001_u32.into(),
        "comm" => "rustc".into(),
        "kind" => "minor".into(),
        "addr" => 0x7f00_u64.into(),
        _ => Value::Null,
    });
    let events = (0..2000).map(|n| Event { time_ns: n * 1000, record: record.clone() }).collect();
    state.update(Input::Item { tool: 0, run: 3, item: Item::Events(events) });
    assert_eq!(state.tools[0].events.all().len(), 1000);
    insta::assert_snapshot!("events", drawn(&mut state, 100, 12));
    let commands = press(&mut state, "\x1b");
    assert!(matches!(&commands[..], [Command::Open { want, .. }] if !want.events && want.group == "stack"));
}

#[test]
fn a_pause_keeps_the_picture_and_nothing_is_lost() {
    let mut state = fed(Look::default());
    press(&mut state, "1 ");
    let before = drawn(&mut state, 80, 24);
    assert!(before.contains("paused"));
    feed(&mut state, By::Process, 21, [row(By::Process, 9, 123)].into_iter());
    let rows = |text: &str| text.lines().skip(2).take(10).collect::<Vec<_>>().join("\n");
    assert_eq!(rows(&drawn(&mut state, 80, 24)), rows(&before));
    press(&mut state, " ");
    let after = drawn(&mut state, 80, 24);
    assert!(after.contains("1 row by TOTAL_MS") && after.contains("1009"), "{after}");
}

#[test]
fn a_pane_that_is_attached_in_a_pause_says_so() {
    let mut state = fed(Look::default());
    press(&mut state, "1 v");
    state.update(Input::Item { tool: 0, run: 2, item: Item::Header(header()) });
    assert!(drawn(&mut state, 80, 24).contains("Paused: space goes on."), "{}", drawn(&mut state, 80, 24));
    press(&mut state, "\x1b");
    state.update(Input::Item { tool: 0, run: 3, item: Item::Header(header()) });
    feed(&mut state, By::Process, 1, [row(By::Process, 9, 123)].into_iter());
    assert!(drawn(&mut state, 80, 24).contains("Paused: space goes on."), "{}", drawn(&mut state, 80, 24));
    assert_eq!(press(&mut state, "w"), []);
    assert!(drawn(&mut state, 80, 24).contains("there is nothing to write yet"));
    press(&mut state, " ");
    assert!(drawn(&mut state, 80, 24).contains("1009"));
}

#[test]
fn escape_removes_a_filter_before_it_leaves_a_row() {
    let mut state = fed(Look::default());
    press(&mut state, "1\r");
    state.update(Input::Item { tool: 0, run: 2, item: Item::Header(header()) });
    feed(&mut state, By::Thread, 1, [row(By::Thread, 26, 5)].into_iter());
    press(&mut state, "/zzz\r");
    let text = drawn(&mut state, 80, 24);
    assert!(text.contains("by thread  filter: zzz") && text.contains("No row matches"), "{text}");
    assert_eq!(press(&mut state, "\x1b"), []);
    let text = drawn(&mut state, 80, 24);
    assert!(text.contains("by thread  ") && !text.contains("zzz"), "{text}");
    assert!(matches!(&press(&mut state, "\x1b")[..], [Command::Open { want, .. }] if want.keys.is_empty()));
}

#[test]
fn what_is_on_the_screen_is_what_is_written() {
    let mut state = fed(Look::default());
    press(&mut state, "1/rustc\r");
    let commands = press(&mut state, "w");
    let [Command::Write(items)] = &commands[..] else { panic!("{commands:?}") };
    let rows =
        items.iter().find_map(|item| if let Item::Rows(block) = item { Some(&block.rows) } else { None });
    assert_eq!(rows.map(Vec::len), Some(8));
    assert!(matches!((items.first(), items.last()), (Some(Item::Header(_)), Some(Item::End(_)))));
}

/// The pane of events after so many faults, one a millisecond, that each took half of that; 100 s after the start.
fn with_events(faults: u64) -> State {
    let mut state = fed(Look::default());
    press(&mut state, "1v");
    let header = Header { events: Some(EVENT), ..header() };
    state.update(Input::Item { tool: 0, run: 2, item: Item::Header(header) });
    more_events(&mut state, 0..faults);
    state
}

fn more_events(state: &mut State, of: std::ops::Range<u64>) {
    let events = of.map(|n| {
        let record = Record::named(EVENT, |name| match name {
            "pid" | "tid" => 1026_u32.into(),
            "comm" | "process_comm" => if n % 2 == 0 { "rustc" } else { "postgres" }.into(),
            "kind" => "minor".into(),
            "addr" => 0x7f00_u64.into(),
            "cause" => "zero-fill".into(),
            "latency_ns" => 500_000_u64.into(),
            _ => Value::Null,
        });
        Event { time_ns: 100 * SECOND + n * 1_000_000, record }
    });
    let run = state.tools[0].run;
    state.update(Input::Item { tool: 0, run, item: Item::Events(events.collect()) });
}

/// What `w` writes.
fn written(state: &mut State) -> Vec<Item> {
    let mut commands = press(state, "w");
    let Some(Command::Write(items)) = commands.pop() else { panic!("nothing is written") };
    items
}

/// The start, the number of events, and the end of a recording.
fn ends(items: &[Item]) -> (u64, u64, &Facts) {
    let [Item::Header(header), .., Item::End(end)] = items else { panic!("{items:?}") };
    let events = items.iter().map(|item| if let Item::Events(events) = item { events.len() } else { 0 });
    (header.start_ns, events.sum::<usize>() as u64, end)
}

#[test]
fn events_are_written_as_a_recording_of_their_time_and_those_before_as_lost() {
    let mut state = with_events(3000);
    let facts = Facts { duration_ns: 103 * SECOND, events: 3000, sampled: 1, ..Facts::default() };
    state.update(Input::Item { tool: 0, run: 2, item: Item::Facts(facts) });
    let items = written(&mut state);
    let (start_ns, count, end) = ends(&items);
    // From the last one that is not there.
    assert_eq!(start_ns, 100 * SECOND + 1999 * 1_000_000);
    assert_eq!((count, end.events, end.lost_events, end.duration_ns), (1000, 1000, 2000, SECOND));
    // Half of that second, and not half a second of a hundred.
    let mut explain = Explain::new(VecDeque::from(items));
    let mut rules = vec![];
    while let Ok(Some(item)) = explain.next() {
        if let Item::Totals(block) = item {
            rules.extend(
                block
                    .rows
                    .iter()
                    .map(|row| (row.get("rule").cloned(), row.number("share_ppm"), row.number("count"))),
            );
        }
    }
    assert_eq!(rules, [(Some("first-touch".into()), Some(500_000), Some(1000))]);
}

#[test]
fn events_that_a_pause_or_the_filter_left_out_are_not_recorded() {
    let mut state = with_events(10);
    press(&mut state, " ");
    more_events(&mut state, 10..35);
    press(&mut state, " ");
    more_events(&mut state, 35..40);
    let items = written(&mut state);
    let (start_ns, count, end) = ends(&items);
    assert_eq!((start_ns, count, end.lost_events), (0, 15, 25));
    // When the pause is before what is there, the recording begins with its end.
    press(&mut state, " ");
    more_events(&mut state, 40..1035);
    let items = written(&mut state);
    assert_eq!(ends(&items).2.lost_events, 35);
    assert_eq!(ends(&items).0, 100 * SECOND + 34 * 1_000_000);
    press(&mut state, "/rustc\r");
    let items = written(&mut state);
    let (_, count, end) = ends(&items);
    assert_eq!((count, end.events, end.lost_events), (500, 500, 535));
}

#[test]
fn rows_are_written_as_a_recording_of_their_interval() {
    let mut state = fed(Look::default());
    press(&mut state, "1");
    let items = written(&mut state);
    let (start_ns, _, end) = ends(&items);
    let faults: u64 = (0..30).map(|n| (n + 1) * 40 * (1 + 20 * (n + 3) % 7)).map(|n| n + n / 100).sum();
    assert_eq!((start_ns, end.duration_ns, end.events), (19 * SECOND, SECOND, faults));
    assert_eq!(end.lost_events, 0);
    press(&mut state, "/rustc\r");
    let items = written(&mut state);
    let end = ends(&items).2;
    assert!(end.events > 0 && end.lost_events == faults - end.events, "{end:?}");
    let hidden =
        items.iter().find_map(|item| if let Item::Totals(rows) = item { Some(rows.hidden) } else { None });
    assert_eq!(hidden, Some(22));
}

#[test]
fn events_are_filtered() {
    let mut state = with_events(100);
    press(&mut state, "/postgres");
    let text = drawn(&mut state, 100, 24);
    assert!(text.contains("events of faults") && text.contains("postgres "), "{text}");
    assert!(!text.contains(" rustc "), "{text}");
    press(&mut state, "x\r");
    assert!(drawn(&mut state, 100, 24).contains("No event matches the filter; Esc shows all."));
    assert_eq!(press(&mut state, "\x1b"), []);
    let text = drawn(&mut state, 100, 24);
    assert!(text.contains("events of faults") && text.contains(" rustc "), "{text}");
}

#[test]
fn without_utf_8_there_is_only_ascii_and_without_color_none() {
    let mut state = fed(Look { ascii: true, color: false });
    press(&mut state, "1");
    for (columns, lines) in [(80, 24), (130, 30)] {
        let text = drawn(&mut state, columns, lines);
        assert!(text.is_ascii(), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("\\x1b[31mred"), "{text}");
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
        state.draw(&mut buffer);
        let plain = |cell: &ratatui::buffer::Cell| cell.fg == ratatui::style::Color::Reset;
        assert!(buffer.content.iter().all(plain));
    }
}

#[test]
fn where_nothing_works_it_is_said_what_to_do() {
    let mut state = state(Look::default());
    state.begin();
    state.update(Input::Failed { tool: 0, run: 1, why: "cannot load: EPERM; run as root".into() });
    let text = drawn(&mut state, 80, 24);
    assert!(text.contains("EPERM; run as root") && text.contains("sudo trapline top"), "{text}");
}

#[test]
fn a_recording_goes_forward_and_back() {
    let tools = vec![(&FAULTS, Begin::Now)];
    let state = State::new(tools, Look::default(), Duration::from_secs(1), TimeZone::UTC);
    let mut state = state.with_pane(0, None).playing("run.trapline".into(), true);
    state.begin();
    state.update(Input::Item { tool: 0, run: 1, item: Item::Header(header()) });
    feed(&mut state, By::Process, 30, (0..9).map(|n| row(By::Process, n, 9)));
    assert!(drawn(&mut state, 80, 24).contains("run.trapline  at 30.0 s, 1 times as fast"));
    assert_eq!(press(&mut state, "\x1b[C"), [Command::Seek(Duration::from_secs(40))]);
    assert_eq!(press(&mut state, "\x1b[D"), [Command::Seek(Duration::from_secs(20))]);
    assert_eq!(press(&mut state, "+-"), [Command::Speed(200), Command::Speed(100)]);
    assert_eq!(
        press(&mut state, ",."),
        [Command::StepTo(Duration::from_nanos(29_999_999_999)), Command::Step]
    );
    assert_eq!(press(&mut state, " "), [Command::Play(true)]);
    for key in ["2", "v", "S", "\r"] {
        assert_eq!(press(&mut state, key), [], "{key}: its rows are as they were recorded");
        assert!(drawn(&mut state, 80, 24).contains("the recording has these rows"));
    }
    state.update(Input::Rewound);
    assert!(state.tools[0].rows.is_empty());
}

#[test]
fn a_recording_without_intervals_has_all_its_tables() {
    let state =
        State::new(vec![(&FAULTS, Begin::Now)], Look::default(), Duration::from_secs(1), TimeZone::UTC);
    let mut state = state.with_pane(0, None).playing("run.trapline".into(), true);
    state.begin();
    let totals = |by: By| Item::Totals(Block::new(by.split_schema(), SECOND, vec![row(by, 1, 70)]));
    let end = Item::End(Facts { duration_ns: SECOND, ..Facts::default() });
    for item in [Item::Header(header()), totals(By::Process), totals(By::File), end] {
        state.update(Input::Item { tool: 0, run: 1, item });
    }
    assert!(drawn(&mut state, 80, 24).contains("1001"));
    press(&mut state, "2");
    let text = drawn(&mut state, 80, 24);
    assert!(text.contains("/srv/db/base/1") && text.contains("faults: split file"), "{text}");
    press(&mut state, "39");
    assert_eq!(drawn(&mut state, 80, 24), text, "there are two tables");
}

/// Processes come and go: what is kept does not grow. `history.rs` has a day of that.
#[test]
fn what_is_kept_does_not_grow() {
    let mut state = state(Look::default());
    state.begin();
    state.update(Input::Item { tool: 0, run: 1, item: Item::Header(header()) });
    let mut most = 0;
    for second in 1..=5000_u64 {
        let rows = (0..4).map(|n| row(By::Process, n + second / 30 * 4, second));
        feed(&mut state, By::Process, second, rows);
        let (points, rows) = state.tools[0].histories.kept();
        most = if second == 1000 { points } else { most };
        assert!(rows <= 4 * (POINTS / 30 + 2) && (second < 1000 || points <= most + 4 * 30), "{second} s");
    }
    assert_eq!(state.tools[0].rows.len(), 4);
}
