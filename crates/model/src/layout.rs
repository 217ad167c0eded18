//! How a table for people looks, as data: its lines, its columns where they are not those that the fields declare, and
//! where a histogram is drawn.
//!
//! Lines are templates. `{name}` is a value; `{name:>8}` is filled up on the left to 8 characters, `{name:<8}` on the
//! right, `{name:08}` with zeros. After the width come decimals and the form: `x` and `#x` are hexadecimal, `s`, `ms` and
//! `us` are nanoseconds in these units, `%` is millionths, `size` is bytes with a unit. `{a/b}` is a quotient of whole numbers, 0 if `b` is
//! 0. `[A|B]` is A where all its values are known, else B, which may be left out; `{?name=value}` in it prints
//! nothing and asks for that value. A backslash takes the meaning from the character behind it.

/// How a table for people looks.
#[derive(Debug)]
pub struct Layout {
    /// Its name: the tool's, and which of its layouts it is.
    pub id: &'static str,
    /// Lines at the beginning, of the header's fields and settings and `note`, which is all of them; those that turn out
    /// empty are left out.
    pub opening: &'static [&'static str],
    /// How events are shown.
    pub events: Events,
    /// How blocks are shown: the first of these that is about their table.
    pub sections: &'static [Section],
    /// Lines at the end, of the end's figures and losses, where a loss that is not there is not known, and `end`, which is all of
    /// them; those that turn out empty are left out.
    pub closing: &'static [&'static str],
    /// What lines begin with that are not those of events.
    pub mark: &'static str,
}

/// How events are shown.
#[derive(Debug)]
pub enum Events {
    /// Under headings that are written once, after the time of day, as their fields declare.
    Declared,
    /// A line of their fields and `time_ns` each; those for which it turns out empty are left out.
    Line(&'static str),
}

/// How the blocks of a table are shown.
#[derive(Debug)]
pub struct Section {
    /// The table's id; all others if it is empty.
    pub table: &'static str,
    /// The rows of an interval.
    pub rows: Part,
    /// The totals.
    pub totals: Part,
}

/// How a block is shown.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// A line above it: of `clock`, the time of day; `at_ns`, the time since the start; `note`.
    pub title: &'static str,
    /// Its rows.
    pub body: Body,
    /// Histograms below them.
    pub histogram: Histogram,
    /// An empty line comes first.
    pub apart: bool,
    /// An empty line comes last.
    pub ended: bool,
    /// Where nothing was counted, the title says so and no more is shown.
    pub or_none: bool,
}

/// How rows are shown.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// Not at all.
    None,
    /// Under headings, as their fields declare; then how many are hidden, and the sum.
    Declared,
    /// The same in these columns.
    Columns(&'static [Column]),
    /// The sum in a line after this time, under headings that are written once; all of it left-aligned.
    Line(&'static str),
    /// Each as lines of its fields and `number`, its number in the block, which are wrapped where the terminal ends.
    Paragraphs(&'static [&'static str]),
    /// Each after those of the interval before, under a title and headings that are written where the last lines were
    /// about something else.
    Appended,
}

/// A column that is not a field's.
#[derive(Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// A row's cell.
    pub cell: &'static str,
    /// The sum's cell.
    pub sum: &'static str,
    /// Characters; it is wider where a cell is.
    pub width: usize,
    /// Cells are filled up on the right.
    pub left: bool,
    /// Characters to which cells may be cut where a terminal is narrow; 0 if they may not.
    pub least: usize,
    /// The order in which columns give way there: the largest first, 0 never.
    pub yields: u8,
}

/// Which histograms are drawn.
#[derive(Debug, Clone, Copy)]
pub enum Histogram {
    /// None.
    None,
    /// The sum's; what its values are.
    Sum(&'static str),
    /// That of each row.
    Rows,
    /// That of each row under a line of its fields, with an empty line behind it.
    Titled(&'static str),
}

impl Layout {
    /// Whether rows are shown one by one, and not only their sum or events.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        let shows = |part: &Part| {
            matches!(part.body, Body::Declared | Body::Columns(_) | Body::Paragraphs(_) | Body::Appended)
                || matches!(part.histogram, Histogram::Rows | Histogram::Titled(_))
        };
        self.sections.iter().any(|section| shows(&section.rows) || shows(&section.totals))
    }
}

impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Layout {}

impl Part {
    /// Nothing at all.
    pub const NONE: Self = Self {
        title: "",
        body: Body::None,
        histogram: Histogram::None,
        apart: false,
        ended: false,
        or_none: false,
    };
}

/// As the fields declare.
pub static DECLARED: Layout = Layout {
    id: "declared",
    opening: &[],
    events: Events::Declared,
    sections: &[Section {
        table: "",
        rows: Part { title: "\\[{clock}\\] {note}", body: Body::Declared, ended: true, ..Part::NONE },
        totals: Part {
            title: "Totals, {note}",
            body: Body::Declared,
            histogram: Histogram::Sum(""),
            ..Part::NONE
        },
    }],
    closing: &["{end}"],
    mark: "",
};

/// Every layout: see [`Layout::id`].
pub static LAYOUTS: &[&Layout] = &[
    &DECLARED,
    &crate::faults::HIST,
    &crate::faults::HIST_EACH,
    &crate::kvm::COUNT,
    &crate::kvm::TIME,
    &crate::kvm::HIST,
    &crate::kvm::HIST_EACH,
    &crate::kvm::SLOWER,
    &crate::sgx::LINES,
    &crate::access::TRACE,
    &crate::access::SUMMARY,
    &crate::diff::LAYOUT,
    &crate::explain::LAYOUT,
];

/// The layout of an id.
#[must_use]
pub fn layout(id: &str) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.id == id).copied()
}
