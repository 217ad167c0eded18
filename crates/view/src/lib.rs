//! Model to text: tables, JSON lines, CSV. Each form is a [`Sink`](trapline_model::Sink) over a writer; what it
//! writes follows from the items it is given and from nothing else.

mod csv;
mod doctor;
mod escape;
mod ftrace;
mod jsonl;
mod table;

pub use csv::Csv;
pub use doctor::{doctor, programs};
pub use escape::visible;
pub use ftrace::Ftrace;
pub use jsonl::JsonLines;
pub use table::{Screen, Table};
