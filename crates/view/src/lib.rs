//! Model to text: tables, JSON lines, CSV. Each form is a [`Sink`](trapline_model::Sink) over a writer; what it
//! writes follows from the items it is given and from nothing else.

mod csv;
mod damo;
mod doctor;
mod escape;
mod flame;
mod ftrace;
mod histogram;
mod jsonl;
mod kvm;
mod lines;
mod summary;
mod table;

pub use csv::Csv;
pub use damo::Damo;
pub use doctor::{doctor, programs};
pub use escape::visible;
pub use flame::{Flame, FlameForm, Weight};
pub use ftrace::Ftrace;
pub use jsonl::JsonLines;
pub use kvm::{KvmForm, KvmTable};
pub use lines::Lines;
pub use summary::AccessSummary;
pub use table::{Screen, Table, end_line};
