//! The formats of an output: each is declared here, with what it can do and the sink that writes it.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::tz::TimeZone;
use trapline_model::layout::{DECLARED, Layout};
use trapline_model::stage::Controls;
use trapline_model::{Schema, Sink};
use trapline_store::{Kept, Recorder, SingleTable};
use trapline_view::{Csv, Damo, Firefox, Flame, FlameForm, JsonLines, Perfetto, Pprof, Screen, Table};

use crate::args::Look;
use crate::output::When;
use crate::sink::{To, file};
use crate::status::Usage;

/// The format of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object per line
    Jsonl,
    /// One table of comma-separated values
    Csv,
    /// One table as a Parquet file, written at the end
    Parquet,
    /// A recording for `trapline replay`: a folder of Parquet files that grows, and survives a kill (-o NAME.trapline)
    Recording,
    /// Stacks for flame graphs: `frame;frame N` a line (faults --by stack)
    Folded,
    /// A flame graph (faults --by stack)
    Svg,
    /// A profile for pprof: each row a sample, written at the end
    Pprof,
    /// A profile for the Firefox Profiler: threads with samples and markers, written at the end
    Firefox,
    /// A trace for Perfetto: events as slices, rows at intervals as counters
    Perfetto,
    /// A record of accesses for damo, the tool of DAMON's users: compressed JSON, written at the end
    Damo,
}

/// What a format is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Whatever a tool shows.
    Nothing,
    /// Rows with stacks.
    Stacks,
    /// Rows.
    Rows,
    /// Events, or rows at intervals.
    Time,
    /// Accesses.
    Accesses,
}

/// What a format can do.
#[derive(Debug)]
pub(crate) struct About {
    /// What messages call it.
    pub(crate) name: &'static str,
    /// The extension of files in this format.
    pub(crate) extension: Option<&'static str>,
    pub(crate) for_people: bool,
    pub(crate) needs: Needs,
    pub(crate) when: When,
    /// It has one table, or shows as much: of events where there are any, else of rows.
    pub(crate) one_table: bool,
    /// It shows the totals, and nothing of intervals.
    pub(crate) only_totals: bool,
    /// What it shows is in an order of its own.
    pub(crate) own_order: bool,
    /// It is a folder of files.
    pub(crate) is_folder: bool,
    /// Its bytes mean nothing to a terminal.
    pub(crate) binary: bool,
    /// It has no place for what was lost: readers of the format would take that for something else.
    pub(crate) end_apart: bool,
}

impl About {
    /// Whether it can hold histograms.
    pub(crate) fn histograms(&self) -> bool {
        !self.one_table && self.needs == Needs::Nothing
    }
}

const ABOUT: About = About {
    name: "this format",
    extension: None,
    for_people: false,
    needs: Needs::Nothing,
    when: When::Meanwhile,
    one_table: false,
    only_totals: false,
    own_order: false,
    is_folder: false,
    binary: false,
    end_apart: false,
};
const FLAME: About =
    About { name: "a flame graph", needs: Needs::Stacks, when: When::AtTheEnd, only_totals: true, ..ABOUT };

/// What a format is told about what it is to show.
#[derive(Clone)]
pub(crate) struct Ask {
    /// The fields of the one table of formats that have no more.
    pub(crate) schema: &'static Schema,
    /// How a table for people looks.
    pub(crate) layout: &'static Layout,
    /// What makes a frame of a flame graph wide.
    pub(crate) weight: Weight,
    /// Length of a snapshot for damo, nanoseconds.
    pub(crate) window_ns: u64,
    /// Rows come at intervals, and nothing else: on a terminal they are drawn over those before.
    pub(crate) redrawn: bool,
    /// How a table looks on a terminal.
    pub(crate) look: Look,
    /// What a recording keeps.
    pub(crate) kept: Kept,
    /// Events of this table are messages: they are not recorded, and what was recorded around them is kept.
    pub(crate) messages: Option<&'static Schema>,
    /// Rows have stacks.
    pub(crate) has_stacks: bool,
    /// A terminal shows all rows that come, also where it has less space.
    pub(crate) is_whole: bool,
    /// What keys change of rows that come.
    pub(crate) controls: Option<Controls>,
}

impl Ask {
    /// Rows or events with these fields, shown as they declare.
    pub(crate) fn new(schema: &'static Schema) -> Self {
        Self {
            schema,
            layout: &DECLARED,
            weight: Weight::Count,
            window_ns: 0,
            redrawn: false,
            look: Look::default(),
            kept: Kept::All,
            messages: None,
            has_stacks: schema.has("stack"),
            is_whole: false,
            controls: None,
        }
    }
}

/// What makes a frame wide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weight {
    /// Faults
    #[default]
    Count,
    /// Time in faults; not with the variant rootless, which times nothing
    Time,
}

