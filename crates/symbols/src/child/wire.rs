//! What the symbolizer and trapline say to each other, in packets.

use serde::{Deserialize, Serialize};

pub(super) use crate::packet::{LARGEST, receive, send};
use crate::unwind::Row;

/// The largest number of addresses in a request: one call chain, and its answer fits into a packet in most cases.
pub(crate) const ADDRESSES: usize = 128;

/// A file, by the number that trapline gives it.
pub(crate) type Id = u32;

/// What trapline asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Read an executable or library; its descriptor comes with the request.
    Open {
        id: Id,
        size: u64,
        /// Read its debug information too.
        lines: bool,
    },
    /// A file with the debug information of one that is open; its descriptor comes with the request.
    Debug { id: Id, size: u64 },
    /// Read a perf map, or what was added to it; its descriptor comes with the request.
    Map { id: Id, size: u64 },
    /// The functions at offsets in a file, or at addresses of a perf map.
    Find { id: Id, at: Vec<u64> },
    /// Where a function begins in a file that is open: by its name, or by an address as `0x…`. `shown` is the file's name
    /// for people.
    Function { id: Id, wanted: String, shown: String },
    /// The USDT points of a file that is open, from one on.
    Points { id: Id, from: u32 },
    /// The unwind table of a file that is open, from one row on.
    Unwind { id: Id, from: u32 },
    /// What a file that is open needs to run.
    Needs { id: Id },
    /// Tries what is forbidden.
    #[cfg(test)]
    Misbehave(Misdeed),
}

/// What a test has the symbolizer try.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Misdeed {
    /// Open a file, make a socket, make a process, signal another, map memory to be executed: the numbers of the errors.
    Calls,
    /// Never answer.
    Hang,
    /// Take all memory.
    Swell,
    /// Say what is no message.
    Babble,
}

/// What the symbolizer answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The file was read.
    Opened {
        /// Its build id, and its debuglink, if its debug information is elsewhere.
        build_id: Vec<u8>,
        debug_link: Vec<u8>,
    },
    /// The perf map was read, or the debug information fits.
    Done,
    /// That file is not open, or not any more.
    NotOpen,
    /// The file cannot be used.
    Bad(String),
    /// One for each of the first addresses that were asked for: outermost function first.
    Found(Vec<Result<Vec<Frame>, Miss>>),
    /// Where the function begins in the file, bytes, and whether it may be left by unwinding; or why there is none.
    Function(Result<(u64, bool), String>),
    /// As many of the points as fit; none if there are no more.
    Points(Vec<Point>),
    /// The names of its dynamic linker and libraries.
    Names(Vec<Vec<u8>>),
    /// As many of the rows as fit, and how many there are in all.
    Rows(Vec<Row>, u32),
    #[cfg(test)]
    Errors(Vec<i32>),
}

/// A USDT point; a name may have several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Whose points they are.
    pub provider: String,
    /// Its name among them.
    pub name: String,
    /// Of its instruction in the file, bytes.
    pub offset: u64,
    /// Of the counter that makes it do its work, in the file; 0 if it has none.
    pub semaphore: u64,
}

/// A function, and where in it the address is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) file: Option<String>,
    pub(crate) line: u32,
}

/// Why there is no function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Miss {
    /// The file has no symbols at all.
    Stripped,
    /// It has none for this address.
    NoSymbol,
}
