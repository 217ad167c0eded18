//! Summaries: a section per table.

use trapline_model::Event;
use trapline_model::access::summary::{Options, Summary};
use trapline_model::access::{Page, REACHED, Reached, SETTINGS, SUMMARY, Settings, Step, TOTAL, Way, What};

use super::*;

fn access(ms: u64, tid: u32, page: u64) -> Event {
    let page = Page {
        way: Some(if page == 2 { Way::Read } else { Way::Write }),
        ip: None,
        addr: 0x7f00_0000_0000 + page * 4096,
        file: Some("/tmp/\u{1b}[2Jdata".into()),
        offset: Some(page * 4096),
        symbol: None,
        first: ms < 40,
    };
    let step = Step {
        time_ns: ms * 1_000_000,
        what: What::Access,
        pid: 7,
        tid,
        comm: "app".into(),
        cpu: None,
        page: Some(page),
        note: None,
    };
    step.event()
}

fn shown(events: Vec<Event>) -> String {
    let header = Header {
        tool: "access".into(),
        variant: "tracepoint".into(),
        version: "0".into(),
        settings: vec![SETTINGS.record(&Settings {
            reset: "writes",
            every_ns: 1_000_000,
            ..Settings::default()
        })],
        ..Header::default()
    };
    let end = Facts {
        duration_ns: 120_000_000,
        events: events.len() as u64,
        lost_events: 0,
        sampled: 1,
        own_cpu_ns: Some(1_000_000),
        more: vec![REACHED.record(&Reached { rounds: 100, period_ns: 1_200_000, ..Reached::default() })],
    };
    let totals = Block::new(TOTAL, 120_000_000, vec![]);
    let mut summary = Summary::new(Options { top: 2, ..Options::default() });
    let mut ready = std::collections::VecDeque::new();
    for item in [Item::Header(header), Item::Events(events), Item::Totals(totals), Item::End(end)] {
        summary.take(item, &mut ready);
    }
    let mut out = Vec::new();
    let mut sink = Table::laid_out(&mut out, &SUMMARY, Screen::default(), TimeZone::UTC);
    ready.iter().for_each(|item| sink.take(item).unwrap());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_section_for_each_table() {
    let events = [(10, 7, 1), (20, 7, 2), (30, 7, 3), (50, 8, 1), (60, 7, 2), (110, 7, 1)];
    let text = shown(events.into_iter().map(|(ms, tid, page)| access(ms, tid, page)).collect());
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_to_show() {
    insta::assert_snapshot!(shown(vec![]));
}

#[test]
fn how_each_process_is_traced() {
    let step = Step {
        time_ns: 1,
        what: What::Engine,
        pid: 7,
        tid: 7,
        comm: "a\u{1b}b".into(),
        cpu: None,
        page: None,
        note: Some("writes: cannot see 1 MB of /x".into()),
    };
    let mut out = Vec::new();
    Table::laid_out(&mut out, &SUMMARY, Screen::default(), TimeZone::UTC)
        .take(&Item::Events(vec![step.event()]))
        .unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "a\\x1bb (7): writes: cannot see 1 MB of /x\n");
}
