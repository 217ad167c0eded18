//! Stacks for flame graphs: folded lines, as other tools know them, or the picture itself.

use std::collections::BTreeMap;
use std::io::{self, Write};

use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{self, Options};
use trapline_model::diff::ROWS;
use trapline_model::{Block, Facts, Item, Record, Sink, Value};

use crate::blocks::note;
use crate::end::{UNKNOWN, end_lines, in_short, sampled};
use crate::escape::name;
use crate::frames::NONE;

/// What makes a frame wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Faults.
    Count,
    /// Time in faults.
    Time,
}

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlameForm {
    /// `frame;frame;frame N` a line; time in nanoseconds.
    Folded,
    /// An SVG.
    Svg,
}

/// Writes the totals of the run, when it ends.
#[derive(Debug)]
pub struct Flame<W> {
    out: W,
    form: FlameForm,
    weight: Weight,
    note: String,
    /// Stacks with their weight.
    stacks: Vec<(String, u64)>,
    /// Stacks with their weight before and after, where two runs are compared: thousandths.
    compared: BTreeMap<String, [u64; 2]>,
    /// What those are divided by: `/s`.
    per: Option<String>,
    /// The weight of faults that have none.
    without: u64,
    /// Faults that nobody timed.
    untimed: u64,
    /// Rows that were left out.
    hidden: usize,
}

impl<W: Write> Flame<W> {
    /// Over a writer, for rows that have a `stack`.
    pub fn new(out: W, form: FlameForm, weight: Weight) -> Self {
        let (note, stacks, compared, per) = (String::new(), vec![], BTreeMap::new(), None);
        Self { out, form, weight, note, stacks, compared, per, without: 0, untimed: 0, hidden: 0 }
    }

    fn totals(&mut self, block: &Block) -> io::Result<()> {
        self.hidden = block.hidden;
        if block.table == ROWS {
            self.compare(block);
            return Ok(());
        }
        for row in &block.rows {
            let Some(weight) = weight_of(row, self.weight) else {
                self.untimed += weight_of(row, Weight::Count).unwrap_or(0);
                continue;
            };
            match row.get("stack") {
                Some(Value::Str(stack)) => self.stacks.push((line(stack), weight)),
                _ => self.without += weight,
            }
        }
        if self.untimed > 0 && self.stacks.is_empty() {
            return Err(io::Error::other("no fault was timed: use --weight count"));
        }
        Ok(())
    }

    /// Takes the differences of a figure: the weight of a stack is that of its figures together.
    fn compare(&mut self, block: &Block) {
        for row in &block.rows {
            if let Some(Value::Str(unit)) = row.get("unit") {
                self.per = unit.find('/').map(|at| unit[at..].to_owned());
            }
            let stack = match row.get("name") {
                Some(Value::Str(stack)) => line(stack),
                _ => NONE.to_owned(),
            };
            let weights = self.compared.entry(stack).or_default();
            for (weight, side) in weights.iter_mut().zip(["before", "after"]) {
                *weight = weight.saturating_add(row.number(side).unwrap_or(0));
            }
        }
    }

