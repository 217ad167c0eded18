//! Page accesses as the kernel's tracer writes its lines, for those who read the output of the page-access patch.

use std::io::{self, Write};

use trapline_model::access::size;
use trapline_model::{Block, End, Event, Header, Item, Record, Sink, Value};

use crate::escape::{name, visible};
use crate::table::block;

/// Writes an event a line; what is no event is a comment, a line that begins with `#`.
#[derive(Debug)]
pub struct Ftrace<W> {
    out: W,
    symbols: bool,
}

impl<W: Write> Ftrace<W> {
    /// Over a writer, which is flushed after each item.
    pub fn new(out: W) -> Self {
        Self { out, symbols: false }
    }

    fn header(&mut self, header: &Header) -> io::Result<()> {
        self.symbols = header.settings.iter().any(|(name, value)| name == "symbols" && *value != Value::Null);
        writeln!(self.out, "# {}", begun(header))
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let record = &event.record;
        let comm = text(record, "comm");
        let (seconds, micros) = (event.time_ns / 1_000_000_000, event.time_ns / 1000 % 1_000_000);
        let task = format!("{:>16}-{:<7}", name(comm), number(record, "tid").unwrap_or(0));
        match number(record, "cpu") {
            Some(cpu) => write!(self.out, "{task} [{cpu:03}]")?,
            None => write!(self.out, "{task} [---]")?,
        }
        write!(self.out, " .... {seconds:>5}.{micros:06}: ")?;
        match text(record, "event") {
            "start" => writeln!(self.out, "init_page_access_trace: START {}", name(comm)),
            "end" => writeln!(self.out, "__reset_page_access_trace: END {}", name(comm)),
            "engine" => writeln!(self.out, "page_access_engine: {}", visible(text(record, "note"))),
            _ => self.access(record),
        }
    }

    fn access(&mut self, record: &Record) -> io::Result<()> {
        let rw = match text(record, "rw") {
            "" => "-",
            rw => rw,
        };
        write!(self.out, "handle_mm_fault: {} {rw}", number(record, "tid").unwrap_or(0))?;
        write!(self.out, " {:x}", number(record, "ip").unwrap_or(0))?;
        write!(self.out, " {:x}", number(record, "addr").unwrap_or(0))?;
        // Without --symbols there are just the patch's columns, and what it did not have.
        if self.symbols {
            match text(record, "symbol") {
                "" => write!(self.out, " -")?,
                symbol => write!(self.out, " {}", visible(symbol))?,
            }
            match (text(record, "file"), number(record, "offset")) {
                ("", _) => write!(self.out, " [unknown]")?,
                (file, Some(offset)) => write!(self.out, " {}+{offset:#x}", visible(file))?,
                (file, None) => write!(self.out, " {}", visible(file))?,
            }
        }
        writeln!(self.out, "{}", if record.get("first") == Some(&Value::Bool(true)) { " first" } else { "" })
    }

    fn totals(&mut self, totals: &Block) -> io::Result<()> {
        let mut table = Vec::new();
        block(&mut table, "Totals", totals, usize::MAX)?;
        String::from_utf8_lossy(&table).lines().try_for_each(|line| writeln!(self.out, "# {line}"))
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        reached(end).iter().try_for_each(|line| writeln!(self.out, "# {line}"))
    }
}

/// What traces, and what it cannot see, in words.
pub(crate) fn begun(header: &Header) -> String {
    let of = |name: &str| header.settings.iter().find(|(n, _)| *n == name).map(|(_, value)| value);
    let mut words = format!("trapline access by {}", visible(&header.variant));
    if let Some(Value::Str(reset)) = of("reset") {
        words.push_str(&format!(", reset {}", visible(reset)));
    }
    if let Some(Value::U64(every)) = of("every_ns") {
        words.push_str(&format!(", wished every {} ms", *every as f64 / 1e6));
    }
    if let Some(Value::U64(percent)) = of("max_overhead_percent") {
        words.push_str(&format!(", at most {percent} % of the target's time"));
    }
    for name in ["changed", "sight"] {
        if let Some(Value::Str(text)) = of(name) {
            words.push_str(&format!("; {}", visible(text)));
        }
    }
    words
}

/// What a trace of accesses saw and lost, and how closely it looked, in words.
pub(crate) fn reached(end: &End) -> [String; 2] {
    let of = |name: &str| end.losses.iter().find(|(n, _)| *n == name).map_or(0, |&(_, n)| n);
    let ms = |ns: u64| ns as f64 / 1e6;
    [
        format!(
            "{:.3} s, {} events, {} lost, {} unseen, {} lives lost, {} missed, {} refused, {:.1} ms of our own processor time",
            end.duration_ns as f64 / 1e9,
            end.events,
            end.lost,
            of("unseen"),
            of("lives_lost"),
            of("missed"),
            of("refused"),
            ms(end.self_ns)
        ),
        format!(
            "{} rounds, one each {:.3} ms (99 % within {:.3} ms, longest {:.3} ms); {:.1} ms in resets, {:.1} ms \
             in the faults they caused; {} out of sight",
            of("rounds"),
            ms(of("period_ns")),
            ms(of("period_p99_ns")),
            ms(of("period_max_ns")),
            ms(of("reset_ns")),
            ms(of("fault_ns")),
            size(of("out_of_sight_bytes"))
        ),
    ]
}

impl<W: Write> Sink for Ftrace<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header)?,
            Item::Events(events) => events.iter().try_for_each(|event| self.event(event))?,
            Item::Rows(_) => {}
            Item::Totals(block) => self.totals(block)?,
            Item::End(end) => self.end(end)?,
        }
        self.out.flush()
    }
}

fn text<'a>(record: &'a Record, name: &str) -> &'a str {
    match record.get(name) {
        Some(Value::Str(text)) => text,
        _ => "",
    }
}

fn number(record: &Record, name: &str) -> Option<u64> {
    match record.get(name) {
        Some(&Value::U64(n)) => Some(n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use trapline_model::access::{Page, Step, Way, What};

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
        told(event, Value::Null)
    }

    fn told(event: Event, symbols: Value) -> String {
        let mut out = Vec::new();
        let header = Header {
            tool: "access".into(),
            variant: "kprobe".into(),
            version: "0".into(),
            host: String::new(),
            kernel: String::new(),
            start_unix_ns: 0,
            start_ns: 0,
            settings: vec![("symbols".into(), symbols)],
        };
        let mut sink = Ftrace::new(&mut out);
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
        let told = |page| told(step(What::Access, Some(page)), Value::U64(1));
        assert!(told(named).ends_with("e5b8 a\\x0ab [stack] first\n"));
        let in_file = Page { file: Some("/a".into()), offset: Some(0x5b8), ..page.clone() };
        assert!(told(in_file).ends_with("e5b8 - /a+0x5b8\n"));
        assert!(told(Page { file: None, ..page }).ends_with("e5b8 - [unknown]\n"));
    }
}
