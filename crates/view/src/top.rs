//! Everything on one screen. [`State`] takes keys and the items of any number of tools, says what is to be done for them
//! ([`Command`]), and draws itself into a buffer: it reads no clock, no terminal and no tool.

mod act;
mod bars;
mod draw;
mod face;
mod history;
mod keys;
mod overview;
mod pane;
mod press;
mod recorded;
mod row;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod tool;

pub use face::{Begin, Command, Face, Group, Look, Want};
pub use press::{Keyboard, Press};
pub use recorded::EVENTS;
pub use state::{Input, State};
