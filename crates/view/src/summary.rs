//! Summaries of page accesses for people: a section per table.

use std::io::{self, Write};

use trapline_model::access::summary::View;
use trapline_model::{Block, End, Header, Item, Record, Sink, Value};

use crate::escape::visible;
use crate::ftrace::{begun, reached};
use crate::histogram::histogram;
use crate::table::{block, headings, line};

/// Writes the windows of the working set as they end, and the other tables one after the other.
#[derive(Debug)]
pub struct AccessSummary<W> {
    out: W,
    /// The section that the last line belongs to.
    section: Option<View>,
    start_ns: u64,
}

impl<W: Write> AccessSummary<W> {
    /// Over a writer, which is flushed after each item.
    pub fn new(out: W) -> Self {
        Self { out, section: None, start_ns: 0 }
    }

    fn header(&mut self, header: &Header) -> io::Result<()> {
        self.start_ns = header.start_ns;
        writeln!(self.out, "{}", begun(header))
    }

    /// The rows of an interval, or a window of the working set.
    fn rows(&mut self, shown: &Block) -> io::Result<()> {
        match View::of(shown) {
            Some(View::WorkingSet) => {
                for row in &shown.rows {
                    if self.section.replace(View::WorkingSet) != Some(View::WorkingSet) {
                        writeln!(self.out, "\nWorking set over time")?;
                        writeln!(self.out, "{}", headings(row.schema()))?;
                    }
                    writeln!(self.out, "{}", line(row))?;
                }
                Ok(())
            }
            Some(view) => {
                let ms = shown.time_ns.saturating_sub(self.start_ns) as f64 / 1e6;
                self.table(view, &format!("{}, until {ms:.1} ms", title(view)), shown)
            }
            None => Ok(()),
        }
    }

    fn totals(&mut self, shown: &Block) -> io::Result<()> {
        match View::of(shown) {
            Some(view) => self.table(view, title(view), shown),
            None => Ok(()),
        }
    }

    fn table(&mut self, view: View, title: &str, shown: &Block) -> io::Result<()> {
        self.section = Some(view);
        writeln!(self.out)?;
        if is_empty(shown) {
            return writeln!(self.out, "{title}: none");
        }
        block(&mut self.out, title, shown, usize::MAX)?;
        match view {
            View::Reuse => shown.rows.iter().try_for_each(|row| histogram(&mut self.out, row)),
            _ => Ok(()),
        }
    }

    /// How a process is traced, and what of it is out of sight.
    fn engine(&mut self, event: &Record) -> io::Result<()> {
        let (Some(Value::Str(note)), Some(Value::Str(comm)), Some(Value::U64(pid))) =
            (event.get("note"), event.get("comm"), event.get("pid"))
        else {
            return Ok(());
        };
        writeln!(self.out, "{} ({pid}): {}", visible(comm), visible(note))
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        let of = |name: &str| end.losses.iter().find(|(n, _)| n == name).map_or(0, |&(_, n)| n);
        let (untracked, late, merged) = (of("untracked"), of("late"), of("merged"));
        writeln!(self.out)?;
        reached(end).iter().try_for_each(|line| writeln!(self.out, "{line}"))?;
        writeln!(
            self.out,
            "a page counts once between two rounds; {merged} further faults of the same access left out, {untracked} accesses untracked, {late} shown in a later window"
        )
    }
}

/// Without rows, or with one that counts nothing.
fn is_empty(block: &Block) -> bool {
    let nothing = |row: &Record| row.get("accesses") == Some(&Value::U64(0));
    block.rows.iter().all(nothing)
}

fn title(view: View) -> &'static str {
    match view {
        View::WorkingSet => "Working set in all",
        View::Mappings => "Heat by mapping",
        View::Pages => "Most accessed pages",
        View::ReadsWrites => "Reads and writes",
        View::Sharing => "Pages written by several threads",
        View::Reuse => "Reuse distance, in different pages between two accesses to a page",
        View::MissRatio => "Misses by size of memory (the page accessed longest ago makes room)",
    }
}

