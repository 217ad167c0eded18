//! Columns in the width of a terminal: some give way in the order that they declare, texts are cut, numbers never are.

use std::borrow::Cow;

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use trapline_model::layout::Column;
use trapline_model::{Cell, Relative, Show};

/// Values that stand out.
pub(crate) const HIGHLIGHT: Style = Style::new().red().add_modifier(Modifier::BOLD);
/// Headings.
pub(crate) const HEADING: Style = Style::new().add_modifier(Modifier::BOLD);

/// The space that a page has: nothing where it has no end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Characters in a line; a table may be wider where this is unknown.
    pub columns: Option<usize>,
    /// Lines for a block of rows.
    pub lines: Option<usize>,
    /// Rows of a block, whatever number of lines each has.
    pub rows: Option<usize>,
}

/// A cell of a row.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) highlight: bool,
}

/// A column, and how far it can give way.
#[derive(Debug)]
pub(crate) struct Constraint {
    pub(crate) title: &'static str,
    /// Characters, if there is space; also where no cell needs them.
    pub(crate) width: usize,
    /// Characters to which cells may be cut; nothing if they may not.
    pub(crate) least: Option<usize>,
    pub(crate) yields: u8,
    pub(crate) left: bool,
    /// What is cut keeps its end.
    pub(crate) is_path: bool,
    /// It is as wide as its widest cell, also where there is no end of the space.
    pub(crate) grows: bool,
}

impl Constraint {
    pub(crate) fn of_field(cell: Cell) -> Self {
        let is_text = matches!(cell.show, Show::Text | Show::TextOr(_) | Show::Path);
        Self {
            title: cell.title,
            width: cell.width,
            least: is_text.then_some(cell.least),
            yields: cell.yields,
            left: is_text,
            is_path: cell.show == Show::Path,
            grows: false,
        }
    }

    pub(crate) fn of_relative(column: &Relative) -> Self {
        Self {
            title: column.title,
            width: column.width,
            least: None,
            yields: column.yields,
            left: false,
            is_path: false,
            grows: false,
        }
    }

    pub(crate) fn of_column(column: &Column) -> Self {
        Self {
            title: column.title,
            width: column.width,
            least: Some(column.least).filter(|least| *least > 0),
            yields: column.yields,
            left: column.left,
            is_path: false,
            grows: true,
        }
    }
}

/// The columns of a table, and the width that each has: those without one have given way.
#[derive(Debug)]
pub(crate) struct Plan {
    columns: Vec<Constraint>,
    widths: Vec<Option<usize>>,
    space: Option<usize>,
}

impl Plan {
    /// For these rows, in lines of so many characters. `keep` is a column that does not give way.
    pub(crate) fn new<R: AsRef<[Text]>>(
        columns: Vec<Constraint>,
        rows: &[R],
        space: Option<usize>,
        keep: Option<usize>,
    ) -> Self {
        let wanted = columns.iter().enumerate().map(|(at, column)| {
            let own = column.width.max(column.title.width());
            if space.is_none() && !column.grows {
                return column.width;
            }
            rows.iter()
                .map(|row| row.as_ref().get(at).map_or(0, |cell| cell.text.width()))
                .fold(own, usize::max)
        });
        let wanted: Vec<usize> = wanted.collect();
        let widths = match space {
            Some(space) => fit(&columns, &wanted, space, keep),
            None => wanted.into_iter().map(Some).collect(),
        };
        Self { columns, widths, space }
    }

    /// Which columns are shown.
    pub(crate) fn shown(&self) -> Vec<bool> {
        self.widths.iter().map(Option::is_some).collect()
    }

