use trapline_model::Sink;
use trapline_model::Value;
use trapline_model::access;
use trapline_model::access::{EVENT, Page, Step, TOTAL, Tally, Way, What};
use trapline_view::JsonLines;

use super::*;

fn items() -> Vec<Item> {
    let step = |time_ns: u64| Step {
        time_ns,
        what: What::Access,
        pid: 7,
        tid: 8,
        comm: "a \"name\"\n\u{1b}".into(),
        cpu: None,
        page: Some(Page {
            way: Some(Way::Write),
            ip: Some(u64::MAX),
            addr: 0x7fff_0000_1000,
            file: Some("/a b".into()),
            offset: Some(0),
            symbol: None,
            first: true,
        }),
        note: None,
    };
    let tally = Tally { accesses: 3, ..Tally::default() };
    vec![
        Item::Header(Header {
            tool: "access".into(),
            variant: "tracepoint".into(),
            version: "1".into(),
            host: "h".into(),
            kernel: "k".into(),
            start_unix_ns: 1_700_000_000_123_456_789,
            start_ns: 5,
            tables: vec![TOTAL],
            events: Some(EVENT),
            settings: vec![access::SETTINGS.record(&access::Settings { every_ns: 9, ..Default::default() })],
        }),
        Item::Events((10..13).map(|time_ns| step(time_ns).event()).collect()),
        Item::Totals(Block::new(TOTAL, 20, vec![tally.record(7, "x")])),
        Item::End(Facts {
            duration_ns: 15,
            events: 3,
            lost_events: 1,
            sampled: 1,
            own_cpu_ns: Some(2),
            more: vec![access::REACHED.record(&access::Reached { rounds: 4, ..Default::default() })],
        }),
    ]
}

fn written() -> String {
    let mut out = Vec::new();
    let mut sink = JsonLines::new(&mut out);
    items().iter().for_each(|item| sink.take(item).unwrap());
    String::from_utf8(out).unwrap()
}

fn read(text: &str) -> Result<Vec<Item>, String> {
    let mut recording =
        Recording::open(text.as_bytes(), "x.jsonl", Some("access")).map_err(|e| e.to_string())?;
    let mut items = Vec::new();
    while let Some(item) = recording.next().map_err(|e| e.to_string())? {
        items.push(item);
    }
    Ok(items)
}

#[test]
fn what_was_written_is_read_back() {
    assert_eq!(read(&written()).unwrap(), items());
}

#[test]
fn what_is_not_known_is_passed_over() {
    let text = written()
        .replace("\"pid\":", "\"later\":[1,{}],\"pid\":")
        .replace("{\"type\":\"total\"", "{\"type\":\"later\"}\n{\"type\":\"total\"")
        .replace("\"every_ns\":9", "\"every_ns\":9,\"later\":true,\"Odd name\":1");
    assert_eq!(read(&text).unwrap(), items());
    // A field that is missing is one that is not known.
    let fewer = read(&written().replace("\"ip\":18446744073709551615,", "")).unwrap();
    let Item::Events(events) = &fewer[1] else { panic!("{fewer:?}") };
    assert_eq!(events[0].record.get("ip"), Some(&Value::Null));
}

