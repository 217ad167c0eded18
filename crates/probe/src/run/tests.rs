use std::os::fd::BorrowedFd;

use trapline_model::faults::{By, LOSSES, Losses};
use trapline_model::{Schema, Value};

use super::*;

/// A tool that has a row at each interval, or none.
#[derive(Debug)]
struct Fake {
    table: &'static Schema,
    has_rows: bool,
    waiting: usize,
    /// How long an interval's rows take.
    slow: Duration,
}

impl Fake {
    fn block(&self) -> Block {
        let row = Record::named(self.table, |_| Value::Null);
        Block::new(self.table, 1, vec![row])
    }
}

impl Tool for Fake {
    fn header(&self) -> Header {
        Header { tool: self.table.id().into(), ..Header::default() }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn drain(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let record = Record::named(self.table, |_| Value::Null);
        events.extend(
            (0..std::mem::take(&mut self.waiting)).map(|_| Event { time_ns: 1, record: record.clone() }),
        );
        Ok(())
    }

    fn snapshot(&mut self, _all: bool) -> Result<Option<Block>> {
        std::thread::sleep(self.slow);
        Ok(self.has_rows.then(|| self.block()))
    }

    fn facts(&mut self) -> Result<Counted> {
        Ok(Counted { events: None, lost_events: 0, sampled: 1, more: LOSSES.record(&Losses::default()) })
    }

    fn detach(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.drain(events)
    }

    fn totals(&mut self) -> Block {
        self.block()
    }
}

/// Each item in a word, with the table that it is of.
fn word(item: &Item) -> String {
    let id = |table: &Schema| table.id().trim_start_matches("faults.").to_owned();
    match item {
        Item::Header(header) => format!("header {}", header.tool.trim_start_matches("faults.")),
        Item::Events(events) => format!("{} events {}", events.len(), id(events[0].record.schema())),
        Item::Rows(block) => format!("rows {}", id(block.table)),
        Item::Totals(block) => format!("totals {}", id(block.table)),
        Item::Facts(facts) => format!("facts of {}", facts.events),
        Item::Tick(_) => "tick".into(),
        Item::End(facts) => format!("end of {}", facts.events),
    }
}

/// Several tools are one stream: at each interval all rows come before the tick, and each tool has its totals and its end.
#[test]
fn a_run_polls_several_tools() {
    let tool = |by: By, has_rows, waiting| {
        Box::new(Fake { table: by.schema(), has_rows, waiting, slow: Duration::ZERO }) as Box<dyn Tool>
    };
    let tools = vec![tool(By::Thread, true, 2), tool(By::File, false, 3)];
    let millisecond = Duration::from_millis(1);
    let frame = Frame { interval: Some(millisecond), duration: Some(10 * millisecond), ..Frame::default() };
    let mut run = Run::new(tools, frame, None).unwrap();
    let mut words = Vec::new();
    while let Some(item) = run.next().unwrap() {
        words.push(word(&item));
    }
    assert_eq!(words[..2], ["header thread", "header file"]);
    for events in ["2 events thread", "3 events file"] {
        assert_eq!(words.iter().filter(|word| *word == events).count(), 1, "{words:?}");
    }
    // What an interval is depends on the clock, what is in it does not.
    let ticks: Vec<&[String]> = words[2..].split_inclusive(|word| word == "tick").collect();
    let (end, intervals) = ticks.split_last().unwrap();
    for interval in intervals {
        let rows: Vec<&String> = interval.iter().filter(|word| word.starts_with("rows")).collect();
        assert_eq!(rows, ["rows thread"], "{words:?}");
        assert_eq!(interval.last().unwrap(), "tick");
    }
    assert_eq!(*end, ["totals thread", "end of 2", "totals file", "end of 3"]);
}

/// A request ends an interval before its time, and only one.
#[test]
fn rows_come_when_they_are_requested() {
    let tool = Fake { table: By::Thread.schema(), has_rows: true, waiting: 0, slow: Duration::ZERO };
    let (hour, refresh) = (Duration::from_secs(3600), Refresh::default());
    let duration = Some(Duration::from_millis(10));
    let frame = Frame { interval: Some(hour), duration, refresh: refresh.clone(), ..Frame::default() };
    let mut run = Run::new(vec![Box::new(tool)], frame, None).unwrap();
    refresh.request();
    let mut words = Vec::new();
    while let Some(item) = run.next().unwrap() {
        words.push(word(&item));
    }
    assert_eq!(words[..4], ["header thread", "rows thread", "facts of 0", "tick"]);
    assert_eq!(words[4..], ["rows thread", "tick", "totals thread", "end of 0"]);
}

/// Where the rows of an interval take longer than it does, what else there is comes between intervals all the same.
#[test]
fn events_come_between_intervals_that_are_overdue() {
    let slow = Duration::from_millis(5);
    let tool = Fake { table: By::Thread.schema(), has_rows: true, waiting: 7, slow };
    let (millisecond, duration) = (Duration::from_millis(1), Some(Duration::from_millis(30)));
    let frame = Frame { interval: Some(millisecond), duration, ..Frame::default() };
    let mut run = Run::new(vec![Box::new(tool)], frame, None).unwrap();
    // The first one is due before anything was fetched.
    std::thread::sleep(2 * millisecond);
    let mut words = Vec::new();
    while let Some(item) = run.next().unwrap() {
        words.push(word(&item));
    }
    // The end has a tick of its own.
    let events = words.iter().position(|word| word == "7 events thread").unwrap();
    assert!(words[events..].iter().filter(|word| *word == "tick").count() > 1, "{words:?}");
}

/// A recording that is cut off knows what was lost until shortly before, also without intervals; a table shows nothing of it.
#[test]
fn facts_come_without_intervals_where_events_do() {
    let millisecond = Duration::from_millis(1);
    let words_of = |waiting, facts| {
        let tool = Fake { table: By::Thread.schema(), has_rows: true, waiting, slow: Duration::ZERO };
        let duration = Some(20 * millisecond);
        let frame = Frame { facts, duration, ..Frame::default() };
        let mut run = Run::new(vec![Box::new(tool)], frame, None).unwrap();
        let mut words = Vec::new();
        while let Some(item) = run.next().unwrap() {
            words.push(word(&item));
        }
        words
    };
    let end = |events| ["totals thread".to_owned(), format!("end of {events}")];
    // Once: nothing has come since.
    let words = words_of(2, Some(millisecond));
    assert_eq!(words[..3], ["header thread", "2 events thread", "facts of 2"]);
    assert_eq!(words[3..], end(2));
    assert_eq!(words_of(2, None)[2..], end(2));
    assert_eq!(words_of(0, Some(millisecond))[1..], end(0));
}
