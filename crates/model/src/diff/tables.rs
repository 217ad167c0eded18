//! The tables of differences, and how they look.

use super::Figure;
use crate::field::Show::{Integer, Text};
use crate::field::{Kind, Unit, Value};
use crate::layout::{Body, Column, Events, Histogram, Layout, Part, Section};
use crate::table::{Schema, Table, flag, key, label, number, signed};

/// A figure of what rows are about, on both sides, in thousandths of its unit.
#[derive(Debug)]
pub struct Row {
    figure: &'static str,
    pub(super) name: Option<String>,
    unit: String,
    before: Option<u64>,
    after: Option<u64>,
    /// The larger spread of the sides that have several runs.
    noise: Option<u64>,
    only: Option<&'static str>,
}

impl Row {
    /// Nothing if the figure is known on no side, or nothing happened on both.
    pub(super) fn new(
        figure: &'static str,
        name: Option<String>,
        unit: String,
        before: Option<Figure>,
        after: Option<Figure>,
        only: Option<&'static str>,
    ) -> Option<Self> {
        let noise = [before, after].into_iter().flatten().filter_map(|side| side.spread).max();
        let (before, after) = (before.map(|side| side.mean), after.map(|side| side.mean));
        let is_any = before.unwrap_or(0) > 0 || after.unwrap_or(0) > 0;
        is_any.then_some(Self { figure, name, unit, before, after, noise, only })
    }

    fn diff(&self) -> Option<i64> {
        let diff = i128::from(self.after?) - i128::from(self.before?);
        i64::try_from(diff).ok()
    }

    /// The difference of the larger and the lesser, if both are known.
    pub(super) fn size(&self) -> Option<u64> {
        self.diff().map(i64::unsigned_abs)
    }

    fn change_ppm(&self) -> Option<i64> {
        let before = self.before.filter(|before| *before > 0)?;
        i64::try_from(i128::from(self.diff()?) * 1_000_000 / i128::from(before)).ok()
    }

    fn is_noise(&self) -> Option<bool> {
        Some(self.size()? <= self.noise?)
    }
}

const FIGURE: (Unit, Kind) = (Unit::Count, Kind::Gauge);

/// Differences, a row for each figure and what it is about.
#[rustfmt::skip]
pub(super) static DIFFERENCES: Table<Row> = Table::new("diff.rows", "diff", &[&[
    key("figure", "The column of the recordings that is compared.", |r: &Row| Value::word(r.figure)).shown("FIGURE", 10, Text),
    key("name", "What the row is about: a command, a file, a stack, a cause, an exit; null for rows without a name.", |r: &Row| r.name.as_deref().into()).shown("NAME", 40, Text).least(14),
    label("unit", "The unit of the figure: ns, bytes or count; per second (/s), per operation (/op), or as it is.", |r: &Row| r.unit.as_str().into()).shown("UNIT", 8, Text),
    number("before", FIGURE, "The figure before, the mean of the recordings, thousandths of the unit; null if unknown.", |r: &Row| r.before.into()).shown("BEFORE", 14, Integer),
    number("after", FIGURE, "The figure after, the mean of the recordings, thousandths of the unit; null if unknown.", |r: &Row| r.after.into()).shown("AFTER", 14, Integer),
    signed("diff", "The figure after minus the figure before, thousandths of the unit.", |r: &Row| r.diff().into()).shown("DIFF", 14, Integer),
    signed("change_ppm", "The difference in relation to the figure before, millionths; null if that is 0.", |r: &Row| r.change_ppm().into()).shown("CHANGE_PPM", 10, Integer).yields(3),
    number("noise", FIGURE, "The noise, thousandths of the unit: the spread of repeated recordings from the least to the greatest, on the side where it is larger; null without repeated ones.", |r: &Row| r.noise.into()).shown("NOISE", 14, Integer).yields(4),
    flag("within_noise", "Whether the difference is no larger than the noise; null if there is no noise known.", |r: &Row| r.is_noise().into()).shown("WITHIN", 6, Text).yields(5),
    label("only", "The side that has the row, where the other has none: before or after.", |r: &Row| r.only.map(Value::word).into()).shown("ONLY", 6, Text).yields(6),
]]);