    fn end(&mut self, end: Option<&Facts>) -> io::Result<()> {
        let lines = self.stacks.iter().map(|(stack, weight)| format!("{stack} {weight}"));
        let compared = self.compared.iter();
        let lines = lines.chain(compared.map(|(stack, [before, after])| format!("{stack} {before} {after}")));
        let is_empty = self.stacks.is_empty() && self.compared.is_empty();
        match self.form {
            FlameForm::Folded => {
                let without = (self.without > 0).then(|| format!("{NONE} {}", self.without));
                lines.chain(without).try_for_each(|line| writeln!(self.out, "{line}"))
            }
            FlameForm::Svg => {
                // A picture of nothing is an error to inferno.
                let nothing = is_empty.then(|| format!("{NONE} {}", self.without.max(1)));
                let lines: Vec<String> = lines.chain(nothing).collect();
                let mut options = self.options(end);
                flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut self.out)
            }
        }
    }

    fn options(&self, end: Option<&Facts>) -> Options<'static> {
        let mut options = Options::default();
        let (title, unit, factor) = match self.weight {
            Weight::Count => ("Page faults", "faults", 1.0),
            Weight::Time => ("Time in page faults", "µs", 1e-3),
        };
        options.title = format!("{title}: {}", self.note);
        if let Some(per) = &self.per {
            return self.compared_options(options, &format!("{unit}{per}"), factor * 1e-3, end);
        }
        options.count_name = unit.to_owned();
        options.factor = factor;
        // As long as it fits above the picture; all of it is in the file's notes.
        let mut said = match end {
            Some(end) => format!("{} faults, {}", end.events, in_short(end)),
            None => UNKNOWN.to_owned(),
        };
        if let Some(sampled) = end.and_then(sampled) {
            said.push_str(&format!(", {sampled}"));
        }
        // They become a comment of XML, which must not contain two hyphens in a row.
        let notes = end.map_or_else(|| UNKNOWN.to_owned(), |end| end_lines(end).join(" "));
        options.notes = notes.replace("--", "\u{2011}\u{2011}");
        if self.without > 0 {
            said.push_str(&format!(
                "; {} {unit} without a stack are not shown",
                self.without as f64 * factor
            ));
        }
        if self.untimed > 0 {
            said.push_str(&format!("; {} faults that were not timed are not shown", self.untimed));
        }
        if self.hidden > 0 {
            said.push_str(&format!("; {} stacks left out", self.hidden));
        }
        options.subtitle = Some(said);
        Self::looks(options)
    }

    /// The same where two runs are compared.
    fn compared_options(
        &self,
        mut options: Options<'static>,
        unit: &str,
        factor: f64,
        end: Option<&Facts>,
    ) -> Options<'static> {
        options.count_name = unit.to_owned();
        options.factor = factor;
        let unseen = self.compared.values().filter(|[before, after]| *before > 0 && *after == 0).count();
        let mut said = String::from("the width is after; red is more than before, blue is less");
        if unseen > 0 {
            said.push_str(&format!("; {unseen} stacks are only before and have no width"));
        }
        for side in ["before", "after"] {
            if let Some(Value::Str(losses)) = end.and_then(|end| end.value(&format!("{side}_losses"))) {
                said.push_str(&format!("; losses {side}: {losses}"));
            }
        }
        options.subtitle = Some(said);
        Self::looks(options)
    }

    fn looks(mut options: Options<'static>) -> Options<'static> {
        // Frames of the kernel, which end in `_[k]`, have a colour of their own.
        options.colors = Palette::Multi(MultiPalette::Java);
        // The same stacks give the same picture.
        options.hash = true;
        options.deterministic = true;
        options
    }
}

impl<W: Write> Sink for Flame<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.note = note(header),
            Item::Events(_) | Item::Rows(_) | Item::Facts(_) | Item::Tick(_) => {}
            Item::Totals(block) => self.totals(block)?,
            Item::End(end) => self.end(Some(end))?,
        }
        self.out.flush()
    }

    fn cut_off(&mut self) -> io::Result<()> {
        self.end(None)?;
        self.out.flush()
    }
}

/// What a row weighs, if that is known.
fn weight_of(row: &Record, weight: Weight) -> Option<u64> {
    let value = |name| match row.get(name) {
        Some(&Value::U64(n)) => Some(n),
        _ => None,
    };
    match weight {
        Weight::Count => Some(value("major")? + value("minor")?),
        Weight::Time => value("total_ns"),
    }
}

