//! Blocks of rows as lines, as a [`Layout`] says.

use jiff::tz::TimeZone;
use ratatui::style::Style;
use ratatui::text::Line;
use trapline_model::layout::{Body, Column, Histogram, Layout, Part};
use trapline_model::{Block, Facts, Field, Header, Kind, Record, Value};

use crate::clock::Clock;
use crate::columns::{cell, cells, constraints, drawn, frames, place, relative, templates};
use crate::end::end_lines;
use crate::escape::visible;
use crate::fit::{Constraint, HEADING, Plan, Space, Text, clipped, wrapped};
use crate::histogram::histogram;
use crate::template::{Template, Word};

/// What is known of a stream by its header, and how its blocks look.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub(crate) layout: &'static Layout,
    pub(crate) clock: Clock,
    pub(crate) note: String,
    pub(crate) color: bool,
    /// Blocks are read when the run has ended, too.
    pub(crate) stays: bool,
    start_ns: u64,
    settings: Vec<Record>,
}

/// What the lines before a block were.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Which columns are shown under the headings that are written once, if they were.
    pub(crate) headed: Option<Vec<bool>>,
    /// The table that the last lines are of, if lines may be appended to them.
    section: &'static str,
}

impl Blocks {
    pub(crate) fn new(layout: &'static Layout, color: bool, zone: TimeZone) -> Self {
        let clock = Clock::new(zone);
        Self { layout, clock, note: String::new(), color, stays: false, start_ns: 0, settings: vec![] }
    }

    /// Takes the header, and gives the lines at the beginning.
    pub(crate) fn header(&mut self, header: &Header) -> Vec<String> {
        self.clock.set(header);
        self.start_ns = header.start_ns;
        self.note = note(header);
        self.settings.clone_from(&header.settings);
        let word = |name: &str| match name {
            "note" => Word::Text(self.note.clone()),
            "tool" => Word::Value(header.tool.as_ref().into()),
            "variant" => Word::Value(header.variant.as_ref().into()),
            name => Word::Value(self.setting(name)),
        };
        let lines = self.layout.opening.iter().map(|opening| Template::new(opening).line(&word));
        lines.filter(|line| !line.is_empty()).collect()
    }

    pub(crate) fn setting(&self, name: &str) -> Value {
        self.settings.iter().find_map(|record| record.get(name)).map_or(Value::Null, Value::clone)
    }

    pub(crate) fn heading(&self) -> Style {
        if self.color { HEADING } else { Style::new() }
    }

