//! Accesses as the patch's users know them.

use trapline_model::access::{Page, SETTINGS, Settings, Step, TRACE, Way, What};

use super::*;

fn step(what: What, page: Option<Page>) -> Event {
    let step = Step {
        time_ns: 98_467_282_999,
        what,
        pid: 1716,
        tid: 1716,
        comm: "target-app".into(),
        cpu: Some(13),
        page,
        note: None,
    };
    step.event()
}

fn shown(event: Event) -> String {
    told(event, false)
}

fn told(event: Event, symbols: bool) -> String {
    let mut out = Vec::new();
    let header = Header {
        tool: "access".into(),
        variant: "kprobe".into(),
        version: "0".into(),
        settings: vec![SETTINGS.record(&Settings { symbols, ..Settings::default() })],
        ..Header::default()
    };
    let mut sink = Table::laid_out(&mut out, &TRACE, Screen::default(), TimeZone::UTC);
    sink.take(&Item::Header(header)).unwrap();
    sink.take(&Item::Events(vec![event])).unwrap();
    let text = String::from_utf8(out).unwrap();
    text.split_once('\n').unwrap().1.to_owned()
}

#[test]
fn lines_are_those_of_the_patch() {
    let page = Page {
        way: Some(Way::Write),
        ip: Some(0x40_f395),
        addr: 0x7fff_ffff_e5b8,
        file: Some("[stack]".into()),
        offset: None,
        symbol: None,
        first: false,
    };
    assert_eq!(
        shown(step(What::Access, Some(page.clone()))),
        "      target-app-1716    [013] ....    98.467282: handle_mm_fault: 1716 W 40f395 7fffffffe5b8\n"
    );
    assert!(shown(step(What::Start, None)).ends_with(": init_page_access_trace: START target-app\n"));
    assert!(shown(step(What::End, None)).ends_with(": __reset_page_access_trace: END target-app\n"));
    let named = Page { symbol: Some("a\nb".into()), first: true, ..page.clone() };
    let told = |page| told(step(What::Access, Some(page)), true);
    assert!(told(named).ends_with("e5b8 a\\x0ab [stack] first\n"));
    let in_file = Page { file: Some("/a".into()), offset: Some(0x5b8), ..page.clone() };
    assert!(told(in_file).ends_with("e5b8 - /a+0x5b8\n"));
    assert!(told(Page { file: None, ..page }).ends_with("e5b8 - [unknown]\n"));
}