/// A stack as the part of a line before the number: nothing in it may be taken for the number.
fn line(stack: &str) -> String {
    // A frame without a name would leave its place to the next.
    let frames: Vec<String> = stack.split(';').map(name).collect();
    let stack = frames.join(";").trim().to_owned();
    match stack.rsplit_once(' ') {
        Some((before, last)) if last.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            format!("{before}_{last}")
        }
        _ => stack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trapline_model::Header;
    use trapline_model::faults::{By, LOSSES, Losses};

    fn written(form: FlameForm, weight: Weight, time: Value) -> io::Result<String> {
        let mut out = Vec::new();
        let mut flame = Flame::new(&mut out, form, weight);
        let row = |stack: Value, major: u64, minor: u64| {
            let schema = By::Stack.schema();
            let values = schema.iter().map(|field| match field.name {
                "stack" => stack.clone(),
                "major" => major.into(),
                "minor" => minor.into(),
                "total_ns" => time.clone(),
                _ => Value::Null,
            });
            Record::new(schema, values.collect())
        };
        let rows = vec![
            row("sh;main;copy(int, 3".into(), 1, 2),
            row("sh;main;read 7".into(), 0, 4),
            row("sh;main;<script>alert(1)</script>\x1b[2J\n;do_read_[k]".into(), 5, 0),
            row(" ;main".into(), 0, 1),
            row(Value::Null, 0, 100),
        ];
        let header =
            Header { tool: "faults".into(), variant: "x".into(), version: "0".into(), ..Header::default() };
        let end = Facts {
            duration_ns: 1,
            events: 112,
            lost_events: 3,
            sampled: 1,
            own_cpu_ns: Some(1),
            more: vec![LOSSES.record(&Losses {
                truncated_stacks: Some(7),
                missed_programs: Some(0),
                ..Losses::default()
            })],
        };
        flame.take(&Item::Header(header))?;
        flame.take(&Item::Totals(Block::new(By::Stack.schema(), 1, rows)))?;
        flame.take(&Item::End(end))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn folded_lines() {
        let hostile = r"sh;main;<script>alert(1)</script>\x1b[2J\x0a;do_read_[k]";
        assert_eq!(
            written(FlameForm::Folded, Weight::Count, 9u64.into()).unwrap(),
            format!(
                "sh;main;copy(int,_3 3\nsh;main;read_7 4\n{hostile} 5\n[no name];main 1\n[no stack taken] 100\n"
            )
        );
        assert_eq!(
            written(FlameForm::Folded, Weight::Time, 9u64.into()).unwrap(),
            format!(
                "sh;main;copy(int,_3 9\nsh;main;read_7 9\n{hostile} 9\n[no name];main 9\n[no stack taken] 9\n"
            )
        );
        let untimed = written(FlameForm::Folded, Weight::Time, Value::Null).unwrap_err();
        assert_eq!(untimed.to_string(), "no fault was timed: use --weight count");
    }

    #[test]
    fn a_picture_of_what_was_cut_off_does_not_claim_that_nothing_was_lost() {
        let mut out = Vec::new();
        let mut flame = Flame::new(&mut out, FlameForm::Svg, Weight::Count);
        flame.take(&Item::Header(Header::default())).unwrap();
        let row = Record::named(By::Stack.schema(), |name| match name {
            "stack" => "sh;main".into(),
            "major" | "minor" => 3u64.into(),
            _ => Value::Null,
        });
        flame.take(&Item::Totals(Block::new(By::Stack.schema(), 1, vec![row]))).unwrap();
        flame.cut_off().unwrap();
        let svg = String::from_utf8(out).unwrap();
        assert!(svg.contains("main (6 faults") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("losses are unknown") && !svg.contains("nothing lost"), "{svg}");
    }

    #[test]
    fn a_picture_that_says_what_it_lacks() {
        let svg = written(FlameForm::Svg, Weight::Count, 9u64.into()).unwrap();
        for text in [
            "Page faults: trapline faults by x",
            "112 faults, 3 lost events, 7 truncated stacks",
            "7 truncated stacks. With \u{2011}\u{2011}by stack, faults",
            "100 faults without a stack are not shown",
            "read_7 (4 faults",
            "main (12 faults, 92.31%)",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        // A strict parser of XML refuses two hyphens within a comment.
        let comments = svg.split("<!--").skip(1).map(|comment| comment.split_once("-->").unwrap().0);
        assert!(comments.clone().any(|comment| comment.contains("truncated stacks")), "{svg}");
        for comment in comments {
            assert!(!comment.contains("--") && !comment.ends_with('-'), "{comment}");
        }
        // The picture's own script is the only one.
        assert!(!svg.contains("<script>alert") && svg.contains("&lt;script&gt;alert"));
        assert!(!svg.contains('\x1b'));
        assert!(written(FlameForm::Svg, Weight::Time, 9000u64.into()).unwrap().contains("main (27 µs"));
    }

    #[test]
    fn two_runs_in_one_picture() {
        let row = |figure: &str, name: Value, before: u64, after: u64| {
            Record::named(ROWS, |field| match field {
                "figure" => figure.into(),
                "name" => name.clone(),
                "unit" => "count/s".into(),
                "before" => before.into(),
                "after" => after.into(),
                _ => Value::Null,
            })
        };
        let written = |form| {
            let mut out = Vec::new();
            let mut flame = Flame::new(&mut out, form, Weight::Count);
            flame
                .take(&Item::Header(Header { tool: "diff".into(), variant: "x".into(), ..Header::default() }))
                .unwrap();
            let rows =
                |figure| vec![row(figure, "sh;main".into(), 1000, 3000), row(figure, Value::Null, 5000, 0)];
            for figure in ["major", "minor"] {
                flame.take(&Item::Totals(Block::new(ROWS, 1, rows(figure)))).unwrap();
            }
            flame.take(&Item::End(Facts::default())).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(FlameForm::Folded), "[no stack taken] 10000 0\nsh;main 2000 6000\n");
        let svg = written(FlameForm::Svg);
        for text in ["main (6 faults/s", "red is more than before", "; 1 stacks are only before"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }
}
