//! The words of trapline: what a source yields and a sink takes. Nothing in here does I/O.
//!
//! Each figure of each tool is declared once, as a [`Field`]; tables, JSON lines, CSV and every other form read that
//! declaration. A [`Record`] is a schema with its values; an [`Item`] is one step of a stream of them.

pub mod access;
pub mod doctor;
pub mod faults;
mod field;
mod hist;
mod item;
pub mod kvm;
mod likeness;
pub mod sgx;

pub use field::{Column, Field, Kind, Record, Schema, Show, Unit, Value};
pub use hist::{BUCKETS, Hist, bounds, bucket};
pub use item::{Block, End, Event, Header, Item, Name, Sink, Source};
pub use likeness::distance;