impl<W: Write> Sink for AccessSummary<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header)?,
            Item::Events(events) => events.iter().try_for_each(|event| self.engine(&event.record))?,
            Item::Rows(block) => self.rows(block)?,
            Item::Totals(block) => self.totals(block)?,
            Item::End(end) => self.end(end)?,
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use trapline_model::Event;
    use trapline_model::access::summary::{Options, Summary};
    use trapline_model::access::{Page, Step, Way, What};

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
            host: String::new(),
            kernel: String::new(),
            start_unix_ns: 0,
            start_ns: 0,
            settings: vec![("reset".into(), "writes".into()), ("every_ns".into(), Value::U64(1_000_000))],
        };
        let end = End {
            duration_ns: 120_000_000,
            events: events.len() as u64,
            lost: 0,
            sampled: 1,
            self_ns: 1_000_000,
            losses: vec![("rounds".into(), 100), ("period_ns".into(), 1_200_000)],
        };
        let totals = Block { time_ns: 120_000_000, rows: vec![], sum: None, hidden: 0 };
        let mut summary = Summary::new(Options { top: 2, ..Options::default() });
        let mut ready = std::collections::VecDeque::new();
        for item in [Item::Header(header), Item::Events(events), Item::Totals(totals), Item::End(end)] {
            summary.take(item, &mut ready);
        }
        let mut out = Vec::new();
        let mut sink = AccessSummary::new(&mut out);
        ready.iter().for_each(|item| sink.take(item).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_section_for_each_table() {
        let events = [(10, 7, 1), (20, 7, 2), (30, 7, 3), (50, 8, 1), (60, 7, 2), (110, 7, 1)];
        let text = shown(events.into_iter().map(|(ms, tid, page)| access(ms, tid, page)).collect());
        insta::assert_snapshot!(text, @r"
        trapline access by tracepoint, reset writes, wished every 1 ms

        Working set over time
             AT_MS   SPAN_MS    PAGES        MB     READ  WRITTEN      NEW   ACCESSES     READS    WRITES
               0.0     100.0        3      0.01        1        2        3          5         2         3
             100.0      20.0        1      0.00        0        1        0          1         0         1

        Working set in all
             AT_MS   SPAN_MS    PAGES        MB     READ  WRITTEN      NEW   ACCESSES     READS    WRITES
               0.0     120.0        3      0.01        1        2        3          6         2         4

        Heat by mapping
             PID COMM              ACCESSES     READS    WRITES    PAGES        MB          START            END     OFFSET FILE
               7 app                      6         2         4        3      0.01 0x7f0000001000 0x7f0000004000     0x1000 /tmp/\x1b[2Jdata
               - TOTAL                    6         2         4        3      0.01              -              -          - -

        Most accessed pages
             PID COMM                      PAGE   ACCESSES     READS    WRITES     OFFSET FILE
               7 app             0x7f0000001000          3         0         3     0x1000 /tmp/\x1b[2Jdata
               7 app             0x7f0000002000          2         2         0     0x2000 /tmp/\x1b[2Jdata
        (1 more)
               - TOTAL                        -          6         2         4          - -

        Reads and writes
             PID COMM              ACCESSES     READS    WRITES EXECUTES    FIRST    PAGES READONLY WRITEONLY     BOTH
               7 app                      6         2         4        0        3        3        1        2        0
               - TOTAL                    6         2         4        0        3        3        1        2        0

        Pages written by several threads
             PID COMM                      PAGE THREADS    WRITES WRITERS                      OFFSET FILE
               7 app             0x7f0000001000       2         3 7:2 8:1                      0x1000 /tmp/\x1b[2Jdata
               - TOTAL                        -       -         3 -                                 - -

        Reuse distance, in different pages between two accesses to a page
          ACCESSES      COLD    REUSED     MEAN      P50      P90      P99      MAX
                 6         3         3        1        2        2        2        2
                            value : count      distribution
                  0 -> 0          : 0          |                                        |
                  1 -> 1          : 1          |********************                    |
                  2 -> 3          : 2          |****************************************|

        Misses by size of memory (the page accessed longest ago makes room)
           PAGES        MB   ACCESSES     MISSES   MISS_%
               1      0.00          6          6   100.00
               2      0.01          6          5    83.33
               3      0.01          6          3    50.00

        0.120 s, 6 events, 0 lost, 0 unseen, 0 lives lost, 0 missed, 0 refused, 1.0 ms of our own processor time
        100 rounds, one each 1.200 ms (99 % within 0.000 ms, longest 0.000 ms); 0.0 ms in resets, 0.0 ms in the faults they caused; 0 B out of sight
        a page counts once between two rounds; 0 further faults of the same access left out, 0 accesses untracked, 0 shown in a later window
        ");
    }

    #[test]
    fn nothing_to_show() {
        insta::assert_snapshot!(shown(vec![]), @r"
        trapline access by tracepoint, reset writes, wished every 1 ms

        Working set over time
             AT_MS   SPAN_MS    PAGES        MB     READ  WRITTEN      NEW   ACCESSES     READS    WRITES
               0.0     120.0        0      0.00        0        0        0          0         0         0

        Working set in all: none

        Heat by mapping: none

        Most accessed pages: none

        Reads and writes: none

        Pages written by several threads: none

        Reuse distance, in different pages between two accesses to a page: none

        0.120 s, 0 events, 0 lost, 0 unseen, 0 lives lost, 0 missed, 0 refused, 1.0 ms of our own processor time
        100 rounds, one each 1.200 ms (99 % within 0.000 ms, longest 0.000 ms); 0.0 ms in resets, 0.0 ms in the faults they caused; 0 B out of sight
        a page counts once between two rounds; 0 further faults of the same access left out, 0 accesses untracked, 0 shown in a later window
        ");
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
        AccessSummary::new(&mut out).take(&Item::Events(vec![step.event()])).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\x1bb (7): writes: cannot see 1 MB of /x\n");
    }
}
