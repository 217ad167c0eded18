//! A line an interval.

use std::collections::VecDeque;

use trapline_model::sgx::{By, Figures, Known, LINES, Ledger, Owner, Report, SETTINGS, Settings};
use trapline_model::stage::rows;
use trapline_model::{Hist, Source};

use super::*;

#[test]
fn the_lines_are_those_that_the_tools_users_know() {
    let mut out = Vec::new();
    let mut lines = Table::laid_out(&mut out, &LINES, Screen::default(), TimeZone::UTC);
    let settings = vec![SETTINGS.record(&Settings { memory_mb: 16, ..Settings::default() })];
    let header = Header {
        tool: "sgx".into(),
        variant: "fentry".into(),
        version: "0".into(),
        host: "h".into(),
        kernel: "k".into(),
        settings,
        ..Header::default()
    };
    lines.take(&Item::Header(header)).unwrap();
    let mut ledger = Ledger::new(By::All, Known { added: true, outcomes: false }, true, 0);
    let second = 1_000_000_000;
    let mut items = VecDeque::from([Item::Rows(ledger.block(second, false))]);
    let mut counts = [0; trapline_model::BUCKETS];
    counts[trapline_model::bucket(5000)] = 39_113;
    let figures = Figures {
        pages: 23_164,
        faults: 39_113,
        loads: 39_113,
        evictions: 39_000,
        refaults: 15_949,
        hist: Hist::new(&counts),
        ..Figures::default()
    };
    ledger.take(Report { serial: 1, owner: Owner::default(), figures, longest_ns: 5000 }, false);
    items.push_back(Item::Rows(ledger.block(2 * second, false)));
    items.push_back(Item::Totals(ledger.block(2 * second, true)));
    let mut items = rows(items, false);
    while let Ok(Some(item)) = items.next() {
        lines.take(&item).unwrap();
    }
    let end = Facts { duration_ns: 2 * second, events: 39_113, sampled: 1, ..Facts::default() };
    lines.take(&Item::End(end)).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}
