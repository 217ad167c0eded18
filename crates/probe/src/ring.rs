//! The ring through which the kernel half sends events, and the order of what comes through several.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytemuck::{AnyBitPattern, pod_read_unaligned};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

use crate::system;

/// Drains rings into what waits, and takes out what happened up to now, in the order in which it happened.
///
/// What comes while the rings are read waits: what a process did before that may be in a ring that was read already, such
/// as the exec that says whose stack it is, or its last access before its end.
pub(crate) fn up_to_now<E>(
    waiting: &mut Vec<E>,
    time_ns: impl Fn(&E) -> u64,
    drain: impl FnOnce(&mut Vec<E>),
) -> Vec<E> {
    let now = system::monotonic_ns();
    drain(waiting);
    waiting.sort_by_key(&time_ns);
    let ready = waiting.partition_point(|event| time_ns(event) <= now);
    waiting.drain(..ready).collect()
}

/// Events of the kernel half, each turned into any number of `E` as it is read.
pub(crate) struct Ring<E> {
    buffer: RingBuffer<'static>,
    read: Rc<RefCell<Vec<E>>>,
}

impl<E: 'static> Ring<E> {
    /// Over a ring buffer map whose records are `T`.
    pub(crate) fn new<T, I>(map: &MapHandle, turn: impl Fn(&T) -> I + 'static) -> Result<Self>
    where
        T: AnyBitPattern,
        I: IntoIterator<Item = E>,
    {
        // Records are T; shorter ones there are not.
        let read = move |bytes: &[u8]| bytes.get(..size_of::<T>()).map(|b| turn(&pod_read_unaligned(b)));
        Self::of_many(map, move |bytes| read(bytes).into_iter().flatten())
    }

    /// Over a ring buffer map whose records are of several sorts: their lengths tell which.
    pub(crate) fn of_many<I>(map: &MapHandle, turn: impl Fn(&[u8]) -> I + 'static) -> Result<Self>
    where
        I: IntoIterator<Item = E>,
    {
        let read = Rc::new(RefCell::new(Vec::new()));
        let into = Rc::clone(&read);
        let mut builder = RingBufferBuilder::new();
        builder.add(map, move |bytes| {
            into.borrow_mut().extend(turn(bytes));
            0
        })?;
        Ok(Self { buffer: builder.build().context("cannot map the ring")?, read })
    }

    /// Moves what waits in the ring to the end of `events`.
    pub(crate) fn drain(&self, events: &mut Vec<E>) -> Result<()> {
        self.buffer.consume().context("cannot read the events")?;
        events.append(&mut self.read.borrow_mut());
        Ok(())
    }

    /// Becomes readable when something waits.
    #[allow(unsafe_code)]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the buffer, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.buffer.epoll_fd()) }
    }
}

impl<E> fmt::Debug for Ring<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("read", &self.read.borrow().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One ring is read before something happens, of which another then tells.
    #[test]
    fn what_comes_while_rings_are_read_waits_for_what_was_before_it() {
        let mut waiting = vec![];
        let mut later = 0;
        let ready = up_to_now(
            &mut waiting,
            |&(time, _)| time,
            |events: &mut Vec<(u64, &str)>| {
                events.push((1, "access"));
                later = system::monotonic_ns() + 1_000_000;
                events.extend([(later, "end"), (0, "begin")]);
            },
        );
        assert_eq!(ready, [(0, "begin"), (1, "access")]);
        while system::monotonic_ns() <= later {}
        let ready =
            up_to_now(&mut waiting, |&(time, _)| time, |events| events.push((later - 1, "last access")));
        assert_eq!(ready, [(later - 1, "last access"), (later, "end")]);
        assert!(waiting.is_empty());
    }
}
