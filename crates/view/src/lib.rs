//! Model to text and files: tables, JSON lines, CSV, profiles, traces. Each format is a [`Sink`](trapline_model::Sink) over a writer; what it
//! writes follows from the items it is given and from nothing else.

mod blocks;
mod clock;
mod columns;
mod csv;
mod damo;
mod doctor;
mod end;
mod escape;
mod firefox;
mod fit;
mod flame;
mod frames;
mod histogram;
mod jsonl;
mod live;
mod moment;
mod perfetto;
mod pprof;
mod report;
mod table;
mod template;
pub mod top;

pub use csv::Csv;
pub use damo::Damo;
pub use doctor::{doctor, programs};
pub use end::end_lines;
pub use escape::visible;
pub use firefox::Firefox;
pub use fit::Space;
pub use flame::{Flame, FlameForm, Weight};
pub use jsonl::JsonLines;
pub use live::{Key, Live};
pub use perfetto::Perfetto;
pub use pprof::Pprof;
pub use report::write_report;
pub use table::{Screen, Table};
