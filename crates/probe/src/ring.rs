//! The ring through which the kernel half sends events.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytemuck::{AnyBitPattern, pod_read_unaligned};
use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};

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
        Self::with(map, move |bytes, into| {
            // Records are T; shorter ones there are not.
            if let Some(bytes) = bytes.get(..size_of::<T>()) {
                into.extend(turn(&pod_read_unaligned(bytes)));
            }
        })
    }

    /// Over a ring buffer map whose records are of several sorts: their lengths tell which.
    pub(crate) fn of_many<I>(map: &MapHandle, turn: impl Fn(&[u8]) -> I + 'static) -> Result<Self>
    where
        I: IntoIterator<Item = E>,
    {
        Self::with(map, move |bytes, into| into.extend(turn(bytes)))
    }

    fn with(map: &MapHandle, take: impl Fn(&[u8], &mut Vec<E>) + 'static) -> Result<Self> {
        let read = Rc::new(RefCell::new(Vec::new()));
        let into = Rc::clone(&read);
        let mut builder = RingBufferBuilder::new();
        builder.add(map, move |bytes| {
            take(bytes, &mut into.borrow_mut());
            0
        })?;
        Ok(Self { buffer: builder.build().context("cannot map the ring buffer")?, read })
    }

    /// Moves what waits in the ring to the end of `events`.
    pub(crate) fn drain(&self, events: &mut Vec<E>) -> Result<()> {
        self.buffer.consume().context("cannot read the events")?;
        let read = &mut *self.read.borrow_mut();
        if events.is_empty() {
            // Nothing is copied, and both keep their memory.
            std::mem::swap(events, read);
        } else {
            events.append(read);
        }
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