    /// How the blocks of a table are shown.
    pub(crate) fn part(&self, table: &str, is_total: bool) -> Option<&'static Part> {
        let of =
            |section: &&trapline_model::layout::Section| section.table.is_empty() || section.table == table;
        let section = self.layout.sections.iter().find(of)?;
        Some(if is_total { &section.totals } else { &section.rows })
    }

    /// The rows of an interval, or the totals. `sort` is the field that they are sorted by, if that is known.
    pub(crate) fn block(
        &self,
        block: &Block,
        is_total: bool,
        space: Space,
        sort: Option<usize>,
        before: &mut Before,
    ) -> Vec<Line<'static>> {
        let id = block.table.id();
        let Some(part) = self.part(id, is_total) else { return vec![] };
        let at_ns = block.time_ns.saturating_sub(self.start_ns);
        let word = |name: &str| match name {
            "note" => Word::Text(self.note.clone()),
            "clock" => Word::Text(self.clock.at(block.time_ns, "%H:%M:%S")),
            "at_ns" => Word::Value(at_ns.into()),
            name => Word::Value(self.setting(name)),
        };
        let title = |template: &str| Template::new(template).line(&word);
        let mut out = Page { lines: vec![], space };
        if part.apart {
            out.text("");
        }
        let named = !part.title.is_empty();
        match part.body {
            Body::Appended if block.rows.is_empty() => {}
            Body::Appended => {
                let rows: Vec<_> = block.rows.iter().map(|row| cells(row, self.color)).collect();
                let plan = Plan::new(constraints(block.table), &rows, space.columns, None);
                if before.section != id {
                    out.text("");
                    out.text(&title(part.title));
                    out.lines.push(plan.headings(self.heading()));
                }
                out.lines.extend(rows.iter().map(|row| plan.line(row)));
            }
            _ if part.or_none && counts_nothing(block) => out.text(&format!("{}: none", title(part.title))),
            Body::Line(time) => self.line(&mut out, block, &title, time, before),
            body => {
                if named {
                    out.text(&title(part.title));
                }
                match body {
                    Body::Declared => self.declared(&mut out, block, sort),
                    Body::Columns(columns) => self.columns(&mut out, block, columns),
                    Body::Paragraphs(lines) => paragraphs(&mut out, block, lines),
                    _ => {}
                }
            }
        }
        if !(part.or_none && counts_nothing(block)) {
            histograms(&mut out, part, block);
        }
        if part.ended {
            out.text("");
        }
        if !out.lines.is_empty() {
            before.section = if matches!(part.body, Body::Appended) { id } else { "" };
        }
        out.lines
    }

    /// The sum after its time, under headings that are written where others were.
    fn line(
        &self,
        out: &mut Page,
        block: &Block,
        title: &dyn Fn(&str) -> String,
        time: &str,
        before: &mut Before,
    ) {
        let Some(sum) = &block.sum else { return };
        let clock = |text: String| Text { text, highlight: false };
        let first = Constraint {
            title: "",
            width: 10,
            least: None,
            yields: 0,
            left: true,
            is_path: false,
            grows: false,
        };
        let mut columns = vec![first];
        columns.extend(
            constraints(block.table).into_iter().map(|constraint| Constraint { left: true, ..constraint }),
        );
        let mut row = vec![clock(title(time))];
        row.extend(cells(sum, self.color));
        let rows = [row];
        let plan = Plan::new(columns, &rows, out.space.columns, None);
        if before.headed.as_ref() != Some(&plan.shown()) {
            let mut headings = plan.headings(self.heading());
            let at = title("\\[{clock}\\]");
            if let Some(span) = headings.spans.first_mut() {
                let rest = span.content.trim_start().to_owned();
                span.content = format!("{at:<10} {rest}").into();
            }
            before.headed = Some(plan.shown());
            out.lines.push(headings);
        }
        out.lines.extend(rows.iter().map(|row| plan.line(row)));
    }

    /// Headings, the rows that there is space for, how many are hidden, and the sum.
    fn declared(&self, out: &mut Page, block: &Block, sort: Option<usize>) {
        if block.sum.is_none() && block.rows.is_empty() {
            return;
        }
        let cells = |row: &Record| {
            let mut cells = cells(row, self.color);
            cells.extend(relative(block.table.relative(), block, row));
            cells
        };
        let rows = block.rows.iter().map(|row| (cells(row), frames(row)));
        let rows = out.fitting(rows, block);
        let mut all: Vec<_> = rows.iter().map(|(cells, _)| cells).collect();
        let sum = block.sum.as_ref().map(|sum| (cells(sum), frames(sum)));
        all.extend(sum.iter().map(|(cells, _)| cells));
        let keep = sort.and_then(|field| place(block.table, field));
        let mut columns = constraints(block.table);
        columns.extend(block.table.relative().iter().map(Constraint::of_relative));
        let plan = Plan::new(columns, &all, out.space.columns, keep);
        out.lines.push(plan.headings(self.heading()));
        self.rows(out, &plan, &rows, block, sum.as_ref());
    }

    /// The same in columns of the layout.
    fn columns(&self, out: &mut Page, block: &Block, columns: &[Column]) {
        let row_cells = templates(columns, |column| column.cell);
        let rows = block.rows.iter().map(|row| (drawn(row, &row_cells), vec![]));
        let rows = out.fitting(rows, block);
        let sum =
            block.sum.as_ref().map(|sum| (drawn(sum, &templates(columns, |column| column.sum)), vec![]));
        let all: Vec<_> = rows.iter().chain(&sum).map(|(cells, _)| cells).collect();
        let plan =
            Plan::new(columns.iter().map(Constraint::of_column).collect(), &all, out.space.columns, None);
        out.lines.push(plan.headings(self.heading()));
        self.rows(out, &plan, &rows, block, sum.as_ref());
    }

    fn rows(&self, out: &mut Page, plan: &Plan, rows: &[Row], block: &Block, sum: Option<&Row>) {
        let all = block.hidden + block.rows.len();
        let hidden = all - rows.len();
        for (cells, frames) in rows {
            out.lines.push(plan.line(cells));
            frames.iter().for_each(|frame| out.text(frame));
        }
        if hidden > 0 {
            let how = self.stays && rows.len() < block.rows.len();
            let how = if how { format!("; --top {all} prints all rows") } else { String::new() };
            out.text(&format!("({hidden} more{how})"));
        }
        if let Some((cells, frames)) = sum {
            out.lines.push(plan.line(cells));
            frames.iter().for_each(|frame| out.text(frame));
        }
    }

    /// The lines at the end.
    pub(crate) fn closing(&self, end: &Facts) -> Vec<String> {
        let word = |name: &str| match name {
            "end" => Word::Text(end_lines(end).join("\n")),
            name => Word::Value(end.value(name).cloned().into()),
        };
        let texts = self.layout.closing.iter().map(|closing| (closing, Template::new(closing).line(&word)));
        // An empty one is an empty line; others that turn out empty are left out.
        let texts =
            texts.filter(|(closing, text)| closing.is_empty() || !text.is_empty()).map(|(_, text)| text);
        texts.flat_map(|text| text.split('\n').map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

/// Each row as lines of its fields; those that follow its first, and what does not fit into one, begin below its text.
fn paragraphs(out: &mut Page, block: &Block, templates: &[&str]) {
    let templates: Vec<_> = templates.iter().map(|template| Template::new(template)).collect();
    for (number, row) in (1_u64..).zip(&block.rows) {
        let word = |name: &str| match name {
            "number" => Word::Value(number.into()),
            name => Word::Value(row.get(name).cloned().into()),
        };
        let indent = " ".repeat(number.to_string().len() + 2);
        for (at, template) in templates.iter().enumerate() {
            let text = template.line(&word);
            let text = if at == 0 { text } else { format!("{indent}{text}") };
            wrapped(&text, &indent, out.space.columns).iter().for_each(|line| out.text(line));
        }
        out.text("");
    }
    if block.hidden > 0 {
        out.text(&format!("({} more)", block.hidden));
    }
}

/// The cells of a row, and the lines below it.
type Row = (Vec<Text>, Vec<String>);

/// Lines, and the space that there is for them.
struct Page {
    lines: Vec<Line<'static>>,
    space: Space,
}

impl Page {
    fn text(&mut self, text: &str) {
        self.lines.push(clipped(Line::raw(text.to_owned()), self.space.columns));
    }

    /// A histogram; where there is no space for all of it, its first buckets that are empty are left out.
    fn histogram(&mut self, mut lines: Vec<String>) {
        let most = self.space.lines.map_or(usize::MAX, |most| most.saturating_sub(self.lines.len()));
        let empty = lines.iter().skip(1).take_while(|line| line.contains(" : 0 ")).count();
        let surplus = empty.min(lines.len().saturating_sub(most));
        if surplus > 0 {
            lines.drain(1..=surplus);
        }
        lines.iter().for_each(|line| self.text(line));
    }

    /// The rows that there is space for, beside headings, the sum, and a line for those that are hidden.
    fn fitting(&self, rows: impl Iterator<Item = Row>, block: &Block) -> Vec<Row> {
        let rows = rows.take(self.space.rows.unwrap_or(usize::MAX));
        let sum = block.sum.as_ref().map_or(0, |sum| 1 + frames(sum).len());
        let Some(lines) = self.space.lines else { return rows.collect() };
        let lines = lines.saturating_sub(self.lines.len() + 1 + sum);
        let (mut fitting, mut taken, mut before_last) = (Vec::new(), 0, 0);
        for mut row in rows {
            taken += 1 + row.1.len();
            if taken > lines {
                // A stack that is higher than the terminal: its innermost frames.
                if let Some(frames) = lines.checked_sub(3).filter(|_| fitting.is_empty()) {
                    row.1.truncate(frames);
                    row.1.push("    …".into());
                    (before_last, fitting) = (1, vec![row]);
                }
                break;
            }
            if taken < lines {
                before_last = fitting.len() + 1;
            }
            fitting.push(row);
        }
        if block.hidden > 0 || fitting.len() < block.rows.len() {
            fitting.truncate(before_last);
        }
        fitting
    }
}

fn histograms(out: &mut Page, part: &Part, block: &Block) {
    match part.histogram {
        Histogram::None => {}
        Histogram::Sum(what) => {
            block.sum.iter().for_each(|sum| out.histogram(histogram(sum, what)));
        }
        Histogram::Rows => {
            block.rows.iter().for_each(|row| out.histogram(histogram(row, "")));
        }
        Histogram::Titled(title) => block.rows.iter().for_each(|row| {
            let word = |name: &str| Word::Value(row.get(name).cloned().unwrap_or(Value::Null));
            out.text(&Template::new(title).line(&word));
            out.histogram(histogram(row, "value"));
            out.text("");
        }),
    }
}

/// Without rows, or with rows that count nothing.
fn counts_nothing(block: &Block) -> bool {
    let nothing = |row: &Record| {
        row.iter().all(|(field, value)| match value {
            Value::U64(n) => field.kind != Kind::Counter || *n == 0,
            _ => true,
        })
    };
    block.rows.iter().all(nothing)
}

/// What ran and how, in one line.
pub(crate) fn note(header: &Header) -> String {
    let shown = |(field, value): (&Field, &Value)| {
        let shown = field.cell.filter(|_| *value != Value::Null)?;
        Some(format!(", {} {}", shown.title, cell(value, shown.show)))
    };
    let settings = header.settings.iter().flat_map(Record::iter).filter_map(shown);
    format!(
        "trapline {} by {}{}",
        visible(&header.tool),
        visible(&header.variant),
        settings.collect::<String>()
    )
}