    pub(crate) fn headings(&self, style: Style) -> Line<'static> {
        let titles =
            self.columns.iter().map(|column| Text { text: column.title.to_owned(), highlight: false });
        let mut line = self.line(&titles.collect::<Vec<_>>());
        line.spans.iter_mut().for_each(|span| span.style = style);
        line
    }

    /// A row.
    pub(crate) fn line(&self, cells: &[Text]) -> Line<'static> {
        let mut pen = Pen::default();
        let mut first = true;
        for ((column, width), Text { text, highlight }) in self.columns.iter().zip(&self.widths).zip(cells) {
            let Some(width) = *width else { continue };
            if !std::mem::take(&mut first) {
                pen.plain.push(' ');
            }
            let text = match self.space {
                Some(_) if column.least.is_some() => cut(text, width, column.is_path),
                _ => Cow::Borrowed(text.as_str()),
            };
            let pad = width.saturating_sub(text.width());
            if !column.left {
                pen.pad(pad);
            }
            pen.text(&text, *highlight);
            if column.left {
                pen.pad(pad);
            }
        }
        pen.line(self.space)
    }
}

/// The width of each column in a line of so many characters.
fn fit(columns: &[Constraint], wanted: &[usize], space: usize, keep: Option<usize>) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = columns
        .iter()
        .zip(wanted)
        .map(|(column, &wanted)| Some(column.least.unwrap_or(wanted).min(wanted)))
        .collect();
    let taken = |widths: &[Option<usize>]| widths.iter().flatten().map(|width| width + 1).sum::<usize>();
    // The space after the last one is not there.
    let space = space + 1;
    while taken(&widths) > space {
        let there = columns.iter().enumerate().filter(|(at, _)| widths[*at].is_some() && keep != Some(*at));
        let next =
            there.filter(|(_, column)| column.yields > 0).max_by_key(|(at, column)| (column.yields, *at));
        let Some((at, _)) = next else { break };
        widths[at] = None;
    }
    // What is left over goes to texts: first up to their usual width, then to what is longer.
    for usual in [true, false] {
        for (at, column) in columns.iter().enumerate() {
            let left = space.saturating_sub(taken(&widths));
            let goal = if usual { wanted[at].min(column.width) } else { wanted[at] };
            if let Some(width) = &mut widths[at] {
                *width += goal.saturating_sub(*width).min(left);
            }
        }
    }
    widths
}

/// A text in so many characters of a terminal: what is cut is replaced by `…`, at the end, or within a path.
pub(crate) fn cut(text: &str, width: usize, is_path: bool) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let Some(space) = width.checked_sub(1) else { return Cow::Borrowed("") };
    let end = if is_path { space * 2 / 3 } else { 0 };
    let take = |chars: &mut dyn Iterator<Item = char>, space: usize| {
        let mut taken = 0;
        let fits = |c: &char| {
            taken += c.width().unwrap_or(0);
            taken <= space
        };
        chars.take_while(fits).collect::<String>()
    };
    let mut cut = take(&mut text.chars(), space - end);
    cut.push('…');
    cut.extend(take(&mut text.chars().rev(), end).chars().rev());
    Cow::Owned(cut)
}

/// Writes a line in pieces of one style each.
#[derive(Debug, Default)]
struct Pen {
    spans: Vec<Span<'static>>,
    plain: String,
}

impl Pen {
    fn pad(&mut self, width: usize) {
        self.plain.extend(std::iter::repeat_n(' ', width));
    }

    fn text(&mut self, text: &str, highlight: bool) {
        if highlight {
            self.spans.push(Span::raw(std::mem::take(&mut self.plain)));
            self.spans.push(Span::styled(text.to_owned(), HIGHLIGHT));
        } else {
            self.plain.push_str(text);
        }
    }

    fn line(mut self, space: Option<usize>) -> Line<'static> {
        self.plain.truncate(self.plain.trim_end().len());
        self.spans.push(Span::raw(self.plain));
        self.spans.retain(|span| !span.content.is_empty());
        clipped(Line::from(self.spans), space)
    }
}

