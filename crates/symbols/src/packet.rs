//! A message, with at most one descriptor, as a packet of a Unix socket: how we talk with processes that we start.
//!
//! Neither side trusts a length: a packet has a largest size, and what is in it cannot be longer than the packet.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest packet, bytes: less than a socket's buffer holds by default (net.core.wmem_default, 212,992).
pub const LARGEST: usize = 128 << 10;

/// Sends a message.
///
/// # Errors
/// When the other side has gone, or does not read (`EAGAIN` on a socket that does not wait).
pub fn send<T: Serialize>(
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
pub fn receive<T: DeserializeOwned>(
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