impl Format {
    /// What it can do.
    pub(crate) fn about(self) -> &'static About {
        match self {
            Self::Table => &const { About { extension: Some("txt"), for_people: true, ..ABOUT } },
            Self::Jsonl => &const { About { extension: Some("jsonl"), ..ABOUT } },
            Self::Csv => &const { About { name: "csv", extension: Some("csv"), one_table: true, ..ABOUT } },
            Self::Parquet => {
                &const {
                    About {
                        name: "parquet",
                        extension: Some("parquet"),
                        one_table: true,
                        binary: true,
                        when: When::AtTheEnd,
                        end_apart: true,
                        ..ABOUT
                    }
                }
            }
            Self::Recording => &const { About { extension: Some("trapline"), is_folder: true, ..ABOUT } },
            Self::Folded => &const { About { extension: Some("folded"), end_apart: true, ..FLAME } },
            Self::Svg => &const { About { extension: Some("svg"), own_order: true, ..FLAME } },
            Self::Pprof => {
                &const {
                    About {
                        name: "a profile",
                        extension: Some("pb.gz"),
                        needs: Needs::Rows,
                        own_order: true,
                        binary: true,
                        ..FLAME
                    }
                }
            }
            Self::Firefox => {
                &const {
                    About {
                        name: "a profile of threads",
                        extension: Some("json.gz"),
                        when: When::AtTheEnd,
                        one_table: true,
                        own_order: true,
                        binary: true,
                        ..ABOUT
                    }
                }
            }
            Self::Perfetto => {
                &const {
                    About {
                        name: "a trace",
                        extension: Some("perfetto-trace"),
                        needs: Needs::Time,
                        one_table: true,
                        own_order: true,
                        binary: true,
                        ..ABOUT
                    }
                }
            }
            Self::Damo => {
                &const { About { needs: Needs::Accesses, when: When::AtTheEnd, binary: true, ..ABOUT } }
            }
        }
    }

    /// The sink that writes it.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub(crate) fn sink(self, to: &To, screen: Screen, ask: Ask) -> Result<Box<dyn Sink>> {
        let out = to.out();
        let weight = match ask.weight {
            Weight::Count => trapline_view::Weight::Count,
            Weight::Time => trapline_view::Weight::Time,
        };
        Ok(match self {
            Self::Table => Box::new(Table::laid_out(out, ask.layout, screen, TimeZone::system())),
            Self::Jsonl => Box::new(JsonLines::new(out)),
            Self::Csv => Box::new(Csv::new(out, ask.schema)),
            Self::Parquet => Box::new(SingleTable::new(out, ask.schema)),
            Self::Recording => Box::new(Recorder::new(to.folder()?, ask.kept).keeping_on(ask.messages)),
            Self::Folded => Box::new(Flame::new(out, FlameForm::Folded, weight)),
            Self::Svg => Box::new(Flame::new(out, FlameForm::Svg, weight)),
            Self::Pprof => Box::new(Pprof::new(out)),
            Self::Firefox => Box::new(Firefox::new(out)),
            Self::Perfetto => Box::new(Perfetto::new(out)),
            Self::Damo => Box::new(Damo::new(out, ask.window_ns)),
        })
    }

    /// The formats that a command offers. Its other options may leave none of what a format needs.
    pub(crate) fn of(command: &str) -> &'static [Self] {
        match command {
            "faults" => &[
                Self::Table,
                Self::Jsonl,
                Self::Csv,
                Self::Parquet,
                Self::Recording,
                Self::Folded,
                Self::Svg,
                Self::Pprof,
                Self::Firefox,
                Self::Perfetto,
            ],
            "access" => &[
                Self::Table,
                Self::Jsonl,
                Self::Csv,
                Self::Parquet,
                Self::Recording,
                Self::Firefox,
                Self::Perfetto,
                Self::Damo,
            ],
            "diff" => &[Self::Table, Self::Jsonl, Self::Csv, Self::Folded, Self::Svg],
            "explain" => &[Self::Table, Self::Jsonl, Self::Csv],
            "doctor" | "workload" => &[Self::Table, Self::Jsonl],
            "replay" => Self::value_variants(),
            _ => &[
                Self::Table,
                Self::Jsonl,
                Self::Csv,
                Self::Parquet,
                Self::Recording,
                Self::Pprof,
                Self::Firefox,
                Self::Perfetto,
            ],
        }
    }

    /// Reads the name of one of these.
    pub(crate) fn parser(these: &'static [Self]) -> impl TypedValueParser<Value = Self> {
        let names = these.iter().filter_map(Self::to_possible_value);
        PossibleValuesParser::new(names).try_map(|name| Self::from_str(&name, false))
    }

    /// The format that was asked for by its name, or by the extension of the file.
    ///
    /// # Errors
    /// When the extension is that of no format.
    pub(crate) fn choose(format: Option<Self>, output: Option<&Path>) -> Result<Self> {
        let Some(path) = file(output).filter(|_| format.is_none()) else {
            return Ok(format.unwrap_or(Self::Table));
        };
        let formats = Self::value_variants().iter();
        let mut named = formats.filter_map(|format| Some((format, format.about().extension?)));
        let file = path.file_name().unwrap_or_default().as_encoded_bytes();
        let is_of = |name: &str| file.strip_suffix(name.as_bytes()).is_some_and(|file| file.ends_with(b"."));
        if let Some((format, _)) = named.clone().find(|(_, name)| is_of(name)) {
            return Ok(*format);
        }
        let last = named.next_back().map_or("", |(_, name)| name);
        let names: Vec<String> = named.map(|(_, name)| format!(".{name}")).collect();
        Err(Usage::error(format!(
            "cannot infer the output format from {}: use {} or .{last}, or add --format",
            path.display(),
            names.join(", ")
        )))
    }
}