/// Differences.
pub const ROWS: &Schema = &DIFFERENCES;

/// How runs were compared.
#[derive(Debug)]
pub struct Settings {
    pub(super) of: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) per: String,
    pub(super) differences: Option<String>,
}

/// How runs were compared, as records.
#[rustfmt::skip]
pub(super) static SETTINGS: Table<Settings> = Table::settings("diff.settings", "diff", &[&[
    label("of", "The tables that are compared.", |s: &Settings| s.of.as_str().into()).shown("of", 0, Text),
    label("before", "The recordings before.", |s: &Settings| s.before.as_str().into()).shown("before:", 0, Text),
    label("after", "The recordings after.", |s: &Settings| s.after.as_str().into()).shown("after:", 0, Text),
    label("per", "What figures are divided by: second, operation, or the name of a figure.", |s: &Settings| s.per.as_str().into()).shown("per", 0, Text),
    label("differences", "Where the runs differ: in variant, host, kernel, version or settings; null if in nothing.", |s| s.differences.as_deref().into()),
]]);

/// What a reader should know of the runs as a whole.
#[derive(Debug)]
pub struct Noted {
    pub(super) before_losses: Option<String>,
    pub(super) after_losses: Option<String>,
    pub(super) repeated: bool,
}

/// That, as records.
#[rustfmt::skip]
pub(super) static FACTS: Table<Noted> = Table::facts("diff.facts", "diff", &[&[
    label("before_losses", "The losses of the recordings before; null if nothing was lost.", |n: &Noted| n.before_losses.as_deref().into()),
    label("after_losses", "The losses of the recordings after; null if nothing was lost.", |n: &Noted| n.after_losses.as_deref().into()),
    flag("repeated", "Whether a side has several recordings, so that noise is known.", |n: &Noted| n.repeated.into()),
]]);

/// All of them.
pub(crate) const TABLES: &[&Schema] = &[ROWS, &SETTINGS, &FACTS];

/// A time is in milliseconds, all else as it is.
macro_rules! figure {
    ($name:literal) => {
        concat!(
            "[{?unit=ns/s}{",
            $name,
            ":.3s}|[{?unit=ns/op}{",
            $name,
            ":.3s}|[{?unit=ns}{",
            $name,
            ":.3s}|{",
            $name,
            ":.3us}]]]"
        )
    };
}

const fn column(title: &'static str, cell: &'static str, yields: u8) -> Column {
    Column { title, cell, sum: cell, width: 9, left: false, least: 0, yields }
}

const fn text(title: &'static str, cell: &'static str, (width, least): (usize, usize)) -> Column {
    Column { title, cell, sum: cell, width, left: true, least, yields: 0 }
}

const COLUMNS: &[Column] = &[
    text("FIGURE", "{figure}", (8, 0)),
    text("NAME", "[{name}|(no name)]", (30, 15)),
    column("BEFORE", figure!("before"), 2),
    column("AFTER", figure!("after"), 1),
    column("DIFF", figure!("diff"), 0),
    text("UNIT", "[{?unit=ns/s}ms/s|[{?unit=ns/op}ms/op|[{?unit=ns}ms|{unit}]]]", (7, 0)),
    column("CHANGE", "[only {only}|[{change_ppm:.1%} %|[{?before=0}from 0]]]", 0),
    column("NOISE", figure!("noise"), 3),
    text("", "[{?within_noise=1}within noise]", (0, 0)),
];

/// Differences for people.
pub static LAYOUT: Layout = Layout {
    id: "diff.declared",
    opening: &["{note}", "[different: {differences}]"],
    events: Events::Line(""),
    sections: &[Section {
        table: "",
        rows: Part::NONE,
        totals: Part { body: Body::Columns(COLUMNS), histogram: Histogram::None, apart: true, ..Part::NONE },
    }],
    closing: &[
        "",
        "[losses before: {before_losses}|nothing lost before]; [after: {after_losses}|nothing lost after]",
        "[{?repeated=1}noise: the spread of repeated recordings, from the least to the greatest\
         |no noise is known: a single recording on each side does not show it]",
    ],
    mark: "",
};