/// A line that goes no further than the space.
pub(crate) fn clipped(mut line: Line<'static>, space: Option<usize>) -> Line<'static> {
    let Some(mut space) = space else { return line };
    for span in &mut line.spans {
        span.content = Cow::Owned(cut(&span.content, space, false).into_owned());
        space -= span.content.width().min(space);
    }
    line
}

/// A text in lines of at most this width; a word that is longer has a line of its own.
pub(crate) fn wrapped(text: &str, indent: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let begin = text.len() - text.trim_start().len();
    let mut lines = vec![text[..begin].to_owned()];
    let mut is_empty = true;
    for word in text[begin..].split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if !is_empty && line.width() + 1 + word.width() > width {
            lines.push(format!("{indent}{word}"));
        } else {
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_as_wide_as_it_may_be() {
        assert_eq!(cut("postgres", 8, false), "postgres");
        assert_eq!(cut("postgres", 5, false), "post…");
        assert_eq!(cut("/usr/lib/x86_64-linux-gnu/libc.so.6", 20, true), "/usr/li…nu/libc.so.6");
        // Two columns each: one of them does not fit.
        assert_eq!((cut("漢字漢字", 6, false), cut("漢字漢字", 5, false)), ("漢字…".into(), "漢字…".into()));
        assert_eq!((cut("ab", 1, true), cut("ab", 0, false)), ("…".into(), "".into()));
        for width in 0..40 {
            for text in ["漢/字a/é漢/b字字c", "/a/b/c/dddddddddddddddd/e", "x"] {
                assert!(cut(text, width, true).width() <= width, "{text} in {width}");
            }
        }
    }

    #[test]
    fn columns_give_way_in_their_order_and_numbers_are_never_cut() {
        let constraint = |title, width, least, yields| Constraint {
            title,
            width,
            least,
            yields,
            left: least.is_some(),
            is_path: false,
            grows: false,
        };
        let columns = || {
            vec![
                constraint("NAME", 10, Some(4), 0),
                constraint("N", 5, None, 1),
                constraint("M", 5, None, 2),
                constraint("K", 3, None, 0),
            ]
        };
        let row = |cells: [&str; 4]| {
            cells.map(|text| Text { text: text.into(), highlight: false }).into_iter().collect::<Vec<_>>()
        };
        let rows = [row(["a-long-name-that-is-cut", "1", "123456789", "2"])];
        let shown = |space, keep| {
            let plan = Plan::new(columns(), &rows, space, keep);
            format!("{}|{}", plan.headings(Style::new()), plan.line(&rows[0]))
        };
        assert_eq!(
            shown(None, None),
            "NAME           N     M   K|a-long-name-that-is-cut     1 123456789   2"
        );
        assert_eq!(
            shown(Some(45), None),
            "NAME                        N         M   K|a-long-name-that-is-cut     1 123456789   2"
        );
        assert_eq!(shown(Some(25), None), "NAME      N         M   K|a-lo…     1 123456789   2");
        assert_eq!(shown(Some(20), None), "NAME           N   K|a-long-na…     1   2");
        assert_eq!(shown(Some(22), Some(2)), "NAME             M   K|a-long-… 123456789   2");
        assert_eq!(shown(Some(8), None), "NAME   K|a-l…   2");
        assert_eq!(shown(Some(6), None), "NAME …|a-l… …");
    }

    #[test]
    fn sentences_are_wrapped_below_their_beginning() {
        let lines = wrapped("1. a bb ccc dddd /a/path/that/is/long e", "   ", Some(12));
        assert_eq!(lines, ["1. a bb ccc", "   dddd", "   /a/path/that/is/long", "   e"]);
        assert_eq!(wrapped("   x y", "   ", Some(4)), ["   x", "   y"]);
        assert_eq!(wrapped("x y", "", None), ["x y"]);
        assert_eq!(wrapped("漢字 x", "", Some(5)), ["漢字", "x"], "columns, not bytes");
    }
}