#[test]
fn many_events_come_in_batches_and_none_is_an_end_too() {
    let text = written();
    let lines: Vec<&str> = text.lines().collect();
    let many = [vec![lines[0]], vec![lines[1]; 3000], lines[4..].to_vec()].concat().join("\n");
    let many = many.replace("\"events\":3", "\"events\":3000");
    let events: Vec<usize> = read(&many)
        .unwrap()
        .iter()
        .filter_map(|item| if let Item::Events(events) = item { Some(events.len()) } else { None })
        .collect();
    assert_eq!(events, [1024, 1024, 952]);
    let none = [lines[0], lines[6]].join("\n").replace("\"events\":3", "\"events\":0");
    let none = read(&none).unwrap();
    let Item::Totals(totals) = &none[1] else { panic!("{none:?}") };
    assert_eq!((totals.rows.len(), totals.time_ns), (0, 20));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let text = written();
    let lines: Vec<&str> = text.lines().collect();
    let refused = |text: &str, line: u64, holds: &str| {
        let error = read(text).unwrap_err();
        assert!(
            error.starts_with(&format!("cannot read x.jsonl: line {line}: ")) && error.contains(holds),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    };
    refused("", 1, "it is empty");
    refused("hello\nworld\n", 1, "not a JSON object");
    refused("[1]\n", 1, "not a JSON object");
    refused("\0\u{1}ELF", 1, "not a JSON object");
    refused("{\"a\":1}\n", 1, "not the header");
    refused(lines[1], 1, "not the header");
    let of_schema = |schema: &str| text.replace("\"schema\":2", &format!("\"schema\":{schema}"));
    let version = text.split("\"version\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let earlier = format!("schema 1 of a build before the first release, trapline {version}; ");
    refused(
        &of_schema("1"),
        1,
        &format!("{earlier}this version reads schema 2, in which losses have other names"),
    );
    refused(
        &of_schema("3"),
        1,
        &format!("schema 3 of a later version, trapline {version}, and this version"),
    );
    refused(&text.replace("\"tool\":\"access\"", "\"tool\":\"faults\""), 1, "recording of `faults`");
    refused(&text.replace("\"start_ns\":5", "\"start_ns\":-5"), 1, "`start_ns`");
    refused(&text.replace("\"start\":\"2", "\"start\":\"x"), 1, "`start`");
    // Cut off: between two lines, in a line, before the end.
    refused(&lines[..1].join("\n"), 1, "its end is missing");
    refused(&format!("{}\n", lines[..3].join("\n")), 3, "its end is missing");
    refused(&text[..text.len() - 10], 7, "cut off");
    refused(&[&lines[..2], &lines[3..]].concat().join("\n"), 6, "`events` is 3, but it contains 2");
    for (was, is) in [("\"rounds\":4", "\"rounds\":null"), ("\"lost_events\":1", "\"lost_events\":\"Q\"")] {
        refused(&text.replace(was, is), 7, "not a whole number");
    }
    refused(&text.replacen("\"addr\":140733193392128", "\"addr\":\"x\"", 1), 2, "`addr`");
    refused(&text.replacen("\"time_ns\":11", "\"time_ns\":null", 1), 3, "`time_ns`");
    refused(&text.replacen("\"comm\":", "\"comm\":[],\"was\":", 1), 2, "`comm`");
    // What is a value of the right kind, and cannot be.
    for (field, was, is) in [
        ("rw", "\"rw\":\"W\"", "\"rw\":\"Q\""),
        ("rw", "\"rw\":\"W\"", "\"rw\":7"),
        ("addr", "\"addr\":140733193392128", "\"addr\":null"),
        ("time_ns", "\"time_ns\":10", "\"time_ns\":18446744073709551615"),
        ("event", "\"event\":\"access\"", "\"event\":\"exit\""),
        ("pid", "\"pid\":7", "\"pid\":null"),
        ("tid", "\"tid\":8", "\"tid\":4294967296"),
        ("first", "\"first\":1", "\"first\":2"),
        ("file", "\"file\":\"/a b\"", "\"file\":3"),
    ] {
        assert!(text.contains(was), "{was}");
        refused(&text.replacen(was, is, 1), 2, &format!("`{field}`"));
    }
    refused(&text.replace("\"start_ns\":5", "\"start_ns\":18446744073709551615"), 1, "`start_ns`");
    refused(&text.replace("\"duration_ns\":15", "\"duration_ns\":18446744073709551615"), 7, "`duration_ns`");
    refused(&text.replace("\"rows\":1", "\"rows\":2"), 7, "1 rows of the block before are missing");
    refused(&text.replace("\"rows\":1", "\"rows\":18446744073709551615"), 7, "rows of the block before");
    refused(
        &text.replace("\"table\":\"access.process", "\"table\":\"faults.thread"),
        5,
        "`access` has no table",
    );
    refused(&text.replace("\"of\":\"total\"", "\"of\":\"x\""), 5, "neither row nor total");
    refused(&[lines[0], "{}"].join("\n"), 2, "no `type`");
    refused(&format!("{text}{text}"), 8, "more after");
    refused(&[lines[0], lines[0]].join("\n"), 2, "another recording");
    refused(&format!("{}\n{}", lines[0], "x".repeat(3 << 20)), 2, "not a JSON object");
}
