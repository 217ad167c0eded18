//! What the symbolizer and trapline say to each other: one message for one packet of a Unix socket.
//!
//! Neither side trusts a length: a packet has a largest size, and what is in it cannot be longer than the packet.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest packet, bytes: less than a socket's buffer holds by default (net.core.wmem_default, 212,992).
pub(super) const LARGEST: usize = 128 << 10;

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

/// Sends a message.
///
/// # Errors
/// When the other side has gone, or does not read (`EAGAIN` on a socket that does not wait).
pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > LARGEST {
        return Err(io::Error::other("the message is too long"));
    }
    let fds: Vec<_> = file.iter().map(AsRawFd::as_raw_fd).collect();
    let control = ControlMessage::ScmRights(&fds);
    let control = if fds.is_empty() { &[][..] } else { std::slice::from_ref(&control) };
    let parts = [IoSlice::new(&bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives a message, and the descriptor that came with it; nothing if the other side has gone.
///
/// # Errors
/// When it is no message.
#[allow(unsafe_code)]
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    buffer.resize(LARGEST, 0);
    let mut control = cmsg_space!([i32; 1]);
    let (bytes, flags, file) = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let received =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC);
        let received = match received {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut file = None;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                // SAFETY: the kernel has just given us these descriptors, and nobody else has them.
                file = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next_back();
            }
        }
        break (received.bytes, received.flags, file);
    };
    if bytes == 0 {
        return Ok(None);
    }
    if flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::other("the message is too long"));
    }
    let message = postcard::from_bytes(buffer.get(..bytes).unwrap_or_default()).map_err(io::Error::other)?;
    Ok(Some((message, file)))
}
