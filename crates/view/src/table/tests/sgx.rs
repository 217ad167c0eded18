//! A line an interval.

use trapline_model::Hist;
use trapline_model::sgx::{By, Figures, Known, LINES, Ledger, Owner, Report, Settings};

use super::super::*;

#[test]
fn the_lines_are_those_that_the_tools_users_know() {
    let mut out = Vec::new();
    let mut lines = Table::laid_out(&mut out, &LINES, Screen::Paper, TimeZone::UTC);
    let settings = vec![Settings { memory_mb: 16, ..Settings::default() }.record()];
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
    lines.take(&Item::Rows(ledger.interval(second, false))).unwrap();
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
    lines.take(&Item::Rows(ledger.interval(2 * second, false))).unwrap();
    lines.take(&Item::Totals(ledger.totals(2 * second))).unwrap();
    let end = Facts { duration_ns: 2 * second, events: 39_113, sampled: 1, ..Facts::default() };
    lines.take(&Item::End(end)).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}
