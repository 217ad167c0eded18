//! The words of trapline: what a source yields and a sink takes. Nothing in here does I/O.
//!
//! Each figure of each tool is declared once, as a column of a table; tables for people, JSON lines, CSV and every
//! other format read that declaration. A [`Record`] is a row of a table; an [`Item`] is one step of a stream of them.

pub mod access;
mod batch;
pub mod diff;
pub mod doctor;
mod edit_distance;
pub mod explain;
pub mod faults;
mod field;
mod hist;
mod hosts;
mod item;
mod join;
mod kept;
pub mod kvm;
pub mod layout;
mod ledger;
mod merge;
pub mod prefetch;
pub mod recorded;
pub mod report;
pub mod sgx;
pub mod stage;
mod table;
mod tables;

pub use batch::{Batch, BatchSink, Plain};
pub use edit_distance::edit_distance;
pub use field::{Bucket, Cell, Field, Highlight, Kind, Merge, Record, Show, Type, Unit, Value};
pub use hist::{BUCKETS, Extremes, Hist, bounds, bucket};
pub use hosts::{has_host, hosted, with_host};
pub use item::{
    Block, COMMAND, CUT_OFF, CutOff, Event, Facts, Header, Item, Name, RUN, SCOPE, SHOWN, Scope, Shown, Sink,
    Source, Took, WHOLE_RUN, WholeRun, lost,
};
pub use join::{AddedUp, Join, Joining};
pub use kept::{KEPT, Kept};
pub use merge::{AsItems, Merged};
pub use table::{Columns, Of, Part, Relative, Schema, Table};
pub use tables::{TABLES, table};
